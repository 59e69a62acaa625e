//! The contract of a checkpoint store, which every back end keeps. What damaged files do is in `damage.rs`.

use bytes::Bytes;
use domain::ids::{Generation, Step, TrialId};
use safetensors::SafeTensors;
use store::{Checkpoint, CheckpointError, CheckpointStore, CommittedManifest, Layer, Manifest};

use crate::fixtures::{manifest, parts, safetensors, trial};

/// Saves and commits as ranks and coordinator do.
pub(crate) async fn save(
    store: &CheckpointStore,
    trial: &TrialId,
    generation: u64,
    step: u64,
    parts: &[Bytes],
) -> (Manifest, CommittedManifest) {
    let manifest = manifest(trial, generation, step, parts);
    for (saved, bytes) in manifest.parts.iter().zip(parts) {
        store.put_part(&saved.path, bytes.clone()).await.unwrap();
    }
    let committed = store.commit(&manifest).await.unwrap();
    (manifest, committed)
}

/// Whether a checkpoint can be loaded; an error other than "missing" fails the test.
async fn exists(store: &CheckpointStore, committed: &CommittedManifest) -> bool {
    match store.load(&committed.path, &committed.blake3).await {
        Ok(_) => true,
        Err(CheckpointError::Missing { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn in_memory() {
    suite(CheckpointStore::open("memory:///").unwrap()).await;
}

#[tokio::test]
async fn in_files() {
    let folder = tempfile::tempdir().unwrap();
    // A name that a URL would have to encode is taken as it is.
    let root = folder.path().join("a b#c%41?d");
    suite(CheckpointStore::open(&format!("file://{}", root.display())).unwrap()).await;
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "the suite ends with everything deleted");
}

async fn suite(store: CheckpointStore) {
    what_was_saved_is_loaded(&store).await;
    paths_that_are_not_ours_are_refused(&store).await;
    a_manifest_that_does_not_hold_together_is_refused(&store).await;
    a_save_is_dropped_unless_it_is_committed(&store).await;
    deleting_and_sweeping_keep_the_rest(&store).await;
}

async fn what_was_saved_is_loaded(store: &CheckpointStore) {
    let trial = trial("digits/0");
    let parts = parts(3, 1.0);
    let (manifest, committed) = save(store, &trial, 1, 10, &parts).await;
    assert_eq!(committed.path, CheckpointStore::manifest_path(&trial, Generation(1), Step(10)));
    let loaded = store.load(&committed.path, &committed.blake3).await.unwrap();
    assert_eq!((&loaded.manifest, &loaded.parts), (&manifest, &parts));

    // Everything may be repeated, for an answer can be lost.
    assert_eq!(save(store, &trial, 1, 10, &parts).await.1, committed);
    let other = Manifest { spec: crate::fixtures::spec(&trial.run, 0.2), ..manifest };
    let conflict = store.commit(&other).await.unwrap_err();
    assert!(matches!(&conflict, CheckpointError::Conflict { found, .. } if *found == committed.blake3), "{conflict}");

    let wrong = "0".repeat(64);
    let error = store.load(&committed.path, &wrong).await.unwrap_err().to_string();
    let (path, blake3) = (&committed.path, &committed.blake3);
    assert_eq!(error, format!("{path} is damaged: its BLAKE3 is {blake3}, it must be {wrong}"));
    store.delete(&committed.path).await.unwrap();
}

async fn paths_that_are_not_ours_are_refused(store: &CheckpointStore) {
    let part = parts(1, 0.0).remove(0);
    let hash = blake3::hash(&part).to_string();
    let good = CheckpointStore::part_path(&trial("digits/0"), Generation(1), Step(1), 0, &hash);
    let manifest = CheckpointStore::manifest_path(&trial("digits/0"), Generation(1), Step(1));
    for bad in ["", "/", "../x", "/etc/passwd", "digits/0", &format!("../{good}"), &format!("{good}#1"), &manifest] {
        let refused = store.put_part(bad, part.clone()).await;
        assert!(matches!(refused, Err(CheckpointError::Path { .. })), "{bad:?}: {refused:?}");
    }
    for bad in ["", "/", "../x", "/etc/passwd", "digits/0", &format!("../{manifest}"), &format!("{manifest}#1"), &good]
    {
        for refused in [
            store.load(bad, &hash).await.map(drop),
            store.delete(bad).await,
            store.sweep(&trial("digits/0"), &[bad.to_owned()]).await,
        ] {
            assert!(matches!(refused, Err(CheckpointError::Path { .. })), "{bad:?}: {refused:?}");
        }
    }
    // The name promises the content.
    let refused = store.put_part(&good, Bytes::from_static(b"other")).await;
    assert!(matches!(refused, Err(CheckpointError::Hash { .. })), "{refused:?}");
}

async fn a_manifest_that_does_not_hold_together_is_refused(store: &CheckpointStore) {
    let digits = trial("digits/0");
    let parts = parts(2, 2.0);
    let good = manifest(&digits, 2, 20, &parts);
    for (saved, bytes) in good.parts.iter().zip(&parts) {
        store.put_part(&saved.path, bytes.clone()).await.unwrap();
    }
    type Change = fn(&mut Manifest);
    let cases: [(&str, Change); 13] = [
        ("it has version 2, this program knows version 1", |m| m.version = 2),
        ("it is of trial other/0, its job is named digits", |m| m.trial = trial("other/0")),
        ("it has no parts", |m| m.parts.clear()),
        ("part 0 is one of 2, the manifest has 1", |m| m.parts.truncate(1)),
        ("part 0 is of rank 1", |m| m.parts.reverse()),
        ("part 1 is of rank 0", |m| m.parts[1] = m.parts[0].clone()),
        ("part 1 is one of 3, the manifest has 2", |m| m.parts[1].world = 3),
        ("part 0 is of step 21, the manifest of step 20", |m| m.parts[0].step = Step(21)),
        ("part 1 has \"../../x\" for a BLAKE3 hash", |m| m.parts[1].blake3 = "../../x".to_owned()),
        ("part 0 is at \"/etc/passwd\", it must be at digits/0/", |m| m.parts[0].path = "/etc/passwd".to_owned()),
        ("part 0 is at \"digits/0/", |m| m.generation = Generation(3)),
        ("part 1 was saved with weights 00, the manifest says abab", |m| m.parts[1].weights_sha256 = "00".to_owned()),
        ("part 0 was saved with weights abab", |m| m.weights_sha256 = "00".to_owned()),
    ];
    for (expected, change) in cases {
        let mut bad = good.clone();
        change(&mut bad);
        match store.commit(&bad).await {
            Err(CheckpointError::Manifest { cause, .. }) if cause.starts_with(expected) => {}
            other => panic!("{expected}: {other:?}"),
        }
    }
    // A part that is missing or of another length.
    let mut bad = good.clone();
    bad.parts[1].bytes += 1;
    let refused = store.commit(&bad).await;
    assert!(matches!(refused, Err(CheckpointError::Length { .. })), "{refused:?}");
    let refused = store.commit(&manifest(&digits, 3, 20, &parts)).await;
    assert!(matches!(refused, Err(CheckpointError::Missing { .. })), "{refused:?}");

    let committed = store.commit(&good).await.unwrap();
    store.delete(&committed.path).await.unwrap();
    assert!(!exists(store, &committed).await);
}

async fn a_save_is_dropped_unless_it_is_committed(store: &CheckpointStore) {
    let trial = trial("drops/0");
    let (_, committed) = save(store, &trial, 1, 10, &parts(2, 1.0)).await;
    let parts = parts(2, 2.0);
    let lost = manifest(&trial, 2, 20, &parts);
    let of_same_generation = manifest(&trial, 2, 10, &parts);
    let of_same_step = manifest(&trial, 1, 20, &parts);
    for unfinished in [&lost, &of_same_generation, &of_same_step] {
        for (saved, bytes) in unfinished.parts.iter().zip(&parts) {
            store.put_part(&saved.path, bytes.clone()).await.unwrap();
        }
    }
    for _ in 0..2 {
        store.drop_save(&trial, Generation(2), Step(20)).await.unwrap();
        store.drop_save(&trial, Generation(1), Step(10)).await.unwrap();
        assert!(matches!(store.commit(&lost).await, Err(CheckpointError::Missing { .. })));
        assert!(exists(store, &committed).await, "a committed save is not dropped");
    }
    for untouched in [&of_same_generation, &of_same_step] {
        let committed = store.commit(untouched).await.unwrap();
        store.delete(&committed.path).await.unwrap();
    }
    store.delete(&committed.path).await.unwrap();
}

async fn deleting_and_sweeping_keep_the_rest(store: &CheckpointStore) {
    // Names that begin alike.
    let (one, ten) = (trial("digits/1"), trial("digits/10"));
    let (_, first) = save(store, &one, 1, 10, &parts(2, 1.0)).await;
    let (_, again) = save(store, &one, 2, 10, &parts(2, 2.0)).await;
    let (_, newest) = save(store, &one, 2, 20, &parts(2, 3.0)).await;
    let (_, other) = save(store, &ten, 1, 10, &parts(2, 1.0)).await;
    let all = [&first, &again, &newest, &other];
    let existing = async |expected: [bool; 4]| {
        for (committed, expected) in all.into_iter().zip(expected) {
            assert_eq!(exists(store, committed).await, expected, "{}", committed.path);
        }
    };
    for _ in 0..2 {
        store.delete(&first.path).await.unwrap();
        existing([false, true, true, true]).await;
    }

    // Parts that wait for their manifest are protected by naming it; others go.
    let (waiting_parts, given_up_parts) = (parts(2, 4.0), parts(2, 5.0));
    let waiting = manifest(&one, 3, 30, &waiting_parts);
    let given_up = manifest(&one, 3, 25, &given_up_parts);
    for (unfinished, parts) in [(&waiting, waiting_parts), (&given_up, given_up_parts)] {
        for (saved, bytes) in unfinished.parts.iter().zip(parts) {
            store.put_part(&saved.path, bytes).await.unwrap();
        }
    }
    let waiting_path = CheckpointStore::manifest_path(&one, Generation(3), Step(30));
    for _ in 0..2 {
        store.sweep(&one, &[newest.path.clone(), waiting_path.clone()]).await.unwrap();
        existing([false, false, true, true]).await;
    }
    assert!(matches!(store.commit(&given_up).await, Err(CheckpointError::Missing { .. })));
    let finished = store.commit(&waiting).await.unwrap();
    assert!(exists(store, &finished).await);

    store.sweep(&one, &[]).await.unwrap();
    store.sweep(&ten, &[]).await.unwrap();
    existing([false; 4]).await;
}

#[test]
fn other_urls_are_refused() {
    for url in ["", "/var/x", "file://relative", "file:", "s3://bucket", "memory://name"] {
        let refused = CheckpointStore::open(url);
        assert!(matches!(refused, Err(CheckpointError::Url { .. })), "{url:?}: {refused:?}");
    }
    let refused = CheckpointStore::open("file:///dev/null/x");
    assert!(matches!(refused, Err(CheckpointError::Open { .. })), "{refused:?}");
}

fn checkpoint(parts: Vec<Bytes>) -> Checkpoint {
    Checkpoint { manifest: manifest(&trial("digits/0"), 1, 10, &parts), parts }
}

#[test]
fn parts_become_one_file() {
    let checkpoint = checkpoint(parts(12, 0.5));
    let weights = checkpoint.weights().unwrap();
    let file = SafeTensors::deserialize(&weights).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    let mut expected: Vec<_> = (0..12).map(|rank| format!("layer{rank}.weight")).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let values: Vec<u8> = [0.5_f32, 7.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(file.tensor("layer7.weight").unwrap().data(), values);
    let metadata = |bytes: &[u8]| {
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let mut pairs: Vec<_> = header.metadata().clone().unwrap().into_iter().collect();
        pairs.sort();
        pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(metadata(&weights), ["format=pt"]);

    let whole = checkpoint.whole().unwrap();
    let file = SafeTensors::deserialize(&whole).unwrap();
    assert_eq!(file.len(), 24);
    let moment = file.tensor("optimizer.m.layer11.weight").unwrap();
    assert_eq!((moment.shape(), &moment.data()[..4]), ([1000].as_slice(), 0.5_f32.to_le_bytes().as_slice()));
    assert_eq!(metadata(&whole), ["format=pt", "step=10", "trial=digits/0", "updates=7"]);
    // The same bytes each time.
    for _ in 0..8 {
        assert_eq!(checkpoint.whole().unwrap(), whole);
    }
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let part = |name: &str, updates: &str| safetensors(&[(name, &[1.0])], &[("updates", updates)]);
    let error = |parts: Vec<Bytes>| checkpoint(parts).weights().unwrap_err().to_string();
    let unfit = "the parts of checkpoint digits/0 step 10 do not fit together: ";
    assert_eq!(
        error(vec![part("model.a", "1"), part("model.a", "1")]),
        format!("{unfit}rank 1 holds tensor model.a, a lower rank does too")
    );
    assert_eq!(
        error(vec![part("model.a", "1"), part("model.b", "2")]),
        format!("{unfit}the metadata of rank 1 differ from those of rank 0")
    );
    assert_eq!(error(vec![part("optimizer.a", "1")]), format!("{unfit}no tensor is named model.NAME"));
    let bad = error(vec![part("model.a", "1"), Bytes::from_static(b"\x02\0\0\0\0\0\0\0{}extra")]);
    assert!(bad.ends_with(".safetensors is not a safetensors file"), "{bad}");
}

#[tokio::test]
async fn the_layers_of_a_model_are_told_without_reading_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["memory://".to_owned(), format!("file://{}", folder.path().display())] {
        let store = CheckpointStore::open(&url).unwrap();
        let parts = parts(3, 0.5);
        let manifest = manifest(&trial("digits/0"), 1, 10, &parts);
        for (saved, bytes) in manifest.parts.iter().zip(&parts) {
            store.put_part(&saved.path, bytes.clone()).await.unwrap();
        }
        let committed = store.commit(&manifest).await.unwrap();
        let layers = store.layers(&committed.path, &committed.blake3).await.unwrap();
        let expected = |rank: u32| Layer { name: format!("layer{rank}.weight"), shape: vec![2] };
        assert_eq!(layers, (0..3).map(expected).collect::<Vec<_>>());
        let gone = store.layers(&committed.path, &"0".repeat(64)).await;
        assert!(matches!(gone, Err(CheckpointError::Hash { .. })), "{gone:?}");
    }
}
