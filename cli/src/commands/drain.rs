//! `phalanx drain`: a worker gets no more work. Waits until what it does has gone on, or come to rest, without it.

use std::time::Duration;

use anyhow::Context;
use domain::ids::WorkerId;
use proto::v1::{GetClusterResponse, Run, RunState, Worker};

use crate::args::{DrainArgs, WorkerName};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::interrupts::Interrupts;
use crate::output::{escape, note, print, worker_name};
use crate::session::must_be_live;

/// How often the coordinator is asked whether the worker is free. A group changes in fractions of a second.
const ASK_EVERY: Duration = Duration::from_millis(200);

pub(crate) async fn run(args: DrainArgs) -> Result<Exit, Failure> {
    let DrainArgs { worker: name, undo, place } = args;
    let url = must_be_live(&place)?;
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let mut client = Client::connect(&url).await?;
    let cluster = client.cluster().await?;
    let worker = find(&cluster.workers, name)?;
    let shown = worker_name(worker.0);
    if undo {
        client.undrain(worker).await?;
        print(&format!("worker {shown} gets work again"))?;
        return Ok(Exit::Done);
    }
    let run = cluster.workers.into_iter().find(|known| known.id == worker.0).map(|known| known.run);
    client.drain(worker).await?;
    tokio::select! {
        is_there = until_free(&mut client, worker, run) => {
            let told = if is_there? { "is drained: it works for no run, and gets no work" } else { "is gone" };
            print(&format!("worker {shown} {told}"))?;
            Ok(Exit::Done)
        }
        () = interrupts.next() => {
            note("it gets no more work, and its run goes on without it, without this command");
            Ok(Exit::Left)
        }
    }
}

/// The worker that is meant.
fn find(workers: &[Worker], name: WorkerName) -> Result<WorkerId, Failure> {
    let digits = match name {
        // One that is away may have been drained before.
        WorkerName::Full(id) => return Ok(id),
        WorkerName::Short(digits) => digits,
    };
    let found: Vec<u64> = workers.iter().map(|worker| worker.id).filter(|id| *id as u32 == digits).collect();
    match found[..] {
        [id] => Ok(WorkerId(id)),
        [] => {
            let message = format!("there is no worker {name}");
            Err(Failure::config(anyhow::Error::msg(message)).hint("`phalanx status` shows all workers"))
        }
        _ => {
            let ids: Vec<String> = found.iter().map(|id| format!("{id:016x}")).collect();
            let message = format!("{} workers are called {name}", found.len());
            Err(Failure::config(anyhow::Error::msg(message)).hint(format!("name one in full: {}", ids.join(", "))))
        }
    }
}

/// Waits until a worker is in no group, and its last one goes on or rests without it. Whether it is there still.
async fn until_free(client: &mut Client, id: WorkerId, run: Option<String>) -> Result<bool, Failure> {
    let mut left = run;
    let mut told = false;
    loop {
        let GetClusterResponse { runs, workers, version: _, now_ms: _, stall: _ } = client.cluster().await?;
        let Some(worker) = workers.into_iter().find(|worker| worker.id == id.0) else { return Ok(false) };
        if !worker.run.is_empty() {
            if !std::mem::replace(&mut told, true) {
                note(&format!("waiting until run {} goes on or rests without it", escape(&worker.run)));
            }
            left = Some(worker.run);
        } else if !is_leaving(&runs, left.as_deref()) {
            return Ok(true);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Whether the next group of `left` is forming: until it has, the one before may be in its last step.
fn is_leaving(runs: &[Run], left: Option<&str>) -> bool {
    runs.iter().any(|run| Some(run.name.as_str()) == left && run.state() == RunState::Forming)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_found_by_what_status_shows() {
        let ids = [0x1111_1111_0000_00ab, 0x2222_2222_0000_00cd, 0x3333_3333_0000_00cd];
        let workers = ids.map(|id| Worker { id, ..Worker::default() });
        let found = |name: &str| find(&workers, name.parse().unwrap()).map(|id| id.0).map_err(|e| e.to_string());
        assert_eq!(found("000000ab"), Ok(ids[0]));
        assert_eq!(found("000000AB"), Ok(ids[0]));
        assert_eq!(found("22222222000000cd"), Ok(ids[1]));
        assert_eq!(
            found("000000ef"),
            Err("error: there is no worker 000000ef\n  hint: `phalanx status` shows all workers".to_owned())
        );
        assert_eq!(
            found("000000cd"),
            Err("error: 2 workers are called 000000cd\n  \
                 hint: name one in full: 22222222000000cd, 33333333000000cd"
                .to_owned())
        );
    }
}
