import type { TargetedKeyboardEvent, TargetedPointerEvent } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import type { SweepTrial } from "../../api/types";
import { ramp } from "../../lib/ramp";
import type { Axis } from "../../lib/scale";
import { color, useTheme } from "../../state/theme";
import { sized } from "../../ui/canvas";
import { useWidth } from "../../ui/width";
import type { Brush } from "./brush";
import type { Column } from "./columns";

const HEIGHT = 300;
const TOP = 46;
const BOTTOM = 12;
const SIDE = 60;

/** Between two axes there is at least so much, or the plot is wider than its frame. */
const GAP_MIN = 92;

/** So many lines are drawn in the first frame, and at least in each; more where frames come quickly. */
const PORTION = 100;

/** A frame that takes longer, in milliseconds, keeps whoever uses the page waiting. */
const FRAME_MS = 30;

interface ParallelProps {
  trials: readonly SweepTrial[];
  axes: readonly { column: Column; axis: Axis }[];
  /** Trials that are drawn weakly, as indices. */
  context: readonly number[];
  /** Trials that are drawn, as indices. */
  rows: readonly number[];
  /** How good each trial is. */
  colors: readonly (number | null)[];
  brushes: readonly Brush[];
  setBrushes: (brushes: Brush[]) => void;
  selected: number | null;
}

/** A line for each trial over all axes. Dragging along an axis keeps what lies within. */
export function Parallel(props: ParallelProps) {
  const { trials, axes, context, rows, colors, brushes, selected } = props;
  const { dark } = useTheme();
  const [frame, frameWidth] = useWidth();
  const width = Math.max(frameWidth, (axes.length - 1) * GAP_MIN + 2 * SIDE);
  const gap = (width - 2 * SIDE) / Math.max(1, axes.length - 1);
  const back = useRef<HTMLCanvasElement>(null);
  const front = useRef<HTMLCanvasElement>(null);
  const inner = useRef<HTMLDivElement>(null);

  const places = useMemo(
    () => axes.map(({ column, axis }) => Float32Array.from(trials, (trial) => axis.place(column.value(trial)) ?? NaN)),
    [axes, trials],
  );
  const narrowed = rows.length < context.length;
  useEffect(() => {
    if (!narrowed) return;
    const weak = color("context");
    return draw(back.current, width, places, gap, context, () => weak, 0.5, () => {});
  }, [places, context, width, dark, narrowed]);
  useEffect(() => {
    const unknown = color("muted");
    const style = (row: number) => {
      const good = colors[row] ?? null;
      return good === null ? unknown : ramp(good, dark);
    };
    // The best are drawn last, over the others.
    const order = rows.toSorted((a, b) => (colors[a] ?? -1) - (colors[b] ?? -1));
    const alpha = rows.length > 4000 ? 0.16 : rows.length > 1000 ? 0.35 : rows.length > 200 ? 0.6 : 0.85;
    const tell = (busy: boolean) => inner.current?.parentElement?.setAttribute("aria-busy", String(busy));
    tell(true);
    return draw(front.current, width, places, gap, order, style, alpha, () => tell(false));
  }, [places, rows, colors, width, dark]);

  const chosen = selected === null ? -1 : trials.findIndex((trial) => trial.number === selected);
  const setBrush = (column: string, brush: Brush | null) =>
    props.setBrushes([...brushes.filter((one) => one.column !== column), ...(brush ? [brush] : [])]);
  return (
    <div ref={frame} class="parallel" tabIndex={0} role="group" aria-label={`Parallel coordinates of ${rows.length} trials`}>
      <div ref={inner} class="parallel-inner" style={{ width: `${width}px`, height: `${HEIGHT}px` }}>
        <canvas ref={back} class={narrowed ? "" : "hidden"} />
        <canvas ref={front} />
        <svg width={width} height={HEIGHT}>
          {chosen >= 0 && <polyline class="chosen-line" points={path(places, gap, chosen)} />}
          {axes.map(({ column, axis }, i) => (
            <AxisView
              key={column.id}
              column={column}
              axis={axis}
              x={SIDE + i * gap}
              last={i === axes.length - 1}
              room={gap}
              brush={brushes.find((brush) => brush.column === column.id) ?? null}
              set={(brush) => setBrush(column.id, brush)}
            />
          ))}
        </svg>
      </div>
    </div>
  );
}

function y(place: number): number {
  return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM);
}

function path(places: readonly Float32Array[], gap: number, row: number): string {
  return places
    .flatMap((of, i) => {
      const place = of[row] ?? NaN;
      return Number.isNaN(place) ? [] : [`${SIDE + i * gap},${y(place)}`];
    })
    .join(" ");
}

/**
 * Draws lines in portions, one a frame, so that the page answers meanwhile: a portion grows while frames come quickly, and
 * shrinks when they do not. Gives how to stop it.
 */
function draw(
  canvas: HTMLCanvasElement | null,
  width: number,
  places: readonly Float32Array[],
  gap: number,
  rows: readonly number[],
  style: (row: number) => string,
  alpha: number,
  done: () => void,
): () => void {
  const context = sized(canvas, width, HEIGHT);
  if (!context) return () => {};
  context.globalAlpha = alpha;
  context.lineWidth = 1;
  let at = 0;
  let frame = 0;
  let size = PORTION;
  let before = NaN;
  const portion = (now: number) => {
    // What a canvas was told is painted after we are through, so the time between frames tells what it cost.
    if (now - before > FRAME_MS) size = Math.max(PORTION, size / 2);
    else if (now - before < FRAME_MS) size *= 1.5;
    before = now;
    for (const end = Math.min(rows.length, at + size); at < end; at++) {
      const row = rows[at] ?? 0;
      context.strokeStyle = style(row);
      context.beginPath();
      let drawing = false;
      for (let i = 0; i < places.length; i++) {
        const place = places[i]?.[row] ?? NaN;
        // Where a condition leaves a parameter out the line has a gap.
        if (Number.isNaN(place)) {
          drawing = false;
          continue;
        }
        if (drawing) context.lineTo(SIDE + i * gap, y(place));
        else context.moveTo(SIDE + i * gap, y(place));
        drawing = true;
      }
      context.stroke();
    }
    if (at < rows.length) frame = requestAnimationFrame(portion);
    else done();
  };
  frame = requestAnimationFrame(portion);
  return () => cancelAnimationFrame(frame);
}

interface AxisProps {
  column: Column;
  axis: Axis;
  x: number;
  last: boolean;
  room: number;
  brush: Brush | null;
  set: (brush: Brush | null) => void;
}

function AxisView({ column, axis, x, last, room, brush, set }: AxisProps) {
  const [drag, setDrag] = useState<{ from: number; to: number } | null>(null);
  const at = (event: TargetedPointerEvent<SVGRectElement>) => {
    const box = event.currentTarget.ownerSVGElement?.getBoundingClientRect();
    const place = (HEIGHT - BOTTOM - (event.clientY - (box?.top ?? 0))) / (HEIGHT - TOP - BOTTOM);
    return Math.min(1, Math.max(0, place));
  };
  const ordered = drag && { from: Math.min(drag.from, drag.to), to: Math.max(drag.from, drag.to) };
  const end = () => {
    if (!ordered) return;
    setDrag(null);
    set(ordered.to - ordered.from < 0.01 ? null : { column: column.id, ...ordered });
  };
  const shown = ordered ?? brush;
  const keys = (event: TargetedKeyboardEvent<SVGRectElement>) => {
    const next = byKey(event.key, event.shiftKey, brush ?? { from: 0, to: 1 });
    if (next === undefined) return;
    event.preventDefault();
    set(next && { column: column.id, ...next });
  };
  const text = shown
    ? `${column.label}, from ${describe(axis, column, shown.from)} to ${describe(axis, column, shown.to)}`
    : `${column.label}, all`;
  return (
    <g transform={`translate(${x} 0)`}>
      <foreignObject x={-room / 2 + 2} y={0} width={Math.max(40, room - 4)} height={34}>
        <div class={`axis-name ${column.group === "Objectives" ? "axis-objective" : ""}`} title={column.label}>
          <bdi>{column.label.split(".").at(-1) ?? column.label}</bdi>
        </div>
      </foreignObject>
      <line y1={TOP} y2={HEIGHT - BOTTOM} class="axis-line" />
      {axis.ticks.map((tick) => (
        <g key={tick.text} transform={`translate(0 ${y(tick.at)})`}>
          <line x1={-3} x2={0} class="axis-line" />
          <text class="axis-text halo" x={last ? 5 : -6} y={3.5} text-anchor={last ? "start" : "end"}>
            {tick.text.length > 12 ? `${tick.text.slice(0, 11)}…` : tick.text}
          </text>
        </g>
      ))}
      {shown && <rect class="brush" x={-7} width={14} y={y(shown.to)} height={y(shown.from) - y(shown.to)} />}
      <rect
        class="brush-area"
        x={-14}
        width={28}
        y={TOP - 4}
        height={HEIGHT - TOP - BOTTOM + 8}
        tabindex={0}
        role="slider"
        aria-label={`Range of ${column.label}`}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round((shown ? (shown.from + shown.to) / 2 : 0.5) * 100)}
        aria-valuetext={text}
        onKeyDown={keys}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          const place = at(event);
          setDrag({ from: place, to: place });
        }}
        onPointerMove={(event) => drag && setDrag({ ...drag, to: at(event) })}
        onPointerUp={end}
        onPointerCancel={() => setDrag(null)}
      >
        <title>{`${text}. Drag, or use the arrow keys, with Shift for the upper end; Delete shows all`}</title>
      </rect>
    </g>
  );
}

function describe(axis: Axis, column: Column, place: number): string {
  const value = axis.value(place);
  return Number.isNaN(value) ? `${Math.round(place * 100)} %` : column.show(value);
}

/** Arrows move the lower end of a range, with Shift the upper one. */
function byKey(key: string, shift: boolean, range: { from: number; to: number }) {
  if (key === "Delete" || key === "Backspace" || key === "Escape") return null;
  const by = new Map([["ArrowUp", 0.05], ["ArrowDown", -0.05]]).get(key);
  if (by === undefined) return undefined;
  const { from, to } = range;
  return shift
    ? { from, to: Math.min(1, Math.max(from + 0.05, to + by)) }
    : { from: Math.max(0, Math.min(to - 0.05, from + by)), to };
}
