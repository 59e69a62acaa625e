//! Event files of TensorBoard: a folder for each run, one file in it.
//!
//! What stands in a file is a function of what is stored, times included. After a crash the file is cut back to the length
//! that the position knows, and the rest is written again with the same bytes, so nothing is missing or doubled, and a
//! TensorBoard that had read further has read nothing else. A file that was taken away is written again from its
//! beginning.
//!
//! When a run goes back to an earlier step, what the file says of later ones cannot be taken out. A start of a session is
//! written instead, as TensorFlow does after a restart: TensorBoard then shows only what comes after it.

mod events;
mod inside;
#[cfg(test)]
pub(crate) mod read;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use domain::ids::{RunName, Time};
use domain::picture::{Picture, RunPicture};
use domain::search::Configuration;
use domain::view::TrialState;
use serde::{Deserialize, Serialize};
use store::{SinkPosition, Store, StoreError, StoredRecord};

use crate::feed::Feed;
use crate::follow::{Pictures, Trouble};
use crate::{Sink, points};

pub use self::events::{beginning, scalars};
pub use self::inside::inspection;

use self::events::{Ended, going_back, trial_begins, trial_ends};

/// The name of the event file of a run that was handed in then.
pub fn file_name(submitted_at: Time) -> String {
    format!("events.out.tfevents.{:010}.phalanx", submitted_at.0 / 1000)
}

/// What is known of a run's file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    /// Its bytes.
    length: u64,
    /// Records up to this number are in it, if they count.
    through: u64,
    /// The newest step in it.
    step: u64,
    /// The generation that made it.
    generation: u64,
    /// Whether it says how the trial ended.
    is_over: bool,
    /// What was seen of the inside of the model is in it up to this number, if it counts.
    #[serde(default)]
    inspected: u64,
}

/// Bytes of a file that are written at once, unless one line has more.
const BYTES_AT_ONCE: usize = 8 << 20;

pub(crate) struct TensorBoard {
    feed: Feed<Note>,
    folder: PathBuf,
    /// The newest picture that was looked at.
    seen: u64,
}

impl TensorBoard {
    pub(crate) async fn open(store: Store, sink: &Sink, folder: &Path) -> Result<Self, StoreError> {
        let feed = Feed::open(store, sink).await?;
        Ok(Self { feed, folder: folder.to_owned(), seen: 0 })
    }

    pub(crate) async fn catch_up(&mut self, picture: &Picture, pictures: &Pictures) -> Result<(), Trouble> {
        let written = self.write_all(picture, pictures).await;
        // Also after a failure: what was written before it is on the disk.
        self.feed.save().await?;
        written
    }

    async fn write_all(&mut self, picture: &Picture, pictures: &Pictures) -> Result<(), Trouble> {
        loop {
            let records = self.feed.records().await?;
            let Some(last) = records.last().map(|last| last.sequence) else { break };
            let mut by_run: BTreeMap<RunName, Vec<StoredRecord>> = BTreeMap::new();
            for record in records {
                by_run.entry(record.run.clone()).or_default().push(record);
            }
            let newest = pictures.borrow().clone();
            for (name, records) in by_run {
                if let Some(run) = self.feed.run(&newest, &name).await? {
                    self.write_records(&newest, &run, &records).await?;
                }
            }
            self.feed.move_to(SinkPosition { records: last, ..self.feed.position() });
            self.feed.save().await?;
        }
        let seen = self.seen;
        for run in picture.runs().filter(|run| run.changed > seen) {
            self.write_end(picture, run).await?;
        }
        self.seen = picture.version();
        Ok(())
    }

    async fn write_records(
        &mut self,
        picture: &Picture,
        run: &RunPicture,
        records: &[StoredRecord],
    ) -> Result<(), Trouble> {
        let name = &run.view.name;
        let mut note = self.feed.note(name);
        let (mut from, mut bytes) = self.go_on(picture, run, &mut note).await?;
        let through = note.through;
        let new = records.iter().filter(move |record| record.sequence > through);
        for record in new.clone().filter(|record| !record.rolled_back) {
            add(record, run, &mut note, &mut bytes);
        }
        note.through = new.map(|record| record.sequence).max().unwrap_or(through);
        // What was seen at a step is durable before the step is. Written after it, it stands behind where the file goes back.
        while let Some((entry, seen)) = self.feed.next_inspection(name, note.inspected, note.step).await? {
            note.inspected = entry.sequence;
            bytes.extend(inspection(entry.at, &seen));
            if bytes.len() >= BYTES_AT_ONCE {
                self.append(self.path(run), from, std::mem::take(&mut bytes), &mut note).await?;
                from = note.length;
            }
        }
        self.append(self.path(run), from, bytes, &mut note).await?;
        self.feed.set_note(name, note);
        Ok(())
    }

    /// Where a file goes on, and what comes first there: all that it should hold, if it is not there.
    async fn go_on(&self, picture: &Picture, run: &RunPicture, note: &mut Note) -> Result<(u64, Vec<u8>), Trouble> {
        if note.length > 0 && length_of(&self.path(run)).await? >= note.length {
            return Ok((note.length, Vec::new()));
        }
        let history = self.feed.history(&run.view.name, note.through).await?;
        *note = Note { through: note.through, ..Note::default() };
        let mut bytes = beginning(run.view.submitted_at);
        if let Some((sweep, tried, _)) = trial_of(picture, run) {
            bytes.extend(trial_begins(run.view.submitted_at, sweep.as_str(), run.view.name.as_str(), tried));
        }
        history.iter().for_each(|record| add(record, run, note, &mut bytes));
        Ok((0, bytes))
    }

    /// Says how a trial ended, once that is settled.
    async fn write_end(&mut self, picture: &Picture, run: &RunPicture) -> Result<(), Trouble> {
        let mut note = self.feed.note(&run.view.name);
        let Some((_, _, state)) = trial_of(picture, run) else { return Ok(()) };
        let ended = match state {
            TrialState::Completed | TrialState::Pruned => Ended::Success,
            TrialState::Failed => Ended::Failure,
            TrialState::Training | TrialState::Paused => return Ok(()),
        };
        if note.length == 0 || note.is_over {
            return Ok(());
        }
        let (from, mut bytes) = self.go_on(picture, run, &mut note).await?;
        bytes.extend(trial_ends(run.view.ended_at.unwrap_or(run.view.submitted_at), ended));
        note.is_over = true;
        self.append(self.path(run), from, bytes, &mut note).await?;
        self.feed.set_note(&run.view.name, note);
        Ok(())
    }

    fn path(&self, run: &RunPicture) -> PathBuf {
        self.folder.join(run.view.name.as_str()).join(file_name(run.view.submitted_at))
    }

    /// Adds `bytes` behind the first `from` bytes of a file.
    async fn append(&self, path: PathBuf, from: u64, bytes: Vec<u8>, note: &mut Note) -> Result<(), Trouble> {
        note.length = from + bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        let written = path.clone();
        let write = tokio::task::spawn_blocking(move || write_behind(&written, from, &bytes));
        let outcome = write.await.unwrap_or_else(|cause| Err(io::Error::other(cause)));
        outcome.map_err(|source| Trouble::File { path, source })
    }
}

/// The sweep of a trial, what it tries and where it stands; `None` for a run of its own.
fn trial_of<'a>(picture: &'a Picture, run: &RunPicture) -> Option<(&'a RunName, &'a Configuration, TrialState)> {
    let sweep = picture.sweep(run.view.sweep.as_ref()?)?;
    let (_, number) = run.view.name.as_str().rsplit_once('.')?;
    let trial = sweep.trial(number.parse().ok()?)?;
    Some((&sweep.view.name, &trial.view.configuration, trial.view.state))
}

/// Adds a record that counts.
fn add(stored: &StoredRecord, run: &RunPicture, note: &mut Note, bytes: &mut Vec<u8>) {
    let at = stored.at.unwrap_or(run.view.submitted_at);
    let (position, generation) = (stored.record.position(), stored.record.generation().0);
    let step = position.step.0;
    if generation > note.generation {
        // A group that begins with an evaluation goes on from the step before it, which counts.
        let first = if position.evaluated { step.saturating_add(1) } else { step };
        if note.step >= first {
            bytes.extend(going_back(at, first));
        }
        (note.generation, note.step) = (generation, step);
    }
    note.step = note.step.max(step);
    let samples = match &stored.record {
        domain::record::Record::Step(step) => run.samples_of(step),
        domain::record::Record::Eval(_) => None,
    };
    bytes.extend(scalars(at, step, &points(&stored.record, samples)));
}

async fn length_of(path: &Path) -> Result<u64, Trouble> {
    match tokio::fs::metadata(path).await {
        Ok(found) => Ok(found.len()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(Trouble::File { path: path.to_owned(), source }),
    }
}

/// Cuts a file to `from` bytes and adds others. They are on the disk when this returns.
fn write_behind(path: &Path, from: u64, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|_| from == 0) {
        fs::create_dir_all(folder)?;
    }
    let mut file: File = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    if file.metadata()?.len() < from {
        return Err(io::Error::other("it has become shorter"));
    }
    file.set_len(from)?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(bytes)?;
    file.sync_data()
}
