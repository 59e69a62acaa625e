//! Events as TensorBoard stores them: protobuf messages in TFRecord frames. Of each message only what we write is here;
//! the whole is in TensorBoard's repository, under `tensorboard/compat/proto` and `tensorboard/plugins/hparams`.

use std::collections::BTreeMap;

use domain::ids::Time;
use domain::search::{Configuration, Value as Tried};
use prost::{Message, Oneof};

/// A line of an event file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub(super) what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryValue {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(float, optional, tag = "2")]
    pub(super) simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<Image>,
    #[prost(message, optional, tag = "5")]
    pub(super) histo: Option<HistogramProto>,
    #[prost(message, optional, tag = "8")]
    pub(super) tensor: Option<TensorProto>,
    #[prost(message, optional, tag = "9")]
    pub(super) metadata: Option<SummaryMetadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    pub(super) height: i32,
    #[prost(int32, tag = "2")]
    pub(super) width: i32,
    /// Channels.
    #[prost(int32, tag = "3")]
    pub(super) colorspace: i32,
    /// A PNG file.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) encoded_image_string: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HistogramProto {
    #[prost(double, tag = "1")]
    pub(super) min: f64,
    #[prost(double, tag = "2")]
    pub(super) max: f64,
    #[prost(double, tag = "3")]
    pub(super) num: f64,
    #[prost(double, tag = "4")]
    pub(super) sum: f64,
    #[prost(double, tag = "5")]
    pub(super) sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    pub(super) bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    pub(super) bucket: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryMetadata {
    #[prost(message, optional, tag = "1")]
    pub(super) plugin_data: Option<PluginData>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginData {
    #[prost(string, tag = "1")]
    pub(super) plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) content: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorProto {
    #[prost(int32, tag = "1")]
    pub(super) dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) tensor_shape: Option<TensorShapeProto>,
}

/// `DT_FLOAT`.
const FLOAT: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorShapeProto {
    #[prost(message, repeated, tag = "2")]
    pub(super) dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dim {
    #[prost(int64, tag = "1")]
    pub(super) size: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionLog {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// `START`: what was told of this step and later ones does not count.
const START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct HParamsPluginData {
    #[prost(message, optional, tag = "3")]
    pub(super) session_start_info: Option<SessionStartInfo>,
    #[prost(message, optional, tag = "4")]
    pub(super) session_end_info: Option<SessionEndInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionStartInfo {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) hparams: BTreeMap<String, Value>,
    #[prost(string, tag = "4")]
    pub(super) group_name: String,
    #[prost(double, tag = "5")]
    pub(super) start_time_secs: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionEndInfo {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
    #[prost(double, tag = "2")]
    pub(super) end_time_secs: f64,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(oneof = "ValueKind", tags = "2, 3, 4")]
    pub(super) kind: Option<ValueKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ValueKind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Boolean(bool),
}

/// The longest text of a parameter that is written; TensorBoard shows them in a column.
const TEXT_BYTES_MAX: usize = 1024;

/// How a trial ended, as TensorBoard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Success = 1,
    Failure = 2,
}

/// How an event file begins.
pub fn beginning(at: Time) -> Vec<u8> {
    event(at, 0, What::FileVersion("brain.Event:2".to_owned()))
}

/// Figures of a step. Scalars have 32 bits: the server that TensorBoard reads files with takes no others.
pub fn scalars(at: Time, step: u64, points: &[(&str, f64)]) -> Vec<u8> {
    let value = points.iter().map(|(tag, value)| SummaryValue {
        tag: (*tag).to_owned(),
        simple_value: Some(*value as f32),
        ..SummaryValue::default()
    });
    event(at, step, What::Summary(Summary { value: value.collect() }))
}

/// Says that what was told of `step` and later ones does not count.
pub(super) fn going_back(at: Time, step: u64) -> Vec<u8> {
    event(at, step, What::SessionLog(SessionLog { status: START }))
}

/// The parameters of a trial.
pub(super) fn trial_begins(at: Time, sweep: &str, run: &str, tried: &Configuration) -> Vec<u8> {
    let kind = |value: &Tried| match value {
        Tried::Boolean(x) => ValueKind::Boolean(*x),
        Tried::Integer(x) => ValueKind::Number(*x as f64),
        Tried::Number(x) => ValueKind::Number(*x),
        Tried::Text(x) => ValueKind::Text(crate::points::cut(x, TEXT_BYTES_MAX).to_owned()),
    };
    let mut hparams: BTreeMap<String, Value> =
        tried.iter().map(|(path, value)| (path.clone(), Value { kind: Some(kind(value)) })).collect();
    // Trials of several sweeps in one folder can be told apart by it.
    hparams.insert("sweep".to_owned(), Value { kind: Some(ValueKind::Text(sweep.to_owned())) });
    let session_start_info =
        Some(SessionStartInfo { hparams, group_name: run.to_owned(), start_time_secs: seconds(at) });
    of_trial(at, "_hparams_/session_start_info", HParamsPluginData { session_start_info, session_end_info: None })
}

/// The end of a trial.
pub(super) fn trial_ends(at: Time, ended: Ended) -> Vec<u8> {
    let session_end_info = Some(SessionEndInfo { status: ended as i32, end_time_secs: seconds(at) });
    of_trial(at, "_hparams_/session_end_info", HParamsPluginData { session_start_info: None, session_end_info })
}

/// What is said of a trial lies in the metadata of a summary without a value.
fn of_trial(at: Time, tag: &str, data: HParamsPluginData) -> Vec<u8> {
    let shape = TensorShapeProto { dim: vec![Dim { size: 0 }] };
    let nothing = TensorProto { dtype: FLOAT, tensor_shape: Some(shape) };
    let plugin_data = PluginData { plugin_name: "hparams".to_owned(), content: data.encode_to_vec() };
    let metadata = Some(SummaryMetadata { plugin_data: Some(plugin_data) });
    let tag = tag.to_owned();
    let value = vec![SummaryValue { tag, tensor: Some(nothing), metadata, ..SummaryValue::default() }];
    event(at, 0, What::Summary(Summary { value }))
}

/// A line of an event file.
pub(super) fn event(at: Time, step: u64, what: What) -> Vec<u8> {
    let step = i64::try_from(step).unwrap_or(i64::MAX);
    frame(&Event { wall_time: seconds(at), step, what: Some(what) }.encode_to_vec())
}

fn seconds(at: Time) -> f64 {
    at.0 as f64 / 1e3
}

/// A TFRecord: length, checksum of the length, data, checksum of the data.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut frame = Vec::with_capacity(data.len() + 16);
    frame.extend(length);
    frame.extend(checksum(&length).to_le_bytes());
    frame.extend(data);
    frame.extend(checksum(data).to_le_bytes());
    frame
}

/// CRC-32C, masked as TFRecord wants it, so that a checksum of data with checksums in it stays a good one.
pub(super) fn checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TensorBoard's own readers read whole files in `sinks/tests/clients.sh`; here are bytes that its writer wrote.
    #[test]
    fn frames_are_those_of_tensorboard() {
        // `tensorboard.summary.writer.record_writer.RecordWriter` of `event_pb2.Event(wall_time=1.5, step=7,
        // file_version="brain.Event:2")`.
        let event = event(Time(1500), 7, What::FileVersion("brain.Event:2".to_owned()));
        let expected = "1a00000000000000129bd82d09000000000000f83f10071a0d627261696e2e4576656e743a32da446486";
        assert_eq!(crate::sink::hex(&event), expected);
    }

    #[test]
    fn a_figure_is_the_nearest_of_32_bits() {
        for value in [0.1, f64::NAN, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE / 2.0, 1e300] {
            let bytes = scalars(Time(1), u64::MAX, &[("loss", value)]);
            let event = Event::decode(&bytes[12..bytes.len() - 4]).unwrap();
            let Some(What::Summary(summary)) = event.what else { panic!("{event:?}") };
            let written = summary.value[0].simple_value.unwrap();
            assert_eq!((written.to_bits(), event.step), ((value as f32).to_bits(), i64::MAX));
        }
    }
}
