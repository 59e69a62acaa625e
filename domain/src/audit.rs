//! Whether a run read its data as planned: every position of the sample stream exactly once, by a step that still counts.
//!
//! The ledger says who read which samples in which step; [`BatchPlan`] says who should have. [`Auditor`] compares the two
//! step by step, so a ledger of any length is checked with one bit for each sample of an epoch that is still open.
//!
//! What is told apart, for each epoch: a sample is *missing* if the plan reads it there and no live step did;
//! *duplicated* counts reads of a sample after the first; *foreign* counts reads that the plan does not give to that
//! micro-batch of that step. Two samples swapped between two steps are therefore two foreign reads and nothing else.
//! Steps that were rolled back are counted apart: the steps computed in their place are the ones that must be complete.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::batch::BatchPlan;
use crate::ids::{RunName, Step};
use crate::record::{LedgerStep, Read};

/// The most samples of a data set that can be audited: 128 MiB of bits for each open epoch.
pub const SAMPLES_MAX: u64 = 1 << 30;

/// The most epochs that are listed one by one; the totals cover all of them.
pub const EPOCHS_LISTED_MAX: usize = 10_000;

/// The most findings that are spelt out; the first few show where to look.
pub const FINDINGS_MAX: usize = 20;

/// Positions looked up at once when the last, unfinished epoch is closed.
const LOOKUP_POSITIONS: u64 = 1 << 16;

/// A ledger that cannot be audited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The plan has no samples, no batch, or more samples than fit in memory.
    #[error(
        "a data set of {samples} samples read {global_batch} at a time cannot be audited, at most {SAMPLES_MAX} can"
    )]
    Plan {
        /// Samples of the data set.
        samples: u64,
        /// Samples of a step.
        global_batch: u64,
    },
}

/// A part of the history of a run: its own ledger, or that of a trial that it was copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Whose ledger.
    pub run: RunName,
    /// The last step of it that counts; all do in the run's own.
    pub through: Option<Step>,
}

impl Section {
    /// The history of `run` in its order. `ancestors` are the runs that it was copied from, the nearest first, each with
    /// the step at which it was copied.
    pub fn history(run: RunName, ancestors: Vec<(RunName, Step)>) -> Vec<Self> {
        let copied = ancestors.into_iter().rev().map(|(run, step)| Self { run, through: Some(step) });
        copied.chain([Self { run, through: None }]).collect()
    }

    /// Whether a line of this ledger is a part of the history. What an ancestor did after it was copied is not, and what
    /// it rolled back is its own affair.
    pub fn holds(&self, line: &LedgerStep) -> bool {
        self.through.is_none_or(|through| line.step <= through && !line.rolled_back)
    }
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Live steps in the ledger.
    pub steps: u64,
    /// Steps without a live line in the ledger.
    pub missing_steps: u64,
    /// Live lines of a step that already had one, or that stand out of order.
    pub repeated_steps: u64,
    /// Live lines of steps that the run does not have.
    pub unknown_steps: u64,
    /// Micro-batches that hold the right samples in another order.
    pub reordered: u64,
    /// Steps that were rolled back.
    pub rolled_back_steps: u64,
    /// Samples read by steps that were rolled back.
    pub rolled_back_samples: u64,
    /// The same by the epoch that the step began in, for as many epochs as are listed.
    #[serde(default)]
    pub replayed: BTreeMap<u64, u64>,
    /// The sums over all epochs.
    pub total: Tally,
    /// Epoch by epoch, at most [`EPOCHS_LISTED_MAX`].
    pub epochs: Vec<EpochTally>,
    /// Epochs beyond those listed.
    pub epochs_unlisted: u64,
    /// The first things found wrong, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
}

impl AuditReport {
    /// Whether the ledger is what the plan says, and nothing else.
    pub fn is_clean(&self) -> bool {
        let Tally { expected: _, read: _, missing, duplicated, foreign } = self.total;
        missing + duplicated + foreign + self.missing_steps + self.repeated_steps + self.unknown_steps + self.reordered
            == 0
    }

    /// What is wrong, counted, in one line.
    pub fn verdict(&self) -> String {
        let Tally { expected: _, read: _, missing, duplicated, foreign } = self.total;
        let mut verdict = format!("{missing} missing, {duplicated} duplicated");
        for (number, what) in [
            (foreign, "foreign"),
            (self.missing_steps, "steps not in the ledger"),
            (self.repeated_steps, "steps in it again"),
            (self.unknown_steps, "steps of no such run"),
            (self.reordered, "micro-batches in another order"),
        ] {
            if number > 0 {
                verdict.push_str(&format!(", {number} {what}"));
            }
        }
        verdict
    }
}

/// Reads of live steps, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Reads that the plan asks for, as far as the run has come.
    pub expected: u64,
    /// Reads there were.
    pub read: u64,
    /// Samples of the plan that nobody read.
    pub missing: u64,
    /// Reads of a sample after its first one.
    pub duplicated: u64,
    /// Reads that the plan does not give to their micro-batch.
    pub foreign: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        let Tally { expected, read, missing, duplicated, foreign } = other;
        self.expected += expected;
        self.read += read;
        self.missing += missing;
        self.duplicated += duplicated;
        self.foreign += foreign;
    }
}

/// The reads of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochTally {
    /// Its number, from 0.
    pub epoch: u64,
    /// Its reads.
    #[serde(flatten)]
    pub tally: Tally,
}

/// One thing found wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// Steps without a live line.
    StepsMissing {
        /// The first of them.
        first: Step,
        /// The last of them.
        last: Step,
    },
    /// A second live line of a step, or one out of order.
    StepRepeated {
        /// The step.
        step: Step,
    },
    /// A step that the run does not have.
    StepUnknown {
        /// The step.
        step: Step,
    },
    /// A micro-batch that nobody read.
    MicroBatchMissing {
        /// The step.
        step: Step,
        /// Its micro-batch.
        micro_batch: u32,
    },
    /// A micro-batch that was read more than once.
    MicroBatchRepeated {
        /// The step.
        step: Step,
        /// Its micro-batch.
        micro_batch: u32,
    },
    /// A micro-batch whose samples are not the plan's.
    SamplesDiffer {
        /// The step.
        step: Step,
        /// Its micro-batch.
        micro_batch: u32,
        /// Samples of the plan that were not read in it.
        left_out: u64,
        /// Samples read that the plan does not give to it; with none left out, only the order differs.
        foreign: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::StepsMissing { first, last } if first == last => write!(f, "step {first} is not in the ledger"),
            Finding::StepsMissing { first, last } => write!(f, "steps {first} to {last} are not in the ledger"),
            Finding::StepRepeated { step } => write!(f, "step {step} is in the ledger again or out of order"),
            Finding::StepUnknown { step } => write!(f, "step {step} does not belong to the run"),
            Finding::MicroBatchMissing { step, micro_batch } => {
                write!(f, "step {step}: nobody read micro-batch {micro_batch}")
            }
            Finding::MicroBatchRepeated { step, micro_batch } => {
                write!(f, "step {step}: micro-batch {micro_batch} was read more than once")
            }
            Finding::SamplesDiffer { step, micro_batch, left_out: 0, foreign: 0 } => {
                write!(f, "step {step}, micro-batch {micro_batch}: the samples are in another order than planned")
            }
            Finding::SamplesDiffer { step, micro_batch, left_out, foreign } => {
                let counts = format!("{left_out} planned sample(s) left out, {foreign} foreign sample(s) read");
                write!(f, "step {step}, micro-batch {micro_batch}: {counts}")
            }
        }
    }
}

/// Checks a ledger step by step.
#[derive(Debug)]
pub struct Auditor {
    plan: BatchPlan,
    /// Live steps whose place in the plan has been passed.
    passed: u64,
    /// Epochs before this one are closed.
    first_open: u64,
    open: BTreeMap<u64, OpenEpoch>,
    report: AuditReport,
}

/// An epoch that steps may still read from.
#[derive(Debug)]
struct OpenEpoch {
    /// One bit for each sample: whether a live step has read it.
    seen: Vec<u64>,
    tally: Tally,
}

impl OpenEpoch {
    fn new(samples: u64) -> Self {
        Self { seen: vec![0; samples.div_ceil(64) as usize], tally: Tally::default() }
    }

    fn has(&self, sample: u64) -> bool {
        self.seen[(sample / 64) as usize] >> (sample % 64) & 1 == 1
    }

    fn mark(&mut self, sample: u64) {
        if self.has(sample) {
            self.tally.duplicated += 1;
        }
        self.seen[(sample / 64) as usize] |= 1 << (sample % 64);
    }

    fn seen_count(&self) -> u64 {
        self.seen.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

impl Auditor {
    /// An auditor of a run that reads by `plan`.
    pub fn new(plan: BatchPlan) -> Result<Self, AuditError> {
        let BatchPlan { samples, global_batch, micro_batches, .. } = plan;
        if samples == 0 || samples > SAMPLES_MAX || global_batch == 0 || micro_batches == 0 {
            return Err(AuditError::Plan { samples, global_batch });
        }
        Ok(Self { plan, passed: 0, first_open: 0, open: BTreeMap::new(), report: AuditReport::default() })
    }

    /// Takes the next line of the ledger. Live lines must come in ascending order of their steps, as a ledger is read;
    /// where rolled-back lines stand does not matter.
    pub fn observe(&mut self, line: &LedgerStep) {
        if line.rolled_back {
            let samples = line.reads.iter().map(|read| read.samples.len() as u64).sum::<u64>();
            self.report.rolled_back_steps += 1;
            self.report.rolled_back_samples += samples;
            let epoch = self.plan.step_positions(line.step.0.saturating_sub(1)).start / self.plan.samples;
            if epoch < EPOCHS_LISTED_MAX as u64 {
                *self.report.replayed.entry(epoch).or_default() += samples;
            }
            return;
        }
        self.report.steps += 1;
        if line.step.0 == 0 || line.step.0 > self.plan.total_steps() {
            self.report.unknown_steps += 1;
            self.note(Finding::StepUnknown { step: line.step });
            let epoch = (self.plan.total_positions().saturating_sub(1)) / self.plan.samples;
            line.reads.iter().for_each(|read| self.count_foreign(epoch, &read.samples));
            return;
        }
        if line.step.0 <= self.passed {
            self.report.repeated_steps += 1;
            self.note(Finding::StepRepeated { step: line.step });
        } else {
            self.pass_missing(line.step.0 - 1);
            self.passed = line.step.0;
            self.close_before(self.plan.step_positions(line.step.0 - 1).start / self.plan.samples);
            self.note_micro_batches(line);
        }
        line.reads.iter().for_each(|read| self.compare(line.step, read));
    }

    /// Ends the audit of a run that says it has completed `through` steps.
    pub fn finish(mut self, through: Step) -> AuditReport {
        self.pass_missing(through.0.min(self.plan.total_steps()));
        let end = self.plan.step_positions(self.passed).start;
        self.close_before(end / self.plan.samples);
        // What is left is the epoch in which the run has stopped, and epochs that only foreign reads fell into.
        let open = std::mem::take(&mut self.open);
        if !open.contains_key(&self.first_open) && !end.is_multiple_of(self.plan.samples) {
            self.close_unfinished(self.first_open, OpenEpoch::new(self.plan.samples), end);
        }
        for (epoch, open) in open {
            self.close_unfinished(epoch, open, end);
        }
        self.report
    }

    fn note(&mut self, finding: Finding) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }

    /// Passes over the steps up to `through` that are not in the ledger.
    fn pass_missing(&mut self, through: u64) {
        if through > self.passed {
            self.report.missing_steps += through - self.passed;
            self.note(Finding::StepsMissing { first: Step(self.passed + 1), last: Step(through) });
            self.passed = through;
        }
    }

    fn note_micro_batches(&mut self, line: &LedgerStep) {
        let mut times: BTreeMap<u32, u64> = BTreeMap::new();
        for read in &line.reads {
            *times.entry(read.micro_batch).or_default() += 1;
        }
        for micro_batch in 0..self.plan.micro_batches {
            // An empty micro-batch of a short last step may be left out of the ledger.
            let planned = !self.plan.micro_batch_positions(line.step.0 - 1, micro_batch).is_empty();
            match times.get(&micro_batch).copied().unwrap_or(0) {
                0 if planned => self.note(Finding::MicroBatchMissing { step: line.step, micro_batch }),
                0 | 1 => {}
                _ => self.note(Finding::MicroBatchRepeated { step: line.step, micro_batch }),
            }
        }
    }

    fn compare(&mut self, step: Step, read: &Read) {
        let first_epoch = self.plan.step_positions(step.0 - 1).start / self.plan.samples;
        if read.micro_batch >= self.plan.micro_batches {
            let foreign = read.samples.len() as u64;
            self.note(Finding::SamplesDiffer { step, micro_batch: read.micro_batch, left_out: 0, foreign });
            self.count_foreign(first_epoch, &read.samples);
            return;
        }
        let positions = self.plan.micro_batch_positions(step.0 - 1, read.micro_batch);
        let planned = self.plan.samples_at(positions.clone());
        let epochs: Vec<u64> = positions.map(|position| position / self.plan.samples).collect();
        if planned == read.samples {
            epochs.into_iter().zip(planned).for_each(|(epoch, sample)| self.count(epoch, sample));
            return;
        }
        let (left_out, foreign) = self.compare_unordered(&planned, &epochs, read, first_epoch);
        if left_out == 0 && foreign == 0 {
            self.report.reordered += 1;
        }
        self.note(Finding::SamplesDiffer { step, micro_batch: read.micro_batch, left_out, foreign });
    }

    /// Pairs what was read with what was planned, sample by sample; returns how many of either have no partner.
    fn compare_unordered(&mut self, planned: &[u64], epochs: &[u64], read: &Read, first_epoch: u64) -> (u64, u64) {
        // A micro-batch that spans epochs may hold a sample more than once.
        let mut wanted: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (sample, epoch) in planned.iter().zip(epochs).rev() {
            wanted.entry(*sample).or_default().push(*epoch);
        }
        let mut foreign = 0;
        for sample in &read.samples {
            match wanted.get_mut(sample).and_then(Vec::pop) {
                Some(epoch) => self.count(epoch, *sample),
                None => {
                    foreign += 1;
                    let epoch = epochs.first().copied().unwrap_or(first_epoch);
                    self.count_foreign(epoch, std::slice::from_ref(sample));
                }
            }
        }
        (wanted.values().map(|epochs| epochs.len() as u64).sum(), foreign)
    }

    fn count(&mut self, epoch: u64, sample: u64) {
        if epoch < self.first_open {
            // Only a repeated step reads from a closed epoch; it has read all of this before.
            self.adjust_closed(epoch, Tally { read: 1, duplicated: 1, ..Tally::default() });
            return;
        }
        let samples = self.plan.samples;
        let open = self.open.entry(epoch).or_insert_with(|| OpenEpoch::new(samples));
        open.tally.read += 1;
        // A sample that does not exist is foreign and nothing else.
        if sample < samples {
            open.mark(sample);
        }
    }

    fn count_foreign(&mut self, epoch: u64, samples: &[u64]) {
        for sample in samples {
            let epoch = epoch.max(self.first_open);
            self.count(epoch, *sample);
            self.open.get_mut(&epoch).expect("counting has opened it").tally.foreign += 1;
        }
    }

    fn adjust_closed(&mut self, epoch: u64, tally: Tally) {
        self.report.total.add(tally);
        if let Some(listed) = self.report.epochs.iter_mut().find(|listed| listed.epoch == epoch) {
            listed.tally.add(tally);
        }
    }

    /// Closes the epochs before `epoch`, all positions of which have been passed.
    fn close_before(&mut self, epoch: u64) {
        while self.first_open < epoch {
            let closing = self.first_open;
            self.first_open += 1;
            match self.open.remove(&closing) {
                Some(open) => self.close_whole(closing, &open),
                None if self.report.epochs.len() < EPOCHS_LISTED_MAX => {
                    self.close_whole(closing, &OpenEpoch::new(self.plan.samples));
                }
                // A gap may be of any length; what is not listed is added up at once.
                None => {
                    let next = self.open.keys().next().copied().unwrap_or(epoch).min(epoch);
                    let skipped = next - closing;
                    let unread = skipped.saturating_mul(self.plan.samples);
                    self.report.total.add(Tally { expected: unread, missing: unread, ..Tally::default() });
                    self.report.epochs_unlisted += skipped;
                    self.first_open = next;
                }
            }
        }
    }

    fn close_whole(&mut self, epoch: u64, open: &OpenEpoch) {
        let expected = self.plan.samples;
        self.list(epoch, Tally { expected, missing: expected - open.seen_count(), ..open.tally });
    }

    /// Closes an epoch of which only the positions before `end` have been passed.
    fn close_unfinished(&mut self, epoch: u64, open: OpenEpoch, end: u64) {
        let start = epoch.saturating_mul(self.plan.samples);
        let mut tally = Tally { expected: end.saturating_sub(start), ..open.tally };
        let mut position = start;
        while position < end {
            let next = (position + LOOKUP_POSITIONS).min(end);
            let planned = self.plan.samples_at(position..next);
            tally.missing += planned.iter().filter(|sample| !open.has(**sample)).count() as u64;
            position = next;
        }
        self.list(epoch, tally);
    }

    fn list(&mut self, epoch: u64, tally: Tally) {
        self.report.total.add(tally);
        if self.report.epochs.len() < EPOCHS_LISTED_MAX {
            self.report.epochs.push(EpochTally { epoch, tally });
        } else {
            self.report.epochs_unlisted += 1;
        }
    }
}

#[cfg(test)]
mod tests;
