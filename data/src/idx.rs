//! IDX, the format of the MNIST family: two zero bytes, a type code, the number of dimensions, one big-endian `u32` for
//! each dimension, then the elements, last dimension fastest. Files may be compressed with gzip; the content says so,
//! not the name.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{DataError, ImageShape};
use crate::images::{Images, PIXEL_BYTES_MAX, Pixels, check_sizes};

/// Reads a pair of files.
pub(crate) fn read(images_path: &Path, labels_path: &Path) -> Result<Images, DataError> {
    let mut images = IdxFile::open(images_path)?;
    let shape = images.image_shape()?;
    let count = u64::from(images.dimensions[0]);
    check_sizes(images_path, count, shape)?;

    let mut labels = IdxFile::open(labels_path)?;
    let label_count = labels.label_count()?;
    if count != label_count {
        return Err(DataError::CountMismatch {
            images_path: images_path.to_owned(),
            images: count,
            labels_path: labels_path.to_owned(),
            labels: label_count,
        });
    }

    let labels = labels.elements(label_count)?.into_iter().map(u32::from).collect();
    let pixels = Pixels::Own(images.elements(count * shape.values())?);
    Ok(Images { path: images_path.to_owned(), shape, pixels, labels, class_names: Vec::new() })
}

/// The most dimensions a header is read for: image, row, column, channel.
const RANK_MAX: u8 = 4;

/// The element type "unsigned byte".
const UNSIGNED_BYTE: u8 = 0x08;

/// An opened file whose header was read.
struct IdxFile<'a> {
    path: &'a Path,
    reader: Box<dyn Read>,
    dimensions: Vec<u32>,
}

impl<'a> IdxFile<'a> {
    fn open(path: &'a Path) -> Result<Self, DataError> {
        let mut reader = open_plain_or_gzip(path)?;
        let mut magic = [0; 4];
        let found = read_fully(&mut reader, &mut magic).map_err(|e| io_error(path, e))?;
        if found < magic.len() {
            return Err(DataError::Truncated { path: path.to_owned(), expected: 4, found: found as u64 });
        }
        let [0, 0, element_type, rank] = magic else {
            return Err(DataError::WrongMagic { path: path.to_owned(), found: magic });
        };
        if element_type != UNSIGNED_BYTE {
            return Err(DataError::ElementType { path: path.to_owned(), found: element_type });
        }
        if rank == 0 || rank > RANK_MAX {
            return Err(DataError::Rank { path: path.to_owned(), found: rank, expected: "1 to 4 are read" });
        }
        let mut sizes = [0; 4 * RANK_MAX as usize];
        let sizes = &mut sizes[..4 * usize::from(rank)];
        let found = read_fully(&mut reader, sizes).map_err(|e| io_error(path, e))?;
        if found < sizes.len() {
            let (expected, found) = (4 + sizes.len() as u64, 4 + found as u64);
            return Err(DataError::Truncated { path: path.to_owned(), expected, found });
        }
        let (sizes, []) = sizes.as_chunks() else { unreachable!("whole sizes were read") };
        let dimensions = sizes.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        Ok(Self { path, reader, dimensions })
    }

    fn image_shape(&self) -> Result<ImageShape, DataError> {
        match self.dimensions[..] {
            [_, height, width] => Ok(ImageShape { height, width, channels: 1 }),
            [_, height, width, channels] => Ok(ImageShape { height, width, channels }),
            _ => Err(self.wrong_rank("images need 3 (or 4 with channels)")),
        }
    }

    fn label_count(&self) -> Result<u64, DataError> {
        let [count] = self.dimensions[..] else {
            return Err(self.wrong_rank("labels need 1"));
        };
        Ok(u64::from(count))
    }

    fn wrong_rank(&self, expected: &'static str) -> DataError {
        DataError::Rank { path: self.path.to_owned(), found: self.dimensions.len() as u8, expected }
    }

    /// The `count` elements, which must be all that is left. Memory grows with what the file really holds, so a header
    /// that promises more than follows costs nothing.
    fn elements(&mut self, count: u64) -> Result<Vec<u8>, DataError> {
        debug_assert!(count <= PIXEL_BYTES_MAX.max(u64::from(u32::MAX)));
        let header = 4 + 4 * self.dimensions.len() as u64;
        let mut elements = Vec::new();
        let read = self.reader.by_ref().take(count).read_to_end(&mut elements);
        let found = elements.len() as u64;
        match read {
            Ok(_) if found == count => {}
            // A gzip stream that was cut off ends like this.
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(io_error(self.path, e)),
            Ok(_) | Err(_) => {
                let (expected, found) = (header + count, header + found);
                return Err(DataError::Truncated { path: self.path.to_owned(), expected, found });
            }
        }
        // Reading on to the end also makes the decompressor compare its checksum, so here an early end is an error.
        let mut rest = Vec::new();
        if self.reader.by_ref().take(1).read_to_end(&mut rest).map_err(|e| io_error(self.path, e))? > 0 {
            return Err(DataError::TrailingBytes { path: self.path.to_owned(), expected: header + count });
        }
        Ok(elements)
    }
}

fn open_plain_or_gzip(path: &Path) -> Result<Box<dyn Read>, DataError> {
    // Asked before opening, because opening a pipe waits for its writer.
    let metadata = std::fs::metadata(path).map_err(|e| io_error(path, e))?;
    if !metadata.is_file() {
        return Err(DataError::NotAFile { path: path.to_owned() });
    }
    let mut file = File::open(path).map_err(|e| io_error(path, e))?;
    let mut start = [0; 2];
    let found = read_fully(&mut file, &mut start).map_err(|e| io_error(path, e))?;
    let whole = BufReader::new(io::Cursor::new(start).take(found as u64).chain(file));
    Ok(if start == GZIP_MAGIC { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Fills `buffer` as far as there is something to read; returns the bytes filled.
fn read_fully(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn io_error(path: &Path, source: io::Error) -> DataError {
    DataError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
