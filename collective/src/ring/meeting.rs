//! The meeting that every operation begins with.

use super::frame::{HEADER_BYTES, Kind, MAX_START_BYTES, check_header, header};
use super::link::Link;
use super::wait::Drive;
use crate::CollectiveError;

/// One start frame to every peer, and one from each.
///
/// A rank waits here for peers that are still computing, so it must learn of the failure of those that have come
/// already. Their connections are watched, and end in one of two ways. A peer that has finished the meeting went on or
/// said farewell: something comes after its start, and whoever is missing here is on the way, since that peer has met
/// it. A peer with nothing after its start has failed.
pub(super) struct Meeting {
    sequence: u64,
    kind: Kind,
    frame: Vec<u8>,
    /// By link: bytes of the frame that were sent, and the peer's start.
    sent: Vec<usize>,
    received: Vec<Option<Vec<u8>>>,
    /// By link: whether the peer is known to have finished the meeting.
    finished: Vec<bool>,
}

impl Meeting {
    pub(super) fn new(sequence: u64, kind: Kind, start: &[u8], links: usize) -> Self {
        debug_assert!(start.len() <= MAX_START_BYTES);
        let mut frame = header(sequence, kind, start.len()).to_vec();
        frame.extend_from_slice(start);
        Self { sequence, kind, frame, sent: vec![0; links], received: vec![None; links], finished: vec![false; links] }
    }

    /// The peers' starts, by link.
    pub(super) fn finish(self) -> Vec<Vec<u8>> {
        self.received.into_iter().map(|start| start.expect("the stage ends when every start was received")).collect()
    }
}

impl Drive for Meeting {
    fn wants_send(&self, index: usize) -> bool {
        self.sent[index] < self.frame.len()
    }

    fn wants_receive(&self, index: usize) -> bool {
        self.received[index].is_none()
    }

    fn watches(&self, index: usize) -> bool {
        !self.finished[index]
    }

    fn ended(&mut self, index: usize, link: &Link) -> Result<(), CollectiveError> {
        link.check_end()?;
        self.finished[index] = true;
        Ok(())
    }

    fn send(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError> {
        self.sent[index] += link.send(&self.frame[self.sent[index]..], &[])?;
        Ok(())
    }

    fn take(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError> {
        let Some((header, rest)) = link.ahead().split_first_chunk::<HEADER_BYTES>() else { return Ok(()) };
        let length = check_header(header, self.sequence, self.kind, link.rank())?;
        if length > MAX_START_BYTES {
            let detail = format!("a start frame of {length} bytes, at most {MAX_START_BYTES} are allowed");
            return Err(CollectiveError::protocol(link.rank(), detail));
        }
        if let Some(start) = rest.get(..length) {
            self.received[index] = Some(start.to_vec());
            link.consume(HEADER_BYTES + length);
        }
        Ok(())
    }

    fn receive(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError> {
        link.receive(&mut [])?;
        self.take(index, link)
    }
}
