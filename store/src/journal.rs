//! The journal: every fact the engine was told, in order, as JSON.

use domain::engine::Event;
use domain::ids::Time;
use rusqlite::{Connection, Row, params};

use crate::StoreError;
use crate::error::column;
use crate::records::page;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalEntry {
    /// Its place, from 1, without gaps.
    pub sequence: u64,
    /// When it was applied.
    pub at: Time,
    /// What happened.
    pub event: Event,
}

/// A line ready to be written: time and JSON.
pub(crate) type Line = (i64, String);

/// The line of an event. Refuses what would not come back as it is, for one such row makes the whole journal unreadable.
pub(crate) fn encode(at: Time, event: &Event) -> Result<Line, StoreError> {
    let not_journalable = |cause: String| StoreError::NotJournalable { cause };
    let json = serde_json::to_string(event).map_err(|e| not_journalable(e.to_string()))?;
    let back: Event = serde_json::from_str(&json).map_err(|e| not_journalable(format!("{e} in {json}")))?;
    if back != *event {
        return Err(not_journalable(format!("{json} reads as another event")));
    }
    Ok((column("time", at.0)?, json))
}

pub(crate) fn append(connection: &Connection, lines: &[Line]) -> Result<(), StoreError> {
    let mut insert = connection.prepare_cached("INSERT INTO journal (at_ms, event) VALUES (?1, ?2)")?;
    for (at_ms, event) in lines {
        insert.execute(params![at_ms, event])?;
    }
    Ok(())
}

pub(crate) fn read(connection: &Connection) -> Result<Vec<JournalEntry>, StoreError> {
    let mut entries = Vec::new();
    let mut select = connection.prepare("SELECT sequence, at_ms, event FROM journal ORDER BY sequence")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let entry = entry(row)?;
        let missing = entries.len() as u64 + 1;
        if entry.sequence != missing {
            return Err(StoreError::JournalGap { missing, found: entry.sequence });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(row: &Row<'_>) -> Result<JournalEntry, StoreError> {
    let sequence = row.get::<_, i64>(0)? as u64;
    let unreadable = |cause: String| StoreError::JournalRow { sequence, cause };
    let at_ms: i64 = row.get(1)?;
    let json = row.get_ref(2)?.as_str().map_err(|e| unreadable(e.to_string()))?;
    let event = serde_json::from_str(json).map_err(|e| unreadable(e.to_string()))?;
    Ok(JournalEntry { sequence, at: Time(at_ms as u64), event })
}

/// Entries after number `after`, in order.
pub(crate) fn read_after(connection: &Connection, after: u64, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
    let mut select = connection
        .prepare_cached("SELECT sequence, at_ms, event FROM journal WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut rows = select.query(params![after, page(limit) as i64])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(entry(row)?);
    }
    Ok(entries)
}

/// The number of the newest entry; 0 if there is none.
pub(crate) fn newest(connection: &Connection) -> Result<u64, StoreError> {
    let mut select = connection.prepare_cached("SELECT ifnull(max(sequence), 0) FROM journal")?;
    Ok(select.query_row([], |row| row.get::<_, i64>(0))? as u64)
}
