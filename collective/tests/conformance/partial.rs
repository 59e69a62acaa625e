//! What callers see of an operation in the middle of which a member dies.

use std::io::Write;
use std::sync::mpsc::channel;

use collective::{Collective, CollectiveError};

use crate::forming::{answer, call, hello};
use crate::group::{alongside, join, listeners, on_threads};
use crate::ring::{frame, introduce};

/// The start of a reduction of one element per leaf, with the one part of a rank, as the wire has it.
fn reduction(sequence: u64, leaves: u32, leaf: u32, value: f32) -> Vec<u8> {
    let numbers = [leaves, 1, 1, 0, leaf, leaf + 1, value.to_bits()];
    let start: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    frame(sequence, start.len() as u32, 2, &start)
}

/// Rank 2 dies after it said its part of a small reduction to rank 0 and before it said it to rank 1. Rank 0 has the right
/// sum, rank 1 has an error; nobody gets any further.
#[test]
fn a_small_reduction_may_succeed_on_some_ranks_but_the_next_one_on_none() {
    let (mut listeners, addresses) = listeners(3);
    let at = [listeners[0].local_addr(), listeners[1].local_addr()];
    listeners.pop();
    let (forming, formed) = channel();
    let (finishing, finished) = channel();
    let members: Vec<_> = (0..).zip(listeners).collect();
    let work = move |(rank, mut listener): (u32, _)| {
        let mut ring = join(&mut listener, &addresses, 1, rank).unwrap();
        forming.send(()).unwrap();
        let part = |rank: u32| vec![(rank..rank + 1, vec![(rank + 1) as f32])];
        let first = ring.all_reduce(3, 1, part(rank)).map(|reduced| reduced.sum);
        finishing.send(rank).unwrap();
        let second = ring.all_reduce(3, 1, part(rank)).map(|reduced| reduced.sum);
        // It is handed out so that it lives until all others are done: what is seen is rank 2's death alone.
        (first, second, ring)
    };
    // Rank 2's end of its connection to rank 0, which stays open so that nothing that was said there is lost.
    let mut kept = None;
    let mut results = alongside(
        move || on_threads(members, work),
        || {
            let mut peers = [0, 1].map(|to| call(at[to as usize], &hello("digits/0", 1, 2, to, 3)));
            for peer in &mut peers {
                assert_eq!(answer(peer), (0, 1));
                introduce(peer, [b"", b"", b""]);
            }
            formed.iter().take(2).for_each(drop);
            let [mut told, untold] = peers;
            told.write_all(&reduction(3, 3, 2, 3.0)).unwrap();
            kept = Some(told);
            // Rank 1 cannot finish, so this is rank 0.
            assert_eq!(finished.recv(), Ok(0));
            drop(untold);
        },
    );
    let (first, second, _ring) = results.pop().unwrap();
    assert!(matches!(first, Err(CollectiveError::PeerLost { rank: 2, .. })), "{first:?}");
    assert!(matches!(second, Err(CollectiveError::Broken)), "{second:?}");
    let (first, second, _ring) = results.pop().unwrap();
    assert_eq!(first.unwrap(), [6.0]);
    assert!(matches!(second, Err(CollectiveError::PeerLost { rank: 1, .. })), "{second:?}");
    drop(kept);
}
