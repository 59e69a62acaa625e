use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::spec::OptimizerSpec;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::layout::{Layout, Parameter};
use crate::nn::Values;
use crate::optimizer::{Optimizer, slot_names};
use crate::parameters::Parameters;
use crate::{ModelError, SnapshotError};

/// A copy of all that an optimizer step changes: weights, moments, and the number of updates.
///
/// As bytes it is one or more safetensors files of 32-bit floats: `model.NAME` for a weight, `optimizer.SLOT.NAME` for a
/// moment, and the number of updates in the metadata. Equal snapshots make equal bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    layout: Arc<Layout>,
    weights: Vec<f32>,
    /// Name and values of every slot, in the order of the layout.
    slots: Vec<(&'static str, Vec<f32>)>,
    updates: u64,
}

/// The metadata entry with the number of updates.
const UPDATES_KEY: &str = "optimizer.updates";

/// The metadata entry that other readers of safetensors files insist on, and its value.
const FORMAT: (&str, &str) = ("format", "pt");

impl Snapshot {
    /// Copies the state of `parameters` and their `optimizer`.
    pub fn take(parameters: &Parameters, optimizer: &Optimizer) -> Self {
        let slots = optimizer.slots().iter().map(|slot| (slot.name, slot.values.concat())).collect();
        let mut weights = Vec::with_capacity(parameters.layout().len());
        for tensor in parameters.tensors() {
            weights.extend_from_slice(&Values::of(tensor).rows().expect("weights are on the CPU and of type F32"));
        }
        Self { layout: parameters.layout().clone(), weights, slots, updates: optimizer.updates() }
    }

    /// Puts the state back into `parameters` and `optimizer`, which must be of the same kind.
    pub fn restore(&self, parameters: &Parameters, optimizer: &mut Optimizer) -> Result<(), ModelError> {
        let names = self.slots.iter().map(|(name, _)| *name);
        if *self.layout != **parameters.layout()
            || *self.layout != **optimizer.layout()
            || !names.eq(slot_names(optimizer.spec()).iter().copied())
        {
            return Err(ModelError::OtherLayout { what: "snapshot" });
        }
        let range = |place: usize| self.layout.parameters()[place].range.clone();
        parameters.update(|weights| {
            (0..).zip(weights).for_each(|(place, weight)| weight.copy_from_slice(&self.weights[range(place)]));
        })?;
        for ((_, values), slot) in self.slots.iter().zip(optimizer.slots_mut()) {
            for (place, slot) in slot.values.iter_mut().enumerate() {
                slot.copy_from_slice(&values[range(place)]);
            }
        }
        optimizer.set_updates(self.updates);
        Ok(())
    }

    /// Part `part` (counted from 0) of `of` parts, with the given metadata: whole tensors, dealt so that the parts are of
    /// nearly equal size.
    ///
    /// # Panics
    /// If `part` is not below `of`, or if `metadata` uses a key of the format's own.
    pub fn to_safetensors(&self, part: u32, of: u32, metadata: &BTreeMap<String, String>) -> Vec<u8> {
        assert!(part < of, "part {part} must be below {of}");
        let mut all = metadata.clone();
        for (key, value) in [(FORMAT.0, FORMAT.1.to_owned()), (UPDATES_KEY, self.updates.to_string())] {
            let before = all.insert(key.to_owned(), value);
            assert!(before.is_none(), "metadata key {key} is taken");
        }
        let parts = deal(&self.layout, slots_of(&self.slots), of);
        let tensors: Vec<_> = parts[part as usize].iter().map(|t| (t.name(), t.parameter, self.values(t))).collect();
        write(&all, &tensors)
    }

    fn values(&self, tensor: &StoredTensor<'_>) -> &[f32] {
        let whole = match tensor.slot {
            None => &self.weights,
            Some((i, _)) => &self.slots[i].1,
        };
        &whole[tensor.parameter.range.clone()]
    }

    /// Reads the parts of one snapshot of a network with this `layout` and `optimizer`, in any order. Gives the metadata
    /// it was written with, too.
    ///
    /// Refuses what is damaged, missing, unknown, doubled, of another shape or type, and parts whose metadata differ.
    pub fn from_safetensors(
        layout: &Arc<Layout>,
        optimizer: &OptimizerSpec,
        parts: &[&[u8]],
    ) -> Result<(Self, BTreeMap<String, String>), ModelError> {
        if parts.is_empty() {
            return Err(SnapshotError::NoParts.into());
        }
        let names = slot_names(optimizer);
        let mut snapshot = Self {
            layout: layout.clone(),
            weights: vec![0.0; layout.len()],
            slots: names.iter().map(|name| (*name, vec![0.0; layout.len()])).collect(),
            updates: 0,
        };
        let wanted: BTreeMap<String, StoredTensor<'_>> =
            stored_tensors(layout, names.iter().copied()).map(|t| (t.name(), t)).collect();
        let mut missing: BTreeSet<&str> = wanted.keys().map(String::as_str).collect();
        let mut metadata = None;
        for (i, bytes) in parts.iter().enumerate() {
            let file = read(bytes, i + 1, parts.len())?;
            check_metadata(&mut metadata, file.metadata, i + 1, parts.len())?;
            for (name, view) in file.tensors.iter() {
                let Some(tensor) = wanted.get(name) else {
                    return Err(SnapshotError::Unknown { name: name.to_owned() }.into());
                };
                if !missing.remove(name) {
                    return Err(SnapshotError::Doubled { name: name.to_owned() }.into());
                }
                let values = checked_values(name, &view, tensor.parameter)?;
                let whole = match tensor.slot {
                    None => &mut snapshot.weights,
                    Some((i, _)) => &mut snapshot.slots[i].1,
                };
                let target = &mut whole[tensor.parameter.range.clone()];
                target.iter_mut().zip(values).for_each(|(t, bytes)| *t = f32::from_le_bytes(*bytes));
            }
        }
        if !missing.is_empty() {
            let names = missing.into_iter().map(ToOwned::to_owned).collect();
            return Err(SnapshotError::Missing { names }.into());
        }
        let mut metadata = metadata.ok_or(SnapshotError::NoParts)?;
        snapshot.updates = take_own_entries(&mut metadata, parts.len())?;
        Ok((snapshot, metadata))
    }

    /// SHA-256 over every weight tensor in the order of their names: the name, a zero byte, the number of axes as a
    /// little-endian `u32`, their lengths as `u64`, the values as `f32`. Hexadecimal.
    pub fn weights_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for parameter in self.layout.parameters() {
            hash.update(parameter.name.as_bytes());
            hash.update([0]);
            hash.update((parameter.shape.len() as u32).to_le_bytes());
            parameter.shape.iter().for_each(|length| hash.update((*length as u64).to_le_bytes()));
            hash.update(little_endian(&self.weights[parameter.range.clone()]));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A tensor of a file: a weight, or slot number and name of a moment.
#[derive(Clone, Copy)]
struct StoredTensor<'a> {
    parameter: &'a Parameter,
    slot: Option<(usize, &'static str)>,
}

impl StoredTensor<'_> {
    fn name(&self) -> String {
        match self.slot {
            None => format!("model.{}", self.parameter.name),
            Some((_, slot)) => format!("optimizer.{slot}.{}", self.parameter.name),
        }
    }
}

fn slots_of(slots: &[(&'static str, Vec<f32>)]) -> impl Iterator<Item = &'static str> + Clone {
    slots.iter().map(|(name, _)| *name)
}

fn stored_tensors<'a>(
    layout: &'a Layout,
    slots: impl Iterator<Item = &'static str> + Clone,
) -> impl Iterator<Item = StoredTensor<'a>> {
    std::iter::once(None)
        .chain(slots.enumerate().map(Some))
        .flat_map(|slot| layout.parameters().iter().map(move |parameter| StoredTensor { parameter, slot }))
}

/// Deals all tensors to `of` parts, the largest first, each to the part that holds least so far.
fn deal<'a>(
    layout: &'a Layout,
    slots: impl Iterator<Item = &'static str> + Clone,
    of: u32,
) -> Vec<Vec<StoredTensor<'a>>> {
    let mut tensors: Vec<_> = stored_tensors(layout, slots).collect();
    tensors.sort_by_key(|t| std::cmp::Reverse(t.parameter.range.len()));
    let mut parts = vec![(0, Vec::new()); of as usize];
    for tensor in tensors {
        let (values, part) = parts.iter_mut().min_by_key(|(values, _)| *values).expect("there is at least one part");
        *values += tensor.parameter.range.len();
        part.push(tensor);
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// Writes a safetensors file. The crate's own writer orders the metadata at random, so equal snapshots would differ.
fn write(metadata: &BTreeMap<String, String>, tensors: &[(String, &Parameter, &[f32])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!(metadata));
    let mut end = 0;
    for (name, parameter, values) in tensors {
        let start = end;
        end += size_of_val(*values);
        let info = json!({"dtype": "F32", "shape": parameter.shape, "data_offsets": [start, end]});
        header.insert(name.clone(), info);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The values begin at a multiple of 8 bytes, so that a reader may map them.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    tensors.iter().for_each(|(_, _, values)| bytes.extend(little_endian(values)));
    bytes
}

/// A part as read.
struct File<'a> {
    tensors: SafeTensors<'a>,
    metadata: BTreeMap<String, String>,
}

fn read(bytes: &[u8], part: usize, of: usize) -> Result<File<'_>, SnapshotError> {
    let unreadable = |e: safetensors::SafeTensorError| SnapshotError::Unreadable { part, of, reason: e.to_string() };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(File { tensors, metadata })
}

/// Keeps the first part's metadata and compares the others' with them.
fn check_metadata(
    first: &mut Option<BTreeMap<String, String>>,
    here: BTreeMap<String, String>,
    part: usize,
    of: usize,
) -> Result<(), SnapshotError> {
    let Some(first) = first else {
        *first = Some(here);
        return Ok(());
    };
    match first.keys().chain(here.keys()).find(|key| first.get(*key) != here.get(*key)) {
        None => Ok(()),
        Some(key) => Err(SnapshotError::Metadata {
            part,
            of,
            key: key.clone(),
            found: shown(here.get(key)),
            expected: format!("{} as in part 1", shown(first.get(key))),
        }),
    }
}

/// Takes the format's own entries out; gives the number of updates.
fn take_own_entries(metadata: &mut BTreeMap<String, String>, of: usize) -> Result<u64, SnapshotError> {
    let wrong = |key: &str, found: Option<&String>, expected: &str| SnapshotError::Metadata {
        part: 1,
        of,
        key: key.to_owned(),
        found: shown(found),
        expected: expected.to_owned(),
    };
    let format = metadata.remove(FORMAT.0);
    if format.as_deref() != Some(FORMAT.1) {
        return Err(wrong(FORMAT.0, format.as_ref(), FORMAT.1));
    }
    let updates = metadata.remove(UPDATES_KEY);
    updates
        .as_ref()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong(UPDATES_KEY, updates.as_ref(), "a whole number"))
}

fn shown(value: Option<&String>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| format!("{value:?}"))
}

/// The values of a tensor of a file as groups of four bytes, if it has the type and shape of `parameter`.
fn checked_values<'a>(
    name: &str,
    view: &safetensors::tensor::TensorView<'a>,
    parameter: &Parameter,
) -> Result<&'a [[u8; 4]], SnapshotError> {
    if view.dtype() != Dtype::F32 {
        return Err(SnapshotError::Dtype { name: name.to_owned(), found: format!("{:?}", view.dtype()) });
    }
    if view.shape() != parameter.shape {
        let (found, expected) = (view.shape().to_vec(), parameter.shape.clone());
        return Err(SnapshotError::Shape { name: name.to_owned(), found, expected });
    }
    let (values, rest) = view.data().as_chunks();
    debug_assert!(rest.is_empty() && values.len() == parameter.range.len(), "the reader checks lengths");
    Ok(values)
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
