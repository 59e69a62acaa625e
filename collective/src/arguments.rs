//! What a caller may bring to an operation, checked in one place for every implementation.

use std::ops::Range;

use crate::reduction::is_node;
use crate::{CollectiveError, MAX_GATHER_BYTES, MAX_PARTS};

/// Checks what one rank brings to a reduction of `elements` elements.
pub(crate) fn check_reduction(
    leaves: u32,
    elements: usize,
    parts: &[(Range<u32>, Vec<f32>)],
) -> Result<(), CollectiveError> {
    if parts.len() > MAX_PARTS {
        return Err(CollectiveError::invalid(format!("{} parts, at most {MAX_PARTS} are possible", parts.len())));
    }
    if let Some((range, values)) = parts.iter().find(|(_, values)| values.len() != elements) {
        let detail = format!("the sum of leaves {range:?} has {} elements, expected {elements}", values.len());
        return Err(CollectiveError::invalid(detail));
    }
    if let Some((range, _)) = parts.iter().find(|(range, _)| !is_node(leaves, range)) {
        let detail = format!("leaves {range:?} are no subtree of the tree over {leaves} leaves");
        return Err(CollectiveError::invalid(detail));
    }
    if let Some([(left, _), (right, _)]) = parts.array_windows().find(|[left, right]| left.0.end > right.0.start) {
        return Err(CollectiveError::invalid(format!("leaves {left:?} come before leaves {right:?}")));
    }
    Ok(())
}

/// Checks what one rank brings to a gather.
pub(crate) fn check_gather(mine: &[u8]) -> Result<(), CollectiveError> {
    if mine.len() > MAX_GATHER_BYTES {
        let detail = format!("{} bytes to gather, at most {MAX_GATHER_BYTES} are allowed", mine.len());
        return Err(CollectiveError::invalid(detail));
    }
    Ok(())
}
