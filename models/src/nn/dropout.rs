//! Dropout (Srivastava et al. 2014) whose mask is a pure function of where it stands, so that it is never stored: the
//! backward pass makes it again.

use candle_core::{Result, Tensor, TensorId, bail};
use domain::random::{Purpose, Stream, name_coordinate};

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of};

/// The dropout of one micro-batch: which share to drop, and the key of its masks. None at all for an evaluation.
#[derive(Clone, Copy)]
pub enum Dropout {
    /// Nothing is dropped.
    Off,
    /// A share of all elements is.
    On {
        /// The share, in [0, 1).
        probability: f32,
        /// The run's seed.
        seed: u64,
        /// The step, counted from 0.
        step: u64,
        /// The micro-batch of the step.
        micro_batch: u32,
    },
}

impl Dropout {
    /// Which elements are dropped at the place named `layer`, if any are.
    pub fn at(self, layer: &str) -> Option<Dropped> {
        match self {
            Dropout::On { probability, seed, step, micro_batch } if probability > 0.0 => {
                let coordinates = [step, u64::from(micro_batch), name_coordinate(layer)];
                Some(Dropped { probability, key: Stream::new(seed, Purpose::Dropout, &coordinates).next_u64() })
            }
            Dropout::On { .. } | Dropout::Off => None,
        }
    }
}

/// Which elements are dropped at one place: a pure function of where they stand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropped {
    pub(super) probability: f32,
    pub(super) key: u64,
}

impl Dropped {
    pub(super) fn check(self) -> Result<()> {
        match self.probability {
            0.0..1.0 => Ok(()),
            share => bail!("a share of {share} cannot be dropped: it must be below 1"),
        }
    }
}

/// Sets every element of `x` to 0 with the given probability and scales the others up to keep the mean. `layer` names
/// the place; the same place gives the same mask.
pub fn dropout(tape: &Tape<'_>, x: Tensor, dropout: Dropout, layer: &str) -> Result<Tensor> {
    let Some(dropped) = dropout.at(layer) else { return Ok(x) };
    dropped.check()?;
    tape.run("dropout", 0, &[&x], |keep| {
        let values = Values::of(&x).rows()?.into_owned();
        let y = tensor_of(kernels::dropout::apply(values, dropped.probability, dropped.key), x.shape())?;
        Ok((y, keep.then(|| Mask { dropped, x: x.id() })))
    })
}

struct Mask {
    dropped: Dropped,
    x: TensorId,
}

impl Operator for Mask {
    /// The linear operator is its own gradient.
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Dropped { probability, key } = self.dropped;
        to.add(self.x, kernels::dropout::apply(gradient.into_vec(), probability, key));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use kernels::gemm::Precision;
    use std::sync::Arc;

    use crate::{Declaration, Gradient, Layout, Parameters, Role};

    const SHAPE: (usize, usize) = (301, 333);

    fn at(probability: f32, seed: u64, step: u64, micro_batch: u32) -> Dropout {
        Dropout::On { probability, seed, step, micro_batch }
    }

    fn mask(place: Dropout, layer: &str) -> Vec<f32> {
        let ones = Tensor::ones(SHAPE, DType::F32, &Device::Cpu).unwrap();
        let tape = Tape::evaluation(Precision::F32);
        dropout(&tape, ones, place, layer).unwrap().flatten_all().unwrap().to_vec1().unwrap()
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
        let declaration = Declaration { name: "x".to_owned(), shape: ones.dims().to_vec(), role: Role::Matrix };
        let parameters = Parameters::new(Arc::new(Layout::of(vec![declaration])), vec![ones.clone()]).unwrap();
        let tape = Tape::training(&parameters, Precision::F32);
        let y = dropout(&tape, ones, at(0.3, 1, 2, 3), "layer").unwrap();
        let mut gradient = Gradient::default();
        tape.backward(&y, vec![1.0; y.elem_count()], &mut gradient).unwrap();
        assert_eq!(gradient.flat(parameters.layout()), mask(at(0.3, 1, 2, 3), "layer"));
    }

    #[test]
    fn without_dropout_nothing_happens() {
        let x = Tensor::ones(SHAPE, DType::F32, &Device::Cpu).unwrap();
        for off in [Dropout::Off, at(0.0, 1, 2, 3)] {
            assert_eq!(dropout(&Tape::evaluation(Precision::F32), x.clone(), off, "layer").unwrap().id(), x.id());
        }
    }
}
