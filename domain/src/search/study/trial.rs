use crate::search::population::Parent;

/// A trial of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    pub(super) point: Box<[f64]>,
    pub(super) losses: Box<[f64]>,
    pub(super) parent: Option<Parent>,
    pub(super) budget: u64,
    pub(super) target: u64,
    pub(super) failures: u32,
    pub(super) phase: Phase,
    pub(super) has_started: bool,
}

/// Where a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is planned and waits for a slot.
    Queued,
    /// It trains.
    Training,
    /// It has rested, and the results of its wave are awaited (lock step only).
    Resting,
    /// It has rested and may go on later.
    Paused,
    /// It has its full budget.
    Complete,
    /// It was stopped.
    Stopped,
    /// It failed for good.
    Failed,
}

impl Trial {
    /// Its point of the unit cube.
    pub fn point(&self) -> &[f64] {
        &self.point
    }

    /// The losses at its last rest; none before the first.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// The checkpoint it began from, if it is a copy.
    pub fn parent(&self) -> Option<Parent> {
        self.parent
    }

    /// The budget at its last rest, and before the first that of its parent, or else 0.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// The budget of its next rest, or that of its last one.
    pub fn target(&self) -> u64 {
        self.target
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.point) + size_of_val(&*self.losses)
    }
}

impl Phase {
    /// Whether the trial will not change any more.
    pub fn is_over(self) -> bool {
        match self {
            Phase::Complete | Phase::Stopped | Phase::Failed => true,
            Phase::Queued | Phase::Training | Phase::Resting | Phase::Paused => false,
        }
    }
}
