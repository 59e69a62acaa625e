//! A group of processes over TCP.
//!
//! # Stages
//!
//! 1. **Forming** ([`connect()`]). Every pair of ranks gets one connection: the higher rank dials the lower one's
//!    [`Listener`], says who it is (magic, version, group, generation, ranks, world) and waits for the answer. All pairs
//!    form at the same time, on the calling thread. A connection that says anything else is dropped without disturbing
//!    the others; a dialler of an older generation is told so and fails as stale.
//! 2. **Operations.** Each begins with a *meeting*: every rank sends every other one small start frame, which says what
//!    it is about to do, and waits for all of theirs. A small gather is complete then. Bulk data follows in frames of at
//!    most [`CHUNK_BYTES`], in an order that both ends derive from the start frames. A reduction is a reduce-scatter by
//!    range of elements and an all-gather of the sums; they overlap, as each chunk is sent on once it is added up.
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
//! Sockets do not block; the calling thread waits in `poll` for all of them, so sending, receiving and adding overlap
//! without handing anything to another thread, and nothing can deadlock: a rank in an operation always reads.
//!
//! # Who is gone
//!
//! - A process that dies, however it dies, closes its connections: seen at once.
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
mod link;
mod listener;
mod meeting;
mod wait;

use crate::reduction::{Plan, check_parts};
use crate::{AbortHandle, Collective, CollectiveError, MAX_GATHER_BYTES, MAX_PARTS};
use bulk::{Bulk, GatherRest, Reduction};
use frame::{Kind, MAX_START_BYTES, header};
use link::{Link, Sockets};
use meeting::Meeting;
use wait::{Drive, drive};

pub use connect::{Membership, connect};
pub use link::VANISHED_AFTER;
pub use listener::Listener;

/// Most bytes of one frame of bulk data: large enough that headers and system calls do not count, small enough that
/// adding one chunk overlaps with receiving the next, and that a chunk is still in the cache when it is added.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Elements of a chunk.
const CHUNK_ELEMENTS: usize = CHUNK_BYTES / size_of::<f32>();

// Numbers travel as they lie in memory, which is what safetensors does too.
const _: () = assert!(cfg!(target_endian = "little"), "the ring sends little-endian numbers");

/// A member of a group over TCP, made by [`connect()`].
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
    /// Buffers of received partial sums, kept so that their pages need not be mapped anew every step.
    spare: Vec<Vec<f32>>,
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
            spare: Vec::new(),
        }
    }

    /// Ends every later operation that takes longer with [`CollectiveError::TimedOut`]; `None` waits for ever.
    ///
    /// An operation waits for the slowest member, so the limit must exceed the longest step of any of them.
    pub fn set_operation_limit(&mut self, limit: Option<Duration>) {
        self.operation_limit = limit;
    }

    /// Bytes sent so far to all peers together, frame headers included.
    pub fn bytes_sent(&self) -> u64 {
        self.links.iter().map(Link::bytes_sent).sum()
    }

    /// Runs one operation; a failure ends the collective.
    fn guarded<T>(
        &mut self,
        name: &'static str,
        operation: impl FnOnce(&mut Self, Deadline) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        let limit = self.operation_limit;
        let deadline = Deadline { name, limit, at: limit.map(|limit| Instant::now() + limit) };
        let result = match () {
            () if self.abort.is_aborted() => Err(CollectiveError::Aborted),
            () if self.broken => Err(CollectiveError::Broken),
            () => operation(self, deadline),
        };
        self.sequence += 1;
        result.map_err(|error| {
            self.broken = true;
            self.sockets.shut_down();
            // An abort shuts the sockets down, which looks like the loss of a peer.
            if self.abort.is_aborted() { CollectiveError::Aborted } else { error }
        })
    }

    /// Sends `start` to every peer and returns all start frames, by rank.
    fn meet(&mut self, kind: Kind, start: Vec<u8>, deadline: Deadline) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let mut meeting = Meeting::new(self.sequence, kind, &start, self.links.len());
        self.drive(&mut meeting, deadline)?;
        let mut starts = meeting.finish();
        starts.insert(self.rank as usize, start);
        Ok(starts)
    }

    fn drive(&mut self, job: &mut impl Drive, deadline: Deadline) -> Result<(), CollectiveError> {
        drive(&mut self.links, job, deadline)
    }

    fn peers(&self) -> impl Iterator<Item = u32> {
        let rank = self.rank;
        (0..self.world).filter(move |peer| *peer != rank)
    }

    fn reduce(
        &mut self,
        leaves: u32,
        parts: Vec<(Range<u32>, Vec<f32>)>,
        sum: &mut [f32],
        deadline: Deadline,
    ) -> Result<(), CollectiveError> {
        check_parts(leaves, &parts, sum.len())?;
        let start = ReduceStart::encode(leaves, sum.len(), &parts);
        let starts = self.meet(Kind::Reduce, start, deadline)?;
        let mut ranges = Vec::with_capacity(starts.len());
        for (rank, start) in (0..).zip(&starts) {
            let start = ReduceStart::decode(start).map_err(|detail| CollectiveError::protocol(rank, detail))?;
            if (start.leaves, start.elements) != (leaves, sum.len() as u64) {
                let detail = format!(
                    "expected a reduction of {leaves} leaves and {} elements, got {} leaves and {} elements",
                    sum.len(),
                    start.leaves,
                    start.elements
                );
                return Err(CollectiveError::protocol(rank, detail));
            }
            ranges.push(start.ranges);
        }
        let plan = Plan::new(leaves, &ranges).map_err(|detail| CollectiveError::protocol(self.rank, detail))?;
        let mine = parts.into_iter().map(|(_, values)| values).collect();
        let reduction = Reduction::new(plan, self.rank, self.world, mine, sum, &mut self.spare);
        let outgoing = self.peers().map(|peer| reduction.outgoing(peer)).collect();
        let incoming = self.peers().map(|peer| reduction.incoming(peer)).collect();
        let mut bulk = Bulk::new(self.sequence, outgoing, incoming, reduction);
        self.drive(&mut bulk, deadline)?;
        bulk.finish().recycle(&mut self.spare);
        Ok(())
    }

    fn gather(&mut self, mine: &[u8], deadline: Deadline) -> Result<Vec<Vec<u8>>, CollectiveError> {
        if mine.len() > MAX_GATHER_BYTES {
            let detail = format!("{} bytes to gather, at most {MAX_GATHER_BYTES} are allowed", mine.len());
            return Err(CollectiveError::invalid(detail));
        }
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
        self.drive(&mut bulk, deadline)?;
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

    fn all_reduce_exact(
        &mut self,
        leaves: u32,
        parts: Vec<(Range<u32>, Vec<f32>)>,
        sum: &mut [f32],
    ) -> Result<(), CollectiveError> {
        self.guarded("all_reduce_exact", |ring, deadline| ring.reduce(leaves, parts, sum, deadline))
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

/// Bytes of a gather that travel in the start frame, so that a small one is complete after the meeting.
const INLINE_BYTES: usize = MAX_START_BYTES - size_of::<u64>();

/// Start of a gather: the whole length (u64), then the first [`INLINE_BYTES`].
struct GatherStart;

impl GatherStart {
    fn encode(mine: &[u8]) -> Vec<u8> {
        let mut start = (mine.len() as u64).to_le_bytes().to_vec();
        start.extend_from_slice(&mine[..mine.len().min(INLINE_BYTES)]);
        start
    }

    /// A buffer of the whole length, of which the first bytes are filled.
    fn decode(start: &[u8]) -> Result<Vec<u8>, String> {
        let (length, inline) = start.split_first_chunk().ok_or("a start frame of a gather is too short")?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_GATHER_BYTES as u64 {
            return Err(format!("{length} bytes to gather, at most {MAX_GATHER_BYTES} are allowed"));
        }
        let length = length as usize;
        if inline.len() != length.min(INLINE_BYTES) {
            return Err(format!("{} bytes came with the start of a gather of {length} bytes", inline.len()));
        }
        let mut bytes = inline.to_vec();
        bytes.resize(length, 0);
        Ok(bytes)
    }
}

/// Start of a reduction: leaves (u32), number of parts (u32), elements (u64), and two u32 for each part's leaves.
struct ReduceStart {
    leaves: u32,
    elements: u64,
    ranges: Vec<Range<u32>>,
}

impl ReduceStart {
    fn encode(leaves: u32, elements: usize, parts: &[(Range<u32>, Vec<f32>)]) -> Vec<u8> {
        let mut start = leaves.to_le_bytes().to_vec();
        start.extend((parts.len() as u32).to_le_bytes());
        start.extend((elements as u64).to_le_bytes());
        for (range, _) in parts {
            start.extend(range.start.to_le_bytes());
            start.extend(range.end.to_le_bytes());
        }
        start
    }

    fn decode(start: &[u8]) -> Result<Self, String> {
        const SHORT: &str = "a start frame of a reduction is too short";
        let (leaves, rest) = start.split_first_chunk().ok_or(SHORT)?;
        let (count, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (elements, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (ranges, odd) = rest.as_chunks::<8>();
        let count = u32::from_le_bytes(*count) as usize;
        if count > MAX_PARTS || ranges.len() != count || !odd.is_empty() {
            return Err(format!("{} bytes came for {count} parts of a reduction", rest.len()));
        }
        let range = |[a, b, c, d, e, f, g, h]: &[u8; 8]| {
            u32::from_le_bytes([*a, *b, *c, *d])..u32::from_le_bytes([*e, *f, *g, *h])
        };
        Ok(Self {
            leaves: u32::from_le_bytes(*leaves),
            elements: u64::from_le_bytes(*elements),
            ranges: ranges.iter().map(range).collect(),
        })
    }
}
