import type { Value } from "../api/types";

/** An axis: where a value lies between 0 and 1, and which values to write beside it. */
export interface Axis {
  /** The place of a value, null if it has none here. */
  place: (value: Value | undefined) => number | null;
  /** The value at a place; a text for those that are no numbers. */
  ticks: { at: number; text: string }[];
  /** The number at a place; not-a-number on an axis of choices. */
  value: (place: number) => number;
  log: boolean;
}

/** An axis of numbers. */
export function numberAxis(low: number, high: number, log: boolean, format: (value: number) => string, ticks = 5): Axis {
  if (!(low < high)) [low, high] = low === 0 ? [-1, 1] : [low - Math.abs(low) * 0.1, low + Math.abs(low) * 0.1];
  log = log && low > 0;
  const to = log ? Math.log : (value: number) => value;
  const from = log ? Math.exp : (value: number) => value;
  const [a, b] = [to(low), to(high)];
  const place = (value: Value | undefined) => {
    if (typeof value !== "number" || !Number.isFinite(value) || (log && value <= 0)) return null;
    return (to(value) - a) / (b - a);
  };
  const marks = log ? logTicks(low, high, ticks) : linearTicks(low, high, ticks);
  return {
    place,
    value: (at) => from(a + at * (b - a)),
    ticks: marks.map((value) => ({ at: place(value) ?? 0, text: format(value) })),
    log,
  };
}

/** An axis of choices, in their order. */
export function choiceAxis(choices: readonly Value[]): Axis {
  const places = new Map(choices.map((choice, i) => [String(choice), (i + 0.5) / choices.length]));
  return {
    place: (value) => (value === undefined || value === null ? null : (places.get(String(value)) ?? null)),
    value: () => NaN,
    ticks: [...places].map(([text, at]) => ({ at, text })),
    log: false,
  };
}

/** Round values within a range, about so many. */
export function linearTicks(low: number, high: number, about: number): number[] {
  const rough = (high - low) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].find((unit) => unit * power >= rough) ?? 10;
  const step = unit * power;
  const ticks: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** Powers of ten within a range, or round values between them where there are few. */
export function logTicks(low: number, high: number, about: number): number[] {
  const [a, b] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const stride = Math.max(1, Math.ceil((b - a + 1) / about));
  const ticks: number[] = [];
  for (let e = a; e <= b; e += stride) ticks.push(Number(`1e${e}`));
  if (ticks.length >= 3) return ticks;
  const between: number[] = [];
  for (let e = a - 1; e <= b; e++) {
    for (const unit of b - a >= 1 ? [1, 3] : [1, 2, 5]) {
      const value = Number(`${unit}e${e}`);
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) between.push(value);
    }
  }
  return between.length >= 2 ? between : linearTicks(low, high, about);
}

/** The smallest and the greatest finite value; null if there is none. */
export function extent(values: Iterable<number | null>): [number, number] | null {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}
