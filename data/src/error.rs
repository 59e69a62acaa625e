use std::fmt;
use std::io;
use std::path::PathBuf;

/// Height, width and channels of an image, in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Values of one pixel.
    pub channels: u32,
}

impl ImageShape {
    /// Values of one image.
    pub(crate) fn values(self) -> u64 {
        u64::from(self.height) * u64::from(self.width) * u64::from(self.channels)
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.channels == 1 { "" } else { "s" };
        write!(f, "{}x{} with {} channel{plural}", self.height, self.width, self.channels)
    }
}

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something that is not a plain file was named or found; reading a pipe or device could wait for ever.
    #[error("{} is not a plain file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// A link inside an image folder; it could leave the folder or count an image twice.
    #[error("{} is a symbolic link\n  hint: copy the images, or name the folder it points to", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A class folder holds something that is not an image.
    #[error("{} is not a .png, .jpg or .jpeg file", path.display())]
    NotAnImage {
        /// The entry.
        path: PathBuf,
    },
    /// The first bytes are not those of an IDX file.
    #[error("{} is not an IDX file: it begins with {found:02x?}, must be [00, 00, type, rank]", path.display())]
    WrongMagic {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        found: [u8; 4],
    },
    /// An IDX file of another element type than unsigned bytes.
    #[error("{} holds IDX elements of type {found:#04x}, only unsigned bytes (0x08) are read", path.display())]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The type code.
        found: u8,
    },
    /// An IDX file with another number of dimensions.
    #[error("{} has {found} dimensions, {expected}", path.display())]
    Rank {
        /// The file.
        path: PathBuf,
        /// Its dimensions.
        found: u8,
        /// What is wanted of such a file.
        expected: &'static str,
    },
    /// A header or folder announces more than a bound allows.
    #[error("{} announces {found} {what}, at most {max} are read", path.display())]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// What was announced.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// A file ends early.
    #[error("{} is truncated: its header promises {expected} bytes, found {found}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes in all, after decompression.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A file goes on after its end.
    #[error("{} goes on after the {expected} bytes that its header promises", path.display())]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// Bytes in all, after decompression.
        expected: u64,
    },
    /// Not one label for each image.
    #[error("{} holds {images} images, but {} holds {labels} labels", images_path.display(), labels_path.display())]
    CountMismatch {
        /// The file of images.
        images_path: PathBuf,
        /// Images in it.
        images: u64,
        /// The file of labels.
        labels_path: PathBuf,
        /// Labels in it.
        labels: u64,
    },
    /// Nothing to read.
    #[error("{} holds no {what}", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A picture that cannot be decoded.
    #[error("cannot decode {}", path.display())]
    Decode {
        /// The picture.
        path: PathBuf,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// A picture whose pixels are not of a kind that is read.
    #[error("{} holds {found} pixels, but {channels} channel(s) of 8 bits are wanted (the length of data.mean)", path.display())]
    Colour {
        /// The picture.
        path: PathBuf,
        /// Its pixels.
        found: String,
        /// Channels wanted.
        channels: u32,
    },
    /// A picture of another size than the first one.
    #[error("{} is {found}, but {} is {expected}; all images must be of one size", path.display(), first.display())]
    WrongSize {
        /// The picture.
        path: PathBuf,
        /// Its size.
        found: ImageShape,
        /// The first picture of the data set.
        first: PathBuf,
        /// The first one's size.
        expected: ImageShape,
    },
    /// The held-out data differ from the training data in shape or class names.
    #[error("the held-out data have {holdout}, the training data {train}")]
    HoldoutDiffers {
        /// What the held-out data have.
        holdout: String,
        /// What the training data have.
        train: String,
    },
    /// Too few samples to hold some out.
    #[error("{} holds {samples} sample(s), at least 2 are needed to hold some out", path.display())]
    TooFewToSplit {
        /// The file or folder.
        path: PathBuf,
        /// Samples in it.
        samples: u64,
    },
    /// A pixel above `data.pixel_max`.
    #[error("{} holds the pixel value {found}, data.pixel_max is {pixel_max}", path.display())]
    PixelAboveMax {
        /// The file or folder.
        path: PathBuf,
        /// The largest pixel.
        found: u8,
        /// The bound of the spec.
        pixel_max: f32,
    },
    /// `data.mean` and `data.std` are not one number for each channel.
    #[error("{} has {channels} channel(s), but data.mean has {mean} and data.std {std} number(s)", path.display())]
    Normalisation {
        /// The file or folder.
        path: PathBuf,
        /// Channels of the images.
        channels: u32,
        /// Length of the means.
        mean: usize,
        /// Length of the deviations.
        std: usize,
    },
    /// Data and model do not fit each other.
    #[error("data and model do not fit: {0}")]
    Misfit(Misfits),
    /// A sample number outside the split.
    #[error("sample {sample} does not exist, there are {len}")]
    NoSuchSample {
        /// The number.
        sample: u64,
        /// Samples of the split.
        len: u64,
    },
    /// The run has no further step.
    #[error("the run ends after step {last_step}, there is no batch after it")]
    NoMoreSteps {
        /// The number of steps of the run.
        last_step: u64,
    },
    /// The thread that prepares batches could not start.
    #[error("cannot start the thread that prepares batches")]
    Thread(#[source] io::Error),
}

/// All ways in which data and model do not fit, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfits(pub Vec<Misfit>);

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, misfit) in self.0.iter().enumerate() {
            write!(f, "{}{misfit}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// One way in which data and model do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Another size than the model reads.
    #[error("the images are {found}, but the model wants {wanted}")]
    Image {
        /// Size of the images.
        found: ImageShape,
        /// Size the model reads.
        wanted: ImageShape,
    },
    /// A label the model has no output for.
    #[error("the labels go up to {label}, but the model has {classes} classes (0 to {})", classes - 1)]
    Label {
        /// The largest label.
        label: u32,
        /// Outputs of the model.
        classes: u32,
    },
    /// A shift that can move the whole image out of sight.
    #[error("data.augment.shift ({shift}) must be < the image's shorter side ({side})")]
    Shift {
        /// Pixels.
        shift: u32,
        /// Pixels.
        side: u32,
    },
}
