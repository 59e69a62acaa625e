//! What the readers accept, as JSON Schema (draft 2020-12), found by letting them read a file that is not there.
//!
//! A [`Section`](super::section::Section) that describes hands out a value for every key it is asked for. The value
//! notes what it is asked to be, and has nothing to give, so that checks of values are left out. Where a reader goes
//! different ways, by a word it reads or by what kind of value stands there, the description picks one; the readers are
//! run once for each pick, one place at a time, and what they asked for then tells which keys belong to which pick.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

/// A pick for a key that may be left out: it is left out.
const ABSENT: &str = "(absent)";

/// What one run of the readers asks for.
#[derive(Debug, Default)]
pub(super) struct Description {
    picks: BTreeMap<String, String>,
    asked: RefCell<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// By section: keys, and whether they are required.
    sections: BTreeMap<String, BTreeMap<String, bool>>,
    /// By place: what the value may be.
    values: BTreeMap<String, BTreeSet<String>>,
    /// By place: what may be picked there. A place is the path of a word; or with `?` that of a value whose kind matters;
    /// or with `#` that of a section of which it matters which of some keys it has.
    alternatives: BTreeMap<String, Vec<String>>,
}

impl Description {
    /// A key is asked for. Whether it is there.
    pub(super) fn key(&self, section: &str, name: &str, required: bool) -> bool {
        let mut asked = self.asked.borrow_mut();
        let keys = asked.sections.entry(section.to_owned()).or_default();
        *keys.entry(name.to_owned()).or_default() |= required;
        self.picks.get(&join(section, name)).is_none_or(|pick| pick != ABSENT)
    }

    /// A section is asked for.
    pub(super) fn section(&self, path: &str) {
        self.asked.borrow_mut().sections.entry(path.to_owned()).or_default();
        self.value(path, &json!({"type": ["object", "null"]}));
    }

    /// The value at `path` may be what `schema` says.
    pub(super) fn value(&self, path: &str, schema: &Json) {
        self.asked.borrow_mut().values.entry(path.to_owned()).or_default().insert(schema.to_string());
    }

    /// A word is asked for. Which of them it is, by its number.
    pub(super) fn word(&self, path: &str, words: &[&str], may_be_absent: bool) -> usize {
        self.value(path, &json!({"enum": words}));
        let all = words.iter().copied().chain(may_be_absent.then_some(ABSENT));
        let pick = self.pick(path.to_owned(), all);
        words.iter().position(|word| *word == pick).unwrap_or(0)
    }

    /// Whether the value at `path` is of a kind.
    pub(super) fn is_kind(&self, path: &str, kind: &str) -> bool {
        self.pick(format!("{path}?"), ["section", "list", "text", "number"].into_iter()) == kind
    }

    /// Whether the section at `path` has a key.
    pub(super) fn has(&self, path: &str, name: &str) -> bool {
        self.pick(format!("{path}#"), [name].into_iter()) == name
    }

    fn pick<'w>(&self, place: String, words: impl Iterator<Item = &'w str>) -> String {
        let mut asked = self.asked.borrow_mut();
        let known = asked.alternatives.entry(place.clone()).or_default();
        for word in words {
            if !known.iter().any(|one| one == word) {
                known.push(word.to_owned());
            }
        }
        self.picks.get(&place).unwrap_or(&known[0]).clone()
    }
}

/// A key below a path.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// All runs of the readers.
pub(super) struct Described {
    /// By place and pick: what was asked for with it. The first run is under the empty place.
    runs: Vec<(String, String, Asked)>,
}

impl Described {
    /// Runs `read` once for every pick of every place, the other places as they were when it was first seen.
    pub(super) fn by(read: impl Fn(Description) -> Description) -> Self {
        let mut runs = Vec::new();
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(String::new(), String::new(), BTreeMap::new())];
        while let Some((place, pick, picks)) = waiting.pop() {
            let asked = read(Description { picks: picks.clone(), asked: RefCell::default() }).asked.into_inner();
            for (place, words) in &asked.alternatives {
                if seen.insert(place.clone()) {
                    // The first word was picked in this run; it is run again so that every pick has a run of its name.
                    for word in words {
                        let mut picks = picks.clone();
                        picks.insert(place.clone(), word.clone());
                        waiting.push((place.clone(), word.clone(), picks));
                    }
                }
            }
            runs.push((place, pick, asked));
        }
        Self { runs }
    }

    /// Every key, by its path. An element of a list is `[]`, a key that users name is `*`.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        let sections = self.runs.iter().flat_map(|(_, _, asked)| &asked.sections);
        sections.flat_map(|(path, keys)| keys.keys().map(|name| join(path, name))).collect()
    }

    /// The schema of the value at `path`; `explain` gives a text for a key.
    pub(super) fn schema(&self, path: &str, explain: &dyn Fn(&str) -> Option<String>) -> Json {
        let of_path = self.runs.iter().filter_map(|(_, _, asked)| asked.values.get(path));
        let kinds: BTreeSet<&String> = of_path.flatten().collect();
        let mut schemas: Vec<Json> = kinds.into_iter().map(|text| self.completed(path, text, explain)).collect();
        let mut schema = match schemas.len() {
            0 => json!({}),
            1 => schemas.remove(0),
            _ => json!({"anyOf": schemas}),
        };
        if let (Some(text), Some(schema)) = (explain(path), schema.as_object_mut()) {
            schema.insert("description".to_owned(), text.into());
        }
        schema
    }

    /// What a value was asked to be, with what is inside of it.
    fn completed(&self, path: &str, text: &str, explain: &dyn Fn(&str) -> Option<String>) -> Json {
        let mut schema: Json = serde_json::from_str(text).unwrap_or_default();
        if schema["type"] == "array" {
            schema["items"] = self.schema(&format!("{path}[]"), explain);
        }
        if schema["type"][0] == "object" {
            self.complete_section(path, &mut schema, explain);
        }
        schema
    }

    fn complete_section(&self, path: &str, schema: &mut Json, explain: &dyn Fn(&str) -> Option<String>) {
        let visits: Vec<&BTreeMap<String, bool>> =
            self.runs.iter().filter_map(|(_, _, asked)| asked.sections.get(path)).collect();
        let names: BTreeSet<&String> = visits.iter().flat_map(|keys| keys.keys()).collect();
        let always = |name: &String| visits.iter().all(|keys| keys.get(name) == Some(&true));
        let required: Vec<&String> = names.iter().copied().filter(|name| always(name)).collect();
        let mut properties = Map::new();
        for name in &names {
            if *name != "*" {
                properties.insert((*name).clone(), self.schema(&join(path, name), explain));
            }
        }
        schema["properties"] = Json::Object(properties);
        schema["additionalProperties"] =
            if names.iter().any(|name| *name == "*") { self.schema(&join(path, "*"), explain) } else { false.into() };
        if !required.is_empty() {
            schema["required"] = json!(required);
            // A section without keys lacks those.
            schema["type"] = "object".into();
        }
        let conditions = self.conditions(path, &required);
        if !conditions.is_empty() {
            schema["allOf"] = conditions.into();
        }
    }

    /// Which keys of the section at `path` belong to which pick in it.
    fn conditions(&self, path: &str, required: &[&String]) -> Vec<Json> {
        let places: BTreeSet<&String> = self.runs.iter().map(|(place, _, _)| place).collect();
        let inside = |place: &&&String| match place.strip_suffix('#') {
            Some(section) => section == path,
            None => parent(place) == Some(path),
        };
        let mut conditions = Vec::new();
        for place in places.iter().filter(inside) {
            let runs: Vec<(&str, &BTreeMap<String, bool>)> = self
                .runs
                .iter()
                .filter(|(at, _, _)| at == *place)
                .filter_map(|(_, pick, asked)| Some((pick.as_str(), asked.sections.get(path)?)))
                .collect();
            let of_any: BTreeSet<&String> = runs.iter().flat_map(|(_, keys)| keys.keys()).collect();
            for (pick, keys) in &runs {
                let needed: Vec<&String> = keys
                    .iter()
                    .filter(|(name, needed)| **needed && !required.contains(name))
                    .map(|(name, _)| name)
                    .collect();
                let foreign: Map<String, Json> = of_any
                    .iter()
                    .filter(|name| !keys.contains_key(**name))
                    .map(|name| ((*name).clone(), false.into()))
                    .collect();
                let then = match (needed.is_empty(), foreign.is_empty()) {
                    (true, true) => continue,
                    (false, true) => json!({"required": needed}),
                    (true, false) => json!({"properties": foreign}),
                    (false, false) => json!({"required": needed, "properties": foreign}),
                };
                conditions.push(json!({"if": condition(place, pick), "then": then}));
            }
        }
        conditions
    }
}

/// When `pick` is what stands at `place`.
fn condition(place: &str, pick: &str) -> Json {
    let name = place.rsplit_once('.').map_or(place, |(_, name)| name);
    if place.ends_with('#') {
        return json!({"required": [pick]});
    }
    let mut properties = Map::new();
    if pick == ABSENT {
        return json!({"not": {"required": [name]}});
    }
    properties.insert(name.to_owned(), json!({"const": pick}));
    json!({"properties": properties, "required": [name]})
}

/// The section that a key stands in.
fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('.') {
        Some((section, name)) if !name.contains(['[', '?']) => Some(section),
        None if !path.is_empty() && !path.contains(['[', '?', '#']) => Some(""),
        _ => None,
    }
}
