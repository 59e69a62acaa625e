//! Typed values out of a tree, with everything that is wrong collected on the way.
//!
//! A reader that returns `None` has reported why. What it would have returned is missing, so checks that need it are
//! left out and the others go on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::json;

use super::describe::{Description, join};
use super::keys;
use super::node::{Entry, Kind, Node, Position, shortened};
use super::problem::{Problem, Problems};
use crate::search::Value as Scalar;
use crate::spec::sweep::check::shown_key as shown_key_of;

/// A problem before the file's name is known.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    at: Position,
    key: String,
    value: Option<String>,
    message: String,
    hint: Option<String>,
}

impl Finding {
    /// Something wrong with the file as a whole.
    pub(super) fn about_file(at: Position, message: String) -> Self {
        Self { at, key: String::new(), value: None, message, hint: None }
    }

    /// The same with a way out.
    pub(super) fn hinting(self, hint: &str) -> Self {
        Self { hint: Some(hint.to_owned()), ..self }
    }
}

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Collector {
    findings: RefCell<Vec<Finding>>,
    /// Set where nothing is read, but noted what would be.
    description: Option<Description>,
}

/// What stands everywhere in a file that is described.
pub(super) static NOTHING: Node = Node { at: Position::START, kind: Kind::Null };

impl Collector {
    /// One that notes what readers ask for.
    pub(super) fn describing(description: Description) -> Self {
        Self { description: Some(description), ..Self::default() }
    }

    pub(super) fn into_description(self) -> Description {
        self.description.unwrap_or_default()
    }

    pub(super) fn push(&self, finding: Finding) {
        if self.description.is_none() {
            self.findings.borrow_mut().push(finding);
        }
    }

    /// What was found in `file`, which says `text`.
    pub(super) fn into_problems(self, file: &str, text: &str) -> Option<Problems> {
        let named = |Finding { at, key, value, message, hint }| Problem {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            key,
            value,
            message,
            hint,
            source: String::new(),
        };
        Problems::new(self.findings.into_inner().into_iter().map(named).collect(), text)
    }
}

/// A map of keys known beforehand. Asking for a key makes it known; [`Section::finish`] reports all others.
pub(super) struct Section<'a> {
    path: String,
    at: Position,
    entries: &'a [Entry],
    known: RefCell<Vec<&'static str>>,
    problems: &'a Collector,
}

impl<'a> Section<'a> {
    /// The whole file; an empty one is a map without keys.
    pub(super) fn root(node: &'a Node, problems: &'a Collector) -> Option<Self> {
        let section = Value { path: String::new(), node, problems, may_be_absent: false }.section()?;
        // What the whole file lacks is reported at its beginning, wherever its first key stands.
        Some(Self { at: Position::START, ..section })
    }

    /// The whole file, where it is described.
    pub(super) fn described(problems: &'a Collector) -> Option<Self> {
        Self::root(&NOTHING, problems)
    }

    /// A map that stands at `path` in another file.
    pub(super) fn inside(path: &str, node: &'a Node, problems: &'a Collector) -> Option<Self> {
        Value { path: path.to_owned(), node, problems, may_be_absent: false }.section()
    }

    /// Makes keys known that no one asks for by name.
    pub(super) fn know(&self, names: &[&'static str]) {
        self.known.borrow_mut().extend(names);
    }

    /// Reads every value of a map whose keys are names of the user's. A name that stands twice is reported.
    pub(super) fn each<T>(&self, read: impl Fn(&'a str, &Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        if self.problems.description.is_some() {
            return self.value("*", false).and_then(|value| read("*", &value)).map(|one| vec![one]);
        }
        let mut seen = BTreeSet::new();
        let mut all = Some(Vec::new());
        for Entry { key, key_at, value } in self.entries {
            let path = self.path_of(key);
            let one = if seen.insert(key) {
                read(key, &Value { path, node: value, problems: self.problems, may_be_absent: false })
            } else {
                let message = "stands here a second time".to_owned();
                self.problems.push(Finding { at: *key_at, key: path, value: None, message, hint: None });
                None
            };
            all = all.zip(one).map(|(mut all, one)| {
                all.push(one);
                all
            });
        }
        all
    }

    /// The value of a key that must be there.
    pub(super) fn required<T>(&self, name: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        match self.value(name, true) {
            Some(value) => read(&value),
            None => self.problem(name, "is required", keys::meaning(&self.path_of(name))),
        }
    }

    /// The value of a key, or `default` where the key is absent.
    pub(super) fn or<T>(
        &self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        self.value(name, false).map_or(Some(default), |value| read(&value))
    }

    /// The value of a key that may be absent or null.
    pub(super) fn optional<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.value(name, false) {
            Some(value) if value.description().is_some() => {
                value.describe(&json!({"type": "null"}));
                read(&value).map(Some)
            }
            Some(value) if !matches!(value.node.kind, Kind::Null) => read(&value).map(Some),
            _ => Some(None),
        }
    }

    /// The section under a key; one without keys where it is absent or, its problem reported, no section.
    pub(super) fn section_or_empty(&self, name: &'static str) -> Section<'a> {
        self.value(name, false).and_then(|value| value.section()).unwrap_or_else(|| Section {
            path: self.path_of(name),
            at: self.at,
            entries: &[],
            known: RefCell::default(),
            problems: self.problems,
        })
    }

    /// Whether the key is there.
    pub(super) fn has(&self, name: &str) -> bool {
        if let Some(description) = &self.problems.description {
            return description.has(&self.path, name);
        }
        self.entries.iter().any(|entry| entry.key == name)
    }

    /// Reports what is wrong with the value of `name`, or with its absence.
    pub(super) fn problem<T>(&self, name: &'static str, message: impl Into<String>, hint: Option<String>) -> Option<T> {
        self.report(name, message, hint);
        None
    }

    /// As [`Section::problem`], where nothing is read that could be missing.
    pub(super) fn report(&self, name: &'static str, message: impl Into<String>, hint: Option<String>) {
        if self.problems.description.is_some() {
            return;
        }
        if let Some(value) = self.value(name, false) {
            return value.report(message, hint);
        }
        let (at, key) = (self.at, self.path_of(name));
        self.problems.push(Finding { at, key, value: None, message: message.into(), hint });
    }

    /// Reports every key that no reader asked for, and every key that stands twice. Whether there are none.
    pub(super) fn finish(&self) -> bool {
        let known = self.known.borrow();
        let mut seen = BTreeSet::new();
        let mut is_clean = true;
        for Entry { key, key_at, .. } in self.entries {
            let (message, hint) = if !known.contains(&key.as_str()) {
                ("unknown key", Some(suggestion(key, &known)))
            } else if !seen.insert(key) {
                ("stands here a second time", None)
            } else {
                continue;
            };
            self.problems.push(Finding {
                at: *key_at,
                key: self.path_of(shown_key(key).as_str()),
                value: None,
                message: message.to_owned(),
                hint,
            });
            is_clean = false;
        }
        is_clean
    }

    /// The value of a key that is `is_required` or not, if it is there.
    fn value(&self, name: &'static str, is_required: bool) -> Option<Value<'a>> {
        if let Some(description) = &self.problems.description {
            let is_there = description.key(&self.path, name, is_required);
            let (path, problems) = (self.path_of(name), self.problems);
            return is_there.then_some(Value { path, node: &NOTHING, problems, may_be_absent: !is_required });
        }
        let mut known = self.known.borrow_mut();
        if !known.contains(&name) {
            known.push(name);
        }
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        Some(Value {
            path: self.path_of(name),
            node: &entry.value,
            problems: self.problems,
            may_be_absent: !is_required,
        })
    }

    fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }
}

/// A value that is there.
pub(super) struct Value<'a> {
    path: String,
    node: &'a Node,
    problems: &'a Collector,
    may_be_absent: bool,
}

impl<'a> Value<'a> {
    fn description(&self) -> Option<&'a Description> {
        self.problems.description.as_ref()
    }

    /// Notes what this value may be, if that is what is wanted; whether it is.
    fn describe(&self, schema: &serde_json::Value) -> bool {
        self.description().map(|description| description.value(&self.path, schema)).is_some()
    }

    /// Reports what is wrong with this value.
    pub(super) fn problem<T>(&self, message: impl Into<String>, hint: Option<String>) -> Option<T> {
        self.report(message, hint);
        None
    }

    /// As [`Value::problem`], where nothing is read that could be missing.
    pub(super) fn report(&self, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Finding {
            at: self.node.at,
            key: self.path.clone(),
            value: Some(self.node.kind.shown()),
            message: message.into(),
            hint,
        });
    }

    fn is_described_as(&self, kind: &str) -> bool {
        self.description().is_some_and(|description| description.is_kind(&self.path, kind))
    }

    pub(super) fn is_section(&self) -> bool {
        self.is_described_as("section") || matches!(self.node.kind, Kind::Map(_))
    }

    pub(super) fn is_list(&self) -> bool {
        self.is_described_as("list") || matches!(self.node.kind, Kind::List(_))
    }

    /// The tree below.
    pub(super) fn node(&self) -> &'a Node {
        self.node
    }

    pub(super) fn is_text(&self) -> bool {
        self.is_described_as("text") || matches!(self.node.kind, Kind::Text(_))
    }

    pub(super) fn is_number(&self) -> bool {
        self.is_described_as("number") || matches!(self.node.kind, Kind::Integer(_) | Kind::Number(_))
    }

    /// A map. A key with nothing after it is one without keys, so that all its lines can be commented out.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        if let Some(description) = self.description() {
            description.section(&self.path);
        }
        let entries: &[Entry] = match &self.node.kind {
            Kind::Map(entries) => entries,
            Kind::Null => &[],
            _ => return self.problem("must be a section of keys and values", None),
        };
        let (path, at) = (self.path.clone(), self.node.at);
        Some(Section { path, at, entries, known: RefCell::default(), problems: self.problems })
    }

    /// A list whose elements `read` reads.
    pub(super) fn list<T>(&self, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        if self.describe(&json!({"type": "array"})) {
            let (path, problems) = (format!("{}[]", self.path), self.problems);
            return read(&Value { path, node: &NOTHING, problems, may_be_absent: false }).map(|one| vec![one]);
        }
        let Kind::List(nodes) = &self.node.kind else {
            return self.problem("must be a list", None);
        };
        let element = |(i, node)| Value {
            path: format!("{}[{i}]", self.path),
            node,
            problems: self.problems,
            may_be_absent: false,
        };
        let read_all: Vec<Option<T>> = nodes.iter().enumerate().map(element).map(|value| read(&value)).collect();
        read_all.into_iter().collect()
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        if self.describe(&json!({"type": "string"})) {
            return None;
        }
        match &self.node.kind {
            Kind::Text(text) => Some(text),
            Kind::Boolean(_) | Kind::Integer(_) | Kind::Number(_) => {
                self.problem("must be text", Some("put it in quotes".to_owned()))
            }
            Kind::Null | Kind::List(_) | Kind::Map(_) => self.problem("must be text", None),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        if self.describe(&json!({"type": "boolean"})) {
            return None;
        }
        match self.node.kind {
            Kind::Boolean(value) => Some(value),
            _ => self.problem("must be true or false", None),
        }
    }

    /// One of the words of `choices`.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        if let Some(description) = self.description() {
            return Some(choices[description.word(&self.path, &words, self.may_be_absent)].1);
        }
        let Kind::Text(text) = &self.node.kind else {
            return self.problem(must_be(&words), None);
        };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| word == text) {
            return Some(*choice);
        }
        self.problem(must_be(&words), nearest(text, &words).map(|word| format!("did you mean {word}?")))
    }

    pub(super) fn integer(&self, allowed: RangeInclusive<u64>) -> Option<u64> {
        if self.describe(&json!({"type": "integer", "minimum": allowed.start(), "maximum": allowed.end()})) {
            return None;
        }
        if let Kind::Integer(value) = self.node.kind
            && let Ok(value) = u64::try_from(value)
            && allowed.contains(&value)
        {
            return Some(value);
        }
        let hint = self.hint_of_quotes();
        self.problem(format!("must be a whole number from {} to {}", allowed.start(), allowed.end()), hint)
    }

    /// A way out for a number that stands in quotes.
    fn hint_of_quotes(&self) -> Option<String> {
        let is_quoted = matches!(&self.node.kind, Kind::Text(text) if text.parse::<f64>().is_ok_and(f64::is_finite));
        is_quoted.then(|| "leave the quotes out".to_owned())
    }

    /// A whole number with a sign.
    pub(super) fn signed(&self) -> Option<i64> {
        if self.describe(&json!({"type": "integer"})) {
            return None;
        }
        match self.node.kind {
            Kind::Integer(value) if i64::try_from(value).is_ok() => i64::try_from(value).ok(),
            _ => self.problem("must be a whole number", None),
        }
    }

    /// A single value of any kind.
    pub(super) fn scalar(&self) -> Option<Scalar> {
        if self.describe(&json!({"type": ["number", "string", "boolean"]})) {
            return None;
        }
        match &self.node.kind {
            Kind::Boolean(value) => Some(Scalar::Boolean(*value)),
            Kind::Integer(_) => self.signed().map(Scalar::Integer),
            Kind::Number(_) => self.number(Interval::ANY).map(Scalar::Number),
            Kind::Text(text) => Some(Scalar::Text(text.clone())),
            Kind::Null | Kind::List(_) | Kind::Map(_) => self.problem("must be a number, text, true or false", None),
        }
    }

    /// # Panics
    /// If `allowed` goes beyond 32 bits.
    pub(super) fn integer_u32(&self, allowed: RangeInclusive<u64>) -> Option<u32> {
        self.integer(allowed).map(|value| u32::try_from(value).expect("the bounds asked for fit 32 bits"))
    }

    pub(super) fn number(&self, allowed: Interval) -> Option<f64> {
        if self.describe(&allowed.schema()) {
            return None;
        }
        let value = match self.node.kind {
            Kind::Integer(value) => value as f64,
            Kind::Number(value) => value,
            _ => return self.problem(format!("must be a number{}", allowed.condition), self.hint_of_quotes()),
        };
        if !value.is_finite() {
            return self.problem(format!("must be a finite number{}", allowed.condition), None);
        }
        if !(allowed.contains)(value) {
            return self.problem(format!("must be a number{}", allowed.condition), None);
        }
        Some(value)
    }

    /// A number that also keeps its bounds when rounded to single precision.
    pub(super) fn number_f32(&self, allowed: Interval) -> Option<f32> {
        let rounded = self.number(allowed)? as f32;
        if !rounded.is_finite() || !(allowed.contains)(f64::from(rounded)) {
            return self.problem("is too large or too small for single precision", None);
        }
        Some(rounded)
    }
}

/// Reports what is wrong at the end of a way of keys, of which an element of a list is `[0]`; where the way breaks off, at
/// the last that is there.
pub(super) fn report_at(root: &Node, problems: &Collector, way: &[String], message: String, hint: Option<String>) {
    let mut node = root;
    let mut found = 0;
    for part in way {
        let next = match &node.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == *part).map(|entry| &entry.value),
            Kind::List(list) => {
                let index = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')?.parse::<usize>().ok());
                index.and_then(|index| list.get(index))
            }
            Kind::Null | Kind::Boolean(_) | Kind::Integer(_) | Kind::Number(_) | Kind::Text(_) => None,
        };
        let Some(next) = next else { break };
        (node, found) = (next, found + 1);
    }
    // A key is missing in a map; anything else is itself what is wrong.
    let is_missing = found < way.len() && matches!(node.kind, Kind::Map(_) | Kind::Null);
    let key = shown_key_of(if is_missing { way } else { &way[..found] });
    let value = (!is_missing).then(|| node.kind.shown());
    let at = if found == 0 { Position::START } else { node.at };
    problems.push(Finding { at, key, value, message, hint });
}

/// Which numbers are allowed.
#[derive(Clone, Copy)]
pub(super) struct Interval {
    /// What follows "must be a number".
    condition: &'static str,
    contains: fn(f64) -> bool,
    /// The same as keywords of JSON Schema.
    bounds: &'static [(&'static str, i32)],
}

impl Interval {
    pub(super) const ANY: Self = Self { condition: "", contains: |_| true, bounds: &[] };
    pub(super) const POSITIVE: Self =
        Self { condition: " > 0", contains: |x| x > 0.0, bounds: &[("exclusiveMinimum", 0)] };
    pub(super) const NOT_NEGATIVE: Self =
        Self { condition: " >= 0", contains: |x| x >= 0.0, bounds: &[("minimum", 0)] };
    pub(super) const INSIDE_UNIT: Self = Self {
        condition: " > 0 and < 1",
        contains: |x| x > 0.0 && x < 1.0,
        bounds: &[("exclusiveMinimum", 0), ("exclusiveMaximum", 1)],
    };
    pub(super) const UNIT_BELOW_ONE: Self = Self {
        condition: " >= 0 and < 1",
        contains: |x| (0.0..1.0).contains(&x),
        bounds: &[("minimum", 0), ("exclusiveMaximum", 1)],
    };
    pub(super) const UNIT_ABOVE_ZERO: Self = Self {
        condition: " > 0 and <= 1",
        contains: |x| x > 0.0 && x <= 1.0,
        bounds: &[("exclusiveMinimum", 0), ("maximum", 1)],
    };

    fn schema(self) -> serde_json::Value {
        let mut schema = json!({"type": "number"});
        for (keyword, bound) in self.bounds {
            schema[keyword] = (*bound).into();
        }
        schema
    }
}

fn must_be(words: &[&str]) -> String {
    match words {
        [only] => format!("must be {only}"),
        [rest @ .., last] => format!("must be {} or {last}", rest.join(", ")),
        [] => unreachable!("a choice has words"),
    }
}

fn suggestion(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(word) => format!("did you mean {word}?"),
        None => {
            let mut known = known.to_vec();
            known.sort_unstable();
            format!("known keys: {}", known.join(", "))
        }
    }
}

/// The longest text that a similar word is looked for; no key is longer, and comparing is quadratic.
const SIMILAR_BYTES_MAX: usize = 32;

/// The word most like `text`, if one is like it: two edits apart at most, and fewer than half its letters.
pub(in crate::spec) fn nearest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    if text.len() > SIMILAR_BYTES_MAX {
        return None;
    }
    let text = text.to_ascii_lowercase().replace('-', "_");
    let like = |word: &&str| edits(&text, &word.replace('-', "_"));
    let (distance, word) = words.iter().map(|word| (like(word), *word)).min()?;
    (distance <= 2 && 2 * distance < text.chars().count()).then_some(word)
}

/// The Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A key as it is shown in a message: plain, unless it would break the line or fill it.
fn shown_key(key: &str) -> String {
    let plain = key.len() <= SIMILAR_BYTES_MAX && !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic());
    if plain { key.to_owned() } else { shortened(key) }
}
