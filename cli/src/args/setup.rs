use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};
use domain::ids::RunName;
use domain::spec::file::{EPOCHS_MAX, WORKERS_MAX};

use super::PlaceArgs;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx doctor")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx init job.yaml --data images-idx3-ubyte.gz --epochs 3 --yes")]
pub(crate) struct InitArgs {
    /// The file to write [default: job.yaml, or sweep.yaml with --sweep]
    pub(crate) file: Option<PathBuf>,
    /// Images: a folder with a sub-folder for each class, or an IDX file of images whose labels lie beside it
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Name of the run [default: from the file's name]
    #[arg(long)]
    pub(crate) name: Option<RunName>,
    /// Classes of the images [default: as the data have]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(2..=1_000_000))]
    pub(crate) classes: Option<u32>,
    /// Height and width of the images in pixels [default: as the data have]
    #[arg(long, value_name = "HxW")]
    pub(crate) image: Option<Sides>,
    /// How large the model is
    #[arg(long, value_enum)]
    pub(crate) size: Option<ModelSize>,
    /// Passes over the data
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=EPOCHS_MAX))]
    pub(crate) epochs: Option<u64>,
    /// Workers of the run, or of each trial
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=WORKERS_MAX as i64))]
    pub(crate) workers: Option<u32>,
    /// Write a sweep over learning rate, weight decay and dropout
    #[arg(long)]
    pub(crate) sweep: bool,
    /// Ask nothing: take the defaults where no option says otherwise
    #[arg(long)]
    pub(crate) yes: bool,
    /// Replace a file that exists
    #[arg(long)]
    pub(crate) force: bool,
}

/// How large a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelSize {
    /// Minutes on a laptop with small images
    Tiny,
    /// A few million weights
    Small,
    /// Tens of millions of weights
    Base,
}

impl fmt::Display for ModelSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ModelSize::Tiny => "tiny",
            ModelSize::Small => "small",
            ModelSize::Base => "base",
        })
    }
}

/// Height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) height: u32,
    pub(crate) width: u32,
}

impl std::str::FromStr for Sides {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sides = text.split_once('x').and_then(|(height, width)| {
            let side = |text: &str| text.trim().parse::<u32>().ok().filter(|side| (1..=SIDE_MAX).contains(side));
            Some(Self { height: side(height)?, width: side(width)? })
        });
        sides.ok_or_else(|| format!("must be HEIGHTxWIDTH in pixels, such as 28x28, at most {SIDE_MAX} each"))
    }
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

/// As job files have it.
const SIDE_MAX: u32 = 1 << 14;
