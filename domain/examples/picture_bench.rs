//! What it costs to show a change: `cargo run --release -p domain --example picture_bench [TRIALS]`.
//!
//! A sweep is played with one worker. After every event, what changed is put over the picture and published, while the
//! version before is still held by somebody who looks. For comparison, everything is copied as a whole.

#![expect(clippy::print_stdout, reason = "it is what an example is for")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::engine::{AttemptOutcome, Effect, Engine, Event, Timing, WorkerInfo};
use domain::ids::{Step, Time, WorkerId};
use domain::picture::Picture;
use domain::record::{Position, SavedPart};
use domain::spec::file::sweep;

/// Steps of a trial.
const STEPS: u64 = 4;
/// Events that are timed at the end, when all trials are there.
const TIMED: usize = 2_000;

fn main() {
    let trials: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let mut engine = Engine::new(Timing::default());
    let mut picture = Picture::default();
    let mut waiting = VecDeque::from(opening(trials));
    let mut costs: Vec<Duration> = Vec::new();
    let mut looked_at = Arc::new(picture.clone());
    let mut now = 0;
    while let Some(event) = waiting.pop_front() {
        now += 1;
        for effect in engine.apply(Time(now), event) {
            waiting.extend(answers(effect));
        }
        let changes = engine.take_changes();
        let began = Instant::now();
        picture.put(changes, &engine);
        looked_at = Arc::new(picture.clone());
        costs.push(began.elapsed());
    }
    let mut last = costs.split_off(costs.len().saturating_sub(TIMED));
    last.sort();
    let micros = |at: usize| last[at].as_nanos() as f64 / 1e3;
    let (median, most) = (micros(last.len() / 2), micros(last.len() * 99 / 100));
    println!("{} trials: an event is shown in {median:.1} us (99 %: {most:.1} us)", looked_at.runs().len());
    let began = Instant::now();
    let copy = looked_at.view();
    println!("copying all {} runs as a whole takes {:.0} us", copy.runs.len(), began.elapsed().as_nanos() as f64 / 1e3);
}

/// A sweep and a worker.
fn opening(trials: usize) -> [Event; 2] {
    let text = format!(
        "{{version: 1, name: s, job: {{data: {{format: idx, images: i, labels: l}}, train: {{steps: {STEPS}, \
         global_batch: 8, micro_batches: 2}}, model: {{type: vit, image: [4, 4], channels: 1, patch: 2, dim: 8, depth: 1, \
         heads: 1, classes: 2}}}}, space: {{schedule.lr_max: {{uniform: [0.5, 1.5]}}}}, trials: {trials}, \
         searcher: {{type: random}}}}"
    );
    let spec = sweep::read(&text, "s.yaml", Path::new("/"), |_| Err("no other file".to_owned()));
    let spec = Box::new(spec.unwrap_or_else(|problems| panic!("{problems}")));
    let worker = WorkerInfo {
        id: WorkerId(1),
        host: "here".to_owned(),
        pid: 1,
        device: "cpu".to_owned(),
        peer_address: "127.0.0.1:1".to_owned(),
        ring_address: "127.0.0.1:2".to_owned(),
    };
    [Event::SweepSubmitted { spec }, Event::Joined { worker, running: None }]
}

/// What a worker and the driver tell in answer to an effect.
fn answers(effect: Effect) -> Vec<Event> {
    match effect {
        Effect::Assign { assignment, .. } => {
            let (trial, generation, position) = (assignment.trial, assignment.generation, assignment.recorded);
            let step = Step(STEPS);
            let part = SavedPart {
                step,
                rank: 0,
                world: 1,
                path: String::new(),
                bytes: 1,
                blake3: String::new(),
                weights_sha256: String::new(),
            };
            let done = Position { step, evaluated: true };
            let eval_loss = (trial.run.as_str().len() as f64).into();
            vec![
                Event::Formed { trial: trial.clone(), generation, position },
                Event::Advanced { trial: trial.clone(), generation, position: done },
                Event::Measured { trial: trial.clone(), generation, step, eval_loss, eval_accuracy: 0.5.into() },
                Event::PartSaved { trial: trial.clone(), generation, part },
                Event::AttemptEnded { trial, generation, outcome: AttemptOutcome::Completed { step } },
            ]
        }
        Effect::CommitCheckpoint { trial, generation, step, .. } => {
            let (manifest, blake3, weights_sha256) = (format!("{trial}"), String::new(), String::new());
            vec![Event::Committed { trial, generation, step, manifest, blake3, weights_sha256 }]
        }
        _ => Vec::new(),
    }
}
