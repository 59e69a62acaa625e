//! A store, an engine and what is seen of it: a coordinator without edges.

use std::path::Path;
use std::sync::Arc;

use domain::engine::{AttemptOutcome, Effect, Engine, Event, LossCause, Timing, WorkerInfo};
use domain::ids::{Generation, RunName, Step, Time, TrialId, WorkerId};
use domain::inspection::{
    Attention, AttentionLayer, BUCKETS, Histogram, Inspection, Pattern, Sample, TensorHistograms,
};
use domain::picture::Picture;
use domain::record::{EvalRecord, Position, Record, SavedPart, StepRecord};
use domain::view::DataFacts;
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::FAST;
use crate::{Behind, Board, Secrets, Sink, follow};

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Store,
    engine: Engine,
    picture: Picture,
    shown: watch::Sender<Arc<Picture>>,
    now: Time,
}

/// A follower of sinks.
pub(super) struct Followed {
    stop: CancellationToken,
    task: JoinHandle<Vec<Behind>>,
    pub(super) board: Board,
}

impl Followed {
    /// Lets it catch up and end.
    pub(super) async fn end(self) -> Vec<Behind> {
        self.stop.cancel();
        self.task.await.unwrap()
    }

    /// Ends it wherever it is.
    pub(super) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }
}

impl World {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let (shown, _) = watch::channel(Arc::default());
        let engine = Engine::new(Timing::default());
        Self { folder, store, engine, picture: Picture::default(), shown, now: Time(1_700_000_000_000) }
    }

    pub(super) fn picture(&self) -> &Picture {
        &self.picture
    }

    pub(super) fn follow(&self, sinks: &[Sink], secrets: Secrets) -> Followed {
        let stop = CancellationToken::new();
        let pictures = self.shown.subscribe();
        let (sinks, store, board) = (sinks.to_vec(), self.store.clone(), Board::default());
        let (on, until) = (board.clone(), stop.clone());
        let task = tokio::spawn(async move { follow(sinks, secrets, store, pictures, FAST, &on, until).await });
        Followed { stop, task, board }
    }

    /// Journals facts, applies them, does what the engine asks for, and shows it.
    pub(super) async fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.now = self.now.after_ms(10);
            if event.is_fact() {
                self.store.append(vec![(self.now, event.clone())]).await.unwrap();
            }
            for effect in self.engine.apply(self.now, event) {
                match effect {
                    Effect::RollBack { trial, step, generation } => {
                        self.store.roll_back(&trial.run, step, generation).await.unwrap();
                    }
                    Effect::CommitCheckpoint { trial, generation, step, parts: _ } => {
                        let (manifest, blake3, weights_sha256) = ("m".to_owned(), "b".to_owned(), "w".to_owned());
                        events.push(Event::Committed { trial, generation, step, manifest, blake3, weights_sha256 });
                    }
                    _ => {}
                }
            }
        }
        self.picture.put(self.engine.take_changes(), &self.engine);
        self.shown.send_replace(Arc::new(self.picture.clone()));
    }

    pub(super) async fn submit(&mut self, name: &str) {
        let text = format!("{{version: 1, name: {name}, {JOB}, train: {{steps: 100, global_batch: 8}}}}");
        let spec = domain::spec::file::read(&text, "a.yaml", Path::new("/")).unwrap();
        self.tell(Event::Submitted { spec: Box::new(spec) }).await;
    }

    /// A sweep of two trials.
    pub(super) async fn submit_sweep(&mut self, name: &str) {
        let text = format!(
            "{{version: 1, name: {name}, job: {{{JOB}, train: {{steps: 100, global_batch: 8}}}}, trials: 2,
               searcher: {{type: random}}, max_concurrent: 1,
               space: {{schedule.lr: {{uniform: [0.1, 0.2]}}, model.dropout: {{categorical: [0, 0.1]}},
                        optimizer.type: {{categorical: [sgd]}}}}}}"
        );
        let load = |_: &Path| Err("there is no other file".to_owned());
        let spec = domain::spec::file::sweep::read(&text, "s.yaml", Path::new("/"), load).unwrap();
        self.tell(Event::SweepSubmitted { spec: Box::new(spec) }).await;
    }

    pub(super) async fn join(&mut self, worker: u64) {
        let info = WorkerInfo {
            id: WorkerId(worker),
            host: "h".into(),
            pid: 1,
            device: "cpu".into(),
            peer_address: "h:1".into(),
            ring_address: "h:2".into(),
        };
        self.tell(Event::Joined { worker: info, running: None }).await;
    }

    pub(super) async fn lose(&mut self, worker: u64) {
        self.tell(Event::Lost { worker: WorkerId(worker), cause: LossCause::Left }).await;
    }

    /// The group of a run forms at `step`, in the generation that it is assigned. Tells which.
    pub(super) async fn form(&mut self, run: &str, step: u64) -> u64 {
        let generation = self.picture.run(&name(run)).unwrap().view.generation;
        let position = Position { step: Step(step), evaluated: false };
        self.tell(Event::Formed { trial: trial(run), generation, position }).await;
        let data = DataFacts { train_samples: 40, total_steps: 100 };
        self.store.set_data_facts(&name(run), data).await.unwrap();
        self.picture.set_data(&name(run), data);
        generation.0
    }

    /// Steps of a run become durable, the last of them evaluated.
    pub(super) async fn train(&mut self, run: &str, generation: u64, steps: std::ops::RangeInclusive<u64>) {
        let last = *steps.end();
        let mut records: Vec<Record> = steps.map(|number| step(number, generation, 1.0 / number as f64)).collect();
        records.push(eval(last, generation));
        self.store(run, records).await;
        let position = Position { step: Step(last), evaluated: true };
        self.tell(Event::Advanced { trial: trial(run), generation: Generation(generation), position }).await;
    }

    pub(super) async fn store(&mut self, run: &str, records: Vec<Record>) {
        self.store.insert_records(&name(run), self.now, records).await.unwrap();
    }

    /// The inside of a run's model at a step becomes durable.
    pub(super) async fn see(&mut self, run: &str, step: u64, generation: u64) {
        self.store.insert_inspection(&name(run), self.now, inspection(step, generation)).await.unwrap();
    }

    pub(super) async fn complete(&mut self, run: &str, generation: u64) {
        let part = SavedPart {
            step: Step(100),
            rank: 0,
            world: 1,
            path: "p".into(),
            bytes: 1,
            blake3: "b".into(),
            weights_sha256: "w".into(),
        };
        let (trial, generation) = (trial(run), Generation(generation));
        self.tell(Event::PartSaved { trial: trial.clone(), generation, part }).await;
        let outcome = AttemptOutcome::Completed { step: Step(100) };
        self.tell(Event::AttemptEnded { trial, generation, outcome, worker: None }).await;
    }

    pub(super) async fn fail(&mut self, run: &str, generation: u64, cause: &str) {
        let outcome = AttemptOutcome::Failed { step: Step(1), cause: cause.to_owned() };
        self.tell(Event::AttemptEnded { trial: trial(run), generation: Generation(generation), outcome, worker: None })
            .await;
    }
}

const JOB: &str = "data: {format: idx, images: i, labels: l},
    model: {type: vit, image: [8, 8], channels: 1, patch: 2, dim: 8, depth: 1, heads: 2, classes: 3}";

pub(super) fn name(text: &str) -> RunName {
    RunName::new(text).unwrap()
}

fn trial(run: &str) -> TrialId {
    TrialId { run: name(run), number: 0 }
}

pub(super) fn step(step: u64, generation: u64, loss: f64) -> Record {
    Record::Step(StepRecord {
        step: Step(step),
        generation: Generation(generation),
        loss,
        grad_norm: f64::NAN,
        lr: 0.1,
        skipped: false,
        micros: 2_000,
        micros_outside_model: 500,
        reads: Vec::new(),
    })
}

pub(super) fn eval(step: u64, generation: u64) -> Record {
    let (step, generation) = (Step(step), Generation(generation));
    Record::Eval(EvalRecord { step, generation, loss: 0.5, accuracy: 0.75, samples: 9 })
}

fn inspection(step: u64, generation: u64) -> Inspection {
    let mut counts = vec![0; BUCKETS];
    counts[7] = 4;
    let histogram =
        Histogram { low: 0.0, high: 1.0, counts, min: 0.0, max: 1.0, mean: 0.5, std: 0.1, zeros: 0, non_finite: 0 };
    let tensor =
        TensorHistograms { name: "w".to_owned(), shape: vec![4], weights: histogram.clone(), gradient: histogram };
    let sample = Sample { label: 0, width: 1, height: 1, channels: 3, pixels: vec![1, 2, 3] };
    let layer = AttentionLayer {
        name: "layer".to_owned(),
        heads: 1,
        queries: 1,
        keys: 1,
        block: 1,
        patterns: vec![Pattern { peak: 1.0, cells: vec![u16::MAX] }],
    };
    Inspection {
        step: Step(step),
        generation: Generation(generation),
        tensors: vec![tensor],
        tensors_left_out: 0,
        attention: Some(Attention { samples: vec![sample], layers: vec![layer] }),
    }
}
