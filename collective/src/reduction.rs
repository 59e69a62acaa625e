//! The exact reduction, without any transport: who owns which elements, and in which order partial sums are added.

use std::ops::Range;

use domain::batch::split;
use domain::tree::{combine, split_point};

use crate::{CollectiveError, MAX_PARTS};

/// The elements that `rank` finishes the sum of.
pub(crate) fn owned_elements(elements: usize, rank: u32, world: u32) -> Range<usize> {
    let owned = split(elements as u64, rank, world);
    owned.start as usize..owned.end as usize
}

/// Checks what one rank brings to a reduction of `elements` elements.
pub(crate) fn check_parts(
    leaves: u32,
    parts: &[(Range<u32>, Vec<f32>)],
    elements: usize,
) -> Result<(), CollectiveError> {
    if parts.len() > MAX_PARTS {
        return Err(CollectiveError::invalid(format!("{} parts, at most {MAX_PARTS} are possible", parts.len())));
    }
    if let Some((range, values)) = parts.iter().find(|(_, values)| values.len() != elements) {
        let detail = format!("the sum of leaves {range:?} has {} elements, expected {elements}", values.len());
        return Err(CollectiveError::invalid(detail));
    }
    match parts.iter().find(|(range, _)| !is_node(leaves, range)) {
        Some((range, _)) => {
            Err(CollectiveError::invalid(format!("leaves {range:?} are no subtree of the tree over {leaves} leaves")))
        }
        None => Ok(()),
    }
}

/// Whether `range` is a node of the tree over `leaves`.
fn is_node(leaves: u32, range: &Range<u32>) -> bool {
    let mut node = 0..leaves;
    while node != *range {
        let Some(middle) = split_point(&node) else { return false };
        node = if range.start < middle { node.start..middle } else { middle..node.end };
    }
    !node.is_empty()
}

/// A partial sum of the elements from `first` on.
#[derive(Debug)]
pub(crate) struct Operand {
    pub(crate) first: usize,
    pub(crate) values: Vec<f32>,
}

impl Operand {
    /// The values of `elements`, which are counted from the start of the whole vector.
    pub(crate) fn slice(&self, elements: &Range<usize>) -> &[f32] {
        &self.values[elements.start - self.first..elements.end - self.first]
    }

    /// As [`slice`](Self::slice), to write to.
    pub(crate) fn slice_mut(&mut self, elements: &Range<usize>) -> &mut [f32] {
        &mut self.values[elements.start - self.first..elements.end - self.first]
    }
}

/// The additions that make one sum of all ranks' parts, in tree order.
#[derive(Debug)]
pub(crate) struct Plan {
    /// For each rank the positions of its parts among all parts from left to right.
    positions: Vec<Vec<usize>>,
    /// `(left, right)`: right is added to left.
    additions: Vec<(usize, usize)>,
    root: usize,
}

impl Plan {
    /// Takes the ranges of every rank's parts; says what is wrong if they do not tile the tree.
    pub(crate) fn new(leaves: u32, ranges: &[Vec<Range<u32>>]) -> Result<Self, String> {
        let mut parts: Vec<(Range<u32>, usize)> = Vec::new();
        for (rank, ranges) in ranges.iter().enumerate() {
            parts.extend(ranges.iter().map(|range| (range.clone(), rank)));
        }
        parts.sort_by_key(|(range, rank)| (range.start, *rank));
        let mut covered = 0;
        for (range, rank) in &parts {
            if !is_node(leaves, range) {
                return Err(format!("leaves {range:?} of rank {rank} are no subtree of the tree over {leaves} leaves"));
            }
            if range.start != covered {
                return Err(format!("leaves {range:?} of rank {rank} follow leaf {covered}"));
            }
            covered = range.end;
        }
        if leaves == 0 || covered != leaves {
            return Err(format!("the parts hold {covered} of {leaves} leaves"));
        }
        let mut positions = vec![Vec::new(); ranges.len()];
        for (position, (_, rank)) in parts.iter().enumerate() {
            positions[*rank].push(position);
        }
        let mut additions = Vec::with_capacity(parts.len() - 1);
        let numbered = parts.into_iter().enumerate().map(|(position, (range, _))| (range, position)).collect();
        let root = combine(leaves, numbered, |left, right| additions.push((*left, right)));
        Ok(Self { positions, additions, root })
    }

    /// The positions of the parts of `rank`, from left to right.
    pub(crate) fn positions(&self, rank: u32) -> &[usize] {
        &self.positions[rank as usize]
    }

    /// Adds up `elements` of the operands, which are in the order of their positions, and returns the sum.
    pub(crate) fn reduce<'a>(&self, operands: &'a mut [Operand], elements: &Range<usize>) -> &'a [f32] {
        for &(left, right) in &self.additions {
            let [left, right] = operands.get_disjoint_mut([left, right]).expect("two nodes of a tree are two operands");
            for (sum, value) in left.slice_mut(elements).iter_mut().zip(right.slice(elements)) {
                *sum += value;
            }
        }
        operands[self.root].slice(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a rank may have a single part")]
    fn parts_that_do_not_tile_the_tree_are_named() {
        let check = |leaves: u32, ranges: &[&[Range<u32>]], expected: Option<&str>| {
            let ranges: Vec<_> = ranges.iter().map(|ranges| ranges.to_vec()).collect();
            assert_eq!(Plan::new(leaves, &ranges).err().as_deref(), expected);
        };
        check(4, &[&[0..2], &[2..4]], None);
        check(3, &[&[0..1], &[1..2, 2..3]], None);
        check(2, &[&[], &[0..2]], None);
        check(0, &[&[]], Some("the parts hold 0 of 0 leaves"));
        check(4, &[&[0..2], &[]], Some("the parts hold 2 of 4 leaves"));
        check(4, &[&[0..2], &[0..2]], Some("leaves 0..2 of rank 1 follow leaf 2"));
        check(4, &[&[0..1], &[2..4]], Some("leaves 2..4 of rank 1 follow leaf 1"));
        check(4, &[&[0..1], &[1..3]], Some("leaves 1..3 of rank 1 are no subtree of the tree over 4 leaves"));
        check(4, &[&[0..2], &[2..9]], Some("leaves 2..9 of rank 1 are no subtree of the tree over 4 leaves"));
        let backwards = Range { start: 3, end: 1 };
        check(4, &[&[backwards]], Some("leaves 3..1 of rank 0 are no subtree of the tree over 4 leaves"));
    }
}
