use super::on_sweep::note_run;
use super::sweep::SweepPhase;
use super::trial::{Phase, Trial};
use super::{Effect, EndReason, Engine, Refusal, only_trial, picture};
use crate::ids::RunName;
use crate::spec::file::PRIORITY_MAX;

impl Engine {
    /// Whether a run or sweep can be given this priority: one that has come to rest waits for nobody.
    pub(super) fn check_priority(&self, run: &RunName, priority: i32) -> Result<(), Refusal> {
        if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&priority) {
            return Err(Refusal::PriorityOutOfRange { priority });
        }
        match self.sweeps.get(run) {
            Some(sweep) => match sweep.phase {
                SweepPhase::Live { .. } | SweepPhase::Stopping => Ok(()),
                SweepPhase::Stopped { .. } | SweepPhase::Ended { .. } => {
                    Err(Refusal::SweepNotLive { sweep: run.clone(), state: picture::sweep_state(sweep) })
                }
            },
            None => match self.sweep_of(run) {
                Some(sweep) => Err(Refusal::PartOfSweep { run: run.clone(), sweep }),
                None => self.check_live(run),
            },
        }
    }

    /// Takes effect where placement chooses who is next. Nobody who has workers loses them by it.
    pub(super) fn on_priority_requested(&mut self, run: &RunName, priority: i32, effects: &mut Vec<Effect>) {
        let before = match self.sweeps.get_mut(run) {
            Some(sweep) => {
                let before = std::mem::replace(&mut sweep.priority, priority);
                self.set_priority_of_trials(run, priority);
                before
            }
            None => match self.trials.get_mut(&only_trial(run)) {
                Some(trial) => std::mem::replace(&mut trial.priority, priority),
                None => return,
            },
        };
        if before != priority {
            note_run(effects, run, format!("priority {priority} instead of {before}"));
        }
    }

    /// Of those trials of a sweep that wait, or may wait again.
    fn set_priority_of_trials(&mut self, sweep: &RunName, priority: i32) {
        let may_wait = |trial: &Trial| match &trial.phase {
            Phase::Ended { reason: EndReason::Completed { .. } | EndReason::Pruned { .. }, .. } => false,
            Phase::Ended {
                reason: EndReason::Stopped { .. } | EndReason::Paused { .. } | EndReason::Failed { .. },
                ..
            }
            | Phase::Waiting { .. }
            | Phase::Forming { .. }
            | Phase::Running { .. }
            | Phase::Broken { .. }
            | Phase::Saving { .. } => true,
        };
        let of_sweep = |trial: &Trial| trial.sweep.as_ref().is_some_and(|(name, _)| name == sweep);
        let concerned = self.trials.iter().filter(|(_, trial)| of_sweep(trial) && may_wait(trial));
        for id in concerned.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.trial_mut(&id).priority = priority;
        }
    }
}
