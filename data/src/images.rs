use std::ops::Deref;
use std::path::{Path, PathBuf};

use domain::spec::DataSource;

use crate::error::{DataError, ImageShape};
use crate::shared::SharedPixels;
use crate::{folder, idx};

/// The most bytes of pixels a data set may hold. They stay in memory; 4 GiB are 28,000 colour images of 224x224, and a
/// compressed file of a few megabytes cannot ask for more.
pub const PIXEL_BYTES_MAX: u64 = 4 << 30;

/// The most image files in a folder. A list of four million paths takes about half a gigabyte.
pub const FILES_MAX: u64 = 4 << 20;

/// The longest side of an image in pixels; larger than any model here reads.
pub const IMAGE_SIDE_MAX: u32 = 1 << 14;

/// A stored data set, decoded: pixels as bytes, image after image, each in the order row, column, channel.
#[derive(Debug)]
pub(crate) struct Images {
    /// The file or folder, for messages.
    pub(crate) path: PathBuf,
    pub(crate) shape: ImageShape,
    pub(crate) pixels: Pixels,
    pub(crate) labels: Vec<u32>,
    /// One name for each class of an image folder; empty for formats without names.
    pub(crate) class_names: Vec<String>,
}

/// Bytes of images.
#[derive(Debug)]
pub(crate) enum Pixels {
    /// Of this process.
    Own(Vec<u8>),
    /// In memory that other processes see, too.
    Shared(SharedPixels),
}

impl Deref for Pixels {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(pixels) => pixels,
            Self::Shared(pixels) => pixels.bytes(),
        }
    }
}

impl Images {
    /// Reads `source`; pictures are taken to have `channels` channels.
    pub(crate) fn read(source: &DataSource, channels: u32) -> Result<Self, DataError> {
        let images = match source {
            DataSource::Idx { images, labels } => idx::read(images, labels)?,
            DataSource::ImageFolder { path } => folder::read(path, channels)?,
        };
        debug_assert_eq!(images.pixels.len() as u64, images.len() * images.shape.values());
        Ok(images)
    }

    pub(crate) fn len(&self) -> u64 {
        self.labels.len() as u64
    }

    pub(crate) fn image(&self, index: u64) -> &[u8] {
        let size = self.shape.values() as usize;
        &self.pixels[index as usize * size..][..size]
    }

    pub(crate) fn label_max(&self) -> u32 {
        self.labels.iter().copied().max().unwrap_or(0)
    }

    pub(crate) fn classes(&self) -> u32 {
        (self.label_max() + 1).max(self.class_names.len() as u32)
    }
}

/// Refuses images that are empty or beyond the bounds, before memory is asked for.
pub(crate) fn check_sizes(path: &Path, count: u64, shape: ImageShape) -> Result<(), DataError> {
    let too_large = |what, found, max| Err(DataError::TooLarge { path: path.to_owned(), what, found, max });
    if count == 0 || shape.values() == 0 {
        return Err(DataError::Empty { path: path.to_owned(), what: "images" });
    }
    let side = shape.height.max(shape.width);
    if side > IMAGE_SIDE_MAX {
        return too_large("pixels along a side", u64::from(side), u64::from(IMAGE_SIDE_MAX));
    }
    if shape.channels > CHANNELS_MAX {
        return too_large("channels", u64::from(shape.channels), u64::from(CHANNELS_MAX));
    }
    let bytes = count.saturating_mul(shape.values());
    if bytes > PIXEL_BYTES_MAX {
        return too_large("bytes of pixels", bytes, PIXEL_BYTES_MAX);
    }
    Ok(())
}

/// The most channels of an image: red, green, blue and transparency.
const CHANNELS_MAX: u32 = 4;
