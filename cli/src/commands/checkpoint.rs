//! `phalanx checkpoint`: what is saved of a run, and the way out for it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use proto::convert;
use proto::v1::Checkpoint;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::args::{CheckpointListArgs, CheckpointPinArgs, CheckpointShowArgs, CheckpointVerb, ExportArgs};
use crate::client::{CheckpointFile, Client, Content};
use crate::exit::{Exit, Failure};
use crate::export;
use crate::output::{count, escape, json, note, print, table};
use crate::session::Session;

pub(crate) async fn run(verb: CheckpointVerb) -> Result<Exit, Failure> {
    match verb {
        CheckpointVerb::List(args) => list(args).await,
        CheckpointVerb::Show(args) => show(args).await,
        CheckpointVerb::Export(args) => export(args).await,
        CheckpointVerb::Pin(args) => pin(args).await,
    }
}

async fn list(args: CheckpointListArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let run = session.client.run(&args.run).await;
    session.close().await?;
    let checkpoints = run?.checkpoints;
    if args.json {
        print(&Value::from_iter(checkpoints.iter().map(json::checkpoint)).to_string())?;
    } else {
        print(&checkpoints_table(&checkpoints))?;
    }
    Ok(Exit::Done)
}

async fn pin(args: CheckpointPinArgs) -> Result<Exit, Failure> {
    let CheckpointPinArgs { run, step, unpin, place } = args;
    let mut session = Session::without_workers(&place).await?;
    let pinned = if unpin { session.client.unpin(&run, step).await } else { session.client.pin(&run, step).await };
    session.close().await?;
    pinned?;
    let told = if unpin { "is kept as the job says" } else { "is kept until it is unpinned" };
    print(&format!("the checkpoint of step {step} of run {run} {told}"))?;
    Ok(Exit::Done)
}

fn checkpoints_table(checkpoints: &[Checkpoint]) -> String {
    let rows: Vec<[String; 4]> = checkpoints
        .iter()
        .map(|checkpoint| {
            let kinds = [("result", checkpoint.result), ("best", checkpoint.best), ("pinned", checkpoint.pinned)];
            let kinds: Vec<&str> = kinds.iter().filter(|(_, is)| *is).map(|(kind, _)| *kind).collect();
            let kind = if kinds.is_empty() { "-".to_owned() } else { kinds.join(", ") };
            let weights = escape(&checkpoint.weights_sha256).chars().take(16).collect();
            [checkpoint.step.to_string(), kind, weights, escape(&checkpoint.manifest)]
        })
        .collect();
    table(["STEP", "KIND", "WEIGHTS SHA256", "MANIFEST"], &rows)
}

async fn show(args: CheckpointShowArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let read = session.client.checkpoint(&args.run, args.step, Content::Whole).await;
    session.close().await?;
    let file = read?;
    let tensors = SafeTensors::deserialize(&file.bytes).context("the coordinator sent no safetensors file")?;
    let mut rows: Vec<(String, Vec<usize>)> =
        tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
    rows.sort_unstable();
    if args.json {
        let tensors: Vec<Value> = rows.iter().map(|(name, shape)| json!({ "name": name, "shape": shape })).collect();
        let shown = json!({
            "run": args.run,
            "step": file.step,
            "weights_sha256": file.weights_sha256,
            "bytes": file.bytes.len(),
            "tensors": tensors,
        });
        print(&shown.to_string())?;
        return Ok(Exit::Done);
    }
    let rows: Vec<[String; 2]> = rows.iter().map(|(name, shape)| [escape(name), format!("{shape:?}")]).collect();
    print(&table(["TENSOR", "SHAPE"], &rows))?;
    let (tensors, bytes) = (count(rows.len() as u64, "tensor"), file.bytes.len());
    print(&format!("run {} at step {}: {tensors} in {bytes} bytes, all hashes match", args.run, file.step))?;
    print(&format!("weights sha256: {}", escape(&file.weights_sha256)))?;
    Ok(Exit::Done)
}

/// Writes a checkpoint's model.
pub(crate) async fn export(args: ExportArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let exported = read_and_write(&mut session.client, &args).await;
    session.close().await?;
    let (file, dir) = exported?;
    if !export::is_portable(&file.spec) {
        note("warning: transformers' ViT has no mean pooling, it will not compute the same with this model");
    }
    let shown = dir.display().to_string();
    if args.json {
        let line =
            json!({ "run": args.run, "step": file.step, "weights_sha256": file.weights_sha256, "output": shown });
        print(&line.to_string())?;
    } else {
        print(&format!("run {} at step {}: written to {}", args.run, file.step, escape(&shown)))?;
        print(&format!("weights sha256: {}", escape(&file.weights_sha256)))?;
    }
    Ok(Exit::Done)
}

async fn read_and_write(client: &mut Client, args: &ExportArgs) -> Result<(CheckpointFile, PathBuf), Failure> {
    let weights = client.checkpoint(&args.run, args.step, Content::Weights).await?;
    let default = || PathBuf::from(format!("{}-step-{}", args.run, weights.step));
    let dir = args.output.clone().unwrap_or_else(default);
    let names: &[&str] = if args.whole { &[MODEL, CONFIG, STATE, JOB] } else { &[MODEL, CONFIG] };
    export::must_be_new(names.iter().map(|name| dir.join(name)))?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    write(&dir, MODEL, &weights.bytes)?;
    write(&dir, CONFIG, &pretty(&export::config(&weights.spec)))?;
    if args.whole {
        let whole = client.checkpoint(&args.run, Some(weights.step), Content::Whole).await?;
        write(&dir, STATE, &whole.bytes)?;
        let spec = serde_json::from_str(&convert::spec_to_json(&weights.spec)).unwrap_or(Value::Null);
        write(&dir, JOB, &pretty(&spec))?;
    }
    Ok((weights, dir))
}

const MODEL: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const STATE: &str = "state.safetensors";
const JOB: &str = "job.json";

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    export::write(&dir.join(name), bytes)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_have_a_line_each() {
        let checkpoint = |step, best, result, pinned| Checkpoint {
            step,
            manifest: format!("a/0/{step}.json"),
            weights_sha256: "0123456789abcdef0123".to_owned(),
            best,
            result,
            pinned,
            ..Checkpoint::default()
        };
        assert_eq!(
            checkpoints_table(&[
                checkpoint(5, true, false, false),
                checkpoint(10, true, false, true),
                checkpoint(15, false, true, false),
                checkpoint(20, false, false, false),
            ]),
            "STEP  KIND          WEIGHTS SHA256    MANIFEST\n\
             5     best          0123456789abcdef  a/0/5.json\n\
             10    best, pinned  0123456789abcdef  a/0/10.json\n\
             15    result        0123456789abcdef  a/0/15.json\n\
             20    -             0123456789abcdef  a/0/20.json"
        );
    }
}
