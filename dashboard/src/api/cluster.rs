//! The cluster at a glance, and its time line.

use axum::Json;
use axum::extract::State;
use domain::ids::{RunName, WorkerId};
use domain::picture::{Picture, RunPicture, SweepPicture};
use domain::record::{Pace, Vitals};
use domain::results;
use domain::spec::sweep::Objective;
use domain::timeline::Moment;
use domain::view::{RunState, RunView, SweepView, TrialState, WorkerView};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::asked::Asked;
use super::picture;
use crate::failure::Problem;
use crate::number::Number;
use crate::{App, Failure, SinkStanding, Start};

/// Everything at a glance.
#[derive(Serialize, ToSchema)]
pub(crate) struct Cluster {
    /// The coordinator's time, in milliseconds since the Unix epoch.
    now: u64,
    /// The version of the program.
    version: &'static str,
    workers: Vec<Worker>,
    /// Runs that are no trials of sweeps, newest first.
    runs: Vec<RunSummary>,
    /// Sweeps, newest first.
    sweeps: Vec<SweepSummary>,
    /// Where figures go besides, in the order in which they were named.
    sinks: Vec<SinkStanding>,
}

/// A worker process.
#[derive(Serialize, ToSchema)]
pub(crate) struct Worker {
    /// Sixteen hexadecimal digits.
    id: String,
    host: String,
    pid: u32,
    /// What it computes on, for example `cpu`.
    device: String,
    /// Whether it is connected; one known from before a restart may not be yet.
    connected: bool,
    /// Whether a user drained it: it gets no more work.
    draining: bool,
    /// The run that it works for.
    run: Option<String>,
    /// Its place in the group of that run.
    rank: Option<u32>,
    /// Memory that its process holds, as far as it told.
    memory_bytes: Option<u64>,
    /// Wall time of its newest step.
    step_micros: Option<u64>,
    /// Of it, the part outside the model: waiting for data and for the other ranks. Who waits least is waited for.
    outside_micros: Option<u64>,
    /// What its phases took.
    phases: Option<Phases>,
}

/// What the phases of a step took on one rank, in microseconds.
#[derive(Serialize, ToSchema)]
pub(crate) struct Phases {
    /// Waiting for the samples.
    data: u64,
    /// Forward and backward passes, with the reduction of what is complete beside them.
    passes: u64,
    /// Waiting for the rest of the reduction.
    reduce: u64,
    /// Waiting for the other ranks.
    agree: u64,
    /// The update of the parameters.
    update: u64,
    /// Reporting the step before.
    report: u64,
}

impl Phases {
    fn of(pace: Pace) -> Self {
        let Pace { data, passes, reduce, agree, update, report } = pace;
        Self { data, passes, reduce, agree, update, report }
    }
}

/// A run in short.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct RunSummary {
    name: String,
    /// The sweep that it is a trial of.
    sweep: Option<String>,
    /// `waiting`, `forming`, `running`, `stopping`, `stopped`, `paused`, `pruned`, `completed` or `failed`.
    #[schema(value_type = String)]
    state: RunState,
    /// Why it stands there; may be empty.
    reason: String,
    /// Steps completed and durable.
    step: u64,
    total_steps: Option<u64>,
    /// Members of its group.
    workers: u32,
    workers_wanted: u32,
    /// Of runs that wait for workers, the one with the highest gets them.
    priority: i32,
    generation: u64,
    /// Groups lost to a failure so far.
    failures: u32,
    submitted_at: u64,
    ended_at: Option<u64>,
    /// Training loss of the newest step.
    loss: Option<Number>,
    eval_loss: Option<Number>,
    eval_accuracy: Option<Number>,
    /// Of the newest step.
    samples_per_second: Option<Number>,
}

/// A sweep in short.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct SweepSummary {
    #[serde(flatten)]
    head: SweepHead,
    trials: TrialCounts,
}

/// A sweep without its trials.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct SweepHead {
    name: String,
    /// `waiting`, `forming`, `running`, `stopping`, `stopped`, `paused`, `pruned`, `completed` or `failed`.
    #[schema(value_type = String)]
    state: RunState,
    /// Why it stands there; may be empty.
    reason: String,
    /// That of its trials.
    priority: i32,
    submitted_at: u64,
    ended_at: Option<u64>,
    objectives: Vec<ObjectiveSummary>,
    /// The best trial by the first objective.
    best: Option<Best>,
}

/// Trials by state.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct TrialCounts {
    training: u32,
    paused: u32,
    completed: u32,
    pruned: u32,
    failed: u32,
}

/// What a sweep is for.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct ObjectiveSummary {
    /// `eval_loss` or `eval_accuracy`.
    metric: &'static str,
    /// `minimize` or `maximize`.
    goal: &'static str,
}

/// The best trial.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct Best {
    number: u32,
    /// One for each objective.
    values: Vec<Number>,
}

impl RunSummary {
    pub(crate) fn of(run: &RunPicture) -> Self {
        let RunPicture { view, spec: _, newest, data, changed: _ } = run;
        let RunView {
            name,
            sweep,
            parent: _,
            state,
            reason,
            generation,
            members,
            workers_wanted,
            priority,
            step,
            measurements,
            checkpoints: _,
            submitted_at,
            ended_at,
            failures,
            groups: _,
        } = view;
        let measured = measurements.last();
        let rate = newest.as_ref().and_then(|record| run.samples_per_second(record));
        Self {
            name: name.to_string(),
            sweep: sweep.as_ref().map(ToString::to_string),
            state: *state,
            reason: reason.clone(),
            step: step.0,
            total_steps: data.map(|data| data.total_steps).filter(|steps| *steps > 0),
            workers: members.len() as u32,
            workers_wanted: *workers_wanted,
            priority: *priority,
            generation: generation.0,
            failures: *failures,
            submitted_at: submitted_at.0,
            ended_at: ended_at.map(|at| at.0),
            loss: newest.as_ref().map(|record| record.loss.into()),
            eval_loss: measured.map(|m| m.eval_loss.into()),
            eval_accuracy: measured.map(|m| m.eval_accuracy.into()),
            samples_per_second: rate.map(Number::from),
        }
    }
}

impl SweepSummary {
    pub(crate) fn of(sweep: &SweepPicture) -> Self {
        Self { head: SweepHead::of(sweep), trials: TrialCounts::of(sweep) }
    }
}

impl TrialCounts {
    pub(crate) fn of(sweep: &SweepPicture) -> Self {
        let mut counts = Self::default();
        for trial in sweep.trials() {
            *match trial.view.state {
                TrialState::Training => &mut counts.training,
                TrialState::Paused => &mut counts.paused,
                TrialState::Completed => &mut counts.completed,
                TrialState::Pruned => &mut counts.pruned,
                TrialState::Failed => &mut counts.failed,
            } += 1;
        }
        counts
    }
}

impl SweepHead {
    pub(crate) fn of(sweep: &SweepPicture) -> Self {
        let SweepView { name, state, reason, priority, submitted_at, ended_at, trials: _ } = &*sweep.view;
        let objective =
            |objective: &Objective| ObjectiveSummary { metric: objective.metric.name(), goal: objective.goal.name() };
        let best = results::best(sweep).map(|trial| Best {
            number: trial.view.number,
            values: trial.view.values.iter().map(|value| (*value).into()).collect(),
        });
        Self {
            name: name.to_string(),
            state: *state,
            reason: reason.clone(),
            priority: *priority,
            submitted_at: submitted_at.0,
            ended_at: ended_at.map(|at| at.0),
            objectives: sweep.spec.objectives.iter().map(objective).collect(),
            best,
        }
    }
}

impl Worker {
    fn of(view: &WorkerView, picture: &Picture) -> Self {
        let WorkerView { info, connected, run, draining } = view;
        let members = run.as_ref().and_then(|run| picture.run(run)).map(|run| &run.view.members);
        let rank = members.and_then(|members| members.iter().position(|member| *member == info.id));
        let Vitals { resident_bytes, pace } = picture.vitals(info.id);
        Self {
            id: worker_id(info.id),
            host: info.host.clone(),
            pid: info.pid,
            device: info.device.clone(),
            connected: *connected,
            draining: *draining,
            run: run.as_ref().map(ToString::to_string),
            rank: rank.map(|rank| rank as u32),
            memory_bytes: resident_bytes,
            step_micros: pace.map(|pace| pace.step_micros()),
            outside_micros: pace.map(|pace| pace.outside_micros()),
            phases: pace.map(Phases::of),
        }
    }
}

/// The id of a worker in full: JSON has no room for it as a number.
pub(crate) fn worker_id(id: WorkerId) -> String {
    format!("{:016x}", id.0)
}

/// The cluster at a glance
#[utoipa::path(get, path = "/api/v1/cluster", tag = "cluster", responses((status = 200, body = Cluster)))]
pub(crate) async fn cluster(State(app): State<App>) -> Json<Cluster> {
    let picture = picture(&app);
    let own = picture.runs().filter(|run| run.view.sweep.is_none());
    let mut runs: Vec<RunSummary> = own.map(|run| RunSummary::of(run)).collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.submitted_at));
    let mut sweeps: Vec<SweepSummary> = picture.sweeps().map(SweepSummary::of).collect();
    sweeps.sort_by_key(|sweep| std::cmp::Reverse(sweep.head.submitted_at));
    Json(Cluster {
        now: app.source.now().0,
        version: env!("CARGO_PKG_VERSION"),
        workers: picture.workers().iter().map(|worker| Worker::of(worker, &picture)).collect(),
        runs,
        sweeps,
        sinks: app.source.sinks(),
    })
}

/// Which part of the time line.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct EventsQuery {
    /// Events after this one; without it, the newest ones.
    after: Option<u64>,
    /// At most so many, 1 to 1000; 200 without it.
    limit: Option<usize>,
    /// Only those about this run or sweep.
    run: Option<String>,
}

const EVENTS_MAX: usize = 1_000;
const EVENTS_GIVEN: usize = 200;

/// A part of the time line.
#[derive(Serialize, ToSchema)]
pub(crate) struct Events {
    events: Vec<ClusterEvent>,
    /// What to ask for as `after` to go on, now or later.
    next: u64,
}

/// Something that happened.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClusterEvent {
    /// Its place in the journal; not all places have one.
    sequence: u64,
    at: u64,
    /// For example `worker_joined`, `worker_lost`, `group_formed`, `checkpoint_committed`, `completed`, `failed`.
    kind: &'static str,
    run: Option<String>,
    generation: Option<u64>,
    worker: Option<String>,
    text: String,
}

impl ClusterEvent {
    fn of(moment: Moment) -> Self {
        let Moment { sequence, at, kind, run, generation, worker, text } = moment;
        Self {
            sequence,
            at: at.0,
            kind: kind.name(),
            run: run.map(String::from),
            generation: generation.map(|generation| generation.0),
            worker: worker.map(worker_id),
            text,
        }
    }
}

/// The time line of the cluster
#[utoipa::path(
    get, path = "/api/v1/events", tag = "cluster", params(EventsQuery),
    responses((status = 200, body = Events), (status = 400, body = Problem))
)]
pub(crate) async fn events(State(app): State<App>, Asked(asked): Asked<EventsQuery>) -> Result<Json<Events>, Failure> {
    let start = asked.after.map_or(Start::Newest, Start::After);
    let limit = super::within("limit", asked.limit, EVENTS_GIVEN, EVENTS_MAX)?;
    let run = asked.run.map(RunName::new).transpose().map_err(|error| Failure::bad_request(error.to_string()))?;
    let (moments, next) = app.source.moments(start, limit, run).await?;
    Ok(Json(Events { events: moments.into_iter().map(ClusterEvent::of).collect(), next }))
}
