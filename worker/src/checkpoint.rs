//! Saving in the background, and loading.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use domain::ids::{Generation, Step, TrialId};
use domain::record::SavedPart;
use models::Snapshot;
use proto::convert::Report;
use store::{CheckpointError, CheckpointStore};
use tokio::runtime::Handle;
use tracing::field::Empty;
use tracing::{Instrument, debug, error, info_span};

use crate::report::{Outbox, chain};

/// Copies of the state that wait while one is being written. With one, a save that takes longer than the time between
/// two checkpoints slows the training down instead of filling the memory.
const WAITING_MAX: usize = 1;

/// One rank's part of a checkpoint, to be written.
pub(crate) struct Part {
    pub(crate) url: String,
    pub(crate) trial: TrialId,
    pub(crate) generation: Generation,
    pub(crate) step: Step,
    pub(crate) rank: u32,
    pub(crate) world: u32,
    pub(crate) snapshot: Snapshot,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Why a part was not written, for a person.
pub(crate) type Written = Result<(), String>;

/// The thread that writes this worker's parts of checkpoints, one after another, and reports each.
pub(crate) struct Saver {
    parts: SyncSender<(Part, Sender<Written>)>,
}

impl Saver {
    /// Starts the thread. It ends when the saver is dropped.
    pub(crate) fn start(outbox: Outbox, runtime: Handle) -> std::io::Result<(JoinHandle<()>, Self)> {
        let (parts, waiting) = sync_channel(WAITING_MAX);
        let work = move || write_all(&waiting, &outbox, &runtime);
        let thread = std::thread::Builder::new().name("saver".to_owned()).spawn(work)?;
        Ok((thread, Self { parts }))
    }

    /// Has a part written; its fate will come out of the channel. Waits only while [`WAITING_MAX`] others wait already.
    pub(crate) fn save(&mut self, part: Part) -> Receiver<Written> {
        let (fate, written) = channel();
        // A thread that has ended drops the sender, which is noticed by whoever waits for the part.
        let _ = self.parts.send((part, fate));
        written
    }
}

fn write_all(waiting: &Receiver<(Part, Sender<Written>)>, outbox: &Outbox, runtime: &Handle) {
    for (part, fate) in waiting {
        let (trial, generation, step) = (part.trial.clone(), part.generation, part.step);
        let span = info_span!(
            target: telemetry::SPANS, parent: None, "write part", phalanx.run = %trial.run, phalanx.generation = generation.0,
            phalanx.step = step.0, phalanx.rank = part.rank, phalanx.world_size = part.world, phalanx.bytes = Empty,
        );
        let written = match runtime.block_on(write(part).instrument(span)) {
            Ok(part) => {
                debug!(%trial, %generation, %step, path = part.path, "part of a checkpoint written");
                outbox.send(Report::PartSaved { trial, generation, part });
                Ok(())
            }
            Err(cause) => {
                let cause = chain(&cause);
                error!(%trial, %generation, %step, cause, "part of a checkpoint not written");
                outbox.send(Report::PartFailed { trial, generation, step, cause: cause.clone() });
                Err(cause)
            }
        };
        // Usually nobody waits for it: training goes on meanwhile.
        let _ = fate.send(written);
    }
}

async fn write(part: Part) -> Result<SavedPart, CheckpointError> {
    let Part { url, trial, generation, step, rank, world, snapshot, metadata } = part;
    let weights_sha256 = snapshot.weights_sha256();
    let bytes = Bytes::from(snapshot.to_safetensors(rank, world, &metadata));
    drop(snapshot);
    let blake3 = blake3::hash(&bytes).to_hex().to_string();
    let path = CheckpointStore::part_path(&trial, generation, step, rank, &blake3);
    let size = bytes.len() as u64;
    tracing::Span::current().record("phalanx.bytes", size);
    CheckpointStore::open(&url)?.put_part(&path, bytes).await?;
    Ok(SavedPart { step, rank, world, path, bytes: size, blake3, weights_sha256 })
}

/// The parts of a committed checkpoint, each checked against its hash.
pub(crate) async fn load(url: &str, manifest: &str, blake3: &str) -> Result<Vec<Bytes>, CheckpointError> {
    let checkpoint = CheckpointStore::open(url)?.load(manifest, blake3).await?;
    Ok(checkpoint.parts)
}
