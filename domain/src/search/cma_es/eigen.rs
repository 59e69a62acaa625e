//! Eigenvalues of symmetric matrices.

use nalgebra::{DMatrix, SymmetricEigen};

/// Rows of a square matrix.
pub(crate) type Matrix = Vec<Vec<f64>>;

/// The matrix with ones on its diagonal.
pub(crate) fn identity(n: usize) -> Matrix {
    (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect()
}

/// The eigenvalues of a symmetric matrix, and for each its unit eigenvector.
pub(crate) fn symmetric(a: &Matrix) -> (Vec<f64>, Matrix) {
    let n = a.len();
    if n == 0 {
        return (Vec::new(), Matrix::new());
    }
    let SymmetricEigen { eigenvalues, eigenvectors } = SymmetricEigen::new(DMatrix::from_fn(n, n, |i, j| a[i][j]));
    let vectors = eigenvectors.column_iter().map(|vector| vector.iter().copied().collect());
    (eigenvalues.iter().copied().collect(), vectors.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    fn check(a: &Matrix) {
        let n = a.len();
        let scale = a.iter().flatten().fold(0.0f64, |most, x| most.max(x.abs()));
        let (values, vectors) = symmetric(a);
        for i in 0..n {
            for j in 0..n {
                let rebuilt: f64 = (0..n).map(|k| values[k] * vectors[k][i] * vectors[k][j]).sum();
                assert!((rebuilt - a[i][j]).abs() <= 1e-13 * scale * n as f64, "{rebuilt} {}", a[i][j]);
                let product: f64 = (0..n).map(|k| vectors[i][k] * vectors[j][k]).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-13 * n as f64, "{product}");
            }
        }
    }

    #[test]
    fn values_and_vectors_make_the_matrix_again() {
        let mut stream = Stream::new(1, Purpose::Search, &[]);
        for n in [1, 2, 3, 10, 40] {
            let rows: Matrix = (0..n).map(|_| (0..n).map(|_| stream.normal_f64()).collect()).collect();
            check(&(0..n).map(|i| (0..n).map(|j| rows[i][j] + rows[j][i]).collect()).collect());
        }
        check(&identity(5));
        check(&vec![vec![0.0; 3]; 3]);
        check(&vec![vec![1e-200, 1e-260], vec![1e-260, 1e-200]]);
        check(&vec![vec![1.0, 1e-170, 0.5], vec![1e-170, 1e-14, 0.0], vec![0.5, 0.0, 1.0]]);
        let (mut values, _) = symmetric(&vec![vec![2.0, 1.0], vec![1.0, 2.0]]);
        values.sort_by(f64::total_cmp);
        assert!((values[0] - 1.0).abs() < 1e-15 && (values[1] - 3.0).abs() < 1e-15, "{values:?}");
    }
}
