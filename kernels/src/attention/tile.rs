//! Tiles of scores, and products of packed operands.

use std::cell::RefCell;

use super::{Blocks, Dropout, Mask, Problem, Sizes};
use crate::dropout::random_bits;
use crate::gemm::kernel::{self, Left, Tile};
use crate::gemm::pack::{self, Pack};
use crate::gemm::{BLOCK, Corner, Matrix, Precision, Start};
use crate::simd::{arch, vectorised};

/// Keys of a tile of scores. Part of every result.
pub(super) const KEYS: usize = 256;

/// Most columns that a kernel makes at a time: parts of a packed operand begin at multiples of it.
const PANEL_MAX: usize = 32;

/// The right operand of products, in the order in which the kernel reads it: blocks of `block` terms, each in panels of
/// columns.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    values: &'a [f32],
    terms: usize,
    columns: usize,
    block: usize,
}

impl<'a> Right<'a> {
    /// Values that the packed operand takes.
    pub(super) fn len(terms: usize, columns: usize) -> usize {
        columns.next_multiple_of(kernel::columns()) * terms
    }

    /// Packs the transpose of the right operand.
    pub(super) fn pack(from: Matrix<'_>, block: usize, precision: Precision, into: &'a mut [f32]) -> Self {
        let width = kernel::columns();
        let (columns, terms) = (from.rows, from.columns);
        for first in (0..terms).step_by(block) {
            let here = block.min(terms - first);
            let (begin, len) = (Self::len(first, columns), Self::len(here, columns));
            arch().dispatch(Pack {
                from,
                first_row: 0,
                rows: columns,
                first_column: first,
                columns: here,
                panel: width,
                rounding: precision.rounding(),
                out: &mut into[begin..begin + len],
            });
        }
        Self { values: into, terms, columns, block }
    }

    /// What [`Self::pack`] packed.
    pub(super) fn packed(values: &'a [f32], [terms, columns]: [usize; 2], block: usize) -> Self {
        Self { values, terms, columns, block }
    }

    /// The panel that begins with a column, for some terms from the first one of a block on.
    fn panel(&self, first_term: usize, column: usize) -> &'a [f32] {
        debug_assert!(first_term.is_multiple_of(self.block) && column.is_multiple_of(kernel::columns()));
        let terms = self.block.min(self.terms - first_term);
        let begin = Self::len(first_term, self.columns) + column * terms;
        &self.values[begin..begin + terms * kernel::columns()]
    }
}

/// Adds to, or starts, `out` `[left.rows, columns]`: the product of `left` and some terms and columns of `right`. Both begin at
/// multiples of the block and of [`PANEL_MAX`].
pub(super) fn product(
    left: Matrix<'_>,
    right: Right<'_>,
    [first_term, first_column]: [usize; 2],
    columns: usize,
    out: (&mut [f32], usize),
    mut start: Start<'_>,
    precision: Precision,
) {
    thread_local!(static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    let (out, stride) = out;
    assert!((left.rows - 1) * stride + columns <= out.len() && columns <= stride, "a tile lies inside of its values");
    let corner = Corner { start: out.as_mut_ptr(), stride };
    PACKED.with_borrow_mut(|packed| {
        for first in (0..left.columns).step_by(right.block) {
            let terms = right.block.min(left.columns - first);
            let tall = left.rows.next_multiple_of(kernel::rows());
            let operand = if left.column_stride == 1 && precision == Precision::F32 {
                Left::InPlace { values: &left.values[first..], stride: left.row_stride }
            } else if left.row_stride == 1
                && precision == Precision::F32
                && (first + terms - 1) * left.column_stride + tall <= left.values.len()
            {
                Left::Columns { values: &left.values[first * left.column_stride..], stride: left.column_stride }
            } else {
                let len = tall * terms + pack::SLACK;
                if packed.len() < len {
                    packed.resize(len, 0.0);
                }
                arch().dispatch(Pack {
                    from: left,
                    first_row: 0,
                    rows: left.rows,
                    first_column: first,
                    columns: terms,
                    panel: kernel::rows(),
                    rounding: precision.rounding(),
                    out: &mut packed[..len],
                });
                Left::Packed(packed)
            };
            for column in (0..columns).step_by(kernel::columns()) {
                arch().dispatch(Tile {
                    left: operand,
                    right: right.panel(first_term + first, first_column + column),
                    pairs: precision.rounding() == pack::Rounding::PairsOfBf16,
                    terms,
                    rows: left.rows,
                    columns: kernel::columns().min(columns - column),
                    start,
                    // SAFETY: inside of the output, as asserted above.
                    out: Corner { start: unsafe { corner.start.add(column) }, ..corner },
                });
            }
            start = Start::Output;
        }
    });
}

/// Queries and keys whose scores are made together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) sample: usize,
    pub(super) head: usize,
    pub(super) query: usize,
    pub(super) queries: usize,
    pub(super) key: usize,
    pub(super) keys: usize,
}

impl Problem<'_> {
    /// Terms of the scores that are added up before they join the sum.
    pub(super) fn score_terms() -> usize {
        BLOCK
    }

    /// Keys of a tile.
    pub(super) fn tile_keys(&self) -> usize {
        match self.mask.blocks {
            Some(blocks) if blocks.size.is_multiple_of(PANEL_MAX) && blocks.size < KEYS => blocks.size,
            _ => KEYS,
        }
    }

    /// From a row of a tile to the next one. Not a power of two: columns that are read in place would share few places of
    /// the first cache.
    pub(super) fn stride(&self) -> usize {
        self.tile_keys() + 16
    }

    /// Queries of a tile, about as many as `wish`.
    pub(super) fn tile_queries(&self, wish: usize) -> usize {
        match self.mask.blocks {
            Some(blocks) => (1..=8).map(|n| blocks.size / n).find(|size| *size <= wish + 16).unwrap_or(wish).max(16),
            None => wish,
        }
    }

    /// How many keys a query sees if the mask is causal.
    fn limit(&self, query: usize) -> usize {
        let Sizes { queries, keys, .. } = self.sizes;
        if self.mask.causal { (query + 1 + keys).saturating_sub(queries).min(keys) } else { keys }
    }

    /// The tiles of some queries of which anything is seen.
    pub(super) fn tiles(
        &self,
        [sample, head]: [usize; 2],
        [query, queries]: [usize; 2],
    ) -> impl Iterator<Item = Place> {
        let size = self.tile_keys();
        let end = self.limit(query + queries - 1);
        (0..end).step_by(size).filter_map(move |key| {
            let place = Place { sample, head, query, queries, key, keys: size.min(end - key) };
            self.is_seen(place).then_some(place)
        })
    }

    fn is_seen(&self, place: Place) -> bool {
        let Some(Blocks { size, seen }) = self.mask.blocks else { return true };
        let across = self.sizes.keys.div_ceil(size);
        let columns = place.key / size..(place.key + place.keys).div_ceil(size);
        let mut rows = place.query / size..(place.query + place.queries).div_ceil(size);
        rows.any(|row| seen[row * across..][columns.clone()].contains(&true))
    }

    /// How many keys of a tile the `i`-th query sees at most.
    pub(super) fn visible(&self, place: Place, i: usize) -> usize {
        self.limit(place.query + i).saturating_sub(place.key).min(place.keys)
    }

    /// Parts of the queries of a tile whose products are made together: first one, how many, and how many keys the last one
    /// sees. More keys need not enter the products.
    pub(super) fn parts(&self, place: Place) -> impl Iterator<Item = (usize, usize, usize)> {
        /// A few times the rows of a kernel.
        const PART: usize = 24;
        let size = if self.visible(place, 0) == place.keys { place.queries } else { PART };
        (0..place.queries).step_by(size).filter_map(move |first| {
            let here = size.min(place.queries - first);
            let visible = self.visible(place, first + here - 1);
            (visible > 0).then_some((first, here, visible))
        })
    }

    /// The scores of a tile, masked, in rows of [`Self::stride`]. They have yet to be multiplied by what is returned. What a causal
    /// mask hides holds anything.
    pub(super) fn scores(&self, place: Place, keys: Right<'_>, scores: &mut [f32]) -> f32 {
        let Place { sample, head, query, queries, key, keys: count } = place;
        let stride = self.stride();
        let dim = self.sizes.head_dim;
        for (first, here, visible) in self.parts(place) {
            let left = self.q.matrix(sample, head, [query + first, here], dim);
            // Whole panels: a row has room for them.
            let columns = visible.next_multiple_of(kernel::columns());
            product(
                left,
                keys,
                [0, key],
                columns,
                (&mut scores[first * stride..], stride),
                Start::Zero,
                self.precision,
            );
        }
        let Mask { causal: _, keys: seen, bias, blocks, dropout: _ } = self.mask;
        // The largest score stays the largest one if the scale is positive: then it can wait.
        let waits = bias.is_none() && self.scale > 0.0;
        if !waits {
            vectorised(
                #[inline(always)]
                || {
                    for (i, row) in scores.chunks_mut(stride).take(queries).enumerate() {
                        let row = &mut row[..self.visible(place, i)];
                        match bias {
                            Some(bias) => {
                                let begin = (head * self.sizes.queries + query + i) * self.sizes.keys + key;
                                let bias = &bias[begin..][..row.len()];
                                row.iter_mut().zip(bias).for_each(|(v, bias)| *v = *v * self.scale + bias);
                            }
                            None => row.iter_mut().for_each(|v| *v *= self.scale),
                        }
                    }
                },
            );
        }
        if let Some(seen) = seen {
            let seen = &seen[sample * self.sizes.keys + key..][..count];
            for row in scores.chunks_mut(stride).take(queries) {
                row.iter_mut().zip(seen).filter(|(_, seen)| !**seen).for_each(|(v, _)| *v = f32::NEG_INFINITY);
            }
        }
        if let Some(Blocks { size, seen }) = blocks {
            for (i, row) in scores.chunks_mut(stride).take(queries).enumerate() {
                let seen = &seen[(query + i) / size * self.sizes.keys.div_ceil(size)..];
                let hidden = |j: &usize| !seen[(key + j) / size];
                (0..count).filter(hidden).for_each(|j| row[j] = f32::NEG_INFINITY);
            }
        }
        if waits { self.scale } else { 1.0 }
    }

    /// By what the probabilities of a query and of the keys from an even one on are multiplied.
    pub(super) fn dropped(&self, dropout: Dropout, place: Place, row: usize, factors: &mut [f32]) {
        let Sizes { queries, keys, heads, .. } = self.sizes;
        debug_assert!(place.key.is_multiple_of(2));
        let line = (place.sample * heads + place.head) * queries + place.query + row;
        let first = (line * keys.div_ceil(2) + place.key / 2) as u64;
        let scale = 1.0 / (1.0 - dropout.probability);
        // A probability is dropped if 32 random bits are below this.
        let threshold = (f64::from(dropout.probability) * f64::from(u32::MAX)) as u32;
        vectorised(
            #[inline(always)]
            || {
                let factor = |bits: u32| if bits < threshold { 0.0 } else { scale };
                for (counter, pair) in (first..).zip(factors.chunks_mut(2)) {
                    let bits = random_bits(dropout.key, counter);
                    pair[0] = factor(bits as u32);
                    if let Some(second) = pair.get_mut(1) {
                        *second = factor((bits >> 32) as u32);
                    }
                }
            },
        );
    }
}

/// Turns scores into exponentials of the distances of `scale` times them from `highest`; returns the sum.
#[inline(always)]
pub(super) fn exponentials(row: &mut [f32], scale: f32, highest: f32) -> f32 {
    row.iter_mut().for_each(|value| *value = crate::math::exp(value.mul_add(scale, -highest)));
    crate::math::sum(row)
}
