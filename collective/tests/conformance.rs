//! What the contract of `Collective` promises, checked on every implementation, and what the ring promises beyond it.
//!
//! Nothing here measures time. Whatever waits for threads does so with a generous bound, so that a hang is a failure.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests may unwrap as the tests do")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use collective::faulty::{Fault, Faulty, Gate};
use collective::ring::{CHUNK_BYTES, Listener, Membership, Ring, connect};
use collective::{AbortHandle, Collective, CollectiveError, MAX_GATHER_BYTES, local};
use domain::batch::split;
use domain::tree::Accumulator;
use proptest::prelude::*;

/// Nothing takes longer unless it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(20);

type Group = Vec<Box<dyn Collective>>;

/// Every implementation that the contract is checked on.
const KINDS: [(&str, fn(u32) -> Group); 3] = [("local", local_group), ("ring", boxed_ring), ("faulty", faulty_group)];

fn local_group(world: u32) -> Group {
    local::group(world).into_iter().map(|c| Box::new(c) as Box<dyn Collective>).collect()
}

fn faulty_group(world: u32) -> Group {
    local::group(world).into_iter().map(|c| Box::new(Faulty::new(c, [])) as Box<dyn Collective>).collect()
}

fn boxed_ring(world: u32) -> Group {
    ring_group(world).into_iter().map(|c| Box::new(c) as Box<dyn Collective>).collect()
}

fn ring_group(world: u32) -> Vec<Ring> {
    let (mut listeners, addresses) = listeners(world);
    let rings = form(&mut listeners, &addresses, 1);
    rings.into_iter().map(|ring| ring.unwrap()).collect()
}

fn listeners(world: u32) -> (Vec<Listener>, Vec<String>) {
    let listeners: Vec<_> = (0..world).map(|_| Listener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = listeners.iter().map(|l| l.local_addr().to_string()).collect();
    (listeners, addresses)
}

fn join(listener: &mut Listener, addresses: &[String], generation: u64, rank: u32) -> Result<Ring, CollectiveError> {
    join_abortable(listener, addresses, generation, rank, &AbortHandle::new())
}

fn join_abortable(
    listener: &mut Listener,
    addresses: &[String],
    generation: u64,
    rank: u32,
    abort: &AbortHandle,
) -> Result<Ring, CollectiveError> {
    connect(listener, Membership { group: "digits/0", generation, rank, addresses }, abort, HANGS_AFTER)
}

/// Forms one generation on all listeners at once.
fn form(listeners: &mut [Listener], addresses: &[String], generation: u64) -> Vec<Result<Ring, CollectiveError>> {
    thread::scope(|scope| {
        let join = |(rank, listener)| scope.spawn(move || join(listener, addresses, generation, rank));
        let threads: Vec<_> = (0..).zip(listeners).map(join).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs `work` on a thread per member, and returns the results in order; a member lives until its work ends.
fn on_threads<C: Send + 'static, T: Send + 'static>(
    members: Vec<C>,
    work: impl Fn(C) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let (sender, receiver) = channel();
    let count = members.len();
    for (index, member) in members.into_iter().enumerate() {
        let (sender, work) = (sender.clone(), work.clone());
        thread::spawn(move || sender.send((index, work(member))));
    }
    drop(sender);
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        match receiver.recv_timeout(HANGS_AFTER) {
            Ok((index, result)) => results[index] = Some(result),
            Err(RecvTimeoutError::Timeout) => panic!("a member hangs"),
            Err(RecvTimeoutError::Disconnected) => panic!("a member panicked"),
        }
    }
    results.into_iter().map(Option::unwrap).collect()
}

/// Runs `work` on a thread while `meanwhile` runs on this one.
fn alongside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static, meanwhile: impl FnOnce()) -> T {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(work()));
    meanwhile();
    receiver.recv_timeout(HANGS_AFTER).expect("the other thread hangs or panicked")
}

/// Values whose sum depends on the order of additions, among them ones that cancel and overflow.
fn leaf_values(leaf: u32, elements: usize) -> Vec<f32> {
    let value = |index: usize| {
        let mut bits = (index as u64 ^ (u64::from(leaf) << 32)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits ^= bits >> 32;
        match bits % 64 {
            0 => 0.0,
            1 => -0.0,
            2 => 3.0e38,
            3 => 1.0e-40,
            _ => ((bits >> 8) as u32 as f32 / 2.0f32.powi(31) - 1.0) * 10.0f32.powi((bits % 9) as i32 - 4),
        }
    };
    (0..elements).map(value).collect()
}

/// A rank's part of the work, as the worker does it.
fn parts(leaves: u32, owned: Range<u32>, elements: usize) -> Vec<(Range<u32>, Vec<f32>)> {
    let mut sum = Accumulator::new(leaves, owned.clone());
    for leaf in owned {
        sum.push(leaf, leaf_values(leaf, elements), |left, right| {
            left.iter_mut().zip(right).for_each(|(l, r)| *l += r);
        });
    }
    sum.finish()
}

fn tree_sum(leaves: u32, elements: usize) -> Vec<f32> {
    parts(leaves, 0..leaves, elements).pop().unwrap().1
}

/// The even split of the leaves.
fn owned_leaves(leaves: u32, rank: u32, world: u32) -> Range<u32> {
    let owned = split(u64::from(leaves), rank, world);
    owned.start as u32..owned.end as u32
}

/// A reduction in which every rank does its even share.
fn reduce(member: &mut (impl Collective + ?Sized), leaves: u32, elements: usize) -> Result<Vec<f32>, CollectiveError> {
    let owned = owned_leaves(leaves, member.rank(), member.world());
    let mut sum = vec![f32::NAN; elements];
    member.all_reduce_exact(leaves, parts(leaves, owned, elements), &mut sum)?;
    Ok(sum)
}

fn assert_same_bits(sums: &[Vec<f32>], expected: &[f32], case: &str) {
    for sum in sums {
        assert_eq!(sum.len(), expected.len(), "{case}");
        let different = sum.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(different, None, "{case}: first different element");
    }
}

fn is_end(error: &CollectiveError) -> bool {
    matches!(error, CollectiveError::PeerLost { .. } | CollectiveError::Protocol { .. })
}

#[test]
fn the_sum_has_the_bits_of_the_tree_sum() {
    for (kind, group) in KINDS {
        for world in 1..=5u32 {
            // One group does all of them: operations follow each other without a pause.
            let chunk = CHUNK_BYTES / 4;
            let cases: Vec<(u32, usize)> = [world, world + 1, 8, 13]
                .into_iter()
                .flat_map(|leaves| [0, 1, 3, 1000].map(|elements| (leaves, elements)))
                .chain([(8, 2 * chunk * world as usize), (7, 2 * chunk * world as usize + 5)])
                .collect();
            let results = on_threads(group(world), {
                let cases = cases.clone();
                move |mut member| {
                    let sum = |(leaves, elements): &(u32, usize)| reduce(&mut *member, *leaves, *elements).unwrap();
                    cases.iter().map(sum).collect::<Vec<_>>()
                }
            });
            for (index, (leaves, elements)) in cases.into_iter().enumerate() {
                let sums: Vec<_> = results.iter().map(|sums| sums[index].clone()).collect();
                let case = format!("{kind}, {world} ranks, {leaves} leaves, {elements} elements");
                assert_same_bits(&sums, &tree_sum(leaves, elements), &case);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Leaves may be dealt in any way, to ranks without any too.
    #[test]
    fn the_sum_does_not_depend_on_who_owns_what(
        leaves in 1u32..40,
        cuts in proptest::collection::vec(0u32..40, 0..5),
        elements in 0usize..300,
        kind in 0usize..2,
    ) {
        let mut cuts: Vec<u32> = cuts.into_iter().map(|cut| cut.min(leaves)).chain([0, leaves]).collect();
        cuts.sort_unstable();
        let owned: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
        let group = KINDS[kind].1(owned.len() as u32);
        let sums = on_threads(group, move |mut member| {
            let mut sum = vec![f32::NAN; elements];
            let parts = parts(leaves, owned[member.rank() as usize].clone(), elements);
            member.all_reduce_exact(leaves, parts, &mut sum).unwrap();
            sum
        });
        assert_same_bits(&sums, &tree_sum(leaves, elements), KINDS[kind].0);
    }
}

#[test]
fn a_gather_brings_everybody_everything() {
    const INLINE: usize = 4096 - 8;
    let bytes = |rank: u32, length: usize| (0..length).map(|i| (i as u32 * 7 + rank) as u8).collect::<Vec<u8>>();
    for (kind, group) in KINDS {
        for lengths in [
            vec![5],
            vec![0, 0],
            vec![1000, 1000],
            vec![0, 1, 2, 3],
            vec![INLINE - 1, INLINE, INLINE + 1],
            vec![10, CHUNK_BYTES + INLINE, 3 * CHUNK_BYTES, 0],
            vec![MAX_GATHER_BYTES, 1],
        ] {
            let world = lengths.len() as u32;
            let all: Vec<_> = (0..).zip(&lengths).map(|(rank, length)| bytes(rank, *length)).collect();
            let gathered = on_threads(group(world), {
                let all = all.clone();
                // Twice, so that what one operation reads ahead of the next is seen to be kept.
                move |mut member| [(); 2].map(|()| member.all_gather(&all[member.rank() as usize]).unwrap())
            });
            assert!(gathered.iter().flatten().all(|gathered| *gathered == all), "{kind}: {lengths:?}");
        }
    }
}

#[test]
fn members_know_their_place() {
    for (kind, group) in KINDS {
        let places: Vec<_> = group(3).iter().map(|member| (member.rank(), member.world())).collect();
        assert_eq!(places, [(0, 3), (1, 3), (2, 3)], "{kind}");
    }
}

/// The operations that can wait for a peer.
const OPERATIONS: [(&str, fn(&mut dyn Collective) -> Result<(), CollectiveError>); 3] = [
    ("small gather", |member| member.all_gather(b"here").map(drop)),
    ("large gather", |member| member.all_gather(&vec![1; 1 << 20]).map(drop)),
    ("reduction", |member| reduce(member, 4, 100_000).map(drop)),
];

#[test]
fn an_abort_ends_a_waiting_operation_and_the_whole_group() {
    for (kind, group) in KINDS {
        for (operation, run) in OPERATIONS {
            let mut members = group(3);
            let late = members.pop().unwrap();
            let handle = members[1].abort_handle();
            let (entering, entered) = channel();
            let results = alongside(
                move || {
                    on_threads(members, move |mut member| {
                        entering.send(()).unwrap();
                        let first = run(&mut *member).unwrap_err();
                        (first, run(&mut *member).unwrap_err())
                    })
                },
                || {
                    entered.iter().take(2).for_each(drop);
                    handle.abort();
                },
            );
            let case = format!("{kind}, {operation}: {results:?}");
            assert!(is_end(&results[0].0) && matches!(results[0].1, CollectiveError::Broken), "{case}");
            assert!(matches!(results[1], (CollectiveError::Aborted, CollectiveError::Aborted)), "{case}");
            assert!(handle.is_aborted());
            let late = alongside(
                move || {
                    // A small gather may be complete with what the others sent before they failed; not a second one.
                    let mut late = late;
                    run(&mut *late).and_then(|()| run(&mut *late)).unwrap_err()
                },
                || {},
            );
            assert!(is_end(&late), "{kind}, {operation}: the late rank got {late:?}");
        }
    }
}

#[test]
fn an_abort_before_an_operation_ends_it() {
    for (kind, group) in KINDS {
        for (operation, run) in OPERATIONS {
            let mut members = group(2);
            members[0].abort_handle().abort();
            let error = run(&mut *members[0]).unwrap_err();
            assert!(matches!(error, CollectiveError::Aborted), "{kind}, {operation}: {error:?}");
        }
        let mut alone = group(1);
        alone[0].abort_handle().abort();
        assert!(matches!(alone[0].all_gather(b""), Err(CollectiveError::Aborted)), "{kind}");
    }
}

#[test]
fn a_member_that_leaves_is_lost_to_all_others() {
    for (kind, group) in KINDS {
        for (operation, run) in OPERATIONS {
            let mut members = group(4);
            drop(members.remove(2));
            let errors = on_threads(members, move |mut member| run(&mut *member).unwrap_err());
            for error in errors {
                let case = format!("{kind}, {operation}: {error:?}");
                assert!(matches!(error, CollectiveError::PeerLost { .. }), "{case}");
            }
        }
    }
}

/// Whoever is done may leave while others still are in the operation.
#[test]
fn a_member_that_leaves_after_the_last_operation_harms_nobody() {
    for (kind, group) in KINDS {
        for round in 0..20 {
            let results = on_threads(group(4), |mut member| OPERATIONS.map(|(_, run)| run(&mut *member)));
            assert!(results.iter().flatten().all(Result::is_ok), "{kind}, round {round}: {results:?}");
        }
    }
}

#[test]
fn members_that_do_different_things_are_found_out() {
    type Call = fn(&mut dyn Collective) -> Result<(), CollectiveError>;
    let reduction: Call = |member| reduce(member, 4, 10).map(drop);
    let cases: [(&str, Call); 4] = [
        ("another operation", |member| member.all_gather(b"x").map(drop)),
        ("other leaves", |member| reduce(member, 5, 10).map(drop)),
        ("another length", |member| reduce(member, 4, 11).map(drop)),
        ("leaves twice", |member| {
            let mut sum = [0.0; 10];
            member.all_reduce_exact(4, parts(4, 0..2, 10), &mut sum)
        }),
    ];
    for (kind, group) in KINDS {
        for (case, other) in cases {
            let errors = on_threads(group(2), move |mut member| {
                let call = if member.rank() == 0 { reduction } else { other };
                call(&mut *member).unwrap_err()
            });
            assert!(errors.iter().all(is_end), "{kind}, {case}: {errors:?}");
            let protocol = |error: &CollectiveError| matches!(error, CollectiveError::Protocol { .. });
            assert!(errors.iter().any(protocol), "{kind}, {case}: {errors:?}");
        }
    }
}

#[test]
fn wrong_arguments_are_refused_and_end_the_group() {
    type Call = fn(&mut dyn Collective) -> Result<(), CollectiveError>;
    let cases: [(&str, Call); 4] = [
        ("the sum of leaves 0..2 has 3 elements, expected 4", |member| {
            member.all_reduce_exact(2, vec![(0..2, vec![0.0; 3])], &mut [0.0; 4])
        }),
        ("leaves 1..3 are no subtree of the tree over 4 leaves", |member| {
            member.all_reduce_exact(4, vec![(1..3, vec![])], &mut [])
        }),
        ("65 parts, at most 64 are possible", |member| {
            let parts = (0..65).map(|leaf| (leaf..leaf + 1, vec![])).collect();
            member.all_reduce_exact(65, parts, &mut [])
        }),
        ("16777217 bytes to gather, at most 16777216 are allowed", |member| {
            member.all_gather(&vec![0; MAX_GATHER_BYTES + 1]).map(drop)
        }),
    ];
    for (kind, group) in KINDS {
        for (message, call) in cases {
            let mut members = group(2);
            let error = call(&mut *members[0]).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid argument: {message}"), "{kind}");
            assert!(matches!(members[0].all_gather(b""), Err(CollectiveError::Broken)), "{kind}");
            let error = members[1].all_gather(b"").unwrap_err();
            assert!(matches!(error, CollectiveError::PeerLost { rank: 0, .. }), "{kind}: {error:?}");
        }
    }
}

#[test]
fn faults_come_as_scripted() {
    // A call that fails takes the wrapped collective with it.
    let results = on_threads(local::group(2), |member| {
        let script = (member.rank() == 1).then_some((1, Fault::Fail));
        let mut member = Faulty::new(member, script);
        let results = [(); 3].map(|()| member.all_gather(b"x"));
        assert_eq!(member.calls(), 3);
        results
    });
    for (rank, results) in (0..).zip(&results) {
        let other = 1 - rank;
        assert!(
            matches!(results, [Ok(_), Err(CollectiveError::PeerLost { rank, .. }), Err(CollectiveError::Broken)] if *rank == other),
            "{results:?}"
        );
    }

    // An abort is an abort.
    let mut members = local::group(2);
    let mut member = Faulty::new(members.remove(0), [(0, Fault::Abort)]);
    assert!(matches!(member.all_gather(b"x"), Err(CollectiveError::Aborted)));

    // A delayed call goes on as if nothing had happened, or ends when it is aborted.
    for abort in [false, true] {
        let gate = Gate::new();
        let mut members = local::group(2);
        let handle = members[0].abort_handle();
        let delayed = Faulty::new(members.remove(0), [(0, Fault::Delay(gate.clone()))]);
        let prompt = Faulty::new(members.remove(0), []);
        let results = alongside(
            move || on_threads(vec![delayed, prompt], |mut member| member.all_gather(b"x")),
            || {
                gate.wait_for_arrival();
                if abort { handle.abort() } else { gate.release() }
            },
        );
        match results.as_slice() {
            [Ok(a), Ok(b)] if !abort => assert_eq!(a, b),
            [Err(CollectiveError::Aborted), Err(CollectiveError::PeerLost { rank: 0, .. })] if abort => {}
            other => panic!("abort {abort}: {other:?}"),
        }
    }
}

// What the ring promises beyond the trait.

/// For `2^k` ranks a rank sends `2 (N - 1) / N` of the vector, as in a ring all-reduce; headers come on top.
#[test]
fn a_reduction_moves_the_bytes_of_a_ring_all_reduce() {
    const HEADER_BYTES: usize = 16;
    for world in [2, 4] {
        let elements = world * CHUNK_BYTES / 4 * 2;
        let sent = on_threads(ring_group(world as u32), move |mut ring| {
            reduce(&mut ring, 8, 0).unwrap();
            let meeting = ring.bytes_sent();
            reduce(&mut ring, 8, elements).unwrap();
            ring.bytes_sent() - 2 * meeting
        });
        let share = elements / world * 4;
        let frames = 2 * (world - 1) * share.div_ceil(CHUNK_BYTES);
        let expected = 2 * (world - 1) * share + HEADER_BYTES * frames;
        assert_eq!(sent, vec![expected as u64; world]);
    }
}

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
    // An address of its own, so that nobody else takes the port in between.
    let reserved = Listener::bind("127.0.0.77:0").unwrap().local_addr().to_string();
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

/// A hello as the module documents it.
fn hello(group: &str, generation: u64, from: u32, to: u32, world: u32) -> Vec<u8> {
    let mut bytes = b"PHLXring".to_vec();
    for number in [1, world, from, to] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(generation.to_le_bytes());
    bytes.push(group.len() as u8);
    bytes.extend(group.as_bytes());
    bytes
}

fn call(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANGS_AFTER)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// The verdict and the generation of an answer.
fn answer(stream: &mut TcpStream) -> (u32, u64) {
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
            reduce(&mut ring, 5, 1000).unwrap();
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

/// A peer that speaks nonsense after the handshake is refused before any memory is reserved for what it announces.
#[test]
fn frames_that_do_not_belong_are_refused() {
    let frame = |sequence: u64, length: u32, kind: u8, payload: &[u8]| {
        let mut frame = sequence.to_le_bytes().to_vec();
        frame.extend(length.to_le_bytes());
        frame.extend([kind, 0, 0, 0]);
        frame.extend(payload);
        frame
    };
    let huge = (u64::MAX / 2).to_le_bytes();
    let cases = [
        (
            frame(1, 8, 1, &[0; 8]),
            "expected a frame 'start of all_gather' of operation 0, got 'start of all_gather' of operation 1",
        ),
        (
            frame(0, 8, 9, &[0; 8]),
            "expected a frame 'start of all_gather' of operation 0, got 'unknown' of operation 0",
        ),
        (frame(0, u32::MAX, 1, &[]), "a start frame of 4294967295 bytes, at most 4096 are allowed"),
        (frame(0, 2, 1, &[0; 2]), "a start frame of a gather is too short"),
        (frame(0, 8, 1, &huge), "9223372036854775807 bytes to gather, at most 16777216 are allowed"),
        (frame(0, 9, 1, &[0; 9]), "1 bytes came with the start of a gather of 0 bytes"),
    ];
    for (frame, expected) in cases {
        let (mut listeners, addresses) = listeners(2);
        let at = listeners[0].local_addr();
        let mut listener = listeners.remove(0);
        let mut peer = call(at, &hello("digits/0", 1, 1, 0, 2));
        let mut ring = join(&mut listener, &addresses, 1, 0).unwrap();
        assert_eq!(answer(&mut peer), (0, 1));
        peer.write_all(&frame).unwrap();
        let error = alongside(move || ring.all_gather(b"x").unwrap_err(), || {});
        assert_eq!(error.to_string(), format!("rank 1 broke the protocol: {expected}"));
    }
}

/// Aborting one rank in the middle of moving data, wherever that is, ends all of them.
#[test]
fn an_abort_in_the_middle_of_a_reduction_ends_it() {
    for round in 0..10u8 {
        let rings = ring_group(3);
        let handle = rings[1].abort_handle();
        let (working, worked) = channel();
        let ends = alongside(
            move || {
                on_threads(rings, move |mut ring| {
                    let mine = vec![ring.rank() as f32; 1_000_000];
                    let mut sum = vec![0.0; mine.len()];
                    loop {
                        let parts = vec![(ring.rank()..ring.rank() + 1, mine.clone())];
                        // Three leaves: 0 and 1 are a subtree of their own, each leaf is a node.
                        if let Err(error) = ring.all_reduce_exact(3, parts, &mut sum) {
                            return error;
                        }
                        let _ = working.send(());
                    }
                })
            },
            || {
                worked.iter().take(usize::from(round)).for_each(drop);
                handle.abort();
            },
        );
        assert!(matches!(ends[1], CollectiveError::Aborted), "{ends:?}");
        assert!(matches!(ends[0], CollectiveError::PeerLost { .. }), "{ends:?}");
        assert!(matches!(ends[2], CollectiveError::PeerLost { .. }), "{ends:?}");
    }
}

/// Set for the child process of the test below: the address of rank 0.
const CHILD: &str = "COLLECTIVE_TEST_RANK_0";

/// A process that is killed is seen at once, in the middle of a stream of operations.
#[test]
fn a_killed_process_is_lost() {
    if let Ok(address) = std::env::var(CHILD) {
        return be_killed(address);
    }
    let mut listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().to_string();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_is_lost"])
        .env(CHILD, &address)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = KilledOnDrop(child);
    let addresses = [address, "127.0.0.1:9".to_owned()];
    let mut ring = join(&mut listener, &addresses, 1, 0).unwrap();
    let (working, worked) = channel();
    let error = alongside(
        move || {
            loop {
                if let Err(error) = reduce(&mut ring, 4, 100_000) {
                    return error;
                }
                let _ = working.send(());
            }
        },
        || {
            worked.iter().take(3).for_each(drop);
            child.0.kill().unwrap();
        },
    );
    assert!(matches!(error, CollectiveError::PeerLost { rank: 1, .. }), "{error:?}");
}

/// The killed process's part: it reduces until it dies.
fn be_killed(rank_0: String) {
    let mut listener = Listener::bind("127.0.0.1:0").unwrap();
    let addresses = [rank_0, listener.local_addr().to_string()];
    let mut ring = join(&mut listener, &addresses, 1, 1).unwrap();
    while reduce(&mut ring, 4, 100_000).is_ok() {}
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
