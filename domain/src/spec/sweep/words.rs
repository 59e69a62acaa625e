//! What a sweep measured and decided, in the words and units of its specification.

use crate::engine::MetricValue;
use crate::search::scheduler::{Comparison, Decision, StopReason};
use crate::search::study::{AfterFailure, Fact};
use crate::spec::EvalMetric;
use crate::spec::sweep::{Objective, Unit};

impl Objective {
    /// A value of it, as people read it: `accuracy 98.05 %`.
    pub fn told(self, value: f64) -> String {
        match self.metric {
            EvalMetric::EvalAccuracy => format!("accuracy {:.2} %", value * 100.0),
            EvalMetric::EvalLoss => format!("eval loss {value:.4}"),
        }
    }
}

/// What a sweep is for and what its budgets count, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words<'a> {
    /// What is measured.
    pub objectives: &'a [Objective],
    /// What budgets count.
    pub unit: Option<Unit>,
}

impl Words<'_> {
    /// A budget: `1 epoch`, `30 steps`.
    pub fn length(&self, budget: u64) -> String {
        let ending = if budget == 1 { "" } else { "s" };
        match self.unit {
            Some(Unit::Epochs) => format!("{budget} epoch{ending}"),
            Some(Unit::Steps) => format!("{budget} step{ending}"),
            None => format!("budget {budget}"),
        }
    }

    /// Losses, as the values of the objectives that they were made from.
    pub fn losses(&self, losses: &[MetricValue]) -> String {
        let shown = losses.iter().enumerate().map(|(at, loss)| loss_text(*loss, self.objectives.get(at)));
        shown.collect::<Vec<_>>().join(", ")
    }

    /// What became of a trial at rest.
    pub fn decision(&self, decision: &Decision) -> String {
        match decision {
            Decision::Continue { target } => format!("goes on to {}", self.length(*target)),
            Decision::Pause => "rests, and may be taken up again".to_owned(),
            Decision::Complete => "complete".to_owned(),
            Decision::Stop(reason) => format!("stopped: {}", self.stop(reason)),
        }
    }

    /// What happened to a trial; `None` for what is about no trial.
    pub fn fact(&self, fact: &Fact) -> Option<String> {
        let length = |budget: u64| self.length(budget);
        Some(match fact {
            Fact::Started { target, parent: None, .. } => format!("started, to rest after {}", length(*target)),
            Fact::Started { target, parent: Some(parent), .. } => {
                let (trial, budget) = (parent.trial, length(parent.budget));
                format!("started as a copy of trial {trial} after {budget}, to rest after {}", length(*target))
            }
            Fact::Resumed { target, .. } => format!("taken up again, to rest after {}", length(*target)),
            Fact::Rested { budget, losses, decision, .. } => {
                format!("rested after {} with {}: {}", length(*budget), self.losses(losses), self.decision(decision))
            }
            Fact::Failed { cause, after, .. } => match after {
                AfterFailure::Retry { .. } => format!("an attempt failed, and another is made: {cause}"),
                AfterFailure::Failed { .. } => format!("failed: {cause}"),
            },
            Fact::Ended { reason, .. } => format!("stopped: {}", self.stop(reason)),
            Fact::OutOfTime { .. } | Fact::Waited | Fact::Finished { .. } => return None,
        })
    }

    /// Why a trial was stopped.
    pub fn stop(&self, reason: &StopReason) -> String {
        let value = |loss: MetricValue| loss_text(loss, self.objectives.first());
        let length = |budget: u64| self.length(budget);
        let place =
            |c: &Comparison| format!("{} after {} is number {} of {}", value(c.loss), length(c.budget), c.rank, c.of);
        match reason {
            StopReason::BelowCut(c) | StopReason::NotPromoted(c) if c.kept == 0 => {
                format!("{} of rung {}, which has too few trials for one to go on{}", place(c), c.rung, peers(c))
            }
            StopReason::BelowCut(c) | StopReason::NotPromoted(c) => {
                let (cutoff, kept) = (value(c.cutoff), c.kept);
                let who = if kept == 1 { "the best goes on".to_owned() } else { format!("the best {kept} go on") };
                format!("{} of rung {}, and only {who}, down to {cutoff}{}", place(c), c.rung, peers(c))
            }
            StopReason::WorseThanPeers(c) => {
                format!("{}, worse than {}, which {} of them reach{}", place(c), value(c.cutoff), c.kept, peers(c))
            }
            StopReason::NotFinite { budget, loss } => {
                let (value, length) = (value(*loss), length(*budget));
                format!("{value} after {length} is not finite, and such a trial never goes on")
            }
            StopReason::Patience { budget, evaluations, best, last } => {
                let (best, last, length) = (value(*best), value(*last), length(*budget));
                format!("no better than {best} in {evaluations} evaluations; {last} after {length}")
            }
            StopReason::Threshold { budget, loss, limit } => {
                format!("{} after {} is worse than {}, the threshold", value(*loss), length(*budget), value(*limit))
            }
            StopReason::Exploited { by, comparison } => {
                format!("{} of the population, and a copy of trial {by} takes its place", place(comparison))
            }
            StopReason::SweepEnded { budget } => {
                format!("the sweep ended while it rested after {}", length(*budget))
            }
        }
    }
}

fn loss_text(loss: MetricValue, objective: Option<&Objective>) -> String {
    match objective {
        // The sign is all that is between them, and changes back with itself.
        Some(objective) => objective.told(objective.loss(loss.into())),
        None => format!("loss {:.4}", f64::from(loss)),
    }
}

/// Against whom, at the end of a sentence.
fn peers(c: &Comparison) -> String {
    let listed: Vec<String> = c.peers.iter().map(u32::to_string).collect();
    let more = (c.of as usize).saturating_sub(1 + listed.len());
    match (listed.len(), more) {
        (0, _) => String::new(),
        (1, 0) => format!(" (the other one is trial {})", listed[0]),
        (_, 0) => format!(" (the others, best first: trials {})", listed.join(", ")),
        (_, more) => format!(" (the others, best first: trials {} and {more} more)", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_speak_of_what_the_sweep_is_for() {
        let accuracy = [Objective::natural(EvalMetric::EvalAccuracy)];
        let words = |unit| Words { objectives: &accuracy, unit };
        let comparison = Comparison {
            rung: 1,
            budget: 3,
            loss: (-0.5).into(),
            rank: 20,
            of: 30,
            kept: 10,
            cutoff: (-0.75).into(),
            peers: vec![4, 7],
        };
        let alone = Comparison { kept: 0, of: 2, rank: 2, peers: vec![4], budget: 1, ..comparison.clone() };
        for (reason, unit, expected) in [
            (
                StopReason::BelowCut(Box::new(comparison.clone())),
                Some(Unit::Epochs),
                "accuracy 50.00 % after 3 epochs is number 20 of 30 of rung 1, and only the best 10 go on, down to \
                 accuracy 75.00 % (the others, best first: trials 4, 7 and 27 more)",
            ),
            (
                StopReason::NotPromoted(Box::new(alone)),
                Some(Unit::Steps),
                "accuracy 50.00 % after 1 step is number 2 of 2 of rung 1, which has too few trials for one to go on \
                 (the other one is trial 4)",
            ),
            (
                StopReason::NotFinite { budget: 9, loss: f64::NAN.into() },
                Some(Unit::Epochs),
                "accuracy NaN % after 9 epochs is not finite, and such a trial never goes on",
            ),
            (
                StopReason::Patience { budget: 5, evaluations: 3, best: (-0.9).into(), last: (-0.5).into() },
                Some(Unit::Steps),
                "no better than accuracy 90.00 % in 3 evaluations; accuracy 50.00 % after 5 steps",
            ),
            (
                StopReason::Exploited { by: 8, comparison: Box::new(comparison.clone()) },
                Some(Unit::Epochs),
                "accuracy 50.00 % after 3 epochs is number 20 of 30 of the population, and a copy of trial 8 takes its place",
            ),
            (
                StopReason::Threshold { budget: 5, loss: (-0.1).into(), limit: (-0.5).into() },
                None,
                "accuracy 10.00 % after budget 5 is worse than accuracy 50.00 %, the threshold",
            ),
        ] {
            assert_eq!(words(unit).stop(&reason), expected);
        }
        assert_eq!(
            Words { objectives: &[Objective::natural(EvalMetric::EvalLoss)], unit: None }.losses(&[0.25.into()]),
            "eval loss 0.2500"
        );
        assert_eq!(Words::default().losses(&[0.25.into()]), "loss 0.2500");
        assert_eq!(words(Some(Unit::Steps)).decision(&Decision::Continue { target: 9 }), "goes on to 9 steps");
    }
}
