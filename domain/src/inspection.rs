//! What a worker shows of the inside of a model at a step: histograms of the parameters and of their gradients, and what
//! attention looks at. It is for people, decides nothing, and is bounded in size whatever the model.

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, Step};

/// Buckets of a histogram.
pub const BUCKETS: usize = 64;
/// Parameter tensors of which histograms are told: the largest ones.
pub const TENSORS_MAX: usize = 400;
/// The longest name of a tensor or layer, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// The most axes of a tensor.
pub const AXES_MAX: usize = 8;
/// The most values of a tensor; sums over them are exact in 64 bits.
pub const VALUES_MAX: u64 = 1 << 48;
/// Held-out samples of which attention is told: the first ones.
pub const SAMPLES_MAX: usize = 4;
/// Rows and columns of a pattern of attention.
pub const PATTERN_SIDE_MAX: u32 = 128;
/// Cells of all patterns together.
pub const CELLS_MAX: usize = 236_544;
/// Layers with attention.
pub const LAYERS_MAX: usize = 4096;
/// Bytes of all images together.
pub const IMAGE_BYTES_MAX: usize = 160 << 10;
/// The longest side of an image, in pixels.
pub const IMAGE_SIDE_MAX: u32 = 1 << 14;
/// Bytes of an inspection in a message; the other bounds leave room for the names and sizes of real models below it.
pub const BYTES_MAX: usize = 1 << 20;

/// The inside of a model at a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// Steps completed: the parameters are those after this step, the gradient is the one that made it.
    pub step: Step,
    /// The generation that computed it.
    pub generation: Generation,
    /// What the parameters are like, sorted by name; empty if that was not asked for.
    pub tensors: Vec<TensorHistograms>,
    /// Tensors that there was no room for, the smallest ones.
    pub tensors_left_out: u64,
    /// What attention looks at, if that was asked for.
    pub attention: Option<Attention>,
}

/// A parameter and its gradient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorHistograms {
    /// The parameter's name.
    pub name: String,
    /// Its sizes, outermost first.
    pub shape: Vec<u64>,
    /// Its values after the step.
    pub weights: Histogram,
    /// Its gradient, as the whole group reduced it: the mean over the global batch, before clipping.
    pub gradient: Histogram,
}

/// How values are spread.
///
/// The buckets are equally wide, from the least to the greatest finite value; the last one holds its upper edge, too. If
/// all values are the same `v`, they go from `v - w` to `v + w`, `w` being half of the greater of 1 and `|v|`. This is how
/// NumPy does it, but for values beyond 1 that are all the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The lower edge of the first bucket; -0.5 if no value is finite.
    pub low: f64,
    /// The upper edge of the last bucket; 0.5 if no value is finite.
    pub high: f64,
    /// Finite values in each of the [`BUCKETS`].
    pub counts: Vec<u64>,
    /// The least finite value; this and the next three are 0 if there is none.
    pub min: f64,
    /// The greatest finite value.
    pub max: f64,
    /// The mean of the finite values.
    pub mean: f64,
    /// Their standard deviation, of the whole and not of a sample.
    pub std: f64,
    /// Values that are 0.
    pub zeros: u64,
    /// Values that are infinite or no number.
    pub non_finite: u64,
}

impl Histogram {
    /// The edge between the buckets `index - 1` and `index`.
    pub fn edge(&self, index: usize) -> f64 {
        edge(self.low, self.high, index)
    }

    /// Values that are finite.
    pub fn finite(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The edge with this number, from 0 to [`BUCKETS`], of buckets from `low` to `high`.
pub fn edge(low: f64, high: f64, index: usize) -> f64 {
    if index == BUCKETS { high } else { low + (high - low) * (index as f64 / BUCKETS as f64) }
}

/// What attention looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// The samples, the first of the held-out ones.
    pub samples: Vec<Sample>,
    /// The layers that have attention, from the inputs to the outputs.
    pub layers: Vec<AttentionLayer>,
}

/// A held-out sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its class.
    pub label: u32,
    /// Columns of the image.
    pub width: u32,
    /// Rows of the image.
    pub height: u32,
    /// Values of a pixel: 1 grey, 2 grey and opacity, 3 colours, 4 colours and opacity.
    pub channels: u32,
    /// Row by row, the channels of a pixel together. A pixel is the mean over a square of the data's, where they have more
    /// than there is room for.
    pub pixels: Vec<u8>,
}

/// What the heads of a layer look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttentionLayer {
    /// The part of the model.
    pub name: String,
    /// Heads.
    pub heads: u32,
    /// Tokens that look.
    pub queries: u32,
    /// Tokens that can be looked at.
    pub keys: u32,
    /// Neighbouring tokens that make a row or column: 1, or more where there is no room.
    pub block: u32,
    /// Those of the first sample by head, then those of the next.
    pub patterns: Vec<Pattern>,
}

impl AttentionLayer {
    /// Rows of a pattern.
    pub fn rows(&self) -> u32 {
        self.queries.div_ceil(self.block)
    }

    /// Columns of a pattern.
    pub fn columns(&self) -> u32 {
        self.keys.div_ceil(self.block)
    }

    /// The pattern of a head on a sample.
    pub fn pattern(&self, sample: usize, head: usize) -> Option<&Pattern> {
        self.patterns.get(sample * self.heads as usize + head)
    }
}

/// What a head looks at: `softmax(q k^T / sqrt(width of a head))`, without dropout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pattern {
    /// The greatest cell, 0 to 1; 0 also if the probabilities are no numbers.
    pub peak: f32,
    /// Row by row, in 65,535ths of `peak`. A row has a query, a column a key; a cell is the probability, or where blocks of
    /// tokens are together the mean over the queries of the sum over the keys, so that a row always adds up to 1.
    pub cells: Vec<u16>,
}

impl Pattern {
    /// Rounds cells to 16 bits. Those of a pattern that is not finite are 0.
    pub fn of(cells: &[f32]) -> Self {
        let peak = cells.iter().copied().fold(0.0, f32::max).min(1.0);
        if peak <= 0.0 || cells.iter().any(|cell| !cell.is_finite()) {
            return Self { peak: 0.0, cells: vec![0; cells.len()] };
        }
        let scaled = |cell: &f32| (cell / peak * f32::from(u16::MAX)).round().clamp(0.0, f32::from(u16::MAX)) as u16;
        Self { peak, cells: cells.iter().map(scaled).collect() }
    }

    /// The probabilities.
    pub fn values(&self) -> impl Iterator<Item = f32> {
        self.cells.iter().map(|cell| f32::from(*cell) / f32::from(u16::MAX) * self.peak)
    }
}

/// How much of what attention looks at there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Samples.
    pub samples: usize,
    /// Neighbouring tokens that make a row or column.
    pub block: u32,
}

/// What a pattern should have at least, in rows and columns, before there are fewer samples instead.
const PATTERN_SIDE_WANTED: u32 = 32;

impl Room {
    /// Room for at most `samples` samples under `matrices` patterns each, all layers and heads together, of at most `tokens`
    /// rows and columns. None at all if a single row and column for each would not fit.
    pub fn plan(samples: usize, matrices: usize, tokens: u32) -> Option<Self> {
        let fits = |samples: usize, block: u32| {
            let side = tokens.div_ceil(block);
            let cells = (side as usize).checked_mul(side as usize)?.checked_mul(matrices)?.checked_mul(samples)?;
            (side <= PATTERN_SIDE_MAX && cells <= CELLS_MAX).then_some(Self { samples, block })
        };
        if samples == 0 || matrices == 0 || tokens == 0 {
            return None;
        }
        let block_wanted = tokens.div_ceil(PATTERN_SIDE_WANTED.min(tokens));
        let finest = |samples: usize, most: u32| (1..=most).find_map(|block| fits(samples, block));
        let several = (1..=samples.min(SAMPLES_MAX)).rev().find_map(|samples| finest(samples, block_wanted));
        // Beyond the longest side of a pattern, a finer search would find nothing.
        several.or_else(|| (block_wanted..=tokens).find_map(|block| fits(1, block)))
    }
}

/// Why something is no inspection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {wanted}")]
pub struct Unsound {
    what: String,
    wanted: String,
}

fn unless(holds: bool, what: impl Into<String>, wanted: impl Into<String>) -> Result<(), Unsound> {
    if holds { Ok(()) } else { Err(Unsound { what: what.into(), wanted: wanted.into() }) }
}

impl Inspection {
    /// Whether it holds together: who takes one from elsewhere may then draw it, and allocate by what it says.
    pub fn check(&self) -> Result<(), Unsound> {
        let Self { step: _, generation: _, tensors, tensors_left_out: _, attention } = self;
        unless(tensors.len() <= TENSORS_MAX, "tensors", format!("at most {TENSORS_MAX}"))?;
        unless(tensors.is_sorted_by(|a, b| a.name < b.name), "tensors", "sorted by name, each once")?;
        tensors.iter().try_for_each(TensorHistograms::check)?;
        attention.iter().try_for_each(Attention::check)
    }
}

fn check_name(name: &str) -> Result<(), Unsound> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    unless(fits, "a name", format!("1 to {NAME_BYTES_MAX} bytes without control characters"))
}

impl TensorHistograms {
    fn check(&self) -> Result<(), Unsound> {
        let Self { name, shape, weights, gradient } = self;
        check_name(name)?;
        unless(shape.len() <= AXES_MAX, "a shape", format!("of at most {AXES_MAX} axes"))?;
        let values = shape.iter().try_fold(1, |all: u64, size| all.checked_mul(*size));
        let Some(values) = values.filter(|values| *values <= VALUES_MAX) else {
            return unless(false, "a shape", format!("of at most {VALUES_MAX} values"));
        };
        [weights, gradient].into_iter().try_for_each(|histogram| histogram.check(values))
    }
}

impl Histogram {
    fn check(&self, values: u64) -> Result<(), Unsound> {
        let Self { low, high, counts, min, max, mean, std, zeros, non_finite } = self;
        let figures = [low, high, min, max, mean, std];
        unless(figures.iter().all(|figure| figure.is_finite()), "figures of a histogram", "finite")?;
        unless(low <= high && min <= max && *std >= 0.0, "figures of a histogram", "in their order")?;
        unless(counts.len() == BUCKETS, "buckets of a histogram", BUCKETS.to_string())?;
        let all = counts.iter().try_fold(*non_finite, |all, count| all.checked_add(*count));
        unless(all == Some(values), "counts of a histogram", format!("{values} in all, as the shape says"))?;
        unless(*zeros <= values - non_finite, "zeros of a histogram", "finite values")
    }
}

impl Attention {
    fn check(&self) -> Result<(), Unsound> {
        let Self { samples, layers } = self;
        unless((1..=SAMPLES_MAX).contains(&samples.len()), "samples", format!("1 to {SAMPLES_MAX}"))?;
        samples.iter().try_for_each(Sample::check)?;
        let bytes: usize = samples.iter().map(|sample| sample.pixels.len()).sum();
        unless(bytes <= IMAGE_BYTES_MAX, "images", format!("at most {IMAGE_BYTES_MAX} bytes"))?;
        unless((1..=LAYERS_MAX).contains(&layers.len()), "layers", format!("1 to {LAYERS_MAX}"))?;
        layers.iter().try_for_each(|layer| layer.check(samples.len()))?;
        let cells: usize = layers.iter().flat_map(|layer| &layer.patterns).map(|pattern| pattern.cells.len()).sum();
        unless(cells <= CELLS_MAX, "patterns", format!("at most {CELLS_MAX} cells"))
    }
}

impl Sample {
    fn check(&self) -> Result<(), Unsound> {
        let Self { label: _, width, height, channels, pixels } = self;
        let sides = [width, height].iter().all(|side| (1..=IMAGE_SIDE_MAX).contains(*side));
        unless(sides, "sides of an image", format!("1 to {IMAGE_SIDE_MAX} pixels"))?;
        unless((1..=4).contains(channels), "channels of an image", "1 to 4")?;
        let bytes = u64::from(*width) * u64::from(*height) * u64::from(*channels);
        unless(pixels.len() as u64 == bytes, "an image", format!("{bytes} bytes long, as its sides say"))
    }
}

impl AttentionLayer {
    fn check(&self, samples: usize) -> Result<(), Unsound> {
        let Self { name, heads, queries, keys, block, patterns } = self;
        check_name(name)?;
        let sizes = [heads, queries, keys, block];
        unless(sizes.iter().all(|size| **size >= 1), "sizes of a layer", "at least 1")?;
        let sides = [self.rows(), self.columns()];
        let fits = sides.iter().all(|side| *side <= PATTERN_SIDE_MAX);
        unless(fits, "rows and columns of a pattern", format!("at most {PATTERN_SIDE_MAX}"))?;
        let wanted = samples as u64 * u64::from(*heads);
        unless(patterns.len() as u64 == wanted, "patterns", format!("{wanted}, as samples and heads say"))?;
        let cells = sides[0] as usize * sides[1] as usize;
        let whole = patterns.iter().all(|pattern| pattern.cells.len() == cells);
        unless(whole, "cells of a pattern", format!("{cells}, as rows and columns say"))?;
        let peaks = patterns.iter().all(|pattern| (0.0..=1.0).contains(&pattern.peak));
        unless(peaks, "the peak of a pattern", "0 to 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: u64) -> Histogram {
        let mut counts = vec![0; BUCKETS];
        counts[3] = values;
        let (low, high, min, max) = (-0.5, 0.5, 0.0, 0.0);
        Histogram { low, high, counts, min, max, mean: 0.0, std: 0.0, zeros: 0, non_finite: 0 }
    }

    fn sound() -> Inspection {
        let tensor = |name: &str| TensorHistograms {
            name: name.to_owned(),
            shape: vec![2, 3],
            weights: histogram(6),
            gradient: histogram(6),
        };
        let sample = Sample { label: 1, width: 2, height: 1, channels: 3, pixels: vec![7; 6] };
        let layer = AttentionLayer {
            name: "layer".to_owned(),
            heads: 2,
            queries: 5,
            keys: 5,
            block: 2,
            patterns: vec![Pattern { peak: 0.5, cells: vec![9; 9] }; 2],
        };
        Inspection {
            step: Step(3),
            generation: Generation(1),
            tensors: vec![tensor("a"), tensor("b")],
            tensors_left_out: 0,
            attention: Some(Attention { samples: vec![sample], layers: vec![layer] }),
        }
    }

    fn layer(inspection: &mut Inspection) -> &mut AttentionLayer {
        &mut inspection.attention.as_mut().unwrap().layers[0]
    }

    fn sample(inspection: &mut Inspection) -> &mut Sample {
        &mut inspection.attention.as_mut().unwrap().samples[0]
    }

    type Case = (&'static str, fn(&mut Inspection));

    #[test]
    fn what_does_not_hold_together_is_refused() {
        assert_eq!(sound().check(), Ok(()));
        let cases: &[Case] = &[
            ("tensors must be at most 400", |i| i.tensors = vec![i.tensors[0].clone(); 401]),
            ("tensors must be sorted by name", |i| i.tensors.swap(0, 1)),
            ("each once", |i| i.tensors[1].name = "a".to_owned()),
            ("a name must be 1 to 256", |i| i.tensors[0].name = String::new()),
            ("a name must be 1 to 256", |i| i.tensors[1].name = "b".repeat(257)),
            ("a name must be 1 to 256", |i| layer(i).name = "a\nb".to_owned()),
            ("a shape must be of at most 8 axes", |i| i.tensors[0].shape = vec![1; 9]),
            ("a shape must be of at most", |i| i.tensors[0].shape = vec![u64::MAX, 2]),
            ("finite", |i| i.tensors[0].weights.low = f64::NAN),
            ("finite", |i| i.tensors[0].gradient.high = f64::INFINITY),
            ("finite", |i| i.tensors[0].gradient.mean = f64::NEG_INFINITY),
            ("in their order", |i| i.tensors[0].weights.low = 1.0),
            ("in their order", |i| i.tensors[0].weights.std = -1.0),
            ("buckets of a histogram must be 64", |i| i.tensors[0].weights.counts.truncate(63)),
            ("buckets of a histogram must be 64", |i| i.tensors[0].weights.counts.push(0)),
            ("counts of a histogram must be 6 in all", |i| i.tensors[0].gradient.counts[0] = 1),
            ("counts of a histogram must be 6 in all", |i| i.tensors[0].gradient.counts[0] = u64::MAX),
            ("zeros of a histogram", |i| i.tensors[0].gradient.zeros = 7),
            ("samples must be 1 to 4", |i| i.attention.as_mut().unwrap().samples.clear()),
            ("samples must be 1 to 4", |i| {
                let samples = &mut i.attention.as_mut().unwrap().samples;
                *samples = vec![samples[0].clone(); 5];
            }),
            ("layers must be 1 to", |i| i.attention.as_mut().unwrap().layers.clear()),
            ("an image must be 6 bytes long", |i| sample(i).pixels.truncate(5)),
            ("channels of an image", |i| sample(i).channels = 5),
            ("sides of an image", |i| sample(i).height = u32::MAX),
            ("at most 163840 bytes", |i| {
                *sample(i) = Sample { label: 0, width: 512, height: 512, channels: 1, pixels: vec![0; 1 << 18] };
            }),
            ("sizes of a layer", |i| layer(i).block = 0),
            ("rows and columns", |i| (layer(i).queries, layer(i).block) = (u32::MAX, 1)),
            ("patterns must be 2", |i| drop(layer(i).patterns.pop())),
            ("patterns must be 4294967295", |i| layer(i).heads = u32::MAX),
            ("cells of a pattern must be 9", |i| layer(i).patterns[1].cells.push(1)),
            ("the peak", |i| layer(i).patterns[1].peak = f32::NAN),
            ("the peak", |i| layer(i).patterns[1].peak = 1.5),
            ("patterns must be at most 236544 cells", |i| {
                let pattern = Pattern { peak: 0.5, cells: vec![0; 128 * 128] };
                (layer(i).heads, layer(i).queries, layer(i).keys) = (15, 256, 256);
                layer(i).patterns = vec![pattern; 15];
            }),
        ];
        for (expected, spoil) in cases {
            let mut inspection = sound();
            spoil(&mut inspection);
            let message = inspection.check().expect_err(expected).to_string();
            assert!(message.contains(expected), "{expected:?} is not in {message:?}");
        }
    }

    #[test]
    fn cells_keep_their_values_to_16_bits() {
        let cells = [0.5, 0.25, 0.0, 0.125];
        let pattern = Pattern::of(&cells);
        assert_eq!((pattern.peak, pattern.cells.as_slice()), (0.5, [65_535, 32_768, 0, 16_384].as_slice()));
        assert!(pattern.values().zip(cells).all(|(found, cell)| (found - cell).abs() <= 0.5 / 65_535.0));
        for empty in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 0.0]] {
            assert_eq!(Pattern::of(&empty), Pattern { peak: 0.0, cells: vec![0, 0] });
        }
        assert_eq!(Pattern::of(&[1.000_001]).peak, 1.0, "rounding makes no probability above 1");
    }

    #[test]
    fn there_is_room_for_every_model() {
        let cases = [
            // The digits: four layers of four heads over 17 tokens.
            ((4, 16, 17), Some(Room { samples: 4, block: 1 })),
            // ViT-Ti/16 and ViT-B/16 on 224 x 224 pixels.
            ((4, 36, 197), Some(Room { samples: 4, block: 5 })),
            ((4, 144, 197), Some(Room { samples: 1, block: 5 })),
            // BERT-base over 512 tokens.
            ((4, 144, 512), Some(Room { samples: 1, block: 13 })),
            ((1, 1, 1000), Some(Room { samples: 1, block: 8 })),
            ((2, CELLS_MAX, 1 << 20), Some(Room { samples: 1, block: 1 << 20 })),
            ((1, CELLS_MAX + 1, 5), None),
            ((0, 1, 1), None),
        ];
        for ((samples, matrices, tokens), expected) in cases {
            assert_eq!(Room::plan(samples, matrices, tokens), expected, "{samples} {matrices} {tokens}");
        }
    }
}
