import type { Bucketed, Generation, Measurement, Run, Series } from "../../api/types";
import { number } from "../../lib/format";
import { smooth } from "../../lib/smooth";
import type { Line, Mark } from "../../ui/plot";

/** What the x axis of curves counts. */
export type XAxis = "step" | "time" | "epoch";

/** A place on the x axis for each step, and back. */
export interface StepScale {
  /** What it counts. */
  axis: XAxis;
  x: (step: number) => number;
  step: (x: number) => number;
}

/** The scale of a run's x axis; steps where the wanted one is not known. */
export function stepScale(axis: XAxis, run: Run, series: Series | null): StepScale {
  const elapsed = series?.series["elapsed_seconds"]?.last.map(number);
  if (axis === "time" && series && elapsed && elapsed.some(Number.isFinite)) {
    return {
      axis,
      x: (step) => between(series.steps, elapsed, step),
      step: (x) => between(elapsed, series.steps, x),
    };
  }
  const perEpoch = stepsPerEpoch(run);
  if (axis === "epoch" && perEpoch !== null) return { axis, x: (step) => step / perEpoch, step: (x) => x * perEpoch };
  return { axis: "step", x: (step) => step, step: (x) => x };
}

/** How many steps an epoch has; null where it is not known. */
export function stepsPerEpoch(run: Run): number | null {
  const spec = run.spec as { train?: { global_batch?: unknown } } | null;
  const batch = spec?.train?.global_batch;
  return run.data && typeof batch === "number" && batch > 0 ? run.data.train_samples / batch : null;
}

/** The value of a rising line at a place: straight between its points, and on beyond them. */
export function between(xs: readonly number[], ys: readonly number[], x: number): number {
  let low = 0;
  let high = xs.length - 1;
  if (high < 1) return ys[0] ?? x;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((xs[middle] ?? 0) <= x) low = middle;
    else high = middle;
  }
  const [x0 = 0, x1 = 0, y0 = 0, y1 = 0] = [xs[low], xs[high], ys[low], ys[high]];
  return x1 === x0 ? y0 : y0 + ((x - x0) / (x1 - x0)) * (y1 - y0);
}

/** Finite values, and null for all others: uPlot draws no infinity. */
function cells(values: Bucketed["last"], log: boolean): (number | null)[] {
  return values.map((value) => {
    const one = number(value);
    return Number.isFinite(one) && (!log || one > 0) ? one : null;
  });
}

/** A line for one key of a run, with what was rolled back in grey. */
export function linesOf(
  series: Series,
  key: string,
  scale: StepScale,
  look: { label: string; color: string; smoothing: number; log: boolean; rolledBack: boolean },
): Line[] {
  const values = series.series[key];
  if (!values) return [];
  const raw = cells(values.last, look.log);
  const [min, max] = [cells(values.min, look.log), cells(values.max, look.log)];
  const spread = min.some((low, i) => low !== max[i]);
  const line: Line = {
    label: look.label,
    color: look.color,
    x: series.steps.map(scale.x),
    y: smooth(raw, look.smoothing),
    raw: look.smoothing > 0 ? raw : undefined,
    band: spread ? { min, max } : undefined,
  };
  if (!look.rolledBack) return [line];
  return [line, ...series.rolled_back.flatMap((lost) => lostLine(lost, key, scale, look.log))];
}

function lostLine(lost: Series["rolled_back"][number], key: string, scale: StepScale, log: boolean): Line[] {
  const values = lost.series[key];
  if (!values || lost.steps.length === 0) return [];
  return [
    {
      label: `rolled back, generation ${lost.generation}`,
      color: "lost",
      x: lost.steps.map(scale.x),
      y: cells(values.last, log),
      dashed: true,
      points: lost.steps.length < 3,
      unnamed: true,
    },
  ];
}

/** The line of an evaluated metric. */
export function evaluations(
  measurements: readonly Measurement[],
  pick: "loss" | "accuracy",
  scale: StepScale,
  look: { label: string; color: string; log: boolean },
): Line[] {
  if (measurements.length === 0) return [];
  return [
    {
      label: look.label,
      color: look.color,
      x: measurements.map(({ step }) => scale.x(step)),
      y: cells(measurements.map((one) => one[pick]), look.log),
      points: measurements.length <= 60,
    },
  ];
}

/** How many workers a group has, in words. */
export function workers({ workers }: Generation): string {
  return `${workers.length} ${workers.length === 1 ? "worker" : "workers"}`;
}

/** Checkpoints and groups of a run on its x axis. */
export function marksOf(run: Run, series: Series, scale: StepScale): Mark[] {
  const lost = series.rolled_back.flatMap(({ steps, generation }): Mark[] => {
    const [from, to] = [steps[0], steps.at(-1)];
    if (from === undefined || to === undefined) return [];
    return [{ x: scale.x(from), to: scale.x(to), kind: "lost", label: `steps ${from} to ${to} of generation ${generation} were rolled back` }];
  });
  const checkpoints = run.checkpoints.map((one): Mark => {
    const marks = [one.best && "best", one.pinned && "pinned", one.result && "result"].filter(Boolean).join(", ");
    const kind = one.pinned ? "pinned" : one.best ? "best" : "checkpoint";
    return { x: scale.x(one.step), kind, label: `checkpoint of step ${one.step}${marks ? ` (${marks})` : ""}` };
  });
  const groups = run.generations.map((one, i): Mark => {
    const label = `generation ${one.generation} with ${workers(one)} from step ${one.from_step}`;
    return { x: scale.x(one.from_step), kind: i === 0 ? "generation" : "failure", label };
  });
  return [...lost, ...groups, ...checkpoints];
}
