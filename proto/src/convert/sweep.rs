//! A sweep as people see it.

use domain::picture::SweepPicture;
use domain::results::{Effort, Importances, Saved};
use domain::search::importance::Importance;
use domain::search::study::Fact;
use domain::spec::sweep::SweepSpec;
use domain::view::{SweepTrialView, SweepView, TrialState};

use super::ConvertError;
use super::run::run_state_to_wire;
use crate::v1;

/// The canonical JSON form of a sweep's specification.
pub fn sweep_spec_to_json(spec: &SweepSpec) -> String {
    serde_json::to_string(spec).expect("a specification has only string keys and finite numbers")
}

/// Reads the canonical JSON form of a sweep's specification.
pub fn sweep_spec_from_json(json: &str) -> Result<SweepSpec, ConvertError> {
    serde_json::from_str(json).map_err(|e| ConvertError::Invalid {
        message: "Sweep",
        field: "spec_json",
        cause: e.to_string(),
    })
}

/// The JSON form of what happened in a sweep.
pub fn fact_to_json(fact: &Fact) -> String {
    serde_json::to_string(fact).expect("facts have only string keys, and numbers as their bits")
}

/// Reads the JSON form of what happened in a sweep.
pub fn fact_from_json(json: &str) -> Result<Fact, ConvertError> {
    serde_json::from_str(json).map_err(|e| ConvertError::Invalid {
        message: "ReadSweepFactsResponse",
        field: "facts_json",
        cause: e.to_string(),
    })
}

/// A sweep without its trials.
pub fn sweep_to_wire(sweep: &SweepPicture) -> v1::Sweep {
    let SweepView { name, state, reason, priority, submitted_at, ended_at, trials: _ } = &*sweep.view;
    v1::Sweep {
        name: name.to_string(),
        state: run_state_to_wire(*state).into(),
        reason: reason.clone(),
        priority: *priority,
        submitted_at_ms: submitted_at.0,
        ended_at_ms: ended_at.map(|t| t.0),
        trials: Vec::new(),
        trials_begun: sweep.trials().len() as u32,
        spec_json: sweep_spec_to_json(&sweep.spec),
    }
}

/// One trial of a sweep.
pub fn sweep_trial_to_wire(view: &SweepTrialView) -> v1::SweepTrial {
    let SweepTrialView { number, run, configuration, state, reason, budget, step, values, parent } = view;
    v1::SweepTrial {
        number: *number,
        run: run.to_string(),
        configuration_json: serde_json::to_string(configuration).expect("a configuration has string keys"),
        state: trial_state_to_wire(*state).into(),
        reason: reason.clone(),
        budget: *budget,
        step: step.0,
        values: values.iter().map(|value| (*value).into()).collect(),
        parent: parent.map(|(parent, _)| parent),
        parent_budget: parent.map(|(_, budget)| budget),
    }
}

fn trial_state_to_wire(state: TrialState) -> v1::TrialState {
    match state {
        TrialState::Training => v1::TrialState::Training,
        TrialState::Paused => v1::TrialState::Paused,
        TrialState::Completed => v1::TrialState::Completed,
        TrialState::Pruned => v1::TrialState::Pruned,
        TrialState::Failed => v1::TrialState::Failed,
    }
}

/// What the steps of trial `number` took.
pub fn effort_to_wire(number: u32, effort: Effort) -> v1::TrialEffort {
    let Effort { steps, worker_seconds } = effort;
    v1::TrialEffort { number, steps, worker_seconds }
}

/// Which parameters mattered for the objectives of `spec`.
pub fn importances_to_wire(importances: &Importances, spec: &SweepSpec) -> v1::SweepImportance {
    let trials_needed = domain::search::importance::TRIALS_MIN as u32;
    match importances {
        Importances::TooFew { have, need } => {
            v1::SweepImportance { trials: *have, trials_needed: *need, budget: 0, objectives: Vec::new() }
        }
        Importances::Known { budget, trials, objectives } => {
            let of_objectives = spec.objectives.iter().zip(objectives).map(|(objective, parameters)| {
                let metric = objective.metric.name().to_owned();
                v1::ObjectiveImportance { metric, parameters: parameters.iter().map(importance_to_wire).collect() }
            });
            v1::SweepImportance { trials: *trials, trials_needed, budget: *budget, objectives: of_objectives.collect() }
        }
    }
}

fn importance_to_wire(importance: &Importance) -> v1::ParameterImportance {
    let Importance { path, share, divergence, trials } = importance;
    v1::ParameterImportance { path: path.clone(), share: *share, divergence: *divergence, trials: *trials as u32 }
}

/// What ending trials early saved.
pub fn saved_to_wire(saved: Saved) -> v1::SweepSaved {
    let Saved { trials, steps, full_steps, worker_seconds, full_worker_seconds } = saved;
    v1::SweepSaved { trials, steps, full_steps, worker_seconds, full_worker_seconds }
}
