import type { TargetedKeyboardEvent } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import type { SweepTrial, Value } from "../api/types";
import { State } from "./basic";

/** What the table needs to know of a column. */
export interface GridColumn {
  id: string;
  label: string;
  numeric: boolean;
  value: (trial: SweepTrial) => Value | undefined;
  show: (value: Value | undefined) => string;
}

/** The height of a row, as in the style sheet. */
const ROW = 28;

/** Rows beyond the edges, so that scrolling shows no gap. */
const BEYOND = 8;

interface GridProps {
  label: string;
  columns: readonly GridColumn[];
  trials: readonly SweepTrial[];
  /** Indices of trials, in order. */
  rows: readonly number[];
  sort: string;
  descending: boolean;
  setSort: (id: string, descending: boolean) => void;
  selected: number | null;
  pick: (trial: number | null) => void;
  /** Trials that no other one beats. */
  front: readonly number[];
}

/**
 * A table of any length: only the rows in sight are in the page. A row that leaves the sight becomes the one that comes into
 * it, so that scrolling changes texts and makes no elements.
 */
export function Grid(props: GridProps) {
  const { columns, trials, rows, selected, pick } = props;
  const frame = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  // Where a scroll shows the same rows, nothing is drawn anew.
  const scrolled = (pixels: number) => setTop(Math.floor(pixels / ROW) * ROW);
  const [size, setSize] = useState({ width: 0, height: 480 });
  const { height } = size;
  const front = useMemo(() => new Set(props.front), [props.front]);
  useEffect(() => {
    const { current } = frame;
    if (!current) return;
    const observer = new ResizeObserver(() => setSize({ width: current.clientWidth, height: current.clientHeight }));
    observer.observe(current);
    return () => observer.disconnect();
  }, []);
  const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
  const slots = Math.ceil(height / ROW) + 1 + 2 * BEYOND;
  const last = Math.min(rows.length, first + slots);
  const at = useMemo(
    () => (selected === null ? -1 : rows.findIndex((row) => trials[row]?.number === selected)),
    [rows, trials, selected],
  );
  const show = (index: number) => {
    const trial = trials[rows[index] ?? -1];
    if (!trial) return;
    pick(trial.number);
    const box = frame.current;
    if (!box) return;
    const [low, high] = [index * ROW, (index + 1) * ROW - (box.clientHeight - ROW)];
    if (box.scrollTop > low) box.scrollTop = low;
    else if (box.scrollTop < high) box.scrollTop = high;
  };
  const keys = (event: TargetedKeyboardEvent<HTMLDivElement>) => {
    if (event.target !== event.currentTarget) return;
    const page = Math.max(1, Math.floor(height / ROW) - 2);
    const to = new Map([
      ["ArrowDown", at + 1],
      ["ArrowUp", at - 1],
      ["PageDown", at + page],
      ["PageUp", at - page],
      ["Home", 0],
      ["End", rows.length - 1],
    ]).get(event.key);
    if (event.key === "Escape") pick(null);
    if (to === undefined) return;
    event.preventDefault();
    show(Math.min(rows.length - 1, Math.max(0, to)));
  };
  const template = useMemo(() => widths(columns, size.width), [columns, size.width]);
  return (
    <div
      ref={frame}
      class="grid"
      role="grid"
      aria-label={props.label}
      aria-rowcount={rows.length + 1}
      aria-activedescendant={at >= first && at < last ? `row-${selected}` : undefined}
      tabIndex={0}
      onKeyDown={keys}
      onScroll={(event) => scrolled(event.currentTarget.scrollTop)}
    >
      <div class="grid-head" role="row" aria-rowindex={1} style={{ gridTemplateColumns: template }}>
        {columns.map((column) => {
          const sorted = props.sort === column.id;
          return (
            <div
              key={column.id}
              role="columnheader"
              class={column.numeric ? "n" : ""}
              aria-sort={sorted ? (props.descending ? "descending" : "ascending") : "none"}
            >
              <button class="quiet" title={column.label} onClick={() => props.setSort(...nextSort(column.id, sorted, props.descending))}>
                <bdi class="name">{column.label}</bdi>
                <span aria-hidden="true">{sorted ? (props.descending ? " ↓" : " ↑") : ""}</span>
              </button>
            </div>
          );
        })}
      </div>
      <div class="grid-body" role="presentation" style={{ height: `${rows.length * ROW}px` }}>
        {rows.slice(first, last).map((row, i) => {
          const trial = trials[row];
          if (!trial) return null;
          const index = first + i;
          return (
            <div
              key={index % slots}
              id={`row-${trial.number}`}
              role="row"
              aria-rowindex={index + 2}
              aria-selected={trial.number === selected}
              class={`grid-row ${trial.number === selected ? "chosen" : ""}`}
              style={{ gridTemplateColumns: template, transform: `translateY(${index * ROW}px)` }}
              onClick={() => pick(trial.number === selected ? null : trial.number)}
            >
              {columns.map((column) => (
                <Cell key={column.id} column={column} trial={trial} front={front.has(trial.number)} />
              ))}
            </div>
          );
        })}
      </div>
      {rows.length === 0 && <p class="empty">No trial matches. Change the filter or clear the ranges.</p>}
    </div>
  );
}

/** Up, down, and as it was. */
function nextSort(id: string, sorted: boolean, descending: boolean): [string, boolean] {
  if (!sorted) return [id, false];
  return descending ? ["", false] : [id, true];
}

/** How wide the columns are: as their heads need it, and what is left goes to all but the first two. */
function widths(columns: readonly GridColumn[], available: number): string {
  const needed = columns.map((column) => needs(column));
  const spare = available - needed.reduce((sum, one) => sum + one, 0);
  const growing = columns.filter(({ id }) => !FIXED.includes(id)).length;
  const more = growing > 0 ? Math.max(0, Math.floor(spare / growing)) : 0;
  return columns.map(({ id }, i) => `${(needed[i] ?? 0) + (FIXED.includes(id) ? 0 : more)}px`).join(" ");
}

const FIXED = ["number", "state"];

function needs({ id, label }: GridColumn): number {
  if (id === "number") return 74;
  if (id === "state") return 98;
  return id === "reason" ? 240 : Math.min(170, Math.max(78, label.length * 7 + 26));
}

function Cell({ column, trial, front }: { column: GridColumn; trial: SweepTrial; front: boolean }) {
  const value = column.value(trial);
  if (column.id === "state") {
    return (
      <div role="gridcell">
        <State state={trial.state} />
      </div>
    );
  }
  const text = column.show(value);
  return (
    <div role="gridcell" class={column.numeric ? "n" : ""}>
      {column.id === "number" && front && (
        <span class="star" title="No other trial beats it">
          ★
        </span>
      )}
      <bdi class="name" title={text}>
        {text}
      </bdi>
    </div>
  );
}
