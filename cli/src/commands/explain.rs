//! `phalanx explain`: what became of a trial, and why.

use domain::ids::RunName;
use domain::search::study::Fact;
use domain::spec::sweep::Words;
use proto::v1::{Sweep, TrialState};
use serde_json::json;

use crate::args::ExplainArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::{escape, print, sweep, terminal_width, wrap};
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
        return Err(Failure::config(anyhow::Error::msg(message)).hint(format!("phalanx sweep show {name} lists them")));
    };
    let facts: Vec<&Fact> = facts.iter().filter(|fact| fact.trial() == Some(number)).collect();
    if args.json {
        print(&json!({ "sweep": found.name, "trial": sweep::trial_json(trial), "facts": facts }).to_string())?;
        return Ok(Exit::Done);
    }
    let spec = sweep::spec(&found);
    let unit = spec.as_ref().and_then(|spec| spec.study_spec().ok()).map(|(_, unit)| unit);
    let objectives = spec.map(|spec| spec.objectives).unwrap_or_default();
    let width = terminal_width();
    let mut trial = trial.clone();
    if trial.state() == TrialState::Pruned {
        // The last of the facts says why, in full.
        trial.reason.clear();
    }
    let mut lines = vec![sweep::trial_text(&found, &trial, width), String::new()];
    let words = Words { objectives: &objectives, unit };
    let facts = facts.iter().filter_map(|fact| words.fact(fact));
    lines.extend(facts.map(|line| wrap(&escape(&line), 2, width)));
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
