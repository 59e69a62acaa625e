//! A sweep that is played with one worker that computes nothing.

use std::path::Path;

use domain::engine::{AttemptOutcome, Effect, Event, WorkerInfo};
use domain::ids::{Step, WorkerId};
use domain::record::{Position, SavedPart};
use domain::spec::file::sweep;

/// Steps of a trial.
const STEPS: u64 = 4;

/// A sweep and a worker.
pub(crate) fn opening(trials: usize) -> [Event; 2] {
    let text = format!(
        "{{version: 1, name: s, job: {{data: {{format: idx, images: i, labels: l}}, train: {{steps: {STEPS}, \
         global_batch: 8, micro_batches: 2}}, model: {{type: vit, image: [4, 4], channels: 1, patch: 2, dim: 8, depth: 1, \
         heads: 1, classes: 2}}}}, space: {{schedule.lr: {{uniform: [0.5, 1.5]}}}}, trials: {trials}, \
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
pub(crate) fn answers(effect: Effect) -> Vec<Event> {
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
                Event::AttemptEnded { trial, generation, outcome: AttemptOutcome::Completed { step }, worker: None },
            ]
        }
        Effect::CommitCheckpoint { trial, generation, step, .. } => {
            let (manifest, blake3, weights_sha256) = (format!("{trial}"), String::new(), String::new());
            vec![Event::Committed { trial, generation, step, manifest, blake3, weights_sha256 }]
        }
        _ => Vec::new(),
    }
}
