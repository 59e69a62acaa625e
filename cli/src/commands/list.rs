//! `phalanx list`: all runs, a line each.

use proto::v1::{Run, Sweep};
use serde_json::Value;

use crate::args::ListArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{escape, json, percent, print, run_state_name, table, utc};
use crate::session::Session;

pub(crate) async fn run(args: ListArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let asked = ask(&mut session.client).await;
    session.close().await?;
    let (runs, sweeps) = asked?;
    if args.json {
        print(&Value::from_iter(runs.iter().map(json::run)).to_string())?;
        return Ok(Exit::Done);
    }
    let alone: Vec<Run> = runs.into_iter().filter(|run| run.sweep.is_empty()).collect();
    print(&runs_table(&alone))?;
    if !sweeps.is_empty() {
        print(&format!("\n{}", sweeps_table(&sweeps)))?;
    }
    Ok(Exit::Done)
}

async fn ask(client: &mut Client) -> Result<(Vec<Run>, Vec<Sweep>), Failure> {
    Ok((client.cluster().await?.runs, client.all_sweeps().await?))
}

/// Sweeps under headings.
fn sweeps_table(sweeps: &[Sweep]) -> String {
    let rows: Vec<[String; 4]> = sweeps
        .iter()
        .map(|sweep| {
            let state = run_state_name(sweep.state()).to_owned();
            [escape(&sweep.name), state, sweep.trials_begun.to_string(), utc(sweep.submitted_at_ms)]
        })
        .collect();
    table(["SWEEP", "STATE", "TRIALS", "SUBMITTED"], &rows)
}

/// Runs under headings.
pub(crate) fn runs_table(runs: &[Run]) -> String {
    let rows: Vec<[String; 6]> = runs
        .iter()
        .map(|run| {
            [
                escape(&run.name),
                run_state_name(run.state()).to_owned(),
                steps(run),
                run.evals.last().map_or_else(|| "-".to_owned(), |e| percent(e.accuracy)),
                format!("{}/{}", run.members.len(), run.workers_wanted),
                utc(run.submitted_at_ms),
            ]
        })
        .collect();
    table(["NAME", "STATE", "STEP", "ACCURACY", "WORKERS", "SUBMITTED"], &rows)
}

/// `120/564`, or `120` while the end is not known.
pub(crate) fn steps(run: &Run) -> String {
    match run.total_steps {
        0 => run.step.to_string(),
        total => format!("{}/{total}", run.step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{EvalPoint, RunState};

    #[test]
    fn runs_have_a_line_each() {
        let mut done =
            Run { name: "digits".to_owned(), step: 564, total_steps: 564, workers_wanted: 2, ..Run::default() };
        done.set_state(RunState::Completed);
        done.evals = vec![EvalPoint { accuracy: 0.975, ..EvalPoint::default() }];
        let mut waiting = Run { name: "a".to_owned(), workers_wanted: 1, submitted_at_ms: 1000, ..Run::default() };
        waiting.set_state(RunState::Waiting);
        assert_eq!(
            runs_table(&[waiting, done]),
            "NAME    STATE      STEP     ACCURACY  WORKERS  SUBMITTED\n\
             a       waiting    0        -         0/1      1970-01-01T00:00:01Z\n\
             digits  completed  564/564  97.50 %   0/2      1970-01-01T00:00:00Z"
        );
    }
}
