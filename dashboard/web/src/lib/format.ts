import type { Num, Value } from "../api/types";

/** What stands where nothing is known. */
export const NOTHING = "–";

/** A text that somebody else chose, as far as it has room: of a megabyte nobody reads more than the beginning. */
export function cut(text: string, most: number): string {
  if (text.length <= most) return text;
  return `${text.slice(0, most)}… (${text.length.toLocaleString("en-US")} characters)`;
}

/** So many characters of a name, or of the value of a parameter, are shown. */
export const NAME_MAX = 200;

/** So many characters of a sentence, or of a line of a log, are shown. */
export const SENTENCE_MAX = 4_000;

/** The number that was said; not-a-number for what is not known. */
export function number(value: Num | undefined): number {
  return value === null || value === undefined ? NaN : Number(value);
}

/** A whole number, with groups of three digits. */
export function count(value: number | null | undefined): string {
  return value === null || value === undefined || Number.isNaN(value) ? NOTHING : value.toLocaleString("en-US");
}

/** A measured number, to four digits. */
export function measured(value: Num | undefined): string {
  if (value === null || value === undefined) return NOTHING;
  if (typeof value === "string" || !Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  if (size >= 1000) return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  return String(Number(value.toPrecision(4)));
}

/** A share of one, in percent. */
export function percent(share: Num | undefined, digits = 1): string {
  const value = number(share);
  return Number.isFinite(value) ? `${(value * 100).toFixed(digits)} %` : measured(share);
}

/** A value of a metric: a share where its name says that it is one. */
export function metric(name: string, value: Num | undefined): string {
  return /accuracy/.test(name) && Number.isFinite(number(value)) ? percent(value, 2) : measured(value);
}

/** A value of a parameter. */
export function parameter(value: Value | undefined): string {
  if (value === undefined || value === null) return NOTHING;
  return typeof value === "number" ? measured(value) : cut(String(value), NAME_MAX);
}

/** An amount of memory. */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let amount = value;
  let unit = 0;
  while (amount >= 1024 && unit + 1 < units.length) {
    amount /= 1024;
    unit += 1;
  }
  return `${amount >= 100 || unit === 0 ? Math.round(amount) : Number(amount.toPrecision(3))} ${units[unit]}`;
}

/** A length of time, in its two greatest units. */
export function duration(milliseconds: number): string {
  if (!Number.isFinite(milliseconds)) return NOTHING;
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 0.001) return seconds === 0 ? "0 s" : `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return `${minutes} min ${whole % 60} s`;
}

/** A moment: the time of the day, with the date if it is not that of `now`. */
export function moment(at: number | null | undefined, now: number = Date.now()): string {
  if (at === null || at === undefined) return NOTHING;
  const date = new Date(at);
  const two = (value: number) => String(value).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  if (date.toDateString() === new Date(now).toDateString()) return time;
  return `${day(at)} ${time}`;
}

/** The date of a moment. */
export function day(at: number): string {
  const date = new Date(at);
  return `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")}`;
}

/** A moment, exactly. */
export function exactly(at: number | null | undefined): string {
  return at === null || at === undefined ? "" : `${day(at)} ${new Date(at).toLocaleTimeString("en-GB")}.${String(at % 1000).padStart(3, "0")}`;
}
