import { useEffect, useMemo, useState } from "preact/hooks";

import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Run, Series } from "../../api/types";
import { rangeOf, rangeText, useParameter } from "../../state/address";
import { duration, measured } from "../../lib/format";
import { lineColor } from "../../lib/ramp";
import { Check, Choice, Command, Empty, Panel, Problem } from "../../ui/basic";
import { Plot, type Line, type Mark } from "../../ui/plot";
import { Events, useEvents } from "../cluster/events";
import { Checkpoints } from "./checkpoints";
import { Failures } from "./failures";
import { StepTime } from "./step_time";
import { evaluations, linesOf, marksOf, stepScale, stepsPerEpoch, type StepScale, type XAxis } from "./series";

/** So many portions of steps are asked for: about as many as a plot has pixels. */
const POINTS = 1_000;

/** How curves are looked at; the address keeps it. */
export interface Look {
  axis: XAxis;
  smoothing: number;
  log: boolean;
  /** The steps that are shown; null for all. */
  steps: [number, number] | null;
  setSteps: (steps: [number, number] | null) => void;
}

/** Reads how curves are looked at. */
export function useLook(): Look {
  const [axis] = useParameter("x", "step");
  const [smoothing] = useParameter("smooth", "0");
  const [log] = useParameter("log");
  const [zoom, setZoom] = useParameter("zoom");
  return {
    axis: axis === "time" || axis === "epoch" ? axis : "step",
    smoothing: Math.min(0.999, Math.max(0, Number(smoothing) || 0)),
    log: log === "1",
    steps: useMemo(() => rangeOf(zoom), [zoom]),
    setSteps: (steps) => setZoom(rangeText(steps)),
  };
}

/** What there is to choose about curves. */
export function LookTools({ look, times, epochs }: { look: Look; times: boolean; epochs: boolean }) {
  const [, setAxis] = useParameter("x", "step");
  const [smoothing, setSmoothing] = useParameter("smooth", "0");
  const [, setLog] = useParameter("log");
  const axes: { value: XAxis; label: string }[] = [
    { value: "step", label: "step" },
    ...(times ? [{ value: "time" as const, label: "training time" }] : []),
    ...(epochs ? [{ value: "epoch" as const, label: "epoch" }] : []),
  ];
  return (
    <div class="look">
      <Choice label="X axis" value={look.axis} options={axes} set={setAxis} />
      <label class="field">
        <span>Smoothing</span>
        <input
          type="range"
          min={0}
          max={0.99}
          step={0.01}
          value={smoothing}
          aria-valuetext={`${look.smoothing}`}
          onInput={(event) => setSmoothing(event.currentTarget.value)}
        />
        <output>{look.smoothing.toFixed(2)}</output>
      </label>
      <Check label="Logarithmic" checked={look.log} set={(checked) => setLog(checked ? "1" : "")} />
      <button disabled={look.steps === null} onClick={() => look.setSteps(null)}>
        Show all steps
      </button>
      <span class="hint">Drag to zoom, Shift-drag to move, double click for all</span>
    </div>
  );
}

/** Whether it is known when steps were made. */
export function hasTimes(series: Series | null): boolean {
  return series?.series["elapsed_seconds"] !== undefined;
}

/** The series of a run, in detail where the steps are narrowed. */
export function useSeries(name: string, steps: [number, number] | null) {
  const margin = steps ? (steps[1] - steps[0]) / 2 : 0;
  const range = steps ? `&from=${Math.max(0, Math.floor(steps[0] - margin))}&to=${Math.ceil(steps[1] + margin)}` : "";
  const settled = useSettled(range);
  const path = api("runs", name, `/series?points=${POINTS}${settled}`);
  return useResource<Series>(path, { topic: `run:${name}`, gapMs: 600 });
}

/** A value once it has stayed for a moment: who moves through the steps asks when they have arrived. */
function useSettled(value: string): string {
  const [settled, set] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => set(value), 200);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

/** A run with its series, and how it is drawn. */
export interface Drawn {
  run: Run;
  series: Series;
  color: string;
}

/** The curves of a run. */
export function Curves({ run, after }: { run: Run; after: () => void }) {
  const look = useLook();
  const events = useEvents(run.name);
  const { data: series, error, reload } = useSeries(run.name, look.steps);
  const drawn = useMemo(() => (series ? [{ run, series, color: lineColor(0) }] : []), [run, series]);
  return (
    <>
      <LookTools look={look} times={hasTimes(series)} epochs={stepsPerEpoch(run) !== null} />
      {error && <Problem error={error} retry={reload} />}
      {series && series.total === 0 && run.measurements.length === 0 ? (
        <Empty>
          No step yet. Why: <Command>{`phalanx status ${run.name}`}</Command>
        </Empty>
      ) : (
        <Plots drawn={drawn} look={look} />
      )}
      <StepTime run={run} />
      <Failures run={run} events={events.data?.events ?? []} />
      <Checkpoints run={run} after={after} />
      <Events run={run.name} of={events} />
    </>
  );
}

/** One plot for each kind of curve; several runs lie over each other. */
export function Plots({ drawn, look }: { drawn: readonly Drawn[]; look: Look }) {
  const several = drawn.length > 1;
  const first = drawn[0];
  const scale = useMemo(() => (first ? stepScale(look.axis, first.run, first.series) : null), [look.axis, first]);
  const specs = useMemo(() => plotsOf(drawn, look, several), [drawn, look.axis, look.smoothing, look.log, several]);
  const marks = useMemo(() => (first && scale && !several ? marksOf(first.run, first.series, scale) : []), [first, scale, several]);
  const range = useMemo(
    (): [number, number] | null => (scale && look.steps ? [scale.x(look.steps[0]), scale.x(look.steps[1])] : null),
    [scale, look.steps],
  );
  if (!scale) return null;
  const whole: [number, number] = [scale.x(0), scale.x(Math.max(1, ...drawn.map(({ run }) => run.step)))];
  const label = { step: "step", time: "seconds of training", epoch: "epoch" }[scale.axis];
  return (
    <Panel title="Curves" class="plots-panel">
      <div class="plots">
        {specs
          .filter(({ lines }) => lines.length > 0)
          .map(({ title, lines, log, format }) => (
            <Plot
              key={title}
              title={title}
              xLabel={label}
              lines={lines}
              marks={marks}
              log={log}
              range={range}
              whole={whole}
              setRange={(range) => look.setSteps(range && [scale.step(range[0]), scale.step(range[1])])}
              sync="curves"
              format={format ?? measured}
            />
          ))}
      </div>
      {marks.length > 0 && <Legend marks={marks} />}
    </Panel>
  );
}

function Legend({ marks }: { marks: readonly Mark[] }) {
  const has = (kind: Mark["kind"]) => marks.some((mark) => mark.kind === kind);
  return (
    <p class="marks-legend">
      {has("checkpoint") && <span class="mark-checkpoint">▲ checkpoint</span>}
      {has("best") && <span class="mark-best">▲ best checkpoint</span>}
      {has("pinned") && <span class="mark-pinned">▲ pinned checkpoint</span>}
      {has("failure") && <span class="mark-failure">┆ another group</span>}
      {has("lost") && <span class="mark-lost">▒ rolled back</span>}
    </p>
  );
}

interface PlotSpec {
  title: string;
  lines: Line[];
  log: boolean;
  format?: (value: number) => string;
}

/** A curve of one key of the series. */
const SERIES: { title: string; key: string; format?: (value: number) => string }[] = [
  { title: "Learning rate", key: "lr" },
  { title: "Gradient norm", key: "grad_norm" },
  { title: "Samples per second", key: "samples_per_second" },
  { title: "Step time", key: "step_seconds", format: (value) => duration(value * 1000) },
];

function plotsOf(drawn: readonly Drawn[], look: Look, several: boolean): PlotSpec[] {
  const all = drawn.map((one) => ({ ...one, scale: stepScale(look.axis, one.run, one.series) }));
  const look1 = (label: string, color: string, log: boolean) => ({
    label,
    color,
    smoothing: look.smoothing,
    log,
    rolledBack: !several,
  });
  const named = (run: Run, label: string) => (several ? run.name : label);
  const series = ({ title, key, format }: (typeof SERIES)[number]): PlotSpec => ({
    title,
    ...(format ? { format } : {}),
    log: look.log,
    lines: all.flatMap(({ run, series, color, scale }) => linesOf(series, key, scale, look1(named(run, title), color, look.log))),
  });
  const evaluated = (title: string, pick: "loss" | "accuracy", log: boolean, color?: string): PlotSpec => ({
    title,
    log,
    lines: all.flatMap((one) =>
      evaluations(one.run.measurements, pick, one.scale, { label: named(one.run, title), color: color ?? one.color, log }),
    ),
  });
  const loss = series({ title: "Training loss", key: "loss" });
  const held = evaluated("Held-out loss", "loss", look.log, several ? undefined : lineColor(1));
  const losses = several ? [loss, held] : [{ ...loss, title: "Loss", lines: [...loss.lines, ...held.lines] }];
  const outside: PlotSpec = {
    title: "Share of time outside the model",
    log: false,
    format: shortPercent,
    lines: all.flatMap(({ run, series, color, scale }) =>
      outsideLine(series, scale, look1(named(run, "Outside"), color, false)),
    ),
  };
  return [
    ...losses,
    { ...evaluated("Accuracy", "accuracy", false), format: shortPercent },
    ...SERIES.map(series),
    outside,
  ];
}

function shortPercent(share: number): string {
  return `${Number((share * 100).toFixed(1))} %`;
}

/** Of the time of a step, what was spent waiting for data, reducing and reporting. */
function outsideLine(series: Series, scale: StepScale, look: Parameters<typeof linesOf>[3]): Line[] {
  const [outside] = linesOf(series, "outside_seconds", scale, { ...look, smoothing: look.smoothing, rolledBack: false });
  const [whole] = linesOf(series, "step_seconds", scale, { ...look, smoothing: look.smoothing, rolledBack: false });
  if (!outside || !whole) return [];
  const share = outside.y.map((part, i) => {
    const of = whole.y[i];
    return part === null || of === null || of === undefined || of === 0 ? null : part / of;
  });
  return [{ label: look.label, color: look.color, x: outside.x, y: share }];
}
