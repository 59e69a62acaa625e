//! From an assignment to a group whose members are connected and hold the same state.
//!
//! Stages: connect; tell each other what state each holds; the members behind fetch the furthest one from the lowest rank
//! that has it, or all begin from the assignment's start if nobody has any; tell each other again. Whatever goes wrong
//! breaks the generation, and the coordinator decides on the next one.

use std::time::Duration;

use bytes::Bytes;
use collective::ring::{self, Listener, Membership, Ring};
use collective::{AbortHandle, Collective};
use domain::engine::{Assignment, StartFrom, StateInMemory};
use domain::record::Position;
use tokio::runtime::Handle;

use crate::agreement::Standing;
use crate::attempt::Halt;
use crate::checkpoint;
use crate::orders::Orders;
use crate::peer::{self, FetchError, Fetched, Offer, Offers};
use crate::report::chain;
use crate::state::{Job, State, Trial};

/// How long members wait for each other. A member may first have to read its data set; the coordinator gives up sooner.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How often a transfer asks whether its group still exists.
const ABORT_CHECK: Duration = Duration::from_millis(20);

/// What forming a group needs besides the trial.
pub(crate) struct Means<'a> {
    pub(crate) ring: &'a mut Listener,
    pub(crate) offers: &'a Offers,
    pub(crate) runtime: &'a Handle,
}

/// Forms the group of `assignment` and brings `trial` to the state it goes on from.
pub(crate) fn form(
    means: Means<'_>,
    assignment: &Assignment,
    trial: &mut Trial,
    orders: &mut Orders<'_>,
) -> Result<Ring, Halt> {
    if assignment.state == StateInMemory::Discard {
        trial.state = None;
    }
    if orders.look().leave {
        return Err(Halt::Left);
    }
    let addresses: Vec<String> = assignment.members.iter().map(|m| m.ring_address.clone()).collect();
    let group = assignment.trial.to_string();
    let membership = Membership {
        group: &group,
        generation: assignment.generation.0,
        rank: assignment.rank.0,
        addresses: &addresses,
    };
    let mut group = ring::connect(means.ring, membership, orders.abort(), CONNECT_LIMIT)?;
    match plan(&standings(&mut group, trial)?, group.rank()) {
        Role::Begin => trial.state = Some(begin(assignment, &trial.job, means.runtime, orders)?),
        Role::Fetch { source } => {
            let address = &assignment.members[source as usize].peer_address;
            fetch(address, assignment, trial, means.runtime, orders.abort())?;
        }
        Role::Offer => offer(means.offers, assignment, trial),
        Role::Ready => {}
    }
    let standings = standings(&mut group, trial);
    means.offers.withdraw();
    let position = trial.position().expect("every role leaves a state behind");
    if let Some(rank) = standings?.iter().position(|found| *found != Some(position)) {
        return Err(Halt::Broken(format!("rank {rank} did not come to step {}", position.step)));
    }
    trial.records.begin(position, assignment.recorded);
    orders.formed();
    Ok(group)
}

/// The positions that the members hold, by rank.
fn standings(group: &mut Ring, trial: &Trial) -> Result<Vec<Option<Position>>, Halt> {
    let position = trial.position();
    let identity = trial.job.identity.digest();
    let messages = group.all_gather(&Standing { position, identity }.encode())?;
    let mut positions = Vec::with_capacity(messages.len());
    for (rank, message) in messages.iter().enumerate() {
        let standing = Standing::decode(message).map_err(Halt::garbled)?;
        if standing.identity != identity {
            return Err(Halt::Failed(format!("{OTHER_RUN} (rank {rank} and rank {})", group.rank())));
        }
        positions.push(standing.position);
    }
    Ok(positions)
}

/// Why replicas would diverge from the first step on.
const OTHER_RUN: &str =
    "two workers do not see the same run: their data sets differ in size, or their programs in version";

/// What a member does to bring the group to one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Nobody holds a state.
    Begin,
    /// It is behind the member of this rank.
    Fetch { source: u32 },
    /// It is the lowest rank with the furthest state, and others are behind.
    Offer,
    /// It holds the furthest state.
    Ready,
}

fn plan(positions: &[Option<Position>], rank: u32) -> Role {
    let furthest = positions.iter().copied().max().flatten();
    if furthest.is_none() {
        return Role::Begin;
    }
    let source = positions.iter().position(|p| *p == furthest).expect("it is the position of one of them") as u32;
    if positions[rank as usize] != furthest {
        Role::Fetch { source }
    } else if source == rank && positions.iter().any(|p| *p != furthest) {
        Role::Offer
    } else {
        Role::Ready
    }
}

fn begin(assignment: &Assignment, job: &Job, runtime: &Handle, orders: &Orders<'_>) -> Result<State, Halt> {
    match &assignment.start {
        StartFrom::Scratch => State::initial(&job.spec).map_err(Halt::failed),
        StartFrom::Checkpoint { step, manifest, blake3 } | StartFrom::Copy { step, manifest, blake3 } => {
            let refused = |cause: &dyn std::error::Error| {
                Halt::Failed(format!("cannot go on from checkpoint {manifest}: {}", chain(cause)))
            };
            let url = orders.checkpoint_url();
            let parts = runtime.block_on(checkpoint::load(&url, manifest, blake3)).map_err(|cause| refused(&cause))?;
            let restored = match assignment.start {
                StartFrom::Copy { .. } => State::copy(job, *step, &parts),
                StartFrom::Scratch | StartFrom::Checkpoint { .. } => State::restore(job, *step, &parts),
            };
            restored.map_err(|cause| refused(&cause))
        }
    }
}

fn fetch(
    address: &str,
    assignment: &Assignment,
    trial: &mut Trial,
    runtime: &Handle,
    abort: &AbortHandle,
) -> Result<(), Halt> {
    let transfer = peer::fetch(address, &assignment.trial, assignment.generation);
    let Fetched { position, state, unrecorded } = runtime.block_on(unless_aborted(transfer, abort))?;
    let state = Bytes::from(state);
    let state = State::restore(&trial.job, position.step, &[state])
        .map_err(|cause| Halt::Failed(format!("cannot go on from the state of {address}: {}", chain(&cause))))?;
    trial.state = Some(state);
    trial.records.replace(unrecorded);
    Ok(())
}

async fn unless_aborted(
    transfer: impl Future<Output = Result<Fetched, FetchError>>,
    abort: &AbortHandle,
) -> Result<Fetched, Halt> {
    let mut check = tokio::time::interval(ABORT_CHECK);
    let mut transfer = std::pin::pin!(transfer);
    loop {
        tokio::select! {
            fetched = &mut transfer => return fetched.map_err(|cause| Halt::Broken(chain(&cause))),
            _ = check.tick() => if abort.is_aborted() {
                return Err(Halt::Left);
            },
        }
    }
}

fn offer(offers: &Offers, assignment: &Assignment, trial: &Trial) {
    let state = trial.state.as_ref().expect("only a member with a state offers it");
    offers.publish(Offer {
        trial: assignment.trial.clone(),
        generation: assignment.generation,
        position: state.progress.position,
        state: state.to_bytes(&trial.job.identity),
        unrecorded: trial.records.to_vec(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ids::Step;

    #[test]
    fn everybody_knows_what_to_do_from_the_same_table() {
        let at = |step, evaluated| Some(Position { step: Step(step), evaluated });
        let nothing = None;
        let fetch = |source| Role::Fetch { source };
        let cases = [
            (vec![nothing], vec![Role::Begin]),
            (vec![nothing, nothing], vec![Role::Begin, Role::Begin]),
            (vec![nothing, at(0, false)], vec![fetch(1), Role::Offer]),
            (vec![at(3, false), at(3, false)], vec![Role::Ready, Role::Ready]),
            (vec![at(2, true), at(3, false), at(3, false)], vec![fetch(1), Role::Offer, Role::Ready]),
            (vec![at(3, false), at(3, true), nothing], vec![fetch(1), Role::Offer, fetch(1)]),
        ];
        for (positions, expected) in cases {
            let found: Vec<Role> = (0..positions.len() as u32).map(|rank| plan(&positions, rank)).collect();
            assert_eq!(found, expected, "{positions:?}");
        }
    }
}
