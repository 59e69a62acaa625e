//! Names and numbers with a meaning. A name is checked once, here; everything later may build paths from it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest run name, in bytes. Names become folder names and labels; 64 keeps both readable.
pub const RUN_NAME_BYTES_MAX: usize = 64;

/// The name of a run: ASCII letters, digits, `-`, `_` and `.`, beginning with a letter or digit, at most
/// [`RUN_NAME_BYTES_MAX`] bytes. Such a name is a safe path component on every file system. Copies share the text: a sweep
/// has many runs, and each is named in many places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunName(Arc<str>);

/// Why a text is not a [`RunName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunNameError {
    /// Nothing was given.
    #[error("a run name must not be empty")]
    Empty,
    /// More than [`RUN_NAME_BYTES_MAX`] bytes.
    #[error("run name is {bytes} bytes long, at most {RUN_NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// The length that was given.
        bytes: usize,
    },
    /// A character outside the allowed set, or a first character that is neither letter nor digit.
    #[error("run name {name:?} may hold only letters, digits, '-', '_' and '.', and must begin with a letter or digit")]
    BadCharacter {
        /// The text that was given.
        name: String,
    },
}

impl RunName {
    /// Checks `name`.
    pub fn new(name: impl Into<String>) -> Result<Self, RunNameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(RunNameError::Empty);
        }
        if name.len() > RUN_NAME_BYTES_MAX {
            return Err(RunNameError::TooLong { bytes: name.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins_well || !name.chars().all(allowed) {
            return Err(RunNameError::BadCharacter { name });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RunName {
    type Err = RunNameError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl TryFrom<String> for RunName {
    type Error = RunNameError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        Self::new(s)
    }
}

impl From<RunName> for String {
    fn from(name: RunName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// One training of one configuration inside a run. A job is a run with the single trial 0. Written `RUN/NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrialId {
    /// The run it belongs to.
    pub run: RunName,
    /// Its number in the run, from 0.
    pub number: u32,
}

impl fmt::Display for TrialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.number)
    }
}

/// Why a text is not a [`TrialId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trial id {0:?} is not of the form RUN/NUMBER")]
pub struct TrialIdError(String);

impl FromStr for TrialId {
    type Err = TrialIdError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || TrialIdError(s.to_owned());
        let (run, number) = s.split_once('/').ok_or_else(bad)?;
        Ok(Self { run: run.parse().map_err(|_| bad())?, number: number.parse().map_err(|_| bad())? })
    }
}

impl TryFrom<String> for TrialId {
    type Error = TrialIdError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<TrialId> for String {
    fn from(id: TrialId) -> Self {
        id.to_string()
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The number after this one.
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    };
}

number!(
    /// A worker process's session: drawn at random by the worker when it starts, so a restarted process is a new one.
    WorkerId(u64)
);
number!(
    /// Which formation of a trial's group: each change of membership takes the next one, and older ones are refused.
    Generation(u64)
);
number!(
    /// Optimizer steps completed. The state "at step 0" is the initialisation.
    Step(u64)
);
number!(
    /// A worker's place in a group, from 0.
    Rank(u32)
);
number!(
    /// Milliseconds since the Unix epoch, as the caller measured them. The domain never reads a clock.
    Time(u64)
);

impl WorkerId {
    /// Eight hexadecimal digits of it, enough for people to tell workers apart.
    pub fn short(self) -> String {
        format!("{:08x}", self.0 as u32)
    }
}

impl Time {
    /// The time `ms` milliseconds later.
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_names_are_safe_path_components() {
        for good in ["a", "digits-vit", "Run_1.2", "0"] {
            assert_eq!(RunName::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "..", ".hidden", "../../x", "a/b", "a\\b", "a b", "-x", "ü", "a\0", "a\n"] {
            assert!(RunName::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(RunName::new("a".repeat(65)), Err(RunNameError::TooLong { bytes: 65 }));
    }

    #[test]
    fn trial_ids_round_trip() {
        let id: TrialId = "digits-vit/3".parse().unwrap();
        assert_eq!(id.to_string(), "digits-vit/3");
        assert!("digits".parse::<TrialId>().is_err());
        assert!("../x/0".parse::<TrialId>().is_err());
    }
}
