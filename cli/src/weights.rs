//! Comparing the weights of two models bit by bit.

use anyhow::{Context, ensure};
use safetensors::{Dtype, SafeTensors};

/// How two models differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Elements of all tensors.
    pub(crate) elements: u64,
    /// Elements whose bits differ.
    pub(crate) differing: u64,
    /// The largest distance in units in the last place, and the tensor it is in.
    pub(crate) largest: Option<(u64, String)>,
}

impl Difference {
    /// The largest distance in units in the last place.
    pub(crate) fn max_ulp(&self) -> u64 {
        self.largest.as_ref().map_or(0, |(ulp, _)| *ulp)
    }
}

/// Compares two safetensors files of the same parameters, all of them 32-bit floats.
pub(crate) fn compare(one: &[u8], other: &[u8]) -> anyhow::Result<Difference> {
    let one = SafeTensors::deserialize(one).context("the first model is no safetensors file")?;
    let other = SafeTensors::deserialize(other).context("the second model is no safetensors file")?;
    let names = |tensors: &SafeTensors<'_>| {
        let mut names: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let all = names(&one);
    ensure!(all == names(&other), "the two models have not the same parameters");
    let mut difference = Difference { elements: 0, differing: 0, largest: None };
    for name in all {
        let (a, b) = (one.tensor(&name)?, other.tensor(&name)?);
        ensure!(a.dtype() == Dtype::F32 && b.dtype() == Dtype::F32, "{name} does not hold 32-bit floats");
        ensure!(a.shape() == b.shape(), "{name} has not the same shape in both ({:?}, {:?})", a.shape(), b.shape());
        for (a, b) in bits(a.data()).zip(bits(b.data())) {
            difference.elements += 1;
            let distance = ulp(a, b);
            difference.differing += u64::from(distance > 0);
            if distance > difference.max_ulp() {
                difference.largest = Some((distance, name.clone()));
            }
        }
    }
    Ok(difference)
}

fn bits(data: &[u8]) -> impl Iterator<Item = u32> {
    data.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("a chunk has four bytes")))
}

/// Steps from one 32-bit float to the other along the line of all of them, by their bits. Zero only for equal bits:
/// 0.0 and -0.0 are one apart, and so are neighbouring kinds of not-a-number.
fn ulp(a: u32, b: u32) -> u64 {
    let place = |bits: u32| {
        let magnitude = i64::from(bits & 0x7fff_ffff);
        if bits >> 31 == 0 { magnitude } else { -1 - magnitude }
    };
    place(a).abs_diff(place(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn model(tensors: &[(&str, &[f32])]) -> Vec<u8> {
        let data: Vec<(&str, Vec<u8>)> =
            tensors.iter().map(|(name, v)| (*name, v.iter().flat_map(|x| x.to_le_bytes()).collect())).collect();
        let views = data
            .iter()
            .map(|(name, bytes)| (*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn distances_are_counted_in_floats() {
        for (a, b, distance) in [
            (1.0_f32, 1.0_f32, 0),
            (1.0, 1.0_f32.next_up(), 1),
            (1.0, 1.0_f32.next_down(), 1),
            (0.0, -0.0, 1),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE.next_up().next_up(), 2),
            (f32::from_bits(1), -f32::from_bits(1), 3),
            (1.0, 2.0, 1 << 23),
            (f32::NAN, f32::NAN, 0),
        ] {
            assert_eq!(ulp(a.to_bits(), b.to_bits()), distance, "{a} and {b}");
            assert_eq!(ulp(b.to_bits(), a.to_bits()), distance, "{b} and {a}");
        }
        assert!(ulp(f32::NAN.to_bits(), 1.0_f32.to_bits()) > 1 << 23);
    }

    #[test]
    fn models_are_compared_by_name() {
        let one = model(&[("a", &[1.0, 2.0]), ("b", &[3.0])]);
        let same = compare(&one, &model(&[("b", &[3.0]), ("a", &[1.0, 2.0])])).unwrap();
        assert_eq!(same, Difference { elements: 3, differing: 0, largest: None });
        let near = model(&[("a", &[1.0, 2.0_f32.next_up()]), ("b", &[3.0_f32.next_up().next_up()])]);
        let difference = compare(&one, &near).unwrap();
        assert_eq!(difference, Difference { elements: 3, differing: 2, largest: Some((2, "b".to_owned())) });
    }

    #[test]
    fn other_models_are_refused() {
        let one = model(&[("a", &[1.0, 2.0])]);
        for (other, why) in [
            (model(&[("b", &[1.0, 2.0])]), "not the same parameters"),
            (model(&[("a", &[1.0])]), "not the same shape"),
            (b"junk".to_vec(), "no safetensors"),
        ] {
            let error = compare(&one, &other).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
