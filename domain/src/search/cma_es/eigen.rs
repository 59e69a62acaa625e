//! Eigenvalues of symmetric matrices. Only additions, products, quotients and square roots, each of which every machine
//! rounds alike; the libraries for this call on the machine's mathematics or on its vector units.

/// Rows of a square matrix.
pub(crate) type Matrix = Vec<Vec<f64>>;

/// Passes over the matrix; six or seven are enough for any that occurs.
const PASSES_MAX: u32 = 40;

/// The matrix with ones on its diagonal.
pub(crate) fn identity(n: usize) -> Matrix {
    (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect()
}

/// The eigenvalues of a symmetric matrix, and for each its unit eigenvector, by rotations that make one element after the
/// other zero (the cyclic Jacobi method, Golub and Van Loan 2013, section 8.5).
pub(crate) fn symmetric(mut a: Matrix) -> (Vec<f64>, Matrix) {
    let n = a.len();
    let mut vectors = identity(n);
    for _ in 0..PASSES_MAX {
        let squares = |a: &Matrix, is_counted: fn(usize, usize) -> bool| {
            let counted = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| is_counted(*i, *j));
            counted.map(|(i, j)| a[i][j] * a[i][j]).sum::<f64>()
        };
        if squares(&a, |i, j| i != j) <= f64::EPSILON * f64::EPSILON * 1e-2 * squares(&a, |i, j| i == j) {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), vectors)
}

/// Makes the elements `(p, q)` and `(q, p)` zero.
fn rotate(a: &mut Matrix, vectors: &mut Matrix, p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let tangent = 1.0f64.copysign(theta) / (theta.abs() + libm::sqrt(theta * theta + 1.0));
    let cosine = 1.0 / libm::sqrt(tangent * tangent + 1.0);
    let sine = tangent * cosine;
    let turn = |x: &mut f64, y: &mut f64| (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    for row in a.iter_mut() {
        let (left, right) = row.split_at_mut(q);
        turn(&mut left[p], &mut right[0]);
    }
    for rows in [&mut *a, vectors] {
        let (above, below) = rows.split_at_mut(q);
        above[p].iter_mut().zip(&mut below[0]).for_each(|(x, y)| turn(x, y));
    }
    (a[p][q], a[q][p]) = (0.0, 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    fn check(a: &Matrix) {
        let n = a.len();
        let scale = a.iter().flatten().fold(0.0f64, |most, x| most.max(x.abs()));
        let (values, vectors) = symmetric(a.clone());
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
        let (values, _) = symmetric(vec![vec![2.0, 1.0], vec![1.0, 2.0]]);
        assert!((values[0] - 1.0).abs() < 1e-15 && (values[1] - 3.0).abs() < 1e-15, "{values:?}");
    }
}
