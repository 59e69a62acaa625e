import type { Num, Objective, SpaceParameter, SweepDetail, SweepTrial, Value } from "../../api/types";
import { count, cut, duration, metric, moment, NAME_MAX, number, parameter } from "../../lib/format";
import { choiceAxis, extent, numberAxis, type Axis } from "../../lib/scale";

/** Something that every trial of a sweep may have: a column of the table, an axis of a plot. */
export interface Column {
  id: string;
  label: string;
  /** What it belongs to, in the list of columns. */
  group: "Trial" | "Parameters" | "Objectives" | "Metrics";
  /** Numbers stand right-aligned and are sorted as such. */
  numeric: boolean;
  value: (trial: SweepTrial) => Value | undefined;
  show: (value: Value | undefined) => string;
  /** The parameter that it is. */
  space?: SpaceParameter;
  /** The objective that it is. */
  objective?: Objective & { index: number };
}

const asText = (value: Value | undefined) => (value === null || value === undefined ? "" : cut(String(value), NAME_MAX));
const asNumber = (value: Value | undefined) => (typeof value === "number" ? value : NaN);
/** What was said, as a number; null where nothing was. */
const given = (value: Num | undefined): number | null => (value === null || value === undefined ? null : Number(value));
/** How a measured value is shown. */
const shown = (name: string) => (value: Value | undefined) => metric(name, typeof value === "number" ? value : null);

/** All columns that a sweep has. */
export function columnsOf(sweep: SweepDetail): Column[] {
  const own: Column[] = [
    { id: "number", label: "Trial", group: "Trial", numeric: true, value: (trial) => trial.number, show: asText },
    { id: "state", label: "State", group: "Trial", numeric: false, value: (trial) => trial.state, show: asText },
    { id: "reason", label: "Reason", group: "Trial", numeric: false, value: (trial) => trial.reason, show: asText },
    { id: "budget", label: "Budget", group: "Trial", numeric: true, value: (trial) => trial.budget, show: (v) => count(asNumber(v)) },
    { id: "step", label: "Step", group: "Trial", numeric: true, value: (trial) => trial.step, show: (v) => count(asNumber(v)) },
    { id: "parent", label: "Parent", group: "Trial", numeric: true, value: (trial) => trial.parent?.trial ?? null, show: asText },
    { id: "started", label: "Started", group: "Trial", numeric: true, value: (trial) => trial.started_at, show: (v) => moment(typeof v === "number" ? v : null) },
    { id: "took", label: "Took", group: "Trial", numeric: true, value: took, show: (v) => duration(asNumber(v)) },
  ];
  const objectives = sweep.objectives.map(
    (objective, index): Column => ({
      id: `o:${objective.metric}`,
      label: cut(objective.metric, NAME_MAX),
      group: "Objectives",
      numeric: true,
      value: (trial) => given(trial.values?.[index]),
      show: shown(objective.metric),
      objective: { ...objective, index },
    }),
  );
  const parameters = sweep.space.map(
    (space): Column => ({
      id: `p:${space.path}`,
      label: cut(space.path, NAME_MAX),
      group: "Parameters",
      numeric: space.choices === null,
      value: (trial) => (Object.hasOwn(trial.parameters, space.path) ? trial.parameters[space.path] : undefined),
      show: parameter,
      space,
    }),
  );
  const metrics = sweep.metrics.flatMap((name) =>
    (["last", "best", "min", "max"] as const).map((which): Column => {
      const of = which === "best" ? bestOf(name, sweep.objectives) : which;
      return {
        id: `m:${name}:${which}`,
        label: `${cut(name, NAME_MAX)}, ${which}`,
        group: "Metrics",
        numeric: true,
        value: (trial) => (Object.hasOwn(trial.metrics, name) ? given(trial.metrics[name]?.[of]) : undefined),
        show: shown(name),
      };
    }),
  );
  return [...own, ...objectives, ...parameters, ...metrics];
}

/** Whether the best of a metric is its least or its greatest value: as its objective says, or as its name does. */
export function bestOf(name: string, objectives: readonly Objective[]): "min" | "max" {
  const goal = objectives.find(({ metric }) => metric === name)?.goal;
  return (goal ?? (/loss|error|perplexity/.test(name) ? "minimize" : "maximize")) === "minimize" ? "min" : "max";
}

function took(trial: SweepTrial): number | null {
  return trial.started_at !== null && trial.ended_at !== null ? trial.ended_at - trial.started_at : null;
}

/** The columns that are shown where nobody has chosen any. */
export function usualColumns(columns: readonly Column[]): string[] {
  const own = ["number", "state"];
  const rest = columns.filter(({ group }) => group === "Objectives" || group === "Parameters").slice(0, 14);
  return [...own, ...rest.map(({ id }) => id), "budget", "step", "took", "reason"];
}

/** The axes that are shown where nobody has chosen any: the parameters, then the objectives. */
export function usualAxes(columns: readonly Column[]): string[] {
  const of = (group: Column["group"], most: number) => columns.filter((one) => one.group === group).slice(0, most);
  return [...of("Parameters", 10), ...of("Objectives", 3)].map(({ id }) => id);
}

/** The columns with these names, in their order; the usual ones where the list is empty. */
export function chosen(columns: readonly Column[], ids: readonly string[], usual: readonly string[]): Column[] {
  const by = new Map(columns.map((column) => [column.id, column]));
  const list = (ids.length > 0 ? ids : usual).flatMap((id) => by.get(id) ?? []);
  return list.length > 0 ? list : usual.flatMap((id) => by.get(id) ?? []);
}

/** The axis of a column: as far as the parameter's range, or as the trials' values. */
export function axisOf(column: Column, trials: readonly SweepTrial[]): Axis {
  const { space } = column;
  if (space?.choices) return choiceAxis(space.choices);
  if (!column.numeric) return choiceAxis([...new Set(trials.map((trial) => column.value(trial) ?? ""))].slice(0, 30));
  const there = extent(numbers(column, trials)) ?? [0, 1];
  const low = Math.min(space ? number(space.low) || there[0] : there[0], there[0]);
  const high = Math.max(space ? number(space.high) || there[1] : there[1], there[1]);
  const log = space ? space.kind.includes("log") : false;
  const axis = numberAxis(low, high, log, (value) => column.show(value).replace(/\.0+ %$/, " %"));
  const isWhole = ({ at }: { at: number }) => Number.isInteger(Number(axis.value(at).toPrecision(9)));
  return space?.kind.includes("integer") ? { ...axis, ticks: axis.ticks.filter(isWhole) } : axis;
}

function* numbers(column: Column, trials: readonly SweepTrial[]): Iterable<number | null> {
  for (const trial of trials) {
    const value = column.value(trial);
    yield typeof value === "number" ? value : null;
  }
}

/** How good each trial is in an objective, from 0 (worst) to 1 (best) among these; null where it has no value. */
export function goodness(trials: readonly SweepTrial[], objective: (Objective & { index: number }) | undefined): (number | null)[] {
  if (!objective) return trials.map(() => null);
  const values = trials.map((trial) => number(trial.values?.[objective.index]));
  // A few that went astray must not take all the colours: the worst tenth share the last one.
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return values.map(() => null);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
  const [low, high] = objective.goal === "minimize" ? [at(0), at(0.9)] : [at(0.1), at(1)];
  const width = high - low || 1;
  return values.map((value) => {
    if (!Number.isFinite(value)) return null;
    const place = Math.min(1, Math.max(0, (value - low) / width));
    return objective.goal === "minimize" ? 1 - place : place;
  });
}

/** The order of trials by a column, as indices; those without a value come last. */
export function sorted(trials: readonly SweepTrial[], rows: readonly number[], column: Column, descending: boolean): number[] {
  const keys = trials.map((trial) => column.value(trial));
  const sign = descending ? -1 : 1;
  return rows.toSorted((a, b) => {
    const [x, y] = [keys[a], keys[b]];
    const [noX, noY] = [isMissing(x), isMissing(y)];
    if (noX || noY) return Number(noX) - Number(noY) || a - b;
    if (typeof x === "number" && typeof y === "number") return sign * (x - y) || a - b;
    const [s, t] = [String(x), String(y)];
    return s < t ? -sign : s > t ? sign : a - b;
  });
}

function isMissing(value: Value | undefined): boolean {
  return value === null || value === undefined || Number.isNaN(value);
}
