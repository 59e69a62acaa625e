use serde::{Deserialize, Serialize};

use super::Decision;

/// Options of no scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoneSpec {
    /// The budget of every trial.
    pub max: u64,
}

impl Default for NoneSpec {
    fn default() -> Self {
        Self { max: 100 }
    }
}

/// Every trial gets its full budget.
#[derive(Clone, Debug)]
pub struct Unscheduled {
    max: u64,
}

impl Unscheduled {
    /// A scheduler that decides nothing.
    pub fn new(spec: &NoneSpec) -> Self {
        Self { max: spec.max.max(1) }
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    pub(super) fn rested(&self, budget: u64) -> Decision {
        if budget >= self.max { Decision::Complete } else { Decision::Continue { target: self.max } }
    }
}
