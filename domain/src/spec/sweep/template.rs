use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::search::{Configuration, Value};
use crate::spec::{JobSpec, file};

/// A job file as a tree of keys and values, so that every key of it can be searched and is checked as ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobTemplate {
    /// What the file says.
    tree: Json,
    /// The absolute folder that data paths are relative to.
    base: PathBuf,
}

impl JobTemplate {
    /// The job file that says `tree`, with data paths relative to `base`.
    pub fn new(tree: Json, base: PathBuf) -> Self {
        Self { tree, base }
    }

    /// The job with the values of `configuration` in place of its own.
    ///
    /// # Errors
    /// What the reader of job files says about it, on one line.
    pub fn with(&self, configuration: &Configuration) -> Result<JobSpec, String> {
        let mut tree = self.tree.clone();
        for (path, value) in configuration {
            set(&mut tree, path, value)?;
        }
        file::read_json(&tree, &self.base)
    }
}

/// Sets the value at a path; sections on the way are made where they are missing.
fn set(tree: &mut Json, path: &str, value: &Value) -> Result<(), String> {
    let (sections, key) = path.rsplit_once('.').map_or((None, path), |(sections, key)| (Some(sections), key));
    let mut section = tree;
    for name in sections.into_iter().flat_map(|sections| sections.split('.')) {
        section = section_of(section, path)?.entry(name).or_insert(Json::Null);
    }
    section_of(section, path)?.insert(key.to_owned(), json(value));
    Ok(())
}

fn section_of<'t>(tree: &'t mut Json, path: &str) -> Result<&'t mut Map<String, Json>, String> {
    if tree.is_null() {
        *tree = Json::Object(Map::new());
    }
    tree.as_object_mut().ok_or_else(|| format!("{path}: the job has a value where this path needs a section"))
}

fn json(value: &Value) -> Json {
    match value {
        Value::Boolean(x) => (*x).into(),
        Value::Integer(x) => (*x).into(),
        // No domain has numbers that JSON does not; as null one would be refused where a number is wanted.
        Value::Number(x) => (*x).into(),
        Value::Text(x) => x.as_str().into(),
    }
}
