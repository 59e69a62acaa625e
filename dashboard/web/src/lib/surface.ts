/** How good trials are around each place of the unit square. */
export interface Surface {
  columns: number;
  rows: number;
  /** Row by row from the bottom; not-a-number where no trial is near. */
  values: Float64Array;
}

/** Cells of the surface. */
const COLUMNS = 96;
const ROWS = 64;

/** The width of the smoothing, in cells. */
const SPREAD = 4.5;

/** Less weight than this says nothing about a place. */
const WEIGHT_MIN = 0.004;

/** A weighted mean with a Gaussian around each place: points go into cells, then sums and weights are smoothed alike. */
export function surface(points: readonly { x: number; y: number; value: number }[]): Surface {
  const weights = new Float64Array(COLUMNS * ROWS);
  const sums = new Float64Array(COLUMNS * ROWS);
  for (const { x, y, value } of points) {
    const column = Math.min(COLUMNS - 1, Math.max(0, Math.floor(x * COLUMNS)));
    const row = Math.min(ROWS - 1, Math.max(0, Math.floor(y * ROWS)));
    const at = row * COLUMNS + column;
    weights[at] = (weights[at] ?? 0) + 1;
    sums[at] = (sums[at] ?? 0) + value;
  }
  const [weight, sum] = [blurred(weights), blurred(sums)];
  const values = sum.map((value, i) => ((weight[i] ?? 0) > WEIGHT_MIN ? value / (weight[i] ?? 1) : NaN));
  return { columns: COLUMNS, rows: ROWS, values };
}

function blurred(cells: Float64Array): Float64Array {
  const reach = Math.ceil(SPREAD * 3);
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-(((i - reach) / SPREAD) ** 2) / 2));
  const total = kernel.reduce((a, b) => a + b, 0);
  const pass = (from: Float64Array, across: boolean) => {
    const to = new Float64Array(from.length);
    for (let row = 0; row < ROWS; row++) {
      for (let column = 0; column < COLUMNS; column++) {
        let sum = 0;
        for (let k = -reach; k <= reach; k++) {
          const [r, c] = across ? [row, column + k] : [row + k, column];
          if (r < 0 || r >= ROWS || c < 0 || c >= COLUMNS) continue;
          sum += (from[r * COLUMNS + c] ?? 0) * (kernel[k + reach] ?? 0);
        }
        to[row * COLUMNS + column] = sum / total;
      }
    }
    return to;
  };
  return pass(pass(cells, true), false);
}
