import { useMemo } from "preact/hooks";

import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Decisions } from "../../api/types";
import { count, cut } from "../../lib/format";
import { useParameter } from "../../state/address";
import { Choice, Empty, Panel, Problem, Said, TableFrame } from "../../ui/basic";
import type { SweepShown } from "./sweep";

/** So many decisions are on the page at most. */
const SHOWN = 500;

/** Where trials rested and what was decided there. */
export function RungsTab({ sweep, pick }: SweepShown) {
  const [kind, setKind] = useParameter("kind");
  const [rung, setRung] = useParameter("rung");
  const { data, error, reload } = useResource<Decisions>(api("sweeps", sweep.name, "/decisions"), {
    topic: `sweep:${sweep.name}`,
    gapMs: 3_000,
  });
  const decisions = data?.decisions ?? [];
  const kinds = useMemo(() => [...new Set(decisions.map((one) => one.kind))].sort(), [decisions]);
  const shown = decisions.filter((one) => (kind === "" || one.kind === kind) && (rung === "" || String(one.budget) === rung));
  const rungs = sweep.rungs.map(({ budget }) => ({ value: String(budget), label: count(budget) }));
  const stoppedAt = (budget: number) => {
    setRung(String(budget));
    setKind("stopped");
  };
  const newest = shown.slice(-SHOWN).toReversed();
  const most = Math.max(1, ...sweep.rungs.map((rung) => rung.reached));
  return (
    <>
      <Panel title="Rungs">
        {sweep.rungs.length === 0 ? (
          <Empty>This sweep has no rungs, or no trial has reached one yet.</Empty>
        ) : (
          <TableFrame label="Rungs">
            <table>
              <thead>
                <tr>
                  <th scope="col" class="n">Budget{sweep.unit ? `, ${sweep.unit}` : ""}</th>
                  <th scope="col" class="wide-cell"><span class="sr">Shares</span></th>
                  <th scope="col" class="n">Reached</th>
                  <th scope="col" class="n">Went on</th>
                  <th scope="col" class="n">Stopped</th>
                  <th scope="col" class="n">Waits</th>
                </tr>
              </thead>
              <tbody>
                {sweep.rungs.map((rung) => (
                  <tr key={rung.budget}>
                    <th scope="row" class="n">{count(rung.budget)}</th>
                    <td class="wide-cell">
                      <div class="share-bar" aria-hidden="true">
                        <i class="fill-completed" style={{ width: `${(rung.promoted / most) * 100}%` }} />
                        <i class="fill-pruned" style={{ width: `${(rung.stopped / most) * 100}%` }} />
                        <i
                          class="fill-paused"
                          style={{ width: `${(Math.max(0, rung.reached - rung.promoted - rung.stopped) / most) * 100}%` }}
                        />
                      </div>
                    </td>
                    <td class="n">{count(rung.reached)}</td>
                    <td class="n">{count(rung.promoted)}</td>
                    <td class="n">
                      {rung.stopped === 0 ? (
                        count(0)
                      ) : (
                        <button class="quiet link" title="Who was stopped here, and why" onClick={() => stoppedAt(rung.budget)}>
                          {count(rung.stopped)}
                        </button>
                      )}
                    </td>
                    <td class="n">{count(Math.max(0, rung.reached - rung.promoted - rung.stopped))}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </TableFrame>
        )}
      </Panel>
      <Panel
        title="Decisions"
        note={shown.length > SHOWN ? `newest ${SHOWN} of ${count(shown.length)}` : count(shown.length)}
        tools={
          <>
            <Choice label="Rung" value={rung} options={[{ value: "", label: "all" }, ...rungs]} set={setRung} />
            <Choice label="Kind" value={kind} options={[{ value: "", label: "all" }, ...kinds.map((one) => ({ value: one, label: one }))]} set={setKind} />
          </>
        }
      >
        {error && <Problem error={error} retry={reload} />}
        {newest.length === 0 ? (
          <Empty>{decisions.length === 0 ? "Nothing was decided yet." : "No decision of this kind at this rung."}</Empty>
        ) : (
          <ol class="decisions" tabIndex={0} aria-label="Decisions, newest first">
            {newest.map((one, i) => (
              <li key={i}>
                <button class="quiet link" onClick={() => pick(one.trial)}>
                  trial {one.trial}
                </button>
                <span class="n muted">{one.budget !== null && `at ${count(one.budget)}`}</span>
                <bdi class="kind">{cut(one.kind, 40)}</bdi>
                <Said>{one.text}</Said>
              </li>
            ))}
          </ol>
        )}
      </Panel>
    </>
  );
}
