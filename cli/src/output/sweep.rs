//! Sweeps, for people and machines.

mod columns;
mod results;

use std::time::Duration;

use domain::results::{Standing, best_first};
use domain::search::{Configuration, Value as Tried};
use domain::spec::sweep::{Objective, SweepSpec};
use proto::convert;
use proto::v1::{Sweep, SweepTrial, TrialState};
use serde_json::{Value, json};

pub(crate) use self::columns::{Column, columns, csv, csv_rows};
pub(crate) use self::results::results_json;
use super::{Place, count, duration, escape, note, print, run_state_name, table_within, terminal_width, wrap};
use crate::client::SweepResults;
use crate::workers::WorkerEvent;

/// How the course of a sweep is shown.
pub(crate) enum Show {
    /// Lines for people.
    Lines,
    /// One JSON object per line.
    Json,
}

impl Show {
    pub(crate) fn new(json: bool) -> Self {
        if json { Show::Json } else { Show::Lines }
    }

    /// The sweep was handed in.
    pub(crate) fn started(&self, sweep: &Sweep, place: &Place<'_>) -> std::io::Result<()> {
        let Place { coordinator, dashboard, workers } = *place;
        match self {
            Show::Lines => {
                let workers = workers.map(|n| format!(" with {} on this machine", count(u64::from(n), "worker")));
                note(&format!("sweep {}{}", escape(&sweep.name), workers.unwrap_or_default()));
                if let Some(url) = dashboard {
                    note(&format!("dashboard at {url}"));
                }
                Ok(())
            }
            Show::Json => {
                let line = json!({
                    "event": "started",
                    "sweep": sweep.name,
                    "coordinator": coordinator,
                    "dashboard": dashboard,
                    "workers": workers,
                });
                print(&line.to_string())
            }
        }
    }

    /// A trial changed.
    pub(crate) fn trial(
        &self,
        sweep: &Sweep,
        before: Option<&SweepTrial>,
        trial: &SweepTrial,
        after: Duration,
    ) -> std::io::Result<()> {
        match self {
            Show::Json => print(
                &json!({ "event": "trial", "seconds": after.as_secs_f64(), "trial": trial_json(trial) }).to_string(),
            ),
            Show::Lines => {
                let is_news = before.is_none_or(|b| b.budget != trial.budget || b.state() != trial.state());
                if is_news && let Some(line) = trial_line(sweep, trial) {
                    note(&format!("{:>8}  {line}", duration(after)));
                }
                Ok(())
            }
        }
    }

    /// Something happened to a worker process of ours.
    pub(crate) fn worker(&self, event: &WorkerEvent) -> std::io::Result<()> {
        match (self, event) {
            (Show::Lines, WorkerEvent::Died { slot, pid, how }) => {
                note(&format!("worker {slot} (pid {pid}) died ({how}), starting another"));
                Ok(())
            }
            (Show::Json, WorkerEvent::Died { slot, pid, how }) => {
                print(&json!({ "event": "worker", "worker": slot, "pid": pid, "what": "died", "how": how }).to_string())
            }
            (_, WorkerEvent::Started { .. } | WorkerEvent::GaveUp { .. }) => Ok(()),
        }
    }

    /// Tells a person. Machines are not told.
    pub(crate) fn say(&self, line: &str) {
        if let Show::Lines = self {
            note(line);
        }
    }

    /// The last word.
    pub(crate) fn summary(&self, results: &SweepResults) -> std::io::Result<()> {
        match self {
            Show::Lines => print(&sweep_text(results, 5, terminal_width())),
            Show::Json => print(&json!({ "event": "ended", "sweep": results_json(results) }).to_string()),
        }
    }
}

fn trial_line(sweep: &Sweep, trial: &SweepTrial) -> Option<String> {
    let number = trial.number;
    let values = values_text(sweep, trial);
    Some(match trial.state() {
        TrialState::Training if trial.budget == 0 => format!("trial {number}: {}", configuration_text(trial)),
        TrialState::Training => format!("trial {number}: {values}, goes on"),
        TrialState::Paused => format!("trial {number}: {values}, rests"),
        TrialState::Completed => format!("trial {number}: {values}, complete"),
        // Why is a long story, which `phalanx explain` tells.
        TrialState::Pruned => format!("trial {number}: {values}, stopped early"),
        TrialState::Failed => format!("trial {number} failed: {}", escape(&trial.reason)),
        TrialState::Unspecified => return None,
    })
}

/// What a sweep is to be, if this program understands it.
pub(crate) fn spec(sweep: &Sweep) -> Option<SweepSpec> {
    convert::sweep_spec_from_json(&sweep.spec_json).ok()
}

fn objectives(sweep: &Sweep) -> Vec<Objective> {
    spec(sweep).map(|spec| spec.objectives).unwrap_or_default()
}

/// How good a trial was when it rested last.
pub(crate) fn values_text(sweep: &Sweep, trial: &SweepTrial) -> String {
    let named = objectives(sweep).into_iter().zip(&trial.values);
    let texts: Vec<String> = named.map(|(objective, value)| objective.told(*value)).collect();
    format!("{} at step {}", texts.join(", "), trial.step)
}

/// `lr = 0.001, depth = 3`, as much as is tried.
fn configuration_text(trial: &SweepTrial) -> String {
    let configuration: Configuration = serde_json::from_str(&trial.configuration_json).unwrap_or_default();
    let shown: Vec<String> = configuration.iter().map(|(path, value)| format!("{path} = {}", short(value))).collect();
    escape(&shown.join(", "))
}

fn short(value: &Tried) -> String {
    match value {
        Tried::Number(x) if *x != 0.0 && !(1e-3..1e5).contains(&x.abs()) => format!("{x:.3e}"),
        Tried::Number(x) => format!("{x:.4}"),
        other => other.to_string(),
    }
}

/// The order from best to worst: by the first objective, trials without a finite value last.
pub(crate) fn ranked(sweep: &Sweep) -> Vec<&SweepTrial> {
    let objectives = objectives(sweep);
    let standing = |trial: &SweepTrial| Standing {
        value: trial.values.first().copied(),
        budget: trial.budget,
        number: trial.number,
    };
    let mut trials: Vec<&SweepTrial> = sweep.trials.iter().collect();
    trials.sort_by(|a, b| best_first(objectives.first(), standing(a), standing(b)));
    trials
}

/// The best trial that has a value.
pub(crate) fn best(sweep: &Sweep) -> Option<&SweepTrial> {
    ranked(sweep).into_iter().find(|trial| trial.values.first().is_some_and(|value| value.is_finite()))
}

/// A sweep, what came of it and its best trials, in lines of at most `width` columns.
pub(crate) fn sweep_text(results: &SweepResults, top: usize, width: Option<usize>) -> String {
    let sweep = &results.sweep;
    let state = run_state_name(sweep.state());
    let reason = if sweep.reason.is_empty() { String::new() } else { format!(": {}", escape(&sweep.reason)) };
    let mut lines = vec![format!("sweep:   {}", escape(&sweep.name)), format!("state:   {state}{reason}")];
    if sweep.priority != 0 {
        lines.push(format!("queue:   priority {}", sweep.priority));
    }
    let of = |state: TrialState| sweep.trials.iter().filter(|trial| trial.state() == state).count();
    let counts = [
        (TrialState::Completed, "complete"),
        (TrialState::Pruned, "stopped early"),
        (TrialState::Paused, "resting"),
        (TrialState::Training, "training"),
        (TrialState::Failed, "failed"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(state, _)| of(*state) > 0)
        .map(|(state, word)| format!("{} {word}", of(*state)))
        .collect();
    let counts = if counts.is_empty() { "none has begun".to_owned() } else { counts.join(", ") };
    lines.push(format!("trials:  {} ({counts})", sweep.trials.len()));
    lines.push(format!("steps:   {}", sweep.trials.iter().map(|trial| trial.step).sum::<u64>()));
    lines.extend(results::saved_lines(results));
    if let Some(ended) = sweep.ended_at_ms {
        let took = Duration::from_millis(ended.saturating_sub(sweep.submitted_at_ms));
        lines.push(format!("time:    {}", duration(took)));
    }
    if let Some(best) = best(sweep) {
        lines.push(format!("best:    trial {}, {} (run {})", best.number, values_text(sweep, best), escape(&best.run)));
        lines.push(format!("         {}", configuration_text(best)));
    }
    lines.extend(results::front_line(results));
    let mut lines: Vec<String> = lines.iter().map(|line| wrap(line, LABEL, width)).collect();
    lines.extend(results::importance_lines(results, width));
    if top > 0 && !sweep.trials.is_empty() {
        lines.push(String::new());
        lines.push(trials_table(results, top, width));
        let left_out = sweep.trials.len().saturating_sub(top);
        if left_out > 0 {
            lines.push(format!("and {left_out} more: --top N"));
        }
        if of(TrialState::Pruned) > 0 {
            let name = escape(&sweep.name);
            lines.push(wrap(&format!("phalanx explain {name}/NUMBER tells why a trial was stopped"), 0, width));
        }
    }
    lines.join("\n")
}

/// The columns of `state:` and the like.
const LABEL: usize = 9;

/// The best trials first, those of the front before the others.
fn trials_table(results: &SweepResults, top: usize, width: Option<usize>) -> String {
    let sweep = &results.sweep;
    let objectives = objectives(sweep);
    let shows_front = results::has_front(results);
    let mut trials = ranked(sweep);
    trials.sort_by_key(|trial| shows_front && !results.front.contains(&trial.number));
    let row = |trial: &SweepTrial| {
        let mark = if shows_front && results.front.contains(&trial.number) { "*" } else { "" };
        let values: Vec<String> = objectives.iter().zip(&trial.values).map(|(o, v)| o.told(*v)).collect();
        [
            format!("{}{mark}", trial.number),
            state_name(trial.state()).to_owned(),
            trial.step.to_string(),
            if values.is_empty() { "-".to_owned() } else { values.join(", ") },
            configuration_text(trial),
        ]
    };
    let rows: Vec<[String; 5]> = trials.into_iter().take(top).map(row).collect();
    table_within(&["TRIAL", "STATE", "STEP", "RESULT", "CONFIGURATION"], &rows, width)
}

/// A trial by itself, in lines of at most `width` columns.
pub(crate) fn trial_text(sweep: &Sweep, trial: &SweepTrial, width: Option<usize>) -> String {
    let reason = if trial.reason.is_empty() { String::new() } else { format!(": {}", escape(&trial.reason)) };
    let mut lines = vec![
        format!("trial:  {} of sweep {} (run {})", trial.number, escape(&sweep.name), escape(&trial.run)),
        format!("state:  {}{reason}", state_name(trial.state())),
    ];
    if !trial.values.is_empty() {
        lines.push(format!("result: {}", values_text(sweep, trial)));
    }
    lines.push(format!("tries:  {}", configuration_text(trial)));
    lines.iter().map(|line| wrap(line, LABEL - 1, width)).collect::<Vec<_>>().join("\n")
}

/// As people and machines read it.
pub(crate) fn state_name(state: TrialState) -> &'static str {
    match state {
        TrialState::Unspecified => "unknown",
        TrialState::Training => "training",
        TrialState::Paused => "paused",
        TrialState::Completed => "completed",
        TrialState::Pruned => "pruned",
        TrialState::Failed => "failed",
    }
}

/// A sweep with its trials.
pub(crate) fn sweep_json(sweep: &Sweep) -> Value {
    json!({
        "name": sweep.name,
        "state": run_state_name(sweep.state()),
        "reason": sweep.reason,
        "priority": sweep.priority,
        "submitted_at_ms": sweep.submitted_at_ms,
        "ended_at_ms": sweep.ended_at_ms,
        "best": best(sweep).map(|trial| trial.number),
        "trials": sweep.trials.iter().map(trial_json).collect::<Vec<_>>(),
        "spec": serde_json::from_str::<Value>(&sweep.spec_json).unwrap_or(Value::Null),
    })
}

/// A trial.
pub(crate) fn trial_json(trial: &SweepTrial) -> Value {
    let state = state_name(trial.state());
    let SweepTrial { number, run, configuration_json, state: _, reason, budget, step, values, parent, parent_budget } =
        trial;
    json!({
        "number": number,
        "run": run,
        "configuration": serde_json::from_str::<Value>(configuration_json).unwrap_or(Value::Null),
        "state": state,
        "reason": reason,
        "budget": budget,
        "step": step,
        "values": values,
        "parent": parent,
        "parent_budget": parent_budget,
    })
}
