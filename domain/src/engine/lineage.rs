use crate::ids::{Generation, Step};

/// Which states belong to the run's one history.
///
/// A group that goes on from a step cuts off whatever older generations made beyond it. A state of generation `g` at step
/// `s` is part of the history if no later generation cut below `s`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lineage {
    /// Both numbers grow strictly: a cut makes all earlier cuts at the same or a higher step irrelevant.
    cuts: Vec<Cut>,
}

/// A generation and the step that it went on from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    pub(super) generation: Generation,
    pub(super) step: Step,
}

/// Cuts that are remembered. A state older than all of them counts as cut off: it is fetched anew from a peer.
const CUTS_MAX: usize = 64;

impl Lineage {
    pub(super) fn cut(&mut self, cut: Cut) {
        debug_assert!(self.newest().is_none_or(|newest| newest.generation <= cut.generation));
        while self.newest().is_some_and(|newest| newest.step >= cut.step) {
            self.cuts.pop();
        }
        if self.cuts.len() == CUTS_MAX {
            self.cuts.remove(0);
        }
        self.cuts.push(cut);
    }

    pub(super) fn shrink(&mut self) {
        self.cuts.shrink_to_fit();
    }

    pub(super) fn newest(&self) -> Option<Cut> {
        self.cuts.last().copied()
    }

    pub(super) fn contains(&self, generation: Generation, step: Step) -> bool {
        let forgotten = self.cuts.len() == CUTS_MAX && generation < self.cuts[0].generation;
        let lowest_later = self.cuts.iter().find(|cut| cut.generation > generation);
        !forgotten && lowest_later.is_none_or(|cut| step <= cut.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_counts_until_a_later_generation_goes_on_from_below_it() {
        let mut lineage = Lineage::default();
        let cuts = [(1, 0), (2, 7), (3, 9), (5, 4), (6, 8)];
        for (generation, step) in cuts {
            lineage.cut(Cut { generation: Generation(generation), step: Step(step) });
        }
        for generation in 0..8 {
            for step in 0..12 {
                let expected = cuts.iter().all(|(later, cut)| *later <= generation || step <= *cut);
                let actual = lineage.contains(Generation(generation), Step(step));
                assert_eq!(actual, expected, "generation {generation}, step {step}");
            }
        }
    }
}
