use super::trial::Phase;
use super::{Deadline, Effect, Engine, StopCause};
use crate::ids::{Time, TrialId, WorkerId};

/// How long a broken group waits for the loss that explains it, at first. A dead process is noticed by its connection
/// within milliseconds; doubled with each unexplained break in a row, this soon outlasts a lease too.
const EXPLAIN_MS: u64 = 500;

/// Groups in a row that may break, or not form, without a loss that explains it; then the run fails. With doubled waits
/// this leaves some five minutes for whatever was wrong.
pub(super) const BROKEN_IN_A_ROW_MAX: u32 = 5;

/// A group that ran this long before it broke did not break at once again.
pub(super) const STEADY_MS: u64 = 60_000;

/// A wait that doubles with every failure in a row.
pub(super) fn backed_off_ms(first_ms: u64, failures_in_a_row: u32) -> u64 {
    first_ms.saturating_mul(1 << failures_in_a_row.min(BROKEN_IN_A_ROW_MAX))
}

impl Engine {
    /// What is waited for first. Once its time has come, [`super::Event::DeadlinePassed`] is due. Ask again right before
    /// journalling: a sign of life may have moved it.
    pub fn next_deadline(&self) -> Option<(Time, Deadline)> {
        let leases = self.workers.iter().map(|(id, w)| (w.lease_until, Deadline::Lease { worker: *id }));
        let trials = self.trials.live().filter_map(|(id, trial)| {
            let (trial_id, generation) = (id.clone(), trial.generation);
            match &trial.phase {
                Phase::Waiting { gather_until, .. } => {
                    gather_until.map(|until| (until, Deadline::Gather { trial: trial_id }))
                }
                Phase::Forming { until, .. } | Phase::Broken { until, .. } => {
                    Some((*until, Deadline::Form { trial: trial_id, generation }))
                }
                Phase::Running { .. } => {
                    self.time_limit(id).map(|(at, _)| (at, Deadline::TimeLimit { trial: trial_id }))
                }
                Phase::Saving { .. } | Phase::Ended { .. } => None,
            }
        });
        leases.chain(trials).chain(self.sweep_deadlines()).min()
    }

    /// When a running trial will have trained for as long as it may.
    fn time_limit(&self, id: &TrialId) -> Option<(Time, StopCause)> {
        let trial = &self.trials[id];
        let max_seconds = trial.spec.early_stopping.max_seconds.filter(|_| trial.stopping.is_none())?;
        let at = trial.trained.reaches(max_seconds.saturating_mul(1000))?;
        Some((at, StopCause::TimeLimit { max_seconds }))
    }

    pub(super) fn on_deadline(&mut self, now: Time, deadline: Deadline, effects: &mut Vec<Effect>) {
        match deadline {
            Deadline::Lease { worker } => self.on_lease_passed(now, worker, effects),
            // Placement looks at the clock itself.
            Deadline::Gather { .. } => {}
            Deadline::Form { trial, generation } => {
                if self.trials.get(&trial).is_some_and(|t| t.generation == generation) {
                    self.on_form_passed(now, &trial, effects);
                }
            }
            Deadline::SweepTime { sweep } => self.on_sweep_out_of_time(now, &sweep, effects),
            Deadline::TimeLimit { trial } => self.on_time_limit_passed(now, &trial, effects),
        }
    }

    /// A lease in the journal has run out, whatever was heard since: signs of life are not journalled.
    fn on_lease_passed(&mut self, now: Time, id: WorkerId, effects: &mut Vec<Effect>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let cause = if worker.connected {
            format!("nothing heard of it for {} ms", self.timing.lease_ms)
        } else {
            format!("it did not come back within {} ms of the coordinator's restart", self.timing.rejoin_ms)
        };
        self.on_lost(now, id, &cause, effects);
    }

    fn on_form_passed(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = self.trial_mut(id);
        match &trial.phase {
            Phase::Forming { until, .. } if *until <= now => {
                trial.failures += 1;
                let cause = format!("generation {} did not form in time", trial.generation);
                self.form_anew(now, id, &cause, effects);
            }
            Phase::Broken { until, cause, .. } if *until <= now => {
                let cause = cause.clone();
                self.form_anew(now, id, &cause, effects);
            }
            _ => {}
        }
    }

    fn on_time_limit_passed(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let is_running = self.trials.get(id).is_some_and(|t| matches!(t.phase, Phase::Running { .. }));
        if !is_running {
            return;
        }
        if let Some((at, cause)) = self.time_limit(id)
            && at <= now
        {
            self.bring_to_stop(id, cause, effects);
        }
    }

    pub(super) fn explain_until(now: Time, broken_in_a_row: u32) -> Time {
        now.after_ms(backed_off_ms(EXPLAIN_MS, broken_in_a_row))
    }
}
