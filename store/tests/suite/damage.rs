//! Files that were cut, changed, exchanged or left behind: a bad checkpoint is never loaded, the one before always is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use store::{CheckpointError, CheckpointStore, CommittedManifest};
use tempfile::TempDir;

use crate::checkpoints::save;
use crate::fixtures::{manifest, parts, trial};

/// A store in a folder with two checkpoints of one trial.
struct Place {
    folder: TempDir,
    store: CheckpointStore,
    before: CommittedManifest,
    newest: CommittedManifest,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(&format!("file://{}", folder.path().display())).unwrap();
        let (_, before) = save(&store, &trial("digits/0"), 1, 10, &parts(2, 1.0)).await;
        let (_, newest) = save(&store, &trial("digits/0"), 1, 20, &parts(2, 2.0)).await;
        Self { folder, store, before, newest }
    }

    /// The files of the newest checkpoint, manifest last.
    fn newest_files(&self) -> Vec<PathBuf> {
        files(self.folder.path().join(&self.newest.path).parent().unwrap())
    }

    /// Asserts that the newest checkpoint is refused with an error that names `file`, and that the one before is whole.
    async fn assert_refused(&self, file: &Path, what: &str) -> CheckpointError {
        let error = self.store.load(&self.newest.path, &self.newest.blake3).await.expect_err(what);
        let name = file.strip_prefix(self.folder.path()).unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{what}: {error} does not name {name}");
        self.store.load(&self.before.path, &self.before.blake3).await.expect(what);
        error
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn cut_and_lengthened_files_are_refused() {
    let place = Place::new().await;
    for file in place.newest_files() {
        let whole = fs::read(&file).unwrap();
        for length in [0, 1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..length]).unwrap();
            place.assert_refused(&file, &format!("cut to {length}")).await;
        }
        fs::write(&file, [&whole[..], b"\n"].concat()).unwrap();
        place.assert_refused(&file, "one byte longer").await;
        fs::remove_file(&file).unwrap();
        let error = place.assert_refused(&file, "removed").await;
        assert!(matches!(error, CheckpointError::Missing { .. }), "{error}");
        fs::write(&file, &whole).unwrap();
    }
    place.store.load(&place.newest.path, &place.newest.blake3).await.unwrap();
}

#[tokio::test]
async fn flipped_bits_are_refused_with_both_hashes() {
    let place = Place::new().await;
    for file in place.newest_files() {
        let whole = fs::read(&file).unwrap();
        // Both ends and places spread over the whole, each with another bit.
        for i in 0..70 {
            let at = i * (whole.len() - 1) / 69;
            let mut changed = whole.clone();
            changed[at] ^= 1 << (i % 8);
            fs::write(&file, &changed).unwrap();
            let error = place.assert_refused(&file, &format!("bit flipped in byte {at}")).await;
            let CheckpointError::Hash { expected, found, .. } = &error else { panic!("{error}") };
            assert_eq!(*found, blake3::hash(&changed).to_string());
            assert_eq!(*expected, blake3::hash(&whole).to_string());
        }
        fs::write(&file, &whole).unwrap();
    }
}

#[tokio::test]
async fn exchanged_files_are_refused() {
    let place = Place::new().await;
    let [first, second, manifest_file] = place.newest_files().try_into().unwrap();
    let (one, two) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
    fs::write(&first, &two).unwrap();
    fs::write(&second, &one).unwrap();
    place.assert_refused(&first, "parts swapped").await;
    fs::write(&first, &one).unwrap();
    fs::write(&second, &two).unwrap();

    // Manifests that are whole, and even asked for by their own hash, but of something else.
    let (_, other) = save(&place.store, &trial("other/0"), 1, 20, &parts(2, 2.0)).await;
    let own = fs::read(&manifest_file).unwrap();
    for (foreign, cause) in [
        (&other, "it is of trial other/0, step 20, generation 1"),
        (&place.before, "it is of trial digits/0, step 10, generation 1"),
    ] {
        fs::copy(place.folder.path().join(&foreign.path), &manifest_file).unwrap();
        place.assert_refused(&manifest_file, "a foreign manifest").await;
        let error = place.store.load(&place.newest.path, &foreign.blake3).await.unwrap_err();
        assert!(matches!(&error, CheckpointError::Manifest { cause: c, .. } if c == cause), "{error}");
    }
    for (text, cause) in [
        (String::from_utf8(own.clone()).unwrap().replacen("\"version\": 1", "\"version\": 2", 1), "it has version 2, "),
        (String::from_utf8(own.clone()).unwrap().replacen("{", "{\"extra\": 1,", 1), "unknown field `extra`"),
        ("[".repeat(100_000), "invalid type: sequence"),
        ("null".to_owned(), "invalid type: null"),
    ] {
        fs::write(&manifest_file, &text).unwrap();
        let hash = blake3::hash(text.as_bytes()).to_string();
        let error = place.store.load(&place.newest.path, &hash).await.unwrap_err();
        assert!(matches!(&error, CheckpointError::Manifest { cause: c, .. } if c.starts_with(cause)), "{error}");
    }
    fs::write(&manifest_file, own).unwrap();
    place.store.load(&place.newest.path, &place.newest.blake3).await.unwrap();
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused() {
    let place = Place::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    for file in place.newest_files() {
        let whole = fs::read(&file).unwrap();
        let copy = elsewhere.path().join("copy");
        fs::write(&copy, &whole).unwrap();
        for target in [copy.as_path(), Path::new("/dev/zero"), Path::new("/nowhere"), &file] {
            fs::remove_file(&file).unwrap();
            symlink(target, &file).unwrap();
            let error = place.assert_refused(&file, &format!("link to {}", target.display())).await;
            assert!(matches!(error, CheckpointError::NotPlain { .. }), "{error}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        place.assert_refused(&file, "a folder").await;
        fs::remove_dir(&file).unwrap();
        fs::write(&file, &whole).unwrap();
    }
    // A save over a link does not write through it, and deleting removes the link alone.
    let target = elsewhere.path().join("target");
    fs::write(&target, "precious").unwrap();
    let file = place.newest_files().remove(0);
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    symlink(&target, &file).unwrap();
    let path = file.strip_prefix(place.folder.path()).unwrap().to_str().unwrap();
    place.store.put_part(path, whole.into()).await.unwrap();
    place.store.load(&place.newest.path, &place.newest.blake3).await.unwrap();
    fs::remove_file(&file).unwrap();
    symlink(&target, &file).unwrap();
    place.store.delete(&place.newest.path).await.unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[tokio::test]
async fn a_save_cut_off_anywhere_leaves_the_one_before_and_can_be_swept() {
    let place = Place::new().await;
    let trial = trial("digits/0");
    let (store, root) = (&place.store, place.folder.path());
    let parts = parts(3, 3.0);
    let unfinished = manifest(&trial, 1, 30, &parts);
    let path = CheckpointStore::manifest_path(&trial, unfinished.generation, unfinished.step);
    let keep = [place.before.path.clone(), place.newest.path.clone()];
    for written in 0..=parts.len() {
        for (saved, bytes) in unfinished.parts.iter().zip(&parts).take(written) {
            store.put_part(&saved.path, bytes.clone()).await.unwrap();
        }
        // What a crash leaves of the file being written: the back end's temporary file.
        let next = unfinished.parts.get(written).map_or(path.as_str(), |saved| saved.path.as_str());
        let temporary = root.join(format!("{next}#1"));
        fs::create_dir_all(temporary.parent().unwrap()).unwrap();
        fs::write(&temporary, "half").unwrap();

        let missing = store.load(&path, &"0".repeat(64)).await;
        assert!(matches!(missing, Err(CheckpointError::Missing { .. })), "{missing:?}");
        for committed in [&place.before, &place.newest] {
            store.load(&committed.path, &committed.blake3).await.unwrap();
        }
        store.sweep(&trial, &keep).await.unwrap();
        assert!(!temporary.parent().unwrap().exists(), "{written} parts: something is left");
    }
    // The save goes through in the end, beside a temporary file of an earlier try, which a sweep finds there too.
    let temporary = root.join(format!("{path}#1"));
    fs::create_dir_all(temporary.parent().unwrap()).unwrap();
    fs::write(&temporary, "half").unwrap();
    let (_, committed) = save(store, &trial, 1, 30, &parts).await;
    store.sweep(&trial, std::slice::from_ref(&committed.path)).await.unwrap();
    assert!(!temporary.exists());
    store.load(&committed.path, &committed.blake3).await.unwrap();

    // What is not ours stays.
    let note = root.join("digits/0/note.txt");
    fs::write(&note, "mine").unwrap();
    store.sweep(&trial, &[]).await.unwrap();
    assert_eq!(files(&root.join("digits/0")), [note]);
}

#[tokio::test]
async fn a_damaged_part_is_replaced_by_saving_it_again() {
    let place = Place::new().await;
    let file = place.newest_files().remove(0);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[1..]).unwrap();
    let path = file.strip_prefix(place.folder.path()).unwrap().to_str().unwrap();
    place.store.put_part(path, whole.into()).await.unwrap();
    place.store.load(&place.newest.path, &place.newest.blake3).await.unwrap();
}

#[tokio::test]
async fn a_kept_checkpoint_that_cannot_be_read_is_not_swept() {
    let place = Place::new().await;
    let files = place.newest_files();
    fs::write(files.last().unwrap(), "{").unwrap();
    place.store.sweep(&trial("digits/0"), std::slice::from_ref(&place.newest.path)).await.unwrap();
    assert_eq!(place.newest_files(), files);
}
