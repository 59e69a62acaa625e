import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Run } from "../../api/types";
import { count, cut, duration, exactly, measured, metric, moment, SENTENCE_MAX } from "../../lib/format";
import { comparePath, sweepPath, useParameter } from "../../state/address";
import { Loading, Name, Problem, Progress, Said, Stat, State, TabPanel, Tabs } from "../../ui/basic";
import { ExportButton } from "../../ui/dialog";
import { RunActions } from "../actions";
import { Configuration } from "./configuration";
import { Curves } from "./curves";
import { DataTab } from "./data";
import { LogTab } from "./log";
import { ModelTab } from "./model";

const TABS = [
  { id: "curves", label: "Curves" },
  { id: "configuration", label: "Configuration" },
  { id: "log", label: "Log" },
  { id: "data", label: "Data" },
  { id: "model", label: "Model" },
];

/** One run. */
export function RunView({ name }: { name: string }) {
  const { data: run, error, reload } = useResource<Run>(api("runs", name), { topic: `run:${name}`, gapMs: 500 });
  const [tab] = useParameter("tab", "curves");
  if (!run) return error ? <Problem error={error} retry={reload} /> : <Loading />;
  return (
    <div class="view">
      <Head run={run} after={reload} />
      {error && <Problem error={error} retry={reload} />}
      <Tabs tabs={TABS} usual="curves" />
      <TabPanel tab={tab}>
        {tab === "curves" && <Curves run={run} after={reload} />}
        {tab === "configuration" && <Configuration run={run} />}
        {tab === "log" && <LogTab run={run} />}
        {tab === "data" && <DataTab run={run} />}
        {tab === "model" && <ModelTab run={run} />}
      </TabPanel>
    </div>
  );
}

function Head({ run, after }: { run: Run; after: () => void }) {
  const took = (run.ended_at ?? Date.now()) - run.submitted_at;
  return (
    <header class="head">
      <div class="head-line">
        <h1>
          {run.sweep !== null && (
            <a class="parent" href={sweepPath(run.sweep)}>
              <Name>{run.sweep}</Name>
            </a>
          )}
          <Name>{run.name}</Name>
        </h1>
        <State state={run.state} />
        <div class="tools">
          <RunActions run={run} after={after} />
          <a class="button" href={comparePath([run.name])}>
            Compare
          </a>
          <ExportButton
            path={api("runs", run.name, "/export.csv")}
            file={`${run.name}.csv`}
            holds="A line for each step that the run recorded: loss, learning rate, gradient norm, times."
          />
        </div>
      </div>
      {run.reason !== "" && (
        <p class="reason">
          <Said>{run.reason}</Said>
        </p>
      )}
      <Progress value={run.step} of={run.total_steps} label="Steps" />
      <dl class="stats">
        <Stat label="Step">
          {count(run.step)} <small>/ {count(run.total_steps)}</small>
        </Stat>
        <Stat label="Loss">{measured(run.loss)}</Stat>
        <Stat label="Held-out loss">{measured(run.eval_loss)}</Stat>
        <Stat label="Accuracy">{metric("accuracy", run.eval_accuracy)}</Stat>
        <Stat label="Samples/s">{measured(run.samples_per_second)}</Stat>
        <Stat label="Workers" title={cut(run.members.join("\n"), SENTENCE_MAX)}>
          {run.workers} <small>/ {run.workers_wanted}</small>
        </Stat>
        <Stat label="Priority">{run.priority}</Stat>
        <Stat label="Generation">{run.generation}</Stat>
        <Stat label="Failures">{run.failures}</Stat>
        <Stat label="Started" title={exactly(run.submitted_at)}>
          {moment(run.submitted_at)}
        </Stat>
        <Stat label="Took">{duration(took)}</Stat>
      </dl>
    </header>
  );
}
