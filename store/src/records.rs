//! Records of runs: the figures of steps and evaluations, and the ledger of who read which samples.
//!
//! A run can go back to an earlier state and make steps again in a newer generation. Nothing is deleted then: the
//! records left behind are marked, and the others are the *live lineage*, which holds each position once.

use domain::ids::{Generation, RunName, Step};
use domain::record::{EvalRecord, Position, Read, Record, StepRecord};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::efforts::{self, NewSteps};
use crate::error::column;
use crate::{StoreError, reads};

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

/// A place in a run's ledger, which is ordered by step, then by generation. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerCursor {
    step: i64,
    generation: i64,
}

const STEP: i64 = 0;
const EVAL: i64 = 1;

/// Stores records that are not yet there. A record is known by position and generation. One of an occupied position of
/// the live lineage changes nothing. One that an earlier roll-back covers is stored as rolled back.
pub(crate) fn insert(connection: &Connection, run: &RunName, records: &[Record]) -> Result<(), StoreError> {
    let mut covered = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM roll_backs WHERE run = ?1 AND step < ?2 AND generation > ?3)")?;
    let mut insert_step = connection.prepare_cached(
        "INSERT INTO records (run, step, kind, generation, rolled_back, loss, grad_norm, lr, skipped, micros,
                              micros_outside_model, reads)
         VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
    )?;
    let mut insert_eval = connection.prepare_cached(
        "INSERT INTO records (run, step, kind, generation, rolled_back, loss, accuracy, samples)
         VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?;
    let name = run;
    let run = run.as_str();
    let mut is_covered =
        |step, generation| covered.query_row(params![run, step, generation], |row| row.get::<_, bool>(0));
    let mut new_steps = NewSteps::default();
    for record in records {
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
                ])?;
            }
        }
    }
    new_steps.store(connection, name)
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
    Ok(())
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
