use proptest::prelude::*;

use super::*;

/// The definition: blocks in order, fused multiply-adds within.
fn reference(
    left: Matrix<'_>,
    right: Matrix<'_>,
    start: impl Fn(usize, usize) -> f32,
    precision: Precision,
) -> Vec<f32> {
    let of = |m: Matrix<'_>, r: usize, c: usize| {
        let value = m.values[r * m.row_stride + c * m.column_stride];
        if precision == Precision::Bf16 { bf16::rounded(value) } else { value }
    };
    let mut out = Vec::new();
    for row in 0..left.rows {
        for column in 0..right.columns {
            let mut total = start(row, column);
            for first in (0..left.columns).step_by(BLOCK) {
                let terms = first..left.columns.min(first + BLOCK);
                let sum = terms.fold(0.0f32, |sum, k| of(left, row, k).mul_add(of(right, k, column), sum));
                total += sum;
            }
            out.push(total);
        }
    }
    out
}

fn values(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn check([m, k, n]: [usize; 3], left_transposed: bool, right_transposed: bool, precision: Precision) {
    let (a, b, c) = (values(1, m * k), values(2, k * n), values(3, m * n));
    let left = if left_transposed { Matrix::dense(&a, m.max(1)).transposed() } else { Matrix::dense(&a, k.max(1)) };
    let right = if right_transposed { Matrix::dense(&b, k.max(1)).transposed() } else { Matrix::dense(&b, n.max(1)) };
    let (left, right) = (Matrix { rows: m, columns: k, ..left }, Matrix { rows: k, columns: n, ..right });
    let bias = values(4, n);
    type Case<'a> = (Start<'a>, &'a dyn Fn(usize, usize) -> f32);
    let cases: [Case<'_>; 3] = [
        (Start::Zero, &|_, _| 0.0),
        (Start::Bias(&bias), &|_, column| bias[column]),
        (Start::Output, &|row, column| c[row * n + column]),
    ];
    for (start, of) in cases {
        let mut out = c.clone();
        multiply(MatrixMut::strided(&mut out, [m, n], n), start, left, right, precision);
        let expected = reference(left, right, of, precision);
        // The instruction for products of bf16 values has roundings of its own.
        let tolerance = if precision == Precision::Bf16 && bf16::is_instruction() { 1e-4 } else { 0.0 };
        let close = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a - b).abs() <= tolerance * b.abs().max(1.0);
        let same = out.iter().zip(&expected).all(close);
        assert!(same, "{m}x{k}x{n}, {start:?}, transposed: {left_transposed} {right_transposed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_shape_has_the_bits_of_the_definition(
        m in 1usize..70, k in 1usize..40, n in 1usize..90, turned in any::<[bool; 2]>(), low in any::<bool>(),
    ) {
        check([m, k, n], turned[0], turned[1], if low { Precision::Bf16 } else { Precision::F32 });
    }
}

#[test]
fn large_and_odd_shapes_have_the_bits_of_the_definition() {
    for shape in [[1, 1, 1], [200, 300, 50], [7, 1000, 33], [3, 2, 3200], [197, 64, 197], [5, 700, 3100]] {
        for turned in [[false, false], [true, false], [false, true], [true, true]] {
            check(shape, turned[0], turned[1], Precision::F32);
        }
    }
    check([50, 600, 40], false, true, Precision::Bf16);
}

#[test]
fn an_empty_product_starts_from_what_it_should() {
    check([3, 0, 4], false, false, Precision::F32);
    check([0, 3, 4], false, false, Precision::F32);
    check([3, 4, 0], false, false, Precision::F32);
}

#[test]
fn threads_do_not_change_a_bit_and_every_stretch_is_finished_once() {
    let [m, k, n] = [301, 530, 210];
    let (a, b) = (values(1, m * k), values(2, k * n));
    let run = || {
        let mut out = vec![0.0; m * n];
        let finish = |_: usize, _: usize, stretch: &mut [f32]| stretch.iter_mut().for_each(|v| *v += 1000.0);
        let (left, right) = (Matrix::dense(&a, k), Matrix::dense(&b, n));
        multiply_then(MatrixMut::dense(&mut out, n), Start::Zero, left, right, Precision::F32, Some(&finish));
        out
    };
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
    assert!(alone.iter().all(|v| (500.0..1500.0).contains(v)), "finished once");
    for threads in [2, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(run) == alone, "{threads} threads");
    }
}

#[test]
#[should_panic(expected = "a fresh output holds nothing")]
fn a_fresh_output_cannot_be_started_from() {
    let mut out = [const { std::mem::MaybeUninit::uninit() }; 4];
    let one = Matrix::dense(&[1.0, 2.0], 1);
    multiply(MatrixMut::fresh(&mut out, 2), Start::Output, one, one.transposed(), Precision::F32);
}
