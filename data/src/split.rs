use std::sync::Arc;

use domain::batch::Permutation;
use domain::random::{Purpose, Stream};
use domain::spec::AugmentSpec;

use crate::error::{DataError, ImageShape};
use crate::images::Images;

/// The samples for training, or those held out; numbered from 0.
#[derive(Clone, Debug)]
pub struct Split {
    images: Arc<Images>,
    selection: Selection,
    /// Classes of the whole data set, which a part of it may not all contain.
    classes: u32,
    /// The normalised value of each byte, for each channel.
    table: Arc<[[f32; 256]]>,
}

/// Which images of the data set the samples of a split are.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// All, in order.
    All,
    /// Sample `i` is the image to which `permutation` takes `first + i`.
    Part { permutation: Permutation, first: u64, len: u64 },
}

/// Random changes of the samples of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Augmentation<'a> {
    /// The run's seed.
    pub seed: u64,
    /// Which changes.
    pub spec: AugmentSpec,
    /// The epoch in which each sample is read, one for each sample of the batch.
    pub epochs: &'a [u64],
}

/// Images ready for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Normalised values in the order image, channel, row, column.
    pub images: Vec<f32>,
    /// One class for each image.
    pub labels: Vec<u32>,
    /// Images, channels, rows, columns. The number of images is 0 in the empty micro-batches of a short last step.
    pub shape: [usize; 4],
}

impl Split {
    pub(crate) fn new(
        images: Arc<Images>,
        selection: Selection,
        classes: u32,
        mean: &[f32],
        std: &[f32],
        pixel_max: f32,
    ) -> Self {
        debug_assert!(mean.len() == std.len() && mean.len() == images.shape.channels as usize);
        let channel = |(mean, std): (&f32, &f32)| std::array::from_fn(|pixel| (pixel as f32 / pixel_max - mean) / std);
        let table = mean.iter().zip(std).map(channel).collect();
        Self { images, selection, classes, table }
    }

    /// Samples.
    pub fn len(&self) -> u64 {
        match self.selection {
            Selection::All => self.images.len(),
            Selection::Part { len, .. } => len,
        }
    }

    /// Whether there are none; never true of an opened data set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height, width and channels of every image.
    pub fn shape(&self) -> ImageShape {
        self.images.shape
    }

    /// Rows of an image.
    pub fn height(&self) -> u32 {
        self.images.shape.height
    }

    /// Columns of an image.
    pub fn width(&self) -> u32 {
        self.images.shape.width
    }

    /// Values of a pixel.
    pub fn channels(&self) -> u32 {
        self.images.shape.channels
    }

    /// Classes of the data set: one more than the largest label, or the number of class folders.
    pub fn classes(&self) -> u32 {
        self.classes
    }

    /// The label of each of `samples`.
    pub fn labels(&self, samples: &[u64]) -> Result<Vec<u32>, DataError> {
        samples.iter().map(|sample| Ok(self.images.labels[self.locate(*sample)? as usize])).collect()
    }

    pub(crate) fn label_max(&self) -> u32 {
        self.images.label_max()
    }

    /// The batch of `samples`, in their order: a pure function of its arguments.
    ///
    /// # Panics
    /// If `augment` does not name one epoch for each sample.
    pub fn batch(&self, samples: &[u64], augment: Option<Augmentation<'_>>) -> Result<Batch, DataError> {
        let ImageShape { height, width, channels } = self.images.shape;
        let size = self.images.shape.values() as usize;
        let mut images = vec![0.0; samples.len() * size];
        let mut labels = Vec::with_capacity(samples.len());
        if let Some(augment) = augment {
            assert_eq!(augment.epochs.len(), samples.len(), "augmentation needs one epoch for each sample");
        }
        for (i, (sample, target)) in samples.iter().zip(images.chunks_exact_mut(size)).enumerate() {
            let index = self.locate(*sample)?;
            let change = augment.map_or(Change::NONE, |a| Change::draw(a.seed, a.spec, a.epochs[i], *sample));
            self.render(self.images.image(index), change, target);
            labels.push(self.images.labels[index as usize]);
        }
        Ok(Batch { images, labels, shape: [samples.len(), channels as usize, height as usize, width as usize] })
    }

    fn locate(&self, sample: u64) -> Result<u64, DataError> {
        if sample >= self.len() {
            return Err(DataError::NoSuchSample { sample, len: self.len() });
        }
        Ok(match &self.selection {
            Selection::All => sample,
            Selection::Part { permutation, first, .. } => permutation.apply(first + sample),
        })
    }

    /// Writes the changed, normalised image in the order channel, row, column.
    fn render(&self, pixels: &[u8], change: Change, target: &mut [f32]) {
        let ImageShape { height, width, channels } = self.images.shape;
        let (height, width, channels) = (height as usize, width as usize, channels as usize);
        for (channel, plane) in target.chunks_exact_mut(height * width).enumerate() {
            let table = &self.table[channel];
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                let source_row = shifted(y, change.down, height).map(|y| &pixels[y * width * channels..]);
                for (x, value) in row.iter_mut().enumerate() {
                    let x = if change.flip { width - 1 - x } else { x };
                    let pixel = match (source_row, shifted(x, change.right, width)) {
                        (Some(source_row), Some(x)) => source_row[x * channels + channel],
                        _ => 0,
                    };
                    *value = table[usize::from(pixel)];
                }
            }
        }
    }
}

/// Where the value that a shift by `by` puts at `to` comes from.
fn shifted(to: usize, by: i64, size: usize) -> Option<usize> {
    usize::try_from(to as i64 - by).ok().filter(|from| *from < size)
}

/// How one image changes: shifted first, then mirrored.
#[derive(Clone, Copy)]
struct Change {
    down: i64,
    right: i64,
    flip: bool,
}

impl Change {
    const NONE: Self = Self { down: 0, right: 0, flip: false };

    fn draw(seed: u64, spec: AugmentSpec, epoch: u64, sample: u64) -> Self {
        let AugmentSpec { shift, flip } = spec;
        if shift == 0 && !flip {
            return Self::NONE;
        }
        let mut stream = Stream::new(seed, Purpose::Augmentation, &[epoch, sample]);
        let shift = i64::from(shift);
        let mut offset = || stream.below(2 * shift as u64 + 1) as i64 - shift;
        let (down, right) = (offset(), offset());
        Self { down, right, flip: flip && stream.below(2) == 1 }
    }
}

#[cfg(test)]
mod tests;
