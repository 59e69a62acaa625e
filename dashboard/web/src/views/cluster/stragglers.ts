import type { Phases, Worker } from "../../api/types";

/** What a rank's newest step took. */
export interface RankPace {
  worker: Worker;
  rank: number;
  /** In the model, in microseconds: what the others may wait for. */
  busy: number;
  /** For data and for the others. */
  waiting: number;
  phases: Phases | null;
  /** Much busier than the middle of its group. */
  straggler: boolean;
}

/** So many times as long as the middle of its group a straggler is busy for a step. */
const SLOW = 1.3;

/** The ranks of each run that told what their newest step took, by rank. A rank of a group of one waits for nobody. */
export function paces(workers: readonly Worker[]): Map<string, RankPace[]> {
  const groups = new Map<string, RankPace[]>();
  for (const worker of workers) {
    const { run, rank, connected, step_micros: step, outside_micros: outside, phases = null } = worker;
    if (run === null || rank === null || !connected || typeof step !== "number") continue;
    const waiting = Math.min(step, outside ?? 0);
    const group = groups.get(run) ?? [];
    groups.set(run, group);
    group.push({ worker, rank, busy: step - waiting, waiting, phases, straggler: false });
  }
  for (const group of groups.values()) {
    group.sort((a, b) => a.rank - b.rank);
    const sorted = group.map(({ busy }) => busy).sort((a, b) => a - b);
    const middle = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
    for (const one of group) one.straggler = one.busy > middle * SLOW;
  }
  return groups;
}

/** The ids of the workers that the others of their groups wait for. */
export function stragglers(workers: readonly Worker[]): Set<string> {
  const slow = [...paces(workers).values()].flat().filter(({ straggler }) => straggler);
  return new Set(slow.map(({ worker }) => worker.id));
}
