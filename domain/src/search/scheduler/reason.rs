//! What becomes of a trial at rest, and why, with the numbers that a person needs to check it.

use serde::{Deserialize, Serialize};

use crate::engine::MetricValue;

/// So many peers are listed by number in a reason; their count is always exact.
pub const PEERS_LISTED_MAX: usize = 16;

/// What becomes of a trial that came to rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It trains on at once, up to `target`.
    Continue {
        /// The budget of its next rest.
        target: u64,
    },
    /// It gives its slot away; [`crate::search::Next`] says later what becomes of it.
    Pause,
    /// It is not worth more.
    Stop(StopReason),
    /// It has its full budget.
    Complete,
}

/// Why a trial was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum StopReason {
    /// It is not among the best of its rung (stopping ASHA).
    BelowCut(Box<Comparison>),
    /// It waited in its rung and was never among the best of it (promoting ASHA, Hyperband).
    NotPromoted(Box<Comparison>),
    /// It is worse than the given share of its peers at the same budget (median and percentile rule).
    WorseThanPeers(Box<Comparison>),
    /// Its loss is not finite, and such a trial is never promoted.
    NotFinite {
        /// Where it was measured.
        budget: u64,
        /// The loss.
        loss: MetricValue,
    },
    /// Too many evaluations in a row brought no improvement.
    Patience {
        /// Where the last evaluation was made.
        budget: u64,
        /// Evaluations without an improvement.
        evaluations: u32,
        /// The best loss before them.
        best: MetricValue,
        /// The last loss.
        last: MetricValue,
    },
    /// Its loss is beyond what is allowed at this budget.
    Threshold {
        /// Where it was measured.
        budget: u64,
        /// The loss.
        loss: MetricValue,
        /// The worst that is allowed.
        limit: MetricValue,
    },
    /// A better member of the population is copied in its place.
    Exploited {
        /// The trial whose checkpoint is copied.
        by: u32,
        /// The comparison of the population.
        comparison: Box<Comparison>,
    },
    /// A limit of the sweep leaves nothing for it.
    SweepEnded {
        /// Its budget so far.
        budget: u64,
    },
}

/// A trial among others at the same budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The rung, counted from 0; with the median and percentile rule the number of rests before this one.
    pub rung: u32,
    /// The budget at which all were measured.
    pub budget: u64,
    /// What was compared: the trial's loss, or the best of its losses so far.
    pub loss: MetricValue,
    /// Its place, 1 is the best; equal losses are ordered by trial number.
    pub rank: u32,
    /// How many were compared, itself included.
    pub of: u32,
    /// How many of them go on; with the median and percentile rule, how many are at least as good as the cutoff.
    pub kept: u32,
    /// The loss of the worst that goes on; not finite if none does.
    pub cutoff: MetricValue,
    /// The best of the others, best first, at most [`PEERS_LISTED_MAX`].
    pub peers: Vec<u32>,
}

impl StopReason {
    /// The budget at which the trial was stopped.
    pub fn budget(&self) -> u64 {
        match self {
            StopReason::BelowCut(c) | StopReason::NotPromoted(c) | StopReason::WorseThanPeers(c) => c.budget,
            StopReason::Exploited { comparison, .. } => comparison.budget,
            StopReason::NotFinite { budget, .. }
            | StopReason::Patience { budget, .. }
            | StopReason::Threshold { budget, .. }
            | StopReason::SweepEnded { budget } => *budget,
        }
    }

    /// The bytes that it holds beside itself.
    pub fn heap_bytes(&self) -> usize {
        match self {
            StopReason::BelowCut(c) | StopReason::NotPromoted(c) | StopReason::WorseThanPeers(c) => c.bytes(),
            StopReason::Exploited { comparison, .. } => comparison.bytes(),
            StopReason::NotFinite { .. }
            | StopReason::Patience { .. }
            | StopReason::Threshold { .. }
            | StopReason::SweepEnded { .. } => 0,
        }
    }
}

impl Comparison {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.peers.capacity() * size_of::<u32>()
    }
}
