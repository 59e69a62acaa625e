//! Gradients on their way from the backward pass to the group.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use collective::{Background, CollectiveError, Reduced};
use domain::tree::Accumulator;
use models::{Gradient, GradientSink};

/// Buffers of buckets, kept from step to step.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<Vec<f32>>>);

impl Spare {
    fn take(&mut self, bucket: usize, len: usize) -> Vec<f32> {
        let kept = self.0.get_mut(bucket).and_then(Vec::pop);
        kept.filter(|buffer| buffer.len() == len).unwrap_or_else(|| vec![0.0; len])
    }

    fn keep(&mut self, bucket: usize, buffer: Vec<f32>) {
        if self.0.len() <= bucket {
            self.0.resize_with(bucket + 1, Vec::new);
        }
        self.0[bucket].push(buffer);
    }
}

/// The gradient of one step on its way: adds up this rank's micro-batches along the tree, bucket by bucket, and hands a
/// bucket to the group as soon as the last micro-batch has completed it, while the backward pass goes on.
pub(crate) struct Reduction<'a> {
    group: &'a mut Background,
    spare: &'a mut Spare,
    micro_batches: u32,
    owned: Range<u32>,
    micro_batch: u32,
    sums: Vec<Option<Accumulator<Vec<f32>>>>,
    /// The buckets that the group is reducing, from the oldest on.
    begun: VecDeque<usize>,
    failed: Result<(), CollectiveError>,
}

impl<'a> Reduction<'a> {
    /// For a step of `micro_batches`, of which this rank makes `owned`, at least one.
    pub(crate) fn new(
        group: &'a mut Background,
        spare: &'a mut Spare,
        micro_batches: u32,
        owned: Range<u32>,
        buckets: usize,
    ) -> Self {
        let fresh = || Some(Accumulator::new(micro_batches, owned.clone()));
        let sums = (0..buckets).map(|_| fresh()).collect();
        let (micro_batch, begun) = (owned.start, VecDeque::new());
        Self { group, spare, micro_batches, owned, micro_batch, sums, begun, failed: Ok(()) }
    }

    /// What comes next is the gradient of this micro-batch. They come in ascending order.
    pub(crate) fn next(&mut self, micro_batch: u32) {
        self.micro_batch = micro_batch;
    }

    /// Waits until the group has reduced all buckets, and puts them into `gradient`. Tells `reduced` of each, and when the
    /// group worked on it.
    pub(crate) fn finish(
        self,
        gradient: &mut Gradient,
        mut reduced: impl FnMut(usize, Range<Instant>),
    ) -> Result<(), CollectiveError> {
        self.failed?;
        for bucket in self.begun {
            let (Reduced { sum, spare }, took) = self.group.finish_timed()?;
            reduced(bucket, took);
            self.spare.keep(bucket, gradient.buffer(bucket, sum.len()));
            spare.into_iter().for_each(|buffer| self.spare.keep(bucket, buffer));
            gradient.complete(bucket, sum);
        }
        Ok(())
    }
}

impl GradientSink for Reduction<'_> {
    fn buffer(&mut self, bucket: usize, len: usize) -> Vec<f32> {
        self.spare.take(bucket, len)
    }

    fn complete(&mut self, bucket: usize, values: Vec<f32>) {
        let sums = self.sums[bucket].as_mut().expect("a bucket is complete once a micro-batch");
        sums.push(self.micro_batch, values, |left, right| {
            models::add_into(left, &right);
            self.spare.keep(bucket, right);
        });
        if self.micro_batch + 1 < self.owned.end {
            return;
        }
        let parts = self.sums[bucket].take().expect("it was just there").finish();
        self.begun.push_back(bucket);
        if self.failed.is_err() {
            return;
        }
        self.failed = if self.begun.len() < self.sums.len() {
            self.group.reduce(self.micro_batches, parts)
        } else {
            self.group.reduce_last(self.micro_batches, parts)
        };
    }
}
