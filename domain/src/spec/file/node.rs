//! YAML as a tree that knows where everything stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

use super::FILE_BYTES_MAX;
use super::section::Finding;

/// A place in the text; line and column count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };

    fn of(location: serde_saphyr::Location) -> Self {
        Self { line: location.line().max(1), column: location.column().max(1) }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Boolean(bool),
    Integer(i128),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value. A key may stand twice in a map; its reader says so.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Position,
    pub(super) value: Node,
}

/// The deepest nesting; a job file needs three levels.
const DEPTH_MAX: usize = 16;

/// The most values; a job file has about a hundred.
const NODES_MAX: usize = 10_000;

/// The most anchors and the most aliases. Every alias repeats what its anchor names, so this bounds the work.
const ALIASES_MAX: usize = 32;

/// Parses `text`; what is no YAML, or too much of it, ends with one finding.
pub(super) fn parse(text: &str) -> Result<Node, Finding> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file is {} bytes long, at most {FILE_BYTES_MAX} are read", text.len());
        return Err(Finding::about_file(Position::START, message));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: NODES_MAX,
            max_recorded_anchor_bytes: FILE_BYTES_MAX,
            max_total_scalar_bytes: FILE_BYTES_MAX,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
            max_alias_expansions_per_anchor: ALIASES_MAX,
        },
        // Repeated keys, merge keys and numbers that are not finite are reported with everything else.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map_or(Position::START, Position::of);
        let message = error.to_string();
        let hint = match message.contains("tabs") {
            true => "indent with spaces",
            false => "is a bracket, a quote or an indentation before this place wrong?",
        };
        Finding::about_file(at, format!("not readable as YAML: {message}")).hinting(hint)
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value: kind, referenced, .. } = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { at: Position::of(referenced), kind })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Node>()? {
            entries.push(Entry { key: key.kind.as_key(), key_at: key.at, value: access.next_value()? });
        }
        Ok(Kind::Map(entries))
    }
}

impl Node {
    /// A tree that stands nowhere.
    pub(super) fn from_json(json: &Json) -> Self {
        let kind = match json {
            Json::Null => Kind::Null,
            Json::Bool(value) => Kind::Boolean(*value),
            Json::Number(number) => match number.as_i128() {
                Some(value) => Kind::Integer(value),
                None => Kind::Number(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Kind::Text(text.clone()),
            Json::Array(list) => Kind::List(list.iter().map(Node::from_json).collect()),
            Json::Object(map) => {
                let entry = |(key, value): (&String, &Json)| Entry {
                    key: key.clone(),
                    key_at: Position::START,
                    value: Node::from_json(value),
                };
                Kind::Map(map.iter().map(entry).collect())
            }
        };
        Self { at: Position::START, kind }
    }

    /// The tree without places. Numbers that JSON does not know become null; no job file that was accepted has one.
    pub(super) fn to_json(&self) -> Json {
        match &self.kind {
            Kind::Null => Json::Null,
            Kind::Boolean(value) => (*value).into(),
            Kind::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (Err(_), Ok(value)) => value.into(),
                (Err(_), Err(_)) => (*value as f64).into(),
            },
            Kind::Number(value) => (*value).into(),
            Kind::Text(text) => text.as_str().into(),
            Kind::List(list) => list.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }
}

impl Kind {
    /// The text of a key. Keys that are not text belong to no job file, but must be shown in a message.
    fn as_key(&self) -> String {
        match self {
            Kind::Text(text) => text.clone(),
            other => other.shown(),
        }
    }

    /// The value on one short line, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Kind::Null => "null".to_owned(),
            Kind::Boolean(value) => value.to_string(),
            Kind::Integer(value) => value.to_string(),
            Kind::Number(value) if value.is_nan() => ".nan".to_owned(),
            Kind::Number(value) if value.is_infinite() => if *value > 0.0 { ".inf" } else { "-.inf" }.to_owned(),
            Kind::Number(value) => format!("{value:?}"),
            Kind::Text(text) => shortened(text),
            Kind::List(list) => format!("a list of {}", list.len()),
            Kind::Map(entries) => format!("a section of {} keys", entries.len()),
        }
    }
}

/// The most characters of a text that are repeated in a message.
const SHOWN_CHARS_MAX: usize = 60;

/// `text` in quotes, on one line, cut off if it is long.
pub(super) fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    if chars.next().is_some() { format!("{start:?}...") } else { format!("{start:?}") }
}
