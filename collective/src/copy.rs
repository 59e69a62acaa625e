//! Copying blocks of numbers between caches.

/// Elements that are copied at a time: 2 KiB, below every size from which C libraries copy with a single string instruction.
const PIECE: usize = 512;

/// As `to.copy_from_slice(from)`, for blocks that another core has just written or is about to read.
///
/// For more than 2 or 8 KiB the C library uses `rep movsb` on processors that call it fast. Where both ends lie in caches, and
/// at the same place of a page as slots do, processors of the family Zen 3 copy less than half as fast that way as
/// with vector registers (glibc, bug 30994; measured here: a reduction of 25 MB between two ranks took 10 ms instead of 4).
pub(crate) fn copy(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len(), "a copy is as long as what it is made of");
    for (to, from) in to.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
        to.copy_from_slice(from);
    }
}
