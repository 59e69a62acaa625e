//! Generations for searchers that learn from many trials at once, while others are pending.
//!
//! A searcher may be asked at any time, so nobody waits for a generation to end: a proposal is made from the newest
//! complete one. Trials count in the order in which they come to rest, each once, whichever generation they were proposed
//! by; whenever so many have that none was counted yet, they are one generation. So with a single trial at a time
//! generations are those of the textbook, with many at a time none is lost, and what is proposed depends on the recorded
//! order of rests alone.

use std::collections::BTreeSet;

/// Trials that came to rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rested {
    known: BTreeSet<u32>,
    waiting: Vec<u32>,
}

impl Rested {
    /// A trial ended or paused. One that did so before changes nothing.
    pub(crate) fn add(&mut self, id: u32) {
        if self.known.insert(id) {
            self.waiting.push(id);
        }
    }

    /// The next generation of `size` trials, in the order in which they came to rest, if there are so many.
    pub(crate) fn take(&mut self, size: usize) -> Option<Vec<u32>> {
        (self.waiting.len() >= size.max(1)).then(|| self.waiting.drain(..size.max(1)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_counts_once_and_in_the_order_of_rests() {
        let mut rested = Rested::default();
        for id in [4, 0, 4, 7] {
            rested.add(id);
        }
        assert_eq!(rested.take(4), None);
        assert_eq!(rested.take(2), Some(vec![4, 0]));
        rested.add(0);
        rested.add(1);
        assert_eq!(rested.take(2), Some(vec![7, 1]));
        assert_eq!(rested.take(0), None);
    }
}
