//! What a checkpoint looks like outside: the model as Hugging Face's `transformers` reads it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use domain::spec::{JobSpec, ModelSpec, Pool, VitSpec};
use serde_json::{Map, Value, json};

use crate::exit::Failure;

/// `config.json` of a `ViTForImageClassification` that computes what the model does.
///
/// `transformers` knows the class token only: of a model with mean pooling, the file gives the sizes, and says so under
/// a key that `transformers` keeps without using it.
pub(crate) fn config(spec: &JobSpec) -> Value {
    let JobSpec { model: ModelSpec::Vit(vit), name, seed, .. } = spec;
    let VitSpec { height, width, channels, patch, dim, depth, heads, mlp_dim, classes, pool, dropout } = vit;
    let labels = |to: fn(u32) -> (String, Value)| (0..*classes).map(to).collect::<Map<String, Value>>();
    json!({
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "image_size": if height == width { json!(height) } else { json!([height, width]) },
        "patch_size": patch,
        "num_channels": channels,
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": mlp_dim,
        "hidden_act": "gelu",
        "qkv_bias": true,
        "layer_norm_eps": 1e-6,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "encoder_stride": patch,
        "torch_dtype": "float32",
        "id2label": labels(|class| (class.to_string(), label(class).into())),
        "label2id": labels(|class| (label(class), class.into())),
        "phalanx": { "run": name, "seed": seed, "pool": pool },
    })
}

fn label(class: u32) -> String {
    format!("LABEL_{class}")
}

/// Whether `transformers` computes with the exported model what it was trained to.
pub(crate) fn is_portable(spec: &JobSpec) -> bool {
    let ModelSpec::Vit(vit) = &spec.model;
    vit.pool == Pool::ClassToken
}

/// Refuses to replace a file, before anything is written.
pub(crate) fn must_be_new(mut paths: impl Iterator<Item = PathBuf>) -> Result<(), Failure> {
    match paths.find(|path| path.exists()) {
        Some(taken) => {
            let message = format!("{} exists already", taken.display());
            Err(Failure::config(anyhow::Error::msg(message)).hint("--output DIR names another folder"))
        }
        None => Ok(()),
    }
}

/// Makes a file of `bytes` that is whole or not there, also after a crash.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let half = Half::create(path)?;
    let written = (&half.file).write_all(bytes);
    written.with_context(|| half.cannot_write())?;
    half.finish()
}

/// A file that is being written, under a name of its own. Unless it is finished, nothing of it stays.
pub(crate) struct Half {
    /// Where its bytes go.
    pub(crate) file: std::fs::File,
    half: PathBuf,
    whole: PathBuf,
}

impl Half {
    /// Begins the file that is to be `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let half = path.with_extension("part");
        let created = std::fs::File::create(&half).with_context(|| format!("cannot write {}", path.display()));
        let file = created.map_err(Failure::config)?;
        Ok(Self { file, half, whole: path.to_owned() })
    }

    /// The beginning of an error message.
    pub(crate) fn cannot_write(&self) -> String {
        format!("cannot write {}", self.whole.display())
    }

    /// Gives the file its name, once its bytes are on the disk.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let finished = self.file.sync_all().and_then(|()| std::fs::rename(&self.half, &self.whole));
        Ok(finished.with_context(|| self.cannot_write())?)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // After the end there is none under this name, and an error before it has been told.
        let _ = std::fs::remove_file(&self.half);
    }
}

/// Refuses to replace a file of data, before anything is asked for it.
pub(crate) fn must_be_new_file(path: &Path) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let message = format!("{} exists already", path.display());
    Err(Failure::config(anyhow::Error::msg(message)).hint("name another file, or remove this one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(model: &str) -> JobSpec {
        let text = format!(
            "\
version: 1
name: digits
seed: 7
model: {{ type: vit, image: {model}, channels: 1, patch: 2, dim: 8, depth: 3, heads: 2, classes: 3, dropout: 0.1 }}
data: {{ format: idx, images: i, labels: l }}
train: {{ steps: 1 }}
"
        );
        domain::spec::file::read(&text, "a.yaml", Path::new("/")).unwrap()
    }

    #[test]
    fn the_config_is_that_of_a_hugging_face_vit() {
        let expected = json!({
            "architectures": ["ViTForImageClassification"],
            "model_type": "vit",
            "image_size": 8,
            "patch_size": 2,
            "num_channels": 1,
            "hidden_size": 8,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "hidden_act": "gelu",
            "qkv_bias": true,
            "layer_norm_eps": 1e-6,
            "hidden_dropout_prob": 0.1_f32,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.02,
            "encoder_stride": 2,
            "torch_dtype": "float32",
            "id2label": { "0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2" },
            "label2id": { "LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2 },
            "phalanx": { "run": "digits", "seed": 7, "pool": "class_token" },
        });
        assert_eq!(config(&spec("[8, 8]")), expected);
        assert_eq!(config(&spec("[4, 8]"))["image_size"], json!([4, 8]));
        assert!(is_portable(&spec("[8, 8]")));
        assert!(!is_portable(&spec("[8, 8], pool: mean")));
    }

    #[test]
    fn a_file_is_never_replaced_or_left_in_halves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        must_be_new([path.clone()].into_iter()).unwrap();
        write(&path, b"one").unwrap();
        let refused = must_be_new([path.clone()].into_iter()).unwrap_err().to_string();
        assert!(refused.contains("exists already\n  hint: --output"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert!(write(&dir.path().join("no/such/folder"), b"x").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
