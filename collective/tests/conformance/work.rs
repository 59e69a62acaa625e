//! What members do: the values they reduce, and the sums that must come out.

use std::ops::Range;

use collective::{Collective, CollectiveError};
use domain::batch::split;
use domain::tree::Accumulator;

/// A reduction whose sum is wanted in a place of its own.
pub(crate) trait Exact {
    fn all_reduce_exact(
        &mut self,
        leaves: u32,
        parts: Vec<(Range<u32>, Vec<f32>)>,
        sum: &mut [f32],
    ) -> Result<(), CollectiveError>;
}

impl<C: Collective + ?Sized> Exact for C {
    fn all_reduce_exact(
        &mut self,
        leaves: u32,
        parts: Vec<(Range<u32>, Vec<f32>)>,
        sum: &mut [f32],
    ) -> Result<(), CollectiveError> {
        sum.copy_from_slice(&self.all_reduce(leaves, sum.len(), parts)?.sum);
        Ok(())
    }
}

/// Values whose sum depends on the order of additions, among them ones that cancel and overflow.
pub(crate) fn leaf_values(leaf: u32, elements: usize) -> Vec<f32> {
    let value = |index: usize| {
        let mut bits = (index as u64 ^ (u64::from(leaf) << 32)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits ^= bits >> 32;
        match bits % 64 {
            0 => 0.0,
            1 => -0.0,
            2 => 3.0e38,
            3 => 1.0e-40,
            _ => ((bits >> 8) as u32 as f32 / 2.0f32.powi(31) - 1.0) * 10.0f32.powi((bits % 9) as i32 - 4),
        }
    };
    (0..elements).map(value).collect()
}

/// A rank's part of the work, as the worker does it.
pub(crate) fn parts(leaves: u32, owned: Range<u32>, elements: usize) -> Vec<(Range<u32>, Vec<f32>)> {
    let mut sum = Accumulator::new(leaves, owned.clone());
    for leaf in owned {
        sum.push(leaf, leaf_values(leaf, elements), |left, right| {
            left.iter_mut().zip(right).for_each(|(l, r)| *l += r);
        });
    }
    sum.finish()
}

pub(crate) fn tree_sum(leaves: u32, elements: usize) -> Vec<f32> {
    parts(leaves, 0..leaves, elements).pop().unwrap().1
}

/// The even split of the leaves.
pub(crate) fn owned_leaves(leaves: u32, rank: u32, world: u32) -> Range<u32> {
    let owned = split(u64::from(leaves), rank, world);
    owned.start as u32..owned.end as u32
}

/// A reduction in which every rank does its even share.
pub(crate) fn reduce(
    member: &mut (impl Collective + ?Sized),
    leaves: u32,
    elements: usize,
) -> Result<Vec<f32>, CollectiveError> {
    let owned = owned_leaves(leaves, member.rank(), member.world());
    let mut sum = vec![f32::NAN; elements];
    member.all_reduce_exact(leaves, parts(leaves, owned, elements), &mut sum)?;
    Ok(sum)
}

pub(crate) fn assert_same_bits(sums: &[Vec<f32>], expected: &[f32], case: &str) {
    for sum in sums {
        assert_eq!(sum.len(), expected.len(), "{case}");
        let different = sum.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(different, None, "{case}: first different element");
    }
}

/// Something that a member does.
pub(crate) type Call = fn(&mut dyn Collective) -> Result<(), CollectiveError>;

/// The operations that can wait for a peer.
pub(crate) const OPERATIONS: [(&str, Call); 3] = [
    ("small gather", |member| member.all_gather(b"here").map(drop)),
    ("large gather", |member| member.all_gather(&vec![1; 1 << 20]).map(drop)),
    ("reduction", |member| reduce(member, 4, 100_000).map(drop)),
];
