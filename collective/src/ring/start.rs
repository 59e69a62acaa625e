//! What the start frames of operations say.

use std::ops::Range;

use super::frame::MAX_START_BYTES;
use crate::{MAX_GATHER_BYTES, MAX_PARTS};

/// Bytes of a gather that travel in the start frame, so that a small one is complete after the meeting.
pub(super) const INLINE_BYTES: usize = MAX_START_BYTES - size_of::<u64>();

/// Start of a gather: the whole length (u64), then the first [`INLINE_BYTES`].
pub(super) struct GatherStart;

impl GatherStart {
    pub(super) fn encode(mine: &[u8]) -> Vec<u8> {
        let mut start = (mine.len() as u64).to_le_bytes().to_vec();
        start.extend_from_slice(&mine[..mine.len().min(INLINE_BYTES)]);
        start
    }

    /// A buffer of the whole length, of which the first bytes are filled.
    pub(super) fn decode(start: &[u8]) -> Result<Vec<u8>, String> {
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

/// Start of a reduction: leaves (u32), number of parts (u32), elements (u64), two u32 for each part's leaves, and the
/// values of all parts one after the other if all of it fits into a start frame.
pub(super) struct ReduceStart {
    pub(super) leaves: u32,
    pub(super) elements: u64,
    pub(super) ranges: Vec<Range<u32>>,
    pub(super) values: Vec<f32>,
}

/// Bytes before the ranges.
const REDUCE_HEAD_BYTES: usize = 4 + 4 + 8;

const _: () = assert!(REDUCE_HEAD_BYTES + 8 * MAX_PARTS <= MAX_START_BYTES);

impl ReduceStart {
    pub(super) fn encode(leaves: u32, elements: usize, parts: &[(Range<u32>, Vec<f32>)]) -> Vec<u8> {
        let mut start = leaves.to_le_bytes().to_vec();
        start.extend((parts.len() as u32).to_le_bytes());
        start.extend((elements as u64).to_le_bytes());
        for (range, _) in parts {
            start.extend(range.start.to_le_bytes());
            start.extend(range.end.to_le_bytes());
        }
        if Self::is_whole(parts.len(), elements) {
            for (_, values) in parts {
                start.extend_from_slice(bytemuck::cast_slice(values));
            }
        }
        start
    }

    /// Whether the start of a rank with so many parts holds their values.
    pub(super) fn is_whole(parts: usize, elements: usize) -> bool {
        let room = MAX_START_BYTES - REDUCE_HEAD_BYTES - 8 * parts;
        elements <= room / (size_of::<f32>() * parts.max(1))
    }

    pub(super) fn decode(start: &[u8]) -> Result<Self, String> {
        const SHORT: &str = "a start frame of a reduction is too short";
        let (leaves, rest) = start.split_first_chunk().ok_or(SHORT)?;
        let (count, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (elements, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (leaves, elements) = (u32::from_le_bytes(*leaves), u64::from_le_bytes(*elements));
        let count = u32::from_le_bytes(*count) as usize;
        let odd = || format!("{} bytes came for {count} parts of a reduction", rest.len());
        if count > MAX_PARTS {
            return Err(odd());
        }
        let (ranges, values) = rest.split_at_checked(8 * count).ok_or_else(odd)?;
        let whole = usize::try_from(elements).is_ok_and(|elements| Self::is_whole(count, elements));
        let expected = if whole { count * elements as usize * size_of::<f32>() } else { 0 };
        if values.len() != expected {
            return Err(odd());
        }
        let range = |[a, b, c, d, e, f, g, h]: &[u8; 8]| {
            u32::from_le_bytes([*a, *b, *c, *d])..u32::from_le_bytes([*e, *f, *g, *h])
        };
        let ranges = ranges.as_chunks::<8>().0.iter().map(range).collect();
        let values = values.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Self { leaves, elements, ranges, values })
    }
}
