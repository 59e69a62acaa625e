//! Log lines of runs: bounded, oldest dropped.

use domain::ids::RunName;
use rusqlite::{Connection, params};

use crate::StoreError;
use crate::error::column;
use crate::records::page;

/// Lines kept of each run. At some 100 bytes a line this bounds a run's log to about a megabyte.
pub const LOG_LINES_MAX: u64 = 10_000;

/// The longest text of a line, in bytes; the rest is cut off. A line is for a person to read.
pub const LOG_TEXT_BYTES_MAX: usize = 4096;

/// A line to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLogLine {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// `coordinator`, or a worker's id in its short form (`WorkerId::short`).
    pub source: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What happened.
    pub text: String,
}

/// A stored line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its place in the run's log, from 1, without gaps between kept lines.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// `coordinator`, or a worker's id in its short form (`WorkerId::short`).
    pub source: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What happened, at most [`LOG_TEXT_BYTES_MAX`] bytes.
    pub text: String,
}

pub(crate) fn append(connection: &Connection, run: &RunName, lines: &[NewLogLine]) -> Result<(), StoreError> {
    let mut newest: i64 = connection
        .prepare_cached("SELECT ifnull(max(sequence), 0) FROM log WHERE run = ?1")?
        .query_row([run.as_str()], |row| row.get(0))?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO log (run, sequence, at_ms, source, level, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for NewLogLine { at_ms, source, level, text } in lines {
        newest += 1;
        let text = &text[..text.floor_char_boundary(LOG_TEXT_BYTES_MAX)];
        insert.execute(params![run.as_str(), newest, column("time", *at_ms)?, source, level, text])?;
    }
    connection
        .prepare_cached("DELETE FROM log WHERE run = ?1 AND sequence <= ?2")?
        .execute(params![run.as_str(), newest - LOG_LINES_MAX as i64])?;
    Ok(())
}

pub(crate) fn read(
    connection: &Connection,
    run: &RunName,
    after_sequence: u64,
    limit: usize,
) -> Result<Vec<LogLine>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT sequence, at_ms, source, level, text FROM log
         WHERE run = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let after = i64::try_from(after_sequence).unwrap_or(i64::MAX);
    let lines = select.query_map(params![run.as_str(), after, page(limit) as i64], |row| {
        Ok(LogLine {
            sequence: row.get::<_, i64>(0)? as u64,
            at_ms: row.get::<_, i64>(1)? as u64,
            source: row.get(2)?,
            level: row.get(3)?,
            text: row.get(4)?,
        })
    })?;
    Ok(lines.collect::<Result<_, _>>()?)
}
