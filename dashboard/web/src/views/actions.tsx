import { api } from "../api/client";
import type { Checkpoint, RunSummary, SweepSummary, Worker } from "../api/types";
import { ActionButton, type Action } from "../ui/dialog";
import { Name } from "../ui/basic";

/** Who has not come to rest can be stopped. */
const LIVE = ["waiting", "forming", "running"];

/** Who stopped before the end can go on. */
const RESUMABLE = ["stopped", "failed"];

/** What can be done with a run. */
export function RunActions({ run, after, small }: { run: RunSummary; after: () => void; small?: boolean }) {
  const actions = [
    LIVE.includes(run.state) && stop("runs", "run", run.name),
    RESUMABLE.includes(run.state) && resume("runs", "run", run.name),
    // A trial has the priority of its sweep.
    run.sweep === null && LIVE.includes(run.state) && priority("runs", "run", run.name, run.priority),
  ];
  return <Buttons actions={actions} after={after} small={small ?? false} />;
}

/** What can be done with a sweep. */
export function SweepActions(props: { sweep: Pick<SweepSummary, "name" | "state" | "priority">; after: () => void; small?: boolean }) {
  const { sweep, after, small } = props;
  const actions = [
    LIVE.includes(sweep.state) && stop("sweeps", "sweep", sweep.name),
    RESUMABLE.includes(sweep.state) && resume("sweeps", "sweep", sweep.name),
    LIVE.includes(sweep.state) && priority("sweeps", "sweep", sweep.name, sweep.priority),
  ];
  return <Buttons actions={actions} after={after} small={small ?? false} />;
}

/** What can be done with a worker. */
export function WorkerActions({ worker, after }: { worker: Worker; after: () => void }) {
  const actions = [worker.connected && !worker.draining && drain(worker), worker.draining && undrain(worker)];
  return <Buttons actions={actions} after={after} small={true} />;
}

function drain(worker: Worker): Action {
  return {
    label: "Drain",
    title: "Drain this worker?",
    explains: (
      <p>
        <Name>{worker.id}</Name> takes no further work. What it trains goes on without it after the step in progress, or is
        saved and waits if the others are too few; then it can be ended without a failure.
      </p>
    ),
    confirm: "Drain",
    path: () => api("workers", worker.id, "/drain"),
    done: `${worker.id} takes no further work`,
    ends: true,
  };
}

function undrain(worker: Worker): Action {
  return {
    label: "Undrain",
    title: "Give this worker work again?",
    explains: (
      <p>
        <Name>{worker.id}</Name> takes part again where workers are wanted.
      </p>
    ),
    confirm: "Undrain",
    path: () => api("workers", worker.id, "/undrain"),
    done: `${worker.id} takes work again`,
  };
}

/** Keeps a checkpoint, or no longer does. */
export function PinButton(props: { run: string; checkpoint: Pick<Checkpoint, "step" | "pinned">; after: () => void }) {
  const { run, checkpoint, after } = props;
  const action = checkpoint.pinned ? unpin(run, checkpoint.step) : pin(run, checkpoint.step);
  return <ActionButton key={action.label} action={action} after={after} small={true} />;
}

function pin(run: string, step: number): Action {
  return {
    label: "Pin",
    title: "Pin this checkpoint?",
    explains: (
      <p>
        The checkpoint of step {step} of <Name>{run}</Name> is kept, whatever the job says about how many are.
      </p>
    ),
    confirm: "Pin",
    path: () => api("runs", run, `/pin?step=${step}`),
    done: `The checkpoint of step ${step} is pinned`,
  };
}

function unpin(run: string, step: number): Action {
  return {
    label: "Unpin",
    title: "Unpin this checkpoint?",
    explains: (
      <p>
        The checkpoint of step {step} of <Name>{run}</Name> stays or goes as the job says about how many are kept. One that
        need not stay is deleted at once.
      </p>
    ),
    confirm: "Unpin",
    path: () => api("runs", run, `/unpin?step=${step}`),
    done: `The checkpoint of step ${step} is no longer pinned`,
    ends: true,
  };
}

function Buttons(props: { actions: (Action | false)[]; after: () => void; small: boolean }) {
  return (
    <>
      {props.actions.map(
        (action) => action && <ActionButton key={action.label} action={action} after={props.after} small={props.small} />,
      )}
    </>
  );
}

function stop(kind: "runs" | "sweeps", word: string, name: string): Action {
  return {
    label: "Stop",
    title: `Stop this ${word}?`,
    explains: (
      <p>
        <Name>{name}</Name> ends after the step in progress, and its whole state is saved. It can be resumed and then ends
        with the same weights.
      </p>
    ),
    confirm: "Stop",
    path: () => api(kind, name, "/stop"),
    done: `${name} is stopping`,
    ends: true,
  };
}

function resume(kind: "runs" | "sweeps", word: string, name: string): Action {
  return {
    label: "Resume",
    title: `Resume this ${word}?`,
    explains: (
      <p>
        <Name>{name}</Name> goes on from where it was saved, as soon as there are workers.
      </p>
    ),
    confirm: "Resume",
    path: () => api(kind, name, "/resume"),
    done: `${name} goes on`,
  };
}

function priority(kind: "runs" | "sweeps", word: string, name: string, now: number): Action {
  return {
    label: "Priority",
    title: "Change the priority?",
    explains: (
      <p>
        Free workers go to whoever waits with the greatest priority, from -1000 to 1000; nobody loses workers by it. That of
        the {word} <Name>{name}</Name> is {now}.
      </p>
    ),
    confirm: "Change",
    path: (value) => api(kind, name, `/priority?value=${value}`),
    done: `The priority of ${name} is changed`,
    asks: { label: "Priority", value: now },
  };
}
