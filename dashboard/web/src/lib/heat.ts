import type { Histogram } from "../api/types";

/** Histograms beside each other on one axis of values. */
export interface Heat {
  /** The least and the greatest value of all. */
  low: number;
  high: number;
  /** For each histogram, from the low end to the high one, what share of its values lies in each row. */
  columns: Float64Array[];
  /** The greatest share. */
  most: number;
}

/** Puts histograms with edges of their own into rows that all have in common; a bucket goes to the rows that it covers. */
export function heat(histograms: readonly Histogram[], rows: number): Heat {
  const filled = histograms.filter((one) => one.counts.some((count) => count > 0));
  const low = Math.min(...filled.map((one) => one.low));
  const high = Math.max(...filled.map((one) => one.high));
  if (filled.length === 0 || !(low < high)) return { low: 0, high: 1, columns: histograms.map(() => new Float64Array(rows)), most: 0 };
  const columns = histograms.map((one) => column(one, low, (high - low) / rows, rows));
  return { low, high, columns, most: Math.max(...columns.map((values) => Math.max(...values))) };
}

function column(one: Histogram, low: number, size: number, rows: number): Float64Array {
  const shares = new Float64Array(rows);
  const total = one.counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return shares;
  const width = (one.high - one.low) / one.counts.length;
  one.counts.forEach((count, i) => {
    if (count === 0) return;
    // In rows, from the low end of all.
    const from = (one.low + i * width - low) / size;
    const to = (one.low + (i + 1) * width - low) / size;
    const first = Math.min(rows - 1, Math.max(0, Math.floor(from)));
    const last = Math.min(rows - 1, Math.max(first, Math.ceil(to) - 1));
    for (let row = first; row <= last; row++) {
      const covered = first === last ? 1 : (Math.min(row + 1, to) - Math.max(row, from)) / (to - from);
      shares[row] = (shares[row] ?? 0) + (count / total) * covered;
    }
  });
  return shares;
}
