//! Dropout (Srivastava et al. 2014) whose mask is a pure function of where it stands, so that it is never stored: the
//! backward pass makes it again.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use domain::random::{Purpose, Stream, name_coordinate};

use super::math::vectorised;
use super::parallel::pieces;
use super::tape::Tape;
use super::values::{Values, row_major, tensor_of};

/// The dropout of one micro-batch: which share to drop, and the key of its masks. None at all for an evaluation.
#[derive(Clone, Copy)]
pub(crate) enum Dropout {
    Off,
    On { probability: f32, seed: u64, step: u64, micro_batch: u32 },
}

/// Sets every element of `x` to 0 with the given probability and scales the others up to keep the mean. `layer` names
/// the place; the same place gives the same mask.
pub(crate) fn dropout(tape: &Tape, x: Tensor, dropout: Dropout, layer: &str) -> Result<Tensor> {
    match dropout {
        Dropout::On { probability, seed, step, micro_batch } if probability > 0.0 => {
            let coordinates = [step, u64::from(micro_batch), name_coordinate(layer)];
            let key = Stream::new(seed, Purpose::Dropout, &coordinates).next_u64();
            tape.apply1(Mask { key, probability }, &x)
        }
        Dropout::On { .. } | Dropout::Off => Ok(x),
    }
}

struct Mask {
    key: u64,
    probability: f32,
}

/// Values that one thread computes at a time; even, since a random number serves two.
const PIECE: usize = 4096;

impl Mask {
    /// Writes `x` with this mask applied. The linear operator is its own gradient.
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let scale = 1.0 / (1.0 - self.probability);
        // An element is dropped if 32 random bits are below this.
        let threshold = (f64::from(self.probability) * f64::from(u32::MAX)) as u32;
        let keep = |bits: u32, x: f32| if bits < threshold { 0.0 } else { x * scale };
        let mut y = vec![0.0; x.len()];
        pieces(&mut y, PIECE, |i, y| {
            let first = (i * PIECE / 2) as u64;
            let x = &x[i * PIECE..][..y.len()];
            vectorised(|| {
                let ((pairs_y, rest_y), (pairs_x, rest_x)) = (y.as_chunks_mut::<2>(), x.as_chunks::<2>());
                for (counter, (y, x)) in (first..).zip(pairs_y.iter_mut().zip(pairs_x)) {
                    let bits = random_bits(self.key, counter);
                    *y = [keep(bits as u32, x[0]), keep((bits >> 32) as u32, x[1])];
                }
                if let ([y], [x]) = (rest_y, rest_x) {
                    *y = keep(random_bits(self.key, first + pairs_x.len() as u64) as u32, *x);
                }
            });
        });
        y
    }
}

/// Number `counter` of SplitMix64 (Steele, Lea and Flood 2014) seeded with `key`: any of them costs the same.
#[inline(always)]
fn random_bits(key: u64, counter: u64) -> u64 {
    let mut z = key.wrapping_add((counter + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl CustomOp1 for Mask {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.apply(&row_major(x, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = Values::of(grad);
        Ok(Some(tensor_of(self.apply(&grad.rows()?), x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    const SHAPE: (usize, usize) = (301, 333);

    fn at(probability: f32, seed: u64, step: u64, micro_batch: u32) -> Dropout {
        Dropout::On { probability, seed, step, micro_batch }
    }

    fn mask(place: Dropout, layer: &str) -> Vec<f32> {
        let ones = Tensor::ones(SHAPE, DType::F32, &Device::Cpu).unwrap();
        dropout(&Tape::off(), ones, place, layer).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_share_of_zeros_and_the_mean_are_right() {
        for probability in [0.1f32, 0.5, 0.9] {
            let mask = mask(at(probability, 1, 2, 3), "layer");
            let n = mask.len() as f64;
            let zeros = mask.iter().filter(|v| **v == 0.0).count() as f64;
            // Five standard deviations of a binomial share.
            let slack = 5.0 * (f64::from(probability) * (1.0 - f64::from(probability)) / n).sqrt();
            assert!((zeros / n - f64::from(probability)).abs() < slack, "{zeros} of {n} at {probability}");
            let kept = 1.0 / (1.0 - probability);
            assert!(mask.iter().all(|v| *v == 0.0 || *v == kept));
            let neighbours = mask.windows(2).filter(|w| w[0] == 0.0 && w[1] == 0.0).count() as f64;
            assert!((neighbours / n - f64::from(probability).powi(2)).abs() < 2.0 * slack, "neighbours are dependent");
        }
    }

    #[test]
    fn a_mask_depends_on_its_whole_place_and_nothing_else() {
        let base = mask(at(0.5, 1, 2, 3), "a");
        assert_eq!(base, mask(at(0.5, 1, 2, 3), "a"));
        for other in [mask(at(0.5, 9, 2, 3), "a"), mask(at(0.5, 1, 9, 3), "a"), mask(at(0.5, 1, 2, 9), "a")] {
            assert_ne!(base, other);
        }
        assert_ne!(base, mask(at(0.5, 1, 2, 3), "b"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(base, pool.install(|| mask(at(0.5, 1, 2, 3), "a")));
    }

    #[test]
    fn the_backward_pass_makes_the_same_mask_again() {
        let ones = Tensor::ones(SHAPE, DType::F32, &Device::Cpu).unwrap();
        let tape = Tape::on();
        let y = dropout(&tape, ones.clone(), at(0.3, 1, 2, 3), "layer").unwrap();
        let gradients = tape.backward(&y, ones.copy().unwrap()).unwrap();
        let gradient: Vec<f32> = gradients.get(&ones).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(gradient, mask(at(0.3, 1, 2, 3), "layer"));
    }

    #[test]
    fn without_dropout_nothing_happens() {
        let x = Tensor::ones(SHAPE, DType::F32, &Device::Cpu).unwrap();
        for off in [Dropout::Off, at(0.0, 1, 2, 3)] {
            assert_eq!(dropout(&Tape::on(), x.clone(), off, "layer").unwrap().id(), x.id());
        }
    }
}
