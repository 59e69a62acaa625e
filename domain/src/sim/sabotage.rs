use super::store::Store;
use crate::engine::{AttemptOutcome, Effect, Event, StartFrom, StateInMemory};
use crate::ids::{Generation, Time, TrialId};

/// A fault planted between the world and the engine, as a mistake in either would be: the invariants must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests plant faults"))]
pub(super) enum Sabotage {
    /// Nothing is planted.
    None,
    /// What older generations report passes as the newest one's.
    StaleReportsCount,
    /// Records after a step that the history left are not marked.
    RollBacksAreSkipped,
    /// After a rollback, members keep what they hold.
    DiscardIsForgotten,
    /// Records are acknowledged without being stored, now and then.
    RecordsAreDropped,
    /// A committed checkpoint is not journalled.
    CommitsAreNotJournalled,
    /// Losses are not journalled.
    LossesAreNotJournalled,
    /// What users want of priorities is not journalled.
    PrioritiesAreNotJournalled,
    /// What users want of workers is not journalled.
    DrainsAreNotJournalled,
    /// What users want of checkpoints is not journalled.
    PinsAreNotJournalled,
    /// Deadlines never pass.
    DeadlinesAreIgnored,
    /// Manifests are written but nobody hears of it.
    CommitsGoUnheard,
    /// Checkpoints are deleted although they were not given up.
    TheNewestCheckpointIsDeleted,
    /// Workers go on although they are told to stop.
    StopsAreNotHeeded,
    /// In sweeps: what was measured is not journalled.
    MeasurementsAreNotJournalled,
    /// In sweeps: nobody hears that a trial has come to rest.
    RestsGoUnheard,
    /// In sweeps: workers train on over the rest.
    RestsAreNotHeeded,
    /// In sweeps: copies begin from the initialisation.
    CopiesAreForgotten,
    /// In sweeps: losses depend on the cluster.
    LossesDependOnTheGroup,
}

impl Sabotage {
    #[cfg(test)]
    pub(super) const ALL: [Sabotage; 13] = [
        Sabotage::StaleReportsCount,
        Sabotage::RollBacksAreSkipped,
        Sabotage::DiscardIsForgotten,
        Sabotage::RecordsAreDropped,
        Sabotage::CommitsAreNotJournalled,
        Sabotage::LossesAreNotJournalled,
        Sabotage::PrioritiesAreNotJournalled,
        Sabotage::DrainsAreNotJournalled,
        Sabotage::PinsAreNotJournalled,
        Sabotage::DeadlinesAreIgnored,
        Sabotage::CommitsGoUnheard,
        Sabotage::TheNewestCheckpointIsDeleted,
        Sabotage::StopsAreNotHeeded,
    ];

    #[cfg(test)]
    pub(super) const OF_SWEEPS: [Sabotage; 5] = [
        Sabotage::MeasurementsAreNotJournalled,
        Sabotage::RestsGoUnheard,
        Sabotage::RestsAreNotHeeded,
        Sabotage::CopiesAreForgotten,
        Sabotage::LossesDependOnTheGroup,
    ];

    /// What the engine is told instead of `event`; `newest` is the trial's newest generation.
    pub(super) fn hears(self, mut event: Event, newest: impl Fn(&TrialId) -> Generation) -> Option<Event> {
        match (self, &mut event) {
            (
                Sabotage::StaleReportsCount,
                Event::Formed { trial, generation, .. }
                | Event::Broken { trial, generation, .. }
                | Event::PartSaved { trial, generation, .. }
                | Event::RollbackRequested { trial, generation, .. }
                | Event::AttemptEnded { trial, generation, .. },
            ) => *generation = newest(trial),
            (Sabotage::DeadlinesAreIgnored, Event::DeadlinePassed { .. })
            | (Sabotage::CommitsGoUnheard, Event::Committed { .. })
            | (Sabotage::RestsGoUnheard, Event::AttemptEnded { outcome: AttemptOutcome::Rested { .. }, .. }) => {
                return None;
            }
            (Sabotage::LossesDependOnTheGroup, Event::Measured { generation, eval_loss, .. }) => {
                *eval_loss = (f64::from(*eval_loss) * generation.0 as f64 % 1.0).into();
            }
            _ => {}
        }
        Some(event)
    }

    pub(super) fn journals(self, event: &Event) -> bool {
        let is_left_out = match self {
            Sabotage::CommitsAreNotJournalled => matches!(event, Event::Committed { .. }),
            Sabotage::LossesAreNotJournalled => matches!(event, Event::Lost { .. }),
            Sabotage::PrioritiesAreNotJournalled => matches!(event, Event::PriorityRequested { .. }),
            Sabotage::PinsAreNotJournalled => {
                matches!(event, Event::PinRequested { .. } | Event::UnpinRequested { .. })
            }
            Sabotage::DrainsAreNotJournalled => {
                matches!(event, Event::DrainRequested { .. } | Event::UndrainRequested { .. })
            }
            Sabotage::MeasurementsAreNotJournalled => matches!(event, Event::Measured { .. }),
            _ => false,
        };
        event.is_fact() && !is_left_out
    }

    pub(super) fn stores_records(self, now: Time) -> bool {
        self != Sabotage::RecordsAreDropped || !now.0.is_multiple_of(16)
    }

    pub(super) fn heeds_stops(self) -> bool {
        self != Sabotage::StopsAreNotHeeded
    }

    /// What is performed instead of `effect`.
    pub(super) fn performs(self, effect: Effect, store: &mut Store) -> Option<Effect> {
        match (self, effect) {
            (Sabotage::RollBacksAreSkipped, Effect::RollBack { .. }) => None,
            (Sabotage::DiscardIsForgotten, Effect::Assign { worker, mut assignment }) => {
                assignment.state = StateInMemory::Keep;
                Some(Effect::Assign { worker, assignment })
            }
            (Sabotage::RestsAreNotHeeded, Effect::Assign { worker, mut assignment }) => {
                assignment.until = None;
                Some(Effect::Assign { worker, assignment })
            }
            (Sabotage::CopiesAreForgotten, Effect::Assign { worker, mut assignment }) => {
                if matches!(assignment.start, StartFrom::Copy { .. }) {
                    assignment.start = StartFrom::Scratch;
                }
                Some(Effect::Assign { worker, assignment })
            }
            (Sabotage::TheNewestCheckpointIsDeleted, Effect::DeleteCheckpoints { trial, manifests }) => {
                store.manifests.pop_last();
                Some(Effect::DeleteCheckpoints { trial, manifests })
            }
            (_, effect) => Some(effect),
        }
    }
}
