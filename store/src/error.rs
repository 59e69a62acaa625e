use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store did not do what it was asked. Nothing of the request is stored then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another handle of this one, holds the state folder.
    #[error("state folder {} is in use by another coordinator\nhint: stop it, or choose another folder", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The state folder cannot be made, opened or locked.
    #[error("state folder {} cannot be used", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "{} has schema version {found}, this program knows versions up to {known}\nhint: use the newer phalanx that wrote it",
        file.display()
    )]
    NewerSchema {
        /// The database.
        file: PathBuf,
        /// Its version.
        found: i64,
        /// The newest known version.
        known: i64,
    },
    /// The database cannot be opened or read.
    #[error("{} cannot be opened", file.display())]
    Open {
        /// The database.
        file: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file is a database, but not one of ours.
    #[error("{} holds tables that phalanx did not make\nhint: choose another state folder", file.display())]
    Foreign {
        /// The database.
        file: PathBuf,
    },
    /// A row of the journal cannot be read.
    #[error("journal row {sequence} cannot be read: {cause}")]
    JournalRow {
        /// The row.
        sequence: u64,
        /// What is wrong with it.
        cause: String,
    },
    /// A row of the journal is not there.
    #[error("journal row {missing} is missing, the next one is {found}")]
    JournalGap {
        /// The row that should be there.
        missing: u64,
        /// The row that is there instead.
        found: u64,
    },
    /// An event would not come back from the journal as it was.
    #[error("event cannot be journalled: {cause}")]
    NotJournalable {
        /// Why.
        cause: String,
    },
    /// A number is too large for a column (SQLite integers are signed).
    #[error("{what} {value} must be <= {}", i64::MAX)]
    TooLarge {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// The disk is full. Later requests are tried again.
    #[error("no space left on the disk of the store")]
    DiskFull {
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Reading or writing failed. Later requests are tried again.
    #[error("the store cannot be read or written")]
    Io {
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file is damaged, or is no database.
    #[error("the store is damaged")]
    Damaged {
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A stored record cannot be decoded.
    #[error("record of step {step} of run {run} is damaged: {cause}")]
    DamagedRecord {
        /// The run.
        run: String,
        /// The step.
        step: u64,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// A stored inspection cannot be decoded.
    #[error("inspection of step {step} of run {run} is damaged: {cause}")]
    DamagedInspection {
        /// The run.
        run: String,
        /// The step.
        step: u64,
        /// What is wrong with it.
        cause: String,
    },
    /// SQLite refused in another way, which is a mistake of this crate.
    #[error("the store refused a statement")]
    Sqlite {
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A thread of the store has ended, which happens only after a panic in it.
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { source },
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => Self::Io { source },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { source },
            _ => Self::Sqlite { source },
        }
    }
}

impl StoreError {
    /// Adds the file's name to what SQLite said while it was being opened.
    pub(crate) fn while_opening(self, file: &Path) -> Self {
        match self {
            Self::DiskFull { source } | Self::Io { source } | Self::Damaged { source } | Self::Sqlite { source } => {
                Self::Open { file: file.to_owned(), source }
            }
            other => other,
        }
    }
}

/// `value` as a column holds it.
pub(crate) fn column(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::TooLarge { what, value })
}
