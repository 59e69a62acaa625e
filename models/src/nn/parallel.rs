//! Loops over pieces of a fixed size, on all threads. Pieces never depend on the number of threads, so results do not.

use rayon::prelude::*;

/// Values below which handing pieces to threads costs more than it gains.
const SEQUENTIAL_MAX: usize = 1 << 13;

fn alone(work: usize) -> bool {
    work <= SEQUENTIAL_MAX || rayon::current_num_threads() == 1
}

/// Calls `f` with every piece of `size` values of `out` and its index.
pub(crate) fn pieces(out: &mut [f32], size: usize, f: impl Fn(usize, &mut [f32]) + Send + Sync) {
    if alone(out.len()) {
        out.chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
    } else {
        out.par_chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
    }
}

/// Like [`pieces`] with two outputs, each cut into the same number of pieces.
pub(super) fn pieces2(
    (a, size_a): (&mut [f32], usize),
    (b, size_b): (&mut [f32], usize),
    f: impl Fn(usize, &mut [f32], &mut [f32]) + Send + Sync,
) {
    debug_assert_eq!(a.len().div_ceil(size_a), b.len().div_ceil(size_b));
    if alone(a.len()) {
        a.chunks_mut(size_a).zip(b.chunks_mut(size_b)).enumerate().for_each(|(i, (a, b))| f(i, a, b));
    } else {
        a.par_chunks_mut(size_a).zip(b.par_chunks_mut(size_b)).enumerate().for_each(|(i, (a, b))| f(i, a, b));
    }
}

/// Like [`pieces`] with four outputs, each cut into the same number of pieces.
pub(super) fn pieces4(out: [&mut [f32]; 4], sizes: [usize; 4], f: impl Fn(usize, [&mut [f32]; 4]) + Send + Sync) {
    let [a, b, c, d] = out;
    let [size_a, size_b, size_c, size_d] = sizes;
    if alone(a.len()) {
        let rest = b.chunks_mut(size_b).zip(c.chunks_mut(size_c).zip(d.chunks_mut(size_d)));
        a.chunks_mut(size_a).zip(rest).enumerate().for_each(|(i, (a, (b, (c, d))))| f(i, [a, b, c, d]));
    } else {
        let rest = b.par_chunks_mut(size_b).zip(c.par_chunks_mut(size_c).zip(d.par_chunks_mut(size_d)));
        a.par_chunks_mut(size_a).zip(rest).enumerate().for_each(|(i, (a, (b, (c, d))))| f(i, [a, b, c, d]));
    }
}

/// Rows whose column sums one thread makes.
const SUM_ROWS: usize = 64;

/// The sum over all rows of what `row(index, sums)` adds to `sums`, of length `width`: pieces of rows first, then the
/// pieces in order.
pub(super) fn sum_over_rows(rows: usize, width: usize, row: impl Fn(usize, &mut [f32]) + Send + Sync) -> Vec<f32> {
    let mut partial = vec![0.0; rows.div_ceil(SUM_ROWS) * width];
    let add_piece = |piece: usize, sums: &mut [f32]| {
        let first = piece * SUM_ROWS;
        (first..rows.min(first + SUM_ROWS)).for_each(|r| row(r, sums));
    };
    if alone(rows * width) {
        partial.chunks_mut(width).enumerate().for_each(|(i, sums)| add_piece(i, sums));
    } else {
        partial.par_chunks_mut(width).enumerate().for_each(|(i, sums)| add_piece(i, sums));
    }
    let mut total = vec![0.0; width];
    for sums in partial.chunks(width) {
        total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
    }
    total
}
