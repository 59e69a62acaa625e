use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::ids::{RunName, Step};
use domain::inspection::Inspection;
use domain::picture::{Picture, RunPicture};
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::{InspectionEntry, JournalEntry, RecordCursor, SinkPosition, Store, StoreError, StoredRecord};
use tracing::warn;

use crate::Sink;

/// Records read at once: some hundred kilobytes.
const RECORDS: usize = 2_000;
/// Facts read at once.
const FACTS: usize = 500;

/// What a sink reads, how far it has come, and what it remembers of each run. What it remembers is durable once the feed
/// was saved; until then a restart finds what was there before.
pub(crate) struct Feed<N> {
    store: Store,
    key: String,
    position: SinkPosition,
    /// The position that is durable; none before the first.
    saved: Option<SinkPosition>,
    notes: BTreeMap<RunName, N>,
    changed: BTreeSet<RunName>,
}

impl<N: Clone + Default + PartialEq + Serialize + DeserializeOwned> Feed<N> {
    /// The feed of `sink`, from where it was left.
    pub(crate) async fn open(store: Store, sink: &Sink) -> Result<Self, StoreError> {
        let key = sink.key();
        let known = store.sink(&key).await?;
        let saved = known.as_ref().map(|(position, _)| *position);
        let (position, kept) = known.unwrap_or_default();
        let mut notes = BTreeMap::new();
        for (name, note) in kept {
            match serde_json::from_str(&note) {
                Ok(note) => {
                    notes.insert(name, note);
                }
                Err(cause) => warn!(%sink, %name, %cause, "what was noted cannot be read, and is forgotten"),
            }
        }
        Ok(Self { store, key, position, saved, notes, changed: BTreeSet::new() })
    }

    /// Whether the sink was never followed before.
    pub(crate) fn is_new(&self) -> bool {
        self.saved.is_none()
    }

    /// What is remembered of a run or sweep.
    pub(crate) fn note(&self, name: &RunName) -> N {
        self.notes.get(name).cloned().unwrap_or_default()
    }

    /// Remembers something else from now on.
    pub(crate) fn set_note(&mut self, name: &RunName, note: N) {
        if self.notes.get(name) != Some(&note) {
            self.notes.insert(name.clone(), note);
            self.changed.insert(name.clone());
        }
    }

    /// How far the sink has come.
    pub(crate) fn position(&self) -> SinkPosition {
        self.position
    }

    /// The next records of all runs, in the order in which they became durable.
    pub(crate) async fn records(&self) -> Result<Vec<StoredRecord>, StoreError> {
        self.store.read_stored(self.position.records, RECORDS).await
    }

    /// A run with what its data hold, which is durable before its records are, while the picture may lag behind. Whoever
    /// has read a record finds its run in the picture that is shown after that.
    pub(crate) async fn run(&self, picture: &Picture, name: &RunName) -> Result<Option<Arc<RunPicture>>, StoreError> {
        let Some(mut run) = picture.run(name).cloned() else { return Ok(None) };
        if run.data.is_none() {
            Arc::make_mut(&mut run).data = self.store.data_facts(name).await?;
        }
        Ok(Some(run))
    }

    /// All records of a run so far that count, up to number `through`.
    pub(crate) async fn history(&self, run: &RunName, through: u64) -> Result<Vec<StoredRecord>, StoreError> {
        let mut cursor = Some(RecordCursor::default());
        let mut history = Vec::new();
        while let Some(after) = cursor {
            let (page, next) = self.store.read_history(run, after, RECORDS).await?;
            history.extend(page.into_iter().filter(|stored| !stored.rolled_back && stored.sequence <= through));
            cursor = next;
        }
        Ok(history)
    }

    /// What was seen next of the inside of a run's model behind number `after`, of the steps up to `through` that count.
    pub(crate) async fn next_inspection(
        &self,
        run: &RunName,
        after: u64,
        through: u64,
    ) -> Result<Option<(InspectionEntry, Inspection)>, StoreError> {
        self.store.next_inspection(run, after, Step(through)).await
    }

    /// The next facts.
    pub(crate) async fn facts(&self) -> Result<Vec<JournalEntry>, StoreError> {
        self.store.read_journal(self.position.journal, FACTS).await
    }

    /// At most so many facts up to the position, oldest first.
    pub(crate) async fn facts_before(&self, count: usize) -> Result<Vec<JournalEntry>, StoreError> {
        let after = self.position.journal.saturating_sub(count as u64);
        let mut facts = self.store.read_journal(after, count).await?;
        facts.retain(|fact| fact.sequence <= self.position.journal);
        Ok(facts)
    }

    /// The first fact of all.
    pub(crate) async fn first_fact(&self) -> Result<Option<JournalEntry>, StoreError> {
        Ok(self.store.read_journal(0, 1).await?.pop())
    }

    /// The number of the newest fact.
    pub(crate) async fn newest_fact(&self) -> Result<u64, StoreError> {
        self.store.newest_entry().await
    }

    /// Takes note of how far the sink has come. It is durable once it is [saved](Self::save).
    pub(crate) fn move_to(&mut self, position: SinkPosition) {
        self.position = position;
    }

    /// Makes durable how far the sink has come and what it remembers.
    pub(crate) async fn save(&mut self) -> Result<(), StoreError> {
        if self.saved == Some(self.position) && self.changed.is_empty() {
            return Ok(());
        }
        let text = |name: &RunName| {
            let note = serde_json::to_string(&self.notes[name]).expect("a note has string keys and finite numbers");
            (name.clone(), note)
        };
        let notes = self.changed.iter().map(text).collect();
        self.store.move_sink(&self.key, self.position, notes).await?;
        self.saved = Some(self.position);
        self.changed.clear();
        Ok(())
    }
}
