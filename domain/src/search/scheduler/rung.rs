//! The results of many trials at one budget, in order.

use std::collections::BTreeSet;

use super::reason::{Comparison, PEERS_LISTED_MAX};

/// The losses of trials at one budget, best first; equal losses by trial number, those that are not finite last.
#[derive(Clone, Debug, Default)]
pub(super) struct Rung {
    ordered: Vec<Entry>,
    /// Those of `ordered` that are finite and wait for a decision.
    waiting: BTreeSet<Entry>,
}

/// Ordered by [`order`] of the loss, then by number.
type Entry = (u64, u32);

impl Rung {
    /// Takes in a result. A trial comes once.
    pub(super) fn insert(&mut self, trial: u32, loss: f64) {
        let entry = (order(loss), trial);
        let place = self.ordered.partition_point(|other| *other < entry);
        self.ordered.insert(place, entry);
    }

    /// From now on the trial can be promoted, unless its loss is not finite.
    pub(super) fn wait(&mut self, trial: u32, loss: f64) {
        if loss.is_finite() {
            self.waiting.insert((order(loss), trial));
        }
    }

    /// The trial waits no longer.
    pub(super) fn leave(&mut self, trial: u32, loss: f64) {
        self.waiting.remove(&(order(loss), trial));
    }

    /// How many results there are.
    pub(super) fn len(&self) -> usize {
        self.ordered.len()
    }

    /// The best trial that waits, if it is among the best `kept` of the rung.
    pub(super) fn promotable(&self, kept: usize) -> Option<u32> {
        let best = self.waiting.first()?;
        let rank = self.ordered.partition_point(|other| other < best);
        (rank < kept).then_some(best.1)
    }

    /// The place of a result, 0 is the best.
    pub(super) fn place(&self, trial: u32, loss: f64) -> usize {
        let entry = (order(loss), trial);
        self.ordered.partition_point(|other| *other < entry)
    }

    /// The loss at a place; not a number if there is none or it is not finite.
    pub(super) fn loss(&self, place: usize) -> f64 {
        self.ordered.get(place).map_or(f64::NAN, |entry| value(entry.0))
    }

    /// How many losses are finite and at most `cutoff`.
    pub(super) fn at_most(&self, cutoff: f64) -> usize {
        let bound = order(cutoff).min(NOT_FINITE - 1);
        self.ordered.partition_point(|other| other.0 <= bound)
    }

    /// Trials with their losses, best first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.ordered.iter().map(|entry| (entry.1, value(entry.0)))
    }

    /// How the trial stands among the others, of which the best `kept` go on.
    pub(super) fn compare(&self, trial: u32, loss: f64, rung: usize, budget: u64, kept: usize) -> Comparison {
        let others = self.ordered.iter().map(|entry| entry.1).filter(|other| *other != trial);
        Comparison {
            rung: rung as u32,
            budget,
            loss: loss.into(),
            rank: self.place(trial, loss) as u32 + 1,
            of: self.len() as u32,
            kept: kept as u32,
            cutoff: kept.checked_sub(1).map_or(f64::NAN, |last| self.loss(last)).into(),
            peers: others.take(PEERS_LISTED_MAX).collect(),
        }
    }
}

/// What every loss that is not finite is ordered as.
const NOT_FINITE: u64 = u64::MAX;

/// A number that orders as the loss does: the bits of an IEEE number, with the sign bit turned (and the others too, if it
/// is set), are in its order.
fn order(loss: f64) -> u64 {
    if !loss.is_finite() {
        return NOT_FINITE;
    }
    // Adding zero makes one of both zeros.
    let bits = (loss + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn value(order: u64) -> f64 {
    if order == NOT_FINITE {
        return f64::NAN;
    }
    f64::from_bits(if order >> 63 == 1 { order & !(1 << 63) } else { !order })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_in_order_and_come_back() {
        let losses = [-1e300, -2.0, -1e-310, 0.0, 1e-310, 1.0, 1.0 + f64::EPSILON, 1e300, f64::NAN];
        assert!(losses.windows(2).all(|pair| order(pair[0]) < order(pair[1])));
        assert!(losses.iter().all(|loss| value(order(*loss)).total_cmp(loss).is_eq()));
        assert_eq!(order(-0.0), order(0.0));
        assert_eq!(order(f64::NEG_INFINITY), order(f64::NAN));
    }

    #[test]
    fn only_the_best_are_promotable_and_each_once() {
        let mut rung = Rung::default();
        for (trial, loss) in [(0, 3.0), (1, f64::NAN), (2, 1.0), (3, 1.0), (4, f64::NEG_INFINITY)] {
            rung.insert(trial, loss);
            rung.wait(trial, loss);
        }
        assert_eq!(rung.promotable(0), None);
        assert_eq!(rung.promotable(1), Some(2));
        rung.leave(2, 1.0);
        assert_eq!(rung.promotable(1), None);
        assert_eq!(rung.promotable(2), Some(3));
        rung.leave(3, 1.0);
        rung.leave(0, 3.0);
        assert_eq!(rung.promotable(5), None, "a loss that is not finite is never promoted");
        assert_eq!((rung.at_most(1.0), rung.at_most(f64::INFINITY)), (2, 3));
        assert_eq!(rung.compare(0, 3.0, 0, 1, 2).rank, 3);
    }
}
