//! The bulk of an operation: frames in an order that both ends know.

use std::ops::Range;

use super::CHUNK_BYTES;
use super::frame::{HEADER_BYTES, Kind, check_header, header};
use super::link::Link;
use super::shared::Shared;
use super::wait::Drive;
use crate::CollectiveError;

/// What one frame carries: `range` of the buffer `place`, whose meaning is the [`Buffers`]' own.
pub(super) struct Segment {
    pub(super) kind: Kind,
    pub(super) place: usize,
    pub(super) range: Range<usize>,
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

    /// As [`Drive::work`].
    fn work(&mut self) -> bool {
        false
    }

    /// As [`Drive::shared`].
    fn shared(&self) -> Option<&Shared> {
        None
    }

    /// Whether something is still to be done with a neighbour, by rank.
    fn awaits(&self, _rank: u32) -> bool {
        false
    }

    /// As [`Drive::ended`], for an awaited neighbour.
    fn ended(&mut self, _link: &Link) -> Result<(), CollectiveError> {
        Ok(())
    }
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

    fn awaits(&self, link: &Link) -> bool {
        self.buffers.awaits(link.rank())
    }

    fn work(&mut self) -> bool {
        self.buffers.work()
    }

    fn shared(&self) -> Option<&Shared> {
        self.buffers.shared()
    }

    fn ended(&mut self, _index: usize, link: &Link) -> Result<(), CollectiveError> {
        self.buffers.ended(link)
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

/// Cuts a range into pieces of `size`; only the last one may be smaller.
pub(super) fn chunks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(size).map(move |start| start..range.end.min(start + size))
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
