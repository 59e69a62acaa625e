import { useMemo } from "preact/hooks";

import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Change, SweepDetail } from "../../api/types";
import { count, duration, exactly, metric, moment, percent } from "../../lib/format";
import { useParameter } from "../../state/address";
import { Choice, Loading, Name, Panel, Problem, Said, Stat, State, TabPanel, Tabs } from "../../ui/basic";
import { ExportButton } from "../../ui/dialog";
import { SweepActions } from "../actions";
import { SpecTable } from "../run/configuration";
import { TrialCounts } from "../trial_counts";
import { columnsOf, type Column } from "./columns";
import { LineageTab } from "./lineage";
import { ParametersTab } from "./parameters";
import { ResultsTab } from "./results";
import { RungsTab } from "./rungs";
import { TrialPanel } from "./trial";
import { TrialsTab } from "./trials";

/** A sweep, as its sections see it. */
export interface SweepShown {
  sweep: SweepDetail;
  columns: Column[];
  /** The objective that colours and orders. */
  objective: Column | undefined;
  /** The number of the trial that is looked at; null for none. */
  trial: number | null;
  pick: (trial: number | null) => void;
}

/** At least so long between two requests for all trials, in milliseconds. */
const GAP_MS = 2_000;

/** One sweep. */
export function SweepPage({ name }: { name: string }) {
  const { data: sweep, error, reload } = useResource<SweepDetail>(api("sweeps", name), {
    topic: `sweep:${name}`,
    gapMs: GAP_MS,
    merge,
  });
  const [tab] = useParameter("tab", "trials");
  const [objectiveName, setObjective] = useParameter("objective");
  const [trialText, setTrial] = useParameter("trial");
  const columns = useMemo(() => (sweep ? columnsOf(sweep) : []), [sweep?.space, sweep?.metrics, sweep?.objectives]);
  if (!sweep) return error ? <Problem error={error} retry={reload} /> : <Loading />;
  const objectives = columns.filter((column) => column.objective);
  const trial = /^\d+$/.test(trialText) ? Number(trialText) : null;
  const shown: SweepShown = {
    sweep,
    columns,
    objective: objectives.find((column) => column.label === objectiveName) ?? objectives[0],
    trial,
    pick: (trial) => setTrial(trial === null ? "" : String(trial)),
  };
  const tabs = [
    { id: "trials", label: "Trials" },
    { id: "results", label: "Results" },
    { id: "parameters", label: "Parameters" },
    { id: "rungs", label: "Rungs" },
    ...(sweep.trials.some((trial) => trial.parent !== null) ? [{ id: "lineage", label: "Lineage" }] : []),
    { id: "specification", label: "Specification" },
  ];
  return (
    <div class={`view ${trial !== null ? "with-side" : ""}`}>
      <Head sweep={sweep} after={reload} />
      {error && <Problem error={error} retry={reload} />}
      <div class="tab-line">
        <Tabs tabs={tabs} usual="trials" />
        {objectives.length > 1 && (
          <Choice
            label="Objective"
            value={shown.objective?.label ?? ""}
            options={objectives.map(({ label }) => ({ value: label, label }))}
            set={setObjective}
          />
        )}
      </div>
      <TabPanel tab={tab}>
        {tab === "trials" && <TrialsTab {...shown} />}
        {tab === "results" && <ResultsTab {...shown} />}
        {tab === "parameters" && <ParametersTab {...shown} />}
        {tab === "rungs" && <RungsTab {...shown} />}
        {tab === "lineage" && <LineageTab {...shown} />}
        {tab === "specification" && (
          <Panel title="Specification">
            <SpecTable specs={[{ name: sweep.name, spec: sweep.spec }]} search="" differencesOnly={false} />
          </Panel>
        )}
      </TabPanel>
      {trial !== null && <TrialPanel {...shown} number={trial} />}
    </div>
  );
}

/** Puts the trials that have changed in their places. */
function merge(sweep: SweepDetail, change: Change): SweepDetail {
  const { trials: counts, ...summary } = change.sweep ?? { trials: sweep.counts };
  const trials = change.trials?.length ? [...sweep.trials] : sweep.trials;
  if (change.trials?.length) {
    const places = new Map(trials.map((trial, i) => [trial.number, i]));
    for (const trial of change.trials) {
      const place = places.get(trial.number);
      if (place === undefined) trials.push(trial);
      else trials[place] = trial;
    }
  }
  return { ...sweep, ...summary, counts, trials };
}

function Head({ sweep, after }: { sweep: SweepDetail; after: () => void }) {
  const { best, time_saved: saved } = sweep;
  return (
    <header class="head">
      <div class="head-line">
        <h1>
          <Name>{sweep.name}</Name>
        </h1>
        <State state={sweep.state} />
        <div class="tools">
          <SweepActions sweep={sweep} after={after} />
          <ExportButton
            path={api("sweeps", sweep.name, "/export.csv")}
            file={`${sweep.name}.csv`}
            holds="A line for each trial: state, step, budget, objectives and parameters."
          />
        </div>
      </div>
      {sweep.reason !== "" && (
        <p class="reason">
          <Said>{sweep.reason}</Said>
        </p>
      )}
      <TrialCounts counts={sweep.counts} />
      <dl class="stats">
        <Stat label="Trials">{count(sweep.trials.length)}</Stat>
        {best && <Stat label="Best trial">{best.number}</Stat>}
        {best &&
          sweep.objectives.map(({ metric: name }, i) => (
            <Stat key={name} label={`Best ${name}`}>
              {metric(name, best.values[i])}
            </Stat>
          ))}
        {saved?.full_steps ? (
          <Stat label="Steps saved" title={`${count(saved.full_steps - saved.steps)} of ${count(saved.full_steps)} steps were not made`}>
            {percent(1 - saved.steps / saved.full_steps)}
          </Stat>
        ) : null}
        {saved?.full_seconds ? (
          <Stat label="Worker time saved">{duration((saved.full_seconds - saved.seconds) * 1000)}</Stat>
        ) : null}
        <Stat label="Priority">{sweep.priority}</Stat>
        <Stat label="Started" title={exactly(sweep.submitted_at)}>
          {moment(sweep.submitted_at)}
        </Stat>
        <Stat label="Took">{duration((sweep.ended_at ?? Date.now()) - sweep.submitted_at)}</Stat>
      </dl>
    </header>
  );
}
