//! A run as people see it.

use domain::engine::MetricValue;
use domain::picture::RunPicture;
use domain::view::{CheckpointView, DataFacts, MeasurementView, RunState, RunView};

use super::spec_to_json;
use crate::v1;

/// The most evaluations that a run is sent with, the newest ones: enough for a chart at a glance, while a message of it
/// stays within some kilobytes however long the run is. `ReadRecords` has all of them.
pub const EVALS_SHOWN_MAX: usize = 100;

/// A run as people see it.
pub fn run_to_wire(run: &RunPicture) -> v1::Run {
    let RunPicture { view, spec, newest: _, data, changed: _ } = run;
    let DataFacts { train_samples, total_steps } = data.unwrap_or_default();
    let RunView {
        name,
        sweep,
        parent,
        state,
        reason,
        generation,
        members,
        workers_wanted,
        priority,
        step,
        measurements,
        checkpoints,
        submitted_at,
        ended_at,
        failures,
        groups: _,
    } = view;
    v1::Run {
        name: name.to_string(),
        sweep: sweep.as_ref().map(ToString::to_string).unwrap_or_default(),
        parent: parent.as_ref().map(|(run, _)| run.to_string()).unwrap_or_default(),
        parent_step: parent.as_ref().map_or(0, |(_, step)| step.0),
        state: run_state_to_wire(*state).into(),
        reason: reason.clone(),
        generation: generation.0,
        members: members.iter().map(|w| w.0).collect(),
        workers_wanted: *workers_wanted,
        priority: *priority,
        step: step.0,
        total_steps,
        evals: newest(measurements, EVALS_SHOWN_MAX).iter().map(measurement_to_wire).collect(),
        checkpoints: checkpoints.iter().map(checkpoint_to_wire).collect(),
        submitted_at_ms: submitted_at.0,
        ended_at_ms: ended_at.map(|t| t.0),
        failures: *failures,
        spec_json: spec_to_json(spec),
        train_samples,
    }
}

/// The last `count` of what is in order of time.
fn newest<T>(all: &[T], count: usize) -> &[T] {
    &all[all.len().saturating_sub(count)..]
}

pub(super) fn run_state_to_wire(state: RunState) -> v1::RunState {
    match state {
        RunState::Waiting => v1::RunState::Waiting,
        RunState::Forming => v1::RunState::Forming,
        RunState::Running => v1::RunState::Running,
        RunState::Stopping => v1::RunState::Stopping,
        RunState::Stopped => v1::RunState::Stopped,
        RunState::Paused => v1::RunState::Paused,
        RunState::Pruned => v1::RunState::Pruned,
        RunState::Completed => v1::RunState::Completed,
        RunState::Failed => v1::RunState::Failed,
    }
}

fn measurement_to_wire(measurement: &MeasurementView) -> v1::EvalPoint {
    let MeasurementView { step, eval_loss, eval_accuracy } = *measurement;
    let value = |v: MetricValue| f64::from(v);
    v1::EvalPoint { step: step.0, generation: 0, loss: value(eval_loss), accuracy: value(eval_accuracy), samples: 0 }
}

fn checkpoint_to_wire(checkpoint: &CheckpointView) -> v1::Checkpoint {
    let CheckpointView { step, at: _, manifest, blake3, weights_sha256, best, result, pinned } = checkpoint;
    v1::Checkpoint {
        step: step.0,
        manifest: manifest.clone(),
        blake3: blake3.clone(),
        weights_sha256: weights_sha256.clone(),
        best: *best,
        result: *result,
        pinned: *pinned,
    }
}
