//! A folder with one sub-folder of PNG or JPEG files per class. Classes and files are taken in the order of their names,
//! byte by byte, so every machine numbers them alike. Entries whose name begins with a dot are passed over, and so are
//! files beside the class folders; anything else that is not an image is refused.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use image::{ColorType, DynamicImage, ImageDecoder, ImageReader, Limits};

use crate::error::{DataError, ImageShape};
use crate::images::{FILES_MAX, IMAGE_SIDE_MAX, Images, Pixels, check_sizes};

/// Reads all images of `root`, which must have `channels` channels and the size of the first one.
pub(crate) fn read(root: &Path, channels: u32) -> Result<Images, DataError> {
    let (class_names, files) = list(root)?;
    let Some((first, _)) = files.first() else {
        return Err(DataError::Empty { path: root.to_owned(), what: "class folders" });
    };
    let expected = Expected { first, shape: decode(first, channels)?.0 };
    check_sizes(root, files.len() as u64, expected.shape)?;

    let pixels = Pixels::Own(decode_all(&files, expected)?);
    let labels = files.iter().map(|(_, class)| *class).collect();
    Ok(Images { path: root.to_owned(), shape: expected.shape, pixels, labels, class_names })
}

/// The names of the classes, and every file with its class.
pub(crate) type Listing = (Vec<String>, Vec<(PathBuf, u32)>);

/// What there is to read.
pub(crate) fn list(root: &Path) -> Result<Listing, DataError> {
    let mut class_names = Vec::new();
    let mut files = Vec::new();
    for class_folder in sorted_entries(root)? {
        let kind = entry_type(&class_folder)?;
        if !kind.is_dir() {
            continue;
        }
        let class = class_names.len() as u32;
        class_names.push(file_name(&class_folder));
        let before = files.len();
        for file in sorted_entries(&class_folder)? {
            if !entry_type(&file)?.is_file() || !has_image_extension(&file) {
                return Err(DataError::NotAnImage { path: file });
            }
            files.push((file, class));
        }
        if files.len() == before {
            return Err(DataError::Empty { path: class_folder, what: "images" });
        }
        if files.len() as u64 > FILES_MAX {
            let found = files.len() as u64;
            return Err(DataError::TooLarge { path: root.to_owned(), what: "image files", found, max: FILES_MAX });
        }
    }
    Ok((class_names, files))
}

fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io_error = |source| DataError::Io { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        if !file_name(&path).starts_with('.') {
            entries.push(path);
        }
        if entries.len() as u64 > FILES_MAX {
            let found = entries.len() as u64;
            return Err(DataError::TooLarge { path: folder.to_owned(), what: "entries", found, max: FILES_MAX });
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

fn entry_type(path: &Path) -> Result<fs::FileType, DataError> {
    let metadata = fs::symlink_metadata(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    if metadata.is_symlink() {
        return Err(DataError::Link { path: path.to_owned() });
    }
    Ok(metadata.file_type())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["png", "jpg", "jpeg"].iter().any(|e| extension.eq_ignore_ascii_case(e))
}

/// What every image must be like.
#[derive(Clone, Copy)]
struct Expected<'a> {
    first: &'a Path,
    shape: ImageShape,
}

/// Decodes on all cores; the result, and which of several mistakes is reported, do not depend on their number.
fn decode_all(files: &[(PathBuf, u32)], expected: Expected<'_>) -> Result<Vec<u8>, DataError> {
    let size = expected.shape.values() as usize;
    let mut pixels = vec![0; files.len() * size];
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = files.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let parts: Vec<_> = files
            .chunks(share)
            .zip(pixels.chunks_mut(share * size))
            .map(|(files, pixels)| scope.spawn(move || decode_part(files, pixels, expected)))
            .collect();
        parts.into_iter().try_for_each(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(pixels)
}

fn decode_part(files: &[(PathBuf, u32)], pixels: &mut [u8], expected: Expected<'_>) -> Result<(), DataError> {
    for ((path, _), target) in files.iter().zip(pixels.chunks_exact_mut(expected.shape.values() as usize)) {
        let (found, bytes) = decode(path, expected.shape.channels)?;
        if found != expected.shape {
            return Err(DataError::WrongSize {
                path: path.clone(),
                found,
                first: expected.first.to_owned(),
                expected: expected.shape,
            });
        }
        target.copy_from_slice(&bytes);
    }
    Ok(())
}

/// The shape and pixels of one picture. A grey one is repeated into three channels where colour is wanted (some files
/// of ImageNet are grey); every other conversion would lose something and is refused.
fn decode(path: &Path, channels: u32) -> Result<(ImageShape, Vec<u8>), DataError> {
    let io_error = |source| DataError::Io { path: path.to_owned(), source };
    let decode_error = |source| DataError::Decode { path: path.to_owned(), source };
    let mut reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(io_error)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(IMAGE_SIDE_MAX);
    limits.max_image_height = Some(IMAGE_SIDE_MAX);
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(decode_error)?;
    let (width, height) = decoder.dimensions();
    let colour = decoder.color_type();
    let shape = ImageShape { height, width, channels };
    if !matches!((colour, channels), (ColorType::L8, 1 | 3) | (ColorType::Rgb8, 3) | (ColorType::Rgba8, 4)) {
        return Err(DataError::Colour { path: path.to_owned(), found: format!("{colour:?}"), channels });
    }
    let image = DynamicImage::from_decoder(decoder).map_err(decode_error)?;
    let bytes = if channels == 3 { image.into_rgb8().into_raw() } else { image.into_bytes() };
    debug_assert_eq!(bytes.len() as u64, shape.values());
    Ok((shape, bytes))
}

/// The most memory that decoding one picture may take: [`IMAGE_SIDE_MAX`] squared would be 1 GiB; no picture that a
/// model reads comes near a quarter of it.
const DECODER_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests;
