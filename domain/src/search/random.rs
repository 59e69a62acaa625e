//! Points drawn independently and uniformly (Bergstra and Bengio 2012): the yardstick of every other searcher.

use super::space::Space;
use crate::random::{Purpose, Stream};

/// Draws every point anew from those that the constraints admit. Results change nothing.
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// A searcher under `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The point that trial `number` tries.
    pub fn propose(&mut self, space: &Space, number: u32) -> Vec<f64> {
        space.sample(&mut Stream::new(self.seed, Purpose::Search, &[u64::from(number), 0]))
    }

    /// Takes note of nothing.
    pub fn observe(&mut self, _number: u32, _budget: u64, _losses: &[f64]) {}

    /// Takes note of nothing.
    pub fn close(&mut self, _number: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Domain, Parameter};

    #[test]
    fn a_point_depends_on_seed_and_number_alone() {
        let domain = Domain::Uniform { low: 0.0, high: 1.0 };
        let space = Space::new(vec![Parameter { path: "x".to_owned(), domain, when: None }]);
        let (mut random, mut backwards) = (Random::new(3), Random::new(3));
        let points: Vec<_> = (0..50).map(|number| random.propose(&space, number)).collect();
        random.observe(4, 1, &[f64::NAN]);
        random.close(4);
        for number in (0..50).rev() {
            assert_eq!(backwards.propose(&space, number), points[number as usize]);
        }
        assert_ne!(Random::new(4).propose(&space, 0), points[0]);
        let mean = points.iter().map(|point| point[0]).sum::<f64>() / 50.0;
        assert!((mean - 0.5).abs() < 0.15, "{mean}");
    }
}
