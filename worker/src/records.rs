//! The records of a trial that are not known to be durable. Every rank keeps them, so that none is lost with a worker;
//! rank 0 sends them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use domain::ids::{Generation, TrialId};
use domain::record::{Position, Record};
use proto::convert::{Report, record_bytes_max};

use crate::report::Outbox;

/// How long records may wait for company. One report a step would be chatty for steps of milliseconds; people do not
/// see a tenth of a second.
const FLUSH_PERIOD: Duration = Duration::from_millis(100);
/// Bytes of the records in one message; a single larger one, which still fits a message, goes alone.
pub(crate) const BYTES_PER_MESSAGE: usize = 1 << 20;

/// Records that are not known to be durable, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Records {
    kept: VecDeque<Record>,
    durable: Position,
    /// What rank 0 has sent in this generation.
    sent: Sent,
}

#[derive(Debug, Default)]
struct Sent {
    /// Records up to here are in the outbox.
    through: Position,
    /// Reports that are not acknowledged: their number, and the position that is durable with it.
    awaited: VecDeque<(u64, Position)>,
    /// When something was last sent.
    at: Option<Instant>,
}

impl Records {
    /// Begins a generation that goes on from `start`: `recorded` is durable, and nothing counts as sent.
    ///
    /// Work after `start` was lost with its state, or is taken back. It will be made again and recorded anew, so it must
    /// not count as durable even where the coordinator still holds the old records.
    pub(crate) fn begin(&mut self, start: Position, recorded: Position) {
        self.sent = Sent::default();
        self.kept.retain(|record| record.position() <= start);
        self.durable = self.durable.max(recorded).min(start);
        self.prune(self.durable);
    }

    /// Takes over what another member keeps.
    pub(crate) fn replace(&mut self, kept: Vec<Record>) {
        self.kept = kept.into();
        self.prune(self.durable);
    }

    /// Everything that is kept.
    pub(crate) fn to_vec(&self) -> Vec<Record> {
        self.kept.iter().cloned().collect()
    }

    /// Keeps one more.
    pub(crate) fn push(&mut self, record: Record) {
        debug_assert!(self.kept.back().is_none_or(|last| last.position() < record.position()));
        self.kept.push_back(record);
    }

    /// Drops what is durable.
    pub(crate) fn prune(&mut self, durable: Position) {
        self.durable = self.durable.max(durable);
        while self.kept.front().is_some_and(|record| record.position() <= self.durable) {
            self.kept.pop_front();
        }
    }

    /// How far everything is durable, as far as rank 0 has heard.
    pub(crate) fn durable(&mut self, outbox: &Outbox) -> Position {
        let acknowledged = outbox.acknowledged();
        while let Some((_, position)) = self.sent.awaited.pop_front_if(|(sequence, _)| *sequence <= acknowledged) {
            self.prune(position);
        }
        self.durable
    }

    /// Sends what was not sent, if it has waited long enough or nothing was sent in this generation.
    pub(crate) fn flush_if_due(&mut self, outbox: &Outbox, trial: &TrialId, generation: Generation) {
        if self.sent.at.is_none_or(|at| at.elapsed() >= FLUSH_PERIOD) {
            self.flush(outbox, trial, generation);
        }
    }

    /// Sends what was not sent.
    pub(crate) fn flush(&mut self, outbox: &Outbox, trial: &TrialId, generation: Generation) {
        let unsent = self.kept.partition_point(|record| record.position() <= self.sent.through);
        for batch in batches(self.kept.range(unsent..).cloned()) {
            send(batch, outbox, trial, generation, &mut self.sent);
        }
    }
}

/// `records` in portions of at most [`BYTES_PER_MESSAGE`], or of a single record.
pub(crate) fn batches(records: impl Iterator<Item = Record>) -> impl Iterator<Item = Vec<Record>> {
    let mut records = records.peekable();
    std::iter::from_fn(move || {
        let first = records.next()?;
        let mut bytes = record_bytes_max(&first);
        let mut batch = vec![first];
        while let Some(record) = records.next_if(|record| bytes + record_bytes_max(record) <= BYTES_PER_MESSAGE) {
            bytes += record_bytes_max(&record);
            batch.push(record);
        }
        Some(batch)
    })
}

fn send(records: Vec<Record>, outbox: &Outbox, trial: &TrialId, generation: Generation, sent: &mut Sent) {
    let through = records.last().expect("only called with records").position();
    let sequence = outbox.send(Report::Records { trial: trial.clone(), generation, records });
    sent.awaited.push_back((sequence, through));
    sent.through = through;
    sent.at = Some(Instant::now());
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ids::{Step, WorkerId};
    use domain::record::{EvalRecord, Read, StepRecord};

    fn at(step: u64) -> Position {
        Position { step: Step(step), evaluated: true }
    }

    fn record(step: u64) -> Record {
        Record::Eval(EvalRecord { step: Step(step), generation: Generation(1), loss: 0.5, accuracy: 0.5, samples: 2 })
    }

    fn steps(records: &Records) -> Vec<u64> {
        records.kept.iter().map(|r| r.position().step.0).collect()
    }

    #[test]
    fn records_are_kept_until_durable_and_sent_once_a_generation() {
        let (outbox, trial) = (Outbox::default(), "a/0".parse().unwrap());
        let mut records = Records::default();
        (1..=3).for_each(|step| records.push(record(step)));
        records.flush_if_due(&outbox, &trial, Generation(1));
        records.push(record(4));
        records.flush_if_due(&outbox, &trial, Generation(1));
        assert_eq!(outbox.next(1), None, "the first is sent at once, the next one waits");
        records.flush(&outbox, &trial, Generation(1));
        assert_eq!(outbox.next(1).map(|r| r.sequence), Some(2));
        assert_eq!(steps(&records), [1, 2, 3, 4]);

        outbox.acknowledge(1);
        assert_eq!((records.durable(&outbox), steps(&records)), (at(3), vec![4]));
        records.begin(at(4), at(2));
        records.flush_if_due(&outbox, &trial, Generation(2));
        assert_eq!(outbox.next(2).map(|r| r.sequence), Some(3), "a new generation sends what is not durable again");
    }

    #[test]
    fn records_are_cut_by_their_bytes() {
        let of_samples = |step: u64, samples: usize| {
            let read = Read { micro_batch: 0, worker: WorkerId(1), samples: vec![1; samples] };
            Record::Step(StepRecord {
                step: Step(step),
                generation: Generation(1),
                loss: 0.5,
                grad_norm: 1.0,
                lr: 0.1,
                skipped: false,
                micros: 1,
                micros_outside_model: 1,
                reads: vec![read],
            })
        };
        let cases: [(&[usize], &[usize]); 5] = [
            (&[], &[]),
            (&[1, 1, 1], &[3]),
            (&[400 << 10, 400 << 10, 400 << 10], &[2, 1]),
            (&[1, 2 << 20, 1], &[1, 1, 1]),
            (&[2 << 20, 2 << 20], &[1, 1]),
        ];
        for (samples, expected) in cases {
            let records = (1..).zip(samples).map(|(step, samples)| of_samples(step, *samples));
            let found: Vec<Vec<Record>> = batches(records.clone()).collect();
            assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{samples:?}");
            assert!(found.into_iter().flatten().eq(records), "{samples:?}: all of them, in their order");
        }
    }

    #[test]
    fn work_after_the_start_of_a_generation_is_taken_back() {
        let mut records = Records::default();
        (1..=4).for_each(|step| records.push(record(step)));
        records.prune(at(1));
        records.begin(at(2), at(4));
        assert_eq!((steps(&records), records.durable), (vec![], at(2)));
        records.push(record(3));
        assert_eq!(steps(&records), [3], "made again, it is not durable");
    }
}
