import type { TargetedKeyboardEvent } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { cut, measured, NAME_MAX, NOTHING } from "../lib/format";
import { color, useTheme } from "../state/theme";
import { Name } from "./basic";

/** A value of a line; null where there is none. */
type Cell = number | null;

/** A line of a plot. */
export interface Line {
  label: string;
  /** A colour of the style sheet, by its name. */
  color: string;
  x: readonly number[];
  y: readonly Cell[];
  /** Drawn weakly behind the line: what was measured, where the line is smoothed. */
  raw?: readonly Cell[] | undefined;
  /** The least and the greatest value of each portion. */
  band?: { min: readonly Cell[]; max: readonly Cell[] } | undefined;
  dashed?: boolean;
  /** Points without a line between them. */
  dots?: boolean;
  /** Points beside the line. */
  points?: boolean;
  /** Steps instead of slopes. */
  stairs?: boolean;
  /** Without a place in the legend. */
  unnamed?: boolean;
}

/** A place on the x axis where something happened. */
export interface Mark {
  x: number;
  /** Where it ends, if it lasts. */
  to?: number;
  kind: "checkpoint" | "best" | "pinned" | "generation" | "failure" | "lost";
  label: string;
}

/** What a plot shows. */
export interface PlotProps {
  title: string;
  xLabel: string;
  lines: readonly Line[];
  marks?: readonly Mark[];
  log?: boolean;
  /** The part of the x axis that is shown; null for all of it. */
  range?: readonly [number, number] | null;
  setRange?: (range: [number, number] | null) => void;
  /** How far the x axis reaches, where the lines are only a part of it. */
  whole?: readonly [number, number] | undefined;
  format?: (value: number) => string;
  formatX?: (value: number) => string;
  /** Plots with the same key share the cursor. */
  sync?: string;
  height?: number;
  /** Called with the index of a point of the first line of dots when it is clicked. */
  pick?: (index: number) => void;
}

const HEIGHT = 190;

/** Curves over one x axis, with a cursor, zoom by dragging and by the keyboard. */
export function Plot(props: PlotProps) {
  const { dark } = useTheme();
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const [at, setAt] = useState<{ index: number; x: number; mark: string } | null>(null);
  const data = useMemo(() => table(props.lines), [props.lines]);
  const structure = JSON.stringify([
    dark,
    props.log,
    props.sync,
    props.height,
    props.lines.map((line) => [line.color, !!line.raw, !!line.band, line.dashed, line.dots, line.points, line.stairs]),
  ]);

  useEffect(() => {
    const element = frame.current;
    if (!element) return;
    const built = build(element, latest, data, setAt);
    plot.current = built;
    const observer = new ResizeObserver(() => {
      if (element.clientWidth > 0) built.setSize({ width: element.clientWidth, height: latest.current.height ?? HEIGHT });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      built.destroy();
      plot.current = null;
    };
  }, [structure]);

  const range = props.range ?? null;
  useEffect(() => {
    const u = plot.current;
    if (!u) return;
    if (u.data !== data) u.setData(data, true);
    else u.redraw(false, true);
  }, [data, props.marks]);
  useEffect(() => {
    const u = plot.current;
    if (!u) return;
    const whole = bounds(u.data);
    u.setScale("x", { min: range?.[0] ?? whole[0], max: range?.[1] ?? whole[1] });
  }, [range?.[0], range?.[1], data, structure]);

  const keys = (event: TargetedKeyboardEvent<HTMLDivElement>) => {
    const u = plot.current;
    if (!u || !props.setRange) return;
    const next = moved(event.key, shownRange(u), reach(u, props));
    if (next === undefined) return;
    event.preventDefault();
    props.setRange(next);
  };
  const format = props.format ?? measured;
  const formatX = props.formatX ?? measured;
  return (
    <figure class="plot">
      <figcaption>
        <bdi class="plot-title">{props.title}</bdi>
        <span class="plot-legend">
          {named(props.lines).map(([line, i]) => (
            <span key={i} class="legend-item">
              <i class={`swatch ${line.dashed ? "dashed" : ""} ${line.dots ? "dot" : ""}`} style={{ color: `var(--${line.color})` }} />
              <Name>{line.label}</Name>
              <b>{shown(at ? near(data[valueRow(props.lines, i)], at.index) : lastOf(line.y), format)}</b>
            </span>
          ))}
        </span>
      </figcaption>
      <div
        ref={frame}
        class="plot-canvas"
        tabIndex={0}
        role="group"
        aria-label={`${props.title} by ${props.xLabel}. ${named(props.lines).map(([line]) => `${cut(line.label, NAME_MAX)}: ${shown(lastOf(line.y), format)}`).join(", ")}. Arrow keys move, plus and minus zoom, 0 shows all.`}
        onKeyDown={keys}
      />
      <div class="plot-foot">
        <span>{at ? `${props.xLabel} ${formatX(at.x)}` : props.xLabel}</span>
        {at && at.mark !== "" && <bdi class="plot-mark name">{at.mark}</bdi>}
      </div>
    </figure>
  );
}

/** The lines that have a name, with their indices. */
function named(lines: readonly Line[]): [Line, number][] {
  return lines.map((line, i): [Line, number] => [line, i]).filter(([line]) => !line.unnamed);
}

function shown(value: Cell | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? NOTHING : format(value);
}

function lastOf(values: readonly Cell[]): Cell {
  return values.findLast((value) => value !== null) ?? null;
}

/** The value at a place, or the nearest one before it or after it: lines over one axis have gaps. */
function near(values: ArrayLike<Cell | undefined> | undefined, index: number): Cell {
  if (!values) return null;
  for (let away = 0; away < values.length; away++) {
    const value = values[index - away] ?? values[index + away];
    if (value !== null && value !== undefined) return value;
    if (index - away < 0 && index + away >= values.length) break;
  }
  return null;
}

/** The rows of a line in the table: its values, what lies behind them, its band. */
function rowsOf(line: Line): (readonly Cell[])[] {
  const rows = [line.y];
  if (line.raw) rows.push(line.raw);
  if (line.band) rows.push(line.band.max, line.band.min);
  return rows;
}

/** The row in the table with the values of a line. */
function valueRow(lines: readonly Line[], index: number): number {
  return lines.slice(0, index).reduce((row, line) => row + rowsOf(line).length, 1);
}

/** All lines over one x axis. */
function table(lines: readonly Line[]): uPlot.AlignedData {
  const tables = lines.map((line) => [line.x, ...rowsOf(line)] as uPlot.AlignedData);
  const first = lines[0];
  if (!first) return [[]];
  if (lines.every((line) => line.x === first.x)) {
    return [first.x, ...lines.flatMap(rowsOf)] as unknown as uPlot.AlignedData;
  }
  return uPlot.join(tables);
}

function bounds(data: uPlot.AlignedData): [number, number] {
  const x = data[0];
  const [from, to] = [x[0] ?? 0, x[x.length - 1] ?? 1];
  return from < to ? [from, to] : [from - 0.5, from + 0.5];
}

/** How far one can move. */
function reach(u: uPlot, { whole }: PlotProps): [number, number] {
  return whole ? [whole[0], whole[1]] : bounds(u.data);
}

function shownRange(u: uPlot): [number, number] {
  const { min, max } = u.scales["x"] ?? {};
  return [min ?? 0, max ?? 1];
}

/** Where a key leads; undefined if it leads nowhere. */
function moved(key: string, [from, to]: [number, number], whole: [number, number]): [number, number] | null | undefined {
  const width = to - from;
  const by = new Map([["ArrowLeft", -0.2], ["ArrowRight", 0.2]]).get(key);
  if (by !== undefined) return panned([from, to], by * width, whole);
  if (key === "+" || key === "=") return [from + width * 0.2, to - width * 0.2];
  if (key === "-") return widened([from - width * 0.33, to + width * 0.33], whole);
  return key === "0" || key === "Escape" ? null : undefined;
}

function panned([from, to]: [number, number], by: number, whole: [number, number]): [number, number] {
  const kept = Math.max(whole[0] - from, Math.min(whole[1] - to, by));
  return [from + kept, to + kept];
}

function widened([from, to]: [number, number], whole: [number, number]): [number, number] | null {
  const wide: [number, number] = [Math.max(from, whole[0]), Math.min(to, whole[1])];
  return wide[0] <= whole[0] && wide[1] >= whole[1] ? null : wide;
}

type Latest = { current: PlotProps };

function build(
  element: HTMLElement,
  latest: Latest,
  data: uPlot.AlignedData,
  setAt: (at: { index: number; x: number; mark: string } | null) => void,
): uPlot {
  const props = latest.current;
  const axis = {
    stroke: color("muted"),
    grid: { stroke: color("grid"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  const series: uPlot.Series[] = [{}];
  const bands: uPlot.Band[] = [];
  for (const line of props.lines) {
    const many = line.dots && line.x.length > 1500;
    const stroke = many ? translucent(color(line.color), 0.4) : color(line.color);
    series.push({
      stroke,
      width: line.dots ? 0 : 1.6,
      spanGaps: true,
      points: { show: line.dots || line.points || undefined, size: many ? 3 : line.dots ? 4.5 : 5, fill: stroke, width: 0 } as uPlot.Series.Points,
      ...(line.dashed ? { dash: [4, 4] } : {}),
      ...(line.stairs ? { paths: uPlot.paths.stepped?.({ align: 1 }) as uPlot.Series.PathBuilder } : {}),
      ...(line.dots ? { paths: () => null } : {}),
    });
    if (line.raw) series.push({ stroke: translucent(stroke, 0.28), width: 1, spanGaps: true, points: { show: false } });
    if (line.band) {
      const hidden = { stroke: "transparent", width: 0, spanGaps: true, points: { show: false } };
      bands.push({ series: [series.length, series.length + 1], fill: translucent(stroke, 0.16) });
      series.push(hidden, { ...hidden });
    }
  }
  const options: uPlot.Options = {
    width: Math.max(50, element.clientWidth),
    height: props.height ?? HEIGHT,
    padding: [8, 10, 0, 0],
    legend: { show: false },
    series,
    bands,
    scales: {
      x: { time: false },
      y: props.log ? { distr: 3 } : { range: (_, low, high) => padded(low, high) },
    },
    axes: [
      { ...axis, size: 19, gap: 3, values: (_, ticks) => ticks.map((tick) => short(tick, latest.current.formatX)) },
      {
        ...axis,
        gap: 4,
        size: (_, values) => 14 + 6.4 * Math.max(3, ...(values ?? []).map((text) => text?.length ?? 0)),
        values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick, latest.current.format))),
      },
    ],
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      ...(props.sync !== undefined ? { sync: { key: props.sync } } : {}),
      bind: {
        mousedown: (u, _, handler) => (event: MouseEvent) => {
          if (event.shiftKey && latest.current.setRange) pan(u, event, latest);
          else handler(event);
          return null;
        },
        dblclick: () => () => {
          latest.current.setRange?.(null);
          return null;
        },
      },
    },
    hooks: {
      drawClear: [(u) => drawLost(u, latest.current.marks ?? [])],
      draw: [(u) => drawMarks(u, latest.current.marks ?? [])],
      setSelect: [(u) => selected(u, latest)],
      setCursor: [
        (u) => {
          const { idx, left } = u.cursor;
          if (idx === null || idx === undefined || left === undefined || left < 0) return setAt(null);
          setAt({ index: idx, x: u.data[0][idx] ?? 0, mark: markAt(u, left, latest.current.marks ?? []) });
        },
      ],
    },
  };
  const u = new uPlot(options, data, element);
  u.over.addEventListener("wheel", (event) => wheel(u, event, latest), { passive: false });
  u.over.addEventListener("click", () => {
    const { pick, lines } = latest.current;
    const dots = lines.findIndex((line) => line.dots);
    if (pick && dots >= 0 && typeof u.cursor.idx === "number") pick(u.cursor.idx);
  });
  return u;
}

/** The range of the y axis: what is there, with some air. */
function padded(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null) return [0, 1];
  const air = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
}

/** A tick, as short as can be. */
function short(value: number, format: ((value: number) => string) | undefined): string {
  const size = Math.abs(value);
  if (format && format !== measured) return format(value).replace(/\.0+(?= %$)/, "");
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(4))}G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential().replace(/(\.\d{2})\d+/, "$1");
  return String(Number(value.toPrecision(6)));
}

/** A colour of the style sheet, weaker. */
function translucent(hex: string, alpha: number): string {
  return `${hex}${Math.round(alpha * 255).toString(16).padStart(2, "0")}`;
}

function selected(u: uPlot, latest: Latest): void {
  const { left, width } = u.select;
  if (width < 3) return;
  latest.current.setRange?.([u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
  u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
}

/** Moves the shown part with the mouse. */
function pan(u: uPlot, start: MouseEvent, latest: Latest): void {
  const range = shownRange(u);
  const perPixel = (range[1] - range[0]) / Math.max(1, u.over.clientWidth);
  const move = (event: MouseEvent) => {
    latest.current.setRange?.(panned(range, (start.clientX - event.clientX) * perPixel, reach(u, latest.current)));
  };
  const end = () => {
    removeEventListener("mousemove", move);
    removeEventListener("mouseup", end);
  };
  addEventListener("mousemove", move);
  addEventListener("mouseup", end);
}

/** The wheel zooms with Ctrl and moves with Shift; without either the page scrolls. */
function wheel(u: uPlot, event: WheelEvent, latest: Latest): void {
  const setRange = latest.current.setRange;
  if (!setRange || !(event.ctrlKey || event.metaKey || event.shiftKey)) return;
  event.preventDefault();
  const [from, to] = shownRange(u);
  const amount = event.deltaY || event.deltaX;
  if (event.shiftKey) return setRange(panned([from, to], Math.sign(amount) * (to - from) * 0.1, reach(u, latest.current)));
  const center = u.posToVal(u.cursor.left ?? 0, "x");
  const factor = amount > 0 ? 1.25 : 0.8;
  setRange(widened([center - (center - from) * factor, center + (to - center) * factor], reach(u, latest.current)));
}

const MARK_COLORS: Record<Mark["kind"], string> = {
  checkpoint: "muted",
  best: "good",
  pinned: "accent",
  generation: "muted",
  failure: "bad",
  lost: "lost",
};

/** What was rolled back, as a grey ground behind the curves. */
function drawLost(u: uPlot, marks: readonly Mark[]): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.fillStyle = translucent(color("lost"), 0.22);
  for (const { x, to, kind } of marks) {
    if (kind !== "lost") continue;
    const left = Math.max(bbox.left, u.valToPos(x, "x", true));
    const right = Math.min(bbox.left + bbox.width, Math.max(left + 2, u.valToPos(to ?? x, "x", true)));
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
  }
  ctx.restore();
}

/** Groups as dashed lines, checkpoints as small triangles on the axis. */
function drawMarks(u: uPlot, marks: readonly Mark[]): void {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const { x, kind } of marks) {
    if (kind === "lost") continue;
    const left = Math.round(u.valToPos(x, "x", true)) + 0.5;
    if (left < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.strokeStyle = ctx.fillStyle = color(MARK_COLORS[kind]);
    const bottom = bbox.top + bbox.height;
    ctx.beginPath();
    if (kind === "generation" || kind === "failure") {
      ctx.lineWidth = ratio;
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.moveTo(left, bbox.top);
      ctx.lineTo(left, bottom);
      ctx.stroke();
      ctx.setLineDash([]);
    } else {
      const size = (kind === "checkpoint" ? 3 : 4.5) * ratio;
      ctx.moveTo(left - size, bottom);
      ctx.lineTo(left + size, bottom);
      ctx.lineTo(left, bottom - 1.8 * size);
      ctx.fill();
    }
  }
  ctx.restore();
}

/** What happened close to the cursor. */
function markAt(u: uPlot, left: number, marks: readonly Mark[]): string {
  return marks
    .filter(({ x, to }) => u.valToPos(x, "x") - 5 < left && left < u.valToPos(to ?? x, "x") + 5)
    .slice(0, 3)
    .map((mark) => mark.label)
    .join("; ");
}
