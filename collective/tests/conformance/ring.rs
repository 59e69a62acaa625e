//! What a ring does beyond the contract: how much it sends, how long it waits, what it refuses.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use collective::ring::{CHUNK_BYTES, Membership, Transport, connect};
use collective::{AbortHandle, Collective, CollectiveError};

use crate::forming::{answer, call, hello};
use crate::group::{alongside, join, listeners, on_threads, ring_group, ring_group_over};
use crate::work::reduce;

/// For `2^k` ranks a rank sends `2 (N - 1) / N` of the vector, as in a ring all-reduce; headers come on top.
#[test]
fn a_reduction_moves_the_bytes_of_a_ring_all_reduce() {
    const HEADER_BYTES: usize = 16;
    for world in [2, 4] {
        let elements = world * CHUNK_BYTES / 4 * 2;
        let sent = on_threads(ring_group_over(Transport::Tcp, world as u32), move |mut ring| {
            let formed = ring.bytes_sent();
            reduce(&mut ring, 8, 0).unwrap();
            let meeting = ring.bytes_sent() - formed;
            reduce(&mut ring, 8, elements).unwrap();
            ring.bytes_sent() - formed - 2 * meeting
        });
        let share = elements / world * 4;
        let frames = 2 * (world - 1) * share.div_ceil(CHUNK_BYTES);
        let expected = 2 * (world - 1) * share + HEADER_BYTES * frames;
        assert_eq!(sent, vec![expected as u64; world]);
    }
}

#[test]
fn waiting_ends_at_its_limit() {
    let (mut listeners, addresses) = listeners(2);
    let limit = Duration::from_millis(30);
    for rank in [0u32, 1] {
        let membership = Membership { group: "digits/0", generation: 1, rank, addresses: &addresses };
        let error = connect(&mut listeners[rank as usize], membership, &AbortHandle::new(), limit).err().unwrap();
        let expected = format!("connect took longer than 30ms, waiting for ranks [{}]", 1 - rank);
        assert_eq!(error.to_string(), expected);
    }
    let mut rings = ring_group(2);
    rings[0].set_operation_limit(Some(limit));
    let error = rings[0].all_gather(b"anybody?").unwrap_err();
    assert_eq!(error.to_string(), "all_gather took longer than 30ms, waiting for ranks [1]");
    let late = [(); 2].map(|()| rings[1].all_gather(b"late"));
    assert!(matches!(late[1], Err(CollectiveError::PeerLost { rank: 0, .. })), "{late:?}");
}

/// A member that waits for a slow one learns at once of the failure of another that has come before.
#[test]
fn a_failure_after_the_start_is_seen_by_those_who_wait() {
    let mut rings = ring_group(3);
    rings[1].set_operation_limit(Some(Duration::from_millis(30)));
    assert!(matches!(rings[1].all_gather(b"here"), Err(CollectiveError::TimedOut { .. })));
    let _slow = rings.pop();
    let mut waiting = rings.remove(0);
    let error = alongside(move || waiting.all_gather(b"waits").unwrap_err(), || {});
    assert!(matches!(error, CollectiveError::PeerLost { rank: 1, .. }), "{error:?}");
}

/// A frame as the module documents it.
pub(crate) fn frame(sequence: u64, length: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = sequence.to_le_bytes().to_vec();
    frame.extend(length.to_le_bytes());
    frame.extend([kind, 0, 0, 0]);
    frame.extend(payload);
    frame
}

/// The start of a small gather.
pub(crate) fn gather(sequence: u64, mine: &[u8]) -> Vec<u8> {
    let start = [&(mine.len() as u64).to_le_bytes(), mine].concat();
    frame(sequence, start.len() as u32, 1, &start)
}

/// The three gathers in which a peer says its host, its memory, and whom it reaches.
pub(crate) fn introduce(peer: &mut TcpStream, messages: [&[u8]; 3]) {
    for (sequence, message) in (0..).zip(messages) {
        peer.write_all(&gather(sequence, message)).unwrap();
    }
}

/// A peer that speaks nonsense after the handshake is refused before any memory is reserved for what it announces.
#[test]
fn frames_that_do_not_belong_are_refused() {
    let huge = (u64::MAX / 2).to_le_bytes();
    let cases = [
        (
            frame(4, 8, 1, &[0; 8]),
            "expected a frame 'start of all_gather' of operation 3, got 'start of all_gather' of operation 4",
        ),
        (
            frame(3, 8, 9, &[0; 8]),
            "expected a frame 'start of all_gather' of operation 3, got 'unknown' of operation 3",
        ),
        (frame(3, u32::MAX, 1, &[]), "a start frame of 4294967295 bytes, at most 4096 are allowed"),
        (frame(3, 2, 1, &[0; 2]), "a start frame of a gather is too short"),
        (frame(3, 8, 1, &huge), "9223372036854775807 bytes to gather, at most 16777216 are allowed"),
        (frame(3, 9, 1, &[0; 9]), "1 bytes came with the start of a gather of 0 bytes"),
    ];
    for (frame, expected) in cases {
        let (mut listeners, addresses) = listeners(2);
        let at = listeners[0].local_addr();
        let mut listener = listeners.remove(0);
        let mut peer = call(at, &hello("digits/0", 1, 1, 0, 2));
        let error = alongside(
            move || join(&mut listener, &addresses, 1, 0).unwrap().all_gather(b"x").unwrap_err(),
            || {
                assert_eq!(answer(&mut peer), (0, 1));
                introduce(&mut peer, [b"", b"", b""]);
                peer.write_all(&frame).unwrap();
            },
        );
        assert_eq!(error.to_string(), format!("rank 1 broke the protocol: {expected}"));
    }
}
