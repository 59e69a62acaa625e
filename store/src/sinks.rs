//! How far figures and facts went out to other people's tools, and what was remembered of each run on the way.

use std::collections::BTreeMap;

use domain::ids::RunName;
use rusqlite::{Connection, OptionalExtension, params};

use crate::StoreError;
use crate::error::column;

/// How far a sink has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkPosition {
    /// All records up to this number are out.
    pub records: u64,
    /// All facts of the journal up to this number are out.
    pub journal: u64,
}

/// Where a sink stands; `None` if it never moved.
pub(crate) fn position(connection: &Connection, sink: &str) -> Result<Option<SinkPosition>, StoreError> {
    let mut select = connection.prepare_cached("SELECT records, journal FROM sinks WHERE sink = ?1")?;
    let position = select.query_row([sink], |row| {
        Ok(SinkPosition { records: row.get::<_, i64>(0)? as u64, journal: row.get::<_, i64>(1)? as u64 })
    });
    Ok(position.optional()?)
}

/// What a sink remembers, by run or sweep.
pub(crate) fn notes(connection: &Connection, sink: &str) -> Result<BTreeMap<RunName, String>, StoreError> {
    let mut select = connection.prepare_cached("SELECT name, note FROM sink_notes WHERE sink = ?1")?;
    let mut rows = select.query([sink])?;
    let mut notes = BTreeMap::new();
    while let Some(row) = rows.next()? {
        // What is stored was a name.
        let Ok(name) = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?.parse() else { continue };
        notes.insert(name, row.get(1)?);
    }
    Ok(notes)
}

/// Moves a sink, and replaces what it remembers of the runs in `notes`.
pub(crate) fn advance(
    connection: &Connection,
    sink: &str,
    position: SinkPosition,
    notes: &[(RunName, String)],
) -> Result<(), StoreError> {
    let SinkPosition { records, journal } = position;
    let (records, journal) = (column("number of a record", records)?, column("number of a fact", journal)?);
    connection
        .prepare_cached("INSERT OR REPLACE INTO sinks (sink, records, journal) VALUES (?1, ?2, ?3)")?
        .execute(params![sink, records, journal])?;
    let mut replace =
        connection.prepare_cached("INSERT OR REPLACE INTO sink_notes (sink, name, note) VALUES (?1, ?2, ?3)")?;
    for (name, note) in notes {
        replace.execute(params![sink, name.as_str(), note])?;
    }
    Ok(())
}
