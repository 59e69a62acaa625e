//! Reductions in the background.

use collective::{AbortHandle, Background, Collective, CollectiveError, Reduced, local};

use crate::group::{TRANSPORTS, alongside, is_end, on_threads, ring_group, ring_group_over};
use crate::work::{assert_same_bits, owned_leaves, parts, tree_sum};
use std::ops::Range;
use std::sync::mpsc::channel;
use std::time::Instant;

const LEAVES: u32 = 5;

fn begin(background: &mut Background, elements: usize) {
    let owned = owned_leaves(LEAVES, background.rank(), background.world());
    background.reduce(LEAVES, parts(LEAVES, owned, elements)).unwrap();
}

/// Any number of buckets may be under way, and a gather may come between beginning and finishing them.
#[test]
fn buckets_come_back_in_the_order_they_were_given() {
    let lengths = [7usize, 0, 100_000, 1, 40_000];
    for world in [1, 2, 3] {
        let sums = on_threads(ring_group(world), move |ring| {
            let mut background = Background::start(Box::new(ring)).unwrap();
            let mut sums = Vec::new();
            for count in 1..=lengths.len() {
                lengths[..count].iter().for_each(|elements| begin(&mut background, *elements));
                assert_eq!(background.all_gather(&[count as u8]).unwrap(), vec![[count as u8]; world as usize]);
                sums.push(lengths[..count].iter().map(|_| background.finish().unwrap().sum).collect::<Vec<_>>());
            }
            sums
        });
        for (rank, rounds) in sums.iter().enumerate() {
            for (sum, elements) in rounds.iter().flat_map(|round| round.iter().zip(lengths)) {
                assert_same_bits(
                    std::slice::from_ref(sum),
                    &tree_sum(LEAVES, elements),
                    &format!("rank {rank} of {world}"),
                );
            }
        }
    }
}

#[test]
fn the_sum_comes_back_in_the_buffer_of_the_first_part() {
    let kept = on_threads(ring_group(2), |ring| {
        let mut background = Background::start(Box::new(ring)).unwrap();
        let parts = parts(LEAVES, owned_leaves(LEAVES, background.rank(), 2), 100_000);
        let (first, others) = (parts[0].1.as_ptr() as usize, parts.len() - 1);
        let began = Instant::now();
        background.reduce(LEAVES, parts).unwrap();
        let (Reduced { sum, spare }, took) = background.finish_timed().unwrap();
        assert!(began <= took.start && took.start <= took.end && took.end <= Instant::now());
        sum.as_ptr() as usize == first && spare.len() == others
    });
    assert_eq!(kept, [true, true]);
}

#[test]
fn an_abort_or_a_loss_in_the_middle_fails_what_was_begun_and_all_after_it() {
    for abort in [true, false] {
        let mut members = ring_group(2);
        let late = members.pop().unwrap();
        let mut background = Background::start(Box::new(members.remove(0))).unwrap();
        let handle = background.abort_handle();
        (0..3).for_each(|_| begin(&mut background, 1_000_000));
        let errors = alongside(
            move || {
                let mut errors: Vec<_> = (0..3).map(|_| background.finish().unwrap_err()).collect();
                errors.push(background.all_gather(b"").unwrap_err());
                errors
            },
            || if abort { handle.abort() } else { drop(late) },
        );
        match abort {
            true => assert!(errors.iter().all(|error| matches!(error, CollectiveError::Aborted)), "{errors:?}"),
            false => {
                assert!(is_end(&errors[0]), "{errors:?}");
                assert!(errors[1..].iter().all(|error| matches!(error, CollectiveError::Broken)), "{errors:?}");
            }
        }
    }
}

/// Dropping does not wait for peers that never come.
#[test]
fn dropping_ends_what_is_under_way() {
    let mut members = ring_group(2);
    let mut peer = members.pop().unwrap();
    let mut background = Background::start(Box::new(members.remove(0))).unwrap();
    begin(&mut background, 1_000_000);
    alongside(move || drop(background), || {});
    assert!(is_end(&peer.all_gather(&[0; 10_000]).and_then(|_| peer.all_gather(b"")).unwrap_err()));
}

/// Dropping ends what is under way as an abort does, wherever that is: no peer takes it for the orderly leave of a member
/// that has finished everything.
#[test]
fn dropping_what_is_under_way_is_no_orderly_leave() {
    const ELEMENTS: usize = 500_000;
    let part = |rank: u32| vec![(rank..rank + 1, vec![1.0; ELEMENTS])];
    for transport in TRANSPORTS {
        for round in 0..20 {
            let mut members = ring_group_over(transport, 2);
            let mut peer = members.pop().unwrap();
            let mut background = Background::start(Box::new(members.remove(0))).unwrap();
            let handle = background.abort_handle();
            match round {
                0 => background.reduce_last(2, part(0)).unwrap(),
                _ => (0..3).for_each(|_| background.reduce(2, part(0)).unwrap()),
            }
            // Before anybody has begun, in the meeting, and from then on somewhere in the middle of moving data.
            let mut background = Some(background);
            if round < 2 {
                background = None;
                assert!(handle.is_aborted());
            }
            let (working, worked) = channel();
            let error = alongside(
                move || {
                    working.send(()).unwrap();
                    // The rank that was dropped brought three buckets at most.
                    (0..4).find_map(|_| peer.all_reduce(2, ELEMENTS, part(1)).err()).unwrap()
                },
                || {
                    worked.recv().unwrap();
                    (0..round * 20_000).for_each(|_| std::hint::spin_loop());
                    drop(background);
                },
            );
            // Where all was reduced before the drop there was nothing to abort, and leaving was orderly.
            let CollectiveError::PeerLost { rank: 0, source } = &error else { panic!("{transport:?}: {error:?}") };
            let orderly = source.to_string() == "left the group";
            assert_eq!(orderly, !handle.is_aborted(), "{transport:?}, round {round}: {error:?}");
        }
    }
}

#[test]
fn finishing_what_was_not_begun_is_refused() {
    let mut background = Background::start(Box::new(local::group(1).remove(0))).unwrap();
    assert!(matches!(background.finish(), Err(CollectiveError::Invalid { .. })));
    assert!(matches!(background.reduce(1, Vec::new()), Err(CollectiveError::Invalid { .. })));
}

/// A collective with a defect.
struct Defective(AbortHandle);

impl Collective for Defective {
    fn rank(&self) -> u32 {
        0
    }

    fn world(&self) -> u32 {
        2
    }

    fn all_reduce(&mut self, _: u32, _: usize, _: Vec<(Range<u32>, Vec<f32>)>) -> Result<Reduced, CollectiveError> {
        panic!("a defect")
    }

    fn all_gather(&mut self, _: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        unreachable!()
    }

    fn abort_handle(&self) -> AbortHandle {
        self.0.clone()
    }
}

#[test]
fn a_panic_is_an_error() {
    let mut background = Background::start(Box::new(Defective(AbortHandle::new()))).unwrap();
    (0..2).for_each(|_| begin(&mut background, 3));
    let first = background.finish().unwrap_err();
    assert_eq!(first.to_string(), "the collective's thread panicked: a defect");
    assert!(matches!(background.finish(), Err(CollectiveError::Broken)));
    assert!(matches!(background.all_gather(b""), Err(CollectiveError::Broken)));
}
