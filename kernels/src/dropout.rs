//! Dropout (Srivastava et al. 2014) whose mask is a pure function of a key and of where an element stands, so that it is
//! never stored: the backward pass makes it again.

use crate::simd::vectorised;
use crate::threads::pieces;

/// Values that one task computes at a time; even, since a random number serves two.
const PIECE: usize = 4096;

/// Sets every element of `x` to 0 with the given probability, in `[0, 1)`, and scales the others up to keep the mean. The
/// same key gives the same mask; the linear operator is its own gradient.
///
/// # Panics
/// If the probability is not in `[0, 1)`.
pub fn apply(mut x: Vec<f32>, probability: f32, key: u64) -> Vec<f32> {
    assert!((0.0..1.0).contains(&probability), "a share below 1 is dropped");
    let scale = 1.0 / (1.0 - probability);
    // An element is dropped if 32 random bits are below this.
    let threshold = (f64::from(probability) * f64::from(u32::MAX)) as u32;
    pieces(&mut x, PIECE, |i, x| {
        let first = (i * PIECE / 2) as u64;
        vectorised(
            #[inline(always)]
            || stretch(x, key, first, threshold, scale),
        );
    });
    x
}

/// Drops elements of `x`, whose first one takes the low half of random number `first`.
#[inline(always)]
fn stretch(x: &mut [f32], key: u64, first: u64, threshold: u32, scale: f32) {
    let keep = |bits: u32, x: f32| if bits < threshold { 0.0 } else { x * scale };
    let (pairs, rest) = x.as_chunks_mut::<2>();
    let last = first + pairs.len() as u64;
    for (counter, pair) in (first..).zip(pairs) {
        let bits = random_bits(key, counter);
        *pair = [keep(bits as u32, pair[0]), keep((bits >> 32) as u32, pair[1])];
    }
    if let [x] = rest {
        *x = keep(random_bits(key, last) as u32, *x);
    }
}

/// Number `counter` of SplitMix64 (Steele, Lea and Flood 2014) seeded with `key`: any of them costs the same.
#[inline(always)]
pub(crate) fn random_bits(key: u64, counter: u64) -> u64 {
    let mut z = key.wrapping_add((counter + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::testing::{bits, same_for_any_threads, values};

    #[test]
    fn the_random_numbers_are_those_of_splitmix() {
        let known = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for (counter, expected) in (0..).zip(known) {
            assert_eq!(random_bits(1_234_567, counter), expected);
        }
    }

    #[test]
    fn every_element_depends_on_its_place_alone() {
        let threshold = (f64::from(0.3f32) * f64::from(u32::MAX)) as u32;
        for len in [0, 1, 2, 3, 7, 17, 33, PIECE + 1, 3 * PIECE + 5] {
            let x = values(1, len);
            let place = |i: usize| (random_bits(99, i as u64 / 2) >> (32 * (i % 2))) as u32;
            let expected: Vec<f32> =
                (0..len).map(|i| if place(i) < threshold { 0.0 } else { x[i] * (1.0 / (1.0 - 0.3f32)) }).collect();
            assert_eq!(bits(&apply(x.clone(), 0.3, 99)), bits(&expected));
            assert_eq!(bits(&apply(x.clone(), 0.0, 99)), bits(&x));
        }
    }

    #[test]
    fn the_share_and_the_threads_are_right() {
        let n = 200_001;
        let zeros = apply(vec![1.0; n], 0.1, 5).iter().filter(|v| **v == 0.0).count() as f64;
        // Five standard deviations of a binomial share.
        assert!((zeros / n as f64 - 0.1).abs() < 5.0 * (0.09 / n as f64).sqrt());
        assert_ne!(apply(vec![1.0; n], 0.1, 5), apply(vec![1.0; n], 0.1, 6));
        same_for_any_threads(|| apply(values(2, n), 0.5, 7));
    }
}
