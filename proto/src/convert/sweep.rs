//! A sweep as people see it.

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
pub fn sweep_to_wire(view: &SweepView, spec: &SweepSpec) -> v1::Sweep {
    let SweepView { name, state, reason, submitted_at, ended_at, trials } = view;
    v1::Sweep {
        name: name.to_string(),
        state: run_state_to_wire(*state).into(),
        reason: reason.clone(),
        submitted_at_ms: submitted_at.0,
        ended_at_ms: ended_at.map(|t| t.0),
        trials: Vec::new(),
        trials_begun: trials.len() as u32,
        spec_json: sweep_spec_to_json(spec),
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
