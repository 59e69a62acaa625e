import { useResource } from "../../api/resource";
import type { Cluster, RunSummary, SinkStanding, SweepSummary, Worker } from "../../api/types";
import { bytes, count, duration, exactly, measured, metric, moment, NOTHING } from "../../lib/format";
import { runPath, sweepPath, useParameter } from "../../state/address";
import { Command, Empty, Loading, Name, Panel, Problem, Progress, Said, Stat, State, TableFrame } from "../../ui/basic";
import { RunActions, SweepActions, WorkerActions } from "../actions";
import { TrialCounts } from "../trial_counts";
import { Events, useEvents } from "./events";
import { PhaseBar, PhaseLegend } from "../phases";
import { paces, stragglers, type RankPace } from "./stragglers";

/** Everything at one moment: workers, runs, sweeps and what happened. */
export function ClusterView() {
  const { data, error, reload } = useResource<Cluster>("/api/v1/cluster", { topic: "cluster", gapMs: 500 });
  const events = useEvents();
  const [filter, setFilter] = useParameter("filter");
  if (!data) return error ? <Problem error={error} retry={reload} /> : <Loading />;
  const has = (name: string) => name.toLowerCase().includes(filter.toLowerCase());
  const runs = data.runs.filter((run) => has(run.name));
  const sweeps = data.sweeps.filter((sweep) => has(sweep.name));
  return (
    <div class="view">
      <h1 class="sr">Cluster</h1>
      {error && <Problem error={error} retry={reload} />}
      <Numbers cluster={data} />
      {(data.runs.length > 0 || data.sweeps.length > 0) && (
        <label class="field filter">
          <span>Filter runs and sweeps</span>
          <input type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} placeholder="name" />
        </label>
      )}
      <Panel title="Runs" note={count(runs.length)}>
        {data.runs.length === 0 ? (
          <Empty>
            No run yet: <Command>phalanx launch configs/digits-vit.yaml</Command>
          </Empty>
        ) : (
          <Runs runs={runs} now={data.now} after={reload} />
        )}
      </Panel>
      <Panel title="Sweeps" note={count(sweeps.length)}>
        {data.sweeps.length === 0 ? (
          <Empty>
            No sweep yet: <Command>phalanx sweep configs/digits-sweep.yaml</Command>
          </Empty>
        ) : (
          <Sweeps sweeps={sweeps} now={data.now} after={reload} />
        )}
      </Panel>
      <Panel title="Workers" note={count(data.workers.length)}>
        {data.workers.length === 0 ? (
          <Empty>
            No worker: <Command>phalanx worker --coordinator URL</Command> with the address that the coordinator printed
          </Empty>
        ) : (
          <Workers workers={data.workers} after={reload} />
        )}
      </Panel>
      <Paces workers={data.workers} />
      <Sinks sinks={data.sinks} now={data.now} />
      <Events of={events} />
    </div>
  );
}

/** Where figures go besides, and what hinders them. */
function Sinks({ sinks, now }: { sinks: SinkStanding[]; now: number }) {
  if (sinks.length === 0) return null;
  return (
    <Panel title="Sinks" note={count(sinks.length)}>
      <TableFrame label="Sinks">
        <table>
          <thead>
            <tr>
              <th scope="col">Sink</th>
              <th scope="col">Standing</th>
            </tr>
          </thead>
          <tbody>
            {sinks.map(({ sink, trouble, since }) => (
              <tr key={sink}>
                <th scope="row">
                  <Name>{sink}</Name>
                </th>
                <td>
                  {trouble === null ? (
                    "up to date"
                  ) : (
                    <>
                      <span class="tag tag-warn">behind</span> <Said>{trouble}</Said>
                      {since !== null && <> ({duration(now - since)}; it is tried again, and training goes on)</>}
                    </>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableFrame>
    </Panel>
  );
}

function Numbers({ cluster }: { cluster: Cluster }) {
  const connected = cluster.workers.filter((worker) => worker.connected);
  const live = cluster.runs.filter((run) => ["forming", "running", "stopping"].includes(run.state));
  const waiting = cluster.runs.filter((run) => run.state === "waiting");
  const training = cluster.sweeps.reduce((sum, sweep) => sum + sweep.trials.training, 0);
  return (
    <dl class="stats">
      <Stat label="Workers">
        {count(connected.length)}
        {connected.length < cluster.workers.length && (
          <small class="bad"> {cluster.workers.length - connected.length} away</small>
        )}
      </Stat>
      <Stat label="At work">{count(connected.filter((worker) => worker.run !== null).length)}</Stat>
      <Stat label="Runs under way">{count(live.length)}</Stat>
      <Stat label="Waiting">{count(waiting.length)}</Stat>
      <Stat label="Trials in training">{count(training)}</Stat>
      <Stat label="Version">
        <Name>{cluster.version}</Name>
      </Stat>
    </dl>
  );
}

function Runs({ runs, now, after }: { runs: RunSummary[]; now: number; after: () => void }) {
  return (
    <TableFrame label="Runs">
      <table>
        <thead>
          <tr>
            <th scope="col">Run</th>
            <th scope="col">State</th>
            <th scope="col">Progress</th>
            <th scope="col" class="n">Loss</th>
            <th scope="col" class="n">Held-out loss</th>
            <th scope="col" class="n">Accuracy</th>
            <th scope="col" class="n">Samples/s</th>
            <th scope="col" class="n">Workers</th>
            <th scope="col" class="n" title="Groups lost to a failure">Failures</th>
            <th scope="col">Started</th>
            <th scope="col" class="n">Took</th>
            <th scope="col"><span class="sr">Actions</span></th>
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <tr key={run.name}>
              <NameAndState of={run} href={runPath(run.name)} />
              <td class="wide-cell">
                <Progress value={run.step} of={run.total_steps} label={`Steps of ${run.name}`} />
                <small>
                  {count(run.step)} / {count(run.total_steps)}
                </small>
              </td>
              <td class="n">{measured(run.loss)}</td>
              <td class="n">{measured(run.eval_loss)}</td>
              <td class="n">{metric("accuracy", run.eval_accuracy)}</td>
              <td class="n">{measured(run.samples_per_second)}</td>
              <td class="n">
                {run.workers} / {run.workers_wanted}
              </td>
              <td class={`n ${run.failures > 0 ? "warn" : ""}`}>{run.failures}</td>
              <td title={exactly(run.submitted_at)}>{moment(run.submitted_at, now)}</td>
              <td class="n">{duration((run.ended_at ?? now) - run.submitted_at)}</td>
              <td class="actions">
                <RunActions run={run} after={after} small />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableFrame>
  );
}

/** The first cells of a row: what it is of, where that stands and why. */
function NameAndState({ of, href }: { of: RunSummary | SweepSummary; href: string }) {
  return (
    <>
      <th scope="row">
        <a href={href}>
          <Name>{of.name}</Name>
        </a>
      </th>
      <td>
        <State state={of.state} />
        {of.reason !== "" && (
          <div class="reason">
            <Said>{of.reason}</Said>
          </div>
        )}
      </td>
    </>
  );
}

function Sweeps({ sweeps, now, after }: { sweeps: SweepSummary[]; now: number; after: () => void }) {
  return (
    <TableFrame label="Sweeps">
      <table>
        <thead>
          <tr>
            <th scope="col">Sweep</th>
            <th scope="col">State</th>
            <th scope="col">Trials</th>
            <th scope="col">Best</th>
            <th scope="col">Started</th>
            <th scope="col" class="n">Took</th>
            <th scope="col"><span class="sr">Actions</span></th>
          </tr>
        </thead>
        <tbody>
          {sweeps.map((sweep) => (
            <tr key={sweep.name}>
              <NameAndState of={sweep} href={sweepPath(sweep.name)} />
              <td class="wide-cell">
                <TrialCounts counts={sweep.trials} />
              </td>
              <td class="wrap">{best(sweep)}</td>
              <td title={exactly(sweep.submitted_at)}>{moment(sweep.submitted_at, now)}</td>
              <td class="n">{duration((sweep.ended_at ?? now) - sweep.submitted_at)}</td>
              <td class="actions">
                <SweepActions sweep={sweep} after={after} small />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableFrame>
  );
}

/** The best trial and what it reached. */
function best(sweep: SweepSummary) {
  const { best } = sweep;
  if (!best) return NOTHING;
  return (
    <>
      <a href={sweepPath(sweep.name, { trial: String(best.number) })}>trial {best.number}</a>{" "}
      {sweep.objectives.map(({ metric: name }, i) => (
        <span key={name} class="pair">
          <Name>{name}</Name> <b>{metric(name, best.values[i])}</b>
        </span>
      ))}
    </>
  );
}

function Workers({ workers, after }: { workers: Worker[]; after: () => void }) {
  const slow = stragglers(workers);
  return (
    <TableFrame label="Workers">
      <table>
        <thead>
          <tr>
            <th scope="col">Worker</th>
            <th scope="col">Does</th>
            <th scope="col">Host</th>
            <th scope="col" class="n">Process</th>
            <th scope="col">Device</th>
            <th scope="col" class="n">Memory</th>
            <th scope="col" class="n">Step time</th>
            <th scope="col" class="n" title="Share of its newest step that was spent in the model">
              Utilisation
            </th>
            <th scope="col"><span class="sr">Actions</span></th>
          </tr>
        </thead>
        <tbody>
          {workers.map((worker) => (
            <tr key={worker.id} class={worker.connected ? "" : "away"}>
              <th scope="row">
                <Name>{worker.id}</Name>
              </th>
              <td>
                <Does worker={worker} />
              </td>
              <td>
                <Name>{worker.host}</Name>
              </td>
              <td class="n">{worker.pid}</td>
              <td>
                <Name>{worker.device}</Name>
              </td>
              <td class="n">{bytes(worker.memory_bytes)}</td>
              <td class="n">
                {slow.has(worker.id) && <Straggler />}{" "}
                {typeof worker.step_micros === "number" ? duration(worker.step_micros / 1000) : NOTHING}
              </td>
              <td class="n">{utilisation(worker)}</td>
              <td class="actions">
                <WorkerActions worker={worker} after={after} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableFrame>
  );
}

/** The share of a worker's newest step that was spent in the model. */
function utilisation({ step_micros: step, outside_micros: outside }: Worker): string {
  if (typeof step !== "number" || typeof outside !== "number" || step === 0) return NOTHING;
  return `${Math.round(((step - outside) / step) * 100)} %`;
}

function Straggler() {
  return (
    <span class="tag tag-warn" title="Much longer in the model than the middle of its group: the others wait for it">
      straggler
    </span>
  );
}

/** So many groups are drawn. */
const GROUPS_SHOWN = 12;

/** What the newest step took on each rank, by phase: in the model, and waiting. */
function Paces({ workers }: { workers: Worker[] }) {
  const groups = [...paces(workers)].filter(([, ranks]) => ranks.length > 1);
  if (groups.length === 0) return null;
  return (
    <Panel
      title="Step time by rank"
      note={groups.length > GROUPS_SHOWN ? `the first ${GROUPS_SHOWN} of ${groups.length} groups` : ""}
      tools={<PhaseLegend />}
    >
      <div class="paces">
        {groups.slice(0, GROUPS_SHOWN).map(([run, ranks]) => (
          <section key={run} aria-label={`Step time of ${run}`}>
            <h3>
              <a href={runPath(run)}>
                <Name>{run}</Name>
              </a>
            </h3>
            <ul>
              {ranks.map((one) => (
                <Rank key={one.rank} pace={one} most={Math.max(1, ...ranks.map(({ busy, waiting }) => busy + waiting))} />
              ))}
            </ul>
          </section>
        ))}
      </div>
    </Panel>
  );
}

function Rank({ pace: { worker, rank, busy, waiting, phases, straggler }, most }: { pace: RankPace; most: number }) {
  return (
    <li>
      <span class="pace-rank" title={`${worker.id} on ${worker.host}`}>
        rank {rank}
      </span>
      {phases !== null && <PhaseBar phases={phases} most={most} />}
      <span class="pace-text">
        {duration(busy / 1000)} <span class="muted">+ {duration(waiting / 1000)}</span> {straggler && <Straggler />}
      </span>
    </li>
  );
}

function Does({ worker }: { worker: Worker }) {
  if (!worker.connected) return <span class="bad">not connected</span>;
  return (
    <>
      {worker.draining && <span class="tag">draining</span>}{" "}
      {worker.run === null ? (
        <span class="muted">free</span>
      ) : (
        <>
          {worker.rank !== null && <span class="muted">rank {worker.rank} of </span>}
          <a href={runPath(worker.run)}>
            <Name>{worker.run}</Name>
          </a>
        </>
      )}
    </>
  );
}
