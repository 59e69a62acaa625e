//! Records: the live lineage and the ledger, against a model.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{Generation, RunName, Step, Time};
use domain::record::{Position, Record, StepRecord};
use domain::results::Goodput;
use proptest::prelude::*;
use store::{LedgerCursor, LedgerStep, PAGE_MAX, RecordCursor, Store};

use crate::fixtures::{eval_record, run, step_record, without_reads};

/// What the store should hold: every record by position and generation, with whether it is live, and all roll-backs.
#[derive(Default)]
struct Model {
    records: BTreeMap<(Position, Generation), (Record, bool)>,
    roll_backs: Vec<(Step, Generation)>,
}

impl Model {
    fn insert(&mut self, record: &Record) {
        let (position, generation) = (record.position(), generation(record));
        let covered = self.roll_backs.iter().any(|(step, by)| position.step > *step && generation < *by);
        let occupied = self.records.iter().any(|((there, _), (_, live))| *live && *there == position);
        if covered || !occupied {
            self.records.entry((position, generation)).or_insert_with(|| (record.clone(), !covered));
        }
    }

    fn roll_back(&mut self, step: Step, by: Generation) {
        self.roll_backs.push((step, by));
        for ((position, generation), (_, live)) in &mut self.records {
            *live &= position.step <= step || *generation >= by;
        }
    }

    fn live(&self) -> Vec<Record> {
        self.records.values().filter(|(_, live)| *live).map(|(record, _)| without_reads(record)).collect()
    }

    fn evals(&self) -> Vec<Record> {
        self.live().into_iter().filter(|record| matches!(record, Record::Eval(_))).collect()
    }

    /// All steps and the seconds of all their workers.
    fn effort(&self) -> (u64, f64) {
        let steps = self.records.values().filter_map(|(record, _)| match record {
            Record::Step(r) => Some(r),
            Record::Eval(_) => None,
        });
        let seconds = |r: &StepRecord| {
            let workers: BTreeSet<_> = r.reads.iter().map(|read| read.worker).collect();
            r.micros as f64 / 1e6 * workers.len() as f64
        };
        (steps.clone().count() as u64, steps.map(seconds).sum())
    }

    fn goodput(&self) -> Goodput {
        let mut goodput = Goodput::default();
        for (record, live) in self.records.values() {
            match record {
                Record::Step(r) if *live => goodput.productive_micros += r.micros,
                Record::Step(r) => goodput.lost_micros += r.micros,
                Record::Eval(_) => {}
            }
        }
        goodput
    }

    fn micros_before(&self, step: u64) -> u64 {
        let micros = |record: &Record| match record {
            Record::Step(r) if r.step.0 < step => r.micros,
            Record::Step(_) | Record::Eval(_) => 0,
        };
        self.live().iter().map(micros).sum()
    }

    /// Steps from 2 to 7 that were rolled back, by generation and step.
    fn rolled_back(&self) -> Vec<Record> {
        let mut back: Vec<&Record> =
            self.records.values().filter(|(_, live)| !live).map(|(record, _)| record).collect();
        back.retain(|record| matches!(record, Record::Step(r) if (2..=7).contains(&r.step.0)));
        back.sort_by_key(|record| (generation(record), record.position().step));
        back.into_iter().map(without_reads).collect()
    }

    /// Everything, and whether it was rolled back.
    fn history(&self) -> Vec<(Record, bool)> {
        self.records.values().map(|(record, live)| (without_reads(record), !live)).collect()
    }

    fn ledger(&self) -> Vec<LedgerStep> {
        let line = |(record, live): &(Record, bool)| match record {
            Record::Step(r) => {
                Some(LedgerStep { step: r.step, generation: r.generation, rolled_back: !live, reads: r.reads.clone() })
            }
            Record::Eval(_) => None,
        };
        self.records.values().filter_map(line).collect()
    }
}

/// A time at which nothing in particular happens.
const NOW: Time = Time(1_000_000);

fn generation(record: &Record) -> Generation {
    match record {
        Record::Step(r) => r.generation,
        Record::Eval(r) => r.generation,
    }
}

/// The whole lineage, read in pages.
async fn read_records(store: &Store, run: &RunName, limit: usize) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let after = records.last().map_or(Step(0), |record| record.position().step);
        let page = store.read_records(run, after, limit).await.unwrap();
        if page.is_empty() {
            return records;
        }
        assert!(page.len() <= limit + 1, "{} records for a limit of {limit}", page.len());
        records.extend(page);
    }
}

/// All evaluations, read in pages.
async fn read_evals(store: &Store, run: &RunName, limit: usize) -> Vec<Record> {
    let mut evals = Vec::new();
    loop {
        let after = evals.last().map_or(Step(0), |record: &Record| record.position().step);
        let page = store.read_evals(run, after, limit).await.unwrap();
        assert!(page.len() <= limit, "{} evaluations for a limit of {limit}", page.len());
        if page.is_empty() {
            return evals;
        }
        evals.extend(page.into_iter().map(Record::Eval));
    }
}

/// Steps from 2 to 7 that were rolled back, read in pages.
async fn read_rolled_back(store: &Store, run: &RunName, limit: usize) -> Vec<Record> {
    let (mut steps, mut behind) = (Vec::new(), None);
    loop {
        let page = store.read_rolled_back(run, Step(2), Step(7), behind, limit).await.unwrap();
        let Some(last) = page.last() else { return steps };
        assert!(page.len() <= limit);
        behind = Some((last.generation, last.step));
        steps.extend(page.into_iter().map(Record::Step));
    }
}

/// All records, rolled back or not, read in pages.
async fn read_history(store: &Store, run: &RunName, limit: usize) -> Vec<(Record, bool)> {
    let (mut records, mut cursor) = (Vec::new(), Some(RecordCursor::default()));
    while let Some(after) = cursor {
        let (page, next) = store.read_history(run, after, limit).await.unwrap();
        assert!(page.len() <= limit && (next.is_none() || !page.is_empty()));
        records.extend(page.into_iter().map(|stored| (stored.record, stored.rolled_back)));
        cursor = next;
    }
    records
}

/// The whole ledger, read in pages.
async fn read_ledger(store: &Store, run: &RunName, limit: usize) -> Vec<LedgerStep> {
    let (mut steps, mut cursor) = (Vec::new(), Some(LedgerCursor::default()));
    while let Some(after) = cursor {
        let (page, next) = store.read_ledger(run, after, limit).await.unwrap();
        assert!(page.len() <= limit && (next.is_none() || !page.is_empty()));
        steps.extend(page);
        cursor = next;
    }
    steps
}

#[derive(Clone, Debug)]
enum Move {
    Insert(Vec<(bool, u64, u64)>),
    RollBack(u64, u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let record = (any::<bool>(), 1..9_u64, 1..5_u64);
    let insert = prop::collection::vec(record, 1..8).prop_map(Move::Insert);
    let roll_back = (0..9_u64, 1..6_u64).prop_map(|(step, generation)| Move::RollBack(step, generation));
    prop::collection::vec(prop_oneof![3 => insert, 1 => roll_back], 1..10)
}

#[test]
fn the_store_agrees_with_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let case = std::cell::Cell::new(0);
    proptest!(ProptestConfig::with_cases(48), |(moves in moves(), limit in 1..5_usize)| {
        // One store for all cases, a run for each: opening is what takes time.
        case.set(case.get() + 1);
        let sweep = run(&format!("sweep-{}", case.get()));
        let run = run(&format!("{sweep}.7"));
        let mut model = Model::default();
        for one in &moves {
            match one {
                Move::Insert(records) => {
                    let records: Vec<Record> = records
                        .iter()
                        .map(|&(eval, step, generation)| match eval {
                            true => eval_record(step, generation, step as f64),
                            false => step_record(step, generation, step as f64),
                        })
                        .collect();
                    records.iter().for_each(|record| model.insert(record));
                    runtime.block_on(store.insert_records(&run, NOW, records)).unwrap();
                }
                Move::RollBack(step, generation) => {
                    // Twice, for it may be repeated after a restart.
                    for _ in 0..2 {
                        model.roll_back(Step(*step), Generation(*generation));
                        runtime.block_on(store.roll_back(&run, Step(*step), Generation(*generation))).unwrap();
                    }
                }
            }
            let newest = model.live().last().map(Record::position).unwrap_or_default();
            prop_assert_eq!(runtime.block_on(store.newest_position(&run)).unwrap(), newest);
            prop_assert_eq!(runtime.block_on(read_records(&store, &run, limit)), model.live());
            prop_assert_eq!(runtime.block_on(read_evals(&store, &run, limit)), model.evals());
            let efforts = runtime.block_on(store.efforts(&sweep)).unwrap();
            let effort = efforts.get(&run).copied().unwrap_or_default();
            let (steps, seconds) = model.effort();
            prop_assert!((effort.worker_seconds - seconds).abs() < 1e-9 * (1.0 + seconds));
            prop_assert_eq!((effort.steps, efforts.len()), (steps, usize::from(steps > 0)));
            prop_assert_eq!(runtime.block_on(store.goodput(&run)).unwrap(), model.goodput());
            prop_assert_eq!(runtime.block_on(store.micros_before(&run, Step(u64::MAX))).unwrap(), model.micros_before(u64::MAX));
            prop_assert_eq!(runtime.block_on(store.micros_before(&run, Step(5))).unwrap(), model.micros_before(5));
            prop_assert_eq!(runtime.block_on(read_rolled_back(&store, &run, limit)), model.rolled_back());
            prop_assert_eq!(runtime.block_on(read_ledger(&store, &run, limit)), model.ledger());
            prop_assert_eq!(runtime.block_on(read_history(&store, &run, limit)), model.history());
        }
    });
}

#[tokio::test]
async fn floats_keep_their_bits_and_a_batch_is_stored_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let run = run("bits");
    let odd = [f64::from_bits(0xfff8_0000_dead_beef), f64::INFINITY, -0.0, f64::MIN_POSITIVE / 2.0];
    let records = (1..).zip(odd).map(|(step, loss)| step_record(step, 1, loss)).collect();
    store.insert_records(&run, NOW, records).await.unwrap();
    drop(store);
    let (store, _) = Store::open(folder.path()).unwrap();
    let losses = |records: Vec<Record>| -> Vec<u64> {
        let bits = |record| match record {
            Record::Step(r) => r.loss.to_bits(),
            Record::Eval(r) => r.loss.to_bits(),
        };
        records.into_iter().map(bits).collect()
    };
    assert_eq!(losses(store.read_records(&run, Step(0), 10).await.unwrap()), odd.map(f64::to_bits));

    let half_bad = vec![step_record(5, 1, 0.0), eval_record(u64::MAX, 1, 0.0)];
    let error = store.insert_records(&run, NOW, half_bad).await.unwrap_err();
    assert_eq!(error.to_string(), format!("step {} must be <= {}", u64::MAX, i64::MAX));
    assert_eq!(store.newest_position(&run).await.unwrap(), Position { step: Step(4), evaluated: false });
}

/// A file of version 1 has no sums yet.
#[tokio::test]
async fn sums_of_steps_are_made_up_for_what_an_older_program_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (sweep, trial) = (run("s"), run("s.0"));
    let read = async |store: &Store| (store.efforts(&sweep).await.unwrap(), store.goodput(&trial).await.unwrap());
    let (store, _) = Store::open(folder.path()).unwrap();
    for other in ["s", "s.0", "s.12", "s-0", "t.0"] {
        let steps = (1..=5).map(|step| step_record(step, 1, 0.0)).collect();
        store.insert_records(&run(other), NOW, steps).await.unwrap();
    }
    store.roll_back(&trial, Step(3), Generation(2)).await.unwrap();
    store.insert_records(&trial, NOW, vec![step_record(4, 2, 0.0)]).await.unwrap();
    let before = read(&store).await;
    assert_eq!(
        before.0.iter().map(|(run, effort)| (run.as_str(), effort.steps)).collect::<Vec<_>>(),
        [("s.0", 6), ("s.12", 5)]
    );
    // Of steps 4 and 5, and of steps 1 to 4.
    assert_eq!(before.1, Goodput { productive_micros: 4010, lost_micros: 2009 });
    drop(store);
    let file = rusqlite::Connection::open(folder.path().join("phalanx.db")).unwrap();
    let back = "DROP TABLE inspections; DROP TABLE sinks; DROP TABLE sink_notes; ALTER TABLE records DROP COLUMN at_ms;
                DROP TABLE efforts; DROP INDEX rolled_back_records; PRAGMA user_version = 1";
    file.execute_batch(back).unwrap();
    drop(file);
    let (store, _) = Store::open(folder.path()).unwrap();
    assert_eq!(read(&store).await, before);
    // When they were made was not stored then.
    assert!(store.read_stored(0, 100).await.unwrap().iter().all(|stored| stored.at.is_none()));
}

#[tokio::test]
async fn records_are_numbered_as_they_come_and_timed_by_their_steps() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let step = |step, seconds: u64| match step_record(step, 1, 0.0) {
        Record::Step(record) => Record::Step(StepRecord { micros: seconds * 1_000_000, ..record }),
        other => other,
    };
    let (a, b) = (run("a"), run("b"));
    let first = vec![step(1, 9), step(2, 3), eval_record(2, 1, 0.0), step(3, 4)];
    store.insert_records(&a, Time(60_000), first.clone()).await.unwrap();
    store.insert_records(&b, Time(61_000), vec![step(1, 1)]).await.unwrap();
    store.roll_back(&a, Step(2), Generation(2)).await.unwrap();
    // What is there already is not stored again, and takes no number.
    store.insert_records(&a, Time(99_000), [first, vec![step(4, 1)]].concat()).await.unwrap();
    let shown = |stored: store::StoredRecord| {
        let position = stored.record.position();
        (stored.run.to_string(), position.step.0, position.evaluated, stored.at.unwrap().0, stored.rolled_back)
    };
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let page = store.read_stored(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2 && page.iter().all(|stored| stored.sequence > after));
        after = last.sequence;
        all.extend(page.into_iter().map(shown));
    }
    let a = |step, evaluated, at, rolled_back| ("a".to_owned(), step, evaluated, at, rolled_back);
    let expected = [
        a(1, false, 53_000, false),
        a(2, false, 56_000, false),
        a(2, true, 56_000, false),
        a(3, false, 60_000, true),
        ("b".to_owned(), 1, false, 61_000, false),
        a(4, false, 99_000, true),
    ];
    assert_eq!(all, expected);
}

#[tokio::test]
async fn pages_are_bounded_whatever_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let run = run("long");
    let last = PAGE_MAX as u64 + 2;
    let records = (1..=last).map(|step| step_record(step, 1, 0.0)).collect();
    store.insert_records(&run, NOW, records).await.unwrap();
    assert_eq!(store.read_records(&run, Step(0), usize::MAX).await.unwrap().len(), PAGE_MAX);
    assert_eq!(store.read_records(&run, Step(0), 0).await.unwrap().len(), 1);
    let (page, cursor) = store.read_ledger(&run, LedgerCursor::default(), usize::MAX).await.unwrap();
    assert_eq!(page.len(), PAGE_MAX);
    let (page, cursor) = store.read_ledger(&run, cursor.unwrap(), 2).await.unwrap();
    assert_eq!((page.len(), cursor), (2, None));
}
