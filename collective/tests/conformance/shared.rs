//! Who shares memory, and what becomes of those who cannot.

use std::io::Write;

use collective::Collective;
use collective::ring::{Listener, Transport};

use crate::forming::{answer, call, hello};
use crate::group::{alongside, join, join_over, listeners, mixed_group, on_threads, ring_group, ring_group_of};
use crate::ring::{gather, introduce};
use crate::work::{assert_same_bits, reduce, tree_sum};

#[test]
fn ranks_of_one_host_share_memory_by_themselves() {
    let neighbours: Vec<_> = ring_group(3).iter().map(|ring| ring.neighbours()).collect();
    assert_eq!(neighbours, [[1, 2], [0, 2], [0, 1]]);
    let neighbours: Vec<_> =
        ring_group_of(&[Transport::Automatic, Transport::Tcp]).iter().map(|r| r.neighbours()).collect();
    assert_eq!(neighbours, [[0; 0], []]);
}

/// Some pairs of a group may share memory while others do not.
#[test]
fn a_mixed_group_reduces_exactly() {
    let neighbours: Vec<_> = mixed_group(4).iter().map(|ring| ring.neighbours()).collect();
    assert_eq!(neighbours, [vec![2, 3], vec![], vec![0, 3], vec![0, 2]]);
    let sums = on_threads(mixed_group(4), |mut ring| [8, 13].map(|leaves| reduce(&mut ring, leaves, 500_003).unwrap()));
    for (index, leaves) in [8, 13].into_iter().enumerate() {
        let sums: Vec<_> = sums.iter().map(|sums| sums[index].clone()).collect();
        assert_same_bits(&sums, &tree_sum(leaves, 500_003), "mixed");
    }
}

/// What a reduction moves through memory does not go over the sockets.
#[test]
fn bulk_data_leave_the_sockets() {
    let sent = on_threads(ring_group(2), |mut ring| {
        let before = ring.bytes_sent();
        reduce(&mut ring, 4, 100_000).unwrap();
        ring.bytes_sent() - before
    });
    assert!(sent.iter().all(|sent| *sent < 100), "{sent:?}");
}

/// A peer that says it is on this host, but whose memory cannot be opened, gets its data by TCP.
#[test]
fn a_peer_out_of_sight_is_served_by_tcp() {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let offer = |pid: u32, fds: [u32; 2]| {
        let numbers = [pid, fds[0], fds[1], 1, 2];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()
    };
    // No such process, and one whose descriptors are something else.
    for offer in [offer(u32::MAX, [3, 4]), offer(std::process::id(), [0, 1]), Vec::new(), vec![7; 100]] {
        let (mut listeners, addresses) = listeners(2);
        let at = listeners[0].local_addr();
        let mut listener: Listener = listeners.remove(0);
        let mut peer = call(at, &hello("digits/0", 1, 1, 0, 2));
        let gathered = alongside(
            move || {
                let mut ring = join(&mut listener, &addresses, 1, 0).unwrap();
                assert_eq!(ring.neighbours(), [0; 0]);
                ring.all_gather(b"heard").unwrap()
            },
            || {
                assert_eq!(answer(&mut peer), (0, 1));
                introduce(&mut peer, [boot_id.trim().as_bytes(), &offer, &[1, 0]]);
                peer.write_all(&gather(3, b"by TCP")).unwrap();
            },
        );
        assert_eq!(gathered, [&b"heard"[..], b"by TCP"]);
    }
}

#[test]
fn who_insists_on_shared_memory_does_not_form_without() {
    let (listeners, addresses) = listeners(2);
    let members: Vec<_> = (0..).zip(listeners).collect();
    let errors = on_threads(members, move |(rank, mut listener)| {
        let transport = if rank == 0 { Transport::SharedMemory } else { Transport::Tcp };
        join_over(transport, &mut listener, &addresses, 1, rank, &collective::AbortHandle::new()).err()
    });
    assert_eq!(errors[0].as_ref().unwrap().to_string(), "cannot share memory with every peer");
}
