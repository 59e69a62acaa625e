use std::collections::BTreeMap;

use super::plan::State;
use crate::engine::Event;
use crate::ids::{Generation, RunName, Step, Time, TrialId};
use crate::record::{Position, SavedPart};

/// What survives a crash of the coordinator.
#[derive(Default)]
pub(super) struct Store {
    pub(super) journal: Vec<(Time, Event)>,
    pub(super) records: BTreeMap<RunName, Vec<Record>>,
    /// Written parts by path.
    pub(super) parts: BTreeMap<String, State>,
    /// Manifests that exist.
    pub(super) manifests: BTreeMap<String, Manifest>,
}

/// A completed step or evaluation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) position: Position,
    pub(super) generation: Generation,
    pub(super) weights: u64,
    /// Set for evaluations.
    pub(super) loss: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manifest {
    pub(super) trial: TrialId,
    pub(super) generation: Generation,
    pub(super) step: Step,
    pub(super) state: State,
}

impl Store {
    /// The live record of a step that is there already stays.
    pub(super) fn insert(&mut self, run: &RunName, new: &[Record]) {
        let records = self.records.entry(run.clone()).or_default();
        for record in new {
            if !records.iter().any(|known| known.position == record.position) {
                records.push(record.clone());
            }
        }
        records.sort_by_key(|record| record.position);
    }

    pub(super) fn roll_back(&mut self, run: &RunName, step: Step, generation: Generation) {
        let records = self.records.entry(run.clone()).or_default();
        records.retain(|record| record.position.step <= step || record.generation >= generation);
    }

    pub(super) fn newest_position(&self, run: &RunName) -> Position {
        self.records.get(run).and_then(|records| records.last()).map_or(Position::default(), |r| r.position)
    }

    /// Committing needs the parts: one that is dropped too soon is noticed.
    pub(super) fn drop_save(&mut self, trial: &TrialId, generation: Generation, step: Step) {
        let folder = format!("{trial}/{generation}/{step}");
        if !self.manifests.contains_key(&folder) {
            let prefix = format!("{folder}/");
            self.parts.retain(|path, _| !path.starts_with(&prefix));
        }
    }

    pub(super) fn commit(
        &mut self,
        trial: &TrialId,
        generation: Generation,
        step: Step,
        parts: &[SavedPart],
    ) -> String {
        let path = format!("{trial}/{generation}/{step}");
        let state = self.parts[&parts[0].path].clone();
        for part in parts {
            assert_eq!(self.parts[&part.path], state, "parts of one checkpoint are of one state");
        }
        let (trial, manifest) = (trial.clone(), path.clone());
        self.manifests.insert(path, Manifest { trial, generation, step, state });
        manifest
    }
}
