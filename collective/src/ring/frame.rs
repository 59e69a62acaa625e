//! Frames: what travels between two ranks once they are connected.

use std::io::{self, ErrorKind};

use crate::CollectiveError;

/// Bytes of a frame before its payload: operation (u64), length of the payload (u32), kind (u8), three zeros.
pub(super) const HEADER_BYTES: usize = 16;

/// Most bytes of a start frame's payload: small, since every rank keeps one per peer, but enough for which parts
/// a reduction has, for small reductions, and for most gathers.
pub(super) const MAX_START_BYTES: usize = 4096;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Start of a gather.
    Gather = 1,
    /// Start of a reduction.
    Reduce = 2,
    /// Bytes of a gather that did not fit into its start.
    GatherRest = 3,
    /// Elements of a partial sum, for the rank that owns them.
    Partial = 4,
    /// Elements of the whole sum, from the rank that owns them.
    Sum = 5,
    /// The last frame of a rank that leaves with all its operations complete. Without it, the end of a connection is a
    /// failure.
    Farewell = 6,
}

impl Kind {
    fn describe(code: u8) -> &'static str {
        match code {
            1 => "start of all_gather",
            2 => "start of all_reduce",
            3 => "all_gather data",
            4 => "partial sum",
            5 => "sum",
            6 => "farewell",
            _ => "unknown",
        }
    }
}

/// A frame's header, encoded.
pub(super) fn header(sequence: u64, kind: Kind, length: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&sequence.to_le_bytes());
    header[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    header[12] = kind as u8;
    header
}

/// Checks the header of a frame of `kind` in operation `sequence`, and returns the length of its payload. A farewell
/// instead of it means that the peer is gone.
pub(super) fn check_header(
    header: &[u8; HEADER_BYTES],
    sequence: u64,
    kind: Kind,
    rank: u32,
) -> Result<usize, CollectiveError> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, l0, l1, l2, l3, code, zeros @ ..] = *header;
    let came = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    if code == Kind::Farewell as u8 {
        let source = io::Error::new(ErrorKind::ConnectionReset, "left the group");
        return Err(CollectiveError::PeerLost { rank, source });
    }
    if (came, code, zeros) != (sequence, kind as u8, [0; 3]) {
        let detail = format!(
            "expected a frame '{}' of operation {sequence}, got '{}' of operation {came}",
            Kind::describe(kind as u8),
            Kind::describe(code)
        );
        return Err(CollectiveError::protocol(rank, detail));
    }
    Ok(u32::from_le_bytes([l0, l1, l2, l3]) as usize)
}
