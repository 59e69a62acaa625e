//! The samples of a step as one blob.
//!
//! Format: the number of reads; then for each the micro-batch, the worker (8 bytes, little-endian, for ids are random),
//! the number of samples, and the samples in their order. All numbers but the worker are LEB128: seven bits a byte,
//! lowest first, the top bit set on all bytes but the last. A data set of two million samples takes three bytes a sample.

use domain::ids::WorkerId;
use domain::record::Read;

/// The blob of `reads`.
pub(crate) fn encode(reads: &[Read]) -> Vec<u8> {
    let samples: usize = reads.iter().map(|read| read.samples.len()).sum();
    let mut blob = Vec::with_capacity(3 * samples + 16 * reads.len() + 4);
    put(&mut blob, reads.len() as u64);
    for Read { micro_batch, worker, samples } in reads {
        put(&mut blob, u64::from(*micro_batch));
        blob.extend(worker.0.to_le_bytes());
        put(&mut blob, samples.len() as u64);
        for sample in samples {
            put(&mut blob, *sample);
        }
    }
    blob
}

/// The reads in `blob`. The error says what is wrong.
pub(crate) fn decode(blob: &[u8]) -> Result<Vec<Read>, &'static str> {
    let mut rest = blob;
    let count = take_count(&mut rest)?;
    let mut reads = Vec::with_capacity(count);
    for _ in 0..count {
        let micro_batch = u32::try_from(take(&mut rest)?).map_err(|_| "a micro-batch is out of range")?;
        let (worker, after) = rest.split_first_chunk::<8>().ok_or(CUT)?;
        rest = after;
        let samples = take_count(&mut rest)?;
        let samples = (0..samples).map(|_| take(&mut rest)).collect::<Result<_, _>>()?;
        reads.push(Read { micro_batch, worker: WorkerId(u64::from_le_bytes(*worker)), samples });
    }
    if rest.is_empty() { Ok(reads) } else { Err("bytes are left over after the reads") }
}

const CUT: &str = "the reads are cut short";

fn put(blob: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        blob.push(number as u8 | 0x80);
        number >>= 7;
    }
    blob.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(CUT)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number is out of range")
}

/// A number of things that follow, each at least a byte long, so that a damaged blob cannot ask for more memory than it
/// is worth.
fn take_count(rest: &mut &[u8]) -> Result<usize, &'static str> {
    let count = take(rest)?;
    usize::try_from(count).ok().filter(|&count| count <= rest.len()).ok_or(CUT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_come_back(raw in proptest::collection::vec(
            (any::<u32>(), any::<u64>(), proptest::collection::vec(any::<u64>(), 0..40)), 0..6,
        )) {
            let reads: Vec<Read> = raw
                .into_iter()
                .map(|(micro_batch, worker, samples)| Read { micro_batch, worker: WorkerId(worker), samples })
                .collect();
            let blob = encode(&reads);
            prop_assert_eq!(decode(&blob), Ok(reads));
            for length in 0..blob.len() {
                prop_assert!(decode(&blob[..length]).is_err(), "cut to {} bytes, it was accepted", length);
            }
        }

        #[test]
        fn noise_is_no_panic(blob in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = decode(&blob);
        }
    }
}
