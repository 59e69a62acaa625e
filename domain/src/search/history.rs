//! What a searcher knows of its trials: points, results at budgets, and who is still to report.

use std::collections::{BTreeMap, BTreeSet};

use super::Space;
use super::pareto::ordered;
use super::warm_start::Known;

/// The trials of a searcher, ranked at one budget as they report.
///
/// Results at different budgets are compared as BOHB does (Falkner et al. 2018): at the highest budget that enough trials
/// have reached. A trial counts by its result at the highest budget up to that one, so that those stopped early, which are
/// mostly worse, still count.
///
/// Inside, a trial has an *id*: those known from earlier sweeps come first, then the trials by number. So the ids of older
/// trials are smaller.
#[derive(Clone, Debug)]
pub(crate) struct History {
    enough: usize,
    /// How many trials are known from earlier sweeps.
    imported: u32,
    trials: BTreeMap<u32, Trial>,
    /// How many trials have this as their highest budget.
    reached: BTreeMap<u64, usize>,
    budget: u64,
    /// First loss and id of every trial that has reported or is closed, best first.
    ranked: Vec<(f64, u32)>,
    /// Trials that are open and have not reported.
    silent: BTreeSet<u32>,
}

/// A trial of a searcher.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// Its point of the unit cube.
    pub(crate) point: Vec<f64>,
    /// Which of its coordinates are active.
    pub(crate) active: Vec<bool>,
    /// Losses by rising budget.
    results: Vec<(u64, Vec<f64>)>,
}

impl Trial {
    /// The losses at the highest result up to `budget`, or else at the lowest; empty if the trial never reported.
    fn losses(&self, budget: u64) -> &[f64] {
        let beyond = self.results.partition_point(|(at, _)| *at <= budget);
        self.results.get(beyond.saturating_sub(1)).map_or(&[], |(_, losses)| losses)
    }

    fn rank(&self, budget: u64) -> f64 {
        self.losses(budget).first().map_or(f64::INFINITY, |loss| ordered(*loss))
    }
}

impl History {
    /// An empty history in which a budget counts once `enough` trials have reached it.
    pub(crate) fn new(enough: usize) -> Self {
        Self {
            enough: enough.max(1),
            imported: 0,
            trials: BTreeMap::new(),
            reached: BTreeMap::new(),
            budget: 0,
            ranked: Vec::new(),
            silent: BTreeSet::new(),
        }
    }

    /// Adds what is known from an earlier sweep. Comes before the trials of this one.
    pub(crate) fn import(&mut self, space: &Space, known: &[Known]) {
        debug_assert_eq!(self.trials.len(), self.imported as usize, "no trial was added yet");
        for Known { point, budget, losses } in known {
            let id = self.imported;
            self.insert(id, point.clone(), space.active(point));
            self.imported += 1;
            self.note(id, *budget, losses);
        }
    }

    /// The id of the trial with this number.
    pub(crate) fn id(&self, number: u32) -> u32 {
        self.imported + number
    }

    /// Whether there is a trial of this id.
    pub(crate) fn has(&self, id: u32) -> bool {
        self.trials.contains_key(&id)
    }

    /// Adds a trial that is pending from now on. A number that is known keeps its first point.
    pub(crate) fn add(&mut self, number: u32, point: Vec<f64>, active: Vec<bool>) {
        self.insert(self.id(number), point, active);
    }

    /// Notes a result; one of an unknown trial is ignored.
    pub(crate) fn observe(&mut self, number: u32, budget: u64, losses: &[f64]) {
        self.note(self.id(number), budget, losses);
    }

    fn insert(&mut self, id: u32, point: Vec<f64>, active: Vec<bool>) {
        let trial = Trial { point, active, results: Vec::new() };
        if let std::collections::btree_map::Entry::Vacant(entry) = self.trials.entry(id) {
            entry.insert(trial);
            self.silent.insert(id);
        }
    }

    fn note(&mut self, id: u32, budget: u64, losses: &[f64]) {
        let Some(trial) = self.trials.get_mut(&id) else { return };
        let was_ranked = !self.silent.remove(&id);
        let old_rank = trial.rank(self.budget);
        let old_last = trial.results.last().map(|(at, _)| *at);
        match trial.results.binary_search_by_key(&budget, |(at, _)| *at) {
            Ok(at) => trial.results[at].1 = losses.to_vec(),
            Err(at) => trial.results.insert(at, (budget, losses.to_vec())),
        }
        if was_ranked {
            self.unrank(id, old_rank);
        }
        self.rank(id);
        if old_last.is_none_or(|last| budget > last) {
            if let Some(last) = old_last {
                let count = self.reached.get_mut(&last).expect("the last budget of a trial was counted");
                *count -= 1;
                if *count == 0 {
                    self.reached.remove(&last);
                }
            }
            *self.reached.entry(budget).or_default() += 1;
            self.follow_budget();
        }
    }

    /// Notes that a trial reports no more; without any result it counts as the worst.
    pub(crate) fn close(&mut self, number: u32) {
        let id = self.id(number);
        if self.silent.remove(&id) {
            self.rank(id);
        }
    }

    /// The trial of this id.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn trial(&self, id: u32) -> &Trial {
        &self.trials[&id]
    }

    /// Its losses as they count now; empty if it never reported.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn losses(&self, id: u32) -> &[f64] {
        self.trials[&id].losses(self.budget)
    }

    /// Its first loss as it counts now; infinite if it never reported or is not finite.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn first_loss(&self, id: u32) -> f64 {
        self.trials[&id].rank(self.budget)
    }

    /// First loss and id of every trial that has reported or is closed, best first; those not finite last, as infinity.
    pub(crate) fn ranked(&self) -> &[(f64, u32)] {
        &self.ranked
    }

    /// Ids of open trials without a result, in rising order.
    pub(crate) fn silent(&self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator {
        self.silent.iter().copied()
    }

    /// How many trials have a finite first loss.
    pub(crate) fn finite(&self) -> usize {
        self.ranked.partition_point(|(loss, _)| loss.is_finite())
    }

    /// How many losses a result has; 1 while there is none.
    pub(crate) fn objectives(&self) -> usize {
        self.ranked.first().map_or(1, |(_, id)| self.losses(*id).len().max(1))
    }

    fn rank(&mut self, id: u32) {
        let entry = (self.trials[&id].rank(self.budget), id);
        let at = self.ranked.partition_point(|other| precedes(other, &entry));
        self.ranked.insert(at, entry);
    }

    fn unrank(&mut self, id: u32, rank: f64) {
        let at = self.ranked.partition_point(|other| precedes(other, &(rank, id)));
        debug_assert_eq!(self.ranked[at].1, id);
        self.ranked.remove(at);
    }

    /// Ranks everything anew when enough trials have reached a higher budget.
    fn follow_budget(&mut self) {
        let mut there = 0;
        let highest = self.reached.iter().rev().find(|(_, count)| {
            there += **count;
            there >= self.enough
        });
        let budget = highest.map_or(0, |(budget, _)| *budget);
        if budget == self.budget {
            return;
        }
        self.budget = budget;
        for (rank, id) in &mut self.ranked {
            *rank = self.trials[id].rank(budget);
        }
        self.ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    }
}

fn precedes(a: &(f64, u32), b: &(f64, u32)) -> bool {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(enough: usize, trials: u32) -> History {
        let mut history = History::new(enough);
        (0..trials).for_each(|number| history.add(number, vec![0.5], vec![true]));
        history
    }

    fn order(history: &History) -> Vec<u32> {
        history.ranked().iter().map(|(_, number)| *number).collect()
    }

    #[test]
    fn trials_are_ranked_at_the_highest_budget_that_enough_have_reached() {
        let mut history = history(2, 3);
        for (number, loss) in [(0, 3.0), (1, 2.0), (2, 1.0)] {
            history.observe(number, 10, &[loss]);
        }
        assert_eq!(order(&history), [2, 1, 0]);
        history.observe(0, 30, &[0.1]);
        assert_eq!(order(&history), [2, 1, 0], "one trial is not enough");
        history.observe(1, 40, &[0.2]);
        assert_eq!(order(&history), [0, 2, 1], "at 30, where trial 1 counts by its result at 10");
        history.observe(2, 40, &[5.0]);
        assert_eq!(order(&history), [0, 1, 2], "at 40, where trial 0 counts by its result at 30");
    }

    #[test]
    fn the_silent_the_failed_and_the_not_finite() {
        let mut history = history(1, 5);
        history.observe(0, 1, &[f64::NAN]);
        history.observe(1, 1, &[f64::NEG_INFINITY]);
        history.observe(2, 1, &[7.0]);
        history.close(2);
        history.close(3);
        history.observe(9, 1, &[0.0]);
        assert_eq!(history.ranked()[0], (7.0, 2));
        assert_eq!((history.ranked().len(), history.finite()), (4, 1));
        assert_eq!(history.silent().collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn what_an_earlier_sweep_found_is_older_than_every_trial() {
        let space = Space::new(Vec::new());
        let mut history = History::new(1);
        let known = [3.0, f64::NAN, 1.0].map(|loss| Known { point: Vec::new(), budget: 7, losses: vec![loss] });
        history.import(&space, &known);
        history.add(0, Vec::new(), Vec::new());
        assert_eq!((order(&history), history.id(0)), (vec![2, 0, 1], 3));
        assert_eq!(history.silent().collect::<Vec<_>>(), [3]);
        history.observe(0, 7, &[2.0]);
        assert_eq!(order(&history), [2, 3, 0, 1]);
        history.close(0);
        assert_eq!((history.first_loss(3), history.finite(), history.ranked().len()), (2.0, 3, 4));
    }
}
