use super::trial::{Phase, Trial};
use super::{EndReason, Engine};
use crate::ids::TrialId;
use crate::view::{CheckpointView, RunState, RunView, View, WorkerView};

impl Engine {
    /// A picture for people.
    pub fn view(&self) -> View {
        View {
            runs: self.trials.iter().map(|(id, trial)| run_view(id, trial)).collect(),
            workers: self
                .workers
                .values()
                .map(|worker| WorkerView {
                    info: worker.info.clone(),
                    connected: worker.connected,
                    run: worker.trial.as_ref().map(|trial| trial.run.clone()),
                })
                .collect(),
        }
    }
}

pub(super) fn state(trial: &Trial) -> RunState {
    match &trial.phase {
        Phase::Waiting { .. } => RunState::Waiting,
        Phase::Ended { reason: EndReason::Stopped { .. }, .. } => RunState::Stopped,
        Phase::Ended { reason: EndReason::Completed { .. }, .. } => RunState::Completed,
        Phase::Ended { reason: EndReason::Failed { .. }, .. } => RunState::Failed,
        _ if trial.stopping.is_some() => RunState::Stopping,
        Phase::Forming { .. } | Phase::Broken { .. } => RunState::Forming,
        Phase::Running { .. } | Phase::Saving { .. } => RunState::Running,
    }
}

fn reason(trial: &Trial) -> String {
    let wanted = trial.spec.workers;
    match (&trial.phase, trial.stopping) {
        (Phase::Waiting { reason, .. }, _) => reason.to_string(),
        (Phase::Ended { reason, .. }, _) => reason.to_string(),
        (Phase::Saving { finish, .. }, _) => format!("saving step {}, the last one", finish.step()),
        (Phase::Broken { cause, .. }, _) => format!("the group broke and forms anew: {cause}"),
        (_, Some(cause)) => cause.to_string(),
        (Phase::Forming { members, .. }, None) => format!("{} of {wanted} workers are connecting", members.len()),
        (Phase::Running { members, .. }, None) if members.len() < wanted as usize => {
            format!("{} of {wanted} workers; grows when one is free", members.len())
        }
        (Phase::Running { .. }, None) => String::new(),
    }
}

fn run_view(id: &TrialId, trial: &Trial) -> RunView {
    let (best, result) = (trial.best(), trial.result());
    let checkpoints = trial.checkpoints.iter().map(|checkpoint| CheckpointView {
        step: checkpoint.step,
        manifest: checkpoint.manifest.clone(),
        blake3: checkpoint.blake3.clone(),
        weights_sha256: checkpoint.weights_sha256.clone(),
        best: best == Some(checkpoint.step),
        result: result == Some(checkpoint.step),
    });
    RunView {
        name: id.run.clone(),
        state: state(trial),
        reason: reason(trial),
        generation: trial.generation,
        members: trial.phase.members().to_vec(),
        workers_wanted: trial.spec.workers,
        step: trial.recorded.step,
        measurements: trial.measurements.clone(),
        checkpoints: checkpoints.collect(),
        submitted_at: trial.submitted_at,
        ended_at: match &trial.phase {
            Phase::Ended { at, .. } => Some(*at),
            Phase::Waiting { .. }
            | Phase::Forming { .. }
            | Phase::Running { .. }
            | Phase::Broken { .. }
            | Phase::Saving { .. } => None,
        },
        failures: trial.failures,
    }
}
