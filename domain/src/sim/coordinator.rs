use super::invariants::{
    invariant_a_completed_run_is_complete, invariant_repetition_is_harmless, invariant_replay_gives_the_same_engine,
    invariant_the_history_is_whole,
};
use super::plan::Plan;
use super::{Action, Command, Deadline, Effect, Engine, Event, Report, Step, World, sweep};
use crate::ids::{Generation, TrialId, WorkerId};
use crate::record::SavedPart;
use crate::view::View;

/// The driver, as the coordinator's is to be: journal, apply, perform.
impl World<'_> {
    pub(super) fn tell(&mut self, event: Event) {
        let Some(engine) = &mut self.engine else { return };
        let view = engine.view();
        let newest = |trial: &TrialId| {
            view.runs.iter().find(|run| run.name == trial.run).map_or(Generation(0), |run| run.generation)
        };
        let Some(event) = self.sabotage.hears(event, newest) else { return };
        if self.sabotage.journals(&event) {
            self.store.journal.push((self.now, event.clone()));
        }
        let effects = engine.apply(self.now, event.clone());
        let view = engine.view();
        self.plan_trials(&view);
        self.summary.effects += effects.len() as u64;
        self.say(|| format!("{event:?}"));
        self.check(&event, &effects, &view);
        if event.is_fact() && self.fault_in(self.crash_one_in) {
            // The journal has it, the effects are lost.
            return self.coordinator_crashes();
        }
        for effect in effects {
            self.perform(effect);
        }
        self.at(self.now, Action::Poll);
    }

    /// What new trials of a sweep will do follows from their jobs.
    fn plan_trials(&mut self, view: &View) {
        for run in view.runs.iter().filter(|run| run.sweep.is_some()) {
            if self.plans.contains_key(&run.name) {
                continue;
            }
            let engine = self.engine.as_ref().expect("the coordinator is up");
            let plan = Plan::of_trial(engine.spec(&run.name).expect("a shown run has a specification").clone());
            let undisturbed = match &run.parent {
                Some((parent, step)) => plan.undisturbed_from(&self.undisturbed[parent][..=step.0 as usize]),
                None => plan.undisturbed(),
            };
            self.undisturbed.insert(run.name.clone(), undisturbed);
            self.plans.insert(run.name.clone(), plan);
        }
    }

    fn check(&mut self, event: &Event, effects: &[Effect], view: &View) {
        let engine = self.engine.as_ref().expect("the coordinator is up");
        self.seen.check(engine, event, effects, view.clone());
        if event.is_fact() && self.store.journal.len().is_multiple_of(4) {
            invariant_repetition_is_harmless(engine, self.now, event);
        }
        for run in &view.runs {
            let records = self.store.records.get(&run.name).map_or(&[][..], Vec::as_slice);
            invariant_the_history_is_whole(run, records, &self.undisturbed[&run.name]);
            invariant_a_completed_run_is_complete(run, &self.store, &self.undisturbed[&run.name]);
            for checkpoint in &run.checkpoints {
                assert!(self.store.manifests.contains_key(&checkpoint.manifest), "a checkpoint that does not exist");
            }
            assert!(!run.reason.contains("diverged"), "replicas of {} diverged", run.name);
        }
        if let Some(sweep) = &self.sweep {
            sweep::invariant_limits_are_kept(sweep, view);
        }
    }

    fn perform(&mut self, effect: Effect) {
        if !matches!(effect, Effect::Assign { .. }) {
            self.say(|| format!("    {effect:?}"));
        }
        let Some(effect) = self.sabotage.performs(effect, &mut self.store) else { return };
        match effect {
            Effect::Assign { worker, assignment } => {
                self.say(|| {
                    let members: Vec<String> = assignment.members.iter().map(|m| m.id.short()).collect();
                    let (trial, generation, start) = (&assignment.trial, assignment.generation, &assignment.start);
                    format!("    Assign {} {trial} generation {generation} {members:?} {start:?}", worker.short())
                });
                self.send_down(worker, Command::Assign(assignment));
            }
            Effect::Stop { worker, trial, generation } => {
                self.send_down(worker, Command::Stop { trial, generation });
            }
            Effect::Release { worker, trial, generation } => {
                self.send_down(worker, Command::Release { trial, generation });
            }
            Effect::CommitCheckpoint { trial, generation, step, parts } => self.commit(trial, generation, step, &parts),
            Effect::DeleteCheckpoints { trial: _, manifests } => {
                for manifest in manifests {
                    self.store.manifests.remove(&manifest);
                }
            }
            Effect::DropSave { trial, generation, step } => self.store.drop_save(&trial, generation, step),
            Effect::RollBack { trial, step, generation } => {
                self.summary.steps_lost += self.store.newest_position(&trial.run).step.0.saturating_sub(step.0);
                self.store.roll_back(&trial.run, step, generation);
            }
            Effect::Note { .. } => {}
        }
    }

    fn commit(&mut self, trial: TrialId, generation: Generation, step: Step, parts: &[SavedPart]) {
        let event = if self.fault_in(25) {
            Event::PartFailed { trial, generation, step, cause: "the disk is full".into() }
        } else {
            let weights_sha256 = parts[0].weights_sha256.clone();
            let manifest = self.store.commit(&trial, generation, step, parts);
            Event::Committed { trial, generation, step, blake3: manifest.clone(), manifest, weights_sha256 }
        };
        let (life, event) = (self.life, Box::new(event));
        let delay = if self.fault_in(4) { 1500 } else { 30 };
        self.after_up_to(delay, Action::ManifestDone { life, event });
    }

    /// Applies deadlines that have come, and looks again when the next one is due.
    pub(super) fn poll(&mut self) {
        let Some((at, deadline)) = self.engine.as_ref().and_then(Engine::next_deadline) else { return };
        if at > self.now {
            let is_planned =
                self.agenda.range((self.now, u64::MAX)..=(at, u64::MAX)).any(|(_, a)| matches!(a, Action::Poll));
            if !is_planned {
                self.at(at, Action::Poll);
            }
            return;
        }
        if let Deadline::Lease { worker } = &deadline {
            self.connected.remove(worker);
            // The driver ends the stream; a frozen worker sees it when it thaws.
            if self.workers.get(worker).is_some_and(|w| !w.frozen) {
                self.break_link(*worker, false);
            }
        }
        self.tell(Event::DeadlinePassed { deadline: deadline.clone() });
        let next = self.engine.as_ref().and_then(Engine::next_deadline);
        if self.sabotage == super::Sabotage::DeadlinesAreIgnored {
            return;
        }
        assert!(next.is_none_or(|(_, next)| next != deadline) || self.engine.is_none(), "{deadline:?} passes for ever");
    }

    pub(super) fn hello_arrives(&mut self, id: WorkerId, link: u64, event: Event) {
        let is_current = self.workers.get(&id).is_none_or(|w| w.link.is_some_and(|l| l.id == link));
        if self.engine.is_some() && is_current {
            self.connected.insert(id, link);
            self.tell(event);
        }
    }

    pub(super) fn link_ends(&mut self, id: WorkerId, link: u64) {
        if self.connected.get(&id) == Some(&link) {
            self.connected.remove(&id);
            self.tell(Event::Lost { worker: id, cause: crate::engine::LossCause::ConnectionClosed });
        }
    }

    pub(super) fn report_arrives(&mut self, id: WorkerId, link: u64, sequence: u64, report: Report) {
        if self.connected.get(&id) != Some(&link) {
            return;
        }
        self.take_in(id, report);
        let is_up = self.connected.get(&id) == Some(&link);
        if is_up {
            self.send_down(id, Command::Acknowledge { sequence });
        }
    }

    fn take_in(&mut self, worker: WorkerId, report: Report) {
        match report {
            Report::Formed { trial, generation, position } => self.tell(Event::Formed { trial, generation, position }),
            Report::Broken { trial, generation, cause } => {
                self.tell(Event::Broken { trial, generation, worker, cause });
            }
            Report::Records { trial, generation, records } => {
                let view = self.engine.as_ref().expect("the coordinator is up").view();
                let is_current = view.runs.iter().any(|run| run.name == trial.run && run.generation == generation);
                if !is_current {
                    return;
                }
                if self.sabotage.stores_records(self.now) {
                    self.store.insert(&trial.run, &records);
                }
                if self.fault_in(300) {
                    return self.coordinator_crashes();
                }
                for record in &records {
                    if let Some(loss) = record.loss {
                        let (trial, step, eval_loss) = (trial.clone(), record.position.step, loss.into());
                        self.tell(Event::Measured { trial, generation, step, eval_loss, eval_accuracy: eval_loss });
                    }
                }
                let position = self.store.newest_position(&trial.run);
                self.tell(Event::Advanced { trial, generation, position });
            }
            Report::PartSaved { trial, generation, part } => self.tell(Event::PartSaved { trial, generation, part }),
            Report::PartFailed { trial, generation, step } => {
                self.tell(Event::PartFailed { trial, generation, step, cause: "the disk is full".into() });
            }
            Report::RollbackRequested { trial, generation, step } => {
                self.tell(Event::RollbackRequested { trial, generation, step, cause: "loss is NaN".into() });
            }
            Report::AttemptEnded { trial, generation, outcome } => {
                self.tell(Event::AttemptEnded { trial, generation, outcome, worker: Some(worker) });
            }
        }
    }

    pub(super) fn coordinator_crashes(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        self.say(|| "the coordinator crashes".to_owned());
        invariant_replay_gives_the_same_engine(&engine, &self.store, self.timing, self.now);
        self.connected.clear();
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            self.break_link(id, false);
        }
        let down_ms = if self.one_in(4) { 8000 } else { 800 };
        self.after_up_to(down_ms, Action::CoordinatorStarts);
    }

    pub(super) fn coordinator_starts(&mut self) {
        self.life += 1;
        self.summary.restarts += 1;
        let mut engine = Engine::new(self.timing);
        for (at, event) in &self.store.journal {
            engine.apply(*at, event.clone());
        }
        self.engine = Some(engine);
        self.tell(Event::Restarted);
        let runs = self.engine.as_ref().map(|engine| engine.view().runs).unwrap_or_default();
        for run in runs {
            let position = self.store.newest_position(&run.name);
            let trial = TrialId { run: run.name, number: 0 };
            self.tell_measured_again(&trial);
            self.tell(Event::Advanced { trial, generation: run.generation, position });
        }
    }
    /// An evaluation may be stored although the crash came before it was journalled. Told twice, it changes nothing.
    fn tell_measured_again(&mut self, trial: &TrialId) {
        let records = self.store.records.get(&trial.run).cloned().unwrap_or_default();
        for record in records {
            if let Some(loss) = record.loss {
                let (trial, generation, step) = (trial.clone(), record.generation, record.position.step);
                let (eval_loss, eval_accuracy) = (loss.into(), loss.into());
                self.tell(Event::Measured { trial, generation, step, eval_loss, eval_accuracy });
            }
        }
    }
}
