import { useResource } from "../../api/resource";
import type { Cluster, Run } from "../../api/types";
import { duration } from "../../lib/format";
import { Panel } from "../../ui/basic";
import { paces } from "../cluster/stragglers";
import { PhaseBar, PhaseLegend, shares } from "../phases";

/** So many ranks are drawn. */
const RANKS_SHOWN = 64;

/** How the phases share the time of the newest step, on each rank of a run that is at work. */
export function StepTime({ run }: { run: Run }) {
  const { data } = useResource<Cluster>("/api/v1/cluster", { topic: "cluster", gapMs: 1000 });
  const ranks = (data && paces(data.workers).get(run.name)) ?? [];
  const most = Math.max(1, ...ranks.map(({ busy, waiting }) => busy + waiting));
  const drawn = ranks.slice(0, RANKS_SHOWN);
  if (drawn.length === 0) return null;
  return (
    <Panel
      title="Time of a step by phase"
      note={ranks.length > RANKS_SHOWN ? `the first ${RANKS_SHOWN} of ${ranks.length} ranks` : "the newest step"}
      tools={<PhaseLegend />}
    >
      <ul class="paces" aria-label="Time of a step by phase">
        {drawn.map(({ rank, worker, busy, waiting, phases }) => (
          <li key={rank}>
            <span class="pace-rank" title={`${worker.id} on ${worker.host}`}>
              rank {rank}
            </span>
            {phases !== null && <PhaseBar phases={phases} most={most} />}
            <span class="pace-text">{duration((busy + waiting) / 1000)}</span>
            {phases !== null && <span class="pace-shares">{shares(phases)}</span>}
          </li>
        ))}
      </ul>
    </Panel>
  );
}
