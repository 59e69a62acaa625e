//! How children come to differ from their parents, on the unit cube.

use crate::random::Stream;
use crate::search::space::Choice;

/// The greatest coordinate.
const LAST: f64 = 1.0 - f64::EPSILON;

/// Crossover and mutation of coordinates of these kinds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variation<'a> {
    /// The kinds.
    pub(crate) choices: &'a [Choice],
    /// The probability that a coordinate is changed.
    pub(crate) mutation_probability: f64,
    /// The distribution index of the crossover.
    pub(crate) crossover_index: f64,
    /// The distribution index of the mutation.
    pub(crate) mutation_index: f64,
}

impl Variation<'_> {
    /// One of the two children of a pair: every coordinate is mixed or that of a parent, with even chances. `active` tells
    /// which coordinates exist in each; one that exists in but one of them comes from there.
    pub(crate) fn mixed(&self, points: [&[f64]; 2], active: [&[bool]; 2], stream: &mut Stream) -> Vec<f64> {
        let mut child = Vec::with_capacity(self.choices.len());
        for (index, choice) in self.choices.iter().enumerate() {
            let (a, b) = (points[0][index], points[1][index]);
            // The same numbers are drawn for every coordinate, whatever becomes of them.
            let (is_mixed, is_swapped, u) =
                (stream.uniform_f64() < 0.5, stream.uniform_f64() < 0.5, stream.uniform_f64());
            child.push(match (choice, active[0][index], active[1][index]) {
                (_, true, false) => a,
                (_, false, true) => b,
                (Choice::Continuous | Choice::Ordered(_), _, _) if is_mixed => {
                    let (low, high) = simulated_binary(a, b, u, self.crossover_index);
                    if is_swapped { high } else { low }
                }
                (Choice::Unordered(_), _, _) if is_swapped => b,
                _ => a,
            });
        }
        child
    }

    /// The point with some coordinates changed.
    pub(crate) fn mutated(&self, mut point: Vec<f64>, stream: &mut Stream) -> Vec<f64> {
        for (x, choice) in point.iter_mut().zip(self.choices) {
            let (is_changed, u) = (stream.uniform_f64() < self.mutation_probability, stream.uniform_f64());
            if is_changed {
                *x = match choice {
                    Choice::Fixed => *x,
                    Choice::Unordered(_) => u,
                    Choice::Continuous => polynomial(*x, u, self.mutation_index),
                    Choice::Ordered(cells) => stepped(*x, polynomial(*x, u, self.mutation_index), u < 0.5, *cells),
                };
            }
        }
        point
    }
}

/// Both children of two coordinates, the lower one first, by simulated binary crossover within `[0, 1)` (Deb and Agrawal
/// 1995; the bounds as in Deb's own program). `u` in `[0, 1)` says how far they spread.
pub(crate) fn simulated_binary(a: f64, b: f64, u: f64, index: f64) -> (f64, f64) {
    let (low, high) = (a.min(b), a.max(b));
    let distance = high - low;
    if distance < 1e-14 {
        return (low, high);
    }
    let spread = |room: f64| {
        let alpha = 2.0 - libm::pow(1.0 + 2.0 * room / distance, -(index + 1.0));
        let base = if u <= 1.0 / alpha { u * alpha } else { 1.0 / (2.0 - u * alpha) };
        libm::pow(base, 1.0 / (index + 1.0))
    };
    let middle = 0.5 * (low + high);
    let child = |side: f64, room: f64| (middle + side * 0.5 * spread(room) * distance).clamp(0.0, LAST);
    (child(-1.0, low), child(1.0, 1.0 - high))
}

/// A neighbour of a coordinate by polynomial mutation within `[0, 1)` (Deb and Goyal 1996; the bounds as in Deb's own
/// program). `u` in `[0, 1)` below one half goes down.
pub(crate) fn polynomial(x: f64, u: f64, index: f64) -> f64 {
    let power = 1.0 / (index + 1.0);
    let delta = if u < 0.5 {
        let base = 2.0 * u + (1.0 - 2.0 * u) * libm::pow(1.0 - x, index + 1.0);
        libm::pow(base, power) - 1.0
    } else {
        let base = 2.0 * (1.0 - u) + 2.0 * (u - 0.5) * libm::pow(x, index + 1.0);
        1.0 - libm::pow(base, power)
    };
    (x + delta).clamp(0.0, LAST)
}

/// The middle of the cell of `to`, or of a neighbour of that of `from` if it is the same: a change that means the same
/// would be none. At the ends there is but one neighbour.
fn stepped(from: f64, to: f64, is_down: bool, cells: u64) -> f64 {
    let cell = |x: f64| ((x * cells as f64) as u64).min(cells.saturating_sub(1));
    let (old, new) = (cell(from), cell(to));
    let last = cells.saturating_sub(1);
    let chosen = match (new == old, is_down) {
        (false, _) => new,
        (true, _) if last == 0 => old,
        (true, true) if old > 0 => old - 1,
        (true, true) => 1,
        (true, false) if old < last => old + 1,
        (true, false) => last - 1,
    };
    (chosen as f64 + 0.5) / cells as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn children_are_around_their_parents_and_in_the_cube() {
        let mut stream = Stream::new(1, Purpose::Search, &[]);
        let mut mean = 0.0;
        for _ in 0..2000 {
            let (a, b, u) = (stream.uniform_f64(), stream.uniform_f64(), stream.uniform_f64());
            let (low, high) = simulated_binary(a, b, u, 15.0);
            assert!((0.0..1.0).contains(&low) && (0.0..1.0).contains(&high) && low <= high);
            let (low, high) = simulated_binary(0.4, 0.6, u, 15.0);
            assert!((low + high - 1.0).abs() < 1e-12, "children lie evenly around the middle");
            mean += (high - low) / 2000.0;
            let x = polynomial(a, u, 20.0);
            assert!((0.0..1.0).contains(&x) && (x <= a) == (u < 0.5 || x == a), "{a} {u} {x}");
        }
        assert!((mean - 0.2).abs() < 0.01, "children are as far apart as their parents: {mean}");
        assert_eq!(simulated_binary(0.3, 0.3, 0.9, 15.0), (0.3, 0.3));
        assert_eq!(polynomial(0.3, 0.5, 20.0), 0.3);
    }

    #[test]
    fn a_change_is_another_cell() {
        for cells in 1..5u64 {
            for old in 0..cells {
                let from = (old as f64 + 0.5) / cells as f64;
                for (to, is_down) in [(from, true), (from, false), (0.0, true), (LAST, false)] {
                    let changed = stepped(from, to, is_down, cells);
                    assert!((0.0..1.0).contains(&changed));
                    assert_eq!(((changed * cells as f64) as u64) == old, cells == 1, "{old} of {cells} to {to}");
                }
            }
        }
    }

    #[test]
    fn what_exists_in_one_parent_alone_comes_from_there() {
        let choices = [Choice::Continuous, Choice::Unordered(3), Choice::Ordered(4), Choice::Fixed];
        let variation =
            Variation { choices: &choices, mutation_probability: 0.0, crossover_index: 15.0, mutation_index: 20.0 };
        let (one, other) = ([0.1, 0.1, 0.1, 0.5], [0.9, 0.9, 0.9, 0.5]);
        let mut stream = Stream::new(1, Purpose::Search, &[]);
        let mut kinds = [0; 2];
        for _ in 0..200 {
            let active = [&[true, true, false, true][..], &[false, true, true, true][..]];
            let child = variation.mixed([&one, &other], active, &mut stream);
            assert_eq!((child[0], child[2], child[3]), (0.1, 0.9, 0.5));
            kinds[usize::from(child[1] == 0.9)] += 1;
            assert_eq!(variation.mutated(child.clone(), &mut stream), child);
        }
        assert!(kinds.iter().all(|n| (70..130).contains(n)), "{kinds:?}");
    }
}
