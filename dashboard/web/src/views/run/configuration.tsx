import { useMemo } from "preact/hooks";

import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Cluster, Run } from "../../api/types";
import { flatten } from "../../lib/flatten";
import { NAME_MAX } from "../../lib/format";
import { useParameter } from "../../state/address";
import { Check, Empty, Name, Panel, Problem, Said, TableFrame } from "../../ui/basic";

/** The whole job, and how it differs from that of another run. */
export function Configuration({ run }: { run: Run }) {
  const [diff, setDiff] = useParameter("diff");
  const [only, setOnly] = useParameter("only");
  const [search, setSearch] = useParameter("key");
  const known = useResource<Cluster>("/api/v1/cluster", { topic: "cluster" }).data;
  const other = useResource<Run>(diff === "" ? null : api("runs", diff));
  const specs = useMemo(() => {
    const runs = [run, ...(other.data && diff !== "" ? [other.data] : [])];
    return runs.map(({ name, spec }) => ({ name, spec }));
  }, [run, other.data, diff]);
  return (
    <Panel title="Configuration">
      <div class="look">
        <label class="field">
          <span>Compare with</span>
          <input
            list="known-runs"
            value={diff}
            placeholder="name of a run"
            onChange={(event) => setDiff(event.currentTarget.value.trim())}
          />
        </label>
        <datalist id="known-runs">
          {known?.runs.filter(({ name }) => name !== run.name && name.length <= NAME_MAX).map(({ name }) => <option key={name} value={name} />)}
        </datalist>
        <label class="field">
          <span>Find a key</span>
          <input type="search" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
        {diff !== "" && (
          <Check label="Differences only" checked={only === "1"} set={(checked) => setOnly(checked ? "1" : "")} />
        )}
      </div>
      {other.error && <Problem error={other.error} />}
      <SpecTable specs={specs} search={search} differencesOnly={only === "1" && specs.length > 1} />
    </Panel>
  );
}

/** Specifications beside each other, a line for each key. */
export function SpecTable(props: {
  specs: readonly { name: string; spec: Run["spec"] }[];
  search: string;
  differencesOnly: boolean;
}) {
  const rows = useMemo(() => {
    const flat = props.specs.map(({ spec }) => flatten(spec));
    const keys = [...new Set(flat.flatMap((one) => [...one.keys()]))].sort();
    return keys.map((key) => {
      const values = flat.map((one) => one.get(key));
      return { key, values, differs: values.some((value) => value !== values[0]) };
    });
  }, [props.specs]);
  const wanted = props.search.toLowerCase();
  const shown = rows.filter(({ key, differs }) => (!props.differencesOnly || differs) && key.toLowerCase().includes(wanted));
  if (shown.length === 0) return <Empty>{props.differencesOnly ? "No difference." : "No such key."}</Empty>;
  return (
    <TableFrame label="Configuration">
      <table class="spec">
        <thead>
          <tr>
            <th scope="col">Key</th>
            {props.specs.map(({ name }) => (
              <th scope="col" key={name}>
                <Name>{name}</Name>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {shown.map(({ key, values, differs }) => (
            <tr key={key} class={differs && !props.differencesOnly ? "differs" : ""}>
              <th scope="row" class="mono">
                <Name>{key}</Name>
              </th>
              {values.map((value, i) => (
                <td key={i} class="mono">
                  {value === undefined ? <span class="muted">not there</span> : <Said>{value}</Said>}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </TableFrame>
  );
}
