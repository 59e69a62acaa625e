//! The inside of a model: histograms, and pictures of what attention looks at, as TensorBoard's own summaries.

use domain::ids::Time;
use domain::inspection::{Attention, AttentionLayer, BUCKETS, Histogram, Inspection, Pattern, Sample};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::events::{HistogramProto, Image, Summary, SummaryValue, What, event};

/// Pixels that a pattern should have on a side at least: smaller cells are drawn larger.
const PATTERN_PIXELS: usize = 64;
/// The grey between the patterns of a layer's heads.
const BETWEEN: u8 = 128;

/// What was seen of a model at a step: `weights/NAME` and `gradients/NAME` as histograms; `input/sample N` and
/// `attention/sample N/LAYER` as images, in which the heads of the layer stand beside each other, row by row. White is what a
/// head looks at most.
pub fn inspection(at: Time, inspection: &Inspection) -> Vec<u8> {
    let Inspection { step, generation: _, tensors, tensors_left_out: _, attention } = inspection;
    let mut value = Vec::new();
    for tensor in tensors {
        value.push(histogram(format!("weights/{}", tensor.name), &tensor.weights));
        value.push(histogram(format!("gradients/{}", tensor.name), &tensor.gradient));
    }
    if let Some(Attention { samples, layers }) = attention {
        for (number, sample) in samples.iter().enumerate() {
            value.push(input(format!("input/sample {number}"), sample));
            let of_layer =
                |layer: &AttentionLayer| heads(format!("attention/sample {number}/{}", layer.name), layer, number);
            value.extend(layers.iter().map(of_layer));
        }
    }
    if value.is_empty() { Vec::new() } else { event(at, step.0, What::Summary(Summary { value })) }
}

/// TensorBoard's buckets have an upper edge each; the first, which is empty, says where ours begin. It takes the least and the
/// greatest value for the outermost edges.
fn histogram(tag: String, histogram: &Histogram) -> SummaryValue {
    let finite = histogram.finite() as f64;
    let Histogram { low, high, counts, min: _, max: _, mean, std, zeros: _, non_finite: _ } = histogram;
    let histo = HistogramProto {
        min: *low,
        max: *high,
        num: finite,
        sum: mean * finite,
        sum_squares: (std * std + mean * mean) * finite,
        bucket_limit: (0..=BUCKETS).map(|index| histogram.edge(index)).collect(),
        bucket: std::iter::once(0.0).chain(counts.iter().map(|count| *count as f64)).collect(),
    };
    SummaryValue { tag, histo: Some(histo), ..SummaryValue::default() }
}

fn input(tag: String, sample: &Sample) -> SummaryValue {
    let Sample { label: _, width, height, channels, pixels } = sample;
    let color = match channels {
        1 => ExtendedColorType::L8,
        2 => ExtendedColorType::La8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    };
    picture(tag, pixels, [*width, *height], color)
}

/// The patterns of all heads of a layer on a sample, in a field that is about as wide as high.
fn heads(tag: String, layer: &AttentionLayer, sample: usize) -> SummaryValue {
    let (rows, columns, count) = (layer.rows() as usize, layer.columns() as usize, layer.heads as usize);
    let zoom = PATTERN_PIXELS.div_ceil(rows.max(columns)).max(1);
    let across = (1..=count).find(|across| across * across >= count).unwrap_or(1);
    let down = count.div_ceil(across);
    let (width, height) = (across * (columns * zoom + 1) - 1, down * (rows * zoom + 1) - 1);
    let mut pixels = vec![BETWEEN; width * height];
    for head in 0..count {
        let Some(Pattern { peak: _, cells }) = layer.pattern(sample, head) else { continue };
        let (left, top) = (head % across * (columns * zoom + 1), head / across * (rows * zoom + 1));
        for y in 0..rows * zoom {
            let line = &mut pixels[(top + y) * width + left..][..columns * zoom];
            for (x, pixel) in line.iter_mut().enumerate() {
                *pixel = (cells[y / zoom * columns + x / zoom] >> 8) as u8;
            }
        }
    }
    picture(tag, &pixels, [width as u32, height as u32], ExtendedColorType::L8)
}

fn picture(tag: String, pixels: &[u8], [width, height]: [u32; 2], color: ExtendedColorType) -> SummaryValue {
    let mut png = Vec::new();
    let written = PngEncoder::new(&mut png).write_image(pixels, width, height, color);
    written.expect("pixels are as many as the sides say, and writing to memory does not fail");
    let colorspace = i32::from(color.channel_count());
    let image = Image { height: height as i32, width: width as i32, colorspace, encoded_image_string: png };
    SummaryValue { tag, image: Some(image), ..SummaryValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(value: &SummaryValue) -> image::DynamicImage {
        image::load_from_memory(&value.image.as_ref().unwrap().encoded_image_string).unwrap()
    }

    #[test]
    fn a_histogram_keeps_its_edges_and_counts() {
        let mut counts = vec![0; BUCKETS];
        (counts[0], counts[63]) = (3, 1);
        let histogram = Histogram {
            low: -1.0,
            high: 3.0,
            counts,
            min: -1.0,
            max: 3.0,
            mean: 0.5,
            std: 2.0,
            zeros: 0,
            non_finite: 4,
        };
        let written = super::histogram("a".to_owned(), &histogram).histo.unwrap();
        assert_eq!(
            (written.min, written.max, written.num, written.sum, written.sum_squares),
            (-1.0, 3.0, 4.0, 2.0, 17.0)
        );
        assert_eq!((written.bucket_limit.len(), written.bucket.len()), (65, 65));
        assert_eq!((written.bucket_limit[0], written.bucket_limit[1], written.bucket_limit[64]), (-1.0, -0.9375, 3.0));
        assert_eq!((written.bucket[0], written.bucket[1], written.bucket[64]), (0.0, 3.0, 1.0));
    }

    #[test]
    fn heads_stand_beside_each_other() {
        let pattern = |first: u16| Pattern { peak: 0.5, cells: vec![first, 0x8000, 0, 0xffff] };
        let layer = AttentionLayer {
            name: "layer".to_owned(),
            heads: 3,
            queries: 2,
            keys: 2,
            block: 1,
            patterns: [0, 0, 0, 0x1000, 0x2000, 0x3000].map(pattern).to_vec(),
        };
        let image = decoded(&heads("a".to_owned(), &layer, 1)).into_luma8();
        assert_eq!(image.dimensions(), (129, 129));
        let at = |x, y| image.get_pixel(x, y).0[0];
        assert_eq!([at(0, 0), at(65, 0), at(0, 65)], [0x10, 0x20, 0x30]);
        assert_eq!([at(32, 0), at(0, 32), at(32, 32), at(64, 0), at(128, 128)], [0x80, 0, 0xff, BETWEEN, BETWEEN]);
    }

    #[test]
    fn inputs_have_the_colours_of_their_channels() {
        for channels in 1..=4u8 {
            let pixels: Vec<u8> = (1..=2 * channels).collect();
            let sample =
                Sample { label: 0, width: 2, height: 1, channels: u32::from(channels), pixels: pixels.clone() };
            let value = input("a".to_owned(), &sample);
            assert_eq!(value.image.as_ref().unwrap().colorspace, i32::from(channels));
            assert_eq!(decoded(&value).into_bytes(), pixels);
        }
    }
}
