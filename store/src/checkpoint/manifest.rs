use domain::ids::{Generation, Step, TrialId};
use domain::record::SavedPart;
use domain::spec::JobSpec;
use serde::{Deserialize, Serialize};

use super::path::{self, is_blake3};

/// The version of the manifest's format that this program writes, and the only one it reads.
pub const MANIFEST_VERSION: u32 = 1;

/// What a checkpoint is made of. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Whose state it is.
    pub trial: TrialId,
    /// The generation that saved it.
    pub generation: Generation,
    /// Steps completed in it.
    pub step: Step,
    /// Its parts, by rank.
    pub parts: Vec<SavedPart>,
    /// SHA-256 over all weights of the model, in hexadecimal.
    pub weights_sha256: String,
    /// The job it belongs to.
    pub spec: JobSpec,
}

impl Manifest {
    /// Reads and checks a manifest. The version is looked at first: another version may have other fields.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        check_version(version)?;
        let manifest: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks that the manifest holds together: the known version, one part of each rank in order, all of this trial,
    /// step and generation, under the names that they must have, with equal weights. The error says what does not.
    pub(super) fn check(&self) -> Result<(), String> {
        check_version(self.version)?;
        if self.spec.name != self.trial.run {
            return Err(format!("it is of trial {}, its job is named {}", self.trial, self.spec.name));
        }
        if self.parts.is_empty() {
            return Err("it has no parts".to_owned());
        }
        for (place, part) in self.parts.iter().enumerate() {
            self.check_part(place, part)?;
        }
        Ok(())
    }

    fn check_part(&self, place: usize, part: &SavedPart) -> Result<(), String> {
        let SavedPart { step, rank, world, path, bytes: _, blake3, weights_sha256 } = part;
        if *rank as usize != place {
            return Err(format!("part {place} is of rank {rank}"));
        }
        if *world as usize != self.parts.len() {
            return Err(format!("part {place} is one of {world}, the manifest has {}", self.parts.len()));
        }
        if *step != self.step {
            return Err(format!("part {place} is of step {step}, the manifest of step {}", self.step));
        }
        if !is_blake3(blake3) {
            return Err(format!("part {place} has {blake3:?} for a BLAKE3 hash"));
        }
        let expected = path::part(&self.trial, self.generation, self.step, *rank, blake3);
        if *path != expected {
            return Err(format!("part {place} is at {path:?}, it must be at {expected}"));
        }
        if *weights_sha256 != self.weights_sha256 {
            return Err(format!(
                "part {place} was saved with weights {weights_sha256}, the manifest says {}: the replicas have diverged",
                self.weights_sha256
            ));
        }
        Ok(())
    }
}

fn check_version(version: u32) -> Result<(), String> {
    if version == MANIFEST_VERSION {
        return Ok(());
    }
    Err(format!("it has version {version}, this program knows version {MANIFEST_VERSION}"))
}
