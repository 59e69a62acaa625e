//! How a ring forms: in any order, past strangers, one generation after the other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;

use collective::ring::{Listener, Membership, connect};
use collective::{AbortHandle, Collective, CollectiveError};

use crate::group::{HANGS_AFTER, alongside, form, join, join_abortable, listeners, on_threads};
use crate::work::reduce;

#[test]
fn ranks_may_come_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let (listeners, addresses) = listeners(3);
        let mut listeners: Vec<_> = listeners.into_iter().map(Some).collect();
        let (sender, receiver) = channel();
        for rank in order {
            let (mut listener, addresses) = (listeners[rank].take().unwrap(), addresses.clone());
            let (sender, (starting, started)) = (sender.clone(), channel());
            thread::spawn(move || {
                starting.send(()).unwrap();
                let mut ring = join(&mut listener, &addresses, 1, rank as u32).unwrap();
                sender.send(ring.all_gather(&[rank as u8]).unwrap()).unwrap();
            });
            started.recv().unwrap();
        }
        for _ in order {
            assert_eq!(receiver.recv_timeout(HANGS_AFTER).unwrap(), [[0], [1], [2]], "{order:?}");
        }
    }
}

/// The dialling side tries again until somebody listens.
#[test]
fn a_listener_may_come_late() {
    let reserved = Listener::bind(&format!("{}:0", own_address())).unwrap().local_addr().to_string();
    let (mut listeners, mut addresses) = listeners(2);
    addresses[0] = reserved.clone();
    let (mut dialler, own) = (listeners.pop().unwrap(), addresses.clone());
    let gathered = alongside(
        move || join(&mut dialler, &own, 1, 1).unwrap().all_gather(b"dialler").unwrap(),
        || {
            let mut listener = Listener::bind(&reserved).unwrap();
            join(&mut listener, &addresses, 1, 0).unwrap().all_gather(b"listener").unwrap();
        },
    );
    assert_eq!(gathered, [&b"listener"[..], b"dialler"]);
}

/// An address of this process alone, so that nobody takes a port of it that is free for a moment.
fn own_address() -> Ipv4Addr {
    // Process ids have at most 22 bits.
    Ipv4Addr::from_bits(0x7f40_0000 | (std::process::id() & 0x3f_ffff))
}

/// A hello as the module documents it.
pub(crate) fn hello(group: &str, generation: u64, from: u32, to: u32, world: u32) -> Vec<u8> {
    let mut bytes = b"PHLXring".to_vec();
    for number in [2, world, from, to] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(generation.to_le_bytes());
    bytes.push(group.len() as u8);
    bytes.extend(group.as_bytes());
    bytes
}

pub(crate) fn call(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANGS_AFTER)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// The verdict and the generation of an answer.
pub(crate) fn answer(stream: &mut TcpStream) -> (u32, u64) {
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..8], *b"PHLXback");
    (u32::from_le_bytes(answer[8..12].try_into().unwrap()), u64::from_le_bytes(answer[12..].try_into().unwrap()))
}

#[test]
fn strangers_do_not_disturb_a_forming_group() {
    const OTHER_GROUP: u32 = 1;
    const OLDER: u32 = 2;
    const CONTRADICTION: u32 = 3;
    let (mut listeners, addresses) = listeners(2);
    let at = listeners[0].local_addr();
    let (mut first, own) = (listeners.remove(0), addresses.clone());
    let gathered = alongside(
        move || {
            let mut ring = join(&mut first, &own, 5, 0).unwrap();
            ring.all_gather(b"first").unwrap()
        },
        || {
            let silent = call(at, b"");
            let half = call(at, &hello("digits/0", 5, 1, 0, 2)[..20]);
            drop(call(at, &hello("digits/0", 5, 1, 0, 2)[..9]));
            for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 5000], b"PHLXring with another version and more"] {
                let mut stream = call(at, garbage);
                let end = stream.read(&mut [0; 1]);
                assert!(matches!(end, Ok(0) | Err(_)), "garbage was answered");
            }
            let answers = [
                (hello("letters/0", 5, 1, 0, 2), (OTHER_GROUP, 5)),
                (hello("digits/0", 4, 1, 0, 2), (OLDER, 5)),
                (hello("digits/0", 5, 1, 0, 3), (CONTRADICTION, 5)),
                (hello("digits/0", 5, 1, 1, 2), (CONTRADICTION, 5)),
                (hello("digits/0", 5, 0, 0, 2), (CONTRADICTION, 5)),
                (hello("digits/0", 5, 9, 0, 2), (CONTRADICTION, 5)),
            ];
            for (hello, expected) in answers {
                assert_eq!(answer(&mut call(at, &hello)), expected);
            }
            let stale = join(&mut Listener::bind("127.0.0.1:0").unwrap(), &addresses, 4, 1);
            assert!(matches!(stale, Err(CollectiveError::Stale { ours: 4, theirs: 5 })));
            let mut ring = join(&mut listeners[0], &addresses, 5, 1).unwrap();
            ring.all_gather(b"second").unwrap();
            drop((silent, half));
        },
    );
    assert_eq!(gathered, [&b"first"[..], b"second"]);
}

#[test]
fn many_silent_strangers_leave_room_for_peers() {
    let (mut listeners, addresses) = listeners(2);
    let at = listeners[0].local_addr();
    let strangers: Vec<_> = (0..200).map(|_| call(at, b"")).collect();
    for ring in form(&mut listeners, &addresses, 1) {
        ring.unwrap();
    }
    drop(strangers);
}

/// A newer generation makes the older one stale, and its connection is kept for the next try.
#[test]
fn a_newer_generation_is_kept_while_the_older_one_fails() {
    let (mut listeners, addresses) = listeners(2);
    let (mut ahead, own) = (listeners.pop().unwrap(), addresses.clone());
    let gathered = alongside(
        move || join(&mut ahead, &own, 2, 1).unwrap().all_gather(b"ahead").unwrap(),
        || {
            let stale = join(&mut listeners[0], &addresses, 1, 0);
            assert!(matches!(stale, Err(CollectiveError::Stale { ours: 1, theirs: 2 })));
            join(&mut listeners[0], &addresses, 2, 0).unwrap().all_gather(b"behind").unwrap();
        },
    );
    assert_eq!(gathered, [&b"behind"[..], b"ahead"]);
}

/// No member waits for another before it forms the next generation.
#[test]
fn the_next_generation_forms_right_after_a_break() {
    const GENERATIONS: u64 = 20;
    const WORLD: u32 = 3;
    let (listeners, addresses) = listeners(WORLD);
    let members = listeners.into_iter().enumerate().collect();
    on_threads(members, move |(rank, mut listener)| {
        for generation in 1..=GENERATIONS {
            let mut ring = join(&mut listener, &addresses, generation, rank as u32).unwrap();
            // Too much for the meeting alone: once one member has the sum, all of them can get it.
            reduce(&mut ring, 5, 10_000).unwrap();
            if generation % u64::from(WORLD) == rank as u64 {
                ring.abort_handle().abort();
            }
            assert!(ring.all_gather(&[1; 10_000]).is_err());
        }
    });
}

#[test]
fn an_abort_ends_connecting_and_the_peers_notice() {
    // Rank 2 never comes, so that the others wait for ever.
    let (listeners, addresses) = listeners(3);
    let aborts = [AbortHandle::new(), AbortHandle::new()];
    let mut members: Vec<_> = listeners.into_iter().zip(0..).collect();
    let absent = members.pop();
    let handles = aborts.clone();
    let (entering, entered) = channel();
    let errors = alongside(
        move || {
            on_threads(members, move |(mut listener, rank)| {
                entering.send(()).unwrap();
                join_abortable(&mut listener, &addresses, 1, rank, &handles[rank as usize]).err().unwrap()
            })
        },
        || {
            entered.iter().take(2).for_each(drop);
            aborts[0].abort();
            // If they were not connected yet, rank 1 goes on dialling, which is for its own abort to end.
            aborts[1].abort();
        },
    );
    assert!(matches!(errors[0], CollectiveError::Aborted), "{errors:?}");
    assert!(matches!(errors[1], CollectiveError::Aborted | CollectiveError::PeerLost { .. }), "{errors:?}");
    drop(absent);
}

#[test]
fn a_membership_that_cannot_be_is_refused() {
    let mut listener = Listener::bind("127.0.0.1:0").unwrap();
    let long = "x".repeat(256);
    let one = [listener.local_addr().to_string()];
    let cases: [(&str, u32, &[String], &str); 3] = [
        ("g", 0, &[], "invalid argument: 0 members, a group has 1 to 512"),
        ("g", 1, &one, "invalid argument: rank 1 of 1 members"),
        (&long, 0, &one, "invalid argument: the group's name has 256 bytes, at most 255 are allowed"),
    ];
    for (group, rank, addresses, expected) in cases {
        let membership = Membership { group, generation: 1, rank, addresses };
        let error = connect(&mut listener, membership, &AbortHandle::new(), HANGS_AFTER).err().unwrap();
        assert_eq!(error.to_string(), expected);
    }
}
