//! Doing what the engine asks for.

use std::time::Duration;

use domain::engine::{Effect, Event};
use domain::ids::{Generation, RunName, Step, TrialId};
use domain::record::SavedPart;
use domain::spec::JobSpec;
use proto::convert::Command;
use store::{CheckpointError, CheckpointStore, MANIFEST_VERSION, Manifest, NewLogLine};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, info, warn};

use crate::connections::Connections;
use crate::driver::Message;
use crate::spans;

/// How often a manifest is tried to be written before its checkpoint is given up.
const COMMIT_TRIES: u32 = 5;
/// The pause after the first failure; it doubles with each.
const COMMIT_PAUSE: Duration = Duration::from_millis(100);

/// What effects are performed with, but for the connections.
#[derive(Clone, Debug)]
pub(crate) struct Hands {
    pub(crate) checkpoints: CheckpointStore,
    pub(crate) tasks: TaskTracker,
    /// Where background work tells what came of it.
    pub(crate) happened: mpsc::Sender<Message>,
    pub(crate) shutdown: CancellationToken,
}

/// What the driver itself must do or know of.
#[derive(Debug, Default)]
pub(crate) struct ForDriver {
    /// Lines for the logs of runs, in order.
    pub(crate) lines: Vec<(RunName, NewLogLine)>,
    /// Runs that go on from a step with a generation: to be stored before anything else happens.
    pub(crate) roll_backs: Vec<(RunName, Step, Generation)>,
    /// Paths of manifests that are now being written.
    pub(crate) committing: Vec<String>,
}

/// Performs `effect`, but for what is added to `for_driver`.
pub(crate) fn perform(
    effect: Effect,
    hands: &Hands,
    connections: &Connections,
    spec_of: impl Fn(&RunName) -> Option<JobSpec>,
    at_ms: u64,
    for_driver: &mut ForDriver,
) {
    match effect {
        Effect::Assign { worker, assignment } => connections.send(worker, Command::Assign(assignment)),
        Effect::Stop { worker, trial, generation } => connections.send(worker, Command::Stop { trial, generation }),
        Effect::Release { worker, trial, generation } => {
            connections.send(worker, Command::Release { trial, generation });
        }
        Effect::CommitCheckpoint { trial, generation, step, parts } => {
            if let Some(spec) = spec_of(&trial.run) {
                for_driver.committing.push(CheckpointStore::manifest_path(&trial, generation, step));
                let span = spans::commit(&trial, generation, step, parts.len());
                commit_in_background(hands, manifest(trial, generation, step, parts, spec), span);
            }
        }
        Effect::DeleteCheckpoints { trial, manifests } => delete_in_background(hands, trial, manifests),
        Effect::DropSave { trial, generation, step } => drop_save_in_background(hands, trial, generation, step),
        Effect::RollBack { trial, step, generation } => for_driver.roll_backs.push((trial.run, step, generation)),
        Effect::Note { run, text } => {
            info!(%run, "{text}");
            for_driver.lines.push((run, coordinator_line(at_ms, "info", text)));
        }
    }
}

/// A line that the coordinator itself writes into a run's log.
pub(crate) fn coordinator_line(at_ms: u64, level: &str, text: String) -> NewLogLine {
    NewLogLine { at_ms, source: "coordinator".to_owned(), level: level.to_owned(), text }
}

fn manifest(trial: TrialId, generation: Generation, step: Step, parts: Vec<SavedPart>, spec: JobSpec) -> Manifest {
    let weights_sha256 = parts.first().map(|p| p.weights_sha256.clone()).unwrap_or_default();
    Manifest { version: MANIFEST_VERSION, trial, generation, step, parts, weights_sha256, spec }
}

fn commit_in_background(hands: &Hands, manifest: Manifest, span: Span) {
    let Hands { checkpoints, tasks, happened, shutdown } = hands.clone();
    tasks.spawn(async move {
        let event = tokio::select! {
            biased;
            // The engine asks again after a restart.
            () = shutdown.cancelled() => return,
            event = commit(&checkpoints, manifest).instrument(span) => event,
        };
        // A driver that has ended is asked again by its journal.
        let _ = happened.send(Message::Happened(event)).await;
    });
}

/// Writes a manifest; what came of it is a fact either way, so that nothing waits for it in vain.
async fn commit(checkpoints: &CheckpointStore, manifest: Manifest) -> Event {
    let mut pause = COMMIT_PAUSE;
    let mut tries = 1;
    loop {
        let error = match checkpoints.commit(&manifest).await {
            Ok(committed) => {
                let Manifest { version: _, trial, generation, step, parts: _, weights_sha256, spec: _ } = manifest;
                let (manifest, blake3) = (committed.path, committed.blake3);
                return Event::Committed { trial, generation, step, manifest, blake3, weights_sha256 };
            }
            Err(error) => error,
        };
        let Manifest { trial, generation, step, .. } = &manifest;
        if tries == COMMIT_TRIES || !may_pass(&error) {
            warn!(%trial, %step, cause = %error, tries, "checkpoint could not be committed");
            let (trial, generation, step) = (trial.clone(), *generation, *step);
            return Event::PartFailed { trial, generation, step, cause: format!("manifest: {error}") };
        }
        tokio::time::sleep(pause).await;
        (pause, tries) = (pause * 2, tries + 1);
    }
}

/// Whether trying again can help.
fn may_pass(error: &CheckpointError) -> bool {
    matches!(error, CheckpointError::NoSpace { .. } | CheckpointError::Write { .. } | CheckpointError::Access { .. })
}

fn delete_in_background(hands: &Hands, trial: TrialId, manifests: Vec<String>) {
    let checkpoints = hands.checkpoints.clone();
    hands.tasks.spawn(async move {
        for manifest in manifests {
            if let Err(error) = checkpoints.delete(&manifest).await {
                warn!(%trial, manifest, cause = %error, "checkpoint could not be deleted, it stays on the disk");
            }
        }
    });
}

fn drop_save_in_background(hands: &Hands, trial: TrialId, generation: Generation, step: Step) {
    let checkpoints = hands.checkpoints.clone();
    hands.tasks.spawn(async move {
        if let Err(error) = checkpoints.drop_save(&trial, generation, step).await {
            warn!(%trial, %generation, %step, cause = %error, "parts of a lost checkpoint could not be deleted");
        }
    });
}

/// Deletes what cut-off saves of a trial have left. Only for a trial that is over for good: nobody saves any more.
pub(crate) fn sweep_in_background(hands: &Hands, trial: TrialId, keep: Vec<String>) {
    let checkpoints = hands.checkpoints.clone();
    hands.tasks.spawn(async move {
        if let Err(error) = checkpoints.sweep(&trial, &keep).await {
            warn!(%trial, cause = %error, "left-over parts of checkpoints could not be deleted");
        }
    });
}
