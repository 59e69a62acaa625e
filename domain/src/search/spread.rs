//! Points that fill the unit cube evenly, for searchers that know nothing yet.

use super::{Choice, Space};
use crate::random::{Purpose, Stream};

/// So many points in succession have every coordinate in another part of the interval.
const BLOCK: u64 = 16;

/// Point `number` of a succession of Latin hypercubes (McKay et al. 1979) of 16 points each.
pub(crate) fn point(seed: u64, number: u32, choices: &[Choice]) -> Vec<f64> {
    let (block, position) = (u64::from(number) / BLOCK, u64::from(number) % BLOCK);
    let mut stream = Stream::new(seed, Purpose::Search, &[u64::MAX, block]);
    let coordinate = |choice: &Choice| {
        let mut parts: Vec<u64> = (0..BLOCK).collect();
        for last in (1..BLOCK).rev() {
            parts.swap(last as usize, stream.below(last + 1) as usize);
        }
        let within: Vec<f64> = (0..BLOCK).map(|_| stream.uniform_f64()).collect();
        let at = position as usize;
        let x = (parts[at] as f64 + within[at]) / BLOCK as f64;
        if matches!(choice, Choice::Fixed) { 0.5 } else { x.min(1.0 - f64::EPSILON) }
    };
    choices.iter().map(coordinate).collect()
}

/// As [`point`], or a random one where the constraints do not admit that.
pub(crate) fn admitted(seed: u64, number: u32, choices: &[Choice], space: &Space) -> Vec<f64> {
    let point = point(seed, number, choices);
    if space.admits_point(&point) {
        return point;
    }
    space.sample(&mut Stream::new(seed, Purpose::Search, &[u64::from(number), u64::MAX]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_cube_gets_its_share() {
        let choices = [Choice::Continuous, Choice::Fixed, Choice::Ordered(4), Choice::Unordered(3)];
        let points: Vec<Vec<f64>> = (0..1000).map(|number| point(7, number, &choices)).collect();
        assert!(points.iter().flatten().all(|x| (0.0..1.0).contains(x)));
        for (i, j) in [(0, 2), (0, 3), (2, 3)] {
            for quarter in [(false, false), (false, true), (true, false), (true, true)] {
                let count = points.iter().filter(|p| (p[i] < 0.5, p[j] < 0.5) == quarter).count();
                assert!(count.abs_diff(250) < 50, "coordinates {i} and {j}: {count} of 250");
            }
        }
        for index in [0, 2, 3] {
            let parts: std::collections::BTreeSet<_> = points[..16].iter().map(|p| (p[index] * 16.0) as u32).collect();
            assert_eq!(parts.len(), 16);
        }
        assert_ne!(point(1, 0, &choices), point(2, 0, &choices));
    }
}
