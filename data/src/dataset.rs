use std::sync::Arc;

use domain::batch::Permutation;
use domain::random::{Purpose, Stream};
use domain::spec::{DataSource, DataSpec, Holdout, ModelSpec};

use crate::error::{DataError, ImageShape, Misfit, Misfits};
use crate::images::Images;
use crate::library::Library;
use crate::split::{Selection, Split};

/// A data set in memory.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Samples to train on.
    pub train: Split,
    /// Samples to evaluate on, none of them in `train`.
    pub holdout: Split,
    shift: u32,
}

impl Dataset {
    /// Reads what `spec` names. `seed` chooses the held-out samples where a share of the source is held out.
    pub fn open(spec: &DataSpec, seed: u64) -> Result<Self, DataError> {
        Library::default().open(spec, seed).map(|(dataset, _)| dataset)
    }

    /// Opens what `spec` names with the images that `read` gives for a source and a number of channels.
    pub(crate) fn open_with(
        spec: &DataSpec,
        seed: u64,
        mut read: impl FnMut(&DataSource, u32) -> Result<Arc<Images>, DataError>,
    ) -> Result<Self, DataError> {
        let channels = spec.mean.len() as u32;
        let images = read(&spec.source, channels)?;
        check_pixels(&images, spec)?;
        let (train, holdout) = match &spec.holdout {
            Holdout::Fraction(fraction) => {
                let (train, holdout) = divide(&images, *fraction, seed)?;
                ((images.clone(), train), (images, holdout))
            }
            Holdout::Source(source) => {
                let held_out = read(source, channels)?;
                check_pixels(&held_out, spec)?;
                check_alike(&images, &held_out)?;
                ((images, Selection::All), (held_out, Selection::All))
            }
        };
        let classes = train.0.classes().max(holdout.0.classes());
        let split = |(images, selection)| Split::new(images, selection, classes, &spec.mean, &spec.std, spec.pixel_max);
        Ok(Self { train: split(train), holdout: split(holdout), shift: spec.augment.shift })
    }

    /// Whether `model` can read the images and has an output for every label; names all misfits at once.
    pub fn check(&self, model: &ModelSpec) -> Result<(), DataError> {
        let ModelSpec::Vit(vit) = model;
        let wanted = ImageShape { height: vit.height, width: vit.width, channels: vit.channels };
        let mut misfits = Vec::new();
        if self.train.shape() != wanted {
            misfits.push(Misfit::Image { found: self.train.shape(), wanted });
        }
        let label = self.train.label_max().max(self.holdout.label_max());
        if label >= vit.classes {
            misfits.push(Misfit::Label { label, classes: vit.classes });
        }
        let side = self.train.height().min(self.train.width());
        if self.shift >= side {
            misfits.push(Misfit::Shift { shift: self.shift, side });
        }
        if misfits.is_empty() { Ok(()) } else { Err(DataError::Misfit(Misfits(misfits))) }
    }
}

/// The images to train on and the held-out ones: the first share of a keyed permutation is held out, so choosing costs
/// no memory, and every worker chooses alike.
fn divide(images: &Images, fraction: f64, seed: u64) -> Result<(Selection, Selection), DataError> {
    let count = images.len();
    if count < 2 {
        return Err(DataError::TooFewToSplit { path: images.path.clone(), samples: count });
    }
    let held_out = ((count as f64 * fraction).round() as u64).clamp(1, count - 1);
    let permutation = Permutation::new(count, Stream::new(seed, Purpose::Holdout, &[]));
    let train = Selection::Part { permutation: permutation.clone(), first: held_out, len: count - held_out };
    Ok((train, Selection::Part { permutation, first: 0, len: held_out }))
}

fn check_pixels(images: &Images, spec: &DataSpec) -> Result<(), DataError> {
    let channels = images.shape.channels;
    let (mean, std) = (spec.mean.len(), spec.std.len());
    if mean != channels as usize || std != channels as usize {
        return Err(DataError::Normalisation { path: images.path.clone(), channels, mean, std });
    }
    let found = images.pixels.iter().copied().max().unwrap_or(0);
    if f32::from(found) > spec.pixel_max {
        return Err(DataError::PixelAboveMax { path: images.path.clone(), found, pixel_max: spec.pixel_max });
    }
    Ok(())
}

fn check_alike(train: &Images, holdout: &Images) -> Result<(), DataError> {
    if train.shape != holdout.shape {
        let of = |images: &Images| format!("images of {}", images.shape);
        return Err(DataError::HoldoutDiffers { holdout: of(holdout), train: of(train) });
    }
    // Classes of a folder are numbered by name, so a missing folder would shift all labels after it.
    if train.class_names != holdout.class_names {
        let of = |images: &Images| format!("the classes {:?}", images.class_names);
        return Err(DataError::HoldoutDiffers { holdout: of(holdout), train: of(train) });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
