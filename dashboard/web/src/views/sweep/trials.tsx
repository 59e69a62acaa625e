import { useMemo, useState } from "preact/hooks";

import { readSearch } from "../../lib/search";
import { count, cut, NAME_MAX } from "../../lib/format";
import { listOf, listText, queryNow, setQuery, useParameter } from "../../state/address";
import { useSavedViews } from "../../state/saved";
import { Command, Empty, Panel } from "../../ui/basic";
import { Dialog } from "../../ui/dialog";
import { Grid } from "../../ui/grid";
import { axisOf, chosen, goodness, sorted, usualAxes, usualColumns, type Column } from "./columns";
import { Parallel } from "./parallel";
import { brushesOf, brushesText, passes, type Brush } from "./brush";
import type { SweepShown } from "./sweep";

/** All trials: parallel coordinates, and a table of what they leave. */
export function TrialsTab({ sweep, columns, objective, trial, pick }: SweepShown) {
  const { trials } = sweep;
  const [search, setSearch] = useParameter("q");
  const [sort, setSort] = useParameter("sort");
  const [columnText, setColumns] = useParameter("columns");
  const [axesText, setAxes] = useParameter("axes");
  const [brushText, setBrush] = useParameter("brush");

  const shown = useMemo(() => chosen(columns, listOf(columnText), usualColumns(columns)), [columns, columnText]);
  const picked = useMemo(() => chosen(columns, listOf(axesText), usualAxes(columns)), [columns, axesText]);
  const axes = useMemo(() => picked.map((column) => ({ column, axis: axisOf(column, trials) })), [picked, trials]);
  const known = useMemo(() => [...sweep.space.map(({ path }) => path), ...sweep.metrics], [sweep.space, sweep.metrics]);
  const query = useMemo(() => readSearch(search, known), [search, known]);
  const found = useMemo(() => trials.flatMap((trial, i) => (query.matches(trial) ? [i] : [])), [trials, query]);
  const brushes = useMemo(() => brushesOf(brushText), [brushText]);
  const left = useMemo(() => found.filter((i) => passes(trials[i], axes, brushes)), [found, trials, axes, brushes]);
  const [sortId, descending] = sort.startsWith("-") ? [sort.slice(1), true] : [sort, false];
  const sortColumn = columns.find(({ id }) => id === sortId);
  const rows = useMemo(
    () => (sortColumn ? sorted(trials, left, sortColumn, descending) : left),
    [trials, left, sortColumn, descending],
  );
  const colors = useMemo(() => goodness(trials, objective?.objective), [trials, objective]);

  if (trials.length === 0) {
    return (
      <Empty>
        No trial yet. They begin as soon as there are workers: <Command>phalanx worker --coordinator URL</Command>
      </Empty>
    );
  }
  return (
    <>
      <div class="look">
        <label class="field search">
          <span>Filter</span>
          <input
            type="search"
            value={search}
            placeholder="lr<0.01 state=completed rung"
            aria-describedby="search-problem"
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </label>
        {brushes.length > 0 && <button onClick={() => setBrush("")}>Clear ranges</button>}
        <Chooser title="Columns" columns={columns} chosen={shown} set={(ids) => setColumns(listText(ids))} reset={() => setColumns("")} />
        <Chooser title="Axes" columns={columns} chosen={picked} set={(ids) => setAxes(listText(ids))} reset={() => setAxes("")} />
        <Views sweep={sweep.name} />
        <bdi class="bad" id="search-problem" role="status">
          {cut(query.problem, NAME_MAX)}
        </bdi>
      </div>
      <Panel title="Parallel coordinates" note={`${count(left.length)} of ${count(trials.length)} trials`}>
        <Parallel
          trials={trials}
          axes={axes}
          context={found}
          rows={left}
          colors={colors}
          brushes={brushes}
          setBrushes={(brushes: Brush[]) => setBrush(brushesText(brushes))}
          selected={trial}
        />
      </Panel>
      <Panel title="Trials" note={`${count(rows.length)} shown`}>
        <Grid
          label="Trials"
          columns={shown}
          trials={trials}
          rows={rows}
          sort={sortId}
          descending={descending}
          setSort={(id, descending) => setSort(id === "" ? "" : descending ? `-${id}` : id)}
          selected={trial}
          pick={pick}
          front={sweep.front}
        />
      </Panel>
    </>
  );
}

/** Chooses columns, in their order. */
function Chooser(props: {
  title: string;
  columns: readonly Column[];
  chosen: readonly Column[];
  set: (ids: string[]) => void;
  reset: () => void;
}) {
  const [open, setOpen] = useState(false);
  const [filter, setFilter] = useState("");
  const ids = props.chosen.map(({ id }) => id);
  const groups = [...new Set(props.columns.map(({ group }) => group))];
  const toggle = (id: string) => {
    const next = ids.includes(id) ? ids.filter((one) => one !== id) : [...ids, id];
    if (next.length > 0) props.set(next);
  };
  const move = (id: string, by: number) => {
    const at = ids.indexOf(id);
    const next = ids.toSpliced(at, 1);
    next.splice(Math.max(0, at + by), 0, id);
    props.set(next);
  };
  return (
    <>
      <button onClick={() => setOpen(true)}>{props.title}</button>
      {open && (
        <Dialog title={props.title} close={() => setOpen(false)} wide>
          <label class="field">
            <span>Find</span>
            <input type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
          </label>
          <div class="chooser">
            {groups.map((group) => (
              <fieldset key={group}>
                <legend>{group}</legend>
                {props.columns
                  .filter((column) => column.group === group && column.label.toLowerCase().includes(filter.toLowerCase()))
                  .map(({ id, label }) => (
                    <div key={id} class="chooser-row">
                      <label class="check">
                        <input type="checkbox" checked={ids.includes(id)} onChange={() => toggle(id)} />
                        <bdi class="name">{label}</bdi>
                      </label>
                      {ids.includes(id) && (
                        <>
                          <button class="quiet" aria-label={`Move ${label} to the front`} onClick={() => move(id, -1)}>
                            ←
                          </button>
                          <button class="quiet" aria-label={`Move ${label} to the back`} onClick={() => move(id, 1)}>
                            →
                          </button>
                        </>
                      )}
                    </div>
                  ))}
              </fieldset>
            ))}
          </div>
          <div class="dialog-buttons">
            <button type="button" onClick={props.reset}>
              Usual ones
            </button>
            <button type="button" class="primary" onClick={() => setOpen(false)}>
              Done
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}

/** Views of the sweep that this browser keeps. */
function Views({ sweep }: { sweep: string }) {
  const { views, save, remove } = useSavedViews(sweep);
  const [open, setOpen] = useState(false);
  const [name, setName] = useState("");
  const add = (event: Event) => {
    event.preventDefault();
    if (name.trim() === "") return;
    save(name.trim(), queryNow());
    setName("");
  };
  return (
    <>
      <button onClick={() => setOpen(true)}>Views</button>
      {open && (
        <Dialog title="Saved views" close={() => setOpen(false)}>
          <p class="explains">A view keeps filter, columns, axes, ranges and order, in this browser. The address of the page holds them too.</p>
          {views.length === 0 ? (
            <Empty>None yet.</Empty>
          ) : (
            <ul class="saved-views">
              {views.map((view) => (
                <li key={view.name}>
                  <button
                    class="quiet"
                    onClick={() => {
                      setOpen(false);
                      setQuery(view.query);
                    }}
                  >
                    <bdi class="name">{view.name}</bdi>
                  </button>
                  <button class="quiet" aria-label={`Remove ${view.name}`} onClick={() => remove(view.name)}>
                    ×
                  </button>
                </li>
              ))}
            </ul>
          )}
          <form class="field" onSubmit={add}>
            <label for="view-name">Name</label>
            <input id="view-name" value={name} maxLength={80} onInput={(event) => setName(event.currentTarget.value)} />
            <button type="submit" class="primary" disabled={name.trim() === ""}>
              Save this view
            </button>
          </form>
        </Dialog>
      )}
    </>
  );
}
