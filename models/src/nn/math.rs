//! Elementary functions without branches or calls, so that the compiler turns loops over them into vector code. No fused
//! multiply-add: the same bits on every machine.

/// `e^x`, relative error below 2e-7; 0 far below and a large finite number far above the range of `f32`.
///
/// Range reduction by ln 2 in two pieces and the polynomial of Cephes' `expf` (Moshier 1989).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Below, the result would be subnormal, and slow; above, infinite.
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.376_26;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > LOWEST { x } else { LOWEST };
    let clamped = if clamped < HIGHEST { clamped } else { HIGHEST };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * (r * r) + r + 1.0;
    // The low bits of `shifted` hold n in two's complement.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let value = y * power;
    if x > LOWEST { value } else { underflow(x) }
}

/// 0 below the range, and NaN stays NaN.
#[inline(always)]
fn underflow(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// The error function, absolute error below 4e-7: the rational approximation that Eigen and XLA use for `f32`.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = if x < 4.0 { x } else { 4.0 };
    let x = if x > -4.0 { x } else { -4.0 };
    let s = x * x;
    let p = -2.726_142_3e-10;
    let p = p * s + 2.770_681_4e-8;
    let p = p * s - 2.101_024e-6;
    let p = p * s - 5.692_506_5e-5;
    let p = p * s - 7.349_906_3e-4;
    let p = p * s - 2.954_6e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5;
    let q = q * s - 2.133_740_6e-4;
    let q = q * s - 1.682_827e-3;
    let q = q * s - 7.373_329e-3;
    let q = q * s - 1.426_473_9e-2;
    x * p / q
}

/// Runs `work` compiled for the vector unit of this machine. The results are the same bits without it: the wider
/// instructions round no differently, and fused multiply-add stays off.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        // SAFETY: the machine has the feature.
        return unsafe { wide(work) };
    }
    work()
}

/// Values added up side by side. Part of every sum: changing it changes results.
const LANES: usize = 8;

/// The sum of `values`, in [`LANES`] partial sums.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    let (groups, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for group in groups {
        lanes.iter_mut().zip(group).for_each(|(lane, v)| *lane += v);
    }
    fold(lanes) + rest.iter().sum::<f32>()
}

/// The sum of products, in [`LANES`] partial sums.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((groups_a, rest_a), (groups_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0f32; LANES];
    for (a, b) in groups_a.iter().zip(groups_b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    fold(lanes) + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
}

#[inline(always)]
fn fold(l: [f32; LANES]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// The largest of `values`; NaN is passed over, the result of no values is negative infinity.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    let (groups, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for group in groups {
        lanes.iter_mut().zip(group).for_each(|(lane, v)| *lane = if *v > *lane { *v } else { *lane });
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m })
}

/// Turns a row of logits into probabilities; returns the largest logit and the sum of the exponentials of all distances
/// from it. NaN spreads over the whole row.
#[inline(always)]
pub(super) fn softmax_row(row: &mut [f32]) -> (f32, f32) {
    let highest = largest(row);
    row.iter_mut().for_each(|v| *v = exp(*v - highest));
    let total = sum(row);
    let scale = 1.0 / total;
    row.iter_mut().for_each(|v| *v *= scale);
    (highest, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error function in double precision by its Maclaurin series, summed until it stands still; good to 1e-9 for
    /// the arguments used here.
    fn erf_f64(x: f64) -> f64 {
        let (mut term, mut total, mut n) = (x, x, 0.0);
        while f64::abs(term) > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            total += term / (2.0 * n + 1.0);
        }
        total * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn exp_and_erf_are_accurate_to_single_precision() {
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 2e-7, "exp({x}) = {found}, not {exact}");
        }
        for i in -4_500..=4_500 {
            let x = i as f32 * 1e-3;
            let (found, exact) = (f64::from(erf(x)), erf_f64(f64::from(x)));
            assert!((found - exact).abs() < 4e-7, "erf({x}) = {found}, not {exact}");
        }
    }

    #[test]
    fn the_edges_are_finite_and_not_a_number_stays_so() {
        assert_eq!((exp(f32::NEG_INFINITY), exp(-200.0), exp(0.0), erf(0.0)), (0.0, 0.0, 1.0, 0.0));
        assert!(exp(200.0).is_finite() && exp(200.0) > 1e38);
        assert!(exp(f32::NAN).is_nan());
        let mut row = [1.0, f32::NAN, 2.0];
        softmax_row(&mut row);
        assert!(row.iter().all(|v| v.is_nan()));
    }

    #[test]
    fn sums_see_every_value() {
        for n in 0..40 {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let squares: i32 = (0..n).map(|i| i * i).sum();
            assert_eq!((sum(&values), dot(&values, &values)), ((n * (n - 1) / 2) as f32, squares as f32));
            assert_eq!(largest(&values), values.last().copied().unwrap_or(f32::NEG_INFINITY));
        }
    }
}
