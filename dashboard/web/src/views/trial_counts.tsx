import type { SweepSummary, TrialState } from "../api/types";
import { count } from "../lib/format";

/** States of trials, from those that got furthest. */
export const TRIAL_STATES: TrialState[] = ["completed", "training", "paused", "pruned", "failed"];

/** How many trials are in each state, as a bar and in words. */
export function TrialCounts({ counts }: { counts: SweepSummary["trials"] }) {
  const all = TRIAL_STATES.reduce((sum, state) => sum + counts[state], 0);
  const there = TRIAL_STATES.filter((state) => counts[state] > 0);
  return (
    <div class="trial-counts">
      <div class="share-bar" aria-hidden="true">
        {there.map((state) => (
          <i key={state} class={`fill-${state}`} style={{ width: `${(counts[state] / Math.max(1, all)) * 100}%` }} />
        ))}
      </div>
      <small>{there.length === 0 ? "none yet" : there.map((state) => `${count(counts[state])} ${state}`).join(", ")}</small>
    </div>
  );
}
