//! Following a run until it ends: what is shown, what ends it early, and what happens to the workers meanwhile.

use std::time::Duration;

use domain::ids::RunName;
use proto::v1::{EvalPoint, Run, RunState, WatchRunResponse};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use crate::client::{Client, spec_of};
use crate::cluster::Cluster;
use crate::embedded::Embedded;
use crate::exit::{Exit, Failure};
use crate::interrupts::Interrupts;
use crate::output::{Change, Show, Summary, Tracker, escape, run_state_name};
use crate::workers::{WorkerEvent, Workers};

/// How long a coordinator may be away before the command gives up. The run does not need it meanwhile.
const AWAY_LIMIT: Duration = Duration::from_secs(120);

/// Between two attempts to reach a coordinator that is away.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// How following came to its end.
pub(crate) enum Ended {
    /// The run came to rest.
    Run(Box<Summary>),
    /// A user left; the run goes on elsewhere.
    Detached,
    /// A user does not want to wait for the run to come to rest.
    AtOnce,
}

/// Something to do to a run on purpose, once it has come to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// SIGKILL a worker of ours.
    Kill {
        /// Which.
        slot: u32,
        /// Once this step is durable.
        at_step: u64,
    },
    /// Stop the run.
    Stop {
        /// Once this step is durable.
        at_step: u64,
    },
}

/// Follows `run`, which was just looked at, to its end. With `cluster`, an interrupt stops the run; without, it only
/// ends the following. `disturbance` is taken once it was done.
pub(crate) async fn follow(
    client: &Client,
    run: &Run,
    cluster: Option<&mut Cluster>,
    show: &mut Show,
    interrupts: &mut Interrupts,
    disturbance: &mut Option<Disturbance>,
) -> Result<Ended, Failure> {
    let ended = watch(client, run, cluster, show, interrupts, disturbance).await;
    show.clear();
    ended
}

async fn watch(
    client: &Client,
    run: &Run,
    cluster: Option<&mut Cluster>,
    show: &mut Show,
    interrupts: &mut Interrupts,
    disturbance: &mut Option<Disturbance>,
) -> Result<Ended, Failure> {
    let name: RunName = run.name.parse().map_err(Failure::config)?;
    let mut tracker = Tracker::new(&spec_of(run)?, run);
    let mut watching = Watching::<OneRun>::new(client, &name);
    let checkpoint_folder = cluster.as_deref().map(Cluster::checkpoint_folder);
    let (mut embedded, mut workers) = match cluster {
        Some(Cluster { embedded, workers, .. }) => (Some(embedded), Some(workers)),
        None => (None, None),
    };
    let began = Instant::now();
    let mut asked_to_stop = false;
    let mut seen_live = false;
    loop {
        tokio::select! {
            message = watching.next(|line| show.say(line)) => {
                let WatchRunResponse { run, newest } = message?;
                let Some(mut run) = run else { continue };
                if let Some(step) = tracker.evals_missing_after(&run) {
                    match watching.client.evals(&name, step).await {
                        Ok(evals) => add_before(&mut run, evals),
                        // Once it is back, the first message says how the run stands.
                        Err(status) if is_away(&status) => continue,
                        Err(status) => return Err(status.into()),
                    }
                }
                for change in tracker.observe(began.elapsed(), &run, newest.as_ref()) {
                    show.change(&change)?;
                    if let (Change::Step { point, .. }, Some(workers)) = (&change, &workers) {
                        workers.progressed(point.step);
                    }
                }
                if is_ended(&run) {
                    let seconds = seen_live.then(|| began.elapsed().as_secs_f64());
                    let samples_per_second = tracker.overall_rate();
                    let summary = Summary { run, seconds, samples_per_second, checkpoint_folder };
                    return Ok(Ended::Run(Box::new(summary)));
                }
                seen_live = true;
                let step = newest.map_or(run.step, |point| point.step);
                disturb(disturbance, step, &mut watching.client, &name, workers.as_deref()).await?;
            }
            event = next_event(&mut workers) => {
                show.worker(&event)?;
                if let WorkerEvent::GaveUp { why, .. } = event {
                    let hint = format!("the run is kept: phalanx resume {name}");
                    return Err(Failure::failed(anyhow::Error::msg(why)).hint(hint));
                }
            }
            failure = coordinator_ended(&mut embedded) => return Err(failure),
            () = interrupts.next() => {
                if workers.is_none() {
                    return Ok(Ended::Detached);
                }
                if asked_to_stop {
                    return Ok(Ended::AtOnce);
                }
                asked_to_stop = true;
                show.say("stopping after the step in progress, with the state saved; once more to leave at once");
                request_stop(&mut watching.client, &name).await?;
            }
        }
    }
}

/// Adds the evaluations of `evals` that are older than all that `run` was sent with. Newer ones come with a later message.
fn add_before(run: &mut Run, mut evals: Vec<EvalPoint>) {
    let first = run.evals.first().map_or(u64::MAX, |eval| eval.step);
    evals.retain(|eval| eval.step < first);
    run.evals.splice(0..0, evals);
}

/// The exit code and the last words for a run that came to rest.
pub(crate) fn conclude(ended: Ended, name: &str, show: &Show) -> Result<Exit, Failure> {
    let name = escape(name);
    let resume = format!("phalanx resume {name} takes it up again");
    match ended {
        Ended::Detached => {
            show.say(&format!("run {name} goes on without this command\n  hint: phalanx stop {name} stops it"));
            Ok(Exit::Left)
        }
        Ended::AtOnce => {
            show.say(&format!("left before the run came to rest\n  hint: {resume} from its newest checkpoint"));
            Ok(Exit::Left)
        }
        Ended::Run(summary) => {
            show.summary(&summary)?;
            match summary.run.state() {
                RunState::Completed => Ok(Exit::Done),
                RunState::Failed => {
                    let message = format!("run {name} failed: {}", summary.run.reason);
                    Err(Failure::failed(anyhow::Error::msg(message)).hint(resume))
                }
                RunState::Unspecified
                | RunState::Waiting
                | RunState::Forming
                | RunState::Running
                | RunState::Stopping
                | RunState::Stopped
                | RunState::Paused
                | RunState::Pruned => {
                    show.say(&format!("stopped before the end\n  hint: {resume}"));
                    Ok(Exit::Left)
                }
            }
        }
    }
}

/// Whether a run has come to rest.
pub(crate) fn is_ended(run: &Run) -> bool {
    matches!(
        run.state(),
        RunState::Stopped | RunState::Paused | RunState::Pruned | RunState::Completed | RunState::Failed
    )
}

async fn disturb(
    disturbance: &mut Option<Disturbance>,
    step: u64,
    client: &mut Client,
    name: &RunName,
    workers: Option<&Workers>,
) -> Result<(), Failure> {
    match *disturbance {
        Some(Disturbance::Kill { slot, at_step }) if step >= at_step => {
            if let Some(workers) = workers {
                workers.kill(slot).await;
                *disturbance = None;
            }
        }
        Some(Disturbance::Stop { at_step }) if step >= at_step => {
            request_stop(client, name).await?;
            *disturbance = None;
        }
        Some(_) | None => {}
    }
    Ok(())
}

/// Asks the run to stop; that it has just ended by itself is as good.
pub(crate) async fn request_stop(client: &mut Client, name: &RunName) -> Result<(), Failure> {
    match client.stop(name).await {
        Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
        replied => Ok(replied?),
    }
}

/// The next thing that happens to workers of ours.
pub(crate) async fn next_event(workers: &mut Option<&mut Workers>) -> WorkerEvent {
    match workers {
        Some(workers) => workers.next_event().await,
        None => std::future::pending().await,
    }
}

/// Waits for an end of a coordinator of ours that nobody asked for.
pub(crate) async fn coordinator_ended(embedded: &mut Option<&mut Embedded>) -> Failure {
    match embedded {
        Some(embedded) => embedded.ended().await,
        None => std::future::pending().await,
    }
}

/// Something whose changes a coordinator tells.
pub(crate) trait Watched {
    /// How it stands after a change.
    type Message;

    /// Begins with how it stands.
    fn open(client: &mut Client, name: &RunName) -> impl Future<Output = Result<Streaming<Self::Message>, Status>>;

    /// What there is to say once it has come to rest.
    fn at_rest(message: &Self::Message) -> Option<String>;
}

/// A run.
pub(crate) struct OneRun;

impl Watched for OneRun {
    type Message = WatchRunResponse;

    async fn open(client: &mut Client, name: &RunName) -> Result<Streaming<WatchRunResponse>, Status> {
        client.watch(name).await
    }

    fn at_rest(message: &WatchRunResponse) -> Option<String> {
        let run = message.run.as_ref().filter(|run| is_ended(run))?;
        Some(format!("run {} is {} at step {}", escape(&run.name), run_state_name(run.state()), run.step))
    }
}

/// The changes of something, through absences of the coordinator.
pub(crate) struct Watching<W: Watched> {
    pub(crate) client: Client,
    name: RunName,
    stream: Option<Streaming<W::Message>>,
    away_since: Option<Instant>,
}

impl<W: Watched> Watching<W> {
    /// Watches what is called `name`.
    pub(crate) fn new(client: &Client, name: &RunName) -> Self {
        Self { client: client.clone(), name: name.clone(), stream: None, away_since: None }
    }

    /// The next change. Safe to cancel: at worst the stream is opened again, and then begins with how everything stands.
    /// `say` tells a person about an absence.
    pub(crate) async fn next(&mut self, say: impl Fn(&str)) -> Result<W::Message, Failure> {
        loop {
            match self.attempt().await {
                Ok(message) => {
                    self.away_since = None;
                    return Ok(message);
                }
                Err(status) if is_away(&status) => self.wait(status, &say).await?,
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn attempt(&mut self) -> Result<W::Message, Status> {
        if self.stream.is_none() {
            self.stream = Some(W::open(&mut self.client, &self.name).await?);
        }
        let stream = self.stream.as_mut().expect("set just above");
        let message = stream.message().await;
        match message {
            Ok(Some(message)) => Ok(message),
            Ok(None) => {
                self.stream = None;
                Err(Status::unavailable("the coordinator ended the stream"))
            }
            Err(status) => {
                self.stream = None;
                Err(status)
            }
        }
    }

    async fn wait(&mut self, status: Status, say: impl Fn(&str)) -> Result<(), Failure> {
        let now = Instant::now();
        let since = *self.away_since.get_or_insert_with(|| {
            say("the coordinator is away, waiting for it; workers go on meanwhile");
            now
        });
        if now.duration_since(since) > AWAY_LIMIT {
            let message = format!("the coordinator at {} was away for {} s", self.client.url(), AWAY_LIMIT.as_secs());
            return Err(Failure::unreachable(anyhow::Error::new(status).context(message)));
        }
        tokio::time::sleep(RETRY_EVERY).await;
        Ok(())
    }
}

/// Whether a call failed for want of a coordinator, and not by what it replied.
fn is_away(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled => true,
        // A broken connection reaches us as `Unknown` with the transport's error as its source.
        Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_are_told_once_and_in_order() {
        let evals = |steps: &[u64]| -> Vec<EvalPoint> {
            steps.iter().map(|step| EvalPoint { step: *step, ..EvalPoint::default() }).collect()
        };
        for (sent, read, expected) in
            [(&[5, 6][..], &[3, 4, 5, 6, 7][..], &[3, 4, 5, 6][..]), (&[5, 6], &[], &[5, 6]), (&[5, 6], &[5], &[5, 6])]
        {
            let mut run = Run { evals: evals(sent), ..Run::default() };
            add_before(&mut run, evals(read));
            assert_eq!(run.evals, evals(expected), "{sent:?} and {read:?}");
        }
    }
}
