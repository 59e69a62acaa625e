import { useEffect, useMemo, useState } from "preact/hooks";

import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Cluster, Run } from "../../api/types";
import { count, cut, duration, measured, metric, NAME_MAX } from "../../lib/format";
import { lineColor } from "../../lib/ramp";
import { listOf, listText, runPath, useParameter } from "../../state/address";
import { Check, Empty, Name, Panel, Problem, State, TableFrame } from "../../ui/basic";
import { SpecTable } from "./configuration";
import { hasTimes, LookTools, Plots, useLook, useSeries, type Drawn } from "./curves";
import { stepsPerEpoch } from "./series";

/** So many runs can lie over each other: as many as there are colours. */
const MOST = 8;

/** Several runs beside each other. */
export function CompareView() {
  const [text, setText] = useParameter("runs");
  const [only, setOnly] = useParameter("only", "1");
  const names = listOf(text).slice(0, MOST);
  const look = useLook();
  const [loaded, setLoaded] = useState<Record<string, Drawn>>({});
  const drawn = useMemo(
    () =>
      names.flatMap((name, i) => {
        const one = Object.hasOwn(loaded, name) ? loaded[name] : undefined;
        return one ? [{ ...one, color: lineColor(i) }] : [];
      }),
    [text, loaded],
  );
  const specs = useMemo(() => drawn.map(({ run }) => ({ name: run.name, spec: run.spec })), [drawn]);
  const set = (names: string[]) => setText(listText(names));
  return (
    <div class="view">
      <header class="head">
        <div class="head-line">
          <h1>Compare runs</h1>
        </div>
      </header>
      <Chosen names={names} set={set} />
      {names.map((name) => (
        <Loader key={name} name={name} steps={look.steps} put={(one) => setLoaded((all) => ({ ...all, [name]: one }))} />
      ))}
      {drawn.length > 0 && (
        <>
          <LookTools
            look={look}
            times={drawn.every(({ series }) => hasTimes(series))}
            epochs={drawn.every(({ run }) => stepsPerEpoch(run) !== null)} />
          <Plots drawn={drawn} look={look} />
          <Results drawn={drawn} />
          <Panel
            title="Configuration"
            tools={<Check label="Differences only" checked={only === "1"} set={(checked) => setOnly(checked ? "1" : "0")} />}
          >
            <SpecTable specs={specs} search="" differencesOnly={only === "1" && specs.length > 1} />
          </Panel>
        </>
      )}
    </div>
  );
}

function Chosen({ names, set }: { names: string[]; set: (names: string[]) => void }) {
  const known = useResource<Cluster>("/api/v1/cluster", { topic: "cluster" }).data;
  const [typed, setTyped] = useState("");
  const add = (event: Event) => {
    event.preventDefault();
    const name = typed.trim();
    if (name === "" || names.includes(name)) return;
    set([...names, name]);
    setTyped("");
  };
  return (
    <div class="look">
      <ul class="chips" aria-label="Runs that are compared">
        {names.map((name, i) => (
          <li key={name}>
            <i class="swatch" style={{ color: `var(--${lineColor(i)})` }} />
            <a href={runPath(name)}>
              <Name>{name}</Name>
            </a>
            <button class="quiet" aria-label={cut(`Remove ${name}`, NAME_MAX)} onClick={() => set(names.filter((one) => one !== name))}>
              ×
            </button>
          </li>
        ))}
      </ul>
      <form class="field" onSubmit={add}>
        <label for="add-run">Add a run</label>
        <input
          id="add-run"
          list="runs-to-add"
          value={typed}
          disabled={names.length >= MOST}
          onInput={(event) => setTyped(event.currentTarget.value)}
        />
        <datalist id="runs-to-add">
          {known?.runs.filter(({ name }) => !names.includes(name) && name.length <= NAME_MAX).map(({ name }) => <option key={name} value={name} />)}
        </datalist>
        <button type="submit" disabled={names.length >= MOST}>
          Add
        </button>
      </form>
      {names.length === 0 && <Empty>Enter the name of a run; trials have names too, such as SWEEP.7.</Empty>}
    </div>
  );
}

/** Asks for one of the runs. */
function Loader({ name, steps, put }: { name: string; steps: [number, number] | null; put: (one: Drawn) => void }) {
  const { data: run, error } = useResource<Run>(api("runs", name), { topic: `run:${name}` });
  const { data: series } = useSeries(name, steps);
  useEffect(() => {
    if (run && series) put({ run, series, color: lineColor(0) });
  }, [run, series]);
  return error ? <Problem error={error} /> : null;
}

function Results({ drawn }: { drawn: readonly Drawn[] }) {
  return (
    <Panel title="Results">
      <TableFrame label="Results">
        <table>
          <thead>
            <tr>
              <th scope="col">Run</th>
              <th scope="col">State</th>
              <th scope="col" class="n">Step</th>
              <th scope="col" class="n">Loss</th>
              <th scope="col" class="n">Held-out loss</th>
              <th scope="col" class="n">Accuracy</th>
              <th scope="col" class="n">Samples/s</th>
              <th scope="col" class="n">Took</th>
            </tr>
          </thead>
          <tbody>
            {drawn.map(({ run, color }) => (
              <tr key={run.name}>
                <th scope="row">
                  <i class="swatch" style={{ color: `var(--${color})` }} />{" "}
                  <a href={runPath(run.name)}>
                    <Name>{run.name}</Name>
                  </a>
                </th>
                <td>
                  <State state={run.state} />
                </td>
                <td class="n">{count(run.step)}</td>
                <td class="n">{measured(run.loss)}</td>
                <td class="n">{measured(run.eval_loss)}</td>
                <td class="n">{metric("accuracy", run.eval_accuracy)}</td>
                <td class="n">{measured(run.samples_per_second)}</td>
                <td class="n">{duration((run.ended_at ?? Date.now()) - run.submitted_at)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableFrame>
    </Panel>
  );
}
