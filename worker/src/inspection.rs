//! What is shown of the inside of the model: looked at on rank 0 alone, and without touching what trains, so that a run with
//! it ends with the weights of one without.

use domain::ids::Step;
use domain::inspection::{Attention, BYTES_MAX, IMAGE_BYTES_MAX, Inspection, SAMPLES_MAX, Sample};
use domain::spec::{DataSpec, InspectSpec};
use models::ModelError;
use proto::convert::{self, Report};

use crate::report::chain;
use crate::training::Training;

/// Why the inside of a model cannot be shown. That is no reason to end a training.
#[derive(Debug, thiserror::Error)]
enum Unseen {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("the held-out samples cannot be read")]
    Data(#[from] data::DataError),
    #[error("{bytes} bytes must be at most {BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error(transparent)]
    Unsound(#[from] domain::inspection::Unsound),
}

impl Training<'_> {
    /// Sends what the job wants to see after `step`, which was just made. It goes before the step's record, so that whoever
    /// knows of the step finds what was seen. The time belongs to no step.
    pub(crate) fn inspect(&mut self, step: Step) {
        let Some(spec) = self.job.spec.inspect else { return };
        if !self.is_first() || !spec.every.is_due(step.0, &self.job.plan) {
            return;
        }
        match self.look(step, spec) {
            Ok(inspection) => {
                let (trial, inspection) = (self.job.trial.clone(), Box::new(inspection));
                self.outbox.send(Report::Inspected { trial, inspection });
            }
            Err(cause) => {
                self.log("warn", format!("the inside of the model is not shown at step {step}: {}", chain(&cause)))
            }
        }
        self.clock.pause();
        self.recorder.phase("inspect");
    }

    fn look(&self, step: Step, spec: InspectSpec) -> Result<Inspection, Unseen> {
        let InspectSpec { every: _, histograms, attention } = spec;
        let network = &self.state.network;
        let (tensors, tensors_left_out) =
            if histograms { network.histograms(&self.gradient)? } else { (Vec::new(), 0) };
        let attention = if attention { self.attention()? } else { None };
        let generation = self.assignment.generation;
        let inspection = Inspection { step, generation, tensors, tensors_left_out, attention };
        inspection.check()?;
        match convert::inspection_bytes(&inspection) {
            0..=BYTES_MAX => Ok(inspection),
            bytes => Err(Unseen::TooLarge { bytes }),
        }
    }

    /// What attention looks at, on the first held-out samples.
    fn attention(&self) -> Result<Option<Attention>, Unseen> {
        let count = self.job.holdout.len().min(SAMPLES_MAX as u64);
        let samples: Vec<u64> = (0..count).collect();
        let data::Batch { images, labels, shape } = self.job.holdout.batch(&samples, None)?;
        let batch = models::Batch { images: &images, labels: &labels, shape };
        let Some((samples, layers)) = self.state.network.look(batch)? else { return Ok(None) };
        let [_, image @ ..] = shape;
        let block = image_block(samples, image);
        let values = image.iter().product::<usize>().max(1);
        let sample = |(values, label): (&[f32], &u32)| picture(values, *label, image, block, &self.job.spec.data);
        let samples = images.chunks_exact(values).zip(&labels).take(samples).map(sample).collect();
        Ok(Some(Attention { samples, layers }))
    }
}

/// The side of the squares of pixels that become one, so that there is room for so many images of `[channels, height,
/// width]`.
fn image_block(samples: usize, [channels, height, width]: [usize; 3]) -> usize {
    let bytes = |block: usize| samples * channels * height.div_ceil(block) * width.div_ceil(block);
    (1..).find(|block| bytes(*block) <= IMAGE_BYTES_MAX || *block >= height.max(width)).unwrap_or(1)
}

/// An image as people know it: the normalisation is taken back, and squares of `block` pixels become one, their mean.
fn picture(values: &[f32], label: u32, [channels, height, width]: [usize; 3], block: usize, data: &DataSpec) -> Sample {
    let (rows, columns) = (height.div_ceil(block), width.div_ceil(block));
    let mut pixels = Vec::with_capacity(rows * columns * channels);
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        for channel in 0..channels {
            let ys = row * block..((row + 1) * block).min(height);
            let xs = column * block..((column + 1) * block).min(width);
            let count = ys.len() * xs.len();
            let line = |y: usize| &values[(channel * height + y) * width..][xs.clone()];
            let sum: f32 = ys.map(|y| line(y).iter().sum::<f32>()).sum();
            let scaled = sum / count as f32 * data.std[channel] + data.mean[channel];
            pixels.push((scaled.clamp(0.0, 1.0) * 255.0).round() as u8);
        }
    }
    Sample { label, width: columns as u32, height: rows as u32, channels: channels as u32, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::digits;

    #[test]
    fn a_picture_is_what_was_read() {
        let data = DataSpec { mean: vec![0.5, 0.25], std: vec![0.5, 2.0], ..digits().data };
        // Two channels of 2 x 3 pixels, normalised.
        let seen: [u8; 12] = [0, 51, 102, 153, 204, 255, 10, 20, 30, 40, 50, 60];
        let normal = |(i, pixel): (usize, &u8)| (f32::from(*pixel) / 255.0 - data.mean[i / 6]) / data.std[i / 6];
        let values: Vec<f32> = seen.iter().enumerate().map(normal).collect();
        let whole = picture(&values, 7, [2, 2, 3], 1, &data);
        let pixels = vec![0, 10, 51, 20, 102, 30, 153, 40, 204, 50, 255, 60];
        assert_eq!(whole, Sample { label: 7, width: 3, height: 2, channels: 2, pixels });
        let halved = picture(&values, 7, [2, 2, 3], 2, &data);
        assert_eq!((halved.width, halved.height), (2, 1));
        assert_eq!(halved.pixels, [102, 30, 179, 45]);
    }

    #[test]
    fn there_is_room_for_images_of_every_size() {
        let cases =
            [((4, [1, 8, 8]), 1), ((1, [3, 224, 224]), 1), ((4, [3, 224, 224]), 2), ((4, [4, 16_384, 16_384]), 163)];
        for ((samples, image), expected) in cases {
            assert_eq!(image_block(samples, image), expected, "{samples} {image:?}");
        }
    }
}
