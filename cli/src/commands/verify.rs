//! `phalanx verify`: the promise that the result does not depend on the cluster, put to the test with a job of yours.
//!
//! The job is trained in temporary state directories: by one worker, by several, by several of which one is killed on the
//! way and replaced, and by several that are stopped on the way and go on from the checkpoint. Then the weights are
//! compared bit by bit.

use std::path::Path;

use anyhow::Context;
use domain::spec::JobSpec;
use proto::v1::{Run, RunState};
use serde_json::{Value, json};

use crate::args::VerifyArgs;
use crate::client::{Client, Content};
use crate::cluster::{Cluster, Ending, start_coordinator};
use crate::commands::launch;
use crate::embedded::{ANY_LOCAL_PORT, Told};
use crate::exit::{Exit, Failure};
use crate::follow::{self, Disturbance, Ended};
use crate::interrupts::Interrupts;
use crate::job::{self, Overrides};
use crate::output::{Show, count, escape, note, print, table};
use crate::weights::{self, Difference};

pub(crate) async fn run(args: VerifyArgs) -> Result<Exit, Failure> {
    let overrides = Overrides { steps: args.steps, ..Overrides::default() };
    let spec = job::with_overrides(job::read(&args.file)?, overrides)?;
    job::check_workers(&spec, args.workers)?;
    let dir = tempfile::Builder::new().prefix("phalanx-verify-").tempdir();
    let dir = dir.context("cannot make a temporary folder")?;
    let mut bench = Bench {
        spec,
        dir: dir.path(),
        threads: args.threads,
        show: Show::bar_or_quiet(args.json),
        interrupts: Interrupts::listen().context("cannot listen for signals")?,
    };
    let Some(trained) = train_all(&mut bench, args.workers).await? else { return Ok(Exit::Left) };
    let pairs = compare_all(&trained)?;
    if args.json {
        print(&report_json(&trained, &pairs).to_string())?;
    } else {
        print(&report_text(&trained, &pairs))?;
    }
    Ok(if pairs.iter().all(|pair| pair.difference.max_ulp() == 0) { Exit::Done } else { Exit::Failed })
}

/// Where and how the cases are trained.
struct Bench<'a> {
    spec: JobSpec,
    dir: &'a Path,
    threads: Option<u32>,
    show: Show,
    interrupts: Interrupts,
}

/// One way to train the job.
struct Case {
    name: String,
    workers: u32,
    disturbance: Option<Disturbance>,
}

/// What came of it.
struct Trained {
    name: String,
    steps: u64,
    weights_sha256: String,
    model: Vec<u8>,
}

/// `None` if a user does not want to wait for the end.
async fn train_all(bench: &mut Bench<'_>, workers: u32) -> Result<Option<Vec<Trained>>, Failure> {
    let undisturbed = |workers| Case { name: count(u64::from(workers), "worker"), workers, disturbance: None };
    let Some(one) = bench.train(undisturbed(1)).await? else { return Ok(None) };
    // Early enough to have time to notice, late enough that there is something to lose.
    let (third, half) = ((one.steps / 3).max(1), (one.steps / 2).max(1));
    let killed = Case {
        name: format!("{workers} workers, one killed after step {third}"),
        workers,
        disturbance: Some(Disturbance::Kill { slot: workers - 1, at_step: third }),
    };
    let stopped = Case {
        name: format!("{workers} workers, stopped after step {half} and resumed"),
        workers,
        disturbance: Some(Disturbance::Stop { at_step: half }),
    };
    let mut all = vec![one];
    for case in [undisturbed(workers), killed, stopped] {
        let Some(trained) = bench.train(case).await? else { return Ok(None) };
        all.push(trained);
    }
    Ok(Some(all))
}

impl Bench<'_> {
    async fn train(&mut self, case: Case) -> Result<Option<Trained>, Failure> {
        note(&format!("training: {}", case.name));
        let overrides = Overrides { workers: Some(case.workers), ..Overrides::default() };
        let spec = job::with_overrides(self.spec.clone(), overrides)?;
        let state_dir = self.dir.join(case.name.replace(' ', "-"));
        let started = start_coordinator(&state_dir, ANY_LOCAL_PORT, None, Told::default(), async |client| {
            launch::submit(client, &spec).await
        });
        let (embedded, mut client, run) = started.await?;
        let mut cluster = Cluster::complete(embedded, &state_dir, case.workers, self.threads, None, None).await?;
        let trained = self.train_on(&mut cluster, &mut client, run, case).await;
        let ending = if matches!(trained, Ok(Some(_))) { Ending::Orderly } else { Ending::AtOnce };
        let closed = cluster.end(ending).await;
        let trained = trained?;
        closed?;
        Ok(trained)
    }

    async fn train_on(
        &mut self,
        cluster: &mut Cluster,
        client: &mut Client,
        run: Run,
        case: Case,
    ) -> Result<Option<Trained>, Failure> {
        let Case { name, workers: _, mut disturbance } = case;
        let is_stopped = matches!(disturbance, Some(Disturbance::Stop { .. }));
        let Some(mut run) = self.follow(cluster, client, &run, &mut disturbance).await? else { return Ok(None) };
        let missed = disturbance.is_some() || (is_stopped && run.state() == RunState::Completed);
        if missed && run.state() == RunState::Completed {
            let message = format!("the run ended after {} before it could be disturbed", count(run.step, "step"));
            return Err(Failure::config(anyhow::Error::msg(message)).hint("--steps N trains longer"));
        }
        if is_stopped && run.state() == RunState::Stopped && disturbance.is_none() {
            let run_name = run.name.parse().map_err(Failure::config)?;
            client.resume(&run_name).await?;
            let Some(ended) = self.follow(cluster, client, &run, &mut None).await? else { return Ok(None) };
            run = ended;
        }
        match run.state() {
            RunState::Completed => {}
            RunState::Failed => {
                let message = format!("{name}: the run failed: {}", escape(&run.reason));
                return Err(Failure::failed(anyhow::Error::msg(message)));
            }
            // Nothing but an interrupt stops it here.
            RunState::Unspecified
            | RunState::Waiting
            | RunState::Forming
            | RunState::Running
            | RunState::Stopping
            | RunState::Stopped
            | RunState::Paused
            | RunState::Pruned => return Ok(None),
        }
        let run_name = run.name.parse().map_err(Failure::config)?;
        let file = client.checkpoint(&run_name, None, Content::Weights).await?;
        Ok(Some(Trained { name, steps: run.step, weights_sha256: file.weights_sha256, model: file.bytes }))
    }

    /// The run as it came to rest; `None` if a user left before.
    async fn follow(
        &mut self,
        cluster: &mut Cluster,
        client: &Client,
        run: &Run,
        disturbance: &mut Option<Disturbance>,
    ) -> Result<Option<Run>, Failure> {
        let (show, interrupts) = (&mut self.show, &mut self.interrupts);
        match follow::follow(client, run, Some(cluster), show, interrupts, disturbance).await? {
            Ended::Run(summary) => Ok(Some(summary.run)),
            Ended::Detached | Ended::AtOnce => Ok(None),
        }
    }
}

/// Two cases and how their weights differ.
struct Pair<'a> {
    case: &'a Trained,
    compared_with: &'a Trained,
    difference: Difference,
}

/// Several workers with one worker, and what was disturbed with what was not.
fn compare_all(trained: &[Trained]) -> Result<Vec<Pair<'_>>, Failure> {
    let [one, several, disturbed @ ..] = trained else { return Ok(Vec::new()) };
    let pairs = [(several, one)].into_iter().chain(disturbed.iter().map(|case| (case, several)));
    pairs
        .map(|(case, compared_with)| {
            let difference = weights::compare(&compared_with.model, &case.model)?;
            Ok(Pair { case, compared_with, difference })
        })
        .collect()
}

fn report_text(trained: &[Trained], pairs: &[Pair<'_>]) -> String {
    let cases: Vec<[String; 3]> = trained
        .iter()
        .map(|t| [t.name.clone(), t.steps.to_string(), escape(&t.weights_sha256).chars().take(16).collect()])
        .collect();
    let rows: Vec<[String; 4]> = pairs
        .iter()
        .map(|pair| {
            let Difference { elements, differing, .. } = &pair.difference;
            let ulp = pair.difference.max_ulp().to_string();
            [pair.case.name.clone(), pair.compared_with.name.clone(), format!("{differing}/{elements}"), ulp]
        })
        .collect();
    let mut text = table(["TRAINED BY", "STEPS", "WEIGHTS SHA256"], &cases);
    text.push_str("\n\n");
    text.push_str(&table(["CASE", "COMPARED WITH", "WEIGHTS THAT DIFFER", "MAX ULP"], &rows));
    let largest = pairs.iter().max_by_key(|pair| pair.difference.max_ulp());
    let (ulp, place) = match largest.and_then(|pair| pair.difference.largest.as_ref()) {
        Some((ulp, tensor)) => (*ulp, format!(" in {}", escape(tensor))),
        None => (0, String::new()),
    };
    text.push_str(&format!("\n\nlargest difference: {ulp} ULP{place}"));
    text
}

fn report_json(trained: &[Trained], pairs: &[Pair<'_>]) -> Value {
    let cases: Vec<Value> = trained
        .iter()
        .map(|t| json!({ "case": t.name, "steps": t.steps, "weights_sha256": t.weights_sha256 }))
        .collect();
    let compared: Vec<Value> = pairs
        .iter()
        .map(|pair| {
            let Difference { elements, differing, largest } = &pair.difference;
            json!({
                "case": pair.case.name,
                "compared_with": pair.compared_with.name,
                "elements": elements,
                "differing": differing,
                "max_ulp": pair.difference.max_ulp(),
                "tensor": largest.as_ref().map(|(_, tensor)| tensor),
            })
        })
        .collect();
    let max_ulp = pairs.iter().map(|pair| pair.difference.max_ulp()).max().unwrap_or(0);
    json!({ "cases": cases, "pairs": compared, "max_ulp": max_ulp })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_shows_every_pair_and_the_worst() {
        let trained = |name: &str| Trained {
            name: name.to_owned(),
            steps: 9,
            weights_sha256: "ab".repeat(32),
            model: Vec::new(),
        };
        let all = [trained("1 worker"), trained("2 workers"), trained("2 workers, one killed")];
        let same = Difference { elements: 10, differing: 0, largest: None };
        let off = Difference { elements: 10, differing: 1, largest: Some((3, "classifier.bias".to_owned())) };
        let pairs = [
            Pair { case: &all[1], compared_with: &all[0], difference: same },
            Pair { case: &all[2], compared_with: &all[1], difference: off },
        ];
        assert_eq!(
            report_text(&all, &pairs),
            "TRAINED BY             STEPS  WEIGHTS SHA256\n\
             1 worker               9      abababababababab\n\
             2 workers              9      abababababababab\n\
             2 workers, one killed  9      abababababababab\n\
             \n\
             CASE                   COMPARED WITH  WEIGHTS THAT DIFFER  MAX ULP\n\
             2 workers              1 worker       0/10                 0\n\
             2 workers, one killed  2 workers      1/10                 3\n\
             \n\
             largest difference: 3 ULP in classifier.bias"
        );
        assert_eq!(report_json(&all, &pairs)["max_ulp"], 3);
    }
}
