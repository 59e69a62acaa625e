//! What becomes of a trial at rest, and why, with the numbers that a person needs to check it.

use std::fmt;

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

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Continue { target } => write!(f, "goes on to budget {target}"),
            Decision::Pause => f.write_str("pauses"),
            Decision::Stop(reason) => write!(f, "stopped: {reason}"),
            Decision::Complete => f.write_str("complete"),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::BelowCut(c) => {
                write!(f, "{c}, and only the best {} of rung {} go on, cutoff {}", c.kept, c.rung, number(c.cutoff))?;
                c.write_peers(f)
            }
            StopReason::NotPromoted(c) if c.kept == 0 => {
                write!(f, "{c}, and rung {} has too few trials for one to be promoted", c.rung)?;
                c.write_peers(f)
            }
            StopReason::NotPromoted(c) => {
                write!(f, "{c}, and only the best {} of rung {} were promoted, ", c.kept, c.rung)?;
                write!(f, "cutoff {}", number(c.cutoff))?;
                c.write_peers(f)
            }
            StopReason::WorseThanPeers(c) => {
                write!(f, "{c}, worse than {}, which {} of its peers reach", number(c.cutoff), c.kept)?;
                c.write_peers(f)
            }
            StopReason::NotFinite { budget, loss } => {
                write!(f, "loss {} at budget {budget} is not finite, and such a trial never goes on", number(*loss))
            }
            StopReason::Patience { budget, evaluations, best, last } => write!(
                f,
                "no improvement on {} in {evaluations} evaluations; loss {} at budget {budget}",
                number(*best),
                number(*last)
            ),
            StopReason::Threshold { budget, loss, limit } => {
                write!(f, "loss {} at budget {budget} is worse than {}", number(*loss), number(*limit))
            }
            StopReason::Exploited { by, comparison } => {
                write!(f, "{comparison} of the population, replaced by a copy of trial {by}")
            }
            StopReason::SweepEnded { budget } => write!(f, "the sweep ended when it had rested at budget {budget}"),
        }
    }
}

impl Comparison {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.peers.capacity() * size_of::<u32>()
    }

    fn write_peers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.peers.is_empty() {
            return Ok(());
        }
        let listed: Vec<String> = self.peers.iter().map(u32::to_string).collect();
        let more = (self.of as usize - 1).saturating_sub(listed.len());
        write!(f, " (peers, best first: {}", listed.join(", "))?;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loss = number(self.loss);
        write!(f, "loss {loss} at budget {} is number {} of {}", self.budget, self.rank, self.of)
    }
}

/// A loss as people read it.
fn number(value: MetricValue) -> String {
    let value = f64::from(value);
    let magnitude = value.abs();
    if value != 0.0 && !(1e-3..1e5).contains(&magnitude) { format!("{value:.4e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sentences() {
        let comparison = Comparison {
            rung: 1,
            budget: 3,
            loss: 0.5.into(),
            rank: 20,
            of: 30,
            kept: 10,
            cutoff: 0.25.into(),
            peers: vec![4, 7],
        };
        let few = Comparison { kept: 0, of: 2, rank: 2, peers: vec![4], ..comparison.clone() };
        let table: Vec<(StopReason, &str)> = vec![
            (
                StopReason::BelowCut(Box::new(comparison.clone())),
                "loss 0.5000 at budget 3 is number 20 of 30, and only the best 10 of rung 1 go on, cutoff 0.2500 \
                 (peers, best first: 4, 7 and 27 more)",
            ),
            (
                StopReason::NotPromoted(Box::new(few)),
                "loss 0.5000 at budget 3 is number 2 of 2, and rung 1 has too few trials for one to be promoted \
                 (peers, best first: 4)",
            ),
            (
                StopReason::NotFinite { budget: 9, loss: f64::NAN.into() },
                "loss NaN at budget 9 is not finite, and such a trial never goes on",
            ),
            (
                StopReason::Patience { budget: 5, evaluations: 3, best: 1e-6.into(), last: 2.0.into() },
                "no improvement on 1.0000e-6 in 3 evaluations; loss 2.0000 at budget 5",
            ),
            (
                StopReason::Exploited { by: 8, comparison: Box::new(comparison) },
                "loss 0.5000 at budget 3 is number 20 of 30 of the population, replaced by a copy of trial 8",
            ),
        ];
        for (reason, expected) in table {
            assert_eq!(reason.to_string(), expected);
        }
    }
}
