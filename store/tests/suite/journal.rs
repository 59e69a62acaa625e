//! The journal, and the folder it is in.

use std::fs;
use std::path::Path;

use domain::engine::{AttemptOutcome, Deadline, Event, LossCause, MetricValue, Running, WorkerInfo};
use domain::ids::{Generation, Step, Time, WorkerId};
use domain::record::{Position, SavedPart};
use domain::spec::sweep::SweepSpec;
use proptest::prelude::*;
use rusqlite::Connection;
use store::{JournalEntry, Store, StoreError};

use crate::fixtures::{run, spec, trial};

/// One event of each kind, and of each kind of what it holds.
fn every_event(number: u64, float: f64, text: &str) -> Vec<Event> {
    let (trial, generation, step) = (trial("digits.v1/3"), Generation(number), Step(number));
    let worker = WorkerId(number);
    let position = Position { step, evaluated: true };
    let info = WorkerInfo {
        id: worker,
        host: text.to_owned(),
        pid: 7,
        device: "cpu".to_owned(),
        peer_address: "[::1]:1".to_owned(),
        ring_address: "127.0.0.1:2".to_owned(),
    };
    let running = Running { trial: trial.clone(), generation, position };
    let part = SavedPart {
        step,
        rank: 1,
        world: 2,
        path: text.to_owned(),
        bytes: number,
        blake3: "00".repeat(32),
        weights_sha256: "11".repeat(32),
    };
    let ended = |outcome| Event::AttemptEnded { trial: trial.clone(), generation, outcome, worker: None };
    let passed = |deadline| Event::DeadlinePassed { deadline };
    let lost = |cause| Event::Lost { worker, cause };
    vec![
        Event::Restarted,
        Event::Submitted { spec: Box::new(spec(&trial.run, float)) },
        Event::SweepSubmitted { spec: Box::new(sweep(number)) },
        Event::Joined { worker: info.clone(), running: None },
        Event::Joined { worker: info, running: Some(running) },
        lost(LossCause::ConnectionClosed),
        lost(LossCause::LeaseExpired { lease_ms: number }),
        lost(LossCause::Left),
        Event::Alive { worker },
        Event::Advanced { trial: trial.clone(), generation, position },
        Event::Formed { trial: trial.clone(), generation, position },
        Event::Broken { trial: trial.clone(), generation, worker, cause: text.to_owned() },
        Event::Measured {
            trial: trial.clone(),
            generation,
            step,
            eval_loss: MetricValue::from(f64::from_bits(number)),
            eval_accuracy: MetricValue::from(f64::NAN),
        },
        Event::PartSaved { trial: trial.clone(), generation, part },
        Event::PartFailed { trial: trial.clone(), generation, step, cause: text.to_owned() },
        Event::Committed {
            trial: trial.clone(),
            generation,
            step,
            manifest: text.to_owned(),
            blake3: "22".repeat(32),
            weights_sha256: "33".repeat(32),
        },
        Event::RollbackRequested { trial: trial.clone(), generation, step, cause: text.to_owned() },
        ended(AttemptOutcome::Completed { step }),
        ended(AttemptOutcome::Stopped { step }),
        ended(AttemptOutcome::Rested { step }),
        ended(AttemptOutcome::Failed { step, cause: text.to_owned() }),
        Event::StopRequested { run: trial.run.clone() },
        Event::ResumeRequested { run: trial.run.clone() },
        Event::PriorityRequested { run: trial.run.clone(), priority: -7 },
        Event::DrainRequested { worker },
        Event::UndrainRequested { worker },
        Event::PinRequested { run: trial.run.clone(), step },
        Event::UnpinRequested { run: trial.run.clone(), step },
        passed(Deadline::Lease { worker }),
        passed(Deadline::Gather { trial: trial.clone() }),
        passed(Deadline::Form { trial: trial.clone(), generation }),
        passed(Deadline::SweepTime { sweep: trial.run.clone() }),
        passed(Deadline::TimeLimit { trial }),
    ]
}

/// The place of an event's kind among all kinds. A new kind does not compile until it has a place here, and the test
/// fails until it is in [`every_event`].
fn kind(event: &Event) -> usize {
    match event {
        Event::Restarted => 0,
        Event::Submitted { .. } => 1,
        Event::Joined { .. } => 2,
        Event::Lost { .. } => 3,
        Event::Alive { .. } => 4,
        Event::Advanced { .. } => 5,
        Event::Formed { .. } => 6,
        Event::Broken { .. } => 7,
        Event::Measured { .. } => 8,
        Event::PartSaved { .. } => 9,
        Event::PartFailed { .. } => 10,
        Event::Committed { .. } => 11,
        Event::RollbackRequested { .. } => 12,
        Event::AttemptEnded { .. } => 13,
        Event::StopRequested { .. } => 14,
        Event::ResumeRequested { .. } => 15,
        Event::DeadlinePassed { .. } => 16,
        Event::SweepSubmitted { .. } => 17,
        Event::PriorityRequested { .. } => 18,
        Event::PinRequested { .. } => 19,
        Event::UnpinRequested { .. } => 20,
        Event::DrainRequested { .. } => 21,
        Event::UndrainRequested { .. } => 22,
    }
}

const KINDS: usize = 23;

/// The sweep of an example.
fn sweep(seed: u64) -> SweepSpec {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let text = fs::read_to_string(configs.join("conditional-sweep.yaml")).unwrap();
    let load = |path: &Path| fs::read_to_string(path).map_err(|e| e.to_string());
    let spec = domain::spec::file::sweep::read(&text, "sweep.yaml", &configs, load).unwrap();
    SweepSpec { seed, ..spec }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_event_comes_back(number: u64, float in prop::num::f64::NORMAL | prop::num::f64::ZERO, text in any::<String>()) {
        let events = every_event(number, float, &text);
        let kinds: std::collections::BTreeSet<_> = events.iter().map(kind).collect();
        prop_assert_eq!(kinds, (0..KINDS).collect());

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (store, entries) = Store::open(folder.path()).unwrap();
        prop_assert_eq!(entries, vec![]);
        // In several appends, as the coordinator writes them.
        let timed: Vec<_> = events.into_iter().enumerate().map(|(i, event)| (Time(1000 + i as u64), event)).collect();
        for some in timed.chunks(10) {
            runtime.block_on(store.append(some.to_vec())).unwrap();
        }
        drop(store);
        let (_store, entries) = Store::open(folder.path()).unwrap();
        let expected = (1..).zip(timed).map(|(sequence, (at, event))| JournalEntry { sequence, at, event });
        prop_assert_eq!(entries, expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_event_that_would_not_come_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let bad = Event::Submitted { spec: Box::new(spec(&run("nan"), f64::NAN)) };
    let outcome = store.append(vec![(Time(1), Event::Restarted), (Time(2), bad)]).await;
    assert!(matches!(outcome, Err(StoreError::NotJournalable { .. })), "{outcome:?}");
    drop(store);
    assert_eq!(Store::open(folder.path()).unwrap().1, vec![]);
}

#[test]
fn the_folder_belongs_to_one_store_at_a_time() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("not/there/yet");
    let (store, _) = Store::open(&folder).unwrap();
    let second = store.clone();
    drop(store);
    let refused = Store::open(&folder).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "state folder {} is in use by another coordinator\nhint: stop it, or choose another folder",
            folder.display()
        )
    );
    // The last handle gives it free, and leaves the database closed: no write-ahead log stays.
    drop(second);
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["phalanx.db", "phalanx.lock"]);
    Store::open(&folder).unwrap();
}

/// Makes a store with three events, changes its file, and gives the error of opening it again.
async fn error_after(expected: &str, change: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    store.append((0..3).map(|i| (Time(i), Event::StopRequested { run: run("a") })).collect()).await.unwrap();
    drop(store);
    let file = folder.path().join("phalanx.db");
    change(&file);
    let mut error: &dyn std::error::Error = &Store::open(folder.path()).map(drop).expect_err(expected);
    let mut chain = error.to_string();
    while let Some(source) = error.source() {
        error = source;
        chain += &format!(": {error}");
    }
    chain.replace(&file.display().to_string(), "DB")
}

#[tokio::test]
async fn a_journal_that_is_not_whole_is_refused() {
    let sql =
        |statement: &'static str| move |file: &Path| Connection::open(file).unwrap().execute_batch(statement).unwrap();
    type Change = Box<dyn FnOnce(&Path)>;
    let cases: [(&str, Change); 8] = [
        (
            "journal row 2 cannot be read: unknown variant `resubmitted`",
            Box::new(sql("UPDATE journal SET event = '{\"event\":\"resubmitted\"}' WHERE sequence = 2")),
        ),
        (
            "journal row 3 cannot be read: EOF while parsing",
            Box::new(sql("UPDATE journal SET event = substr(event, 1, 9) WHERE sequence = 3")),
        ),
        (
            "journal row 1 cannot be read: ",
            Box::new(sql("UPDATE journal SET event = CAST(x'ff' AS TEXT) WHERE sequence = 1")),
        ),
        ("journal row 2 is missing, the next one is 3", Box::new(sql("DELETE FROM journal WHERE sequence = 2"))),
        (
            "DB has schema version 5, this program knows versions up to 4\nhint: use the newer phalanx that wrote it",
            Box::new(sql("PRAGMA user_version = 5")),
        ),
        ("DB holds tables that phalanx did not make", Box::new(sql("PRAGMA user_version = 0"))),
        (
            "DB cannot be opened: file is not a database",
            Box::new(|file| fs::write(file, "not SQL".repeat(999)).unwrap()),
        ),
        (
            "DB cannot be opened: database disk image is malformed",
            Box::new(|file| {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
            }),
        ),
    ];
    for (expected, change) in cases {
        let error = error_after(expected, change).await;
        assert!(error.starts_with(expected), "{error:?} does not begin with {expected:?}");
    }
}
