/**
 * An exponential moving average. `weight` from 0 (as it is) to below 1 is what is kept from the value before; the start is
 * corrected, so that the first values do not lean towards zero. What is not finite is passed over: it stays as it is and
 * has no part in the average.
 */
export function smooth(values: readonly (number | null)[], weight: number): (number | null)[] {
  if (!(weight > 0)) return [...values];
  let mean = 0;
  let correction = 1;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return value;
    mean = mean * weight + value * (1 - weight);
    correction *= weight;
    return mean / (1 - correction);
  });
}

/** What was the best so far after each value; null before the first. */
export function bestSoFar(values: readonly (number | null)[], goal: "minimize" | "maximize"): (number | null)[] {
  let best: number | null = null;
  return values.map((value) => {
    if (value !== null && Number.isFinite(value)) {
      best = best === null ? value : goal === "minimize" ? Math.min(best, value) : Math.max(best, value);
    }
    return best;
  });
}
