//! Whole attempts: device threads over the real ring, under a coordinator that does what the test says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use domain::batch::Length;
use domain::engine::{Assignment, AttemptOutcome, StartFrom, StateInMemory, WorkerInfo};
use domain::ids::{Generation, Rank, Step, TrialId, WorkerId};
use domain::record::{EvalRecord, Position, Record, SavedPart, StepRecord};
use domain::spec::*;
use proto::convert::{self, Command, Report};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::device::{self, Device};
use crate::peer::{self, Offers};
use crate::report::Outbox;

mod inspection;

/// A test that waits for longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const STEPS: u64 = 12;

/// A job that trains a very small model on the digits for a few steps.
pub(crate) fn digits() -> JobSpec {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/digits").join(name);
    JobSpec {
        name: "digits".parse().unwrap(),
        seed: 7,
        workers: 2,
        min_workers: 1,
        priority: 0,
        data: DataSpec {
            source: DataSource::Idx { images: file("images-idx3-ubyte.gz"), labels: file("labels-idx1-ubyte.gz") },
            holdout: Holdout::Fraction(0.1),
            pixel_max: 16.0,
            mean: vec![0.3],
            std: vec![0.4],
            augment: AugmentSpec { shift: 1, flip: false },
        },
        model: ModelSpec::Vit(VitSpec {
            height: 8,
            width: 8,
            channels: 1,
            patch: 4,
            dim: 16,
            depth: 1,
            heads: 2,
            mlp_dim: 32,
            classes: 10,
            pool: Pool::Mean,
            dropout: 0.1,
        }),
        train: TrainSpec {
            length: Length::Steps(STEPS),
            global_batch: 40,
            micro_batches: 5,
            label_smoothing: 0.1,
            clip_norm: Some(1.0),
            on_non_finite: NonFinitePolicy::Stop,
            precision: Precision::F32,
        },
        optimizer: OptimizerSpec {
            rule: OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8 },
            weight_decay: 0.05,
            decay: Decay::Matrices,
        },
        schedule: ScheduleSpec { lr_max: 0.01, warmup_steps: 2, shape: ScheduleShape::Cosine { lr_min: 0.0 } },
        eval: EvalSpec { every: Every::Steps(5), batch: 16 },
        checkpoint: CheckpointSpec { every: Every::Steps(4), keep_last: 1, keep_best: 0, keep_every_steps: None },
        early_stopping: EarlyStoppingSpec {
            metric: EvalMetric::EvalLoss,
            patience: None,
            min_delta: 0.0,
            threshold: None,
            max_seconds: None,
        },
        inspect: None,
    }
}

struct Worker {
    info: WorkerInfo,
    outbox: Outbox,
    device: Device,
}

/// Workers and what they have reported.
struct Cluster {
    runtime: Runtime,
    checkpoints: tempfile::TempDir,
    shutdown: CancellationToken,
    spec: JobSpec,
    workers: Vec<Worker>,
    generation: Generation,
    /// What the next assignment says.
    start: StartFrom,
    recorded: Position,
    skip_updates: Vec<Step>,
    /// Who leaves in good order.
    leaving: Vec<WorkerId>,
    /// Where the next group rests.
    rest: Option<Length>,
    reports: Receiver<(usize, Report)>,
    reporting: Sender<(usize, Report)>,
    /// Everything that was taken from `reports`, in order.
    seen: Vec<(usize, Report)>,
}

impl Cluster {
    fn new(spec: JobSpec, workers: usize) -> Self {
        let (reporting, reports) = channel();
        let mut cluster = Self {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            checkpoints: tempfile::tempdir().unwrap(),
            shutdown: CancellationToken::new(),
            spec,
            workers: Vec::new(),
            generation: Generation(0),
            start: StartFrom::Scratch,
            recorded: Position::default(),
            skip_updates: Vec::new(),
            leaving: Vec::new(),
            rest: None,
            reports,
            reporting,
            seen: Vec::new(),
        };
        (0..workers).for_each(|_| cluster.add_worker());
        cluster
    }

    fn trial(&self) -> TrialId {
        TrialId { run: self.spec.name.clone(), number: 0 }
    }

    fn url(&self) -> String {
        format!("file://{}", self.checkpoints.path().display())
    }

    fn add_worker(&mut self) {
        let index = self.workers.len();
        let _inside = self.runtime.enter();
        let ring = collective::ring::Listener::bind("127.0.0.1:0").unwrap();
        let peers = self.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let info = WorkerInfo {
            id: WorkerId(100 + index as u64),
            host: "here".to_owned(),
            pid: 1,
            device: "cpu".to_owned(),
            peer_address: peers.local_addr().unwrap().to_string(),
            ring_address: ring.local_addr().to_string(),
        };
        let (offers, outbox) = (Offers::default(), Outbox::default());
        self.runtime.spawn(peer::serve(peers, offers.clone(), self.shutdown.child_token()));
        self.runtime.spawn(forward(index, outbox.clone(), self.reporting.clone()));
        let device =
            device::start(device::Parts { ring, offers, outbox: outbox.clone(), profile: None, spans: None }).unwrap();
        device.commands.set_checkpoint_url(self.url());
        self.workers.push(Worker { info, outbox, device });
    }

    fn command(&self, worker: usize, command: Command) {
        self.workers[worker].device.commands.send(command);
    }

    /// Assigns the trial to a new group of these workers.
    fn assign(&mut self, members: &[usize], state: StateInMemory) {
        self.generation = self.generation.next();
        let infos: Vec<WorkerInfo> = members.iter().map(|index| self.workers[*index].info.clone()).collect();
        for (rank, index) in (0..).zip(members) {
            let assignment = Assignment {
                trial: self.trial(),
                generation: self.generation,
                rank: Rank(rank),
                members: infos.clone(),
                leaving: self.leaving.clone(),
                spec: self.spec.clone(),
                start: self.start.clone(),
                recorded: self.recorded,
                skip_updates: self.skip_updates.clone(),
                state,
                until: self.rest,
            };
            self.command(*index, Command::Assign(Box::new(assignment)));
        }
    }

    /// The first report that is what is waited for, among those seen or still to come.
    fn until<T>(&mut self, wanted: impl Fn(usize, &Report) -> Option<T>) -> T {
        if let Some(found) = self.seen.iter().find_map(|(worker, report)| wanted(*worker, report)) {
            return found;
        }
        loop {
            let next = self.reports.recv_timeout(PATIENCE);
            let (worker, report) = next.unwrap_or_else(|_| panic!("nothing comes after {:#?}", self.seen));
            let found = wanted(worker, &report);
            self.seen.push((worker, report));
            if let Some(found) = found {
                return found;
            }
        }
    }

    fn until_step(&mut self, step: u64) {
        self.until(|_, report| match report {
            Report::Records { records, .. } => records.last()?.position().step.0.ge(&step).then_some(()),
            _ => None,
        });
    }

    fn until_ended(&mut self) -> AttemptOutcome {
        let generation = self.generation;
        self.until(|_, report| match report {
            Report::AttemptEnded { generation: of, outcome, .. } => (*of == generation).then(|| outcome.clone()),
            _ => None,
        })
    }

    /// Waits for all parts of a checkpoint of this generation, and commits it.
    fn commit(&mut self, step: u64) -> String {
        let mut parts: BTreeMap<u32, SavedPart> = BTreeMap::new();
        let generation = self.generation;
        while parts.values().next().is_none_or(|part| parts.len() < part.world as usize) {
            let part = self.until(|_, report| match report {
                Report::PartSaved { part, generation: of, .. } => {
                    let is_new = *of == generation && part.step.0 == step && !parts.contains_key(&part.rank);
                    is_new.then(|| part.clone())
                }
                _ => None,
            });
            parts.insert(part.rank, part);
        }
        let weights_sha256 = parts[&0].weights_sha256.clone();
        let manifest = store::Manifest {
            version: store::MANIFEST_VERSION,
            trial: self.trial(),
            generation: self.generation,
            step: Step(step),
            parts: parts.into_values().collect(),
            weights_sha256: weights_sha256.clone(),
            spec: self.spec.clone(),
        };
        let store = store::CheckpointStore::open(&self.url()).unwrap();
        let committed = self.runtime.block_on(store.commit(&manifest)).unwrap();
        self.start = StartFrom::Checkpoint { step: Step(step), manifest: committed.path, blake3: committed.blake3 };
        weights_sha256
    }

    /// The weights after the last step of a run that has just completed.
    fn result(&mut self) -> String {
        assert_eq!(self.until_ended(), AttemptOutcome::Completed { step: Step(STEPS) });
        self.commit(STEPS)
    }

    /// The records of the lineage: of what was made twice, the newer.
    fn records(&self) -> (Vec<StepRecord>, Vec<EvalRecord>) {
        let (mut steps, mut evals) = (BTreeMap::new(), BTreeMap::new());
        let sent = self.seen.iter().filter_map(|(_, report)| match report {
            Report::Records { records, .. } => Some(records),
            _ => None,
        });
        for record in sent.flatten() {
            match record {
                Record::Step(record) => drop(steps.insert(record.step, record.clone())),
                Record::Eval(record) => drop(evals.insert(record.step, record.clone())),
            }
        }
        (steps.into_values().collect(), evals.into_values().collect())
    }

    fn logs(&self) -> Vec<String> {
        let lines = self.seen.iter().filter_map(|(_, report)| match report {
            Report::Logs { lines, .. } => Some(lines.iter().map(|line| line.text.clone())),
            _ => None,
        });
        lines.flatten().collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for Worker { device, .. } in self.workers.drain(..) {
            device.commands.shut_down();
            let ended = device.thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the device thread panicked");
        }
    }
}

async fn forward(worker: usize, outbox: Outbox, reports: Sender<(usize, Report)>) {
    let mut sent_through = 0;
    loop {
        while let Some(report) = outbox.next(sent_through) {
            sent_through = sent_through.max(report.sequence);
            if reports.send((worker, convert::report_from_wire(report).unwrap())).is_err() {
                return;
            }
        }
        outbox.added().await;
    }
}

/// What must be equal whatever happens to the workers, to the bit.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    weights_sha256: String,
    steps: Vec<(Step, u64, u64, u64, bool)>,
    evals: Vec<(Step, u64, u64, u64)>,
    reads: Vec<Vec<(u32, Vec<u64>)>>,
}

impl Outcome {
    fn of(cluster: &mut Cluster) -> Self {
        let weights_sha256 = cluster.result();
        let (steps, evals) = cluster.records();
        let reads = |step: &StepRecord| step.reads.iter().map(|r| (r.micro_batch, r.samples.clone())).collect();
        Self {
            weights_sha256,
            reads: steps.iter().map(reads).collect(),
            steps: steps
                .iter()
                .map(|r| (r.step, r.loss.to_bits(), r.grad_norm.to_bits(), r.lr.to_bits(), r.skipped))
                .collect(),
            evals: evals.iter().map(|r| (r.step, r.loss.to_bits(), r.accuracy.to_bits(), r.samples)).collect(),
        }
    }

    fn undisturbed(spec: JobSpec, world: usize) -> Self {
        let mut cluster = Cluster::new(spec, world);
        cluster.assign(&(0..world).collect::<Vec<_>>(), StateInMemory::Keep);
        Self::of(&mut cluster)
    }
}

#[test]
fn the_result_does_not_depend_on_the_number_of_workers() {
    let alone = Outcome::undisturbed(digits(), 1);
    assert_eq!(alone.steps.iter().map(|s| s.0.0).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    assert_eq!(alone.evals.iter().map(|e| e.0.0).collect::<Vec<_>>(), [5, 10, 12]);
    for world in [2, 3] {
        assert_eq!(Outcome::undisturbed(digits(), world), alone, "{world} workers");
    }
    let mut other = digits();
    other.seed += 1;
    assert_ne!(Outcome::undisturbed(other, 1).weights_sha256, alone.weights_sha256);
}

#[test]
fn every_sample_is_read_once_an_epoch_even_by_a_short_last_step() {
    let mut spec = digits();
    (spec.train.length, spec.train.global_batch) = (Length::Epochs(1), 200);
    let mut cluster = Cluster::new(spec, 2);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    let AttemptOutcome::Completed { step } = cluster.until_ended() else { panic!("{:?}", cluster.seen) };
    let (steps, _) = cluster.records();
    let mut read: Vec<u64> = steps.iter().flat_map(|s| &s.reads).flat_map(|r| r.samples.clone()).collect();
    read.sort_unstable();
    assert_eq!((step.0, read), (9, (0..1617).collect::<Vec<_>>()));
    let readers: Vec<u64> = steps[0].reads.iter().map(|r| r.worker.0).collect();
    assert_eq!(readers, [100, 100, 100, 101, 101], "the ledger says who read");
}

#[test]
fn a_member_lost_and_replaced_changes_nothing() {
    let mut cluster = Cluster::new(digits(), 3);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    cluster.until_step(3);
    cluster.workers[0].device.commands.shut_down();
    // Rank 0 is lost with everything it had not delivered: what it did deliver is forgotten here too.
    cluster.seen.clear();
    cluster.assign(&[2, 1], StateInMemory::Keep);
    let formed = cluster.until(|worker, report| match report {
        Report::Formed { position, .. } if worker == 2 => Some(position.step.0),
        _ => None,
    });
    assert!(formed >= 2, "the survivor's state is gone on from");
    cluster.seen.retain(|(worker, _)| *worker != 0);
    assert_eq!(Outcome::of(&mut cluster), Outcome::undisturbed(digits(), 2));
}

#[test]
fn whoever_loses_a_member_says_so() {
    let mut spec = digits();
    spec.train.length = Length::Steps(1_000_000);
    let mut cluster = Cluster::new(spec, 3);
    cluster.assign(&[0, 1, 2], StateInMemory::Keep);
    cluster.until_step(1);
    cluster.workers[1].device.commands.shut_down();
    for survivor in [0, 2] {
        let broke = cluster.until(|worker, report| match report {
            Report::Broken { cause, generation: Generation(1), .. } if worker == survivor => Some(cause.clone()),
            _ => None,
        });
        assert!(broke.contains("lost"), "{broke}");
    }
}

#[test]
fn a_group_grows_between_two_steps() {
    let mut cluster = Cluster::new(digits(), 3);
    cluster.assign(&[0], StateInMemory::Keep);
    cluster.until_step(1);
    cluster.assign(&[1, 0, 2], StateInMemory::Keep);
    assert_eq!(Outcome::of(&mut cluster), Outcome::undisturbed(digits(), 1));
    let broken = |(_, report): &(usize, Report)| matches!(report, Report::Broken { .. });
    assert!(!cluster.seen.iter().any(broken), "members leave together: {:#?}", cluster.seen);
}

#[test]
fn a_group_shrinks_between_two_steps_if_nobody_is_lost() {
    let mut cluster = Cluster::new(digits(), 4);
    cluster.assign(&[0, 1, 2], StateInMemory::Keep);
    cluster.until_step(1);
    cluster.leaving = vec![cluster.workers[0].info.id];
    cluster.assign(&[1, 3, 2], StateInMemory::Keep);
    let formed = cluster.until(|worker, report| match report {
        Report::Formed { position, .. } if worker == 1 => Some(*position),
        _ => None,
    });
    let left = cluster.workers[0].outbox.running().unwrap();
    assert_eq!((left.generation, left.position), (Generation(1), formed), "it has finished the step with the others");
    assert_eq!(Outcome::of(&mut cluster), Outcome::undisturbed(digits(), 1));
    let broken = |(_, report): &(usize, Report)| matches!(report, Report::Broken { .. });
    assert!(!cluster.seen.iter().any(broken), "members leave together: {:#?}", cluster.seen);
}

#[test]
fn a_stopped_run_goes_on_from_its_checkpoint_on_other_workers() {
    let mut cluster = Cluster::new(digits(), 3);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    // It comes while the group forms, and ends it after the first step.
    cluster.command(1, Command::Stop { trial: cluster.trial(), generation: cluster.generation });
    assert_eq!(cluster.until_ended(), AttemptOutcome::Stopped { step: Step(1) });
    cluster.commit(1);
    for worker in [0, 1] {
        cluster.command(worker, Command::Release { trial: cluster.trial(), generation: cluster.generation });
    }
    cluster.recorded = Position { step: Step(1), evaluated: true };
    cluster.assign(&[2], StateInMemory::Keep);
    assert_eq!(Outcome::of(&mut cluster), Outcome::undisturbed(digits(), 1));
}

#[test]
fn a_run_that_rested_ends_as_one_that_never_did() {
    let mut undisturbed = Outcome::undisturbed(digits(), 1);
    // Once where it is evaluated anyway, once where it is not; in memory, then from its checkpoint on another worker.
    let mut cluster = Cluster::new(digits(), 3);
    for (members, rest) in [(vec![0, 1], 3), (vec![1, 0], 5), (vec![2], 8)] {
        cluster.rest = Some(Length::Steps(rest));
        cluster.assign(&members, StateInMemory::Keep);
        assert_eq!(cluster.until_ended(), AttemptOutcome::Rested { step: Step(rest) });
        cluster.commit(rest);
        cluster.recorded = Position { step: Step(rest), evaluated: true };
    }
    cluster.rest = None;
    cluster.assign(&[2, 0], StateInMemory::Keep);
    let mut outcome = Outcome::of(&mut cluster);
    assert_eq!(outcome.evals.iter().map(|e| e.0.0).collect::<Vec<_>>(), [3, 5, 8, 10, 12]);
    for outcome in [&mut outcome, &mut undisturbed] {
        outcome.evals.retain(|e| ![3, 8].contains(&e.0.0));
    }
    assert_eq!(outcome, undisturbed);
}

#[test]
fn a_rest_after_a_pass_over_the_data_is_at_its_last_step() {
    let mut cluster = Cluster::new(digits(), 1);
    cluster.spec.train.length = Length::Epochs(2);
    cluster.spec.train.global_batch = 400;
    cluster.rest = Some(Length::Epochs(1));
    cluster.assign(&[0], StateInMemory::Keep);
    // 1,618 training samples are four batches and a bit.
    assert_eq!(cluster.until_ended(), AttemptOutcome::Rested { step: Step(5) });
}

#[test]
fn records_that_are_durable_are_not_sent_again() {
    let mut spec = digits();
    spec.train.length = Length::Steps(1_000_000);
    let mut cluster = Cluster::new(spec, 3);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    cluster.until_step(1);
    // After "data opened" and "formed", the third report is the record of the first step.
    cluster.workers[0].outbox.acknowledge(3);
    // Some reports later, every rank has heard of that from rank 0.
    for _ in 0..3 {
        cluster.seen.clear();
        cluster.until_step(1);
    }
    cluster.workers[0].device.commands.shut_down();
    cluster.assign(&[1, 2], StateInMemory::Keep);
    let sent_again = cluster.until(|worker, report| match report {
        Report::Records { records, .. } if worker == 1 => Some(records[0].position()),
        _ => None,
    });
    assert_eq!(sent_again, Position { step: Step(2), evaluated: false });
}

#[test]
fn a_run_that_lost_all_its_workers_goes_on_from_a_checkpoint_and_records_again() {
    let mut cluster = Cluster::new(digits(), 2);
    cluster.assign(&[0], StateInMemory::Keep);
    cluster.commit(8);
    cluster.until_step(10);
    cluster.workers[0].device.commands.shut_down();
    // The lost worker's records are durable up to step 10, its state only up to step 8.
    cluster.recorded = Position { step: Step(10), evaluated: true };
    cluster.assign(&[1], StateInMemory::Keep);
    assert_eq!(Outcome::of(&mut cluster), Outcome::undisturbed(digits(), 1));
    cluster.seen.retain(|(worker, _)| *worker == 1);
    let (steps, _) = cluster.records();
    assert_eq!(steps.iter().map(|r| r.step.0).collect::<Vec<_>>(), (9..=STEPS).collect::<Vec<_>>());
}

#[test]
fn a_finished_run_formed_again_only_ends_again() {
    let mut cluster = Cluster::new(digits(), 2);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    let first = cluster.result();
    cluster.start = StartFrom::Scratch;
    cluster.seen.clear();
    cluster.assign(&[1, 0], StateInMemory::Keep);
    assert_eq!(cluster.result(), first, "saved again, since the start names no checkpoint of the last step");
    cluster.assign(&[0, 1], StateInMemory::Keep);
    cluster.seen.clear();
    assert_eq!(cluster.until_ended(), AttemptOutcome::Completed { step: Step(STEPS) });
    let saved = |(_, report): &(usize, Report)| matches!(report, Report::PartSaved { .. });
    assert!(!cluster.seen.iter().any(saved), "it is committed already");
}

#[test]
fn early_stopping_ends_the_run_at_the_same_step_everywhere() {
    let mut spec = digits();
    spec.early_stopping.threshold = Some(100.0);
    for world in [1, 2] {
        let mut cluster = Cluster::new(spec.clone(), world);
        cluster.assign(&(0..world).collect::<Vec<_>>(), StateInMemory::Keep);
        assert_eq!(cluster.until_ended(), AttemptOutcome::Completed { step: Step(5) });
        cluster.commit(5);
        assert!(cluster.logs().iter().any(|line| line.starts_with("stopped early: eval_loss reached")));
    }
}

/// A job whose first update sends the weights beyond all bounds.
fn exploding(policy: NonFinitePolicy) -> JobSpec {
    let mut spec = digits();
    spec.schedule = ScheduleSpec { lr_max: 1e30, warmup_steps: 0, shape: ScheduleShape::Constant };
    spec.train.on_non_finite = policy;
    spec
}

#[test]
fn a_non_finite_step_follows_the_policy() {
    let mut cluster = Cluster::new(exploding(NonFinitePolicy::Stop), 2);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    let AttemptOutcome::Failed { step, cause } = cluster.until_ended() else { panic!("{:?}", cluster.seen) };
    assert_eq!(step, Step(1));
    assert!(cause.starts_with("step 2 has loss NaN and gradient norm NaN; lower schedule.lr"), "{cause}");

    let mut cluster = Cluster::new(exploding(NonFinitePolicy::Skip), 2);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    assert_eq!(cluster.until_ended(), AttemptOutcome::Completed { step: Step(STEPS) });
    let skipped: Vec<bool> = cluster.records().0.iter().map(|r| r.skipped).collect();
    assert_eq!(skipped, (0..STEPS).map(|index| index > 0).collect::<Vec<_>>());

    let mut cluster = Cluster::new(exploding(NonFinitePolicy::Rollback), 2);
    cluster.assign(&[0, 1], StateInMemory::Keep);
    let asked = |cluster: &mut Cluster| {
        let generation = cluster.generation;
        cluster.until(|_, report| match report {
            Report::RollbackRequested { step, generation: of, .. } => (*of == generation).then_some(step.0),
            _ => None,
        })
    };
    assert_eq!(asked(&mut cluster), 2);
    cluster.skip_updates = vec![Step(1)];
    cluster.assign(&[0, 1], StateInMemory::Discard);
    assert_eq!(asked(&mut cluster), 3, "without the first update, it is the second that explodes");
    assert!(cluster.records().0[0].skipped);
}

#[test]
fn what_cannot_work_fails_with_all_its_causes() {
    type Harm = fn(&mut Cluster);
    let cases: [(Harm, &[&str]); 6] = [
        (
            |c| {
                let missing = PathBuf::from("/does/not/exist");
                c.spec.data.source = DataSource::Idx { images: missing.clone(), labels: missing };
            },
            &["cannot read /does/not/exist: ", "No such file"],
        ),
        (
            |c| {
                let ModelSpec::Vit(vit) = &mut c.spec.model;
                (vit.height, vit.width) = (16, 16);
            },
            &["the images are 8x8 with 1 channel, but the model wants 16x16"],
        ),
        (
            |c| {
                let manifest = "digits/0/4/1/manifest.json".to_owned();
                c.start = StartFrom::Checkpoint { step: Step(4), manifest, blake3: "0".repeat(64) };
            },
            &["cannot go on from checkpoint digits/0/4/1/manifest.json: "],
        ),
        (
            |c| {
                c.assign(&[0], StateInMemory::Keep);
                c.commit(4);
                c.until_ended();
                c.command(0, Command::Release { trial: c.trial(), generation: c.generation });
                c.spec.seed = 8;
            },
            &["cannot go on from checkpoint", "was made with seed = 7, this run has 8"],
        ),
        (
            |c| {
                let file = c.checkpoints.path().join("file");
                std::fs::write(&file, "in the way").unwrap();
                c.workers[0].device.commands.set_checkpoint_url(format!("file://{}", file.display()));
            },
            &["cannot save the state at the end: "],
        ),
        (|c| c.spec.data.pixel_max = 15.0, &["holds the pixel value 16, data.pixel_max is 15"]),
    ];
    for (harm, expected) in cases {
        let mut cluster = Cluster::new(digits(), 1);
        harm(&mut cluster);
        cluster.assign(&[0], StateInMemory::Keep);
        let AttemptOutcome::Failed { cause, .. } = cluster.until_ended() else { panic!("{:?}", cluster.seen) };
        assert!(expected.iter().all(|part| cause.contains(part)), "{cause}");
    }
}

#[test]
fn commands_of_older_generations_and_other_trials_change_nothing() {
    let mut cluster = Cluster::new(digits(), 1);
    cluster.generation = Generation(6);
    cluster.assign(&[0], StateInMemory::Keep);
    let (trial, other): (TrialId, TrialId) = (cluster.trial(), "other/0".parse().unwrap());
    cluster.command(0, Command::Stop { trial: trial.clone(), generation: Generation(6) });
    cluster.command(0, Command::Release { trial, generation: Generation(6) });
    cluster.command(0, Command::Stop { trial: other.clone(), generation: Generation(7) });
    cluster.command(0, Command::Release { trial: other, generation: Generation(7) });
    cluster.generation = Generation(5);
    cluster.assign(&[0], StateInMemory::Discard);
    cluster.generation = Generation(7);
    assert_eq!(cluster.until_ended(), AttemptOutcome::Completed { step: Step(STEPS) });
    let formed = cluster.seen.iter().filter(|(_, report)| matches!(report, Report::Formed { .. }));
    assert_eq!(formed.count(), 1);
}
