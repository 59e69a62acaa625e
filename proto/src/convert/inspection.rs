//! The inside of a model. What comes in is checked as a whole, for it is kept, drawn, and given on.

use domain::ids::Generation;
use domain::inspection::{
    Attention, AttentionLayer, BYTES_MAX, Histogram, Inspection, Pattern, Sample, TensorHistograms,
};
use prost::Message;

use super::{ConvertError, bounded_step, missing, storable};
use crate::v1;

/// What is seen of the inside of a model, from the wire. Refused is what is longer than [`BYTES_MAX`] or does not hold
/// together.
pub fn inspection_from_wire(inspection: v1::Inspection) -> Result<Inspection, ConvertError> {
    let invalid = |cause: String| ConvertError::Invalid { message: "Inspected", field: "inspection", cause };
    let bytes = inspection.encoded_len();
    if bytes > BYTES_MAX {
        return Err(invalid(format!("{bytes} bytes must be at most {BYTES_MAX}")));
    }
    let v1::Inspection { step, generation, tensors, tensors_left_out, attention } = inspection;
    let inspection = Inspection {
        step: bounded_step("Inspection", step, 1)?,
        generation: Generation(storable("Inspection", "generation", generation)?),
        tensors: tensors.into_iter().map(tensor_from_wire).collect::<Result<_, _>>()?,
        tensors_left_out,
        attention: attention.map(attention_from_wire).transpose()?,
    };
    inspection.check().map_err(|unsound| invalid(unsound.to_string()))?;
    Ok(inspection)
}

/// What is seen of the inside of a model, for the wire.
pub fn inspection_to_wire(inspection: Inspection) -> v1::Inspection {
    let Inspection { step, generation, tensors, tensors_left_out, attention } = inspection;
    v1::Inspection {
        step: step.0,
        generation: generation.0,
        tensors: tensors.into_iter().map(tensor_to_wire).collect(),
        tensors_left_out,
        attention: attention.map(attention_to_wire),
    }
}

/// Bytes that an inspection takes in a message.
pub fn inspection_bytes(inspection: &Inspection) -> usize {
    inspection_to_wire(inspection.clone()).encoded_len()
}

fn tensor_from_wire(tensor: v1::TensorHistograms) -> Result<TensorHistograms, ConvertError> {
    let v1::TensorHistograms { name, shape, weights, gradient } = tensor;
    let weights = histogram_from_wire(weights.ok_or_else(|| missing("TensorHistograms", "weights"))?);
    let gradient = histogram_from_wire(gradient.ok_or_else(|| missing("TensorHistograms", "gradient"))?);
    Ok(TensorHistograms { name, shape, weights, gradient })
}

fn tensor_to_wire(tensor: TensorHistograms) -> v1::TensorHistograms {
    let TensorHistograms { name, shape, weights, gradient } = tensor;
    let (weights, gradient) = (Some(histogram_to_wire(weights)), Some(histogram_to_wire(gradient)));
    v1::TensorHistograms { name, shape, weights, gradient }
}

fn histogram_from_wire(histogram: v1::Histogram) -> Histogram {
    let v1::Histogram { low, high, counts, min, max, mean, std, zeros, non_finite } = histogram;
    Histogram { low, high, counts, min, max, mean, std, zeros, non_finite }
}

fn histogram_to_wire(histogram: Histogram) -> v1::Histogram {
    let Histogram { low, high, counts, min, max, mean, std, zeros, non_finite } = histogram;
    v1::Histogram { low, high, counts, min, max, mean, std, zeros, non_finite }
}

fn attention_from_wire(attention: v1::Attention) -> Result<Attention, ConvertError> {
    let v1::Attention { samples, layers } = attention;
    let sample = |sample: v1::InspectedSample| {
        let v1::InspectedSample { label, width, height, channels, pixels } = sample;
        Sample { label, width, height, channels, pixels }
    };
    Ok(Attention {
        samples: samples.into_iter().map(sample).collect(),
        layers: layers.into_iter().map(layer_from_wire).collect::<Result<_, _>>()?,
    })
}

fn attention_to_wire(attention: Attention) -> v1::Attention {
    let Attention { samples, layers } = attention;
    let sample = |sample: Sample| {
        let Sample { label, width, height, channels, pixels } = sample;
        v1::InspectedSample { label, width, height, channels, pixels }
    };
    v1::Attention {
        samples: samples.into_iter().map(sample).collect(),
        layers: layers.into_iter().map(layer_to_wire).collect(),
    }
}

fn layer_from_wire(layer: v1::AttentionLayer) -> Result<AttentionLayer, ConvertError> {
    let v1::AttentionLayer { name, heads, queries, keys, block, patterns } = layer;
    let patterns = patterns.into_iter().map(pattern_from_wire).collect::<Result<_, _>>()?;
    Ok(AttentionLayer { name, heads, queries, keys, block, patterns })
}

fn layer_to_wire(layer: AttentionLayer) -> v1::AttentionLayer {
    let AttentionLayer { name, heads, queries, keys, block, patterns } = layer;
    let patterns = patterns.into_iter().map(pattern_to_wire).collect();
    v1::AttentionLayer { name, heads, queries, keys, block, patterns }
}

fn pattern_from_wire(pattern: v1::AttentionPattern) -> Result<Pattern, ConvertError> {
    let v1::AttentionPattern { peak, cells } = pattern;
    let (cells, rest) = cells.as_chunks();
    if !rest.is_empty() {
        let cause = "must have two bytes for each cell".to_owned();
        return Err(ConvertError::Invalid { message: "AttentionPattern", field: "cells", cause });
    }
    Ok(Pattern { peak, cells: cells.iter().map(|cell| u16::from_le_bytes(*cell)).collect() })
}

fn pattern_to_wire(pattern: Pattern) -> v1::AttentionPattern {
    let Pattern { peak, cells } = pattern;
    v1::AttentionPattern { peak, cells: cells.iter().flat_map(|cell| cell.to_le_bytes()).collect() }
}

#[cfg(test)]
mod tests {
    use domain::ids::Step;
    use domain::inspection::BUCKETS;

    use super::*;

    fn inspection() -> Inspection {
        let mut counts = vec![0; BUCKETS];
        (counts[1], counts[63]) = (300, 2);
        let (low, high) = (-0.1, 0.3);
        let histogram =
            Histogram { low, high, counts, min: low, max: high, mean: 1e-9, std: 0.25, zeros: 4, non_finite: 1 };
        let tensor = |name: &str| TensorHistograms {
            name: name.to_owned(),
            shape: vec![3, 101],
            weights: histogram.clone(),
            gradient: histogram.clone(),
        };
        let sample = Sample { label: 9, width: 1, height: 2, channels: 1, pixels: vec![3, 255] };
        let patterns = vec![Pattern { peak: 0.9, cells: vec![0, 1, 256, 65_535] }; 3];
        let layer = AttentionLayer { name: "layer".to_owned(), heads: 3, queries: 3, keys: 3, block: 2, patterns };
        Inspection {
            step: Step(7),
            generation: Generation(2),
            tensors: vec![tensor("a"), tensor("b")],
            tensors_left_out: 5,
            attention: Some(Attention { samples: vec![sample], layers: vec![layer] }),
        }
    }

    #[test]
    fn an_inspection_survives_the_wire() {
        for inspection in [inspection(), Inspection { attention: None, tensors: Vec::new(), ..inspection() }] {
            let bytes = inspection_to_wire(inspection.clone()).encode_to_vec();
            assert_eq!(bytes.len(), inspection_bytes(&inspection));
            let wire = v1::Inspection::decode(bytes.as_slice()).unwrap();
            assert_eq!(inspection_from_wire(wire).unwrap(), inspection);
        }
    }

    type Case = (&'static str, fn(&mut v1::Inspection));

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let cases: [Case; 9] = [
            ("Inspection.step is not valid: 0 must be 1 to", |i| i.step = 0),
            ("Inspection.generation is not valid", |i| i.generation = u64::MAX),
            ("TensorHistograms.weights is missing", |i| i.tensors[0].weights = None),
            ("TensorHistograms.gradient is missing", |i| i.tensors[1].gradient = None),
            ("figures of a histogram must be finite", |i| i.tensors[0].weights.as_mut().unwrap().low = f64::NAN),
            ("buckets of a histogram must be 64", |i| i.tensors[0].weights.as_mut().unwrap().counts.truncate(3)),
            ("two bytes for each cell", |i| i.attention.as_mut().unwrap().layers[0].patterns[0].cells.truncate(7)),
            ("cells of a pattern must be 4", |i| {
                i.attention.as_mut().unwrap().layers[0].patterns[0].cells.truncate(6);
            }),
            ("bytes must be at most 1048576", |i| i.tensors[0].name = "x".repeat(1 << 20)),
        ];
        for (expected, spoil) in cases {
            let mut wire = inspection_to_wire(inspection());
            spoil(&mut wire);
            let message = inspection_from_wire(wire).expect_err(expected).to_string();
            assert!(message.contains(expected), "{expected:?} is not in {message:?}");
        }
    }
}
