//! What can be seen of images before they are trained on.

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use image::{ImageDecoder, ImageReader};

use crate::args::Sides;

/// So many bytes of pixels are enough for their mean.
const PIXELS_READ: u64 = 16 << 20;

/// So many labels are enough to know the classes of what people begin with.
const LABELS_READ: u64 = 1 << 20;

/// Where images are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A folder with a folder for each class.
    Folder(PathBuf),
    /// A file of images and one of labels.
    Idx { images: PathBuf, labels: PathBuf },
}

/// Images, and what could be seen of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Data {
    pub(crate) source: Source,
    /// A test set beside it.
    pub(crate) test: Option<Source>,
    pub(crate) sides: Option<Sides>,
    pub(crate) channels: Option<u32>,
    pub(crate) classes: Option<u32>,
    /// What pixels are divided by, then their mean and standard deviation.
    pub(crate) pixels: Option<Pixels>,
}

/// How bright pixels are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pixels {
    pub(crate) max: u8,
    pub(crate) mean: f64,
    pub(crate) std: f64,
}

impl Data {
    /// Looks at `path`. What cannot be seen is left open, for data may lie on another machine.
    pub(crate) fn at(path: &Path) -> Self {
        if path.is_dir() {
            return match images_in(path) {
                Some(images) => Self::of_idx(&images),
                None => Self::of_folder(path),
            };
        }
        let is_idx = path.is_file() || path.to_string_lossy().contains("idx");
        if is_idx { Self::of_idx(path) } else { Self::of_folder(path) }
    }

    fn of_folder(path: &Path) -> Self {
        let classes = visible(path).into_iter().filter(|entry| entry.is_dir()).collect::<Vec<_>>();
        let picture = classes.iter().find_map(|class| visible(class).into_iter().find_map(|file| look_at(&file)));
        Self {
            source: Source::Folder(path.to_owned()),
            test: None,
            sides: picture.map(|(sides, _)| sides),
            channels: picture.map(|(_, channels)| channels),
            classes: u32::try_from(classes.len()).ok().filter(|classes| *classes > 1),
            pixels: None,
        }
    }

    fn of_idx(images: &Path) -> Self {
        let labels = labels_of(images);
        let test = images.file_name().and_then(|name| name.to_str()?.strip_prefix("train-")).map(|rest| {
            let images = images.with_file_name(format!("t10k-{rest}"));
            Source::Idx { labels: labels_of(&images), images }
        });
        let test =
            test.filter(|test| matches!(test, Source::Idx { images, labels } if images.is_file() && labels.is_file()));
        let header = read_idx(images, PIXELS_READ);
        let (sides, channels) = match header.as_ref().map(|(sizes, _)| &sizes[..]) {
            Some([_, height, width]) => (Some(Sides { height: *height, width: *width }), Some(1)),
            Some([_, height, width, channels]) => (Some(Sides { height: *height, width: *width }), Some(*channels)),
            Some(_) | None => (None, None),
        };
        let known = read_idx(&labels, LABELS_READ);
        let highest = known.and_then(|(_, labels)| labels.into_iter().max());
        Self {
            source: Source::Idx { images: images.to_owned(), labels },
            test,
            sides,
            channels,
            classes: highest.map(|highest| u32::from(highest) + 1).filter(|classes| *classes > 1),
            pixels: header.and_then(|(_, pixels)| measure(&pixels)),
        }
    }
}

/// The file of images in a folder of the MNIST family.
fn images_in(folder: &Path) -> Option<PathBuf> {
    let is_images = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.is_file() && name.contains("images") && name.contains("idx") && !name.starts_with("t10k")
    };
    visible(folder).into_iter().find(is_images)
}

/// The labels that belong to images, by the names of the MNIST family.
fn labels_of(images: &Path) -> PathBuf {
    let name = images.file_name().unwrap_or_default().to_string_lossy();
    let labels =
        images.with_file_name(name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1"));
    // Some are packed alone.
    let other = match labels.extension() {
        Some(extension) if extension == "gz" => labels.with_extension(""),
        _ => PathBuf::from(format!("{}.gz", labels.display())),
    };
    if !labels.is_file() && other.is_file() { other } else { labels }
}

/// What a folder holds, by name, without what is hidden.
fn visible(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map_while(Result::ok);
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// The sides and channels of a picture, from its header.
fn look_at(file: &Path) -> Option<(Sides, u32)> {
    let decoder = ImageReader::open(file).ok()?.with_guessed_format().ok()?.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    Some((Sides { height, width }, u32::from(decoder.color_type().channel_count())))
}

/// The sizes of an IDX file of bytes, and at most `most` of these.
fn read_idx(path: &Path, most: u64) -> Option<(Vec<u32>, Vec<u8>)> {
    let mut start = [0; 2];
    fs::File::open(path).ok()?.read_exact(&mut start).ok()?;
    let file = BufReader::new(fs::File::open(path).ok()?);
    let mut reader: Box<dyn Read> =
        if start == [0x1f, 0x8b] { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).ok()?;
    let [0, 0, 8, rank @ 1..=4] = magic else { return None };
    let mut sizes = vec![0; 4 * usize::from(rank)];
    reader.read_exact(&mut sizes).ok()?;
    let sizes = sizes.chunks_exact(4).map(|size| u32::from_be_bytes([size[0], size[1], size[2], size[3]])).collect();
    let mut bytes = Vec::new();
    reader.take(most).read_to_end(&mut bytes).ok()?;
    Some((sizes, bytes))
}

/// `None` where there is nothing to tell pixels apart by.
fn measure(pixels: &[u8]) -> Option<Pixels> {
    let brightest = pixels.iter().copied().max().filter(|max| *max > 0)?;
    // Few bits in each pixel, as the digits of UCI have; anything else is meant to go up to 255.
    let max = if brightest < 64 { brightest } else { u8::MAX };
    let (mut sum, mut squares) = (0_u64, 0_u64);
    for pixel in pixels {
        let pixel = u64::from(*pixel);
        sum += pixel;
        squares += pixel * pixel;
    }
    let number = pixels.len() as f64;
    let (mean, max_value) = (sum as f64 / number, f64::from(max));
    let variance = squares as f64 / number - mean * mean;
    let std = variance.max(0.0).sqrt() / max_value;
    (std >= 0.001).then_some(Pixels { max, mean: mean / max_value, std })
}
