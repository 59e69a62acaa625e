//! Checkpoints: content-hashed parts, one a rank, and a manifest that is written last and makes them a checkpoint.
//!
//! Layout, below the store's root: `RUN/TRIAL/step-STEP-generation-GENERATION/RANK-BLAKE3.safetensors` and, in the same folder,
//! `manifest.json`. A folder holds what belongs to one save of one generation and nothing else. Files are never changed:
//! they appear whole and synced under their final name, and go when the checkpoint goes.

mod error;
mod manifest;
mod merge;
mod path;
mod store;

use bytes::Bytes;
pub use error::CheckpointError;
pub use manifest::{MANIFEST_VERSION, Manifest};
pub use store::CheckpointStore;

/// A checkpoint that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedManifest {
    /// The manifest's path in the store.
    pub path: String,
    /// BLAKE3 of the manifest, in hexadecimal.
    pub blake3: String,
}

/// A tensor of the model in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    /// Its own name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
}

/// A whole checkpoint, every byte checked against its hash.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What it is.
    pub manifest: Manifest,
    /// Its parts (safetensors files), by rank.
    pub parts: Vec<Bytes>,
}
