//! A sweep through the engine in virtual time: `engine_bench [TRIALS] [SLOTS]`, 100000 and 16 unless told.
//!
//! Every trial is a second of training on one worker. Everything that the driver does for an event is done, but for files
//! and sockets: the engine applies it and gives its changes. Prints one JSON object.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::collections::BTreeMap;
use std::path::Path;

use domain::engine::{Assignment, AttemptOutcome, Effect, Engine, Event, Timing, WorkerInfo};
use domain::ids::{Generation, Rank, Step, Time, TrialId, WorkerId};
use domain::record::{Position, SavedPart};
use domain::spec::file::sweep;
use domain::view::{RunState, TrialState};

/// How long a trial trains, in milliseconds.
const TRIAL_MS: u64 = 1_000;

fn main() {
    let number = |n: usize, default: u64| std::env::args().nth(n).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (trials, slots) = (number(1, 100_000), number(2, 16));
    let mut cluster = Cluster::new(trials, slots);
    let empty_kib = resident_kib();
    let begin = processor_seconds();
    // Memory and time are looked at when a half has ended, too: what grows faster than the trials shows.
    cluster.run_until(trials / 2);
    let (half_kib, half_seconds) = (resident_kib(), processor_seconds() - begin);
    cluster.run_until(trials);
    let (whole_kib, seconds) = (resident_kib(), processor_seconds() - begin);
    let ideal_ms = trials.div_ceil(slots) * TRIAL_MS;
    println!(
        "{}",
        serde_json::json!({
            "trials": trials,
            "slots": slots,
            "events": cluster.events,
            "trials_per_second": trials as f64 / seconds,
            "trials_per_second_first_half": (trials / 2) as f64 / half_seconds,
            "trials_per_second_second_half": (trials - trials / 2) as f64 / (seconds - half_seconds),
            "bytes_per_trial": (whole_kib - empty_kib) * 1024 / trials as i64,
            "bytes_per_trial_second_half": (whole_kib - half_kib) * 1024 / (trials - trials / 2) as i64,
            "makespan_ms": cluster.now.0 - cluster.begin.0,
            "over_ideal": (cluster.now.0 - cluster.begin.0) as f64 / ideal_ms as f64 - 1.0,
        })
    );
}

/// Memory that this process holds.
fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// What this process, which has one thread, has used of the processor: on an idle machine the time that passed.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // Linux counts a hundred ticks a second here, whatever its clock.
    ticks as f64 / 100.0
}

/// The engine, and workers that do what they are told in virtual time.
struct Cluster {
    engine: Engine,
    begin: Time,
    now: Time,
    /// What is to happen when; at one time in the order in which it was planned.
    agenda: BTreeMap<(Time, u64), Event>,
    planned: u64,
    events: u64,
    ended: u64,
}

impl Cluster {
    fn new(trials: u64, slots: u64) -> Self {
        let begin = Time(1_000_000);
        let engine = Engine::new(Timing { lease_ms: u64::MAX / 4, ..Timing::default() });
        let mut cluster = Self { engine, begin, now: begin, agenda: BTreeMap::new(), planned: 0, events: 0, ended: 0 };
        for id in 1..=slots {
            let address = format!("127.0.0.1:{id}");
            let worker = WorkerInfo {
                id: WorkerId(id),
                host: "simulated".to_owned(),
                pid: 1,
                device: "cpu".to_owned(),
                peer_address: address.clone(),
                ring_address: address,
            };
            cluster.plan(0, Event::Joined { worker, running: None });
        }
        let text = format!(
            "version: 1\n\
             name: sweep\n\
             job:\n\
            \x20 data: {{format: image_folder, path: photos, holdout: 0.3}}\n\
            \x20 model: {{type: vit, image: [8, 8], channels: 1, patch: 2, dim: 32, depth: 1, heads: 4, classes: 10}}\n\
            \x20 train: {{steps: 10, global_batch: 8, micro_batches: 4}}\n\
             space:\n\
            \x20 schedule.lr: {{log_uniform: [1e-4, 1e-1]}}\n\
            \x20 optimizer.weight_decay: {{uniform: [0, 0.3]}}\n\
            \x20 model.dropout: {{uniform: [0, 0.3]}}\n\
             objectives: [{{metric: eval_loss}}]\n\
             searcher: {{type: random}}\n\
             trials: {trials}\n"
        );
        let load = |_: &Path| Err("the job is in the sweep".to_owned());
        let spec = sweep::read(&text, "sweep.yaml", Path::new("/"), load).expect("a sweep that can be read");
        cluster.plan(0, Event::SweepSubmitted { spec: Box::new(spec) });
        cluster
    }

    fn plan(&mut self, after_ms: u64, event: Event) {
        self.planned += 1;
        self.agenda.insert((self.now.after_ms(after_ms), self.planned), event);
    }

    /// Goes on until so many trials have ended.
    fn run_until(&mut self, ended: u64) {
        while self.ended < ended {
            let ((at, _), event) = self.agenda.pop_first().expect("the sweep is not over");
            self.now = at;
            self.events += 1;
            for effect in self.engine.apply(at, event) {
                self.perform(effect);
            }
            let changes = self.engine.take_changes();
            let trials = changes.sweeps.iter().flat_map(|sweep| &sweep.trials);
            let completed = trials.filter(|trial| trial.state == TrialState::Completed).count();
            let runs = changes.runs.iter().filter(|run| run.state == RunState::Completed).count();
            // A trial is told of again with the deletion of its older checkpoints, of which it has none here.
            self.ended += completed.min(runs) as u64;
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { assignment, .. } => self.train(*assignment),
            Effect::CommitCheckpoint { trial, generation, step, parts } => {
                let manifest = format!("{trial}/checkpoints/{step:010}/manifest-{generation}.json", step = step.0);
                let (blake3, weights_sha256) = ("0".repeat(64), parts[0].weights_sha256.clone());
                self.plan(0, Event::Committed { trial, generation, step, manifest, blake3, weights_sha256 });
            }
            _ => {}
        }
    }

    fn train(&mut self, assignment: Assignment) {
        let Assignment { trial, generation, .. } = assignment;
        self.plan(0, Event::Formed { trial: trial.clone(), generation, position: Position::default() });
        for event in results(&trial, generation) {
            self.plan(TRIAL_MS, event);
        }
    }
}

/// What a worker reports of the training of a trial.
fn results(trial: &TrialId, generation: Generation) -> [Event; 4] {
    let step = Step(10);
    let part = SavedPart {
        step,
        rank: Rank(0).0,
        world: 1,
        path: format!("{trial}/checkpoints/0000000010/{}.part", "0".repeat(64)),
        bytes: 100_000,
        blake3: "0".repeat(64),
        weights_sha256: "0".repeat(64),
    };
    let trial = trial.clone();
    let (eval_loss, eval_accuracy) = (0.5.into(), 0.5.into());
    let position = Position { step, evaluated: true };
    let outcome = AttemptOutcome::Completed { step };
    [
        Event::Measured { trial: trial.clone(), generation, step, eval_loss, eval_accuracy },
        Event::Advanced { trial: trial.clone(), generation, position },
        Event::PartSaved { trial: trial.clone(), generation, part },
        Event::AttemptEnded { trial, generation, outcome, worker: None },
    ]
}
