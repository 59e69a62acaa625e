use std::fmt::Display;

/// Why a network could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The images have another size than the network reads.
    #[error("images are {found} (channels x height x width), the model reads {expected}")]
    ImageShape {
        /// What came.
        found: String,
        /// What the model reads.
        expected: String,
    },
    /// The pieces of a batch do not fit together.
    #[error(
        "a batch of {samples} images needs {expected} pixel values and {samples} labels, found {pixels} and {labels}"
    )]
    BatchLength {
        /// Images, as the batch's shape says.
        samples: usize,
        /// Pixel values, as the batch's shape says.
        expected: usize,
        /// Pixel values found.
        pixels: usize,
        /// Labels found.
        labels: usize,
    },
    /// A label names no class of the model.
    #[error("label {label} is not below the model's number of classes ({classes})")]
    Label {
        /// The label.
        label: u32,
        /// Classes of the model.
        classes: u32,
    },
    /// The backward pass did not reach some parameters: the graph is cut.
    #[error("no gradient reached {}", listed(names))]
    NoGradient {
        /// The parameters.
        names: Vec<String>,
    },
    /// An optimizer, gradient or snapshot was made for a network with other parameters or another rule.
    #[error("the {what} belongs to another model or optimizer")]
    OtherLayout {
        /// What does not fit.
        what: &'static str,
    },
    /// A snapshot could not be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The threads could not be set.
    #[error("cannot set the number of threads to {threads}: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// Why not.
        reason: String,
    },
    /// The tensor library failed.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

/// Why the bytes of a snapshot were refused.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is nothing to read.
    #[error("a snapshot needs at least one part")]
    NoParts,
    /// A part is not a safetensors file, or is cut off or damaged.
    #[error("part {part} of {of} is not a readable safetensors file: {reason}")]
    Unreadable {
        /// Which part, counted from 1.
        part: usize,
        /// Parts given.
        of: usize,
        /// What the reader found.
        reason: String,
    },
    /// Parts of different snapshots, or an entry that must be there is not.
    #[error("part {part} of {of}: metadata `{key}` is {found}, expected {expected}")]
    Metadata {
        /// Which part, counted from 1.
        part: usize,
        /// Parts given.
        of: usize,
        /// The entry.
        key: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// Tensors are missing.
    #[error("{} tensor(s) are missing: {}", names.len(), listed(names))]
    Missing {
        /// The tensors.
        names: Vec<String>,
    },
    /// A tensor that the model and optimizer do not have.
    #[error("tensor {name} is not one of this model and optimizer")]
    Unknown {
        /// The tensor.
        name: String,
    },
    /// A tensor comes twice.
    #[error("tensor {name} comes twice")]
    Doubled {
        /// The tensor.
        name: String,
    },
    /// A tensor has another element type.
    #[error("tensor {name} holds {found}, expected F32")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its element type.
        found: String,
    },
    /// A tensor has another shape.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape of the model.
        expected: Vec<usize>,
    },
}

/// The first few of `names`, and how many more there are.
fn listed(names: &[impl Display]) -> String {
    const SHOWN_MAX: usize = 8;
    let mut text = names.iter().take(SHOWN_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX {
        text += &format!(" and {} more", names.len() - SHOWN_MAX);
    }
    text
}
