import { useEffect, useMemo, useRef } from "preact/hooks";

import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Histogram, HistogramsAt, HistogramsOverTime, Inspections, Run } from "../../api/types";
import { count, cut, measured, NAME_MAX } from "../../lib/format";
import { heat, type Heat } from "../../lib/heat";
import { ramp, rampRgb } from "../../lib/ramp";
import { linearTicks } from "../../lib/scale";
import { useParameter } from "../../state/address";
import { color, useTheme } from "../../state/theme";
import { Choice, Empty, Loading, Panel, Problem } from "../../ui/basic";
import { sized } from "../../ui/canvas";
import { useWidth } from "../../ui/width";

const LEFT = 62;
const RIGHT = 4;
const BOTTOM = 20;
const HEIGHT = 210;
const BARS_HEIGHT = 84;

/** Rows of a heat map: two for each bucket where a histogram is as wide as all together. */
const ROWS = 128;

/** The longest name that a tensor has, in bytes. */
const TENSOR_NAME_MAX = 256;

/** How the values and the gradient of a tensor changed over time. */
export function Histograms({ run, known, step, setStep }: { run: Run; known: Inspections; step: number; setStep: (step: number) => void }) {
  const [wanted, setTensor] = useParameter("tensor");
  const tensors = known.tensors.filter(({ name }) => name.length <= TENSOR_NAME_MAX);
  // Matrices say more than biases.
  const tensor = tensors.find(({ name }) => name === wanted) ?? tensors.find(({ shape }) => shape.length > 1) ?? tensors[0];
  const path = tensor ? `${api("runs", run.name, "/histograms")}?tensor=${encodeURIComponent(tensor.name)}` : null;
  const { data, error, reload } = useResource<HistogramsOverTime>(path, { topic: `run:${run.name}`, gapMs: 3_000 });
  if (!tensor) return <Empty>This run tells no histograms: its job says <code>histograms: false</code>.</Empty>;
  const steps = data?.steps ?? [];
  const at = steps.find((one) => one.step === step) ?? steps.at(-1);
  const options = tensors.map(({ name }) => ({ value: name, label: name }));
  // While another tensor is on its way, the one before is shown, under its own name.
  const drawn = data?.tensor ?? tensor.name;
  const shape = tensors.find(({ name }) => name === drawn)?.shape;
  const note = cut(shape ? `${drawn}, ${shape.join(" × ")}` : drawn, NAME_MAX);
  return (
    <Panel title="Histograms" note={note} tools={<Choice label="Tensor" value={tensor.name} options={options} set={setTensor} />}>
      {error && <Problem error={error} retry={reload} />}
      {!at ? (
        !error && (data ? <Empty>Nothing is kept of this tensor.</Empty> : <Loading />)
      ) : (
        <div class="inside-pair">
          <OverTime title="Weights" steps={steps} pick={(one) => one.weights} at={at} setStep={setStep} />
          <OverTime title="Gradient" steps={steps} pick={(one) => one.gradient} at={at} setStep={setStep} />
        </div>
      )}
      <p class="ramp-note">
        Each column is a step, each row a range of values; the brighter, the more values. The gradient is the mean over the
        global batch, before clipping.
      </p>
    </Panel>
  );
}

interface OverTimeProps {
  title: string;
  steps: HistogramsAt[];
  pick: (one: HistogramsAt) => Histogram;
  at: HistogramsAt;
  setStep: (step: number) => void;
}

function OverTime({ title, steps, pick, at, setStep }: OverTimeProps) {
  const { dark } = useTheme();
  const [frame, width] = useWidth();
  const canvas = useRef<HTMLCanvasElement>(null);
  const bars = useRef<HTMLCanvasElement>(null);
  const map = useMemo(() => heat(steps.map(pick), ROWS), [steps]);
  const chosen = pick(at);
  const place = steps.indexOf(at);
  useEffect(() => drawHeat(canvas.current, map, width, place, dark), [map, width, place, dark]);
  useEffect(() => drawBars(bars.current, chosen, map, width, dark), [chosen, map, width, dark]);
  const inner = Math.max(0, width - LEFT - RIGHT);
  const click = (event: MouseEvent) => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box || inner === 0) return;
    const index = Math.floor(((event.clientX - box.left - LEFT) / inner) * steps.length);
    const one = steps[Math.min(steps.length - 1, Math.max(0, index))];
    if (one) setStep(one.step);
  };
  const first = steps[0]?.step ?? 0;
  const last = steps.at(-1)?.step ?? 0;
  const words = `${title} at ${steps.length} steps from ${first} to ${last}, values from ${measured(map.low)} to ${measured(map.high)}.`;
  return (
    <figure class="inside">
      <figcaption>{title}</figcaption>
      <div ref={frame} class="inside-map">
        <svg width={width} height={HEIGHT} aria-hidden="true">
          {linearTicks(map.low, map.high, 5).map((tick) => (
            <text key={tick} x={LEFT - 6} y={top(map, tick) + 4} class="axis-text" text-anchor="end">
              {measured(tick)}
            </text>
          ))}
          <text x={LEFT} y={HEIGHT - 5} class="axis-text">
            step {count(first)}
          </text>
          {last !== first && (
            <text x={width - RIGHT} y={HEIGHT - 5} class="axis-text" text-anchor="end">
              {count(last)}
            </text>
          )}
        </svg>
        <canvas ref={canvas} role="img" aria-label={`${words} The figures of the chosen step stand below.`} onClick={click} />
      </div>
      <canvas ref={bars} role="img" aria-label={`${title} at step ${at.step}: ${count(total(chosen))} values in ${chosen.counts.length} buckets.`} />
      <dl class="figures">
        {figuresOf(chosen).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </figure>
  );
}

function figuresOf(one: Histogram): [string, string][] {
  return [
    ["Least", measured(one.min)],
    ["Greatest", measured(one.max)],
    ["Mean", measured(one.mean)],
    ["Deviation", measured(one.std)],
    ["Zeros", count(one.zeros)],
    ["Not finite", count(one.non_finite)],
  ];
}

function total(one: Histogram): number {
  return one.counts.reduce((sum, count) => sum + count, 0);
}

function top(map: Heat, value: number): number {
  return (HEIGHT - BOTTOM) * (1 - (value - map.low) / (map.high - map.low));
}

/** A share as a place on the ramp: small ones can still be seen. */
function shade(share: number, most: number): number {
  return Math.sqrt(share / most);
}

function drawHeat(canvas: HTMLCanvasElement | null, map: Heat, width: number, chosen: number, dark: boolean): void {
  const context = sized(canvas, width, HEIGHT);
  const inner = width - LEFT - RIGHT;
  if (!context || inner <= 0) return;
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [Math.max(1, map.columns.length), ROWS];
  const paint = sheet.getContext("2d");
  if (!paint) return;
  const image = paint.createImageData(sheet.width, ROWS);
  map.columns.forEach((shares, column) => {
    for (let row = 0; row < ROWS; row++) {
      const share = shares[row] ?? 0;
      if (share <= 0) continue;
      image.data.set([...rampRgb(shade(share, map.most), dark), 255], ((ROWS - 1 - row) * sheet.width + column) * 4);
    }
  });
  paint.putImageData(image, 0, 0);
  context.fillStyle = color("raised");
  context.fillRect(LEFT, 0, inner, HEIGHT - BOTTOM);
  context.imageSmoothingEnabled = false;
  context.drawImage(sheet, LEFT, 0, inner, HEIGHT - BOTTOM);
  const column = inner / map.columns.length;
  context.strokeStyle = color("text");
  context.lineWidth = 1.5;
  context.strokeRect(LEFT + chosen * column + 0.75, 0.75, Math.max(2, column - 1.5), HEIGHT - BOTTOM - 1.5);
}

/** The buckets of one histogram, over the axis of values of all of them, from left to right. */
function drawBars(canvas: HTMLCanvasElement | null, one: Histogram, map: Heat, width: number, dark: boolean): void {
  const context = sized(canvas, width, BARS_HEIGHT);
  const inner = width - LEFT - RIGHT;
  if (!context || inner <= 0) return;
  const most = Math.max(1, ...one.counts);
  const size = inner / one.counts.length;
  context.fillStyle = ramp(0.55, dark);
  one.counts.forEach((count, i) => {
    const height = count === 0 ? 0 : Math.max(1, (count / most) * (BARS_HEIGHT - BOTTOM));
    context.fillRect(LEFT + i * size, BARS_HEIGHT - BOTTOM - height, Math.max(1, size - 1), height);
  });
  context.fillStyle = color("muted");
  context.font = "11px system-ui, sans-serif";
  context.fillText(measured(one.low), LEFT, BARS_HEIGHT - 6);
  context.textAlign = "right";
  context.fillText(measured(one.high), width - RIGHT, BARS_HEIGHT - 6);
  context.fillText(map.most > 0 ? count(most) : "", LEFT - 6, 10);
}
