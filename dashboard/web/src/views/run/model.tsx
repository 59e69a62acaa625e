import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Inspections, Json, Model, Run } from "../../api/types";
import { count, percent } from "../../lib/format";
import { useParameter } from "../../state/address";
import { Choice, Command, Empty, Loading, Name, Panel, Problem, TableFrame } from "../../ui/basic";
import { AttentionPanel } from "./attention";
import { Histograms } from "./histograms";

/** The inside of the model while it trains, and its layers. */
export function ModelTab({ run }: { run: Run }) {
  return (
    <>
      <Inside run={run} />
      <Layers run={run} />
    </>
  );
}

/** What the job's section `inspect` asks for; null where it asks for nothing. */
function wishes(spec: Json): { every: string } | null {
  const inspect = (spec as { inspect?: { every?: { epochs?: number; steps?: number } } | null } | null)?.inspect;
  if (!inspect) return null;
  const { epochs, steps } = inspect.every ?? {};
  const [n, unit] = steps !== undefined ? [steps, "step"] : [epochs ?? 1, "epoch"];
  return { every: n === 1 ? `every ${unit}` : `every ${count(n)} ${unit}s` };
}

function Inside({ run }: { run: Run }) {
  const wished = wishes(run.spec);
  const { data, error, reload } = useResource<Inspections>(api("runs", run.name, "/inspections"), { topic: `run:${run.name}`, gapMs: 3_000 });
  const [at, setAt] = useParameter("at");
  if (!data) return error ? <Problem error={error} retry={reload} /> : <Loading />;
  const live = data.inspections.filter(({ rolled_back }) => !rolled_back);
  const chosen = live.find(({ step }) => String(step) === at) ?? live.at(-1);
  if (!chosen) {
    return (
      <Panel title="Inside the model">
        {wished ? (
          <Empty>Nothing was seen yet: this run looks into its model {wished.every}.</Empty>
        ) : (
          <Empty>
            Nobody looks in. With <Command>{"inspect: {every_epochs: 1}"}</Command> in the job file a run tells how its weights
            and gradients are spread, and what its attention looks at.
          </Empty>
        )}
      </Panel>
    );
  }
  const options = live.map(({ step }) => ({ value: String(step), label: count(step) })).toReversed();
  const lost = data.inspections.length - live.length;
  const note = [wished && `looked at ${wished.every}`, lost > 0 && `${count(lost)} more were rolled back`].filter(Boolean).join("; ");
  return (
    <>
      {error && <Problem error={error} retry={reload} />}
      <Panel
        title="Inside the model"
        note={note}
        tools={<Choice label="Step" value={String(chosen.step)} options={options} set={(step) => setAt(step === options[0]?.value ? "" : step)} />}
      >
        <p class="ramp-note">The newest 100 looks of a run are kept. Without a choice the newest is shown.</p>
      </Panel>
      <Histograms run={run} known={data} step={chosen.step} setStep={(step) => setAt(step === live.at(-1)?.step ? "" : String(step))} />
      <AttentionPanel key={run.name} run={run} step={chosen.step} />
    </>
  );
}

/** The layers, as the newest checkpoint has them. */
function Layers({ run }: { run: Run }) {
  const { data, error, reload } = useResource<Model | null>(api("runs", run.name, "/model"), { topic: `run:${run.name}`, gapMs: 10_000 });
  if (error) return <Problem error={error} retry={reload} />;
  if (!data) return <Empty>The layers are not known before the first checkpoint.</Empty>;
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
