use domain::ids::RunName;
use domain::view::DataFacts;
use rusqlite::{Connection, OptionalExtension, params};

use crate::StoreError;
use crate::error::column;

pub(crate) fn set(connection: &Connection, run: &RunName, facts: DataFacts) -> Result<(), StoreError> {
    let DataFacts { train_samples, total_steps } = facts;
    connection
        .prepare_cached("INSERT OR REPLACE INTO data_facts (run, train_samples, total_steps) VALUES (?1, ?2, ?3)")?
        .execute(params![
            run.as_str(),
            column("number of samples", train_samples)?,
            column("number of steps", total_steps)?
        ])?;
    Ok(())
}

pub(crate) fn get(connection: &Connection, run: &RunName) -> Result<Option<DataFacts>, StoreError> {
    let facts = connection
        .prepare_cached("SELECT train_samples, total_steps FROM data_facts WHERE run = ?1")?
        .query_row([run.as_str()], |row| {
            Ok(DataFacts { train_samples: row.get::<_, i64>(0)? as u64, total_steps: row.get::<_, i64>(1)? as u64 })
        })
        .optional()?;
    Ok(facts)
}
