//! The JSON that `--json` prints. Numbers that are not finite become `null`; ids are text, since they need all 64 bits.

use proto::v1::{Checkpoint, EvalPoint, Run, StepPoint, Worker};
use serde_json::{Value, json};

use super::progress::{Change, run_state_name};
use super::show::Summary;

/// A run as it stands.
pub(crate) fn run(run: &Run) -> Value {
    let state = run_state_name(run.state());
    let Run {
        name,
        state: _,
        reason,
        generation,
        members,
        workers_wanted,
        step,
        total_steps,
        evals,
        checkpoints,
        submitted_at_ms,
        ended_at_ms,
        failures,
        spec_json,
        train_samples,
        sweep,
        parent,
        parent_step,
        priority,
    } = run;
    json!({
        "name": name,
        "state": state,
        "reason": reason,
        "generation": generation,
        "members": members.iter().map(|id| worker_id(*id)).collect::<Vec<_>>(),
        "workers_wanted": workers_wanted,
        "priority": priority,
        "step": step,
        "total_steps": total_steps,
        "evals": evals.iter().map(eval).collect::<Vec<_>>(),
        "checkpoints": checkpoints.iter().map(checkpoint).collect::<Vec<_>>(),
        "submitted_at_ms": submitted_at_ms,
        "ended_at_ms": ended_at_ms,
        "failures": failures,
        "train_samples": train_samples,
        "sweep": (!sweep.is_empty()).then_some(sweep),
        "parent": (!parent.is_empty()).then_some(parent),
        "parent_step": (!parent.is_empty()).then_some(parent_step),
        "spec": serde_json::from_str::<Value>(spec_json).unwrap_or(Value::Null),
    })
}

/// A worker.
pub(crate) fn worker(worker: &Worker) -> Value {
    let Worker { id, host, pid, device, peer_address, ring_address, connected, run, draining } = worker;
    json!({
        "id": worker_id(*id),
        "host": host,
        "pid": pid,
        "device": device,
        "peer_address": peer_address,
        "ring_address": ring_address,
        "connected": connected,
        "run": (!run.is_empty()).then_some(run),
        "draining": draining,
    })
}

/// A checkpoint.
pub(crate) fn checkpoint(checkpoint: &Checkpoint) -> Value {
    let Checkpoint { step, manifest, blake3, weights_sha256, best, result, pinned } = checkpoint;
    json!({
        "step": step,
        "manifest": manifest,
        "blake3": blake3,
        "weights_sha256": weights_sha256,
        "best": best,
        "result": result,
        "pinned": pinned,
    })
}

/// A worker's id in full.
pub(crate) fn worker_id(id: u64) -> String {
    format!("{id:016x}")
}

fn eval(eval: &EvalPoint) -> Value {
    json!({ "step": eval.step, "loss": eval.loss, "accuracy": eval.accuracy })
}

/// A line of a followed run.
pub(crate) fn change(change: &Change) -> Value {
    match change {
        Change::State { state, reason } => {
            json!({ "event": "state", "state": run_state_name(*state), "reason": reason })
        }
        Change::Group { generation, members, step } => json!({
            "event": "group",
            "generation": generation,
            "members": members.iter().map(|id| worker_id(*id)).collect::<Vec<_>>(),
            "step": step,
        }),
        Change::Step { point, total_steps, rate, accuracy: _ } => {
            let StepPoint { step, generation, loss, grad_norm, lr, skipped, micros, micros_outside_model, samples } =
                point;
            json!({
                "event": "step",
                "step": step,
                "total_steps": total_steps,
                "generation": generation,
                "loss": loss,
                "grad_norm": grad_norm,
                "lr": lr,
                "skipped": skipped,
                "micros": micros,
                "micros_outside_model": micros_outside_model,
                "samples": samples,
                "samples_per_second": rate.map(|r| r.samples_per_second),
            })
        }
        Change::Eval(eval) => {
            json!({ "event": "eval", "step": eval.step, "loss": eval.loss, "accuracy": eval.accuracy })
        }
        Change::Checkpoint { step, weights_sha256 } => {
            json!({ "event": "checkpoint", "step": step, "weights_sha256": weights_sha256 })
        }
    }
}

/// The last line of a followed run.
pub(crate) fn summary(summary: &Summary) -> Value {
    let Summary { run, seconds, samples_per_second, checkpoint_folder } = summary;
    let last = run.evals.last();
    let result = summary.checkpoint();
    json!({
        "event": "ended",
        "run": run.name,
        "state": run_state_name(run.state()),
        "reason": run.reason,
        "step": run.step,
        "total_steps": run.total_steps,
        "accuracy": last.map(|e| e.accuracy),
        "eval_loss": last.map(|e| e.loss),
        "seconds": seconds,
        "samples_per_second": samples_per_second,
        "failures": run.failures,
        "checkpoint_step": result.map(|c| c.step),
        "checkpoint": result.map(|c| checkpoint_path(checkpoint_folder.as_deref(), &c.manifest)),
        "weights_sha256": result.map(|c| &c.weights_sha256),
    })
}

/// Where a manifest lies, if the store is a folder of this machine; otherwise its path in the store.
pub(crate) fn checkpoint_path(folder: Option<&std::path::Path>, manifest: &str) -> String {
    folder.map_or_else(|| manifest.to_owned(), |folder| folder.join(manifest).display().to_string())
}
