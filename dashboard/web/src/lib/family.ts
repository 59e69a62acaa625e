import type { SweepTrial } from "../api/types";

/** A trial in its family. */
export interface Member {
  trial: SweepTrial;
  /** Its line among all, from the top: children come right below their parents. */
  row: number;
  /** The budget at which it began: where it was copied, or 0. */
  from: number;
  /** The line of its parent; null where it has none. */
  parentRow: number | null;
}

/** Lays out who came from whom. Parents that are missing, and circles that should not exist, count as no parent. */
export function family(trials: readonly SweepTrial[]): Member[] {
  const numbers = new Set(trials.map(({ number }) => number));
  const children = new Map<number | null, SweepTrial[]>();
  for (const trial of trials) {
    const parent = trial.parent && numbers.has(trial.parent.trial) ? trial.parent.trial : null;
    const list = children.get(parent) ?? [];
    children.set(parent, list);
    list.push(trial);
  }
  const members: Member[] = [];
  const rows = new Map<number, number>();
  const place = (trial: SweepTrial, parentRow: number | null) => {
    rows.set(trial.number, members.length);
    members.push({ trial, row: members.length, from: parentRow === null ? 0 : (trial.parent?.budget ?? 0), parentRow });
  };
  const visit = (roots: readonly SweepTrial[]) => {
    const stack = roots.toReversed().map((trial) => ({ trial, parentRow: null as number | null }));
    while (stack.length > 0) {
      const next = stack.pop();
      if (!next || rows.has(next.trial.number)) continue;
      place(next.trial, next.parentRow);
      const row = rows.get(next.trial.number) ?? null;
      const below = (children.get(next.trial.number) ?? []).toSorted((a, b) => (b.parent?.budget ?? 0) - (a.parent?.budget ?? 0));
      stack.push(...below.toReversed().map((trial) => ({ trial, parentRow: row })));
    }
  };
  visit(children.get(null) ?? []);
  visit(trials.filter(({ number }) => !rows.has(number)));
  return members;
}
