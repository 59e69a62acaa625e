import type { Phases } from "../api/types";
import { duration } from "../lib/format";

/** The phases of a step in their order, and what they are. */
export const PHASES: readonly { id: keyof Phases; label: string; means: string }[] = [
  { id: "data", label: "data", means: "waiting for the samples" },
  { id: "passes", label: "passes", means: "forward and backward, with the reduction of what is complete beside them" },
  { id: "reduce", label: "reduce", means: "waiting for the rest of the reduction" },
  { id: "agree", label: "agree", means: "waiting for the other ranks" },
  { id: "update", label: "update", means: "norm, clipping and the update of the parameters" },
  { id: "report", label: "report", means: "reporting the step before" },
];

/** What the colours of [PhaseBar] stand for. */
export function PhaseLegend() {
  return (
    <span class="pace-legend">
      {PHASES.map(({ id, label, means }) => (
        <span key={id} title={means}>
          <i class={`swatch-box phase-${id}`} /> {label}
        </span>
      ))}
    </span>
  );
}

/** The phases of a step beside each other, as shares of `most` microseconds. */
export function PhaseBar({ phases, most }: { phases: Phases; most: number }) {
  return (
    <span class="pace-bar" aria-hidden="true">
      {PHASES.map(({ id, label }) => (
        <i key={id} class={`phase-${id}`} title={`${label}: ${duration(phases[id] / 1000)}`} style={{ width: `${(phases[id] / most) * 100}%` }} />
      ))}
    </span>
  );
}

/** How the time of a step is shared, from the greatest share to the least, without those below a hundredth. */
export function shares(phases: Phases): string {
  const all = PHASES.reduce((sum, { id }) => sum + phases[id], 0);
  if (all === 0) return "";
  const named = PHASES.map(({ id, label }) => ({ label, share: phases[id] / all }));
  const shown = named.filter(({ share }) => share >= 0.01).sort((a, b) => b.share - a.share);
  return shown.map(({ label, share }) => `${label} ${Math.round(share * 100)} %`).join(", ");
}
