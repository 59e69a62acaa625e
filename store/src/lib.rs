//! What must outlive a process: the journal, records and log lines of all runs ([`Store`]), and the checkpoints
//! ([`CheckpointStore`]).
//!
//! [`Store`] is one SQLite file in the coordinator's state folder; start there. What a call wrote is
//! durable when the call returns. [`CheckpointStore`] is a folder of content-hashed blobs, written by the workers, and
//! of manifests, written last and by the coordinator alone; a checkpoint without a manifest does not exist.

mod checkpoint;
mod efforts;
mod error;
mod facts;
mod inspections;
mod journal;
mod lock;
mod log;
mod reads;
mod records;
mod schema;
mod sinks;
mod store;
mod writer;

pub use checkpoint::{
    Checkpoint, CheckpointError, CheckpointStore, CommittedManifest, Layer, MANIFEST_VERSION, Manifest,
};
pub use error::StoreError;
pub use inspections::{INSPECTIONS_MAX, InspectionEntry};
pub use journal::JournalEntry;
pub use log::{LOG_LINES_MAX, LOG_TEXT_BYTES_MAX, LogFilter, LogLine, LogPage, NewLogLine};
pub use records::{LEDGER_PAGE_BYTES_MAX, LedgerCursor, LedgerStep, PAGE_MAX, RecordCursor, StoredRecord};
pub use sinks::SinkPosition;
pub use store::Store;
