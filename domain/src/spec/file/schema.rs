//! JSON Schema of job files and sweep files, for editors and other programs.
//!
//! It is made by the readers of the files themselves (see [`describe`](super::describe)), so it cannot fall behind them. It
//! says of every key what it may be; how keys must fit each other, and the data, is more than a schema can say, and is
//! what `phalanx validate` is for.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::describe::Described;
use super::keys::{JOB, Key, SWEEP};
use super::section::{Collector, Section};
use super::{VERSION, read_job, sweep};
use crate::ids::RUN_NAME_BYTES_MAX;

/// Of job files.
pub fn job() -> Json {
    let mut schema = described_job().schema("", &|path| explained(JOB, path));
    head(&mut schema, "job", "A job of Phalanx: what is trained, and how");
    schema
}

/// Of sweep files.
pub fn sweep() -> Json {
    let explain = |path: &str| match path.strip_prefix("job.") {
        Some(key) => explained(JOB, key),
        None => explained(SWEEP, path),
    };
    let mut schema = described_sweep().schema("", &explain);
    head(&mut schema, "sweep", "A sweep of Phalanx: in which configurations a job is trained");
    // A job inside of a sweep file needs no version, and is called as its trial is.
    if let Some(kinds) = schema["properties"]["job"]["anyOf"].as_array_mut() {
        for required in kinds.iter_mut().filter_map(|kind| kind.get_mut("required")?.as_array_mut()) {
            required.retain(|name| name != "name" && name != "version");
        }
    }
    schema
}

/// Every key of job files by its path, sections left out.
pub fn job_keys() -> BTreeSet<String> {
    keys(&described_job())
}

/// Every key of sweep files by its path, without those of the job. Sections are left out, and names that users give.
pub fn sweep_keys() -> BTreeSet<String> {
    keys(&described_sweep()).into_iter().filter(|key| !key.starts_with("job.")).collect()
}

/// What a key is for, as the reference tells it: path, default and meaning.
pub fn reference() -> [&'static [Key]; 2] {
    [JOB, SWEEP]
}

fn keys(described: &Described) -> BTreeSet<String> {
    let all: BTreeSet<String> = described.keys().into_iter().map(|key| key.replace("[]", "")).collect();
    let is_section =
        |key: &String| all.iter().any(|other| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
    all.iter().filter(|key| !is_section(key) && !key.contains('*')).cloned().collect()
}

fn explained(keys: &[Key], path: &str) -> Option<String> {
    // A list is explained, and not each of its elements.
    let path = if path.ends_with("[]") { return None } else { path.replace("[]", "") };
    let (_, default, meaning) = keys.iter().find(|(key, _, _)| *key == path)?;
    Some(format!("{meaning}. Default: {default}").replace('`', "").replace(". Default: required", ". Required"))
}

fn described_job() -> Described {
    Described::by(|description| {
        let problems = Collector::describing(description);
        if let Some(file) = Section::described(&problems) {
            // What is read there is nothing; what was asked for is noted.
            let _nothing = read_job(&file, Path::new("/"));
        }
        problems.into_description()
    })
}

fn described_sweep() -> Described {
    Described::by(|description| {
        let problems = Collector::describing(description);
        sweep::describe(&problems);
        problems.into_description()
    })
}

fn head(schema: &mut Json, name: &str, title: &str) {
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["$id"] = format!("urn:phalanx:{name}:{VERSION}").into();
    schema["title"] = title.into();
    schema["properties"]["version"] =
        json!({"const": VERSION, "description": schema["properties"]["version"]["description"]});
    schema["properties"]["name"]["maxLength"] = RUN_NAME_BYTES_MAX.into();
    schema["properties"]["name"]["pattern"] = "^[A-Za-z0-9][A-Za-z0-9._-]*$".into();
}
