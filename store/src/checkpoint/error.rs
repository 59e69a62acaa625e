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
        source: io::Error,
    },
    /// A file could not be written for another reason. Nothing of it is left behind.
    #[error("{path} could not be written")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
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
        match root(&source) {
            Some(source) if is_no_space(&source) => Self::NoSpace { path, source },
            Some(io) => Self::Write { path, source: Box::new(io) },
            None => Self::Write { path, source: Box::new(source) },
        }
    }

    /// The error of doing something else with `path`.
    pub(super) fn from_access(path: &str, verb: &'static str, source: object_store::Error) -> Self {
        let path = path.to_owned();
        match source {
            object_store::Error::NotFound { .. } => Self::Missing { path },
            source => match root(&source) {
                Some(io) => Self::Access { path, verb, source: Box::new(io) },
                None => Self::Access { path, verb, source: Box::new(source) },
            },
        }
    }
}

/// What the operating system says at the root of an error. The layers above it repeat it in their own texts, and do not
/// let go of it, so it is made anew.
fn root(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let mut innermost = None;
    let mut next = Some(error);
    while let Some(error) = next {
        innermost = error.downcast_ref::<io::Error>().or(innermost);
        next = error.source();
    }
    innermost.map(|found| match found.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(found.kind(), found.to_string()),
    })
}

/// Whether the disk, a quota or the limit of file sizes is the cause.
fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `object_store` wraps what the operating system says: twice, and each time with the text of what it wraps.
    fn wrapped(inner: impl Error + Send + Sync + 'static) -> object_store::Error {
        let middle = object_store::Error::Generic { store: "inner", source: Box::new(inner) };
        object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(middle) }
    }

    #[test]
    fn the_root_of_a_failed_write_is_its_only_source() {
        let os = |code| wrapped(io::Error::from_raw_os_error(code));
        let own = wrapped(io::Error::new(io::ErrorKind::TimedOut, "too slow"));
        let cases = [
            (os(28), "x could not be written: no space left on device", "No space left on device (os error 28)"),
            (os(5), "x could not be written", "Input/output error (os error 5)"),
            (own, "x could not be written", "too slow"),
        ];
        for (error, expected, source) in cases {
            let error = CheckpointError::from_write("x", error);
            assert_eq!(error.to_string(), expected);
            let found = error.source().unwrap();
            assert_eq!((found.to_string(), found.source().is_none()), (source.to_owned(), true));
        }
        let error = CheckpointError::from_write("x", wrapped(std::fmt::Error));
        assert!(matches!(error, CheckpointError::Write { .. }), "without an io error, all is kept: {error:?}");
    }
}
