//! Small data sets for tests.

use std::io::Write;
use std::path::{Path, PathBuf};

use domain::spec::{AugmentSpec, DataSource, DataSpec, Holdout};
use flate2::Compression;
use flate2::write::GzEncoder;
use image::ExtendedColorType;
use tempfile::TempDir;

use crate::error::DataError;

/// A folder that is removed with this value.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with the folders that it needs.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.prepare(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a picture of one value; the name's ending says the format.
    pub(crate) fn picture(&self, name: &str, width: u32, height: u32, colour: ExtendedColorType, value: u8) -> PathBuf {
        let path = self.prepare(name);
        let bytes = usize::from(colour.bits_per_pixel() / 8) * (width * height) as usize;
        image::save_buffer(&path, &vec![value; bytes], width, height, colour).unwrap();
        path
    }

    /// A pair of IDX files.
    pub(crate) fn idx(&self, images: &[u8], labels: &[u8]) -> DataSource {
        DataSource::Idx { images: self.write("images", images), labels: self.write("labels", labels) }
    }

    /// `count` images of 1x2 pixels that hold their own number; labels go round `classes`.
    pub(crate) fn numbered(&self, count: u16, classes: u8) -> DataSource {
        let pixels: Vec<u8> = (0..count).flat_map(u16::to_be_bytes).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % u16::from(classes)) as u8).collect();
        self.idx(&idx(&[count.into(), 1, 2], &pixels), &idx(&[count.into()], &labels))
    }

    /// What a user reads, with this folder's path left out.
    pub(crate) fn shown(&self, error: &DataError) -> String {
        error
            .to_string()
            .replace(&format!("{}/", self.path().display()), "")
            .replace(self.path().to_str().unwrap(), ".")
    }

    fn prepare(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

/// An IDX file of unsigned bytes.
pub(crate) fn idx(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 0x08, dimensions.len() as u8];
    dimensions.iter().for_each(|size| file.extend(size.to_be_bytes()));
    file.extend(elements);
    file
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Grey images, pixels kept as they are, a quarter held out.
pub(crate) fn spec(source: DataSource) -> DataSpec {
    DataSpec {
        source,
        holdout: Holdout::Fraction(0.25),
        pixel_max: 255.0,
        mean: vec![0.0],
        std: vec![1.0 / 255.0],
        augment: AugmentSpec::default(),
    }
}

/// The number that an image of [`Folder::numbered`] holds.
pub(crate) fn number(pixels: &[f32]) -> u64 {
    pixels[0].round() as u64 * 256 + pixels[1].round() as u64
}
