//! `y = x W^T + b`, bias included in the product.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::matrix::{Matrix, MatrixMut, multiply, multiply_add};
use super::parallel::{pieces, sum_over_rows};
use super::tape::Tape;
use super::values::{Values, row_major, rows_and_width, tensor_of};

/// The most rows of a product that one thread computes at a time. Every piece rearranges the weights for the vector unit
/// anew, which must be little beside the product itself.
const PIECE_ROWS_MAX: usize = 384;

/// The size of equal pieces of `rows` rows; depends on nothing else.
fn piece_rows(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(PIECE_ROWS_MAX).max(1)).max(1)
}

/// Applies weight `[out, ..]`, whose other sizes multiply to the width of `x`, and bias `[out]` to the last axis of
/// `x` `[.., in]`; gives `[.., out]`.
pub(crate) fn linear(tape: &Tape, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    tape.apply3(Linear { of_data: false }, [x, weight, bias])
}

/// The same for an `x` that nothing was computed for, so that nobody wants its gradient.
pub(crate) fn linear_of_data(tape: &Tape, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    tape.apply3(Linear { of_data: true }, [x, weight, bias])
}

struct Linear {
    of_data: bool,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = rows_and_width(x_layout)?;
        let (x, weight, bias) =
            (row_major(x, x_layout)?, row_major(weight, weight_layout)?, row_major(bias, bias_layout)?);
        let out_width = bias.len();
        let weight = Matrix::dense(&weight, width).transposed();
        let mut y = bias.repeat(rows);
        let piece = piece_rows(rows);
        pieces(&mut y, piece * out_width, |i, y| {
            let first = i * piece;
            let x = &x[first * width..][..y.len() / out_width * width];
            multiply_add(MatrixMut::dense(y, out_width), Matrix::dense(x, width), weight);
        });
        let mut shape = x_layout.dims().to_vec();
        shape.pop();
        shape.push(out_width);
        Ok((CpuStorage::F32(y), shape.into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x_values, weight_values, grad_values) = (Values::of(x), Values::of(weight), Values::of(grad));
        let (x_rows, weight_rows, grad_rows) = (x_values.rows()?, weight_values.rows()?, grad_values.rows()?);
        let (rows, width) = rows_and_width(x.layout())?;
        let out_width = bias.elem_count();

        let x_grad = if self.of_data {
            None
        } else {
            let weight = Matrix::dense(&weight_rows, width);
            let mut x_grad = vec![0.0; rows * width];
            let piece = piece_rows(rows);
            pieces(&mut x_grad, piece * width, |i, x_grad| {
                let first = i * piece;
                let grad = &grad_rows[first * out_width..][..x_grad.len() / width * out_width];
                multiply(MatrixMut::dense(x_grad, width), 1.0, Matrix::dense(grad, out_width), weight);
            });
            Some(tensor_of(x_grad, x.shape())?)
        };

        let mut weight_grad = vec![0.0; out_width * width];
        let x_matrix = Matrix::dense(&x_rows, width);
        let piece = piece_rows(out_width);
        pieces(&mut weight_grad, piece * width, |i, weight_grad| {
            let grad = Matrix {
                values: &grad_rows[i * piece..],
                rows,
                columns: weight_grad.len() / width,
                row_stride: out_width,
                column_stride: 1,
            };
            multiply(MatrixMut::dense(weight_grad, width), 1.0, grad.transposed(), x_matrix);
        });

        let bias_grad = sum_over_rows(rows, out_width, |r, sums| {
            sums.iter_mut().zip(&grad_rows[r * out_width..]).for_each(|(s, g)| *s += g);
        });
        Ok((x_grad, Some(tensor_of(weight_grad, weight.shape())?), Some(tensor_of(bias_grad, bias.shape())?)))
    }
}
