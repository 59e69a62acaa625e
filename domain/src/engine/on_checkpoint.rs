use std::collections::BTreeSet;

use super::trial::{Checkpoint, Phase, Save, Trial};
use super::{Effect, EndReason, Engine, Refusal, note};
use crate::ids::{Generation, RunName, Step, Time, TrialId};
use crate::keep;
use crate::record::SavedPart;

/// Deletions that are repeated after a restart. Effects of a few events at most are lost in a crash.
const DELETED_MAX: usize = 16;

impl Engine {
    pub(super) fn on_part_saved(
        &mut self,
        now: Time,
        id: &TrialId,
        generation: Generation,
        part: SavedPart,
        effects: &mut Vec<Effect>,
    ) {
        let step = part.step;
        let Some(trial) = self.trials.get_mut(id).filter(|trial| trial.can_have_saved(generation, step)) else {
            return;
        };
        if trial.gave_up_save(generation, step) {
            effects.push(Effect::DropSave { trial: id.clone(), generation, step });
            return;
        }
        // A part of another group size, or of a rank outside the group, would be waited with for ever.
        let is_older = generation < trial.generation;
        if is_older || trial.has_checkpoint_at(step) || part.world != trial.world || part.rank >= part.world {
            return;
        }
        let save = trial.saves.entry((generation, step)).or_default();
        let was_complete = save.is_complete();
        if let Some(cause) = save.contradicts(&part) {
            trial.saves.remove(&(generation, step));
            if !trial.is_ended() {
                self.end(now, id, EndReason::Failed { cause }, effects);
            }
            return;
        }
        save.parts.entry(part.rank).or_insert(part);
        // The manifest must not run ahead of the records: a history with a gap could not be audited.
        if save.is_complete() && !was_complete && trial.recorded.step >= step {
            effects.push(save.commit(id, generation, step));
        }
    }

    pub(super) fn on_part_failed(
        &mut self,
        now: Time,
        id: &TrialId,
        generation: Generation,
        step: Step,
        cause: String,
        effects: &mut Vec<Effect>,
    ) {
        let Some(trial) = self.trials.get_mut(id).filter(|trial| trial.can_have_saved(generation, step)) else {
            return;
        };
        if trial.is_committed(generation, step) {
            return;
        }
        effects.push(Effect::DropSave { trial: id.clone(), generation, step });
        let is_lost = trial.saves.remove(&(generation, step)).is_some();
        let is_current = trial.generation == generation;
        if trial.has_checkpoint_at(step) || !(is_lost || is_current) || trial.lost_saves.contains_key(&step) {
            return;
        }
        note(effects, id, format!("the checkpoint of step {step} is lost, training goes on: {cause}"));
        trial.lost_saves.insert(step, cause);
        self.finish_if_saved(now, id, effects);
    }

    pub(super) fn on_committed(&mut self, now: Time, id: &TrialId, checkpoint: Checkpoint, effects: &mut Vec<Effect>) {
        let Some(trial) = self.trials.get_mut(id) else { return };
        if trial.checkpoints.iter().any(|known| known.manifest == checkpoint.manifest) {
            return;
        }
        let was_wanted = trial.saves.remove(&(checkpoint.generation, checkpoint.step)).is_some();
        if !was_wanted || trial.has_checkpoint_at(checkpoint.step) {
            // The history went on from before it while the manifest was written.
            effects.push(Effect::DeleteCheckpoints { trial: id.clone(), manifests: vec![checkpoint.manifest] });
            return;
        }
        note(effects, id, format!("checkpoint of step {} saved", checkpoint.step));
        trial.broken_in_a_row = 0;
        let place = trial.checkpoints.partition_point(|known| known.step < checkpoint.step);
        // Few are kept at a time, and most trials have one.
        trial.checkpoints.reserve_exact(1);
        trial.checkpoints.insert(place, checkpoint);
        self.finish_if_saved(now, id, effects);
        self.apply_retention(id, effects);
    }

    /// Whether a run has a checkpoint of `step`: only what is there can be kept.
    pub(super) fn check_checkpoint(&self, run: &RunName, step: Step) -> Result<(), Refusal> {
        if self.trials[&self.known(run)?].has_checkpoint_at(step) {
            return Ok(());
        }
        Err(Refusal::NoSuchCheckpoint { run: run.clone(), step })
    }

    pub(super) fn on_pin_requested(&mut self, id: &TrialId, step: Step, effects: &mut Vec<Effect>) {
        let Some(checkpoint) = self.trials.get_mut(id).and_then(|trial| trial.checkpoint_at(step)) else { return };
        if !std::mem::replace(&mut checkpoint.is_pinned, true) {
            note(effects, id, format!("checkpoint of step {step} is pinned"));
        }
    }

    pub(super) fn on_unpin_requested(&mut self, id: &TrialId, step: Step, effects: &mut Vec<Effect>) {
        let Some(checkpoint) = self.trials.get_mut(id).and_then(|trial| trial.checkpoint_at(step)) else { return };
        if std::mem::replace(&mut checkpoint.is_pinned, false) {
            note(effects, id, format!("checkpoint of step {step} is no longer pinned"));
            self.apply_retention(id, effects);
        }
    }

    /// Gives up the checkpoints that need not stay. While a group is forming, its members may be reading one.
    pub(super) fn apply_retention(&mut self, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        if matches!(trial.phase, Phase::Forming { .. }) {
            return;
        }
        let of_sweep = trial.sweep.as_ref().map(|(name, number)| self.sweeps[name].wanted_steps(*number));
        let manifests = self.trial_mut(id).give_up_checkpoints(&of_sweep.unwrap_or_default());
        if !manifests.is_empty() {
            effects.push(Effect::DeleteCheckpoints { trial: id.clone(), manifests });
        }
    }
}

impl Trial {
    /// Whether the run can have come to a save of `step` in `generation`.
    fn can_have_saved(&self, generation: Generation, step: Step) -> bool {
        generation <= self.generation && self.can_reach(step)
    }

    fn checkpoint_at(&mut self, step: Step) -> Option<&mut Checkpoint> {
        self.checkpoints.iter_mut().find(|checkpoint| checkpoint.step == step)
    }

    /// Whether the parts that `generation` wrote of `step` are of no use, and its manifest is not being written.
    fn gave_up_save(&self, generation: Generation, step: Step) -> bool {
        if self.is_committed(generation, step) || self.saves.contains_key(&(generation, step)) {
            return false;
        }
        generation < self.generation || self.lost_saves.contains_key(&step) || self.has_checkpoint_at(step)
    }

    /// `wanted` ones stay too.
    fn give_up_checkpoints(&mut self, wanted: &BTreeSet<Step>) -> Vec<String> {
        let kept = keep::kept(&self.spec.checkpoint, self.spec.early_stopping.metric, &self.candidates());
        let mut given_up = Vec::new();
        self.checkpoints.retain(|checkpoint| {
            let stays = kept.contains(&checkpoint.step) || wanted.contains(&checkpoint.step);
            if !stays {
                given_up.push(checkpoint.manifest.clone());
            }
            stays
        });
        self.deleted.extend(given_up.iter().cloned());
        let surplus = self.deleted.len().saturating_sub(DELETED_MAX);
        self.deleted.drain(..surplus);
        given_up
    }
}

impl Save {
    /// The manifest over these parts is to be written.
    pub(super) fn commit(&self, id: &TrialId, generation: Generation, step: Step) -> Effect {
        let parts = self.parts.values().cloned().collect();
        Effect::CommitCheckpoint { trial: id.clone(), generation, step, parts }
    }

    /// Why `part` cannot belong to the same state as the parts before it.
    fn contradicts(&self, part: &SavedPart) -> Option<String> {
        let (_, first) = self.parts.first_key_value()?;
        if first.weights_sha256 == part.weights_sha256 && first.world == part.world {
            return None;
        }
        Some(format!(
            "replicas diverged at step {}: rank {} of {} has weights {}, rank {} of {} has weights {}",
            part.step, first.rank, first.world, first.weights_sha256, part.rank, part.world, part.weights_sha256
        ))
    }
}
