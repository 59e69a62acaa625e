//! What stands beside the tensors of a saved state, in the metadata of each of its safetensors files: how far it had
//! come, the state of early stopping, and what the run was. With it, a saved state is the whole run.

use std::collections::BTreeMap;

use domain::random;
use domain::record::Position;
use domain::spec::JobSpec;
use domain::stop::{Stopper, Verdict};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Raise when the meaning of a key changes.
const VERSION: u32 = 1;
/// Every key begins with this.
const PREFIX: &str = "phalanx.";

/// How far a run has come, apart from its tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Progress {
    pub(crate) position: Position,
    /// Decides after each evaluation whether the run ends.
    pub(crate) stopper: Stopper,
    /// What it decided last.
    pub(crate) verdict: Verdict,
}

/// Everything that determines a run's result, by name, in a canonical form. A state of another run is refused by it.
///
/// Left out is what must not change the result: the run's name, the number of workers, its priority, when states are saved,
/// the limit of time, and what is shown of the inside of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity(BTreeMap<&'static str, String>);

impl Identity {
    pub(crate) fn new(spec: &JobSpec, train_samples: u64, holdout_samples: u64) -> Self {
        let JobSpec {
            name: _,
            seed,
            workers: _,
            min_workers: _,
            priority: _,
            data,
            model,
            train,
            optimizer,
            schedule,
            eval,
            checkpoint: _,
            early_stopping,
            inspect: _,
        } = spec;
        let mut early_stopping = early_stopping.clone();
        early_stopping.max_seconds = None;
        Self(BTreeMap::from([
            ("random_version", random::VERSION.to_string()),
            ("seed", seed.to_string()),
            ("data", json(data)),
            ("model", json(model)),
            ("train", json(train)),
            ("optimizer", json(optimizer)),
            ("schedule", json(schedule)),
            ("eval", json(eval)),
            ("early_stopping", json(&early_stopping)),
            ("train_samples", train_samples.to_string()),
            ("holdout_samples", holdout_samples.to_string()),
        ]))
    }
}

impl Identity {
    /// The whole identity in 32 bytes.
    pub(crate) fn digest(&self) -> [u8; 32] {
        *blake3::hash(json(&self.0).as_bytes()).as_bytes()
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the parts of a state have only string keys")
}

/// Why a saved state is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SidecarError {
    #[error("the saved state has no entry {key}")]
    Missing { key: String },
    #[error("the saved state's entry {key} ({found:?}) cannot be read")]
    Invalid { key: String, found: String, source: serde_json::Error },
    #[error("the saved state was made with {what} = {found}, this run has {expected}")]
    Differs { what: &'static str, found: String, expected: String },
}

/// The metadata of a state.
pub(crate) fn write(progress: &Progress, identity: &Identity) -> BTreeMap<String, String> {
    let Progress { position, stopper, verdict } = progress;
    let own = [
        ("version", VERSION.to_string()),
        ("position", json(position)),
        ("stopper", json(stopper)),
        ("verdict", json(verdict)),
    ];
    let Identity(identity) = identity.clone();
    own.into_iter().chain(identity).map(|(key, value)| (format!("{PREFIX}{key}"), value)).collect()
}

/// Reads the metadata of a state, which must be one of the run `identity`.
pub(crate) fn read(metadata: &BTreeMap<String, String>, identity: &Identity) -> Result<Progress, SidecarError> {
    expect(metadata, "version", &VERSION.to_string())?;
    for (what, expected) in &identity.0 {
        expect(metadata, what, expected)?;
    }
    Ok(Progress {
        position: parse(metadata, "position")?,
        stopper: parse(metadata, "stopper")?,
        verdict: parse(metadata, "verdict")?,
    })
}

/// How far a state has come, whatever run it is of.
pub(crate) fn read_position(metadata: &BTreeMap<String, String>) -> Result<Position, SidecarError> {
    expect(metadata, "version", &VERSION.to_string())?;
    parse(metadata, "position")
}

fn get<'a>(metadata: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str, SidecarError> {
    let key = format!("{PREFIX}{key}");
    metadata.get(&key).map(String::as_str).ok_or(SidecarError::Missing { key })
}

fn expect(metadata: &BTreeMap<String, String>, what: &'static str, expected: &str) -> Result<(), SidecarError> {
    let found = get(metadata, what)?;
    if found == expected {
        return Ok(());
    }
    Err(SidecarError::Differs { what, found: found.to_owned(), expected: expected.to_owned() })
}

fn parse<T: DeserializeOwned>(metadata: &BTreeMap<String, String>, key: &str) -> Result<T, SidecarError> {
    let found = get(metadata, key)?;
    serde_json::from_str(found).map_err(|source| SidecarError::Invalid {
        key: format!("{PREFIX}{key}"),
        found: found.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::digits;
    use domain::ids::Step;

    fn progress() -> Progress {
        let mut stopper = Stopper::new(&digits().early_stopping);
        let _ = stopper.observe(Step(3), f64::NAN, 0.1);
        let verdict = stopper.observe(Step(6), 0.1 + 0.2, 0.1);
        Progress { position: Position { step: Step(6), evaluated: true }, stopper, verdict }
    }

    #[test]
    fn a_sidecar_comes_back_as_it_was() {
        let identity = Identity::new(&digits(), 100, 10);
        assert_eq!(read(&write(&progress(), &identity), &identity).unwrap(), progress());
    }

    #[test]
    fn a_state_of_another_run_is_refused_with_both_values() {
        let identity = Identity::new(&digits(), 100, 10);
        let metadata = write(&progress(), &identity);
        let mut other = digits();
        other.seed += 1;
        let cases = [
            (Identity::new(&digits(), 99, 10), "the saved state was made with train_samples = 100, this run has 99"),
            (Identity::new(&other, 100, 10), "the saved state was made with seed = 7, this run has 8"),
        ];
        for (identity, message) in cases {
            assert_eq!(read(&metadata, &identity).unwrap_err().to_string(), message);
        }
        let mut renamed = digits();
        renamed.name = "another-name".parse().unwrap();
        renamed.workers = 3;
        assert!(read(&metadata, &Identity::new(&renamed, 100, 10)).is_ok(), "these do not change the result");
    }

    #[test]
    fn what_is_missing_or_garbled_is_named() {
        let identity = Identity::new(&digits(), 100, 10);
        for key in ["phalanx.version", "phalanx.position", "phalanx.stopper", "phalanx.verdict", "phalanx.train"] {
            let mut metadata = write(&progress(), &identity);
            metadata.insert(key.to_owned(), "{".to_owned());
            let garbled = read(&metadata, &identity).unwrap_err().to_string();
            assert!(garbled.contains(key.trim_start_matches(PREFIX)), "{garbled}");
            metadata.remove(key);
            assert_eq!(
                read(&metadata, &identity).unwrap_err().to_string(),
                format!("the saved state has no entry {key}")
            );
        }
    }
}
