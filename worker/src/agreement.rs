//! What the ranks of a group tell each other through `all_gather`: short messages, written and read here alone.
//!
//! Each begins with a byte that says what it is, so that ranks which have got out of step notice it. Numbers are
//! little-endian. What is read was sent by a peer: lengths are compared with what the receiver expects before anything
//! is believed.

use std::ops::Range;

use domain::ids::Step;
use domain::record::Position;
use models::EvalSums;

/// Why a peer's message is refused. The generation is broken then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Garbled {
    #[error("expected a message of kind {expected}, found {found:?}")]
    Kind { expected: u8, found: Option<u8> },
    #[error("the message ends early")]
    Short,
    #[error("the message goes on for {bytes} bytes after its end")]
    Trailing { bytes: usize },
    #[error("expected {what} of at most {expected}, found {found}")]
    Count { what: &'static str, expected: u64, found: u64 },
    #[error("the byte {0} is neither yes nor no")]
    Flag(u8),
}

/// While a group forms: what a rank is about to train, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Of the state it holds, if it holds one.
    pub(crate) position: Option<Position>,
    /// Equal on ranks that see the same run.
    pub(crate) identity: [u8; 32],
}

impl Standing {
    const KIND: u8 = 1;

    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = vec![Self::KIND, u8::from(self.position.is_some())];
        put_position(&mut out, self.position.unwrap_or_default());
        out.extend(self.identity);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(bytes, Self::KIND)?;
        let held = reader.flag()?;
        let position = reader.position()?;
        let identity = reader.take()?;
        reader.finish()?;
        Ok(Self { position: held.then_some(position), identity })
    }
}

/// After a step's reduction: what a rank has read and computed, and what it wishes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepPart {
    /// It was told that the run is to stop after this step.
    pub(crate) stop: bool,
    /// It knows of a newer group and wants to leave this one after this step.
    pub(crate) leave: bool,
    /// Records up to here are durable. Only rank 0 can know.
    pub(crate) durable: Position,
    /// One entry for each micro-batch of the rank, in order.
    pub(crate) micro_batches: Vec<MicroBatchPart>,
}

/// One micro-batch as the rank that computed it reports it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MicroBatchPart {
    /// Its share of the mean loss of the step.
    pub(crate) loss: f64,
    /// The samples that were read, in order.
    pub(crate) samples: Vec<u64>,
}

impl StepPart {
    const KIND: u8 = 2;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![Self::KIND, u8::from(self.stop), u8::from(self.leave)];
        put_position(&mut out, self.durable);
        put_count(&mut out, self.micro_batches.len());
        for MicroBatchPart { loss, samples } in &self.micro_batches {
            out.extend(loss.to_le_bytes());
            put_count(&mut out, samples.len());
            samples.iter().for_each(|sample| out.extend(sample.to_le_bytes()));
        }
        out
    }

    /// Reads the part of a rank that owns `owned` micro-batches of up to `samples_max` samples.
    pub(crate) fn decode(bytes: &[u8], owned: &Range<u32>, samples_max: u64) -> Result<Self, Garbled> {
        let mut reader = Reader::new(bytes, Self::KIND)?;
        let (stop, leave, durable) = (reader.flag()?, reader.flag()?, reader.position()?);
        reader.count_equal("micro-batches", owned.len() as u64)?;
        let micro_batches = owned.clone().map(|_| reader.micro_batch(samples_max)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { stop, leave, durable, micro_batches })
    }
}

/// After an evaluation: the sums over each batch of the rank, in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EvaluationPart(pub(crate) Vec<EvalSums>);

impl EvaluationPart {
    const KIND: u8 = 3;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![Self::KIND];
        put_count(&mut out, self.0.len());
        for EvalSums { loss, correct, samples } in &self.0 {
            out.extend(loss.to_le_bytes());
            out.extend(correct.to_le_bytes());
            out.extend(samples.to_le_bytes());
        }
        out
    }

    /// Reads the part of a rank that owns `batches` batches.
    pub(crate) fn decode(bytes: &[u8], batches: u64) -> Result<Self, Garbled> {
        let mut reader = Reader::new(bytes, Self::KIND)?;
        reader.count_equal("batches", batches)?;
        let sums = (0..batches).map(|_| reader.sums()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self(sums))
    }
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    out.extend(position.step.0.to_le_bytes());
    out.push(u8::from(position.evaluated));
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a step has fewer than 2^32 micro-batches and samples");
    out.extend(count.to_le_bytes());
}

/// Takes a message apart from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], expected: u8) -> Result<Self, Garbled> {
        match bytes {
            [kind, rest @ ..] if *kind == expected => Ok(Self(rest)),
            _ => Err(Garbled::Kind { expected, found: bytes.first().copied() }),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Garbled::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn flag(&mut self) -> Result<bool, Garbled> {
        match self.take::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Garbled::Flag(other)),
        }
    }

    fn u64(&mut self) -> Result<u64, Garbled> {
        self.take().map(u64::from_le_bytes)
    }

    fn f64(&mut self) -> Result<f64, Garbled> {
        self.take().map(f64::from_le_bytes)
    }

    fn position(&mut self) -> Result<Position, Garbled> {
        Ok(Position { step: Step(self.u64()?), evaluated: self.flag()? })
    }

    fn count_up_to(&mut self, what: &'static str, max: u64) -> Result<u64, Garbled> {
        let found = u64::from(self.take().map(u32::from_le_bytes)?);
        if found <= max { Ok(found) } else { Err(Garbled::Count { what, expected: max, found }) }
    }

    fn count_equal(&mut self, what: &'static str, expected: u64) -> Result<(), Garbled> {
        let found = self.count_up_to(what, expected)?;
        if found == expected { Ok(()) } else { Err(Garbled::Count { what, expected, found }) }
    }

    fn micro_batch(&mut self, samples_max: u64) -> Result<MicroBatchPart, Garbled> {
        let loss = self.f64()?;
        let count = self.count_up_to("samples", samples_max)?;
        let samples = (0..count).map(|_| self.u64()).collect::<Result<_, _>>()?;
        Ok(MicroBatchPart { loss, samples })
    }

    fn sums(&mut self) -> Result<EvalSums, Garbled> {
        Ok(EvalSums { loss: self.f64()?, correct: self.u64()?, samples: self.u64()? })
    }

    fn finish(self) -> Result<(), Garbled> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbled::Trailing { bytes: self.0.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step_part() -> StepPart {
        StepPart {
            stop: true,
            leave: false,
            durable: Position { step: Step(7), evaluated: true },
            micro_batches: vec![
                MicroBatchPart { loss: 0.25, samples: vec![3, u64::MAX, 0] },
                MicroBatchPart { loss: -0.0, samples: vec![] },
            ],
        }
    }

    #[test]
    fn messages_come_back_as_they_were() {
        for position in [None, Some(Position { step: Step(9), evaluated: true })] {
            let standing = Standing { position, identity: [7; 32] };
            assert_eq!(Standing::decode(&standing.encode()), Ok(standing));
        }
        let part = step_part();
        assert_eq!(StepPart::decode(&part.encode(), &(4..6), 3), Ok(part));
        let sums = EvaluationPart(vec![EvalSums { loss: 1.5, correct: 2, samples: 3 }; 2]);
        assert_eq!(EvaluationPart::decode(&sums.encode(), 2), Ok(sums));
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let part = step_part().encode();
        let count = |what, expected, found| Garbled::Count { what, expected, found };
        let cases = [
            (&part[..], 0..1, 3, count("micro-batches", 1, 2)),
            (&part[..], 0..3, 3, count("micro-batches", 3, 2)),
            (&part[..], 0..2, 2, count("samples", 2, 3)),
            (&part[..part.len() - 1], 0..2, 3, Garbled::Short),
            (&[part.clone(), vec![0]].concat()[..], 0..2, 3, Garbled::Trailing { bytes: 1 }),
            (&[2, 7][..], 0..2, 3, Garbled::Flag(7)),
            (&[3][..], 0..2, 3, Garbled::Kind { expected: 2, found: Some(3) }),
            (&[][..], 0..2, 3, Garbled::Kind { expected: 2, found: None }),
        ];
        for (bytes, owned, samples_max, expected) in cases {
            assert_eq!(StepPart::decode(bytes, &owned, samples_max), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 1u8..4) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let _ = Standing::decode(&bytes);
            let _ = EvaluationPart::decode(&bytes, 3);
            if let Ok(part) = StepPart::decode(&bytes, &(0..2), 8) {
                prop_assert_eq!(part.encode().len(), bytes.len());
            }
        }
    }
}
