//! Places in a group.

use domain::batch::Length;
use domain::engine::{Assignment, StartFrom, StateInMemory};
use domain::ids::{Generation, Rank, Step, WorkerId};

use super::{
    ConvertError, missing, position_from_wire, position_to_wire, spec_from_json, spec_to_json, trial, worker_from_wire,
    worker_to_wire,
};
use crate::v1;

pub(super) fn assignment_from_wire(assign: v1::Assign) -> Result<Assignment, ConvertError> {
    let v1::Assign {
        trial: id,
        generation,
        rank,
        members,
        leaving,
        spec_json,
        start,
        recorded,
        skip_updates,
        discard_state,
        until,
    } = assign;
    if rank as usize >= members.len() {
        let cause = format!("rank ({rank}) must be < members ({})", members.len());
        return Err(ConvertError::Invalid { message: "Assign", field: "rank", cause });
    }
    Ok(Assignment {
        trial: trial("Assign", &id)?,
        generation: Generation(generation),
        rank: Rank(rank),
        members: members.into_iter().map(worker_from_wire).collect(),
        leaving: leaving.into_iter().map(WorkerId).collect(),
        spec: spec_from_json(&spec_json)?,
        start: start.map_or(StartFrom::Scratch, |v1::StartCheckpoint { step, manifest, blake3, copy }| match copy {
            false => StartFrom::Checkpoint { step: Step(step), manifest, blake3 },
            true => StartFrom::Copy { step: Step(step), manifest, blake3 },
        }),
        recorded: position_from_wire(recorded.ok_or_else(|| missing("Assign", "recorded"))?),
        skip_updates: skip_updates.into_iter().map(Step).collect(),
        state: if discard_state { StateInMemory::Discard } else { StateInMemory::Keep },
        until: until.map(|until| match until {
            v1::assign::Until::UntilSteps(steps) => Length::Steps(steps),
            v1::assign::Until::UntilEpochs(epochs) => Length::Epochs(epochs),
        }),
    })
}

pub(super) fn assignment_to_wire(assignment: &Assignment) -> v1::Assign {
    let Assignment { trial, generation, rank, members, leaving, spec, start, recorded, skip_updates, state, until } =
        assignment;
    v1::Assign {
        trial: trial.to_string(),
        generation: generation.0,
        rank: rank.0,
        members: members.iter().map(worker_to_wire).collect(),
        leaving: leaving.iter().map(|worker| worker.0).collect(),
        spec_json: spec_to_json(spec),
        start: match start {
            StartFrom::Scratch => None,
            StartFrom::Checkpoint { step, manifest, blake3 } => Some(v1::StartCheckpoint {
                step: step.0,
                manifest: manifest.clone(),
                blake3: blake3.clone(),
                copy: false,
            }),
            StartFrom::Copy { step, manifest, blake3 } => Some(v1::StartCheckpoint {
                step: step.0,
                manifest: manifest.clone(),
                blake3: blake3.clone(),
                copy: true,
            }),
        },
        recorded: Some(position_to_wire(*recorded)),
        skip_updates: skip_updates.iter().map(|s| s.0).collect(),
        discard_state: *state == StateInMemory::Discard,
        until: until.map(|until| match until {
            Length::Steps(steps) => v1::assign::Until::UntilSteps(steps),
            Length::Epochs(epochs) => v1::assign::Until::UntilEpochs(epochs),
        }),
    }
}
