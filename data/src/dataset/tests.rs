use std::collections::BTreeSet;
use std::path::Path;

use domain::spec::{AugmentSpec, DataSource, Pool, VitSpec};
use image::ExtendedColorType::L8;
use proptest::prelude::*;

use super::*;
use crate::fixture::{Folder, idx, number, spec};

fn numbers(split: &Split) -> Vec<u64> {
    let all: Vec<u64> = (0..split.len()).collect();
    split.batch(&all, None).unwrap().images.chunks_exact(2).map(number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn held_out_and_training_samples_are_disjoint_and_cover_everything(
        count in 2u16..400, fraction in 0.001f64..0.999, seed: u64,
    ) {
        let folder = Folder::new();
        let spec = DataSpec { holdout: Holdout::Fraction(fraction), ..spec(folder.numbered(count, 3)) };
        let data = Dataset::open(&spec, seed).unwrap();
        let (train, holdout) = (numbers(&data.train), numbers(&data.holdout));
        prop_assert!(!train.is_empty() && !holdout.is_empty());
        prop_assert!((holdout.len() as f64 - f64::from(count) * fraction).abs() <= 1.0);
        let all: BTreeSet<u64> = train.iter().chain(&holdout).copied().collect();
        prop_assert_eq!(all, (0..u64::from(count)).collect::<BTreeSet<_>>());
        prop_assert_eq!(train.len() + holdout.len(), usize::from(count));
        // The labels go with the images.
        let labels = data.train.labels(&(0..data.train.len()).collect::<Vec<_>>()).unwrap();
        prop_assert!(train.iter().zip(labels).all(|(n, label)| n % 3 == u64::from(label)));
        let again = Dataset::open(&spec, seed).unwrap();
        prop_assert_eq!(numbers(&again.train), train);
    }
}

#[test]
fn the_seed_chooses_what_is_held_out() {
    let folder = Folder::new();
    let spec = spec(folder.numbered(100, 2));
    let holdout = |seed| numbers(&Dataset::open(&spec, seed).unwrap().holdout);
    assert_eq!(holdout(1).len(), 25);
    assert_ne!(holdout(1), holdout(2));
}

#[test]
fn a_holdout_of_its_own_must_be_alike() {
    let (train, test) = (Folder::new(), Folder::new());
    let with = |holdout| DataSpec { holdout: Holdout::Source(holdout), ..spec(train.numbered(10, 2)) };
    let data = Dataset::open(&with(test.numbered(4, 7)), 0).unwrap();
    assert_eq!((data.train.len(), data.holdout.len(), data.train.classes(), data.holdout.classes()), (10, 4, 4, 4));

    let wider = test.idx(&idx(&[1, 1, 3], &[0; 3]), &idx(&[1], &[0]));
    let error = Dataset::open(&with(wider), 0).unwrap_err().to_string();
    assert_eq!(
        error,
        "the held-out data have images of 1x3 with 1 channel, the training data images of 1x2 with 1 channel"
    );

    let (cats, dogs) = (Folder::new(), Folder::new());
    cats.picture("cat/1.png", 2, 2, L8, 0);
    dogs.picture("dog/1.png", 2, 2, L8, 0);
    let source = |folder: &Folder| DataSource::ImageFolder { path: folder.path().to_owned() };
    let spec = DataSpec { holdout: Holdout::Source(source(&dogs)), ..spec(source(&cats)) };
    let error = Dataset::open(&spec, 0).unwrap_err().to_string();
    assert_eq!(error, "the held-out data have the classes [\"dog\"], the training data the classes [\"cat\"]");
}

#[test]
fn data_that_contradict_the_spec_are_refused() {
    let folder = Folder::new();
    let source = folder.idx(&idx(&[2, 1, 2], &[0, 16, 17, 3]), &idx(&[2], &[0, 1]));
    let open = |spec: DataSpec| folder.shown(&Dataset::open(&spec, 0).unwrap_err());
    let spec = spec(source);
    assert_eq!(
        open(DataSpec { pixel_max: 16.0, ..spec.clone() }),
        "images holds the pixel value 17, data.pixel_max is 16"
    );
    assert_eq!(
        open(DataSpec { mean: vec![0.5; 3], ..spec.clone() }),
        "images has 1 channel(s), but data.mean has 3 and data.std 1 number(s)"
    );
    let single = folder.idx(&idx(&[1, 1, 2], &[0; 2]), &idx(&[1], &[0]));
    assert_eq!(
        open(DataSpec { source: single, ..spec }),
        "images holds 1 sample(s), at least 2 are needed to hold some out"
    );
}

fn vit(height: u32, width: u32, classes: u32) -> ModelSpec {
    ModelSpec::Vit(VitSpec {
        height,
        width,
        channels: 1,
        patch: 1,
        dim: 4,
        depth: 1,
        heads: 1,
        mlp_dim: 4,
        classes,
        pool: Pool::Mean,
        dropout: 0.0,
    })
}

#[test]
fn all_misfits_of_data_and_model_are_named_at_once() {
    let folder = Folder::new();
    let augment = AugmentSpec { shift: 1, flip: false };
    let data = Dataset::open(&DataSpec { augment, ..spec(folder.numbered(10, 3)) }, 0).unwrap();
    let error = data.check(&vit(2, 2, 2)).unwrap_err().to_string();
    assert_eq!(
        error,
        "data and model do not fit: the images are 1x2 with 1 channel, but the model wants 2x2 with 1 channel; \
         the labels go up to 2, but the model has 2 classes (0 to 1); \
         data.augment.shift (1) must be < the image's shorter side (1)"
    );
    let data = Dataset::open(&spec(folder.numbered(10, 3)), 0).unwrap();
    data.check(&vit(1, 2, 3)).unwrap();
}

#[test]
fn the_digits_are_all_there() {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/digits");
    let source =
        DataSource::Idx { images: digits.join("images-idx3-ubyte.gz"), labels: digits.join("labels-idx1-ubyte.gz") };
    let spec = DataSpec { pixel_max: 16.0, holdout: Holdout::Fraction(0.2), ..spec(source) };
    let data = Dataset::open(&spec, 1).unwrap();
    data.check(&vit(8, 8, 10)).unwrap();
    assert_eq!((data.train.len(), data.holdout.len()), (1438, 359));
    let mut counts = [0; 10];
    for split in [&data.train, &data.holdout] {
        let all: Vec<u64> = (0..split.len()).collect();
        split.labels(&all).unwrap().into_iter().for_each(|label| counts[label as usize] += 1);
    }
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
}
