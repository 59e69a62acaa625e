//! The picture: what the edges of a coordinator know at one moment, for people and tools.
//!
//! It is made from the engine's changes ([`Picture::put`]) and given to whoever looks by cloning it. A clone shares
//! everything with the original, and a change replaces what changed and the way to it, so both cost the same whether a
//! sweep has ten trials or ten thousand.

use std::collections::BTreeSet;
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync, VectorSync};

use crate::batch::BatchPlan;
use crate::engine::Engine;
use crate::ids::{RunName, Time, WorkerId};
use crate::record::{StepRecord, Vitals};
use crate::spec::JobSpec;
use crate::spec::sweep::SweepSpec;
use crate::view::{DataFacts, RunState, RunView, SweepTrialView, SweepView, View, WorkerView};

/// What can be seen at one moment. Never changed once it is published.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    version: u64,
    runs: RedBlackTreeMapSync<RunName, Arc<RunPicture>>,
    sweeps: RedBlackTreeMapSync<RunName, SweepPicture>,
    workers: Arc<Vec<WorkerView>>,
    vitals: RedBlackTreeMapSync<WorkerId, Vitals>,
    workers_changed: u64,
    stall: Option<Arc<Stall>>,
    stall_changed: u64,
}

/// Nothing can be made durable at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Why.
    pub cause: String,
    /// When it was noticed.
    pub since: Time,
}

/// A run, with what is known beside its view.
#[derive(Clone, Debug)]
pub struct RunPicture {
    /// As the engine sees it.
    pub view: RunView,
    /// What it was asked to be.
    pub spec: Arc<JobSpec>,
    /// The newest durable step of its live lineage, without the reads.
    pub newest: Option<StepRecord>,
    /// What its data hold, once a worker has told.
    pub data: Option<DataFacts>,
    /// The picture in which it changed last.
    pub changed: u64,
}

/// A sweep.
#[derive(Clone, Debug)]
pub struct SweepPicture {
    /// As the engine sees it, without its trials.
    pub view: Arc<SweepView>,
    /// What it was asked to be.
    pub spec: Arc<SweepSpec>,
    /// The picture in which it or one of its trials changed last.
    pub changed: u64,
    trials: VectorSync<Arc<TrialPicture>>,
}

/// A trial of a sweep.
#[derive(Clone, Debug)]
pub struct TrialPicture {
    /// As the engine sees it.
    pub view: SweepTrialView,
    /// The picture in which it changed last.
    pub changed: u64,
}

impl Picture {
    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A run as it stands.
    pub fn run(&self, name: &RunName) -> Option<&Arc<RunPicture>> {
        self.runs.get(name)
    }

    /// All runs by name, trials of sweeps too.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = &Arc<RunPicture>> {
        self.runs.values()
    }

    /// A sweep as it stands.
    pub fn sweep(&self, name: &RunName) -> Option<&SweepPicture> {
        self.sweeps.get(name)
    }

    /// All sweeps by name.
    pub fn sweeps(&self) -> impl ExactSizeIterator<Item = &SweepPicture> {
        self.sweeps.values()
    }

    /// All workers by id.
    pub fn workers(&self) -> &[WorkerView] {
        &self.workers
    }

    /// How a worker is doing; nothing is known of one that has not told.
    pub fn vitals(&self, worker: WorkerId) -> Vitals {
        self.vitals.get(&worker).copied().unwrap_or_default()
    }

    /// The version in which a worker changed last.
    pub fn workers_changed(&self) -> u64 {
        self.workers_changed
    }

    /// Where the run or sweep of this name stands: both have a log.
    pub fn state(&self, name: &RunName) -> Option<RunState> {
        self.run(name).map(|run| run.view.state).or(self.sweep(name).map(|sweep| sweep.view.state))
    }

    /// Takes over what [`Engine::take_changes`] told: the runs, and trials of sweeps, of which something is different, and
    /// all workers. What they were asked to be is asked of `engine`, once.
    pub fn put(&mut self, changes: View, engine: &Engine) {
        self.version += 1;
        let View { runs, workers, sweeps } = changes;
        if *self.workers != workers {
            self.forget_unless(&workers);
            self.workers = Arc::new(workers);
            self.workers_changed = self.version;
        }
        for view in runs {
            self.put_run(view, engine);
        }
        for view in sweeps {
            self.put_sweep(view, engine);
        }
    }

    /// What a worker told is dropped with the worker, and when it is not connected.
    fn forget_unless(&mut self, workers: &[WorkerView]) {
        let connected: BTreeSet<WorkerId> = workers.iter().filter(|w| w.connected).map(|w| w.info.id).collect();
        let gone: Vec<WorkerId> = self.vitals.keys().filter(|id| !connected.contains(id)).copied().collect();
        for id in gone {
            self.vitals.remove_mut(&id);
        }
    }

    fn put_run(&mut self, view: RunView, engine: &Engine) {
        let changed = self.version;
        let name = view.name.clone();
        let run = match self.runs.get(&name) {
            Some(known) => {
                let RunPicture { view: _, spec, newest, data, changed: _ } = &**known;
                RunPicture { view, spec: spec.clone(), newest: newest.clone(), data: *data, changed }
            }
            None => {
                let Some(spec) = engine.spec(&name) else { return };
                RunPicture { view, spec: Arc::new(spec.clone()), newest: None, data: None, changed }
            }
        };
        self.runs.insert_mut(name, Arc::new(run));
    }

    fn put_sweep(&mut self, mut view: SweepView, engine: &Engine) {
        let trials = std::mem::take(&mut view.trials);
        let (spec, mut known) = match self.sweeps.get(&view.name) {
            Some(sweep) if trials.is_empty() && *sweep.view == view => return,
            Some(sweep) => (sweep.spec.clone(), sweep.trials.clone()),
            None => {
                let Some(spec) = engine.sweep_spec(&view.name) else { return };
                (Arc::new(spec.clone()), VectorSync::new_sync())
            }
        };
        let changed = self.version;
        for view in trials {
            let place = view.number as usize;
            let trial = Arc::new(TrialPicture { view, changed });
            // Trials are numbered without gaps, and told in the order of their numbers.
            if !known.set_mut(place, trial.clone()) {
                known.push_back_mut(trial);
            }
        }
        let name = view.name.clone();
        self.sweeps.insert_mut(name, SweepPicture { view: Arc::new(view), spec, changed, trials: known });
    }

    /// A step of a run became durable, or none is left of it.
    pub fn set_newest(&mut self, name: &RunName, newest: Option<StepRecord>) {
        self.change(name, |run| run.newest = newest);
    }

    /// What the data of a run hold.
    pub fn set_data(&mut self, name: &RunName, data: DataFacts) {
        self.change(name, |run| run.data = Some(data));
    }

    /// A worker that is there told how it is doing.
    pub fn set_vitals(&mut self, worker: WorkerId, vitals: Vitals) {
        let is_there = self.workers.iter().any(|known| known.info.id == worker && known.connected);
        if is_there && self.vitals(worker) != vitals {
            self.version += 1;
            self.workers_changed = self.version;
            self.vitals.insert_mut(worker, vitals);
        }
    }

    /// Why nothing can be made durable, if that is so.
    pub fn stall(&self) -> Option<&Stall> {
        self.stall.as_deref()
    }

    /// The version in which [`Picture::stall`] changed last.
    pub fn stall_changed(&self) -> u64 {
        self.stall_changed
    }

    /// From now on nothing can be made durable, or everything again.
    pub fn set_stall(&mut self, stall: Option<Stall>) {
        self.version += 1;
        self.stall_changed = self.version;
        self.stall = stall.map(Arc::new);
    }

    /// Something happened that no view shows, such as new log lines of a run or sweep.
    pub fn touch(&mut self, name: &RunName) {
        self.version += 1;
        let changed = self.version;
        if let Some(sweep) = self.sweeps.get(name).cloned() {
            self.sweeps.insert_mut(name.clone(), SweepPicture { changed, ..sweep });
        }
        self.change(name, |_| {});
    }

    fn change(&mut self, name: &RunName, change: impl FnOnce(&mut RunPicture)) {
        let Some(run) = self.runs.get_mut(name) else { return };
        self.version += 1;
        let run = Arc::make_mut(run);
        run.changed = self.version;
        change(run);
    }

    /// All of it as the engine would tell it.
    pub fn view(&self) -> View {
        let whole = |sweep: &SweepPicture| {
            let trials = sweep.trials().map(|trial| trial.view.clone()).collect();
            SweepView { trials, ..(*sweep.view).clone() }
        };
        View {
            runs: self.runs().map(|run| run.view.clone()).collect(),
            workers: self.workers.to_vec(),
            sweeps: self.sweeps().map(whole).collect(),
        }
    }
}

impl RunPicture {
    /// The samples of the run by step, if a worker has told how many there are.
    pub fn plan(&self) -> Option<BatchPlan> {
        let data = self.data.filter(|data| data.train_samples > 0)?;
        Some(self.spec.batch_plan(data.train_samples))
    }

    /// Samples that the step of `record` read, counted from the plan; `None` while that is unknown.
    pub fn samples_of(&self, record: &StepRecord) -> Option<u64> {
        let positions = self.plan()?.step_positions(record.step.0.saturating_sub(1));
        Some(positions.end - positions.start)
    }

    /// Samples read in a second of the step of `record`.
    pub fn samples_per_second(&self, record: &StepRecord) -> Option<f64> {
        let samples = self.samples_of(record).filter(|_| record.micros > 0)?;
        Some(samples as f64 / (record.micros as f64 / 1e6))
    }
}

impl SweepPicture {
    /// Its trials by number.
    pub fn trials(&self) -> impl ExactSizeIterator<Item = &TrialPicture> {
        self.trials.iter().map(|trial| &**trial)
    }

    /// One of its trials.
    pub fn trial(&self, number: u32) -> Option<&TrialPicture> {
        self.trials.get(number as usize).map(|trial| &**trial)
    }
}
