//! Where [`News`] come from: streams where the coordinator has them, and a question twice a second at most where not.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::ids::RunName;
use proto::v1::{ReadLogResponse, ReadRecordsResponse, Run, WatchRunResponse, WatchSweepResponse};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tonic::Status;

use super::state::{Curves, News};
use crate::client::{Client, spec_of};
use crate::exit::Failure;
use crate::follow::is_ended;
use crate::output::{Change, Tracker};

/// Between two questions for the cluster.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A coordinator that answers no question within this time is away.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A coordinator that needs long for an answer is asked less often: answering takes at most one of so many seconds.
const SHARE: u32 = 10;

/// Runs that are watched at a time. A connection has room for 128 streams.
const RUNS_MAX: usize = 48;

/// Sweeps that are watched at a time.
const SWEEPS_MAX: usize = 32;

/// Steps before the present that a curve begins with.
const RECENT_STEPS: u64 = 2000;

/// News that nobody has looked at yet. Who has more waits.
const NEWS_MAX: usize = 256;

/// The tasks that listen. Dropping it ends them.
pub(crate) struct Feed {
    client: Client,
    sender: mpsc::Sender<News>,
    tasks: JoinSet<()>,
    watched: BTreeMap<String, AbortHandle>,
    opened: Vec<AbortHandle>,
}

impl Feed {
    /// Begins to ask for the cluster.
    pub(crate) fn start(client: Client) -> (Self, mpsc::Receiver<News>) {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(ask(client.clone(), sender.clone()));
        (Self { client, sender, tasks, watched: BTreeMap::new(), opened: Vec::new() }, news)
    }

    /// Watches what the picture of the cluster shows: live runs, and sweeps, of which the ended ones have one message.
    pub(crate) fn watch(&mut self, news: &News) {
        let News::Cluster { runs, sweeps, .. } = news else { return };
        let live = runs.iter().filter(|run| !is_ended(run)).take(RUNS_MAX);
        for run in live {
            let task = watch_run(self.client.clone(), self.sender.clone(), run.clone());
            self.keep(&run.name, |tasks| tasks.spawn(task));
        }
        let mut newest: Vec<_> = sweeps.iter().collect();
        newest.sort_by_key(|sweep| (sweep.ended_at_ms.is_some(), u64::MAX - sweep.submitted_at_ms));
        for sweep in newest.into_iter().take(SWEEPS_MAX) {
            if let Ok(name) = sweep.name.parse::<RunName>() {
                // An ended sweep has told everything once; if it goes on, its name is new.
                let key = format!("{} {}", sweep.name, sweep.ended_at_ms.is_some());
                let was_told = sweep.ended_at_ms.is_some() && self.watched.contains_key(&key);
                if !was_told {
                    let task = watch_sweep(self.client.clone(), self.sender.clone(), name);
                    self.keep(&key, |tasks| tasks.spawn(task));
                }
            }
        }
    }

    /// Sees to it that the task of that name is there.
    fn keep(&mut self, name: &str, spawn: impl FnOnce(&mut JoinSet<()>) -> AbortHandle) {
        if self.watched.get(name).is_none_or(AbortHandle::is_finished) {
            let handle = spawn(&mut self.tasks);
            self.watched.insert(name.to_owned(), handle);
        }
    }

    /// Reads the whole course of a run, and its log.
    pub(crate) fn open(&mut self, run: &str) {
        self.close();
        if let Ok(name) = run.parse::<RunName>() {
            self.opened.push(self.tasks.spawn(read_course(self.client.clone(), self.sender.clone(), name.clone(), 0)));
            self.opened.push(self.tasks.spawn(read_log(self.client.clone(), self.sender.clone(), name)));
        }
    }

    /// Reads no longer.
    pub(crate) fn close(&mut self) {
        self.opened.drain(..).for_each(|task| task.abort());
    }

    /// Asks a run or sweep to stop.
    pub(crate) fn stop(&mut self, name: &str) {
        let (mut client, sender, name) = (self.client.clone(), self.sender.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let notice = match name.parse::<RunName>() {
                Ok(parsed) => match client.stop(&parsed).await {
                    Ok(()) => format!("{name} stops after the step in progress"),
                    Err(status) => format!("{name} cannot be stopped: {}", status.message()),
                },
                Err(error) => error.to_string(),
            };
            // Nobody listens any more only when this command ends.
            let _ = sender.send(News::Asked(notice)).await;
        });
    }

    /// Waits for a task that broke off.
    pub(crate) async fn broken(&mut self) -> Failure {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_panic() => {
                    return Failure::failed(anyhow::Error::new(error).context("a part of this command broke off"));
                }
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn ask(mut client: Client, sender: mpsc::Sender<News>) {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let news = match timeout(ANSWER_LIMIT, picture(&mut client)).await {
            Ok(Ok(news)) => news,
            Ok(Err(status)) => News::Away(status.message().to_owned()),
            Err(_) => News::Away(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
        };
        if sender.send(news).await.is_err() {
            return;
        }
        tokio::time::sleep(began.elapsed() * SHARE).await;
    }
}

async fn picture(client: &mut Client) -> Result<News, Status> {
    let cluster = client.cluster().await?;
    let sweeps = client.all_sweeps().await?;
    Ok(News::Cluster { runs: cluster.runs, workers: cluster.workers, sweeps, stall: cluster.stall })
}

/// Tells every change of a run until it ends or the coordinator is away.
async fn watch_run(mut client: Client, sender: mpsc::Sender<News>, run: Run) {
    let (Ok(name), Ok(spec)) = (run.name.parse::<RunName>(), spec_of(&run)) else { return };
    read_course(client.clone(), sender.clone(), name.clone(), run.step.saturating_sub(RECENT_STEPS)).await;
    let Ok(mut changes) = client.watch(&name).await else { return };
    let mut tracker = Tracker::new(&spec, &run);
    let began = Instant::now();
    let mut samples_per_second = None;
    while let Ok(Some(WatchRunResponse { run, newest })) = changes.message().await {
        let Some(run) = run else { continue };
        for change in tracker.observe(began.elapsed(), &run, newest.as_ref()) {
            match change {
                Change::Step { rate, .. } => samples_per_second = rate.map(|rate| rate.samples_per_second),
                // The rate of a group that is gone says nothing.
                Change::State { .. } | Change::Group { .. } => samples_per_second = None,
                Change::Eval(_) | Change::Checkpoint { .. } => {}
            }
        }
        if sender.send(News::Run { run: Box::new(run), newest, samples_per_second }).await.is_err() {
            return;
        }
    }
}

async fn watch_sweep(mut client: Client, sender: mpsc::Sender<News>, name: RunName) {
    let Ok(mut changes) = client.watch_sweep(&name).await else { return };
    while let Ok(Some(WatchSweepResponse { sweep })) = changes.message().await {
        let Some(sweep) = sweep else { continue };
        if sender.send(News::Sweep(Box::new(sweep))).await.is_err() {
            return;
        }
    }
}

/// The steps and evaluations of a run after a step.
async fn read_course(mut client: Client, sender: mpsc::Sender<News>, name: RunName, after: u64) {
    let Ok(mut pages) = client.records(&name, after).await else { return };
    let mut curves = Curves::default();
    while let Ok(Some(ReadRecordsResponse { steps, evals })) = pages.message().await {
        steps.iter().for_each(|step| curves.loss.push(step.step, step.loss));
        for eval in &evals {
            curves.eval_loss.push(eval.step, eval.loss);
            curves.accuracy.push(eval.step, eval.accuracy);
        }
    }
    let _ = sender.send(News::Curves { run: name.to_string(), curves }).await;
}

async fn read_log(mut client: Client, sender: mpsc::Sender<News>, name: RunName) {
    let Ok(mut portions) = client.log(&name, true).await else { return };
    while let Ok(Some(ReadLogResponse { lines })) = portions.message().await {
        if sender.send(News::Log { run: name.to_string(), lines }).await.is_err() {
            return;
        }
    }
}
