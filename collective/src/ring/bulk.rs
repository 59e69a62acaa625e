//! The bulk of an operation: frames in an order that both ends know.

use std::ops::Range;

use super::frame::{HEADER_BYTES, Kind, check_header, header};
use super::link::Link;
use super::wait::Drive;
use super::{CHUNK_BYTES, CHUNK_ELEMENTS};
use crate::CollectiveError;
use crate::reduction::{Operand, Plan, owned_elements};

/// What one frame carries: `range` of the buffer `place`, whose meaning is the [`Buffers`]' own.
pub(super) struct Segment {
    kind: Kind,
    place: usize,
    range: Range<usize>,
}

/// Where the bytes of segments lie.
pub(super) trait Buffers {
    /// Whether a segment may be sent yet.
    fn ready(&self, segment: &Segment) -> bool;

    /// The bytes of an outgoing segment.
    fn bytes(&self, segment: &Segment) -> &[u8];

    /// Where the bytes of an incoming segment go.
    fn bytes_mut(&mut self, segment: &Segment) -> &mut [u8];

    /// Called once a segment has come in whole.
    fn received(&mut self, segment: &Segment);
}

/// Sends and receives the segments of every link.
pub(super) struct Bulk<B> {
    sequence: u64,
    outgoing: Vec<Flow>,
    incoming: Vec<Flow>,
    buffers: B,
}

/// The segments of one direction of a link. `moved` counts the bytes of the next one, its header included.
struct Flow {
    segments: Vec<Segment>,
    next: usize,
    moved: usize,
}

impl Flow {
    fn new(segments: Vec<Segment>) -> Self {
        Self { segments, next: 0, moved: 0 }
    }

    fn current(&self) -> Option<&Segment> {
        self.segments.get(self.next)
    }

    /// Counts `bytes` of a segment of `length` bytes, and goes on to the next one if that is all of it.
    fn advance(&mut self, bytes: usize, length: usize) -> bool {
        self.moved += bytes;
        let whole = self.moved == HEADER_BYTES + length;
        if whole {
            (self.next, self.moved) = (self.next + 1, 0);
        }
        whole
    }
}

impl<B: Buffers> Bulk<B> {
    /// The segments are by link.
    pub(super) fn new(sequence: u64, outgoing: Vec<Vec<Segment>>, incoming: Vec<Vec<Segment>>, buffers: B) -> Self {
        let flows = |segments: Vec<Vec<Segment>>| segments.into_iter().map(Flow::new).collect();
        Self { sequence, outgoing: flows(outgoing), incoming: flows(incoming), buffers }
    }

    pub(super) fn finish(self) -> B {
        self.buffers
    }

    /// Handles what was read ahead, then reads once if `read`, and handles that.
    fn fill(&mut self, index: usize, link: &mut Link, mut read: bool) -> Result<(), CollectiveError> {
        let flow = &mut self.incoming[index];
        while let Some(segment) = flow.segments.get(flow.next) {
            if flow.moved == 0 {
                match link.ahead().first_chunk::<HEADER_BYTES>() {
                    Some(header) => {
                        let length = check_header(header, self.sequence, segment.kind, link.rank())?;
                        let expected = self.buffers.bytes_mut(segment).len();
                        if length != expected {
                            let detail = format!("expected a frame of {expected} bytes, got {length}");
                            return Err(CollectiveError::protocol(link.rank(), detail));
                        }
                        link.consume(HEADER_BYTES);
                        flow.moved = HEADER_BYTES;
                    }
                    None if read => {
                        link.receive(&mut [])?;
                        read = false;
                        continue;
                    }
                    None => return Ok(()),
                }
            }
            let target = self.buffers.bytes_mut(segment);
            let length = target.len();
            let missing = &mut target[flow.moved - HEADER_BYTES..];
            let mut moved = link.take(missing);
            if moved < missing.len() && read {
                moved += link.receive(&mut missing[moved..])?;
                read = false;
            }
            let current = flow.next;
            if !flow.advance(moved, length) {
                return Ok(());
            }
            self.buffers.received(&flow.segments[current]);
        }
        Ok(())
    }
}

impl<B: Buffers> Drive for Bulk<B> {
    fn wants_send(&self, index: usize) -> bool {
        self.outgoing[index].current().is_some_and(|segment| self.buffers.ready(segment))
    }

    fn wants_receive(&self, index: usize) -> bool {
        self.incoming[index].current().is_some()
    }

    fn send(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError> {
        let flow = &mut self.outgoing[index];
        let segment = flow.current().expect("asked for only if there is one");
        let bytes = self.buffers.bytes(segment);
        let header = header(self.sequence, segment.kind, bytes.len());
        let header_left = &header[flow.moved.min(HEADER_BYTES)..];
        let bytes_left = &bytes[flow.moved.saturating_sub(HEADER_BYTES)..];
        let sent = link.send(header_left, bytes_left)?;
        flow.advance(sent, bytes.len());
        Ok(())
    }

    fn take(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError> {
        self.fill(index, link, false)
    }

    fn receive(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError> {
        self.fill(index, link, true)
    }
}

fn chunks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(size).map(move |start| start..range.end.min(start + size))
}

/// An exact reduction under way. A segment's place is the position of an operand in the plan; for sums it means nothing.
pub(super) struct Reduction<'a> {
    plan: Plan,
    rank: u32,
    world: u32,
    /// Partial sums from left to right: whole ones of this rank, and the owned elements of the others'.
    operands: Vec<Operand>,
    /// The elements whose sum this rank finishes.
    owned: Range<usize>,
    /// For each chunk of the owned elements, how many partial sums are still to come.
    missing: Vec<usize>,
    /// Owned chunks added up so far.
    reduced: usize,
    sum: &'a mut [f32],
}

impl<'a> Reduction<'a> {
    /// `mine` are this rank's parts, in order; buffers for those of the peers are taken from `spare` as far as it goes.
    pub(super) fn new(
        plan: Plan,
        rank: u32,
        world: u32,
        mine: Vec<Vec<f32>>,
        sum: &'a mut [f32],
        spare: &mut Vec<Vec<f32>>,
    ) -> Self {
        let owned = owned_elements(sum.len(), rank, world);
        let parts = (0..world).map(|rank| plan.positions(rank).len()).sum();
        let foreign = parts - mine.len();
        let mut operands: Vec<Operand> = Vec::with_capacity(parts);
        let mut mine = plan.positions(rank).iter().zip(mine).peekable();
        for position in 0..parts {
            operands.push(match mine.next_if(|(own, _)| **own == position) {
                Some((_, values)) => Operand { first: 0, values },
                None => {
                    let mut values = spare.pop().unwrap_or_default();
                    values.resize(owned.len(), 0.0);
                    Operand { first: owned.start, values }
                }
            });
        }
        drop(mine);
        let missing = vec![foreign; owned.len().div_ceil(CHUNK_ELEMENTS)];
        let mut reduction = Self { plan, rank, world, operands, owned, missing, reduced: 0, sum };
        reduction.advance();
        reduction
    }

    /// What `peer` gets: its elements of this rank's parts, then the sums of this rank's elements.
    pub(super) fn outgoing(&self, peer: u32) -> Vec<Segment> {
        self.flow(self.rank, owned_elements(self.sum.len(), peer, self.world), self.owned.clone())
    }

    /// What comes from `peer`: the mirror image of its outgoing flow.
    pub(super) fn incoming(&self, peer: u32) -> Vec<Segment> {
        self.flow(peer, self.owned.clone(), owned_elements(self.sum.len(), peer, self.world))
    }

    /// The parts go chunk by chunk, so that the receiver can add a chunk while the next one is on its way.
    fn flow(&self, parts_of: u32, partial: Range<usize>, sums: Range<usize>) -> Vec<Segment> {
        let mut segments = Vec::new();
        for range in chunks(partial, CHUNK_ELEMENTS) {
            for &place in self.plan.positions(parts_of) {
                segments.push(Segment { kind: Kind::Partial, place, range: range.clone() });
            }
        }
        segments.extend(chunks(sums, CHUNK_ELEMENTS).map(|range| Segment { kind: Kind::Sum, place: 0, range }));
        segments
    }

    /// Adds up every chunk that has all its partial sums, in order.
    fn advance(&mut self) {
        while self.missing.get(self.reduced) == Some(&0) {
            let start = self.owned.start + self.reduced * CHUNK_ELEMENTS;
            let chunk = start..self.owned.end.min(start + CHUNK_ELEMENTS);
            let sum = self.plan.reduce(&mut self.operands, &chunk);
            self.sum[chunk].copy_from_slice(sum);
            self.reduced += 1;
        }
    }

    fn chunk_of(&self, range: &Range<usize>) -> usize {
        (range.start - self.owned.start) / CHUNK_ELEMENTS
    }

    /// Gives the buffers of the peers' partial sums back.
    pub(super) fn recycle(self, spare: &mut Vec<Vec<f32>>) {
        let own = self.plan.positions(self.rank);
        let foreign = self.operands.into_iter().enumerate().filter(|(position, _)| !own.contains(position));
        spare.extend(foreign.map(|(_, operand)| operand.values));
    }
}

impl Buffers for Reduction<'_> {
    fn ready(&self, segment: &Segment) -> bool {
        segment.kind == Kind::Partial || self.chunk_of(&segment.range) < self.reduced
    }

    fn bytes(&self, segment: &Segment) -> &[u8] {
        bytemuck::cast_slice(match segment.kind {
            Kind::Partial => self.operands[segment.place].slice(&segment.range),
            _ => &self.sum[segment.range.clone()],
        })
    }

    fn bytes_mut(&mut self, segment: &Segment) -> &mut [u8] {
        bytemuck::cast_slice_mut(match segment.kind {
            Kind::Partial => self.operands[segment.place].slice_mut(&segment.range),
            _ => &mut self.sum[segment.range.clone()],
        })
    }

    fn received(&mut self, segment: &Segment) {
        if segment.kind == Kind::Partial {
            let chunk = self.chunk_of(&segment.range);
            self.missing[chunk] -= 1;
            self.advance();
        }
    }
}

/// The bytes of a gather beyond those that came with the start. A segment's place is the rank they belong to.
pub(super) struct GatherRest {
    rank: u32,
    all: Vec<Vec<u8>>,
    inline: usize,
}

impl GatherRest {
    /// `all` holds a buffer of the right length for every rank, of which the first `inline` bytes are there.
    pub(super) fn new(rank: u32, all: Vec<Vec<u8>>, inline: usize) -> Self {
        Self { rank, all, inline }
    }

    /// What every peer gets.
    pub(super) fn outgoing(&self) -> Vec<Segment> {
        self.incoming(self.rank)
    }

    /// What comes from `peer`.
    pub(super) fn incoming(&self, peer: u32) -> Vec<Segment> {
        let place = peer as usize;
        let rest = self.inline..self.all[place].len();
        chunks(rest, CHUNK_BYTES).map(|range| Segment { kind: Kind::GatherRest, place, range }).collect()
    }

    pub(super) fn into_all(self) -> Vec<Vec<u8>> {
        self.all
    }
}

impl Buffers for GatherRest {
    fn ready(&self, _: &Segment) -> bool {
        true
    }

    fn bytes(&self, segment: &Segment) -> &[u8] {
        &self.all[segment.place][segment.range.clone()]
    }

    fn bytes_mut(&mut self, segment: &Segment) -> &mut [u8] {
        &mut self.all[segment.place][segment.range.clone()]
    }

    fn received(&mut self, _: &Segment) {}
}
