use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use domain::ids::{Generation, Step, TrialId};
use domain::record::SavedPart;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::merge::MODEL;
use super::path::{self, Folder};
use super::{Checkpoint, CheckpointError, CommittedManifest, Layer, Manifest};

/// Where checkpoints are kept. A handle; clones share the place.
///
/// Several processes may use one place: ranks put parts, one coordinator commits, loads, deletes and sweeps. What a call
/// wrote is durable when it returns. A crash at any moment leaves every committed checkpoint as it was; files of a save
/// that was not committed mean nothing and go with the next [`sweep`](Self::sweep).
///
/// To be used inside a Tokio runtime, for files are read, written and hashed on its blocking threads.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    blobs: Arc<dyn ObjectStore>,
    /// The root, if the blobs are files.
    root: Option<PathBuf>,
}

/// No manifest is longer: at some 400 bytes a part this is enough for ten thousand ranks.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// A safetensors file begins with the length of its header, in so many bytes.
const HEADER_LENGTH_BYTES: u64 = 8;
/// No header is longer: at some 100 bytes a tensor this is enough for a hundred thousand.
const HEADER_BYTES_MAX: u64 = 16 << 20;

impl CheckpointStore {
    /// Opens `file://` with the absolute path of a folder, which is made if need be, or `memory://`, which is new and
    /// empty each time and ends with its last handle. The path is taken as it is: nothing in it is percent-encoded.
    pub fn open(url: &str) -> Result<Self, CheckpointError> {
        if let "memory://" | "memory:///" = url {
            return Ok(Self { blobs: Arc::new(InMemory::new()), root: None });
        }
        let root = url.strip_prefix("file://").map(PathBuf::from).filter(|root| root.is_absolute());
        let root = root.ok_or_else(|| CheckpointError::Url { url: url.to_owned() })?;
        let cannot = |source| CheckpointError::Open { url: url.to_owned(), source };
        std::fs::create_dir_all(&root).map_err(|e| cannot(e.into()))?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(|e| cannot(e.into()))?;
        // Without fsync a checkpoint could be committed before its bytes are on the disk.
        let files = files.with_fsync(true).with_automatic_cleanup(true);
        Ok(Self { blobs: Arc::new(files), root: Some(root) })
    }

    /// Where a rank's part goes. `blake3` is the hash of its content, 64 lower-case hexadecimal digits.
    pub fn part_path(trial: &TrialId, generation: Generation, step: Step, rank: u32, blake3: &str) -> String {
        path::part(trial, generation, step, rank, blake3)
    }

    /// Where the manifest of a checkpoint is, or will be.
    pub fn manifest_path(trial: &TrialId, generation: Generation, step: Step) -> String {
        Folder { trial: trial.clone(), step, generation }.manifest()
    }

    /// Writes a part under the path that [`part_path`](Self::part_path) gives for it. A part that is there already is
    /// left alone; one that was damaged since is replaced.
    pub async fn put_part(&self, path: &str, bytes: Bytes) -> Result<(), CheckpointError> {
        let (_, expected) = Folder::of_part(path).ok_or_else(|| not_a(path, "part"))?;
        let found = hash(bytes.clone()).await;
        if found != expected {
            return Err(CheckpointError::Hash { path: path.to_owned(), expected: expected.to_owned(), found });
        }
        match self.put(path, bytes.clone(), PutMode::Create).await {
            Err(object_store::Error::AlreadyExists { .. }) => {}
            outcome => return outcome.map_err(|e| CheckpointError::from_write(path, e)),
        }
        if let Ok(there) = self.get(path, |length| exact(path, bytes.len() as u64, length)).await
            && there == bytes
        {
            return Ok(());
        }
        self.put(path, bytes, PutMode::Overwrite).await.map_err(|e| CheckpointError::from_write(path, e))
    }

    /// Makes the saved parts a checkpoint: checks that the manifest holds together and that its parts are there, and
    /// writes it. If the same manifest is there already, that is success; another one is an error.
    pub async fn commit(&self, manifest: &Manifest) -> Result<CommittedManifest, CheckpointError> {
        let Manifest { trial, generation, step, .. } = manifest;
        let path = Self::manifest_path(trial, *generation, *step);
        let invalid = |cause| CheckpointError::Manifest { path: path.clone(), cause };
        manifest.check().map_err(invalid)?;
        for part in &manifest.parts {
            self.check_length(part).await?;
        }
        let json = serde_json::to_vec_pretty(manifest).map_err(|e| invalid(e.to_string()))?;
        let json = Bytes::from(json);
        let blake3 = blake3::hash(&json).to_string();
        match self.put(&path, json, PutMode::Create).await {
            Ok(()) => Ok(CommittedManifest { path, blake3 }),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let there = self.get(&path, |length| manifest_length(&path, length)).await?;
                let found = blake3::hash(&there).to_string();
                if found != blake3 {
                    return Err(CheckpointError::Conflict { path, expected: blake3, found });
                }
                Ok(CommittedManifest { path, blake3 })
            }
            Err(error) => Err(CheckpointError::from_write(&path, error)),
        }
    }

    /// Reads a checkpoint whole. Nothing is given before everything was checked: the manifest against `blake3`, itself
    /// and its path, every part against the manifest.
    pub async fn load(&self, manifest_path: &str, blake3: &str) -> Result<Checkpoint, CheckpointError> {
        let manifest = self.load_manifest(manifest_path, Some(blake3)).await?;
        let mut parts = Vec::with_capacity(manifest.parts.len());
        for SavedPart { path, bytes, blake3, .. } in &manifest.parts {
            let part = self.get(path, |length| exact(path, *bytes, length)).await?;
            let found = hash(part.clone()).await;
            if found != *blake3 {
                return Err(CheckpointError::Hash { path: path.clone(), expected: blake3.clone(), found });
            }
            parts.push(part);
        }
        Ok(Checkpoint { manifest, parts })
    }

    /// The tensors of the model in a checkpoint, by name. Of the parts only the headers are read, and no hash is checked
    /// but the manifest's: this is for people to look at.
    pub async fn layers(&self, manifest_path: &str, blake3: &str) -> Result<Vec<Layer>, CheckpointError> {
        let manifest = self.load_manifest(manifest_path, Some(blake3)).await?;
        let mut layers = Vec::new();
        for part in &manifest.parts {
            self.check_length(part).await?;
            let start = self.get_range(&part.path, 0..HEADER_LENGTH_BYTES).await?;
            let length = start.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let limit = part.bytes.min(HEADER_BYTES_MAX);
            if length > limit {
                return Err(CheckpointError::TooLong { path: part.path.clone(), found: length, limit });
            }
            let header = self.get_range(&part.path, HEADER_LENGTH_BYTES..HEADER_LENGTH_BYTES + length).await?;
            layers.extend(header_layers(&header));
        }
        layers.sort();
        Ok(layers)
    }

    /// Deletes a checkpoint: the manifest first, then everything else in its folder. Deleting what is gone is success.
    pub async fn delete(&self, manifest_path: &str) -> Result<(), CheckpointError> {
        let folder = Folder::of_manifest(manifest_path).ok_or_else(|| not_a(manifest_path, "manifest"))?;
        self.delete_file(manifest_path).await?;
        for file in self.files_of(&folder.trial).await? {
            if Folder::of_file(&file).as_ref() == Some(&folder) {
                self.delete_file(&file).await?;
            }
        }
        Ok(())
    }

    /// Deletes the parts of a save that will not be committed. One whose manifest is there is left as it is, and so are
    /// temporary files: a rank may still be writing, and then this is to be called again. Nothing there is success.
    ///
    /// Not to be called while the same save is being committed.
    pub async fn drop_save(&self, trial: &TrialId, generation: Generation, step: Step) -> Result<(), CheckpointError> {
        let folder = Folder { trial: trial.clone(), step, generation };
        let files = self.files_of(trial).await?;
        if files.contains(&folder.manifest()) {
            return Ok(());
        }
        for file in files {
            if Folder::of_part(&file).is_some_and(|(of, _)| of == folder) {
                self.delete_file(&file).await?;
            }
        }
        Ok(())
    }

    /// Deletes the files of a trial that belong to no checkpoint in `keep` (paths of manifests): other checkpoints,
    /// parts of saves that were not committed, and temporary files of writes that were cut off. If a kept manifest is
    /// missing or unreadable, all files of its folder stay, so the path of a manifest that is still to be committed
    /// protects its parts. Files that this store does not write are left alone.
    ///
    /// Not to be called while a rank may be saving under a path that `keep` does not protect: its part would go.
    pub async fn sweep(&self, trial: &TrialId, keep: &[String]) -> Result<(), CheckpointError> {
        let mut kept_folders = BTreeSet::new();
        let mut kept_files = BTreeSet::new();
        for path in keep {
            let folder = Folder::of_manifest(path).ok_or_else(|| not_a(path, "manifest"))?;
            match self.load_manifest(path, None).await {
                Ok(manifest) => {
                    kept_files.insert(path.clone());
                    kept_files.extend(manifest.parts.into_iter().map(|part| part.path));
                }
                Err(_) => {
                    kept_folders.insert(folder);
                }
            }
        }
        let mut files = self.files_of(trial).await?;
        // A crash on the way must not leave a manifest without its parts.
        files.sort_by_key(|file| Folder::of_manifest(file).is_none());
        for file in files {
            let Some(folder) = Folder::of_file(&file) else { continue };
            if folder.trial == *trial && !kept_folders.contains(&folder) && !kept_files.contains(&file) {
                self.delete_file(&file).await?;
            }
        }
        Ok(())
    }

    async fn load_manifest(&self, path: &str, blake3: Option<&str>) -> Result<Manifest, CheckpointError> {
        let folder = Folder::of_manifest(path).ok_or_else(|| not_a(path, "manifest"))?;
        let json = self.get(path, |length| manifest_length(path, length)).await?;
        let found = blake3::hash(&json).to_string();
        if let Some(expected) = blake3
            && found != expected
        {
            return Err(CheckpointError::Hash { path: path.to_owned(), expected: expected.to_owned(), found });
        }
        let invalid = |cause| CheckpointError::Manifest { path: path.to_owned(), cause };
        let manifest = Manifest::from_json(&json).map_err(invalid)?;
        let Manifest { trial, generation, step, .. } = &manifest;
        if Self::manifest_path(trial, *generation, *step) != folder.manifest() {
            return Err(invalid(format!("it is of trial {trial}, step {step}, generation {generation}")));
        }
        Ok(manifest)
    }

    async fn check_length(&self, part: &SavedPart) -> Result<(), CheckpointError> {
        let SavedPart { path, bytes, .. } = part;
        self.check_plain(path).await?;
        let there = self.blobs.head(&Path::from(path.as_str())).await;
        let there = there.map_err(|e| CheckpointError::from_access(path, "read", e))?;
        exact(path, *bytes, there.size)
    }

    async fn put(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<(), object_store::Error> {
        let payload = PutPayload::from_bytes(bytes);
        self.blobs.put_opts(&Path::from(path), payload, mode.into()).await.map(drop)
    }

    /// The whole of a file whose length satisfies `check`, which is asked before anything is read.
    async fn get(
        &self,
        path: &str,
        check: impl Fn(u64) -> Result<(), CheckpointError>,
    ) -> Result<Bytes, CheckpointError> {
        self.check_plain(path).await?;
        let access = |e| CheckpointError::from_access(path, "read", e);
        let found = self.blobs.get(&Path::from(path)).await.map_err(access)?;
        check(found.meta.size)?;
        let bytes = found.bytes().await.map_err(access)?;
        check(bytes.len() as u64)?;
        Ok(bytes)
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, CheckpointError> {
        self.check_plain(path).await?;
        let found = self.blobs.get_range(&Path::from(path), range).await;
        found.map_err(|e| CheckpointError::from_access(path, "read", e))
    }

    /// Refuses links, devices and pipes in the place of a file: a link could lead out of the store, a pipe would never
    /// end. A file that is missing is left to the caller to find out.
    async fn check_plain(&self, path: &str) -> Result<(), CheckpointError> {
        let Some(root) = &self.root else { return Ok(()) };
        let file = root.join(path);
        match blocking(move || std::fs::symlink_metadata(file)).await {
            Ok(metadata) if !metadata.is_file() => Err(CheckpointError::NotPlain { path: path.to_owned() }),
            _ => Ok(()),
        }
    }

    async fn delete_file(&self, path: &str) -> Result<(), CheckpointError> {
        // The object store does not know temporary files.
        let deleted = match &self.root {
            Some(root) if path.contains('#') => {
                let file = root.join(path);
                let deleted = blocking(move || {
                    std::fs::remove_file(&file)?;
                    // The folder goes with its last file; if it is not empty, it stays.
                    let _stays = file.parent().map(std::fs::remove_dir);
                    Ok(())
                });
                deleted
                    .await
                    .or_else(|e: io::Error| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e.into()) })
            }
            _ => match self.blobs.delete(&Path::from(path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            },
        };
        deleted.map_err(|source| CheckpointError::Access { path: path.to_owned(), verb: "deleted", source })
    }

    /// The paths of all files of a trial, temporary files included.
    async fn files_of(&self, trial: &TrialId) -> Result<Vec<String>, CheckpointError> {
        let prefix = trial.to_string();
        let access = |source| CheckpointError::Access { path: prefix.clone(), verb: "listed", source };
        match &self.root {
            Some(root) => {
                let (root, prefix) = (root.clone(), prefix.clone());
                let listed = blocking(move || {
                    let mut files = Vec::new();
                    list(&root.join(&prefix), &prefix, &mut files)?;
                    Ok::<_, io::Error>(files)
                });
                listed.await.map_err(|e| access(e.into()))
            }
            None => {
                let listed = self.blobs.list(Some(&Path::from(prefix.as_str())));
                let files = listed.map_ok(|meta| String::from(meta.location)).try_collect().await;
                files.map_err(|e: object_store::Error| access(e.into()))
            }
        }
    }
}

/// The tensors of the model that the header of a safetensors file tells of; what it does not tell is left out.
fn header_layers(header: &[u8]) -> Vec<Layer> {
    #[derive(serde::Deserialize)]
    struct Tensor {
        shape: Vec<u64>,
    }
    let tensors: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap_or_default();
    let layer = |(name, tensor): (String, serde_json::Value)| {
        let Tensor { shape } = serde_json::from_value(tensor).ok()?;
        Some(Layer { name: name.strip_prefix(MODEL)?.to_owned(), shape })
    };
    tensors.into_iter().filter_map(layer).collect()
}

/// Adds the paths of all files in `folder`, which is at `path` in the store. Links are not followed.
fn list(folder: &FilePath, path: &str, files: &mut Vec<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // A name that is not text is none of ours.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{path}/{name}");
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn not_a(path: &str, kind: &'static str) -> CheckpointError {
    CheckpointError::Path { path: path.to_owned(), kind }
}

fn exact(path: &str, expected: u64, found: u64) -> Result<(), CheckpointError> {
    if found == expected { Ok(()) } else { Err(CheckpointError::Length { path: path.to_owned(), expected, found }) }
}

fn manifest_length(path: &str, found: u64) -> Result<(), CheckpointError> {
    let limit = MANIFEST_BYTES_MAX;
    if found <= limit { Ok(()) } else { Err(CheckpointError::TooLong { path: path.to_owned(), found, limit }) }
}

/// BLAKE3 in hexadecimal. A part can be gigabytes, so that takes a thread of its own.
async fn hash(bytes: Bytes) -> String {
    blocking(move || blake3::hash(&bytes).to_string()).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic, and is never aborted")
}
