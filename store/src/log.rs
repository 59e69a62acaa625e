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

/// Which lines of a log are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Those with this text in them, whatever the case of ASCII letters.
    pub text: Option<String>,
    /// Those of this source.
    pub source: Option<String>,
}

/// Where a page of a log lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPage {
    /// Behind this line.
    After(u64),
    /// Before this line.
    Before(u64),
    /// At the end.
    Newest,
}

pub(crate) fn read(
    connection: &Connection,
    run: &RunName,
    at: LogPage,
    limit: usize,
    filter: &LogFilter,
) -> Result<Vec<LogLine>, StoreError> {
    let number = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX);
    let (after, before, order) = match at {
        LogPage::After(after) => (number(after), i64::MAX, "ASC"),
        LogPage::Before(end) => (0, number(end), "DESC"),
        LogPage::Newest => (0, i64::MAX, "DESC"),
    };
    let mut select = connection.prepare_cached(&format!(
        "SELECT sequence, at_ms, source, level, text FROM log
         WHERE run = ?1 AND sequence > ?2 AND sequence < ?6 AND (?3 IS NULL OR source = ?3)
         AND (?4 IS NULL OR instr(lower(text), lower(?4)) > 0) ORDER BY sequence {order} LIMIT ?5",
    ))?;
    let LogFilter { text, source } = filter;
    let found = select.query_map(params![run.as_str(), after, source, text, page(limit) as i64, before], |row| {
        Ok(LogLine {
            sequence: row.get::<_, i64>(0)? as u64,
            at_ms: row.get::<_, i64>(1)? as u64,
            source: row.get(2)?,
            level: row.get(3)?,
            text: row.get(4)?,
        })
    })?;
    let mut lines: Vec<LogLine> = found.collect::<Result<_, _>>()?;
    if order == "DESC" {
        lines.reverse();
    }
    Ok(lines)
}
