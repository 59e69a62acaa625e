//! A group of processes: over TCP between hosts, through shared memory on one host.
//!
//! # Stages
//!
//! 1. **Forming** ([`connect()`]). Every pair of ranks gets one connection: the higher rank dials the lower one's
//!    [`Listener`], says who it is (magic, version, group, generation, ranks, world) and waits for the answer. All pairs
//!    form at the same time, on the calling thread. A connection that says anything else is dropped without disturbing
//!    the others; a dialler of an older generation is told so and fails as stale. Once all are connected they find out
//!    who can see whose memory (`introduce.rs`).
//! 2. **Operations.** Each begins with a *meeting*: every rank sends every other one small start frame, which says what
//!    it is about to do, and waits for all of theirs. A small gather is complete then, and so is a small reduction:
//!    everybody has all parts and adds them up. Bulk data follows, over a socket in frames of at most [`CHUNK_BYTES`] in
//!    an order that both ends derive from the start frames. A reduction is a reduce-scatter by range of elements and an
//!    all-gather of the sums; they overlap, as each piece is sent on once it is added up (`reduce.rs`). Between ranks that
//!    see each other's memory it goes through that (`shared.rs`); everything else goes by socket there too.
//! 3. **The end**: any failure, an abort, or a drop shuts every connection down, which the peers see at once. A rank that
//!    leaves with all its operations complete says farewell before, so that peers still in the last one can finish it.
//!
//! Every frame carries the number of its operation, its kind and its length, and all three are checked; memory is
//! reserved only for lengths that follow from this rank's own arguments or lie within a constant bound.
//!
//! The shape is a full mesh, not the ring that its name recalls: the bytes are those of a ring all-reduce, but each
//! byte crosses one hop instead of `world - 1`, and exactness needs every partial sum at its owner anyway.
//!
//! # One thread, no locks
//!
//! Sockets do not block; the calling thread waits in `poll` for all of them, and for the bell that a peer rings after it
//! wrote to the memory of a rank that sleeps. So sending, receiving and adding overlap without handing anything to another
//! thread, and nothing can deadlock: a rank in an operation always reads.
//!
//! # Who is gone
//!
//! - A process that dies, however it dies, closes its connections: seen at once, by those who share its memory too. The
//!   memory has no name in any directory and ends with the last process that has it.
//! - A host that vanishes closes nothing. Keep-alive probes and the user timeout of TCP end its connections after
//!   [`VANISHED_AFTER`], whether this rank is sending or waiting. That is the second line; the coordinator's lease is the
//!   first, and its abort does not wait for TCP. The user timeout also counts time in which the receiver does not read,
//!   which would kill a healthy peer that computes; therefore bulk data goes only to a rank that has come to the meeting.
//! - A process that hangs keeps its connections. Only a limit per operation ([`Ring::set_operation_limit`]) or the
//!   coordinator ends that; there is no default, since how long a step may take is not known here.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod bulk;
mod connect;
mod frame;
mod handshake;
mod introduce;
mod link;
mod listener;
mod meeting;
mod reduce;
mod segment;
mod shared;
mod start;
mod wait;

use crate::arguments::{check_gather, check_reduction};
use crate::reduction::Plan;
use crate::{AbortHandle, Collective, CollectiveError, Reduced};
use bulk::{Bulk, GatherRest};
use frame::{Kind, header};
use link::{Link, Sockets};
use meeting::Meeting;
use reduce::Reduction;
use shared::Shared;
use start::{GatherStart, INLINE_BYTES, ReduceStart};
use wait::drive;

pub use connect::{Membership, connect, connect_over};
pub use introduce::Transport;
pub use link::VANISHED_AFTER;
pub use listener::Listener;

/// Most bytes of one frame of bulk data, and of one slot of shared memory: large enough that headers, system calls and
/// waking do not count, small enough that adding one chunk overlaps with receiving the next, and that the chunks under way
/// are still in the cache when they are added and when their sum comes back.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Elements of a chunk.
const CHUNK_ELEMENTS: usize = CHUNK_BYTES / size_of::<f32>();

// Numbers travel as they lie in memory, which is what safetensors does too.
const _: () = assert!(cfg!(target_endian = "little"), "the ring sends little-endian numbers");

/// A member of a group of processes, made by [`connect()`].
pub struct Ring {
    rank: u32,
    world: u32,
    /// One per peer, by rank, without this one.
    links: Vec<Link>,
    sockets: Arc<Sockets>,
    abort: AbortHandle,
    broken: bool,
    /// Operations begun.
    sequence: u64,
    operation_limit: Option<Duration>,
    /// Buffers for pieces of partial sums that come by TCP, kept so that they stay in the cache.
    buffers: Vec<Vec<f32>>,
    shared: Option<Shared>,
}

impl Ring {
    fn new(rank: u32, world: u32, links: Vec<Link>, abort: AbortHandle) -> Self {
        let sockets = Arc::new(Sockets::of(&links));
        let waker: Arc<dyn crate::abort::Wake> = sockets.clone();
        abort.register(Arc::downgrade(&waker));
        Self {
            rank,
            world,
            links,
            sockets,
            abort,
            broken: false,
            sequence: 0,
            operation_limit: None,
            buffers: Vec::new(),
            shared: None,
        }
    }

    /// Ends every later operation that takes longer with [`CollectiveError::TimedOut`]; `None` waits for ever.
    ///
    /// An operation waits for the slowest member, so the limit must exceed the longest step of any of them.
    pub fn set_operation_limit(&mut self, limit: Option<Duration>) {
        self.operation_limit = limit;
    }

    /// The peers to which bulk data go through shared memory.
    pub fn neighbours(&self) -> Vec<u32> {
        self.shared.iter().flat_map(|shared| &shared.neighbours).map(|neighbour| neighbour.rank).collect()
    }

    /// Bytes sent so far over sockets to all peers together, frame headers included.
    pub fn bytes_sent(&self) -> u64 {
        self.links.iter().map(Link::bytes_sent).sum()
    }

    /// Runs one operation within the limit; a failure ends the collective.
    fn guarded<T>(
        &mut self,
        name: &'static str,
        operation: impl FnOnce(&mut Self, Deadline) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        let limit = self.operation_limit;
        self.guarded_until(Deadline { name, limit, at: limit.map(|limit| Instant::now() + limit) }, operation)
    }

    fn guarded_until<T>(
        &mut self,
        deadline: Deadline,
        operation: impl FnOnce(&mut Self, Deadline) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        let result = match () {
            () if self.abort.is_aborted() => Err(CollectiveError::Aborted),
            () if self.broken => Err(CollectiveError::Broken),
            () => operation(self, deadline),
        };
        self.sequence += 1;
        result.map_err(|error| self.fail(error))
    }

    /// Ends the collective with this error, or with the abort that caused it.
    fn fail(&mut self, error: CollectiveError) -> CollectiveError {
        self.broken = true;
        self.sockets.shut_down();
        // An abort shuts the sockets down, which looks like the loss of a peer.
        if self.abort.is_aborted() { CollectiveError::Aborted } else { error }
    }

    /// Sends `start` to every peer and returns all start frames, by rank.
    fn meet(&mut self, kind: Kind, start: Vec<u8>, deadline: Deadline) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let mut meeting = Meeting::new(self.sequence, kind, &start, self.links.len());
        drive(&mut self.links, &mut meeting, &self.abort, deadline)?;
        let mut starts = meeting.finish();
        starts.insert(self.rank as usize, start);
        Ok(starts)
    }

    fn peers(&self) -> impl Iterator<Item = u32> {
        let rank = self.rank;
        (0..self.world).filter(move |peer| *peer != rank)
    }

    fn reduce(
        &mut self,
        leaves: u32,
        elements: usize,
        parts: Vec<(Range<u32>, Vec<f32>)>,
        deadline: Deadline,
    ) -> Result<Reduced, CollectiveError> {
        check_reduction(leaves, elements, &parts)?;
        let starts = self.meet(Kind::Reduce, ReduceStart::encode(leaves, elements, &parts), deadline)?;
        let mut decoded = Vec::with_capacity(starts.len());
        for (rank, start) in (0..).zip(&starts) {
            let start = ReduceStart::decode(start).map_err(|detail| CollectiveError::protocol(rank, detail))?;
            if (start.leaves, start.elements) != (leaves, elements as u64) {
                let detail = format!(
                    "expected a reduction of {leaves} leaves and {elements} elements, got {} leaves and {} elements",
                    start.leaves, start.elements
                );
                return Err(CollectiveError::protocol(rank, detail));
            }
            decoded.push(start);
        }
        let ranges: Vec<_> = decoded.iter().map(|start| start.ranges.clone()).collect();
        let plan = Plan::new(leaves, &ranges).map_err(|detail| CollectiveError::protocol(self.rank, detail))?;
        let parts: Vec<Vec<f32>> = parts.into_iter().map(|(_, values)| values).collect();
        if ranges.iter().all(|ranges| ReduceStart::is_whole(ranges.len(), elements)) {
            return Ok(reduce_inline(&plan, elements, &decoded, parts));
        }
        let Self { rank, world, links, shared, buffers, sequence, abort, .. } = self;
        let neighbours: Vec<u32> = shared.iter().flat_map(|shared| &shared.neighbours).map(|n| n.rank).collect();
        let reduction = Reduction::new(plan, (*rank, *world), elements, parts, buffers, shared.as_mut());
        let by_tcp = |link: &Link| !neighbours.contains(&link.rank());
        let flows = |flow: &dyn Fn(u32) -> Vec<bulk::Segment>| {
            links.iter().map(|link| if by_tcp(link) { flow(link.rank()) } else { Vec::new() }).collect()
        };
        let outgoing = flows(&|peer| reduction.outgoing(peer));
        let incoming = flows(&|peer| reduction.incoming(peer));
        let mut bulk = Bulk::new(*sequence, outgoing, incoming, reduction);
        drive(links, &mut bulk, abort, deadline)?;
        Ok(bulk.finish().finish())
    }

    fn gather(&mut self, mine: &[u8], deadline: Deadline) -> Result<Vec<Vec<u8>>, CollectiveError> {
        check_gather(mine)?;
        let starts = self.meet(Kind::Gather, GatherStart::encode(mine), deadline)?;
        let mut all = Vec::with_capacity(starts.len());
        for (rank, start) in (0..).zip(&starts) {
            all.push(GatherStart::decode(start).map_err(|detail| CollectiveError::protocol(rank, detail))?);
        }
        all[self.rank as usize] = mine.to_vec();
        let rest = GatherRest::new(self.rank, all, INLINE_BYTES);
        let outgoing = self.peers().map(|_| rest.outgoing()).collect();
        let incoming = self.peers().map(|peer| rest.incoming(peer)).collect();
        let mut bulk = Bulk::new(self.sequence, outgoing, incoming, rest);
        drive(&mut self.links, &mut bulk, &self.abort, deadline)?;
        Ok(bulk.finish().into_all())
    }
}

impl Collective for Ring {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world(&self) -> u32 {
        self.world
    }

    fn all_reduce(
        &mut self,
        leaves: u32,
        elements: usize,
        parts: Vec<(Range<u32>, Vec<f32>)>,
    ) -> Result<Reduced, CollectiveError> {
        self.guarded("all_reduce", |ring, deadline| ring.reduce(leaves, elements, parts, deadline))
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.guarded("all_gather", |ring, deadline| ring.gather(mine, deadline))
    }

    fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.broken && !self.abort.is_aborted() {
            let farewell = header(self.sequence, Kind::Farewell, 0);
            for link in &mut self.links {
                // It does not fit only behind data that says the same: that this rank has finished its last meeting.
                let _ = link.send(&farewell, &[]);
            }
        }
        // Closing is not enough while an aborting thread still holds the sockets.
        self.sockets.shut_down();
    }
}

/// When an operation must have ended.
#[derive(Clone, Copy)]
struct Deadline {
    name: &'static str,
    limit: Option<Duration>,
    at: Option<Instant>,
}

/// Adds up a reduction whose parts all came with the starts.
fn reduce_inline(plan: &Plan, elements: usize, starts: &[ReduceStart], parts: Vec<Vec<f32>>) -> Reduced {
    let mut sources: Vec<&[f32]> = vec![&[]; plan.parts()];
    for (rank, start) in (0..).zip(starts) {
        for (part, position) in plan.positions(rank).iter().enumerate() {
            sources[*position] = &start.values[part * elements..(part + 1) * elements];
        }
    }
    let mut buffers = parts.into_iter();
    let mut sum = buffers.next().unwrap_or_else(|| vec![0.0; elements]);
    plan.program(None).run(&mut sum, &sources, None);
    Reduced { sum, spare: buffers.collect() }
}
