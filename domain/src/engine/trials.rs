use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;

use super::trial::Trial;
use crate::ids::TrialId;

/// All trials. What has to look at every trial that is under way asks [`Trials::live`]: a sweep leaves behind tens of
/// thousands that have ended, and an event must not cost more for each of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Trials {
    all: BTreeMap<TrialId, Box<Trial>>,
    /// All that have not ended, and some of those that were touched.
    live: BTreeSet<TrialId>,
    /// Those that may have changed since [`Trials::settle`].
    touched: BTreeSet<TrialId>,
    /// Those that may have changed since [`Trials::take_unseen`].
    unseen: BTreeSet<TrialId>,
}

/// What is remembered of changes is no part of the state.
impl PartialEq for Trials {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Index<&TrialId> for Trials {
    type Output = Trial;

    fn index(&self, id: &TrialId) -> &Trial {
        &self.all[id]
    }
}

impl Trials {
    pub(super) fn get(&self, id: &TrialId) -> Option<&Trial> {
        self.all.get(id).map(|trial| &**trial)
    }

    pub(super) fn contains_key(&self, id: &TrialId) -> bool {
        self.all.contains_key(id)
    }

    /// A trial that is about to change.
    pub(super) fn get_mut(&mut self, id: &TrialId) -> Option<&mut Trial> {
        let trial = self.all.get_mut(id)?;
        if !self.touched.contains(id) {
            self.touched.insert(id.clone());
            self.live.insert(id.clone());
        }
        Some(trial)
    }

    pub(super) fn insert(&mut self, id: TrialId, trial: Trial) {
        self.touched.insert(id.clone());
        self.live.insert(id.clone());
        self.all.insert(id, Box::new(trial));
    }

    /// In the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TrialId, &Trial)> {
        self.all.iter().map(|(id, trial)| (id, &**trial))
    }

    /// Those that have not ended, in the order of their ids.
    pub(super) fn live(&self) -> impl Iterator<Item = (&TrialId, &Trial)> {
        self.live.iter().map(|id| (id, &self[id])).filter(|(_, trial)| !trial.is_ended())
    }

    /// To be called at the end of each event: ended trials are left out of [`Trials::live`] from now on.
    pub(super) fn settle(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            let trial = self.all.get_mut(&id).expect("what was touched is known");
            if trial.is_ended() {
                trial.shrink();
                self.live.remove(&id);
            }
            self.unseen.insert(id);
        }
    }

    /// Those that may have changed since this was asked last.
    pub(super) fn take_unseen(&mut self) -> BTreeSet<TrialId> {
        std::mem::take(&mut self.unseen)
    }
}
