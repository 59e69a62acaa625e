import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import type { SweepTrial } from "../../api/types";
import { ramp, rampRgb } from "../../lib/ramp";
import type { Axis } from "../../lib/scale";
import { surface } from "../../lib/surface";
import { color, useTheme } from "../../state/theme";
import { sized } from "../../ui/canvas";
import { useWidth } from "../../ui/width";
import type { Column } from "./columns";

const LEFT = 66;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 40;

/** So many bands a contour has. */
const BANDS = 9;

interface ScatterProps {
  trials: readonly SweepTrial[];
  x: { column: Column; axis: Axis };
  y: { column: Column; axis: Axis };
  colors: readonly (number | null)[];
  contour: boolean;
  /** Trials that are set off and connected; null for none. */
  front: ReadonlySet<number> | null;
  selected: number | null;
  pick: (trial: number | null) => void;
}

interface Point {
  trial: SweepTrial;
  x: number;
  y: number;
  good: number | null;
}

/** A point for each trial. */
export function Scatter(props: ScatterProps) {
  const { trials, x, y, colors, front } = props;
  const { dark } = useTheme();
  const [frame, width] = useWidth();
  const height = Math.min(460, Math.max(300, Math.round(width * 0.5)));
  const canvas = useRef<HTMLCanvasElement>(null);
  const [hover, setHover] = useState<Point | null>(null);
  const points = useMemo(() => {
    const found: Point[] = [];
    trials.forEach((trial, i) => {
      const [px, py] = [x.axis.place(x.column.value(trial)), y.axis.place(y.column.value(trial))];
      if (px === null || py === null) return;
      // Choices lie on a few lines: each trial has its own place across them, the same every time.
      const jitter = (ticks: number, numeric: boolean, salt: number) =>
        numeric ? 0 : ((((trial.number + 1) * salt) % 97) / 97 - 0.5) * (0.6 / Math.max(1, ticks));
      found.push({
        trial,
        x: px + jitter(x.axis.ticks.length, x.column.numeric, 37),
        y: py + jitter(y.axis.ticks.length, y.column.numeric, 53),
        good: colors[i] ?? null,
      });
    });
    return found.sort((a, b) => (a.good ?? -1) - (b.good ?? -1));
  }, [trials, x, y, colors]);
  const left = (point: { x: number }) => LEFT + point.x * (width - LEFT - RIGHT);
  const top = (point: { y: number }) => height - BOTTOM - point.y * (height - TOP - BOTTOM);

  useEffect(() => {
    const context = sized(canvas.current, width, height);
    if (!context) return;
    if (props.contour) drawSurface(context, points, dark, { left: LEFT, top: TOP, width: width - LEFT - RIGHT, height: height - TOP - BOTTOM });
    drawPoints(context, points, { left, top }, front, dark, props.contour);
  }, [points, width, height, dark, props.contour, front]);

  const nearest = (event: MouseEvent): Point | null => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box) return null;
    const [mx, my] = [event.clientX - box.left, event.clientY - box.top];
    let best: Point | null = null;
    let away = 14 * 14;
    for (const point of points) {
      const distance = (left(point) - mx) ** 2 + (top(point) - my) ** 2;
      if (distance <= away) [best, away] = [point, distance];
    }
    return best;
  };
  const chosen = props.selected === null ? null : points.find(({ trial }) => trial.number === props.selected);
  return (
    <div ref={frame} class="scatter">
      <svg class="behind" width={width} height={height} aria-hidden="true">
        <AxisLines axis={x.axis} label={x.column.label} horizontal width={width} height={height} />
        <AxisLines axis={y.axis} label={y.column.label} horizontal={false} width={width} height={height} />
      </svg>
      <canvas
        ref={canvas}
        role="img"
        aria-label={`${points.length} trials by ${x.column.label} and ${y.column.label}. The table of trials has the same values.`}
        onMouseMove={(event) => setHover(nearest(event))}
        onMouseLeave={() => setHover(null)}
        onClick={(event) => props.pick(nearest(event)?.trial.number ?? null)}
      />
      <svg width={width} height={height} aria-hidden="true">
        {chosen && <circle cx={left(chosen)} cy={top(chosen)} r={8} class="ring" />}
        {hover && <circle cx={left(hover)} cy={top(hover)} r={6} class="ring" />}
      </svg>
      {hover && (
        <div
          class="tip"
          style={{ left: `${Math.min(width - 190, Math.max(0, left(hover) + 12))}px`, top: `${Math.max(0, top(hover) - 64)}px` }}
        >
          <b>trial {hover.trial.number}</b>
          {[x.column, y.column].map((column) => (
            <div key={column.id}>
              <bdi class="name">{column.label}</bdi> <bdi>{column.show(column.value(hover.trial))}</bdi>
            </div>
          ))}
        </div>
      )}
    </div>
  );
}

function AxisLines(props: { axis: Axis; label: string; horizontal: boolean; width: number; height: number }) {
  const { axis, horizontal, width, height } = props;
  const ticks = horizontal && width < 520 ? axis.ticks.filter((_, i) => i % 2 === 0) : axis.ticks;
  return (
    <g>
      {ticks.map((tick) =>
        horizontal ? (
          <g key={tick.text} transform={`translate(${LEFT + tick.at * (width - LEFT - RIGHT)} 0)`}>
            <line y1={TOP} y2={height - BOTTOM} class="grid-line" />
            <text y={height - BOTTOM + 14} class="axis-text" text-anchor="middle">
              {cut(tick.text)}
            </text>
          </g>
        ) : (
          <g key={tick.text} transform={`translate(0 ${height - BOTTOM - tick.at * (height - TOP - BOTTOM)})`}>
            <line x1={LEFT} x2={width - RIGHT} class="grid-line" />
            <text x={LEFT - 6} y={3.5} class="axis-text" text-anchor="end">
              {cut(tick.text)}
            </text>
          </g>
        ),
      )}
      {horizontal ? (
        <text x={(LEFT + width - RIGHT) / 2} y={height - 6} class="axis-title" text-anchor="middle">
          {cut(props.label, 60)}
        </text>
      ) : (
        <text transform={`translate(11 ${(height - BOTTOM + TOP) / 2}) rotate(-90)`} class="axis-title" text-anchor="middle">
          {cut(props.label, 36)}
        </text>
      )}
    </g>
  );
}

function cut(text: string, most = 9): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function drawPoints(
  context: CanvasRenderingContext2D,
  points: readonly Point[],
  place: { left: (point: Point) => number; top: (point: Point) => number },
  front: ReadonlySet<number> | null,
  dark: boolean,
  outlined: boolean,
): void {
  const radius = points.length > 3000 ? 2 : points.length > 400 ? 3 : 4.5;
  context.lineWidth = 1;
  const weak = color("muted");
  const outline = color("panel");
  for (const point of points) {
    const behind = front !== null && !front.has(point.trial.number);
    context.globalAlpha = behind ? 0.35 : points.length > 1000 ? 0.7 : 0.9;
    context.beginPath();
    context.arc(place.left(point), place.top(point), radius, 0, 2 * Math.PI);
    if (point.good === null) {
      context.strokeStyle = weak;
      context.stroke();
      continue;
    }
    context.fillStyle = front ? (behind ? weak : color("accent")) : ramp(point.good, dark);
    context.fill();
    if (outlined && radius > 4) {
      context.strokeStyle = outline;
      context.stroke();
    }
  }
  if (!front) return;
  const line = points.filter(({ trial }) => front.has(trial.number)).sort((a, b) => a.x - b.x);
  context.globalAlpha = 1;
  context.strokeStyle = context.fillStyle = color("accent");
  context.lineWidth = 1.5;
  context.beginPath();
  line.forEach((point, i) => (i === 0 ? context.moveTo(place.left(point), place.top(point)) : context.lineTo(place.left(point), place.top(point))));
  context.stroke();
  for (const point of line) {
    context.beginPath();
    context.arc(place.left(point), place.top(point), 4.5, 0, 2 * Math.PI);
    context.fill();
  }
}

/** How good trials are around each place, in bands. */
function drawSurface(
  context: CanvasRenderingContext2D,
  points: readonly Point[],
  dark: boolean,
  box: { left: number; top: number; width: number; height: number },
): void {
  const known = points.flatMap(({ x, y, good }) => (good === null ? [] : [{ x, y, value: good }]));
  const { columns, rows, values } = surface(known);
  const [width, height] = [Math.round(box.width), Math.round(box.height)];
  if (width < 2 || height < 2) return;
  const image = context.createImageData(width, height);
  const at = (column: number, row: number) => values[row * columns + column] ?? NaN;
  for (let py = 0; py < height; py++) {
    const v = Math.min(rows - 1.001, Math.max(0, (1 - (py + 0.5) / height) * rows - 0.5));
    const row = Math.floor(v);
    for (let px = 0; px < width; px++) {
      const u = Math.min(columns - 1.001, Math.max(0, ((px + 0.5) / width) * columns - 0.5));
      const column = Math.floor(u);
      const [s, t] = [u - column, v - row];
      const low = at(column, row) * (1 - s) + at(column + 1, row) * s;
      const high = at(column, row + 1) * (1 - s) + at(column + 1, row + 1) * s;
      const value = low * (1 - t) + high * t;
      if (Number.isNaN(value)) continue;
      const [r, g, b] = rampRgb(Math.round(value * BANDS) / BANDS, dark);
      image.data.set([r, g, b, 150], (py * width + px) * 4);
    }
  }
  const sheet = document.createElement("canvas");
  sheet.width = width;
  sheet.height = height;
  sheet.getContext("2d")?.putImageData(image, 0, 0);
  context.drawImage(sheet, box.left, box.top, box.width, box.height);
}
