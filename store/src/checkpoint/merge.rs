//! One safetensors file from the parts of a checkpoint.
//!
//! The header is written here and not by the `safetensors` crate, which writes metadata of more than one entry in a
//! random order: the same checkpoint would give other bytes each time.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::Serialize;

use super::{Checkpoint, CheckpointError};

/// Tensors of the model are saved under this prefix.
pub(super) const MODEL: &str = "model.";

type Tensors<'a> = BTreeMap<String, TensorView<'a>>;
type Metadata = BTreeMap<String, String>;

impl Checkpoint {
    /// The model's weights alone, under their own names, as one safetensors file that Hugging Face's loaders read. The
    /// same checkpoint always gives the same bytes.
    pub fn weights(&self) -> Result<Vec<u8>, CheckpointError> {
        let (tensors, _) = self.tensors()?;
        let weights: Tensors<'_> = tensors
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(MODEL)?.to_owned(), tensor)))
            .collect();
        if weights.is_empty() {
            return Err(self.misfit(format!("no tensor is named {MODEL}NAME")));
        }
        Ok(serialize(&weights, &pytorch_metadata()))
    }

    /// Weights and optimizer state under the names they are saved with, as one safetensors file. Its metadata are those
    /// of the parts, `trial` and `step`. The same checkpoint always gives the same bytes.
    pub fn whole(&self) -> Result<Vec<u8>, CheckpointError> {
        let (tensors, mut metadata) = self.tensors()?;
        metadata.extend(pytorch_metadata());
        metadata.insert("trial".to_owned(), self.manifest.trial.to_string());
        metadata.insert("step".to_owned(), self.manifest.step.to_string());
        Ok(serialize(&tensors, &metadata))
    }

    /// The tensors of all parts, and the metadata that the parts share.
    fn tensors(&self) -> Result<(Tensors<'_>, Metadata), CheckpointError> {
        let mut tensors = Tensors::new();
        let mut shared: Option<Metadata> = None;
        for (saved, bytes) in self.manifest.parts.iter().zip(&self.parts) {
            let unreadable = |source| CheckpointError::Safetensors { path: saved.path.clone(), source };
            let (part, metadata) = parse(bytes).map_err(unreadable)?;
            if *shared.get_or_insert_with(|| metadata.clone()) != metadata {
                return Err(self.misfit(format!("the metadata of rank {} differ from those of rank 0", saved.rank)));
            }
            for (name, tensor) in part.tensors() {
                if tensors.insert(name.clone(), tensor).is_some() {
                    return Err(self.misfit(format!("rank {} holds tensor {name}, a lower rank does too", saved.rank)));
                }
            }
        }
        Ok((tensors, shared.unwrap_or_default()))
    }

    fn misfit(&self, cause: String) -> CheckpointError {
        CheckpointError::Parts { trial: self.manifest.trial.to_string(), step: self.manifest.step.0, cause }
    }
}

fn parse(bytes: &[u8]) -> Result<(SafeTensors<'_>, Metadata), SafeTensorError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok((SafeTensors::deserialize(bytes)?, metadata))
}

/// Hugging Face's loaders refuse a file that does not say which framework's layout it has.
fn pytorch_metadata() -> Metadata {
    Metadata::from([("format".to_owned(), "pt".to_owned())])
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// The format: the header's length (8 bytes, little-endian), the header (JSON, padded with spaces to a multiple of 8
/// bytes), and the tensors' bytes without gaps. Wider types come first, so that every tensor is aligned.
fn serialize(tensors: &Tensors<'_>, metadata: &Metadata) -> Vec<u8> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(name, tensor)| (std::cmp::Reverse(tensor.dtype()), *name));
    let mut header = format!("{{\"__metadata__\":{}", json(metadata));
    let mut end = 0;
    for (name, tensor) in &order {
        let start = end;
        end += tensor.data().len();
        let entry = Entry { dtype: tensor.dtype(), shape: tensor.shape(), data_offsets: [start, end] };
        header.push_str(&format!(",{}:{}", json(name), json(&entry)));
    }
    header.push('}');
    let padded = header.len().next_multiple_of(8);
    header.push_str(&" ".repeat(padded - header.len()));

    let mut file = Vec::with_capacity(8 + padded + end);
    file.extend((padded as u64).to_le_bytes());
    file.extend(header.as_bytes());
    for (_, tensor) in &order {
        file.extend(tensor.data());
    }
    file
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("texts and numbers always have a JSON form")
}
