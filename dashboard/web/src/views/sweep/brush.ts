import type { SweepTrial } from "../../api/types";
import type { Axis } from "../../lib/scale";
import type { Column } from "./columns";

/** A part of an axis, from 0 (bottom) to 1 (top); trials outside are left out. */
export interface Brush {
  column: string;
  from: number;
  to: number;
}

/** Brushes as a parameter of the address. */
export function brushesText(brushes: readonly Brush[]): string {
  return brushes.map(({ column, from, to }) => `${encodeURIComponent(column)}@${short(from)}~${short(to)}`).join(",");
}

/** The brushes that a parameter holds. */
export function brushesOf(text: string): Brush[] {
  return text.split(",").flatMap((part) => {
    const [, column, from, to] = /^(.+)@([\d.]+)~([\d.]+)$/.exec(part) ?? [];
    if (column === undefined || !(Number(from) < Number(to))) return [];
    try {
      return [{ column: decodeURIComponent(column), from: Number(from), to: Number(to) }];
    } catch {
      return [];
    }
  });
}

function short(value: number): string {
  return String(Number(value.toFixed(4)));
}

/** Whether a trial lies within all brushes. */
export function passes(
  trial: SweepTrial | undefined,
  axes: readonly { column: Column; axis: Axis }[],
  brushes: readonly Brush[],
): boolean {
  if (!trial) return false;
  return brushes.every((brush) => {
    const found = axes.find(({ column }) => column.id === brush.column);
    if (!found) return true;
    const place = found.axis.place(found.column.value(trial));
    return place !== null && place >= brush.from && place <= brush.to;
  });
}
