import type { Run } from "../../api/types";
import { count, exactly, moment } from "../../lib/format";
import { Empty, Name, Panel, TableFrame } from "../../ui/basic";
import { PinButton } from "../actions";

/** The checkpoints that are kept. */
export function Checkpoints({ run, after }: { run: Run; after: () => void }) {
  return (
    <Panel title="Checkpoints" note={count(run.checkpoints.length)}>
      {run.checkpoints.length === 0 ? (
        <Empty>No checkpoint yet. When they are made is said in the job, under checkpoint.</Empty>
      ) : (
        <TableFrame label="Checkpoints">
          <table>
            <thead>
              <tr>
                <th scope="col" class="n">Step</th>
                <th scope="col">Is</th>
                <th scope="col">Saved</th>
                <th scope="col">SHA-256 of the weights</th>
                <th scope="col">Manifest</th>
                <th scope="col"><span class="sr">Actions</span></th>
              </tr>
            </thead>
            <tbody>
              {run.checkpoints.toReversed().map((one) => (
                <tr key={one.step}>
                  <th scope="row" class="n">{count(one.step)}</th>
                  <td>
                    {one.best && <span class="tag tag-good">best</span>} {one.result && <span class="tag">result</span>}{" "}
                    {one.pinned && <span class="tag tag-accent">pinned</span>}
                  </td>
                  <td title={exactly(one.at)}>{moment(one.at)}</td>
                  <td class="mono">
                    <Name>{one.weights_sha256}</Name>
                  </td>
                  <td class="mono">
                    <Name>{one.manifest}</Name>
                  </td>
                  <td class="actions"><PinButton run={run.name} checkpoint={one} after={after} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      )}
    </Panel>
  );
}
