//! A collective that does its reductions in the background, in buckets of uneven sizes.

use std::ops::Range;

use collective::{AbortHandle, Background, Collective, CollectiveError, Reduced};
use domain::batch::split;

/// Behaves as the collective that it is given, so that the contract can be checked on it.
pub(crate) struct Buckets {
    background: Background,
    buckets: usize,
}

impl Buckets {
    pub(crate) fn new(collective: Box<dyn Collective>, buckets: usize) -> Self {
        Self { background: Background::start(collective).unwrap(), buckets }
    }

    /// Cuts at the thirds of the triangle, as it were: each bucket is longer than the one before it.
    fn bucket(&self, index: usize, elements: usize) -> Range<usize> {
        let shares = (self.buckets * (self.buckets + 1) / 2) as u32;
        let cut = |index: usize| match (index * (index + 1) / 2) as u32 {
            0 => 0,
            share => split(elements as u64, share - 1, shares).end as usize,
        };
        cut(index)..cut(index + 1)
    }
}

impl Collective for Buckets {
    fn rank(&self) -> u32 {
        self.background.rank()
    }

    fn world(&self) -> u32 {
        self.background.world()
    }

    fn all_reduce(
        &mut self,
        leaves: u32,
        elements: usize,
        parts: Vec<(Range<u32>, Vec<f32>)>,
    ) -> Result<Reduced, CollectiveError> {
        // What has no buckets, or none of one length, goes in whole.
        let buckets = if parts.iter().all(|(_, values)| values.len() == elements) { self.buckets } else { 1 };
        if buckets == 1 {
            self.background.reduce_last(leaves, parts)?;
            return self.background.finish();
        }
        for index in 0..buckets {
            let bucket = self.bucket(index, elements);
            let piece = |(range, values): &(Range<u32>, Vec<f32>)| (range.clone(), values[bucket.clone()].to_vec());
            let parts = parts.iter().map(piece).collect();
            if index + 1 < buckets {
                self.background.reduce(leaves, parts)?;
            } else {
                self.background.reduce_last(leaves, parts)?;
            }
        }
        let mut whole = Reduced::default();
        for index in 0..buckets {
            let Reduced { sum, spare } = self.background.finish()?;
            assert_eq!(sum.len(), self.bucket(index, elements).len());
            assert!(spare.iter().all(|spare| spare.len() == sum.len()));
            whole.sum.extend(sum);
        }
        Ok(whole)
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.background.all_gather(mine)
    }

    fn abort_handle(&self) -> AbortHandle {
        self.background.abort_handle()
    }
}
