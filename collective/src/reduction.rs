//! The exact reduction, without any transport: who owns which elements, and in which order partial sums are added.

use std::ops::Range;

use domain::batch::split;
use domain::tree::{combine, split_point};

use crate::copy::{copy, fetch_after};

/// The elements that `rank` finishes the sum of.
pub(crate) fn owned_elements(elements: usize, rank: u32, world: u32) -> Range<usize> {
    let owned = split(elements as u64, rank, world);
    owned.start as usize..owned.end as usize
}

/// Whether `range` is a node of the tree over `leaves`.
pub(crate) fn is_node(leaves: u32, range: &Range<u32>) -> bool {
    let mut node = 0..leaves;
    while node != *range {
        let Some(middle) = split_point(&node) else { return false };
        node = if range.start < middle { node.start..middle } else { middle..node.end };
    }
    !node.is_empty()
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

    /// How many parts there are.
    pub(crate) fn parts(&self) -> usize {
        self.additions.len() + 1
    }

    /// Most parts of one rank.
    pub(crate) fn most_parts(&self) -> usize {
        self.positions.iter().map(Vec::len).max().unwrap_or_default()
    }

    /// The additions with places for all values. The sum is made in the buffer of the part at `in_place`, if any.
    pub(crate) fn program(&self, in_place: Option<usize>) -> Program {
        let place = |position| if Some(position) == in_place { Place::Sum } else { Place::Source(position) };
        let mut places: Vec<Place> = (0..self.parts()).map(place).collect();
        let (mut steps, mut scratch) = (Vec::with_capacity(self.additions.len()), 0);
        for &(left, right) in &self.additions {
            // Addition commutes, so either of two values may take the other up; the tree says only which two.
            let (to, from) = match (places[left], places[right]) {
                (from, Place::Sum) => (Place::Sum, from),
                (from @ Place::Source(_), to @ Place::Scratch(_)) => (to, from),
                (a @ Place::Source(_), b @ Place::Source(_)) => {
                    let to = Place::Scratch(scratch);
                    scratch += 1;
                    steps.push(Step::Copy { to, from: a });
                    (to, b)
                }
                (to, from) => (to, from),
            };
            steps.push(Step::Add { to, from });
            places[left] = to;
        }
        if places[self.root] != Place::Sum {
            steps.push(Step::Copy { to: Place::Sum, from: places[self.root] });
        }
        Program { whole: Whole::of(&steps), steps, scratch: vec![[0.0; BLOCK]; scratch] }
    }
}

/// Elements that are added up at a time: all operands of a block and what lies between stay in the first-level cache.
const BLOCK: usize = 1024;

/// Where a value of a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where the whole sum ends up.
    Sum,
    /// The part at this position, which is only read.
    Source(usize),
    Scratch(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add { to: Place, from: Place },
    Copy { to: Place, from: Place },
}

/// A program that needs no place between its parts and the sum, by the positions of the parts: that of groups of two and
/// of four in which every rank brings one.
#[derive(Clone, Copy, Debug)]
enum Whole {
    /// The sum and one part.
    Two(usize),
    /// (The sum and the first part) and (the second and the third part).
    Four(usize, usize, usize),
}

impl Whole {
    fn of(steps: &[Step]) -> Option<Self> {
        use Place::{Scratch, Source, Sum};
        use Step::{Add, Copy};
        match *steps {
            [Add { to: Sum, from: Source(a) }] => Some(Self::Two(a)),
            [
                Add { to: Sum, from: Source(a) },
                Copy { from: Source(b), .. },
                Add { to: Scratch(_), from: Source(c) },
                Add { to: Sum, from: Scratch(_) },
            ]
            | [
                Copy { from: Source(b), .. },
                Add { to: Scratch(_), from: Source(c) },
                Add { to: Sum, from: Source(a) },
                Add { to: Sum, from: Scratch(_) },
            ] => Some(Self::Four(a, b, c)),
            _ => None,
        }
    }

    /// Adds up a block. Every value is read once and every sum written from the register that it was made in.
    fn run(self, sum: &mut [f32], sources: &[&[f32]], twin: Option<&mut [f32]>) {
        match (self, twin) {
            (Self::Two(a), None) => sum.iter_mut().zip(sources[a]).for_each(|(sum, a)| *sum += a),
            (Self::Two(a), Some(twin)) => {
                for ((sum, a), twin) in sum.iter_mut().zip(sources[a]).zip(twin) {
                    *sum += a;
                    *twin = *sum;
                }
            }
            (Self::Four(a, b, c), None) => {
                for (((sum, a), b), c) in sum.iter_mut().zip(sources[a]).zip(sources[b]).zip(sources[c]) {
                    *sum = (*sum + a) + (b + c);
                }
            }
            (Self::Four(a, b, c), Some(twin)) => {
                for ((((sum, a), b), c), twin) in
                    sum.iter_mut().zip(sources[a]).zip(sources[b]).zip(sources[c]).zip(twin)
                {
                    *sum = (*sum + a) + (b + c);
                    *twin = *sum;
                }
            }
        }
    }
}

/// A [`Plan`] with a place for every value in between.
#[derive(Debug)]
pub(crate) struct Program {
    whole: Option<Whole>,
    steps: Vec<Step>,
    scratch: Vec<[f32; BLOCK]>,
}

impl Program {
    /// Adds up one range of elements. `sum` gets the sum, and holds the part that is added in place, if any;
    /// `sources[position]` are the other parts, as long as `sum`. The sum goes to `twin` too.
    pub(crate) fn run(&mut self, sum: &mut [f32], sources: &[&[f32]], mut twin: Option<&mut [f32]>) {
        for start in (0..sum.len()).step_by(BLOCK) {
            let block = start..sum.len().min(start + BLOCK);
            let length = block.len();
            let sum = &mut sum[block.clone()];
            let twin = twin.as_deref_mut().map(|twin| &mut twin[block.clone()]);
            fetch_after(sum);
            if let Some(whole) = self.whole {
                let mut blocks: [&[f32]; 4] = [&[]; 4];
                for (to, from) in blocks.iter_mut().zip(sources) {
                    *to = from.get(block.clone()).unwrap_or_default();
                }
                whole.run(sum, &blocks, twin);
                continue;
            }
            for step in &self.steps {
                let (Step::Add { to, from } | Step::Copy { to, from }) = *step;
                let (to, from): (&mut [f32], &[f32]) = match (to, from) {
                    (Place::Sum, Place::Source(from)) => (sum, &sources[from][block.clone()]),
                    (Place::Sum, Place::Scratch(from)) => (sum, &self.scratch[from][..length]),
                    (Place::Scratch(to), Place::Source(from)) => {
                        (&mut self.scratch[to][..length], &sources[from][block.clone()])
                    }
                    (Place::Scratch(to), Place::Scratch(from)) => {
                        let two = self.scratch.get_disjoint_mut([to, from]).expect("two values have two places");
                        let [to, from] = two;
                        (&mut to[..length], &from[..length])
                    }
                    (Place::Source(_), _) | (_, Place::Sum) => unreachable!("no part is written, no sum moved"),
                };
                match step {
                    Step::Add { .. } => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                    Step::Copy { .. } => copy(to, from),
                }
            }
            if let Some(twin) = twin {
                copy(twin, sum);
            }
        }
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
