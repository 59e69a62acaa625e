//! What steps took: sums over the records of steps, by run and generation. They are kept up to date as records are
//! stored and rolled back, so that asking about ten thousand trials reads ten thousand rows and not their steps.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{Generation, RunName, Step, WorkerId};
use domain::record::{Read, StepRecord};
use domain::results::{Effort, Goodput};
use rusqlite::{Connection, params};

use crate::error::column;
use crate::{StoreError, reads};

/// The sums of steps that are being stored, by generation.
#[derive(Debug, Default)]
pub(crate) struct NewSteps(BTreeMap<Generation, Sums>);

#[derive(Debug, Default)]
struct Sums {
    /// Workers that read for the first of the steps. The members of a group do not change within a generation, and each
    /// reads a part of every step.
    members: usize,
    steps: i64,
    micros: i64,
    lost_micros: i64,
}

impl NewSteps {
    /// Counts a step that was not stored before.
    pub(crate) fn add(&mut self, record: &StepRecord, rolled_back: bool) -> Result<(), StoreError> {
        let micros = column("time of a step", record.micros)?;
        let sums = self.0.entry(record.generation).or_default();
        if sums.steps == 0 {
            sums.members = members(&record.reads);
        }
        sums.steps += 1;
        sums.micros = sums.micros.saturating_add(micros);
        if rolled_back {
            sums.lost_micros = sums.lost_micros.saturating_add(micros);
        }
        Ok(())
    }

    /// Adds the sums to those of the run.
    pub(crate) fn store(self, connection: &Connection, run: &RunName) -> Result<(), StoreError> {
        let mut upsert = connection.prepare_cached(
            "INSERT INTO efforts (run, generation, members, steps, micros, lost_micros) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET steps = steps + excluded.steps, micros = micros + excluded.micros,
                                       lost_micros = lost_micros + excluded.lost_micros",
        )?;
        for (generation, sums) in self.0 {
            let Sums { members, steps, micros, lost_micros } = sums;
            let generation = column("generation", generation.0)?;
            upsert.execute(params![run.as_str(), generation, members as i64, steps, micros, lost_micros])?;
        }
        Ok(())
    }
}

fn members(reads: &[Read]) -> usize {
    reads.iter().map(|read| read.worker).collect::<BTreeSet<WorkerId>>().len().max(1)
}

/// Counts as lost the live steps after `step` of generations before `generation`. To be called before they are marked.
pub(crate) fn lose(
    connection: &Connection,
    run: &RunName,
    step: Step,
    generation: Generation,
) -> Result<(), StoreError> {
    let (step, generation) = (column("step", step.0)?, column("generation", generation.0)?);
    connection
        .prepare_cached(
            "UPDATE efforts SET lost_micros = lost_micros + lost.micros
             FROM (SELECT generation, sum(micros) AS micros FROM records
                   WHERE run = ?1 AND step > ?2 AND kind = 0 AND generation < ?3 AND rolled_back = 0
                   GROUP BY generation) AS lost
             WHERE efforts.run = ?1 AND efforts.generation = lost.generation",
        )?
        .execute(params![run.as_str(), step, generation])?;
    Ok(())
}

/// What the steps of all trials of a sweep took, rolled back or not, by run. Runs without a step are absent.
pub(crate) fn of_sweep(connection: &Connection, sweep: &RunName) -> Result<BTreeMap<RunName, Effort>, StoreError> {
    // `/` is the character after `.`, and no name has it: these are the names that begin with `SWEEP.`.
    let mut select = connection
        .prepare_cached("SELECT run, members, steps, micros FROM efforts WHERE run > ?1 || '.' AND run < ?1 || '/'")?;
    let mut rows = select.query([sweep.as_str()])?;
    let mut efforts: BTreeMap<RunName, Effort> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        // What is stored was a name.
        let Ok(run) = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?.parse() else { continue };
        let effort = efforts.entry(run).or_default();
        effort.steps += row.get::<_, i64>(2)? as u64;
        effort.worker_seconds += row.get::<_, i64>(3)? as f64 / 1e6 * row.get::<_, i64>(1)? as f64;
    }
    Ok(efforts)
}

/// How much of the time of a run's steps counts.
pub(crate) fn goodput(connection: &Connection, run: &RunName) -> Result<Goodput, StoreError> {
    let mut select = connection
        .prepare_cached("SELECT ifnull(sum(micros), 0), ifnull(sum(lost_micros), 0) FROM efforts WHERE run = ?1")?;
    let goodput = select.query_row([run.as_str()], |row| {
        let (all, lost) = (row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64);
        Ok(Goodput { productive_micros: all.saturating_sub(lost), lost_micros: lost })
    })?;
    Ok(goodput)
}

/// Makes the sums from the records that there are.
pub(crate) fn fill(connection: &Connection) -> Result<(), StoreError> {
    // SQLite gives columns beside a min() from the row that has it.
    let mut select = connection.prepare(
        "SELECT run, generation, min(step), count(*), sum(micros), sum(micros * rolled_back), reads
         FROM records WHERE kind = 0 GROUP BY run, generation",
    )?;
    let mut insert = connection.prepare(
        "INSERT INTO efforts (run, generation, members, steps, micros, lost_micros) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let run: String = row.get(0)?;
        let blob = row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?;
        // A damaged ledger is told to whoever reads it; here it costs a number that people look at.
        let members = reads::decode(blob).map_or(1, |reads| members(&reads));
        let number = |at: usize| row.get::<_, i64>(at);
        insert.execute(params![run, number(1)?, members as i64, number(3)?, number(4)?, number(5)?])?;
    }
    Ok(())
}
