//! The tables, and how a file comes to have them.
//!
//! Floating-point numbers are stored as the 64 bits of the number in an INTEGER, because SQLite turns NaN into NULL.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::{StoreError, efforts};

/// The newest schema version, kept in SQLite's `user_version`.
const VERSION: i64 = 4;

/// How much of the write-ahead log stays on disk after it was copied into the database.
const WAL_BYTES_KEPT: i64 = 16 << 20;

const TABLES: &str = "
CREATE TABLE journal (
    sequence INTEGER PRIMARY KEY,            -- from 1, without gaps
    at_ms    INTEGER NOT NULL,               -- Unix time
    event    TEXT NOT NULL                   -- JSON
) STRICT;

-- Steps (kind 0) and evaluations (kind 1). A generation makes each position once. At most one record of a position is
-- live, that is, not rolled back.
CREATE TABLE records (
    run                  TEXT NOT NULL,
    step                 INTEGER NOT NULL,
    kind                 INTEGER NOT NULL,
    generation           INTEGER NOT NULL,
    rolled_back          INTEGER NOT NULL,   -- 0 or 1
    loss                 INTEGER NOT NULL,   -- bits of an f64
    grad_norm            INTEGER,            -- bits of an f64; steps
    lr                   INTEGER,            -- bits of an f64; steps
    skipped              INTEGER,            -- 0 or 1; steps
    micros               INTEGER,            -- steps
    micros_outside_model INTEGER,            -- steps
    accuracy             INTEGER,            -- bits of an f64; evaluations
    samples              INTEGER,            -- evaluations
    reads                BLOB,               -- steps; last, so that reading the rest does not touch its pages
    PRIMARY KEY (run, step, kind, generation)
) STRICT;
CREATE UNIQUE INDEX live_records ON records (run, step, kind) WHERE rolled_back = 0;

-- From which steps runs went back: records after `step` of generations before `generation` do not count.
CREATE TABLE roll_backs (
    run        TEXT NOT NULL,
    step       INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (run, step, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE log (
    run      TEXT NOT NULL,
    sequence INTEGER NOT NULL,               -- per run, from 1
    at_ms    INTEGER NOT NULL,               -- Unix time
    source   TEXT NOT NULL,
    level    TEXT NOT NULL,
    text     TEXT NOT NULL,
    PRIMARY KEY (run, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE data_facts (
    run           TEXT PRIMARY KEY,
    train_samples INTEGER NOT NULL,
    total_steps   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 1;
";

/// What version 2 has beside version 1.
const TABLES_2: &str = "
-- Sums over the steps in `records`, rolled back or not.
CREATE TABLE efforts (
    run         TEXT NOT NULL,
    generation  INTEGER NOT NULL,
    members     INTEGER NOT NULL,            -- workers that made the steps
    steps       INTEGER NOT NULL,
    micros      INTEGER NOT NULL,
    lost_micros INTEGER NOT NULL,            -- of micros, those of steps that were rolled back
    PRIMARY KEY (run, generation)
) STRICT, WITHOUT ROWID;

CREATE INDEX rolled_back_records ON records (run, kind, generation, step) WHERE rolled_back = 1;

PRAGMA user_version = 2;
";

/// What version 3 has beside version 2. Records are numbered by their rowid: it grows with every record that is stored,
/// for none is ever deleted.
const TABLES_3: &str = "
ALTER TABLE records ADD COLUMN at_ms INTEGER;   -- when its work was done, Unix time; NULL if stored before version 3

-- How far the figures and facts went out to somebody else's tool, by a name that gives away no address.
CREATE TABLE sinks (
    sink    TEXT PRIMARY KEY,
    records INTEGER NOT NULL,                -- all records up to this number
    journal INTEGER NOT NULL                 -- all facts up to this number
) STRICT, WITHOUT ROWID;

-- What a sink remembers of a run or sweep.
CREATE TABLE sink_notes (
    sink TEXT NOT NULL,
    name TEXT NOT NULL,
    note TEXT NOT NULL,                      -- JSON, the sink's own
    PRIMARY KEY (sink, name)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 3;
";

/// What version 4 has beside version 3.
const TABLES_4: &str = "
-- The inside of models at steps. At most one of a step is live, that is, not rolled back.
CREATE TABLE inspections (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    run         TEXT NOT NULL,
    step        INTEGER NOT NULL,
    generation  INTEGER NOT NULL,
    rolled_back INTEGER NOT NULL,            -- 0 or 1
    at_ms       INTEGER NOT NULL,            -- Unix time
    histograms  BLOB NOT NULL,               -- JSON, compressed with gzip
    attention   BLOB                         -- the same; NULL where it was not looked at
) STRICT;
CREATE UNIQUE INDEX made_inspections ON inspections (run, step, generation);
CREATE UNIQUE INDEX live_inspections ON inspections (run, step) WHERE rolled_back = 0;
CREATE INDEX inspections_of_runs ON inspections (run, sequence);

PRAGMA user_version = 4;
";

/// Opens the database for writing and brings it to the newest schema.
pub(crate) fn open_for_writing(file: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(file)?;
    // The version is looked at first: a file that is not ours is left as it is.
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(StoreError::NewerSchema { file: file.to_owned(), found: version, known: VERSION });
    }
    if version == 0 {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 {
            return Err(StoreError::Foreign { file: file.to_owned() });
        }
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    if version < VERSION {
        let transaction = connection.transaction()?;
        if version < 1 {
            transaction.execute_batch(TABLES)?;
        }
        if version < 2 {
            transaction.execute_batch(TABLES_2)?;
            efforts::fill(&transaction)?;
        }
        if version < 3 {
            transaction.execute_batch(TABLES_3)?;
        }
        transaction.execute_batch(TABLES_4)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Opens a database that [`open_for_writing`] has opened before, for reading beside it.
pub(crate) fn open_for_reading(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(file, flags)?)
}
