//! The journal: every fact the engine was told, in order, as JSON.

use domain::engine::Event;
use domain::ids::Time;
use rusqlite::{Connection, params};

use crate::StoreError;
use crate::error::column;

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
        let found = row.get::<_, i64>(0)? as u64;
        let missing = entries.len() as u64 + 1;
        if found != missing {
            return Err(StoreError::JournalGap { missing, found });
        }
        let unreadable = |cause: String| StoreError::JournalRow { sequence: found, cause };
        let at_ms: i64 = row.get(1)?;
        let json = row.get_ref(2)?.as_str().map_err(|e| unreadable(e.to_string()))?;
        let event = serde_json::from_str(json).map_err(|e| unreadable(e.to_string()))?;
        entries.push(JournalEntry { sequence: found, at: Time(at_ms as u64), event });
    }
    Ok(entries)
}
