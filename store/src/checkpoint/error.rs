use std::error::Error;
use std::io;

/// Why the checkpoint store did not do what it was asked. No checkpoint that existed before is changed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The place cannot be a checkpoint store.
    #[error("checkpoint store {url:?} is not supported\nhint: use file:///ABSOLUTE/FOLDER")]
    Url {
        /// What was given.
        url: String,
    },
    /// The folder cannot be made or opened.
    #[error("checkpoint store {url} cannot be opened")]
    Open {
        /// What was given.
        url: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A path that this store never makes.
    #[error("{path:?} is not the path of a checkpoint {kind}")]
    Path {
        /// The path.
        path: String,
        /// What it should be of.
        kind: &'static str,
    },
    /// A part or manifest could not be written because the disk or a quota is full. Nothing of it is left behind.
    #[error("{path} could not be written: no space left on device")]
    NoSpace {
        /// The file.
        path: String,
        /// What the operating system says.
        source: object_store::Error,
    },
    /// A file could not be written for another reason. Nothing of it is left behind.
    #[error("{path} could not be written")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: object_store::Error,
    },
    /// A file could not be read, listed or deleted.
    #[error("{path} could not be {verb}")]
    Access {
        /// The file or folder.
        path: String,
        /// What was tried.
        verb: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A file is not there.
    #[error("{path} does not exist")]
    Missing {
        /// The file.
        path: String,
    },
    /// Something else than a plain file is in a file's place.
    #[error("{path} is not a plain file")]
    NotPlain {
        /// The path.
        path: String,
    },
    /// A file is longer or shorter than it should be.
    #[error("{path} is {found} bytes long, it must be {expected}")]
    Length {
        /// The file.
        path: String,
        /// The length it should have.
        expected: u64,
        /// The length it has.
        found: u64,
    },
    /// A manifest is longer than any we write.
    #[error("{path} is {found} bytes long, a manifest has at most {limit}")]
    TooLong {
        /// The file.
        path: String,
        /// The length it has.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A file's content is not what was saved.
    #[error("{path} is damaged: its BLAKE3 is {found}, it must be {expected}")]
    Hash {
        /// The file.
        path: String,
        /// The hash it should have.
        expected: String,
        /// The hash it has.
        found: String,
    },
    /// A manifest does not hold together.
    #[error("manifest {path} is not valid: {cause}")]
    Manifest {
        /// The manifest.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Another manifest is already committed for the same trial, generation and step.
    #[error("manifest {path} exists and is another one: its BLAKE3 is {found}, the new one's is {expected}")]
    Conflict {
        /// The manifest.
        path: String,
        /// The hash of the manifest that was to be committed.
        expected: String,
        /// The hash of the manifest that exists.
        found: String,
    },
    /// A part is no safetensors file, though its hash is right.
    #[error("{path} is not a safetensors file")]
    Safetensors {
        /// The part.
        path: String,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// The parts cannot be put together.
    #[error("the parts of checkpoint {trial} step {step} do not fit together: {cause}")]
    Parts {
        /// The trial.
        trial: String,
        /// The step.
        step: u64,
        /// Why.
        cause: String,
    },
}

impl CheckpointError {
    /// The error of writing `path`.
    pub(super) fn from_write(path: &str, source: object_store::Error) -> Self {
        let path = path.to_owned();
        if is_no_space(&source) { Self::NoSpace { path, source } } else { Self::Write { path, source } }
    }

    /// The error of doing something else with `path`.
    pub(super) fn from_access(path: &str, verb: &'static str, source: object_store::Error) -> Self {
        let path = path.to_owned();
        match source {
            object_store::Error::NotFound { .. } => Self::Missing { path },
            source => Self::Access { path, verb, source: Box::new(source) },
        }
    }
}

/// Whether the disk, a quota or the limit of file sizes is at the root of an error.
fn is_no_space(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let kind = error.kind();
            if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) {
                return true;
            }
        }
        next = error.source();
    }
    false
}
