//! `phalanx replay`: the decisions of a sweep, made anew from what was measured.

use domain::ids::RunName;
use domain::search::scheduler::SchedulerSpec;
use domain::search::study::{Fact, Rederived, Renewed, Study, StudySpec, replay};
use domain::spec::sweep::{SweepSpec, Words};
use serde_json::{Value, json};

use crate::args::ReplayArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{print, sweep, table};
use crate::session::Session;

pub(crate) async fn run(args: ReplayArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let asked = ask(&mut session.client, &args.sweep).await;
    session.close().await?;
    let (spec, facts) = asked?;
    let (study, unit) = spec.study_spec().map_err(|cause| Failure::failed(anyhow::Error::msg(cause)))?;
    match args.eta {
        None => again(&args, &spec, study, &facts),
        Some(eta) => {
            let other = with_eta(study, eta)?;
            let words = Words { objectives: &spec.objectives, unit: Some(unit) };
            show(&args, &replay(&facts, &other, spec.seed), words)
        }
    }
}

async fn ask(client: &mut Client, name: &RunName) -> Result<(SweepSpec, Vec<Fact>), Failure> {
    let found = client.sweep(name).await?;
    let spec = sweep::spec(&found).ok_or_else(|| {
        Failure::failed(anyhow::Error::msg("the coordinator sent a sweep that this program does not know"))
            .hint("coordinator and command line may be of different versions")
    })?;
    Ok((spec, client.sweep_facts(name).await?))
}

/// The same setting must come to the same: everything that was tried and decided.
fn again(args: &ReplayArgs, spec: &SweepSpec, study: StudySpec, facts: &[Fact]) -> Result<Exit, Failure> {
    let replayed = Study::replayed(study, spec.space.clone(), spec.seed, facts);
    let decisions = facts.iter().filter(|fact| matches!(fact, Fact::Rested { .. } | Fact::Ended { .. })).count();
    match replayed {
        Ok(study) => {
            let trials = study.trials().len();
            if args.json {
                print(
                    &json!({ "sweep": args.sweep, "trials": trials, "decisions": decisions, "same": true }).to_string(),
                )?;
            } else {
                print(&format!("{trials} trials and {decisions} decisions come out the same"))?;
            }
            Ok(Exit::Done)
        }
        Err(divergence) => {
            Err(Failure::failed(divergence).hint("was the sweep run by another version of this program?"))
        }
    }
}

fn with_eta(study: StudySpec, eta: u32) -> Result<StudySpec, Failure> {
    let mut study = study;
    match &mut study.scheduler {
        SchedulerSpec::Asha(spec) => spec.eta = eta,
        SchedulerSpec::Hyperband(spec) => spec.eta = eta,
        SchedulerSpec::None(_)
        | SchedulerSpec::Median(_)
        | SchedulerSpec::Percentile(_)
        | SchedulerSpec::Patience(_)
        | SchedulerSpec::Threshold(_)
        | SchedulerSpec::Population(_) => {
            return Err(Failure::config(anyhow::Error::msg("only asha, hyperband and bohb have an eta")));
        }
    }
    Ok(study)
}

fn show(args: &ReplayArgs, rows: &[Rederived], words: Words<'_>) -> Result<Exit, Failure> {
    if args.json {
        let rows = rows.iter().map(|Rederived { trial, budget, old, new }| {
            json!({ "trial": trial, "budget": budget, "old": old, "new": renewed_json(new) })
        });
        print(&Value::from_iter(rows).to_string())?;
        return Ok(Exit::Done);
    }
    let cells: Vec<[String; 4]> = rows
        .iter()
        .map(|Rederived { trial, budget, old, new }| {
            let old = old.as_ref().map_or_else(|| "-".to_owned(), |old| words.decision(old));
            [trial.to_string(), words.length(*budget), old, renewed_text(new, words)]
        })
        .collect();
    print(&table(["TRIAL", "AFTER", "WAS", "WOULD BE"], &cells))?;
    Ok(Exit::Done)
}

fn renewed_text(new: &Renewed, words: Words<'_>) -> String {
    match new {
        Renewed::Decided(decision) => words.decision(decision),
        Renewed::UnknownBeyond { budget } => format!("trains on; nothing is known beyond {}", words.length(*budget)),
        Renewed::EndedBefore { budget } => format!("has ended after {}", words.length(*budget)),
        Renewed::NoRest => "does not rest here".to_owned(),
    }
}

fn renewed_json(new: &Renewed) -> Value {
    match new {
        Renewed::Decided(decision) => json!({ "decision": decision }),
        Renewed::UnknownBeyond { budget } => json!({ "unknown_beyond": budget }),
        Renewed::EndedBefore { budget } => json!({ "ended_before": budget }),
        Renewed::NoRest => json!("no_rest"),
    }
}
