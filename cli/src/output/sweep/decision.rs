//! What a sweep decided about a trial, in the words and units of its specification.

use domain::engine::MetricValue;
use domain::search::scheduler::Comparison;
use domain::search::{Decision, StopReason};
use domain::spec::sweep::{Objective, Unit};

use super::value_text;
use crate::output::count;

/// A budget as people say it: `1 epoch`, `30 steps`.
pub(crate) fn length_text(budget: u64, unit: Option<Unit>) -> String {
    match unit {
        Some(Unit::Epochs) => count(budget, "epoch"),
        Some(Unit::Steps) => count(budget, "step"),
        None => format!("budget {budget}"),
    }
}

/// Losses as the values of the objectives that they were made from.
pub(crate) fn losses_text(losses: &[MetricValue], objectives: &[Objective]) -> String {
    let shown = losses.iter().enumerate().map(|(at, loss)| loss_text(*loss, objectives.get(at)));
    shown.collect::<Vec<_>>().join(", ")
}

fn loss_text(loss: MetricValue, objective: Option<&Objective>) -> String {
    match objective {
        // The sign is all that is between them, and changes back with itself.
        Some(objective) => value_text(*objective, objective.loss(loss.into())),
        None => format!("loss {:.4}", f64::from(loss)),
    }
}

/// What became of a trial at rest.
pub(crate) fn decision_text(decision: &Decision, objectives: &[Objective], unit: Option<Unit>) -> String {
    match decision {
        Decision::Continue { target } => format!("goes on to {}", length_text(*target, unit)),
        Decision::Pause => "rests, and may be taken up again".to_owned(),
        Decision::Complete => "complete".to_owned(),
        Decision::Stop(reason) => format!("stopped: {}", stop_text(reason, objectives, unit)),
    }
}

/// Why a trial was stopped.
pub(crate) fn stop_text(reason: &StopReason, objectives: &[Objective], unit: Option<Unit>) -> String {
    let value = |loss: MetricValue| loss_text(loss, objectives.first());
    let length = |budget: u64| length_text(budget, unit);
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
    use domain::spec::EvalMetric;

    #[test]
    fn decisions_speak_of_what_the_sweep_is_for() {
        let accuracy = [Objective::natural(EvalMetric::EvalAccuracy)];
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
                StopReason::Threshold { budget: 5, loss: (-0.1).into(), limit: (-0.5).into() },
                None,
                "accuracy 10.00 % after budget 5 is worse than accuracy 50.00 %, the threshold",
            ),
        ] {
            assert_eq!(stop_text(&reason, &accuracy, unit), expected);
        }
        assert_eq!(losses_text(&[0.25.into()], &[Objective::natural(EvalMetric::EvalLoss)]), "eval loss 0.2500");
        assert_eq!(losses_text(&[0.25.into()], &[]), "loss 0.2500");
        assert_eq!(decision_text(&Decision::Continue { target: 9 }, &[], Some(Unit::Steps)), "goes on to 9 steps");
    }
}
