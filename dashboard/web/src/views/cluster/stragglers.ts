import type { Worker } from "../../api/types";

/** So many times as long as the middle of its group takes a straggler for a step. */
const SLOW = 1.3;

/** The workers that are much slower than the middle of their group; groups of one have none. */
export function stragglers(workers: readonly Worker[]): Set<string> {
  const groups = new Map<string, { id: string; micros: number }[]>();
  for (const { id, run, step_micros: micros, connected } of workers) {
    if (run === null || typeof micros !== "number" || !connected) continue;
    const group = groups.get(run) ?? [];
    groups.set(run, group);
    group.push({ id, micros });
  }
  const slow = new Set<string>();
  for (const group of groups.values()) {
    const sorted = group.map(({ micros }) => micros).sort((a, b) => a - b);
    const middle = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
    for (const { id, micros } of group) if (micros > middle * SLOW) slow.add(id);
  }
  return slow;
}
