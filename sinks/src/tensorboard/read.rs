//! What stands in an event file, for tests.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;

use super::events::{Event, HParamsPluginData, ValueKind, What, checksum};

/// An event.
#[derive(Debug)]
pub(crate) enum Seen {
    Version(String),
    Scalars { step: u64, values: Vec<(String, f32)> },
    GoesBack { step: u64 },
    Inside { step: u64, tags: Vec<String> },
    Begins { tried: BTreeMap<String, String> },
    Ends { status: i32 },
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Version(version) => f.write_str(version),
            Seen::Scalars { step, values } => write!(f, "{step} {}={}", values[0].0, values[0].1),
            Seen::Inside { step, tags } => write!(f, "{step} {}", tags.join(", ")),
            Seen::GoesBack { step } => write!(f, "back to {step}"),
            Seen::Begins { tried } => {
                let tried: Vec<String> = tried.iter().map(|(key, value)| format!("{key:?}: {value}")).collect();
                write!(f, "begins {{{}}}", tried.join(", "))
            }
            Seen::Ends { status } => write!(f, "ends with {status}"),
        }
    }
}

/// All events. Every byte of a file belongs to one, and every checksum is right.
pub(crate) fn read(mut file: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let take = |file: &mut &[u8], count: usize| {
        let (taken, rest) = file.split_at(count);
        *file = rest;
        taken.to_vec()
    };
    while !file.is_empty() {
        let length = take(&mut file, 8);
        assert_eq!(take(&mut file, 4), checksum(&length).to_le_bytes());
        let data = take(&mut file, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(take(&mut file, 4), checksum(&data).to_le_bytes());
        let Event { wall_time, step, what } = Event::decode(&data[..]).unwrap();
        assert!(wall_time > 1_699_999_999.0, "{wall_time}");
        seen.push(event(step as u64, what.unwrap()));
    }
    seen
}

fn event(step: u64, what: What) -> Seen {
    let mut values = match what {
        What::FileVersion(version) => return Seen::Version(version),
        What::SessionLog(_) => return Seen::GoesBack { step },
        What::Summary(summary) => summary.value,
    };
    if values[0].tag.starts_with("_hparams_/") {
        let plugin = values.remove(0).metadata.unwrap().plugin_data.unwrap();
        assert_eq!(plugin.plugin_name, "hparams");
        let HParamsPluginData { session_start_info, session_end_info } =
            HParamsPluginData::decode(&plugin.content[..]).unwrap();
        return match (session_start_info, session_end_info) {
            (Some(start), None) => {
                let shown = |kind| match kind {
                    ValueKind::Number(x) => format!("{x}"),
                    ValueKind::Text(x) => format!("{x:?}"),
                    ValueKind::Boolean(x) => format!("{x}"),
                };
                Seen::Begins {
                    tried: start.hparams.into_iter().map(|(key, value)| (key, shown(value.kind.unwrap()))).collect(),
                }
            }
            (None, Some(end)) => Seen::Ends { status: end.status },
            other => panic!("{other:?}"),
        };
    }
    if values.iter().all(|value| value.histo.is_some() || value.image.is_some()) {
        return Seen::Inside { step, tags: values.into_iter().map(|value| value.tag).collect() };
    }
    let value = |value: super::events::SummaryValue| (value.tag, value.simple_value.unwrap());
    Seen::Scalars { step, values: values.into_iter().map(value).collect() }
}
