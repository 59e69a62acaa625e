use std::collections::{BTreeMap, BTreeSet};

use super::sweep::{Sweep, SweepPhase};
use super::trial::{Phase, Trial};
use super::{EndReason, Engine, Worker, only_trial};
use crate::ids::{RunName, Step, TrialId};
use crate::search::study::{self, FinishReason};
use crate::view::{CheckpointView, RunState, RunView, SweepTrialView, SweepView, TrialState, View, WorkerView};

impl Engine {
    /// A picture for people.
    pub fn view(&self) -> View {
        let all =
            |(name, sweep): (&RunName, &Sweep)| self.sweep_view(name, sweep, 0..sweep.study.trials().len() as u32);
        View {
            runs: self.trials.iter().map(|(id, trial)| self.run_view(id, trial)).collect(),
            workers: self.worker_views(),
            sweeps: self.sweeps.iter().map(all).collect(),
        }
    }

    /// What may have changed since this was asked last: a view that lacks the runs, and the trials of sweeps, of which
    /// nothing is different. Put over the earlier ones it is [`Engine::view`]. It costs what the changes cost, however many
    /// trials a sweep has.
    pub fn take_changes(&mut self) -> View {
        let unseen = self.trials.take_unseen();
        let mut by_sweep: BTreeMap<RunName, BTreeSet<u32>> = BTreeMap::new();
        for (name, sweep) in &mut self.sweeps {
            let decided = sweep.study.trials_since(std::mem::replace(&mut sweep.seen_facts, sweep.study.facts_made()));
            by_sweep.entry(name.clone()).or_default().extend(decided);
        }
        for (sweep, number) in unseen.iter().filter_map(|id| self.trials[id].sweep.clone()) {
            by_sweep.entry(sweep).or_default().insert(number);
        }
        let changed = |(name, numbers): (RunName, BTreeSet<u32>)| self.sweep_view(&name, &self.sweeps[&name], numbers);
        View {
            runs: unseen.iter().map(|id| self.run_view(id, &self.trials[id])).collect(),
            workers: self.worker_views(),
            sweeps: by_sweep.into_iter().map(changed).collect(),
        }
    }

    fn worker_views(&self) -> Vec<WorkerView> {
        let view = |worker: &Worker| WorkerView {
            info: worker.info.clone(),
            connected: worker.connected,
            run: worker.trial.as_ref().map(|trial| trial.run.clone()),
            draining: self.draining.contains(&worker.info.id),
        };
        self.workers.values().map(view).collect()
    }

    /// Why a trial stands where it stands. Those of a sweep speak as it does.
    fn reason(&self, trial: &Trial) -> String {
        match (&trial.phase, &trial.sweep) {
            (Phase::Ended { reason: EndReason::Pruned { step, reason }, .. }, Some((sweep, _))) => {
                format!("stopped at step {step}: {}", self.sweeps[sweep].words().stop(reason))
            }
            _ => reason(trial),
        }
    }

    fn run_view(&self, id: &TrialId, trial: &Trial) -> RunView {
        let (best, result) = (trial.best(), trial.result());
        let checkpoints = trial.checkpoints.iter().map(|checkpoint| CheckpointView {
            step: checkpoint.step,
            at: checkpoint.at,
            manifest: checkpoint.manifest.clone(),
            blake3: checkpoint.blake3.to_string(),
            weights_sha256: checkpoint.weights_sha256.to_string(),
            best: best == Some(checkpoint.step),
            result: result == Some(checkpoint.step),
            pinned: checkpoint.is_pinned,
        });
        RunView {
            name: id.run.clone(),
            sweep: trial.sweep.as_ref().map(|(sweep, _)| sweep.clone()),
            parent: trial.parent.as_ref().map(|parent| (parent.run.clone(), parent.checkpoint.step)),
            state: state(trial),
            reason: self.reason(trial),
            generation: trial.generation,
            members: trial.phase.members().to_vec(),
            workers_wanted: trial.spec.workers,
            priority: trial.priority,
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
            groups: trial.groups.clone(),
        }
    }

    /// A sweep with these of its trials.
    fn sweep_view(&self, name: &RunName, sweep: &Sweep, numbers: impl IntoIterator<Item = u32>) -> SweepView {
        let trials = numbers.into_iter().map(|number| {
            let trial = &sweep.study.trials()[number as usize];
            let run = sweep.run(number);
            SweepTrialView {
                number,
                configuration: sweep.study.space().decode(trial.point()),
                state: trial_state(trial.phase()),
                reason: match self.trials.get(&only_trial(&run)) {
                    Some(trial) => self.reason(trial),
                    None => sweep.untrained.get(&number).cloned().unwrap_or_default(),
                },
                run,
                budget: trial.budget(),
                step: Step(sweep.steps.get(&number).copied().unwrap_or_default()),
                values: sweep.values(trial.losses()),
                parent: trial.parent().map(|parent| (parent.trial, parent.budget)),
            }
        });
        SweepView {
            name: name.clone(),
            state: sweep_state(sweep),
            reason: sweep_reason(sweep),
            priority: sweep.priority,
            submitted_at: sweep.submitted_at,
            ended_at: match sweep.phase {
                SweepPhase::Stopped { at } | SweepPhase::Ended { at, .. } => Some(at),
                SweepPhase::Live { .. } | SweepPhase::Stopping => None,
            },
            trials: trials.collect(),
        }
    }
}

pub(super) fn sweep_reason(sweep: &Sweep) -> String {
    match &sweep.phase {
        SweepPhase::Live { .. } if sweep.is_out_of_time => "its limit is reached".to_owned(),
        SweepPhase::Live { .. } => String::new(),
        SweepPhase::Stopping => "stop requested".to_owned(),
        SweepPhase::Stopped { .. } => "stopped by a user; all trials are saved".to_owned(),
        SweepPhase::Ended { reason, is_blind: true, .. } => {
            let metric = sweep.spec.objectives.first().map_or("its objective", |objective| objective.metric.name());
            format!("{reason}; no trial has a number for {metric}")
        }
        SweepPhase::Ended { reason, is_blind: false, .. } => reason.to_string(),
    }
}

pub(super) fn sweep_state(sweep: &Sweep) -> RunState {
    match &sweep.phase {
        SweepPhase::Live { .. } if sweep.study.training() == 0 => RunState::Waiting,
        SweepPhase::Live { .. } => RunState::Running,
        SweepPhase::Stopping => RunState::Stopping,
        SweepPhase::Stopped { .. } => RunState::Stopped,
        SweepPhase::Ended { reason: FinishReason::TooManyFailures { .. }, .. }
        | SweepPhase::Ended { is_blind: true, .. } => RunState::Failed,
        SweepPhase::Ended { .. } => RunState::Completed,
    }
}

fn trial_state(phase: study::Phase) -> TrialState {
    match phase {
        study::Phase::Queued | study::Phase::Training => TrialState::Training,
        study::Phase::Resting | study::Phase::Paused => TrialState::Paused,
        study::Phase::Complete => TrialState::Completed,
        study::Phase::Stopped => TrialState::Pruned,
        study::Phase::Failed => TrialState::Failed,
    }
}

pub(super) fn state(trial: &Trial) -> RunState {
    match &trial.phase {
        Phase::Waiting { .. } => RunState::Waiting,
        Phase::Ended { reason: EndReason::Stopped { .. }, .. } => RunState::Stopped,
        Phase::Ended { reason: EndReason::Paused { .. }, .. } => RunState::Paused,
        Phase::Ended { reason: EndReason::Pruned { .. }, .. } => RunState::Pruned,
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
        (Phase::Running { members, .. }, None) if members.len() > wanted as usize => {
            format!("{} workers, {} of them lent", members.len(), members.len() - wanted as usize)
        }
        (Phase::Running { .. }, None) => String::new(),
    }
}
