//! Copying blocks of numbers between caches.

/// Elements that are copied at a time: 2 KiB, below the size from which the C library copies with a string instruction.
const PIECE: usize = 512;

/// As `to.copy_from_slice(from)`, for blocks that another core has just written or is about to read.
///
/// For more than some 2 KiB the C library uses `rep movsb` on processors that call it fast for short copies. Zen 3 does, and
/// yet copies at a fraction of the speed of its vector registers where the target does not begin at a cache line
/// (<https://lunnova.dev/articles/ryzen-slow-short-rep-mov>), as no large `Vec` does. With the C library told to use vector
/// registers, a reduction of 25 MB between two ranks took 4.4 ms instead of 10.2.
pub(crate) fn copy(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len(), "a copy is as long as what it is made of");
    for (to, from) in to.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
        to.copy_from_slice(from);
    }
}
