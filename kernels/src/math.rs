//! Elementary functions without branches or calls, so that the compiler turns loops over them into vector code. Where a
//! multiplication is fused with an addition, it says so: the same bits on every machine.

/// `e^x`, relative error below 2e-7; 0 far below and a large finite number far above the range of `f32`.
///
/// Range reduction by ln 2 in two pieces and the polynomial of Cephes' `expf` (Moshier 1989).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Below, the result would be subnormal, and slow; above, infinite.
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.376_26;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    // NaN fails all comparisons and stays.
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > HIGHEST { HIGHEST } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_HIGH, clamped);
    let r = n.mul_add(-LN2_LOW, r);
    let p = r.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    // The low bits of `shifted` hold n in two's complement.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < LOWEST { 0.0 } else { y * power }
}

/// The error function, absolute error below 4e-7: the rational approximation that Eigen and XLA use for `f32`.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = if x < 4.0 { x } else { 4.0 };
    let x = if x > -4.0 { x } else { -4.0 };
    let s = x * x;
    let p: f32 = -2.726_142_3e-10;
    let p = p.mul_add(s, 2.770_681_4e-8);
    let p = p.mul_add(s, -2.101_024e-6);
    let p = p.mul_add(s, -5.692_506_5e-5);
    let p = p.mul_add(s, -7.349_906_3e-4);
    let p = p.mul_add(s, -2.954_6e-3);
    let p = p.mul_add(s, -1.609_603_3e-2);
    let q: f32 = -1.456_607_2e-5;
    let q = q.mul_add(s, -2.133_740_6e-4);
    let q = q.mul_add(s, -1.682_827e-3);
    let q = q.mul_add(s, -7.373_329e-3);
    let q = q.mul_add(s, -1.426_473_9e-2);
    x * p / q
}

/// The hyperbolic tangent, absolute error below 4e-7: the rational approximation that Eigen uses for `f32`.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    /// From here on the result is 1 to single precision.
    const FLAT: f32 = 7.905_311;
    // NaN fails both comparisons and stays.
    let x = if x > FLAT { FLAT } else { x };
    let x = if x < -FLAT { -FLAT } else { x };
    let s = x * x;
    let p: f32 = -2.760_768_5e-16;
    let p = p.mul_add(s, 2.000_188e-13);
    let p = p.mul_add(s, -8.604_672e-11);
    let p = p.mul_add(s, 5.122_297e-8);
    let p = p.mul_add(s, 1.485_722_4e-5);
    let p = p.mul_add(s, 6.372_619e-4);
    let p = p.mul_add(s, 4.893_524_6e-3);
    let q: f32 = 1.198_258_4e-6;
    let q = q.mul_add(s, 1.185_347_1e-4);
    let q = q.mul_add(s, 2.268_434_6e-3);
    let q = q.mul_add(s, 4.893_525e-3);
    x * p / q
}

/// `1 / (1 + e^-x)`, relative error below 4e-7.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The natural logarithm of a finite number that is at least the smallest normal one; NaN stays NaN. Error below one unit in
/// the last place: the algorithm of FreeBSD's `e_log.c` (Sun Microsystems 1993), the same bits on every machine.
pub(crate) fn ln(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    /// The bits of 1, and of the root of one half, above the last 32.
    const ONE: u32 = 0x3ff0_0000;
    const ROOT_HALF: u32 = 0x3fe6_a09e;
    if x.is_nan() {
        return x;
    }
    debug_assert!(x.is_normal() && x > 0.0, "{x} has no logarithm here");
    // x = 2^k (1 + f), the latter between the roots of one half and two.
    let high = ((x.to_bits() >> 32) as u32) + (ONE - ROOT_HALF);
    let k = f64::from((high >> 20) as i32 - 0x3ff);
    let mantissa = u64::from((high & 0x000f_ffff) + ROOT_HALF) << 32 | x.to_bits() & 0xffff_ffff;
    let f = f64::from_bits(mantissa) - 1.0;
    let half_square = 0.5 * f * f;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = w * (0.399_999_999_994_094_2 + w * (0.222_221_984_321_497_84 + w * 0.153_138_376_992_093_73));
    let odd = z
        * (0.666_666_666_666_673_5
            + w * (0.285_714_287_436_623_9 + w * (0.181_835_721_616_180_5 + w * 0.147_981_986_051_165_86)));
    s * (half_square + (odd + even)) + k * LN2_LOW - half_square + f + k * LN2_HIGH
}

/// Values added up side by side. Part of every sum: changing it changes results.
pub(crate) const LANES: usize = 8;

/// Groups of [`LANES`] that are added up side by side, so that no addition waits for the one before. Part of every sum, too.
const GROUPS: usize = 4;

/// Partial sums: value `i` belongs to number `i % (GROUPS * LANES)`, except for the last few, which are added at the end.
struct Partial([[f32; LANES]; GROUPS]);

impl Partial {
    #[inline(always)]
    fn new() -> Self {
        Self([[0.0; LANES]; GROUPS])
    }

    /// Adds all values but the last few, fewer than [`LANES`], which are returned. More may follow if there were whole groups of
    /// all partial sums.
    #[inline(always)]
    fn add<'a>(&mut self, values: &'a [f32]) -> &'a [f32] {
        let (groups, rest) = values.as_chunks::<LANES>();
        let (wide, few) = groups.as_chunks::<GROUPS>();
        for groups in wide {
            for (lanes, group) in self.0.iter_mut().zip(groups) {
                lanes.iter_mut().zip(group).for_each(|(lane, v)| *lane += v);
            }
        }
        for (lanes, group) in self.0.iter_mut().zip(few) {
            lanes.iter_mut().zip(group).for_each(|(lane, v)| *lane += v);
        }
        rest
    }

    /// The sum of all, and of `rest`.
    #[inline(always)]
    fn total(self, rest: impl Iterator<Item = f32>) -> f32 {
        let [a, b, c, d] = self.0;
        fold(std::array::from_fn(|i| (a[i] + c[i]) + (b[i] + d[i]))) + rest.sum::<f32>()
    }
}

/// The sum of `values`, in partial sums.
#[inline(always)]
pub fn sum(values: &[f32]) -> f32 {
    let mut partial = Partial::new();
    let rest = partial.add(values);
    partial.total(rest.iter().copied())
}

/// The sum of products, in partial sums.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((groups_a, rest_a), (groups_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let ((wide_a, few_a), (wide_b, few_b)) = (groups_a.as_chunks::<GROUPS>(), groups_b.as_chunks::<GROUPS>());
    let mut partial = Partial::new();
    let add = |lanes: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]| {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    };
    for (a, b) in wide_a.iter().zip(wide_b) {
        for i in 0..GROUPS {
            add(&mut partial.0[i], &a[i], &b[i]);
        }
    }
    for (lanes, (a, b)) in partial.0.iter_mut().zip(few_a.iter().zip(few_b)) {
        add(lanes, a, b);
    }
    partial.total(rest_a.iter().zip(rest_b).map(|(a, b)| a * b))
}

#[inline(always)]
pub(crate) fn fold(lanes: [f32; LANES]) -> f32 {
    // The compiler chooses its vectors by what it sees last: if it saw this, they would have two lanes all the way up.
    let l = std::hint::black_box(lanes);
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// The largest of `values`; NaN is passed over, the result of no values is negative infinity.
#[inline(always)]
pub fn largest(values: &[f32]) -> f32 {
    const WIDE: usize = GROUPS * LANES;
    let (groups, rest) = values.as_chunks::<WIDE>();
    let mut lanes = [f32::NEG_INFINITY; WIDE];
    for group in groups {
        lanes.iter_mut().zip(group).for_each(|(lane, v)| *lane = if *v > *lane { *v } else { *lane });
    }
    // As in `fold`.
    let lanes = std::hint::black_box(lanes);
    let (quarters, _) = lanes.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (groups, rest) = rest.as_chunks::<LANES>();
    for group in quarters.iter().chain(groups) {
        lanes.iter_mut().zip(group).for_each(|(lane, v)| *lane = if *v > *lane { *v } else { *lane });
    }
    let lanes = std::hint::black_box(lanes);
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m })
}

/// Turns a row of logits into probabilities; returns the largest logit and the sum of the exponentials of all distances
/// from it. NaN spreads over the whole row.
#[inline(always)]
pub fn softmax_row(row: &mut [f32]) -> (f32, f32) {
    let highest = largest(row);
    row.iter_mut().for_each(|v| *v = exp(*v - highest));
    let total = sum(row);
    let scale = 1.0 / total;
    row.iter_mut().for_each(|v| *v *= scale);
    (highest, total)
}

/// The sum of the exponentials of all distances from `highest`, with the bits that [`softmax_row`] gives.
#[inline(always)]
pub(crate) fn sum_of_exponentials(row: &[f32], highest: f32) -> f32 {
    /// Exponentials made before they are added up: a loop of its own for each becomes vector code.
    const AT_ONCE: usize = 8 * GROUPS * LANES;
    let mut partial = Partial::new();
    let (pieces, last) = row.as_chunks::<AT_ONCE>();
    let mut exponentials = [0.0; AT_ONCE];
    for piece in pieces {
        exponentials.iter_mut().zip(piece).for_each(|(e, v)| *e = exp(v - highest));
        partial.add(&exponentials);
    }
    exponentials.iter_mut().zip(last).for_each(|(e, v)| *e = exp(v - highest));
    let rest = partial.add(&exponentials[..last.len()]);
    partial.total(rest.iter().copied())
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
        for n in 0..200 {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let squares: i32 = (0..n).map(|i| i * i).sum();
            assert_eq!((sum(&values), dot(&values, &values)), ((n * (n - 1) / 2) as f32, squares as f32));
            assert_eq!(largest(&values), values.last().copied().unwrap_or(f32::NEG_INFINITY));
        }
    }

    #[test]
    fn tanh_sigmoid_and_ln_are_accurate() {
        for i in -20_000..=20_000 {
            let x = i as f32 * 1e-3;
            let (found, exact) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((found - exact).abs() < 4e-7, "tanh({x}) = {found}, not {exact}");
            let (found, exact) = (f64::from(sigmoid(x)), 1.0 / (1.0 + (-f64::from(x)).exp()));
            assert!((found / exact - 1.0).abs() < 4e-7, "sigmoid({x}) = {found}, not {exact}");
        }
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && ln(f64::NAN).is_nan());
        assert_eq!(ln(1.0), 0.0);
        for i in 1..200_000u32 {
            for x in [f64::from(i) * 1e-3, f64::from(i).powi(7), 1.0 + f64::from(i) * 1e-9] {
                let (found, exact) = (ln(x), x.ln());
                assert!((found - exact).abs() <= 4e-16 * exact.abs(), "ln({x}) = {found}, not {exact}");
            }
        }
    }

    #[test]
    fn the_sum_of_exponentials_is_that_of_the_softmax() {
        for n in 1..40 {
            let mut row: Vec<f32> = (0..n).map(|i| (i * 37 % 23) as f32 / 7.0).collect();
            let sum = sum_of_exponentials(&row, largest(&row));
            assert_eq!(sum.to_bits(), softmax_row(&mut row).1.to_bits());
        }
    }
}
