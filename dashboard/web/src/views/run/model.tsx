import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Model, Run } from "../../api/types";
import { count, percent } from "../../lib/format";
import { Empty, Name, Panel, Problem, TableFrame } from "../../ui/basic";

/** The layers of the model, as its newest checkpoint has them. */
export function ModelTab({ run }: { run: Run }) {
  const { data, error, reload } = useResource<Model | null>(api("runs", run.name, "/model"), { topic: `run:${run.name}`, gapMs: 10_000 });
  if (error) return <Problem error={error} retry={reload} />;
  if (!data) return <Empty>Not known before the first checkpoint.</Empty>;
  const most = Math.max(1, ...data.layers.map((layer) => layer.parameters));
  return (
    <Panel title="Model" note={`${count(data.parameters)} parameters in ${count(data.layers.length)} tensors`}>
      <TableFrame label="Layers">
        <table>
          <thead>
            <tr>
              <th scope="col">Tensor</th>
              <th scope="col">Shape</th>
              <th scope="col" class="n">Parameters</th>
              <th scope="col" class="n">Share</th>
              <th scope="col" class="wide-cell"><span class="sr">Size beside the largest</span></th>
            </tr>
          </thead>
          <tbody>
            {data.layers.map((layer) => (
              <tr key={layer.name}>
                <th scope="row" class="mono">
                  <Name>{layer.name}</Name>
                </th>
                <td class="mono">{layer.shape.join(" × ") || "1"}</td>
                <td class="n">{count(layer.parameters)}</td>
                <td class="n">{percent(layer.parameters / Math.max(1, data.parameters))}</td>
                <td class="wide-cell">
                  <div class="share-bar" aria-hidden="true">
                    <i class="fill-training" style={{ width: `${(layer.parameters / most) * 100}%` }} />
                  </div>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableFrame>
    </Panel>
  );
}
