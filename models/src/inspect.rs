//! What can be shown of the inside of a model: how values are spread, and what attention looks at.

use domain::inspection::{AttentionLayer, BUCKETS, Histogram, Pattern, Room, TENSORS_MAX, TensorHistograms, edge};
use kernels::threads;

use crate::gradient::Gradient;
use crate::network::{Batch, Network};
use crate::nn::Values;
use crate::{ModelError, Parameter};

/// Values that are looked at together. Sums go over these, then over their sums in order, so that no number of threads
/// changes a bit.
const CHUNK: usize = 1 << 16;

/// How `values` are spread. Counts are exact, and nothing depends on the number of threads.
pub fn histogram(values: &[f32]) -> Histogram {
    let extents = by_chunk(values, Extent::of);
    let whole = extents.iter().copied().fold(Extent::default(), Extent::and);
    let Extent { min, max, sum, finite, zeros } = whole;
    let non_finite = values.len() as u64 - finite;
    if finite == 0 {
        let counts = vec![0; BUCKETS];
        return Histogram { low: -0.5, high: 0.5, counts, min: 0.0, max: 0.0, mean: 0.0, std: 0.0, zeros, non_finite };
    }
    let (min, max, mean) = (f64::from(min), f64::from(max), sum / finite as f64);
    let (low, high) = if min < max { (min, max) } else { around(min) };
    let spread = by_chunk(values, |values| Spread::of(values, low, high, mean));
    let mut counts = vec![0; BUCKETS];
    let mut squares = 0.0;
    for one in spread {
        squares += one.squares;
        counts.iter_mut().zip(one.counts).for_each(|(all, count)| *all += count);
    }
    Histogram { low, high, counts, min, max, mean, std: (squares / finite as f64).sqrt(), zeros, non_finite }
}

impl Network {
    /// How every parameter and its part of `gradient` are spread, sorted by name. Of more than [`TENSORS_MAX`] parameters the
    /// smallest are left out; tells how many.
    ///
    /// # Panics
    /// If the gradient belongs to another layout.
    pub fn histograms(&self, gradient: &Gradient) -> Result<(Vec<TensorHistograms>, u64), ModelError> {
        let mut parameters: Vec<(&Parameter, _)> =
            self.layout().parameters().iter().zip(self.parameters().tensors()).collect();
        parameters.sort_by_key(|(parameter, _)| std::cmp::Reverse(parameter.range.len()));
        let left_out = parameters.len().saturating_sub(TENSORS_MAX) as u64;
        parameters.truncate(TENSORS_MAX);
        parameters.sort_by_key(|(parameter, _)| &parameter.name);
        let mut tensors = Vec::with_capacity(parameters.len());
        for (parameter, tensor) in parameters {
            let values = Values::of(tensor);
            let weights = histogram(&values.rows()?);
            let gradient = histogram(gradient.of(parameter));
            let shape = parameter.shape.iter().map(|size| *size as u64).collect();
            tensors.push(TensorHistograms { name: parameter.name.clone(), shape, weights, gradient });
        }
        Ok((tensors, left_out))
    }

    /// What each attention layer looks at on the first samples of `batch`, as many and as fine as there is [`Room`] for, and
    /// how many samples that is. `None` if the model has no attention, or more heads than there is room for.
    ///
    /// This is an evaluation: no dropout, no random number, and the weights stay as they are.
    pub fn look(&self, batch: Batch<'_>) -> Result<Option<(usize, Vec<AttentionLayer>)>, ModelError> {
        let (mut matrices, mut tokens) = (0, 0);
        self.attention(batch.first(1), &mut |attended| {
            matrices += attended.heads;
            tokens = attended.queries.max(attended.keys).max(tokens);
        })?;
        let Some(Room { samples, block }) = Room::plan(batch.labels.len(), matrices, tokens as u32) else {
            return Ok(None);
        };
        let mut layers = Vec::new();
        self.attention(batch.first(samples), &mut |attended| layers.push(attended.layer(block)))?;
        Ok(Some((samples, layers)))
    }
}

/// The edges around values that are all the same.
fn around(value: f64) -> (f64, f64) {
    let half = 0.5 * value.abs().max(1.0);
    (value - half, value + half)
}

fn by_chunk<T: Clone + Default + Send>(values: &[f32], work: impl Fn(&[f32]) -> T + Send + Sync) -> Vec<T> {
    let mut all = vec![T::default(); values.len().div_ceil(CHUNK)];
    threads::for_each_mut(&mut all, values.len(), |chunk, one| {
        let values = &values[chunk * CHUNK..];
        *one = work(&values[..values.len().min(CHUNK)]);
    });
    all
}

#[derive(Clone, Copy)]
struct Extent {
    min: f32,
    max: f32,
    sum: f64,
    finite: u64,
    zeros: u64,
}

impl Default for Extent {
    fn default() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, sum: 0.0, finite: 0, zeros: 0 }
    }
}

impl Extent {
    fn of(values: &[f32]) -> Self {
        let mut all = Self::default();
        for value in values.iter().copied().filter(|value| value.is_finite()) {
            all.min = all.min.min(value);
            all.max = all.max.max(value);
            all.sum += f64::from(value);
            all.finite += 1;
            all.zeros += u64::from(value == 0.0);
        }
        all
    }

    fn and(self, next: Self) -> Self {
        Self {
            min: self.min.min(next.min),
            max: self.max.max(next.max),
            sum: self.sum + next.sum,
            finite: self.finite + next.finite,
            zeros: self.zeros + next.zeros,
        }
    }
}

#[derive(Clone)]
struct Spread {
    counts: [u64; BUCKETS],
    /// Of the distances from the mean.
    squares: f64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], squares: 0.0 }
    }
}

impl Spread {
    fn of(values: &[f32], low: f64, high: f64, mean: f64) -> Self {
        let mut spread = Self::default();
        let edges: [f64; BUCKETS] = std::array::from_fn(|index| edge(low, high, index));
        let scale = BUCKETS as f64 / (high - low);
        for value in values.iter().copied().filter(|value| value.is_finite()) {
            let value = f64::from(value);
            let mut bucket = (((value - low) * scale) as usize).min(BUCKETS - 1);
            // The quotient is rounded; the edges decide.
            while bucket > 0 && value < edges[bucket] {
                bucket -= 1;
            }
            while bucket + 1 < BUCKETS && value >= edges[bucket + 1] {
                bucket += 1;
            }
            spread.counts[bucket] += 1;
            spread.squares += (value - mean) * (value - mean);
        }
        spread
    }
}

/// The probabilities of an attention layer, without dropout.
#[derive(Clone, Debug, PartialEq)]
pub struct Attended {
    /// The part of the model.
    pub scope: String,
    /// Samples.
    pub samples: usize,
    /// Heads.
    pub heads: usize,
    /// Tokens that look.
    pub queries: usize,
    /// Tokens that can be looked at.
    pub keys: usize,
    /// `[samples, heads, queries, keys]`: a row adds up to 1, or is 0 where a query sees no key.
    pub probabilities: Vec<f32>,
}

impl Attended {
    /// All patterns, as they are kept.
    fn layer(&self, block: u32) -> AttentionLayer {
        let heads = (0..self.samples).flat_map(|sample| (0..self.heads).map(move |head| (sample, head)));
        let pattern = |(sample, head)| Pattern::of(&self.pattern(sample, head, block as usize));
        AttentionLayer {
            name: self.scope.clone(),
            heads: self.heads as u32,
            queries: self.queries as u32,
            keys: self.keys as u32,
            block,
            patterns: heads.map(pattern).collect(),
        }
    }

    /// The probabilities of a head on a sample, `block` neighbouring tokens together: the mean over the queries of a block of
    /// the sum over the keys of one. `[ceil(queries / block), ceil(keys / block)]`; a row adds up to 1 as before.
    ///
    /// # Panics
    /// If `block` is 0, or there is no such sample or head.
    pub fn pattern(&self, sample: usize, head: usize, block: usize) -> Vec<f32> {
        let (rows, columns) = (self.queries.div_ceil(block), self.keys.div_ceil(block));
        let size = self.queries * self.keys;
        let all = &self.probabilities[(sample * self.heads + head) * size..][..size];
        let mut cells = Vec::with_capacity(rows * columns);
        for row in all.chunks(block * self.keys) {
            let queries = row.len() / self.keys;
            let mut sums = vec![0.0f64; columns];
            for query in row.chunks(self.keys) {
                for (sum, keys) in sums.iter_mut().zip(query.chunks(block)) {
                    *sum += keys.iter().map(|p| f64::from(*p)).sum::<f64>();
                }
            }
            cells.extend(sums.iter().map(|sum| (sum / queries as f64) as f32));
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::random::{Purpose, Stream};

    fn values(count: usize) -> Vec<f32> {
        let mut stream = Stream::new(3, Purpose::Order, &[]);
        (0..count).map(|_| stream.normal_f64() as f32).collect()
    }

    /// Which bucket holds a value, looked up edge by edge.
    fn bucket(histogram: &Histogram, value: f64) -> usize {
        (0..BUCKETS - 1).find(|index| value < histogram.edge(index + 1)).unwrap_or(BUCKETS - 1)
    }

    #[test]
    fn every_value_is_counted_in_its_bucket() {
        let mut cases = vec![
            values(3 * CHUNK + 17),
            vec![0.0; 5],
            vec![3e38, -3e38],
            vec![f32::MAX; 3],
            vec![f32::MIN_POSITIVE / 8.0, 0.0, -0.0],
            vec![1.0, 1.0 + f32::EPSILON],
            // Values on the edges, in both directions.
            (0..=64).map(|i| i as f32 / 64.0).collect(),
            (0..=640).map(|i| i as f32 * 0.1).collect(),
        ];
        cases[0][7] = f32::NAN;
        cases[0][70_000] = f32::NEG_INFINITY;
        cases[0][70_001] = 0.0;
        for values in cases {
            let found = histogram(&values);
            let finite: Vec<f64> = values.iter().filter(|v| v.is_finite()).map(|v| f64::from(*v)).collect();
            let mut counts = vec![0; BUCKETS];
            finite.iter().for_each(|value| counts[bucket(&found, *value)] += 1);
            assert_eq!(found.counts, counts);
            assert_eq!(found.finite() + found.non_finite, values.len() as u64);
            assert_eq!(found.zeros, values.iter().filter(|v| **v == 0.0).count() as u64);
            let mean = finite.iter().sum::<f64>() / finite.len() as f64;
            let std = (finite.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / finite.len() as f64).sqrt();
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * a.abs().max(1.0);
            assert!(near(found.mean, mean) && near(found.std, std), "{found:?} {mean} {std}");
            assert_eq!(found.min, finite.iter().copied().fold(f64::INFINITY, f64::min));
            assert_eq!(found.max, finite.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            assert!(found.low <= found.min && found.max <= found.high && found.low < found.high);
        }
    }

    #[test]
    fn no_finite_value_is_no_trouble() {
        for (values, non_finite) in [(vec![], 0), (vec![f32::NAN, f32::INFINITY], 2)] {
            let found = histogram(&values);
            assert_eq!((found.finite(), found.non_finite, found.low, found.high), (0, non_finite, -0.5, 0.5));
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let values = values(5 * CHUNK + 3);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let Histogram { mean, std, counts, .. } = pool.install(|| histogram(&values));
            (mean.to_bits(), std.to_bits(), counts)
        };
        let alone = on(1);
        assert_eq!([on(2), on(3)], [alone.clone(), alone]);
    }

    #[test]
    fn blocks_keep_the_sum_of_a_row() {
        let (queries, keys) = (7, 5);
        let mut probabilities = values(2 * queries * keys).iter().map(|v| v.abs()).collect::<Vec<_>>();
        probabilities.chunks_mut(keys).for_each(|row| {
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|p| *p /= sum);
        });
        let attended = Attended { scope: String::new(), samples: 1, heads: 2, queries, keys, probabilities };
        assert_eq!(attended.pattern(0, 1, 1), attended.probabilities[queries * keys..]);
        for block in [1, 2, 3, 7, 100] {
            let cells = attended.pattern(0, 1, block);
            let columns = keys.div_ceil(block);
            assert_eq!(cells.len(), queries.div_ceil(block) * columns);
            assert!(cells.chunks(columns).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
        }
        let four: f32 = [0, 1, 5, 6].iter().map(|at| attended.probabilities[*at]).sum();
        assert!((attended.pattern(0, 0, 2)[0] - four / 2.0).abs() < 1e-6);
    }
}
