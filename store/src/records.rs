//! Records of runs: the figures of steps and evaluations, and the ledger of who read which samples.
//!
//! A run can go back to an earlier state and make steps again in a newer generation. Nothing is deleted then: the
//! records left behind are marked, and the others are the *live lineage*, which holds each position once.

use domain::ids::{Generation, RunName, Step, Time};
use domain::record::{EvalRecord, Position, Read, Record, StepRecord};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::efforts::{self, NewSteps};
use crate::error::column;
use crate::{StoreError, inspections, reads};

/// The most rows a read gives at once, whatever limit is asked for. Bounds the memory of a page to about a megabyte.
pub const PAGE_MAX: usize = 10_000;

/// A page of the ledger ends when its samples take about this much of the database; some eight times as much in memory.
pub const LEDGER_PAGE_BYTES_MAX: usize = 4 << 20;

/// A step in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerStep {
    /// Steps completed with this one.
    pub step: Step,
    /// The generation that computed it.
    pub generation: Generation,
    /// Whether the run later went back to a state before it; its samples then do not count.
    pub rolled_back: bool,
    /// Who read which samples.
    pub reads: Vec<Read>,
}

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    /// Its number among all records: they are numbered in the order in which they became durable.
    pub sequence: u64,
    /// The run that it is of.
    pub run: RunName,
    /// When its work was done; unknown for what an earlier version of this program stored.
    pub at: Option<Time>,
    /// Whether the run later went back to a state before it.
    pub rolled_back: bool,
    /// The figures, without the reads.
    pub record: Record,
}

/// A place among all records of a run, rolled back or not: by step, then kind, then generation. The default is the
/// beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordCursor {
    step: i64,
    kind: i64,
    generation: i64,
}

/// A place in a run's ledger, which is ordered by step, then by generation. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerCursor {
    step: i64,
    generation: i64,
}

const STEP: i64 = 0;
const EVAL: i64 = 1;

/// Stores records that are not yet there. A record is known by position and generation. One of an occupied position of
/// the live lineage changes nothing. One that an earlier roll-back covers is stored as rolled back. The last one was made
/// at `now`, those before it as much earlier as the steps between took.
pub(crate) fn insert(connection: &Connection, run: &RunName, now: Time, records: &[Record]) -> Result<(), StoreError> {
    let mut covered = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM roll_backs WHERE run = ?1 AND step < ?2 AND generation > ?3)")?;
    let mut insert_step = connection.prepare_cached(
        "INSERT INTO records (run, step, kind, generation, rolled_back, loss, grad_norm, lr, skipped, micros,
                              micros_outside_model, reads, at_ms)
         VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
    )?;
    let mut insert_eval = connection.prepare_cached(
        "INSERT INTO records (run, step, kind, generation, rolled_back, loss, accuracy, samples, at_ms)
         VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    )?;
    let name = run;
    let run = run.as_str();
    let mut is_covered =
        |step, generation| covered.query_row(params![run, step, generation], |row| row.get::<_, bool>(0));
    let mut new_steps = NewSteps::default();
    for (record, at) in records.iter().zip(times(now, records)) {
        let at_ms = column("time", at.0)?;
        match record {
            Record::Step(r) => {
                let StepRecord { step, generation, loss, grad_norm, lr, skipped, micros, micros_outside_model, reads } =
                    r;
                let (step, generation) = (column("step", step.0)?, column("generation", generation.0)?);
                let rolled_back = is_covered(step, generation)?;
                let inserted = insert_step.execute(params![
                    run,
                    step,
                    generation,
                    rolled_back,
                    bits(*loss),
                    bits(*grad_norm),
                    bits(*lr),
                    skipped,
                    column("time of a step", *micros)?,
                    column("time of a step", *micros_outside_model)?,
                    reads::encode(reads),
                    at_ms,
                ])?;
                if inserted > 0 {
                    new_steps.add(r, rolled_back)?;
                }
            }
            Record::Eval(r) => {
                let EvalRecord { step, generation, loss, accuracy, samples } = r;
                let (step, generation) = (column("step", step.0)?, column("generation", generation.0)?);
                insert_eval.execute(params![
                    run,
                    step,
                    generation,
                    is_covered(step, generation)?,
                    bits(*loss),
                    bits(*accuracy),
                    column("number of samples", *samples)?,
                    at_ms,
                ])?;
            }
        }
    }
    new_steps.store(connection, name)
}

/// When each of `records` was made, if the last one was made at `now`.
fn times(now: Time, records: &[Record]) -> Vec<Time> {
    let mut later_micros: u64 = 0;
    let mut times: Vec<Time> = Vec::with_capacity(records.len());
    for record in records.iter().rev() {
        times.push(Time(now.0.saturating_sub(later_micros / 1000)));
        if let Record::Step(step) = record {
            later_micros = later_micros.saturating_add(step.micros);
        }
    }
    times.reverse();
    times
}

/// Marks what the run leaves behind when `generation` goes on from `step`.
pub(crate) fn roll_back(
    connection: &Connection,
    run: &RunName,
    step: Step,
    generation: Generation,
) -> Result<(), StoreError> {
    efforts::lose(connection, run, step, generation)?;
    let (step, generation) = (column("step", step.0)?, column("generation", generation.0)?);
    connection
        .prepare_cached("INSERT OR IGNORE INTO roll_backs (run, step, generation) VALUES (?1, ?2, ?3)")?
        .execute(params![run.as_str(), step, generation])?;
    connection
        .prepare_cached(
            "UPDATE records SET rolled_back = 1
             WHERE run = ?1 AND step > ?2 AND generation < ?3 AND rolled_back = 0",
        )?
        .execute(params![run.as_str(), step, generation])?;
    inspections::roll_back(connection, run.as_str(), step, generation)
}

pub(crate) fn newest_position(connection: &Connection, run: &RunName) -> Result<Position, StoreError> {
    let newest = connection
        .prepare_cached(
            "SELECT step, kind FROM records WHERE run = ?1 AND rolled_back = 0 ORDER BY step DESC, kind DESC LIMIT 1",
        )?
        .query_row([run.as_str()], |row| {
            Ok(Position { step: Step(row.get::<_, i64>(0)? as u64), evaluated: row.get::<_, i64>(1)? == EVAL })
        })
        .optional()?;
    Ok(newest.unwrap_or_default())
}

/// Records of the live lineage after `after`. Never ends between a step and its evaluation, so that the last step of a
/// page is the cursor of the next; a page may be one record longer than asked for.
pub(crate) fn read(
    connection: &Connection,
    run: &RunName,
    after: Step,
    limit: usize,
) -> Result<Vec<Record>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT step, kind, generation, loss, grad_norm, lr, skipped, micros, micros_outside_model, accuracy, samples
         FROM records WHERE run = ?1 AND step > ?2 AND rolled_back = 0 ORDER BY step, kind LIMIT ?3",
    )?;
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let asked = page(limit);
    let mut records: Vec<Record> =
        select.query_map(params![run.as_str(), after, asked as i64 + 1], record)?.collect::<Result<_, _>>()?;
    if let [.., last, beyond] = records.as_slice()
        && records.len() > asked
        && last.position().step != beyond.position().step
    {
        records.pop();
    }
    Ok(records)
}

/// The columns that [`stored`] reads.
macro_rules! stored_columns {
    () => {
        "step, kind, generation, loss, grad_norm, lr, skipped, micros, micros_outside_model, accuracy, samples,
         rowid, run, at_ms, rolled_back"
    };
}

/// Records of all runs, rolled back or not, after number `after`, in the order in which they were stored.
pub(crate) fn read_stored(connection: &Connection, after: u64, limit: usize) -> Result<Vec<StoredRecord>, StoreError> {
    let mut select = connection.prepare_cached(concat!(
        "SELECT ",
        stored_columns!(),
        " FROM records WHERE rowid > ?1 ORDER BY rowid LIMIT ?2"
    ))?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = select.query_map(params![after, page(limit) as i64], stored)?;
    // What is stored was a name.
    Ok(rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Records of a run, rolled back or not, behind `after`, and where to go on; `None` at the end.
pub(crate) fn read_history(
    connection: &Connection,
    run: &RunName,
    after: RecordCursor,
    limit: usize,
) -> Result<(Vec<StoredRecord>, Option<RecordCursor>), StoreError> {
    let mut select = connection.prepare_cached(concat!(
        "SELECT ",
        stored_columns!(),
        " FROM records WHERE run = ?1 AND (step, kind, generation) > (?2, ?3, ?4)
          ORDER BY step, kind, generation LIMIT ?5"
    ))?;
    let RecordCursor { step, kind, generation } = after;
    let limit = page(limit);
    let rows = select.query_map(params![run.as_str(), step, kind, generation, limit as i64], stored)?;
    let records: Vec<StoredRecord> = rows.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let next = records.last().filter(|_| records.len() == limit).map(|last| {
        let position = last.record.position();
        let kind = if position.evaluated { EVAL } else { STEP };
        // They came from columns of this type.
        RecordCursor { step: position.step.0 as i64, kind, generation: last.record.generation().0 as i64 }
    });
    Ok((records, next))
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Option<StoredRecord>> {
    let Ok(run) = row.get_ref(12)?.as_str().map_err(rusqlite::Error::from)?.parse() else { return Ok(None) };
    Ok(Some(StoredRecord {
        sequence: row.get::<_, i64>(11)? as u64,
        run,
        at: row.get::<_, Option<i64>>(13)?.map(|at_ms| Time(at_ms as u64)),
        rolled_back: row.get(14)?,
        record: record(row)?,
    }))
}

/// What the steps of the live lineage before `step` took, in microseconds.
pub(crate) fn micros_before(connection: &Connection, run: &RunName, step: Step) -> Result<u64, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT ifnull(sum(micros), 0) FROM records WHERE run = ?1 AND step < ?2 AND kind = 0 AND rolled_back = 0",
    )?;
    let step = i64::try_from(step.0).unwrap_or(i64::MAX);
    Ok(select.query_row(params![run.as_str(), step], |row| row.get::<_, i64>(0))? as u64)
}

/// Evaluations of the live lineage after `after`, in order.
pub(crate) fn read_evals(
    connection: &Connection,
    run: &RunName,
    after: Step,
    limit: usize,
) -> Result<Vec<EvalRecord>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT step, generation, loss, accuracy, samples
         FROM records WHERE run = ?1 AND step > ?2 AND kind = 1 AND rolled_back = 0 ORDER BY step LIMIT ?3",
    )?;
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let eval = |row: &Row<'_>| {
        Ok(EvalRecord {
            step: Step(row.get::<_, i64>(0)? as u64),
            generation: Generation(row.get::<_, i64>(1)? as u64),
            loss: f64::from_bits(row.get::<_, i64>(2)? as u64),
            accuracy: f64::from_bits(row.get::<_, i64>(3)? as u64),
            samples: row.get::<_, i64>(4)? as u64,
        })
    };
    let rows = select.query_map(params![run.as_str(), after, page(limit) as i64], eval)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Steps that were rolled back, by generation and then step.
pub(crate) fn read_rolled_back(
    connection: &Connection,
    run: &RunName,
    from: Step,
    to: Step,
    behind: Option<(Generation, Step)>,
    limit: usize,
) -> Result<Vec<StepRecord>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT step, kind, generation, loss, grad_norm, lr, skipped, micros, micros_outside_model
         FROM records WHERE run = ?1 AND rolled_back = 1 AND kind = 0 AND step BETWEEN ?2 AND ?3
         AND (generation, step) > (?4, ?5) ORDER BY generation, step LIMIT ?6",
    )?;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (generation, step) = behind.map_or((-1, -1), |(generation, step)| (number(generation.0), number(step.0)));
    let limit = page(limit) as i64;
    let rows = select
        .query_map(params![run.as_str(), number(from.0), number(to.0), generation, step, limit], record)?
        .collect::<Result<Vec<_>, _>>()?;
    let step = |record| match record {
        Record::Step(step) => Some(step),
        Record::Eval(_) => None,
    };
    Ok(rows.into_iter().filter_map(step).collect())
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let number = |column| Ok::<u64, rusqlite::Error>(row.get::<_, i64>(column)? as u64);
    let float = |column| Ok::<f64, rusqlite::Error>(f64::from_bits(number(column)?));
    let (step, generation) = (Step(number(0)?), Generation(number(2)?));
    if row.get::<_, i64>(1)? == STEP {
        return Ok(Record::Step(StepRecord {
            step,
            generation,
            loss: float(3)?,
            grad_norm: float(4)?,
            lr: float(5)?,
            skipped: row.get(6)?,
            micros: number(7)?,
            micros_outside_model: number(8)?,
            reads: Vec::new(),
        }));
    }
    Ok(Record::Eval(EvalRecord { step, generation, loss: float(3)?, accuracy: float(9)?, samples: number(10)? }))
}

/// A page of the ledger after `after`, and where to go on; `None` at the end.
pub(crate) fn read_ledger(
    connection: &Connection,
    run: &RunName,
    after: LedgerCursor,
    limit: usize,
) -> Result<(Vec<LedgerStep>, Option<LedgerCursor>), StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT step, generation, rolled_back, reads FROM records
         WHERE run = ?1 AND kind = 0 AND (step, generation) > (?2, ?3) ORDER BY step, generation LIMIT ?4",
    )?;
    let asked = page(limit);
    let mut rows = select.query(params![run.as_str(), after.step, after.generation, asked as i64 + 1])?;
    let mut steps = Vec::new();
    let mut cursor = after;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if steps.len() == asked || bytes >= LEDGER_PAGE_BYTES_MAX {
            return Ok((steps, Some(cursor)));
        }
        cursor = LedgerCursor { step: row.get(0)?, generation: row.get(1)? };
        let (step, generation) = (cursor.step as u64, cursor.generation as u64);
        let blob = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        bytes += blob.len();
        let reads =
            reads::decode(blob).map_err(|cause| StoreError::DamagedRecord { run: run.to_string(), step, cause })?;
        steps.push(LedgerStep {
            step: Step(step),
            generation: Generation(generation),
            rolled_back: row.get(2)?,
            reads,
        });
    }
    Ok((steps, None))
}

/// Rows of a page for a caller who asks for `limit`.
pub(crate) fn page(limit: usize) -> usize {
    limit.clamp(1, PAGE_MAX)
}

fn bits(value: f64) -> i64 {
    value.to_bits() as i64
}
