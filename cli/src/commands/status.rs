//! `phalanx status`: the cluster, or one run in detail.

use domain::ids::RunName;
use proto::v1::{GetClusterResponse, Run, Stall, Worker};
use serde_json::json;

use crate::args::StatusArgs;
use crate::client::{Client, Named, SweepResults};
use crate::commands::list::{runs_table, steps};
use crate::exit::{Exit, Failure};
use crate::output::{
    escape, json, percent, print, run_state_name, stalled, sweep, table, terminal_width, utc, worker_name, worker_state,
};
use crate::session::Session;

pub(crate) async fn run(args: StatusArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let shown = match &args.run {
        Some(name) => of_run(&mut session.client, name, args.json).await,
        None => of_cluster(&mut session.client, args.json).await,
    };
    session.close().await?;
    print(&shown?)?;
    Ok(Exit::Done)
}

/// The best trials that are shown of a sweep; `sweep show` has more.
const TRIALS_SHOWN: usize = 5;

async fn of_cluster(client: &mut Client, json: bool) -> Result<String, Failure> {
    let GetClusterResponse { runs, workers, version: _, now_ms, stall } = client.cluster().await?;
    if json {
        let runs: Vec<_> = runs.iter().map(json::run).collect();
        let workers: Vec<_> = workers.iter().map(json::worker).collect();
        let stall = stall.map(|Stall { cause, since_ms }| json!({ "cause": cause, "since_ms": since_ms }));
        let whole = json!({ "coordinator": client.url(), "runs": runs, "workers": workers, "stall": stall });
        return Ok(whole.to_string());
    }
    let remedy = "workers go on and nothing is lost; see whether its disk is full";
    let stalled = stall.map(|stall| format!("{}\n{remedy}\n\n", escape(&stalled(&stall, now_ms)))).unwrap_or_default();
    Ok(format!("{stalled}{}\n\n{}", workers_table(&workers), runs_table(&runs)))
}

async fn of_run(client: &mut Client, name: &RunName, json: bool) -> Result<String, Failure> {
    let run = match client.named(name).await? {
        Named::Run(run) => run,
        Named::Sweep(found) if json => return Ok(sweep::sweep_json(&found).to_string()),
        Named::Sweep(found) => return Ok(sweep::sweep_text(&SweepResults::of(*found), TRIALS_SHOWN, terminal_width())),
    };
    Ok(if json { json::run(&run).to_string() } else { run_text(&run) })
}

fn workers_table(workers: &[Worker]) -> String {
    let rows: Vec<[String; 6]> = workers
        .iter()
        .map(|worker| {
            [
                worker_name(worker.id),
                escape(&worker.host),
                worker.pid.to_string(),
                escape(&worker.device),
                worker_state(worker).to_owned(),
                if worker.run.is_empty() { "-".to_owned() } else { escape(&worker.run) },
            ]
        })
        .collect();
    table(["WORKER", "HOST", "PID", "DEVICE", "STATE", "RUN"], &rows)
}

fn run_text(run: &Run) -> String {
    let state = run_state_name(run.state());
    let reason = if run.reason.is_empty() { String::new() } else { format!(": {}", escape(&run.reason)) };
    let members: Vec<String> = run.members.iter().map(|id| worker_name(*id)).collect();
    let mut lines = vec![
        format!("run:         {}", escape(&run.name)),
        format!("state:       {state}{reason}"),
        format!("step:        {}", steps(run)),
        format!("submitted:   {}", utc(run.submitted_at_ms)),
    ];
    if let Some(ended) = run.ended_at_ms {
        lines.push(format!("ended:       {}", utc(ended)));
    }
    if run.priority != 0 {
        lines.push(format!("priority:    {}", run.priority));
    }
    lines.push(format!("workers:     {} of {} ({})", members.len(), run.workers_wanted, members.join(", ")));
    lines.push(format!("generation:  {}, {} lost to failures", run.generation, run.failures));
    if let Some(eval) = run.evals.last() {
        let (accuracy, loss, step) = (percent(eval.accuracy), eval.loss, eval.step);
        lines.push(format!("accuracy:    {accuracy} (eval loss {loss:.4}, step {step})"));
    }
    if let Some(checkpoint) = run.checkpoints.last() {
        lines.push(format!("checkpoints: {}, the newest at step {}", run.checkpoints.len(), checkpoint.step));
    }
    lines.join("\n").replace(" ()\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::RunState;

    #[test]
    fn a_waiting_run_says_why() {
        let mut run = Run {
            name: "digits".to_owned(),
            reason: "too few workers: 1 of 2".to_owned(),
            workers_wanted: 2,
            priority: -3,
            ..Run::default()
        };
        run.set_state(RunState::Waiting);
        assert_eq!(
            run_text(&run),
            "run:         digits\n\
             state:       waiting: too few workers: 1 of 2\n\
             step:        0\n\
             submitted:   1970-01-01T00:00:00Z\n\
             priority:    -3\n\
             workers:     0 of 2\n\
             generation:  0, 0 lost to failures"
        );
    }

    #[test]
    fn workers_have_a_line_each() {
        let worker = Worker {
            id: 0x1234_5678_abcd_ef01,
            host: "node\u{1b}1".to_owned(),
            pid: 42,
            device: "cpu".to_owned(),
            connected: true,
            ..Worker::default()
        };
        let draining = Worker { draining: true, run: "digits".to_owned(), ..worker.clone() };
        let drained = Worker { draining: true, ..worker.clone() };
        let away = Worker { draining: true, connected: false, ..worker.clone() };
        assert_eq!(
            workers_table(&[worker, draining, drained, away]),
            "WORKER    HOST         PID  DEVICE  STATE      RUN\n\
             abcdef01  node\\u{1b}1  42   cpu     connected  -\n\
             abcdef01  node\\u{1b}1  42   cpu     draining   digits\n\
             abcdef01  node\\u{1b}1  42   cpu     drained    -\n\
             abcdef01  node\\u{1b}1  42   cpu     away       -"
        );
    }
}
