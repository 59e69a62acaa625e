//! Points that fill the cube more evenly than random ones: a Sobol sequence (directions of Joe and Kuo 2008) with Owen's
//! scrambling as Burley 2020 computes it.

use super::space::{Space, TRIES_MAX};
use crate::random::{Purpose, Stream};

/// The most parameters; the sequence has so many directions.
pub const DIMENSIONS_MAX: usize = sobol_burley::NUM_DIMENSIONS as usize;

/// The length of a sequence; another one with a scrambling of its own follows it.
const SEQUENCE_LENGTH: u32 = 1 << 16;

/// Walks along the sequence, past what the constraints exclude. Results change nothing.
#[derive(Clone, Debug)]
pub struct Sobol {
    seed: u64,
    /// The trial that tries the next point that is admitted, and where to look for it.
    next: (u32, u32),
}

impl Sobol {
    /// A searcher under `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: (0, 0) }
    }

    /// The point that trial `number` tries: the one with so many admitted ones before it. Where [`TRIES_MAX`] in a row are
    /// excluded, a random one.
    ///
    /// # Panics
    /// If the space has more than [`DIMENSIONS_MAX`] parameters.
    pub fn propose(&mut self, space: &Space, number: u32) -> Vec<f64> {
        if number < self.next.0 {
            self.next = (0, 0);
        }
        loop {
            let (trial, from) = self.next;
            let mut points = (from..from.saturating_add(TRIES_MAX)).map(|index| (index, self.point(space, index)));
            let found = points.find(|(_, point)| space.admits_point(point));
            self.next = (trial + 1, found.as_ref().map_or(from + 1, |(index, _)| index + 1));
            if trial == number {
                let random = || space.sample(&mut Stream::new(self.seed, Purpose::Search, &[u64::from(number), 1]));
                return found.map_or_else(random, |(_, point)| point);
            }
        }
    }

    /// Takes note of nothing.
    pub fn observe(&mut self, _number: u32, _budget: u64, _losses: &[f64]) {}

    /// Takes note of nothing.
    pub fn close(&mut self, _number: u32) {}

    fn point(&self, space: &Space, index: u32) -> Vec<f64> {
        let (sequence, index) = (index / SEQUENCE_LENGTH, index % SEQUENCE_LENGTH);
        let scrambling = Stream::new(self.seed, Purpose::Search, &[u64::from(sequence), 2]).next_u32();
        let dimensions = 0..space.parameters().len();
        dimensions.map(|dimension| f64::from(sobol_burley::sample(index, dimension as u32, scrambling))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Constraint, Domain, Parameter};

    fn cube(dimensions: usize) -> Space {
        let parameter = |index: usize| Parameter {
            path: format!("x{index}"),
            domain: Domain::Uniform { low: 0.0, high: 1.0 },
            when: None,
        };
        Space::new((0..dimensions).map(parameter).collect())
    }

    /// What defines a (0, 1)-sequence: of 2^m points that begin at a multiple of 2^m, each of 2^m equal intervals has one.
    #[test]
    fn every_coordinate_is_stratified() {
        let space = cube(DIMENSIONS_MAX);
        let mut sobol = Sobol::new(7);
        let points: Vec<_> = (0..64).map(|number| sobol.propose(&space, number)).collect();
        for dimension in 0..DIMENSIONS_MAX {
            for block in [&points[..64], &points[..32], &points[32..], &points[8..16]] {
                let cell = |point: &Vec<f64>| (point[dimension] * block.len() as f64) as usize;
                let mut cells: Vec<usize> = block.iter().map(cell).collect();
                cells.sort_unstable();
                assert!(cells.into_iter().eq(0..block.len()), "dimension {dimension}");
            }
        }
        assert_ne!(Sobol::new(8).propose(&space, 0), points[0]);
    }

    /// Compared by the integral of a smooth function, whose value is 1.
    #[test]
    fn it_fills_the_cube_more_evenly_than_chance() {
        let space = cube(4);
        let product = |point: Vec<f64>| point.iter().map(|x| 3.0 * x * x).product::<f64>();
        let mut errors = (0.0, 0.0);
        for seed in 0..20 {
            let (mut sobol, mut random) = (Sobol::new(seed), crate::search::random::Random::new(seed));
            let mean = |sum: f64| (sum / 1024.0 - 1.0).powi(2);
            errors.0 += mean((0..1024).map(|number| product(sobol.propose(&space, number))).sum());
            errors.1 += mean((0..1024).map(|number| product(random.propose(&space, number))).sum());
        }
        assert!(errors.0 < errors.1 / 20.0, "{errors:?}");
    }

    #[test]
    fn points_are_the_same_in_any_order_and_within_the_constraints() {
        let constraints = vec![Constraint::parse("x0 < x1").unwrap()];
        let space = cube(2).constrained(constraints, Default::default());
        let mut sobol = Sobol::new(1);
        let points: Vec<_> = (0..200).map(|number| sobol.propose(&space, number)).collect();
        assert!(points.iter().all(|point| point[0] < point[1]));
        for number in [150, 3, 199, 0, 1] {
            assert_eq!(sobol.propose(&space, number), points[number as usize]);
        }
        let nothing = cube(2).constrained(vec![Constraint::parse("x0 > 1").unwrap()], Default::default());
        assert_eq!(Sobol::new(1).propose(&nothing, 2).len(), 2);
    }

    #[test]
    fn it_goes_on_after_the_end_of_a_sequence() {
        let (space, sobol) = (cube(3), Sobol::new(1));
        assert_ne!(sobol.point(&space, SEQUENCE_LENGTH), sobol.point(&space, 0));
        assert!(sobol.point(&space, u32::MAX).iter().all(|x| (0.0..1.0).contains(x)));
    }
}
