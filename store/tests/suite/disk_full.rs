//! A full disk, stood in for by a limit on file sizes, which needs no privileges: the shell sets it, the same test runs
//! again below it. The operating system then refuses a write in the middle, as a full disk does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use store::{CheckpointError, CheckpointStore, NewLogLine, Store, StoreError};

use crate::checkpoints::save;
use crate::fixtures::{manifest, parts, run, safetensors, trial};

/// Tells a child its folder.
const FOLDER: &str = "STORE_TEST_LIMITED_FOLDER";

/// The folder, if this process is a child below the limit.
fn limited_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Runs `test` again in a process whose files cannot exceed 512 blocks (256 or 512 KiB, as the shell counts).
fn run_limited(test: &str, folder: &Path) {
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 512 && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_checkpoint_that_does_not_fit_leaves_nothing_behind() {
    let Some(folder) = limited_folder() else {
        let folder = tempfile::tempdir().unwrap();
        return run_limited("disk_full::a_checkpoint_that_does_not_fit_leaves_nothing_behind", folder.path());
    };
    let store = CheckpointStore::open(&format!("file://{}", folder.display())).unwrap();
    let trial = trial("digits/0");
    let (_, before) = save(&store, &trial, 1, 10, &parts(2, 1.0)).await;

    let large = safetensors(&[("model.a", &[0.5; 256 << 10])], &[]);
    let unsaved = manifest(&trial, 1, 20, std::slice::from_ref(&large));
    let path = &unsaved.parts[0].path;
    let error = store.put_part(path, large).await.unwrap_err();
    assert!(matches!(error, CheckpointError::NoSpace { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("{path} could not be written: no space left on device"));
    assert_eq!(fs::read_dir(folder.join(path).parent().unwrap()).unwrap().count(), 0);
    let uncommitted = store.commit(&unsaved).await;
    assert!(matches!(uncommitted, Err(CheckpointError::Missing { .. })), "{uncommitted:?}");

    store.load(&before.path, &before.blake3).await.unwrap();
    let (_, after) = save(&store, &trial, 1, 30, &parts(2, 3.0)).await;
    store.load(&after.path, &after.blake3).await.unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_write_says_so_and_loses_nothing_acknowledged() {
    let run = run("digits");
    let lines = |batch: u64| {
        let line = |i| NewLogLine {
            at_ms: batch,
            source: "coordinator".to_owned(),
            level: "info".to_owned(),
            text: format!("{batch}.{i}"),
        };
        (0..50).map(line).collect::<Vec<_>>()
    };
    let acknowledged = |folder: &Path| folder.join("acknowledged");
    let Some(folder) = limited_folder() else {
        let folder = tempfile::tempdir().unwrap();
        run_limited("disk_full::a_store_that_cannot_write_says_so_and_loses_nothing_acknowledged", folder.path());
        let batches: u64 = fs::read_to_string(acknowledged(folder.path())).unwrap().parse().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let kept = store.read_log(&run, 0, 10_000).await.unwrap();
        let expected: Vec<_> = (0..batches).flat_map(lines).map(|line| line.text).collect();
        assert!(!expected.is_empty());
        assert_eq!(kept.into_iter().map(|line| line.text).collect::<Vec<_>>(), expected);
        return store.append_log(&run, lines(batches)).await.unwrap();
    };
    let (store, _) = Store::open(&folder).unwrap();
    let mut batches = 0;
    let error = loop {
        match store.append_log(&run, lines(batches)).await {
            Ok(()) => batches += 1,
            Err(error) => break error,
        }
        assert!(batches < 1000, "the limit does not work");
    };
    assert!(matches!(error, StoreError::Io { .. } | StoreError::DiskFull { .. }), "{error:?}");
    // The writer still answers, and what was there can still be read.
    assert!(store.append_log(&run, lines(batches)).await.is_err());
    assert_eq!(store.read_log(&run, 0, 10_000).await.unwrap().len() as u64, 50 * batches);
    fs::write(acknowledged(&folder), batches.to_string()).unwrap();
}
