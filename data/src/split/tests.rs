use domain::spec::{DataSource, DataSpec, Holdout};
use image::ExtendedColorType::Rgb8;
use proptest::prelude::*;

use super::*;
use crate::Dataset;
use crate::fixture::{Folder, idx, spec};

/// One image of 3x3 pixels, 1 to 9, in both splits.
fn nine(folder: &Folder) -> Split {
    let pixels: Vec<u8> = (1..=9).collect();
    let source = folder.idx(&idx(&[1, 3, 3], &pixels), &idx(&[1], &[0]));
    let spec = DataSpec { holdout: Holdout::Source(source.clone()), ..spec(source) };
    Dataset::open(&spec, 0).unwrap().train
}

fn whole(values: &[f32]) -> Vec<u8> {
    values.iter().map(|value| value.round() as u8).collect()
}

#[test]
fn pixels_are_scaled_shifted_and_divided_channel_by_channel() {
    let folder = Folder::new();
    let source = folder.idx(&idx(&[2, 1, 1, 3], &[0, 8, 16, 16, 4, 0]), &idx(&[2], &[0, 1]));
    let spec = DataSpec {
        pixel_max: 16.0,
        mean: vec![0.5, 0.25, 0.0],
        std: vec![0.5, 0.25, 2.0],
        holdout: Holdout::Source(source.clone()),
        ..spec(source)
    };
    let batch = Dataset::open(&spec, 0).unwrap().train.batch(&[1, 0], None).unwrap();
    assert_eq!(batch.images, [1.0, 0.0, 0.0, -1.0, 1.0, 0.5]);
    assert_eq!((batch.labels, batch.shape), (vec![1, 0], [2, 3, 1, 1]));
}

#[test]
fn values_are_put_in_the_order_image_channel_row_column() {
    let folder = Folder::new();
    folder.picture("a/1.png", 2, 2, Rgb8, 0);
    let rgb = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    image::save_buffer(folder.path().join("a/1.png"), &rgb, 2, 2, Rgb8).unwrap();
    let source = DataSource::ImageFolder { path: folder.path().to_owned() };
    let (mean, std) = (vec![0.0; 3], vec![1.0 / 255.0; 3]);
    let spec = DataSpec { mean, std, holdout: Holdout::Source(source.clone()), ..spec(source) };
    let batch = Dataset::open(&spec, 0).unwrap().train.batch(&[0], None).unwrap();
    assert_eq!(whole(&batch.images), [1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12]);
    assert_eq!(batch.shape, [1, 3, 2, 2]);
}

#[test]
fn images_are_shifted_into_black_and_mirrored() {
    let folder = Folder::new();
    let split = nine(&folder);
    let render = |down, right, flip| {
        let mut target = vec![0.0; 9];
        split.render(split.images.image(0), Change { down, right, flip }, &mut target);
        whole(&target)
    };
    assert_eq!(render(0, 0, false), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(render(1, 0, false), [0, 0, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(render(-1, 0, false), [4, 5, 6, 7, 8, 9, 0, 0, 0]);
    assert_eq!(render(0, 1, false), [0, 1, 2, 0, 4, 5, 0, 7, 8]);
    assert_eq!(render(0, -2, false), [3, 0, 0, 6, 0, 0, 9, 0, 0]);
    assert_eq!(render(0, 0, true), [3, 2, 1, 6, 5, 4, 9, 8, 7]);
    assert_eq!(render(0, 1, true), [2, 1, 0, 5, 4, 0, 8, 7, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn augmentation_depends_on_seed_epoch_and_sample_alone(
        seed: u64, shift in 0u32..3, flip: bool, order in Just((0..20u64).collect::<Vec<_>>()).prop_shuffle(), epoch in 0u64..5,
    ) {
        let folder = Folder::new();
        let pixels: Vec<u8> = (0..180).map(|i| (i % 9 + 1) as u8).collect();
        let source = folder.idx(&idx(&[20, 3, 3], &pixels), &idx(&[20], &[0; 20]));
        let spec = DataSpec { holdout: Holdout::Source(source.clone()), ..spec(source) };
        let split = Dataset::open(&spec, seed).unwrap().train;
        let spec = AugmentSpec { shift, flip };
        let batch = |samples: &[u64]| {
            let epochs = vec![epoch; samples.len()];
            split.batch(samples, Some(Augmentation { seed, spec, epochs: &epochs })).unwrap().images
        };
        let together = batch(&order);
        for (sample, image) in order.iter().zip(together.chunks_exact(9)) {
            prop_assert_eq!(&batch(&[*sample])[..], image);
        }
        if shift == 0 && !flip {
            prop_assert_eq!(together, split.batch(&order, None).unwrap().images);
        }
    }
}

#[test]
fn every_shift_and_both_sides_occur_evenly() {
    let spec = AugmentSpec { shift: 1, flip: true };
    let mut times = std::collections::BTreeMap::new();
    for (epoch, sample) in (0..30).flat_map(|epoch| (0..60).map(move |sample| (epoch, sample))) {
        let Change { down, right, flip } = Change::draw(7, spec, epoch, sample);
        *times.entry((down, right, flip)).or_insert(0) += 1;
    }
    assert_eq!(times.len(), 18);
    assert!(times.values().all(|n| (60..150).contains(n)), "{times:?}");
}

#[test]
fn samples_that_do_not_exist_are_refused() {
    let folder = Folder::new();
    let split = nine(&folder);
    assert!(matches!(split.batch(&[0, 1], None), Err(DataError::NoSuchSample { sample: 1, len: 1 })));
    assert!(matches!(split.labels(&[u64::MAX]), Err(DataError::NoSuchSample { .. })));
    let none = split.batch(&[], None).unwrap();
    assert_eq!((none.images.len(), none.labels.len(), none.shape), (0, 0, [0, 1, 3, 3]));
}
