import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Ledger, LedgerEpoch, Run } from "../../api/types";
import { count } from "../../lib/format";
import { Command, Empty, Loading, Panel, Problem, Said, TableFrame } from "../../ui/basic";

/** So many epochs are shown. */
const SHOWN = 200;

/** Which samples were read: the ledger by epochs, and its audit. */
export function DataTab({ run }: { run: Run }) {
  const path = api("runs", run.name, "/ledger");
  const { data, error, reload } = useResource<Ledger>(path, { topic: `run:${run.name}`, gapMs: 2_000 });
  if (!data) return error ? <Problem error={error} retry={reload} /> : <Loading />;
  return (
    <>
      {error && <Problem error={error} retry={reload} />}
      <Panel title="Audit">
        {data.audit ? (
          <div class={`audit ${data.audit.ok ? "audit-good" : "audit-bad"}`}>
            <strong>{data.audit.ok ? "✓ The ledger agrees with the plan" : "✗ The ledger differs from the plan"}</strong>
            {data.audit.text.map((line, i) => (
              <p key={i}>
                <Said>{line}</Said>
              </p>
            ))}
          </div>
        ) : (
          <Empty>
            No audit here. <Command>{`phalanx audit ${run.name}`}</Command> makes one.
          </Empty>
        )}
      </Panel>
      <Panel title="Ledger by epoch" note={noteOf(data.epochs)}>
        {data.epochs.length === 0 ? <Empty>No sample was read yet.</Empty> : <Epochs epochs={newest(data.epochs)} />}
      </Panel>
    </>
  );
}

/** The newest epochs, as far as they were begun. */
function newest(epochs: LedgerEpoch[]): LedgerEpoch[] {
  const begun = epochs.filter((one) => one.read_once + one.replayed > 0);
  return (begun.length > 0 ? begun : epochs).slice(-SHOWN).toReversed();
}

function noteOf(epochs: LedgerEpoch[]): string {
  const shown = newest(epochs).length;
  return shown < epochs.length ? `the newest ${shown} of ${count(epochs.length)} epochs` : `${count(epochs.length)} epochs`;
}

function Epochs({ epochs }: { epochs: LedgerEpoch[] }) {
  return (
    <TableFrame label="Ledger by epoch">
      <table>
        <thead>
          <tr>
            <th scope="col" class="n">Epoch</th>
            <th scope="col" class="n">Samples</th>
            <th scope="col" class="wide-cell"><span class="sr">Shares</span></th>
            <th scope="col" class="n" title="In steps that count">Read once</th>
            <th scope="col" class="n" title="Read again after a rollback">Replayed</th>
            <th scope="col" class="n">Pending</th>
          </tr>
        </thead>
        <tbody>
          {epochs.map((one) => {
            const all = Math.max(1, one.read_once + one.pending, one.samples);
            return (
              <tr key={one.epoch}>
                <th scope="row" class="n">{one.epoch}</th>
                <td class="n">{count(one.samples)}</td>
                <td class="wide-cell">
                  <div class="share-bar" aria-hidden="true">
                    <i class="fill-completed" style={{ width: `${((one.read_once - one.replayed) / all) * 100}%` }} />
                    <i class="fill-paused" style={{ width: `${(one.replayed / all) * 100}%` }} />
                  </div>
                </td>
                <td class="n">{count(one.read_once)}</td>
                <td class={`n ${one.replayed > 0 ? "warn" : ""}`}>{count(one.replayed)}</td>
                <td class="n">{count(one.pending)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </TableFrame>
  );
}
