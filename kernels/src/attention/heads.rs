//! Values of heads among others.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use crate::gemm::Matrix;

/// The heads of `[samples, tokens, ..]` values: head `h` of token `t` of sample `s` begins at `s * sample_stride + t *
/// token_stride + h * head_dim`. So queries, keys and values may be columns of one `[samples, tokens, 3 * dim]` buffer.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// Begins with the first head of the first token of the first sample.
    pub values: &'a [f32],
    /// From a sample to the next one.
    pub sample_stride: usize,
    /// From a token to the next one.
    pub token_stride: usize,
}

impl<'a> Heads<'a> {
    /// All of `[samples, tokens, width]`.
    pub fn dense(values: &'a [f32], tokens: usize, width: usize) -> Self {
        Self { values, sample_stride: tokens * width, token_stride: width }
    }

    /// The three thirds of each token of `[samples, tokens, 3 * width]`: queries, keys, values.
    pub fn thirds(values: &'a [f32], tokens: usize, width: usize) -> [Self; 3] {
        let (sample_stride, token_stride) = (tokens * 3 * width, 3 * width);
        [0, 1, 2].map(|i| Self { values: &values[(i * width).min(values.len())..], sample_stride, token_stride })
    }

    pub(super) fn check(&self, [samples, tokens, width]: [usize; 3]) {
        let end = extent([samples, tokens, width], self.sample_stride, self.token_stride);
        assert!(end <= self.values.len(), "heads lie inside of their values");
    }

    /// The values of a head, a row for each of some tokens.
    pub(super) fn matrix(&self, sample: usize, head: usize, [first, tokens]: [usize; 2], dim: usize) -> Matrix<'a> {
        let start = sample * self.sample_stride + first * self.token_stride + head * dim;
        let values = &self.values[start.min(self.values.len())..];
        Matrix { values, rows: tokens, columns: dim, row_stride: self.token_stride, column_stride: 1 }
    }
}

/// Where the last of some values ends.
fn extent([samples, tokens, width]: [usize; 3], sample_stride: usize, token_stride: usize) -> usize {
    if samples * tokens * width == 0 {
        return 0;
    }
    (samples - 1) * sample_stride + (tokens - 1) * token_stride + width
}

/// Like [`Heads`], to be written: fresh values will do.
#[derive(Debug)]
pub struct HeadsMut<'a> {
    start: *mut f32,
    len: usize,
    sample_stride: usize,
    token_stride: usize,
    /// Values of each token that are its own.
    width: usize,
    values: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for exclusive values.
unsafe impl Send for HeadsMut<'_> {}
// SAFETY: all writing goes through a function whose callers promise to write to parts of their own.
unsafe impl Sync for HeadsMut<'_> {}

impl<'a> HeadsMut<'a> {
    /// All of `[samples, tokens, width]`.
    pub fn dense(values: &'a mut [MaybeUninit<f32>], tokens: usize, width: usize) -> Self {
        Self {
            start: values.as_mut_ptr().cast(),
            len: values.len(),
            sample_stride: tokens * width,
            token_stride: width,
            width,
            values: PhantomData,
        }
    }

    /// The three thirds of each token of `[samples, tokens, 3 * width]`: queries, keys, values.
    pub fn thirds(values: &'a mut [MaybeUninit<f32>], tokens: usize, width: usize) -> [Self; 3] {
        let (start, len): (*mut f32, _) = (values.as_mut_ptr().cast(), values.len());
        [0, 1, 2].map(|i| {
            let first = (i * width).min(len);
            // SAFETY: inside of the values, or at their end.
            let start = unsafe { start.add(first) };
            let (sample_stride, token_stride) = (tokens * 3 * width, 3 * width);
            Self { start, len: len - first, sample_stride, token_stride, width, values: PhantomData }
        })
    }

    /// Panics unless there are so many samples and tokens, and each token has just `width` values of its own.
    pub(super) fn check(&self, [samples, tokens, width]: [usize; 3]) {
        let end = extent([samples, tokens, width], self.sample_stride, self.token_stride);
        assert!(end <= self.len && (end == 0 || width == self.width), "heads lie inside of their values");
        assert!(end == 0 || self.sample_stride >= tokens * self.token_stride, "samples do not overlap");
    }

    /// Writes a head of some tokens: the first `dim` values of each row of `stride`, multiplied by `scale`. Vector code if called
    /// inside of [`vectorised`](crate::simd::vectorised).
    ///
    /// # Safety
    /// Nobody else writes to this head of the sample meanwhile.
    #[inline(always)]
    pub(super) unsafe fn write(
        &self,
        [sample, head]: [usize; 2],
        values: &[f32],
        [stride, dim]: [usize; 2],
        scale: f32,
    ) {
        for (token, row) in values.chunks_exact(stride).enumerate() {
            let first = sample * self.sample_stride + token * self.token_stride + head * dim;
            assert!(first + dim <= self.len, "heads lie inside of their values");
            for (i, value) in row[..dim].iter().enumerate() {
                // SAFETY: inside, as asserted; nobody else writes here, as the caller promises.
                unsafe { self.start.add(first + i).write(value * scale) };
            }
        }
    }
}
