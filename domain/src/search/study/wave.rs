use std::collections::{BTreeMap, VecDeque};

/// The trials whose results count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Wave {
    /// Planned and not yet given to a slot.
    pub(super) queue: VecDeque<u32>,
    /// What was reported of each, in the order in which it will count.
    pub(super) buffered: BTreeMap<u32, Buffered>,
    /// Trials that the next wave begins with, and how far they go.
    pub(super) continuing: VecDeque<(u32, u64)>,
}

/// What a trial of a wave reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffered {
    pub(super) outcome: Option<Outcome>,
}

/// How a trial's part in a wave ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Rested { budget: u64, losses: Vec<f64> },
    Failed { cause: String },
}

impl Wave {
    pub(super) fn plan(&mut self, trial: u32) {
        self.queue.push_back(trial);
        self.buffered.insert(trial, Buffered::default());
    }

    /// How many have not come to rest.
    pub(super) fn outstanding(&self) -> usize {
        self.buffered.values().filter(|buffered| buffered.outcome.is_none()).count()
    }

    /// All results, once they are there.
    pub(super) fn take_complete(&mut self) -> Option<BTreeMap<u32, Buffered>> {
        (self.outstanding() == 0).then(|| std::mem::take(&mut self.buffered))
    }

    pub(super) fn of(&mut self, trial: u32) -> &mut Buffered {
        self.buffered.get_mut(&trial).expect("a trial that trains in lock step belongs to the wave")
    }
}
