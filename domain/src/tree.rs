//! The one order in which the gradients of a step are added: a binary tree over the micro-batches.
//!
//! A node over `[lo, hi)` splits at `lo` plus the largest power of two below its size. The shape depends on the number
//! of micro-batches alone, so the sum has the same bits however the leaves are dealt to workers.

use std::ops::Range;

/// Where the node over `range` splits; `None` for a leaf.
pub fn split_point(range: &Range<u32>) -> Option<u32> {
    let size = range.end - range.start;
    (size > 1).then(|| range.start + (1 << (u32::BITS - 1 - (size - 1).leading_zeros())))
}

/// The largest whole subtrees inside `owned`, left to right: what a worker that computed these leaves adds up alone.
pub fn subtrees(leaves: u32, owned: &Range<u32>) -> Vec<Range<u32>> {
    let mut found = Vec::new();
    collect(0..leaves, owned, &mut found);
    found
}

fn collect(node: Range<u32>, owned: &Range<u32>, found: &mut Vec<Range<u32>>) {
    if node.is_empty() || node.end <= owned.start || owned.end <= node.start {
        return;
    }
    if owned.start <= node.start && node.end <= owned.end {
        found.push(node);
        return;
    }
    let middle = split_point(&node).expect("a leaf lies wholly inside or outside of a range");
    collect(node.start..middle, owned, found);
    collect(middle..node.end, owned, found);
}

/// Adds values up in tree order as leaves are finished one after another, holding at most one value per level.
#[derive(Debug)]
pub struct Accumulator<T> {
    subtrees: Vec<Range<u32>>,
    held: Vec<(Range<u32>, T)>,
}

impl<T> Accumulator<T> {
    /// For a worker that computes the leaves `owned` of `leaves`, in ascending order.
    pub fn new(leaves: u32, owned: Range<u32>) -> Self {
        Self { subtrees: subtrees(leaves, &owned), held: Vec::new() }
    }

    /// Takes the value of the next leaf; `add(left, right)` must put the sum into `left`.
    pub fn push(&mut self, leaf: u32, value: T, mut add: impl FnMut(&mut T, T)) {
        self.held.push((leaf..leaf + 1, value));
        while let [.., (left, _), (right, _)] = self.held.as_slice() {
            if !self.are_siblings(left, right) {
                break;
            }
            let (right, value) = self.held.pop().expect("two are held");
            let (left, sum) = self.held.last_mut().expect("two were held");
            add(sum, value);
            left.end = right.end;
        }
    }

    /// The sums of the owned subtrees, left to right, once every owned leaf was pushed.
    ///
    /// # Panics
    /// If a leaf is missing.
    pub fn finish(self) -> Vec<(Range<u32>, T)> {
        let complete = self.held.iter().map(|(range, _)| range).eq(self.subtrees.iter());
        assert!(complete, "every owned leaf must be pushed once, in ascending order");
        self.held
    }

    fn are_siblings(&self, left: &Range<u32>, right: &Range<u32>) -> bool {
        let mut node = match self.subtrees.iter().find(|s| s.start <= left.start && right.end <= s.end) {
            Some(subtree) => subtree.clone(),
            None => return false,
        };
        while let Some(middle) = split_point(&node) {
            if node == (left.start..right.end) {
                return middle == left.end;
            }
            node = if right.end <= middle { node.start..middle } else { middle..node.end };
            if !(node.start <= left.start && right.end <= node.end) {
                return false;
            }
        }
        false
    }
}

/// Finishes the tree over all `leaves` from the subtree sums of all workers, given left to right.
///
/// # Panics
/// If the subtrees do not tile `0..leaves` along the tree.
pub fn combine<T>(leaves: u32, parts: Vec<(Range<u32>, T)>, mut add: impl FnMut(&mut T, T)) -> T {
    let mut parts = parts.into_iter().peekable();
    let sum = combine_node(0..leaves, &mut parts, &mut add);
    assert!(parts.next().is_none(), "more subtrees than the tree holds");
    sum
}

fn combine_node<T>(
    node: Range<u32>,
    parts: &mut std::iter::Peekable<impl Iterator<Item = (Range<u32>, T)>>,
    add: &mut impl FnMut(&mut T, T),
) -> T {
    let next = parts.peek().expect("a subtree is missing");
    if next.0 == node {
        return parts.next().expect("just seen").1;
    }
    let middle = split_point(&node).expect("subtrees must tile the tree");
    let mut left = combine_node(node.start..middle, parts, add);
    let right = combine_node(middle..node.end, parts, add);
    add(&mut left, right);
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::split;
    use proptest::prelude::*;

    /// Writes the order of additions down as text, so that two orders can be compared.
    fn bracket(left: &mut String, right: String) {
        *left = format!("({left}+{right})");
    }

    fn by_workers(leaves: u32, world: u32) -> String {
        let mut parts = Vec::new();
        for rank in 0..world {
            let owned = split(u64::from(leaves), rank, world);
            let owned = owned.start as u32..owned.end as u32;
            let mut sum = Accumulator::new(leaves, owned.clone());
            for leaf in owned {
                sum.push(leaf, leaf.to_string(), bracket);
            }
            parts.extend(sum.finish());
        }
        combine(leaves, parts, bracket)
    }

    #[test]
    fn the_shape_is_the_textbook_one() {
        assert_eq!(by_workers(4, 1), "((0+1)+(2+3))");
        assert_eq!(by_workers(6, 1), "(((0+1)+(2+3))+(4+5))");
        assert_eq!(by_workers(1, 1), "0");
    }

    #[test]
    fn a_power_of_two_of_workers_sends_one_sum_each() {
        for world in [1, 2, 4, 8] {
            for rank in 0..world {
                let owned = split(8, rank, world);
                assert_eq!(subtrees(8, &(owned.start as u32..owned.end as u32)).len(), 1);
            }
        }
    }

    proptest! {
        #[test]
        fn the_order_does_not_depend_on_the_workers(leaves in 1u32..40, world in 1u32..40) {
            prop_assume!(world <= leaves);
            prop_assert_eq!(by_workers(leaves, world), by_workers(leaves, 1));
        }
    }
}
