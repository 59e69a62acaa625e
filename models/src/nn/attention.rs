//! Multi-head scaled dot-product attention (Vaswani et al. 2017), all heads in one operator: the heads are read where
//! they stand, so that nothing is transposed or copied.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::math::{dot, softmax_row, vectorised};
use super::matrix::{Matrix, MatrixMut, multiply};
use super::parallel::{pieces2, pieces4};
use super::tape::Tape;
use super::values::{Values, row_major, tensor_of};

/// `softmax(q k^T / sqrt(width of a head)) v` for each of `heads` heads; all tensors are `[samples, tokens, dim]`, head
/// `h` being columns `h * dim / heads` and following.
pub(crate) fn attention(tape: &Tape, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    tape.apply3(Attention { heads, probabilities: OnceLock::new() }, [q, k, v])
}

struct Attention {
    heads: usize,
    /// `[samples, heads, tokens, tokens]`, kept for the backward pass.
    probabilities: OnceLock<Vec<f32>>,
}

/// The sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    dim: usize,
    heads: usize,
}

impl Sizes {
    fn head_dim(self) -> usize {
        self.dim / self.heads
    }

    /// Values of a sample.
    fn sample(self) -> usize {
        self.tokens * self.dim
    }

    /// Probabilities of a head.
    fn square(self) -> usize {
        self.tokens * self.tokens
    }

    fn scale(self) -> f32 {
        1.0 / (self.head_dim() as f32).sqrt()
    }

    /// Head `head` of a sample's `[tokens, dim]`.
    fn head(self, sample: &[f32], head: usize) -> Matrix<'_> {
        Matrix {
            values: &sample[head * self.head_dim()..],
            rows: self.tokens,
            columns: self.head_dim(),
            row_stride: self.dim,
            column_stride: 1,
        }
    }

    fn head_mut(self, sample: &mut [f32], head: usize) -> MatrixMut<'_> {
        MatrixMut {
            values: &mut sample[head * self.head_dim()..],
            rows: self.tokens,
            columns: self.head_dim(),
            row_stride: self.dim,
        }
    }
}

impl Attention {
    fn sizes(&self, q: &Layout, k: &Layout, v: &Layout) -> Result<Sizes> {
        let (_, tokens, dim) = q.shape().dims3()?;
        if q.dims() != k.dims() || q.dims() != v.dims() || !dim.is_multiple_of(self.heads) {
            bail!("attention needs equal shapes and a width that {} heads divide, got {q:?}, {k:?}, {v:?}", self.heads)
        }
        Ok(Sizes { tokens, dim, heads: self.heads })
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = self.sizes(q_layout, k_layout, v_layout)?;
        let (q, k, v) = (row_major(q, q_layout)?, row_major(k, k_layout)?, row_major(v, v_layout)?);
        let samples = q.len() / sizes.sample();
        let mut out = vec![0.0; q.len()];
        let mut probabilities = vec![0.0; samples * sizes.heads * sizes.square()];
        let per_sample = ((&mut out[..], sizes.sample()), (&mut probabilities[..], sizes.heads * sizes.square()));
        pieces2(per_sample.0, per_sample.1, |i, out, probabilities| {
            let here = i * sizes.sample()..(i + 1) * sizes.sample();
            let (q, k, v) = (&q[here.clone()], &k[here.clone()], &v[here]);
            for (head, p) in probabilities.chunks_exact_mut(sizes.square()).enumerate() {
                let keys = sizes.head(k, head).transposed();
                multiply(MatrixMut::dense(p, sizes.tokens), sizes.scale(), sizes.head(q, head), keys);
                vectorised(|| {
                    for row in p.chunks_exact_mut(sizes.tokens) {
                        softmax_row(row);
                    }
                });
                multiply(sizes.head_mut(out, head), 1.0, Matrix::dense(p, sizes.tokens), sizes.head(v, head));
            }
        });
        self.probabilities.set(probabilities).expect("an operator runs forward once");
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    /// With `p` the probabilities and `dp = grad v^T`: `dv = p^T grad`, `ds = p * (dp - rowsum(p * dp))`,
    /// `dq = ds k / sqrt(d)`, `dk = ds^T q / sqrt(d)`.
    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes(q.layout(), k.layout(), v.layout())?;
        let [q_values, k_values, v_values, grad_values] = [q, k, v, grad].map(Values::of);
        let (q_rows, k_rows, v_rows, grad_rows) =
            (q_values.rows()?, k_values.rows()?, v_values.rows()?, grad_values.rows()?);
        let probabilities = self.probabilities.get().expect("forward ran");
        let mut q_grad = vec![0.0; q_rows.len()];
        let mut k_grad = vec![0.0; q_rows.len()];
        let mut v_grad = vec![0.0; q_rows.len()];
        let samples = q_rows.len() / sizes.sample();
        // One square of scratch per sample, since samples run side by side.
        let mut scratch = vec![0.0; samples * sizes.square()];
        let out = [&mut q_grad[..], &mut k_grad[..], &mut v_grad[..], &mut scratch[..]];
        let piece_sizes = [sizes.sample(), sizes.sample(), sizes.sample(), sizes.square()];
        pieces4(out, piece_sizes, |i, [q_grad, k_grad, v_grad, ds]| {
            let here = i * sizes.sample()..(i + 1) * sizes.sample();
            let [q, k, v, grad] = [&q_rows, &k_rows, &v_rows, &grad_rows].map(|rows| &rows[here.clone()]);
            let probabilities = &probabilities[i * sizes.heads * sizes.square()..];
            for (head, p) in probabilities.chunks_exact(sizes.square()).take(sizes.heads).enumerate() {
                let p_matrix = Matrix::dense(p, sizes.tokens);
                let grad = sizes.head(grad, head);
                multiply(sizes.head_mut(v_grad, head), 1.0, p_matrix.transposed(), grad);
                multiply(MatrixMut::dense(ds, sizes.tokens), 1.0, grad, sizes.head(v, head).transposed());
                vectorised(|| {
                    for (ds, p) in ds.chunks_exact_mut(sizes.tokens).zip(p.chunks_exact(sizes.tokens)) {
                        let mean = dot(ds, p);
                        ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - mean));
                    }
                });
                let ds = Matrix::dense(ds, sizes.tokens);
                multiply(sizes.head_mut(q_grad, head), sizes.scale(), ds, sizes.head(k, head));
                multiply(sizes.head_mut(k_grad, head), sizes.scale(), ds.transposed(), sizes.head(q, head));
            }
        });
        Ok((
            Some(tensor_of(q_grad, q.shape())?),
            Some(tensor_of(k_grad, k.shape())?),
            Some(tensor_of(v_grad, v.shape())?),
        ))
    }
}
