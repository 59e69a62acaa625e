//! An exact reduction under way.
//!
//! A reduce-scatter by range of elements and an all-gather of the sums, piece by piece. A rank sends the pieces of its
//! partial sums to their owners, adds up the pieces that it owns, and sends those sums to everybody. Sums follow partial
//! sums closely, so that a piece is still in the cache when its sum comes back into the same place.

use std::collections::VecDeque;
use std::ops::Range;

use super::CHUNK_ELEMENTS;
use super::bulk::{Buffers, Segment, chunks};
use super::frame::Kind;
use super::link::Link;
use super::shared::Shared;
use crate::copy::{copy, copy_from_memory, copy_to_memory};
use crate::reduction::{Plan, Program, owned_elements};
use crate::{CollectiveError, Reduced};

/// Pieces of partial sums that a rank sends to a peer before it sends a sum. Enough to keep both ends busy.
const LEAD: usize = 4;

/// From so many bytes of the vectors of all ranks of a host on, the sums are written past the cache: half of what processors
/// have in their last level. Between two ranks they are not, as a sum comes back so soon that its place is still in the cache.
const LARGE_BYTES: usize = 16 << 20;

/// The state of a reduction on one rank. In a frame, the place of a partial sum is the position of its part in the plan;
/// that of a sum means nothing.
pub(super) struct Reduction<'a> {
    plan: Plan,
    program: Program,
    rank: u32,
    world: u32,
    /// This rank's first part, or a new buffer if it has none. Sums replace what has been sent.
    sum: Vec<f32>,
    /// This rank's other parts.
    others: Vec<Vec<f32>>,
    /// Elements of a piece: a whole piece of all parts of any rank fits into a chunk.
    piece: usize,
    /// The elements whose sum this rank finishes, and how many pieces of them are finished.
    owned: Range<usize>,
    finished: usize,
    /// Whether sums leave the cache before they are read, see [`LARGE_BYTES`].
    is_large: bool,
    /// By position in the plan, for parts of peers that send by TCP: the piece that is coming in, and those that came.
    coming: Vec<Option<Vec<f32>>>,
    came: Vec<VecDeque<Vec<f32>>>,
    /// Buffers for pieces that come by TCP. The last one used is the next one taken, since it is in the cache.
    buffers: &'a mut Vec<Vec<f32>>,
    shared: Option<&'a mut Shared>,
    /// By neighbour.
    lanes: Vec<Lane>,
    /// The neighbours that send partial sums, with the number of their parts.
    givers: Vec<(usize, usize)>,
}

/// What is done with one neighbour.
struct Lane {
    rank: u32,
    /// The elements that it owns.
    owned: Range<usize>,
    /// Pieces of them that were sent to it, and whose sums were taken.
    sent: usize,
    heard: usize,
}

impl<'a> Reduction<'a> {
    /// `parts` are this rank's, in order, each of `elements` elements.
    pub(super) fn new(
        plan: Plan,
        (rank, world): (u32, u32),
        elements: usize,
        parts: Vec<Vec<f32>>,
        buffers: &'a mut Vec<Vec<f32>>,
        shared: Option<&'a mut Shared>,
    ) -> Self {
        let in_place = plan.positions(rank).first().copied();
        let mut parts = parts.into_iter();
        let sum = parts.next().unwrap_or_else(|| vec![0.0; elements]);
        let neighbours = shared.iter().flat_map(|shared| &shared.neighbours).map(|neighbour| neighbour.rank);
        let lanes: Vec<Lane> = neighbours
            .map(|rank| Lane { rank, owned: owned_elements(elements, rank, world), sent: 0, heard: 0 })
            .collect();
        let parts_of = |lane: &Lane| plan.positions(lane.rank).len();
        let givers = lanes.iter().map(parts_of).enumerate().filter(|(_, parts)| *parts > 0).collect();
        Self {
            program: plan.program(in_place),
            rank,
            world,
            sum,
            others: parts.collect(),
            piece: CHUNK_ELEMENTS / plan.most_parts().max(1),
            owned: owned_elements(elements, rank, world),
            finished: 0,
            is_large: lanes.len() > 1 && (1 + lanes.len()) * elements * size_of::<f32>() >= LARGE_BYTES,
            coming: (0..plan.parts()).map(|_| None).collect(),
            came: (0..plan.parts()).map(|_| VecDeque::new()).collect(),
            buffers,
            shared,
            lanes,
            givers,
            plan,
        }
    }

    /// What comes from `peer` by TCP if it sends by TCP: the mirror image of what goes to it.
    pub(super) fn incoming(&self, peer: u32) -> Vec<Segment> {
        self.flow(peer, self.owned.clone(), owned_elements(self.sum.len(), peer, self.world))
    }

    /// What goes to `peer` by TCP: its elements of this rank's parts, and the sums of this rank's elements.
    pub(super) fn outgoing(&self, peer: u32) -> Vec<Segment> {
        self.flow(self.rank, owned_elements(self.sum.len(), peer, self.world), self.owned.clone())
    }

    /// A sum needs the partial sums of the same piece from everybody, and all of them come earlier in their flows; so no
    /// flow waits for another in a circle.
    fn flow(&self, parts_of: u32, partial: Range<usize>, sums: Range<usize>) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut partial = chunks(partial, self.piece);
        let mut sums = chunks(sums, self.piece);
        for step in 0.. {
            let piece = partial.next();
            let sum = if step < LEAD { None } else { sums.next() };
            if step >= LEAD && piece.is_none() && sum.is_none() {
                break;
            }
            if let Some(range) = piece {
                for &place in self.plan.positions(parts_of) {
                    segments.push(Segment { kind: Kind::Partial, place, range: range.clone() });
                }
            }
            segments.extend(sum.map(|range| Segment { kind: Kind::Sum, place: 0, range }));
        }
        segments
    }

    /// The sum, and the buffers of the other parts.
    pub(super) fn finish(self) -> Reduced {
        Reduced { sum: self.sum, spare: self.others }
    }

    fn part(&self, place: usize) -> &[f32] {
        match self.plan.positions(self.rank).iter().position(|own| *own == place) {
            Some(0) => &self.sum,
            Some(index) => &self.others[index - 1],
            None => unreachable!("only this rank's own parts are sent"),
        }
    }

    /// Does one piece of everything that can be done without the sockets. Returns whether there was anything.
    fn pass(&mut self) -> bool {
        let mut moved = false;
        for index in 0..self.lanes.len() {
            moved |= self.hear(index);
        }
        moved |= self.advance();
        for index in 0..self.lanes.len() {
            moved |= self.send_shared(index);
        }
        moved
    }

    /// Takes a sum from a neighbour.
    fn hear(&mut self, index: usize) -> bool {
        let (Some(shared), lane) = (&mut self.shared, &mut self.lanes[index]) else { return false };
        match nth_piece(&lane.owned, self.piece, lane.heard) {
            Some(piece) if shared.can_hear(index) => {
                let copy = if self.is_large { copy_to_memory } else { copy };
                shared.hear(index, piece.len(), |values| copy(&mut self.sum[piece], values));
                lane.heard += 1;
                true
            }
            _ => false,
        }
    }

    /// Sends a piece of this rank's parts to a neighbour.
    fn send_shared(&mut self, index: usize) -> bool {
        let (Some(shared), lane) = (&mut self.shared, &mut self.lanes[index]) else { return false };
        if self.plan.positions(self.rank).is_empty() {
            return false;
        }
        match nth_piece(&lane.owned, self.piece, lane.sent) {
            Some(piece) if shared.can_send(index) => {
                let parts = 1 + self.others.len();
                shared.send(index, parts * piece.len(), |slot| {
                    let parts = std::iter::once(&self.sum).chain(&self.others);
                    for (target, part) in slot.chunks_exact_mut(piece.len()).zip(parts) {
                        copy_from_memory(target, &part[piece.clone()]);
                    }
                });
                lane.sent += 1;
                true
            }
            _ => false,
        }
    }

    /// Adds up the next owned piece if all of it is there and its sum has room.
    fn advance(&mut self) -> bool {
        let Some(piece) = nth_piece(&self.owned, self.piece, self.finished) else { return false };
        let by_tcp = |peer: u32| peer != self.rank && self.lanes.iter().all(|lane| lane.rank != peer);
        let mut awaited = (0..self.world).filter(|peer| by_tcp(*peer)).flat_map(|peer| self.plan.positions(peer));
        if awaited.any(|position| self.came[*position].is_empty()) {
            return false;
        }
        if let Some(shared) = &self.shared
            && !(shared.can_tell() && self.givers.iter().all(|(index, _)| shared.can_receive(*index)))
        {
            return false;
        }
        let mut sources: Vec<&[f32]> = vec![&[]; self.plan.parts()];
        for (other, position) in self.others.iter().zip(self.plan.positions(self.rank).iter().skip(1)) {
            sources[*position] = &other[piece.clone()];
        }
        for (position, came) in self.came.iter().enumerate() {
            if let Some(values) = came.front() {
                sources[position] = values;
            }
        }
        let sum = &mut self.sum[piece.clone()];
        match &mut self.shared {
            None => self.program.run(sum, &sources, None),
            Some(shared) => {
                let length = piece.len();
                let from: Vec<_> = self.givers.iter().map(|(index, parts)| (*index, parts * length)).collect();
                let positions = self.givers.iter().map(|(index, _)| self.plan.positions(self.lanes[*index].rank));
                shared.tell(&from, length, |messages, slot| {
                    // The messages live shorter than the other sources.
                    let mut sources: Vec<&[f32]> = sources;
                    for (positions, message) in positions.zip(messages) {
                        for (position, values) in positions.iter().zip(message.chunks_exact(length)) {
                            sources[*position] = values;
                        }
                    }
                    self.program.run(sum, &sources, Some(slot));
                });
            }
        }
        for came in &mut self.came {
            self.buffers.extend(came.pop_front());
        }
        self.finished += 1;
        true
    }

    /// Whether something is still to be done with a neighbour.
    fn is_open(&self, lane: &Lane) -> bool {
        let pieces = |owned: &Range<usize>| owned.len().div_ceil(self.piece);
        let sends = !self.plan.positions(self.rank).is_empty();
        lane.heard < pieces(&lane.owned)
            || (sends && lane.sent < pieces(&lane.owned))
            || self.finished < pieces(&self.owned)
    }
}

fn nth_piece(range: &Range<usize>, piece: usize, index: usize) -> Option<Range<usize>> {
    let start = range.start + index * piece;
    (start < range.end).then(|| start..range.end.min(start + piece))
}

impl Buffers for Reduction<'_> {
    fn ready(&self, segment: &Segment) -> bool {
        let piece = |range: &Range<usize>| (range.start - self.owned.start) / self.piece;
        segment.kind == Kind::Partial || piece(&segment.range) < self.finished
    }

    fn bytes(&self, segment: &Segment) -> &[u8] {
        bytemuck::cast_slice(match segment.kind {
            Kind::Partial => &self.part(segment.place)[segment.range.clone()],
            _ => &self.sum[segment.range.clone()],
        })
    }

    fn bytes_mut(&mut self, segment: &Segment) -> &mut [u8] {
        if segment.kind != Kind::Partial {
            return bytemuck::cast_slice_mut(&mut self.sum[segment.range.clone()]);
        }
        let coming = self.coming[segment.place].get_or_insert_with(|| {
            let mut buffer = self.buffers.pop().unwrap_or_default();
            buffer.resize(segment.range.len(), 0.0);
            buffer
        });
        bytemuck::cast_slice_mut(coming)
    }

    fn received(&mut self, segment: &Segment) {
        if segment.kind == Kind::Partial {
            self.came[segment.place].extend(self.coming[segment.place].take());
            while self.shared.is_none() && self.advance() {}
        }
    }

    fn work(&mut self) -> bool {
        self.pass()
    }

    fn shared(&self) -> Option<&Shared> {
        self.shared.as_deref()
    }

    fn awaits(&self, rank: u32) -> bool {
        self.lanes.iter().any(|lane| lane.rank == rank && self.is_open(lane))
    }

    /// A neighbour that left with this operation complete has published all of it, and has taken all that it needs. So
    /// what is still open once everything is taken will stay so.
    fn ended(&mut self, link: &Link) -> Result<(), CollectiveError> {
        while self.pass() {}
        if self.awaits(link.rank()) { Err(link.closed()) } else { Ok(()) }
    }
}
