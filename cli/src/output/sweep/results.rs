//! What came of a sweep: its front, what mattered, what was saved.

use std::time::Duration;

use domain::search::importance::TRIALS_MIN;
use domain::spec::sweep::{Unit, Words};
use proto::v1::{ObjectiveImportance, SweepImportance, SweepSaved};
use serde_json::{Value, json};

use super::{objectives, spec, sweep_json};
use crate::client::SweepResults;
use crate::output::{count, duration, escape, table_within, wrap};

/// Whether there is more to be said of the front than which trial is best.
pub(super) fn has_front(results: &SweepResults) -> bool {
    objectives(&results.sweep).len() > 1 && !results.front.is_empty()
}

/// The trials of the front.
pub(super) fn front_line(results: &SweepResults) -> Option<String> {
    has_front(results).then(|| {
        let numbers: Vec<String> = results.front.iter().map(u32::to_string).collect();
        let word = if numbers.len() == 1 { "trial" } else { "trials" };
        format!("front:   {word} {} (marked *): no other one is better in every objective", numbers.join(", "))
    })
}

/// What ending trials early saved.
pub(super) fn saved_lines(results: &SweepResults) -> Vec<String> {
    let Some(&SweepSaved { trials, steps, full_steps, worker_seconds, full_worker_seconds }) = results.saved.as_ref()
    else {
        return Vec::new();
    };
    if trials == 0 {
        return Vec::new();
    }
    if steps >= full_steps {
        return vec!["saved:   nothing, no trial ended early".to_owned()];
    }
    let all = results.sweep.trials.len();
    let of = if trials as usize == all { String::new() } else { format!(", of the {trials} trials that ended") };
    let share = |made: f64, full: f64| format!("{:.0} %", (100.0 * (1.0 - made / full)).max(0.0));
    let time = |seconds: f64| duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let mut lines = vec![format!(
        "saved:   {} of the steps: {steps} instead of {full_steps}{of}",
        share(steps as f64, full_steps as f64)
    )];
    if full_worker_seconds > 0.0 {
        let share = share(worker_seconds, full_worker_seconds);
        let (took, full) = (time(worker_seconds), time(full_worker_seconds));
        lines.push(format!("         {share} of the workers' time: {took} instead of {full}"));
    }
    lines
}

/// Which parameters mattered, the most important first.
pub(super) fn importance_lines(results: &SweepResults, width: Option<usize>) -> Vec<String> {
    let Some(SweepImportance { trials, trials_needed, budget, objectives }) = &results.importance else {
        return Vec::new();
    };
    let unit = unit(results);
    let Some(first) = objectives.first() else {
        let few = format!(
            "importance: unknown, for too few trials were measured after the same length: {trials} of {trials_needed}"
        );
        return vec![String::new(), wrap(&few, 4, width)];
    };
    let known = |at: usize| first.parameters[at].trials as usize >= TRIALS_MIN;
    let mut order: Vec<usize> = (0..first.parameters.len()).collect();
    order.sort_by(|a, b| {
        known(*b).cmp(&known(*a)).then(first.parameters[*b].share.total_cmp(&first.parameters[*a].share))
    });
    let cell = |objective: &ObjectiveImportance, at: usize| match objective.parameters.get(at) {
        Some(_) if !known(at) => "too few".to_owned(),
        Some(parameter) => format!("{:.1} %", 100.0 * parameter.share),
        None => String::new(),
    };
    let rows: Vec<Vec<String>> = order
        .into_iter()
        .map(|at| {
            let shares = objectives.iter().map(|objective| format!("{:>8}", cell(objective, at)));
            [escape(&first.parameters[at].path)].into_iter().chain(shares).collect()
        })
        .collect();
    let headings: Vec<String> = objectives.iter().map(|o| escape(&o.metric).to_uppercase().replace('_', " ")).collect();
    let headings: Vec<&str> = ["PARAMETER"].into_iter().chain(headings.iter().map(String::as_str)).collect();
    let at = Words { objectives: &[], unit }.length(*budget);
    let head = format!("importance, by {} after {at}:", count(u64::from(*trials), "trial"));
    vec![String::new(), wrap(&head, 4, width), table_within(&headings, &rows, width)]
}

fn unit(results: &SweepResults) -> Option<Unit> {
    spec(&results.sweep)?.study_spec().ok().map(|(_, unit)| unit)
}

/// A sweep with what came of it.
pub(crate) fn results_json(results: &SweepResults) -> Value {
    let mut sweep = sweep_json(&results.sweep);
    if let Some(trials) = sweep["trials"].as_array_mut() {
        for (shown, trial) in trials.iter_mut().zip(&results.sweep.trials) {
            shown["on_front"] = results.front.contains(&trial.number).into();
            shown["worker_seconds"] = results.efforts.get(&trial.number).map(|effort| effort.worker_seconds).into();
        }
    }
    sweep["front"] = results.front.iter().copied().collect();
    sweep["importance"] = results.importance.as_ref().map(importance_json).into();
    sweep["saved"] = results.saved.as_ref().map(saved_json).into();
    sweep
}

fn importance_json(importance: &SweepImportance) -> Value {
    let SweepImportance { trials, trials_needed, budget, objectives } = importance;
    let objectives: Vec<Value> = objectives
        .iter()
        .map(|ObjectiveImportance { metric, parameters }| {
            let parameters: Vec<Value> = parameters
                .iter()
                .map(|p| json!({ "path": p.path, "share": p.share, "divergence": p.divergence, "trials": p.trials }))
                .collect();
            json!({ "metric": metric, "parameters": parameters })
        })
        .collect();
    json!({ "trials": trials, "trials_needed": trials_needed, "budget": budget, "objectives": objectives })
}

fn saved_json(saved: &SweepSaved) -> Value {
    let SweepSaved { trials, steps, full_steps, worker_seconds, full_worker_seconds } = saved;
    json!({
        "trials": trials,
        "steps": steps,
        "full_steps": full_steps,
        "worker_seconds": worker_seconds,
        "full_worker_seconds": full_worker_seconds,
    })
}

#[cfg(test)]
mod tests {
    use proto::v1::{ParameterImportance, RunState, Sweep, SweepTrial, TrialState};

    use super::*;
    use crate::output::sweep::sweep_text;

    fn parameter(path: &str, share: f64, trials: u32) -> ParameterImportance {
        ParameterImportance { path: path.to_owned(), share, divergence: share, trials }
    }

    /// Three trials for two objectives, of which two are on the front.
    fn results() -> SweepResults {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/tradeoff-sweep.yaml");
        let spec = crate::job::read_sweep(&path).unwrap_or_else(|_| panic!("{} is a sweep file", path.display()));
        let trial = |number: u32, values: [f64; 2]| {
            let configuration_json = r#"{"model.dropout":0.25,"schedule.lr":0.001}"#.to_owned();
            let run = format!("t.{number}");
            let mut trial = SweepTrial {
                number,
                run,
                step: 10,
                values: values.to_vec(),
                configuration_json,
                ..SweepTrial::default()
            };
            trial.set_state(TrialState::Completed);
            trial
        };
        let mut sweep = Sweep {
            name: "t\u{1b}[2J".to_owned(),
            trials: vec![trial(0, [0.9, 0.5]), trial(1, [0.8, 0.6]), trial(2, [0.85, 0.25])],
            spec_json: proto::convert::sweep_spec_to_json(&spec),
            ..Sweep::default()
        };
        sweep.set_state(RunState::Completed);
        let shares = |share: f64| vec![parameter("schedule.lr", share, 20), parameter("model.dropout", 1.0 - share, 9)];
        let of = |metric: &str, share| ObjectiveImportance { metric: metric.to_owned(), parameters: shares(share) };
        let objectives = vec![of("eval_accuracy", 0.25), of("eval_loss", 0.625)];
        SweepResults {
            sweep,
            front: [0, 2].into(),
            importance: Some(SweepImportance { trials: 20, trials_needed: 10, budget: 3, objectives }),
            saved: Some(SweepSaved {
                trials: 3,
                steps: 30,
                full_steps: 120,
                worker_seconds: 10.0,
                full_worker_seconds: 100.0,
            }),
            ..SweepResults::default()
        }
    }

    #[test]
    fn what_came_of_a_sweep_is_told_in_full() {
        let expected = "\
sweep:   t\\u{1b}[2J
state:   completed
trials:  3 (3 complete)
steps:   30
saved:   75 % of the steps: 30 instead of 120
         90 % of the workers' time: 10 s instead of 1 min 40 s
best:    trial 0, accuracy 90.00 %, eval loss 0.5000 at step 10 (run t.0)
         model.dropout = 0.2500, schedule.lr = 0.0010
front:   trials 0, 2 (marked *): no other one is better in every objective

importance, by 20 trials after 3 epochs:
PARAMETER      EVAL ACCURACY  EVAL LOSS
schedule.lr      25.0 %         62.5 %
model.dropout   too few        too few

TRIAL  STATE      STEP  RESULT                              CONFIGURATION
0*     completed  10    accuracy 90.00 %, eval loss 0.5000  model.dropout = 0.2500, schedule.lr = 0.0010
2*     completed  10    accuracy 85.00 %, eval loss 0.2500  model.dropout = 0.2500, schedule.lr = 0.0010
and 1 more: --top N";
        assert_eq!(sweep_text(&results(), 2, None), expected);
    }

    #[test]
    fn no_line_is_longer_than_a_narrow_terminal() {
        let text = sweep_text(&results(), 3, Some(60));
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert!(text.contains("\n    model.dropout = 0.2500, schedule.lr = 0.0010"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_said_or_left_out() {
        let few = SweepImportance { trials: 4, trials_needed: 10, ..SweepImportance::default() };
        let nothing = SweepSaved { trials: 3, steps: 120, full_steps: 120, ..SweepSaved::default() };
        let text = sweep_text(&SweepResults { importance: Some(few), saved: Some(nothing), ..results() }, 0, None);
        assert!(text.contains("measured after the same length: 4 of 10"), "{text}");
        assert!(text.contains("saved:   nothing, no trial ended early"), "{text}");
        let text = sweep_text(&SweepResults::of(results().sweep), 0, None);
        assert!(!text.contains("saved:") && !text.contains("importance") && !text.contains("front:"), "{text}");
    }

    #[test]
    fn machines_get_all_of_it() {
        let json = results_json(&results());
        assert_eq!(json["front"], json!([0, 2]));
        assert_eq!(json["trials"][1]["on_front"], false);
        assert_eq!(json["importance"]["objectives"][1]["parameters"][0]["share"], 0.625);
        assert_eq!(json["saved"]["full_steps"], 120);
    }
}
