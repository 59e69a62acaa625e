//! `phalanx explain`: what became of a trial, and why.

use domain::ids::RunName;
use domain::search::study::Fact;
use domain::spec::sweep::Unit;
use proto::v1::Sweep;
use serde_json::json;

use crate::args::ExplainArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{escape, print, sweep};
use crate::session::Session;

pub(crate) async fn run(args: ExplainArgs) -> Result<Exit, Failure> {
    let (name, number) = trial(&args.trial)?;
    let mut session = Session::to_read(&args.place).await?;
    let asked = ask(&mut session.client, &name).await;
    session.close().await?;
    let (found, facts) = asked?;
    let Some(trial) = found.trials.iter().find(|trial| trial.number == number) else {
        let begun = found.trials.len();
        let message = format!("sweep {name} has no trial {number}, {begun} have begun");
        return Err(Failure::config(anyhow::Error::msg(message)));
    };
    let facts: Vec<&Fact> = facts.iter().filter(|fact| fact.trial() == Some(number)).collect();
    if args.json {
        print(&json!({ "sweep": found.name, "trial": sweep::trial_json(trial), "facts": facts }).to_string())?;
        return Ok(Exit::Done);
    }
    let unit =
        sweep::spec(&found).and_then(|spec| spec.study_spec().ok()).map_or("", |(_, unit): (_, Unit)| unit.name());
    let mut lines = vec![sweep::trial_text(&found, trial), String::new()];
    lines.extend(facts.iter().filter_map(|fact| fact_line(fact, unit)));
    print(&lines.join("\n"))?;
    Ok(Exit::Done)
}

async fn ask(client: &mut Client, name: &RunName) -> Result<(Sweep, Vec<Fact>), Failure> {
    Ok((client.sweep(name).await?, client.sweep_facts(name).await?))
}

/// The sweep and the number of `SWEEP/NUMBER` or `SWEEP.NUMBER`.
fn trial(text: &str) -> Result<(RunName, u32), Failure> {
    let parts = text.rsplit_once(['/', '.']);
    let parsed = parts.and_then(|(sweep, number)| Some((sweep.parse().ok()?, number.parse().ok()?)));
    parsed.ok_or_else(|| {
        let message = format!("{:?} is not of the form SWEEP/NUMBER", escape(text));
        Failure::config(anyhow::Error::msg(message)).hint("phalanx sweep show SWEEP lists trials")
    })
}

fn fact_line(fact: &Fact, unit: &str) -> Option<String> {
    let losses = |losses: &[domain::engine::MetricValue]| {
        let shown: Vec<String> = losses.iter().map(|loss| format!("{:.4}", f64::from(*loss))).collect();
        shown.join(", ")
    };
    Some(match fact {
        Fact::Started { target, parent: None, .. } => format!("started, to rest after {target} {unit}"),
        Fact::Started { target, parent: Some(parent), .. } => {
            let (trial, budget) = (parent.trial, parent.budget);
            format!("started as a copy of trial {trial} at {budget} {unit}, to rest after {target}")
        }
        Fact::Resumed { target, .. } => format!("taken up again, to rest after {target} {unit}"),
        Fact::Rested { budget, losses: measured, decision, .. } => {
            format!("rested after {budget} {unit} with loss {}: {decision}", losses(measured))
        }
        Fact::Failed { cause, .. } => format!("failed: {}", escape(cause)),
        Fact::Ended { reason, .. } => format!("ended: {reason}"),
        Fact::OutOfTime { .. } | Fact::Waited | Fact::Finished { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_are_named_in_two_ways() {
        for text in ["digits/7", "digits.7"] {
            let (name, number) = trial(text).unwrap();
            assert_eq!((name.as_str(), number), ("digits", 7));
        }
        for text in ["digits", "digits/x", "../x/1", "/1"] {
            assert!(trial(text).is_err(), "{text}");
        }
    }
}
