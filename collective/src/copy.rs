//! Copying blocks of numbers between caches and memory.

/// Elements that are copied at a time: 2 KiB, below the size from which the C library copies with a string instruction.
const PIECE: usize = 512;

/// Elements of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 16;

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

/// The same where `from` lies in memory and is read from its beginning to its end, in this call and those that follow.
pub(crate) fn copy_from_memory(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len(), "a copy is as long as what it is made of");
    for (to, from) in to.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
        fetch_after(from);
        to.copy_from_slice(from);
    }
}

/// The same where `to` is not used again before it would have left the cache: it is written past the cache, so that it
/// is neither read before nor takes the place of what the other ranks need next.
pub(crate) fn copy_to_memory(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len(), "a copy is as long as what it is made of");
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_ps, _mm_sfence, _mm_stream_ps};

        const VECTOR: usize = 4;
        // Whole lines only: one that is written in part goes to memory twice.
        let before = to.as_ptr().align_offset(align_of::<Line>()).min(to.len());
        let (head, lines) = to.split_at_mut(before);
        let (from_head, from_lines) = from.split_at(before);
        head.copy_from_slice(from_head);
        let (lines, tail) = lines.as_chunks_mut::<LINE>();
        let (from_lines, from_tail) = from_lines.as_chunks::<LINE>();
        for (to, from) in lines.iter_mut().zip(from_lines) {
            for at in (0..LINE).step_by(VECTOR) {
                // SAFETY: both are a line long, `to` begins at one, and x86-64 has these instructions.
                unsafe { _mm_stream_ps(to.as_mut_ptr().add(at), _mm_loadu_ps(from.as_ptr().add(at))) };
            }
        }
        tail.copy_from_slice(from_tail);
        // SAFETY: x86-64 has this instruction. The writes above are ordered with later ones only by it, and another
        // thread may read what they wrote as soon as it is told.
        unsafe { _mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    copy(to, from);
}

/// The alignment of a cache line.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
struct Line;

/// Asks for what follows `block` in memory and is as long, two blocks ahead. The processor does this by itself only up
/// to the end of a page, so that it waits for memory once per page.
pub(crate) fn fetch_after(block: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

        let ahead = block.as_ptr().wrapping_add(2 * block.len());
        for at in (0..block.len()).step_by(LINE) {
            // SAFETY: x86-64 has this instruction, and it is a hint: an address where nothing lies does nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(at).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = block;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_wherever_it_begins_and_ends() {
        let from: Vec<f32> = (0..5000).map(|value| value as f32).collect();
        for copy in [copy, copy_from_memory, copy_to_memory] {
            for start in 0..20 {
                for length in [0, 1, 15, 16, 17, 512, 513, 1500, 4000] {
                    let mut to = vec![-1.0; from.len()];
                    copy(&mut to[start..start + length], &from[start + 3..start + 3 + length]);
                    assert_eq!(to[start..start + length], from[start + 3..start + 3 + length]);
                    let outside = to[..start].iter().chain(&to[start + length..]);
                    assert!(outside.copied().all(|value| value == -1.0), "{length} elements from {start}");
                }
            }
        }
    }
}
