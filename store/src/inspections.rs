//! The inside of models as it was seen at steps of runs: bounded, oldest dropped.
//!
//! What was seen is JSON, compressed: histograms and attention apart, since whoever wants a tensor over time reads the
//! histograms of many steps.

use std::io::{Read, Write};

use domain::ids::{Generation, RunName, Step, Time};
use domain::inspection::{Attention, Inspection, TensorHistograms};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::error::column;

/// Inspections kept of each run, the newest ones. At most a megabyte each, some tens of kilobytes for a small model.
pub const INSPECTIONS_MAX: u64 = 100;

/// No inspection takes as much before it is compressed; a damaged one cannot ask for more.
const JSON_BYTES_MAX: u64 = 16 << 20;

/// An inspection, without what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectionEntry {
    /// Its number among all inspections: they are numbered in the order in which they became durable.
    pub sequence: u64,
    /// The step.
    pub step: Step,
    /// The generation that made it.
    pub generation: Generation,
    /// Whether the run later went back to a state before it.
    pub rolled_back: bool,
    /// When it was stored.
    pub at: Time,
}

/// What is written of an inspection.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    step: i64,
    generation: i64,
    histograms: Vec<u8>,
    attention: Option<Vec<u8>>,
}

/// What is read of an inspection.
pub(crate) struct Found {
    pub(crate) entry: InspectionEntry,
    histograms: Vec<u8>,
    attention: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Histograms {
    tensors: Vec<TensorHistograms>,
    left_out: u64,
}

impl Encoded {
    pub(crate) fn of(inspection: Inspection) -> Result<Self, StoreError> {
        let Inspection { step, generation, tensors, tensors_left_out: left_out, attention } = inspection;
        Ok(Self {
            step: column("step", step.0)?,
            generation: column("generation", generation.0)?,
            histograms: packed(&Histograms { tensors, left_out }),
            attention: attention.as_ref().map(packed),
        })
    }
}

impl Found {
    /// What was seen.
    pub(crate) fn inspection(self, run: &RunName) -> Result<(InspectionEntry, Inspection), StoreError> {
        let Self { entry, histograms, attention } = self;
        let damaged = |cause| StoreError::DamagedInspection { run: run.to_string(), step: entry.step.0, cause };
        let Histograms { tensors, left_out } = unpacked(&histograms).map_err(damaged)?;
        let attention: Option<Attention> =
            attention.map(|attention| unpacked(&attention)).transpose().map_err(damaged)?;
        let InspectionEntry { step, generation, .. } = entry;
        Ok((entry, Inspection { step, generation, tensors, tensors_left_out: left_out, attention }))
    }

    /// What was seen of one tensor.
    pub(crate) fn tensor(
        &self,
        run: &RunName,
        name: &str,
    ) -> Result<Option<(InspectionEntry, TensorHistograms)>, StoreError> {
        let damaged = |cause| StoreError::DamagedInspection { run: run.to_string(), step: self.entry.step.0, cause };
        let Histograms { tensors, left_out: _ } = unpacked(&self.histograms).map_err(damaged)?;
        Ok(tensors.into_iter().find(|tensor| tensor.name == name).map(|tensor| (self.entry, tensor)))
    }
}

fn packed(value: &impl Serialize) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let json = serde_json::to_vec(value).expect("what is seen has only string keys and finite numbers");
    let done = packer.write_all(&json).and_then(|()| packer.finish());
    done.expect("writing to memory does not fail")
}

fn unpacked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut json = Vec::new();
    let read = GzDecoder::new(bytes).take(JSON_BYTES_MAX).read_to_end(&mut json);
    read.map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

/// Stores an inspection, unless there is one of the step that counts, and drops the oldest beyond [`INSPECTIONS_MAX`]. One
/// that an earlier roll-back covers is stored as rolled back.
pub(crate) fn insert(
    connection: &Connection,
    run: &RunName,
    now: Time,
    inspection: &Encoded,
) -> Result<(), StoreError> {
    let Encoded { step, generation, histograms, attention } = inspection;
    let run = run.as_str();
    connection
        .prepare_cached(
            "INSERT INTO inspections (run, step, generation, rolled_back, at_ms, histograms, attention)
             VALUES (?1, ?2, ?3,
                     EXISTS (SELECT 1 FROM roll_backs WHERE run = ?1 AND step < ?2 AND generation > ?3),
                     ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )?
        .execute(params![run, step, generation, column("time", now.0)?, histograms, attention])?;
    connection
        .prepare_cached(
            "DELETE FROM inspections WHERE run = ?1 AND sequence <=
             (SELECT sequence FROM inspections WHERE run = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![run, INSPECTIONS_MAX as i64])?;
    Ok(())
}

/// Marks what the run leaves behind when `generation` goes on from `step`.
pub(crate) fn roll_back(connection: &Connection, run: &str, step: i64, generation: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE inspections SET rolled_back = 1
             WHERE run = ?1 AND step > ?2 AND generation < ?3 AND rolled_back = 0",
        )?
        .execute(params![run, step, generation])?;
    Ok(())
}

/// All that are kept of a run, by step, then by generation.
pub(crate) fn list(connection: &Connection, run: &RunName) -> Result<Vec<InspectionEntry>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT sequence, step, generation, rolled_back, at_ms FROM inspections WHERE run = ?1
         ORDER BY step, generation",
    )?;
    let rows = select.query_map([run.as_str()], entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The one of a step: that of a generation, or without one that which counts.
pub(crate) fn read(
    connection: &Connection,
    run: &RunName,
    step: Step,
    generation: Option<Generation>,
) -> Result<Option<Found>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT sequence, step, generation, rolled_back, at_ms, histograms, attention FROM inspections
         WHERE run = ?1 AND step = ?2 AND CASE WHEN ?3 IS NULL THEN rolled_back = 0 ELSE generation = ?3 END",
    )?;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let generation = generation.map(|generation| number(generation.0));
    Ok(select.query_row(params![run.as_str(), number(step.0), generation], found).optional()?)
}

/// The histograms of all that count, by step.
pub(crate) fn read_histograms(connection: &Connection, run: &RunName) -> Result<Vec<Found>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT sequence, step, generation, rolled_back, at_ms, histograms, NULL FROM inspections
         WHERE run = ?1 AND rolled_back = 0 ORDER BY step",
    )?;
    let rows = select.query_map([run.as_str()], found)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first one behind number `after` that counts, of the steps up to `through`.
pub(crate) fn read_next(
    connection: &Connection,
    run: &RunName,
    after: u64,
    through: Step,
) -> Result<Option<Found>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT sequence, step, generation, rolled_back, at_ms, histograms, attention FROM inspections
         WHERE run = ?1 AND sequence > ?2 AND step <= ?3 AND rolled_back = 0 ORDER BY sequence LIMIT 1",
    )?;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(select.query_row(params![run.as_str(), number(after), number(through.0)], found).optional()?)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<InspectionEntry> {
    Ok(InspectionEntry {
        sequence: row.get::<_, i64>(0)? as u64,
        step: Step(row.get::<_, i64>(1)? as u64),
        generation: Generation(row.get::<_, i64>(2)? as u64),
        rolled_back: row.get(3)?,
        at: Time(row.get::<_, i64>(4)? as u64),
    })
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok(Found { entry: entry(row)?, histograms: row.get(5)?, attention: row.get(6)? })
}
