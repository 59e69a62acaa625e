//! The end of a group: whoever fails, leaves, is aborted or killed, all others learn of it.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use collective::ring::{Listener, Ring};
use collective::{AbortHandle, Collective, CollectiveError, Reduced};

use crate::group::{KINDS, TRANSPORTS, alongside, is_end, join_over, on_threads, ring_group_over};
use crate::work::Exact;
use crate::work::OPERATIONS;

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

/// Aborting one rank in the middle of moving data, wherever that is, ends all of them.
#[test]
fn an_abort_in_the_middle_of_a_reduction_ends_it() {
    for round in 0..20u8 {
        let rings = ring_group_over(TRANSPORTS[usize::from(round % 2)], 3);
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

/// Set for the child process of the test below: the address of rank 0, and how data travel.
const CHILD: &str = "COLLECTIVE_TEST_RANK_0";
const CHILD_TRANSPORT: &str = "COLLECTIVE_TEST_TRANSPORT";

/// A process that is killed is seen at once, in the middle of a stream of operations.
#[test]
fn a_killed_process_is_lost() {
    if let Ok(address) = std::env::var(CHILD) {
        return be_killed(address);
    }
    // Ranks that reduce some kilobytes are mostly in a meeting, those that reduce megabytes mostly move data.
    for (transport, elements) in
        TRANSPORTS.into_iter().flat_map(|transport| [(transport, 2_000), (transport, 2_000_000)])
    {
        let mut listener = Listener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().to_string();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "abort::a_killed_process_is_lost"])
            .env(CHILD, &address)
            .env(CHILD_TRANSPORT, format!("{transport:?} {elements}"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = KilledOnDrop(child);
        let addresses = [address, "127.0.0.1:9".to_owned()];
        let mut ring = join_over(transport, &mut listener, &addresses, 1, 0, &AbortHandle::new()).unwrap();
        let (working, worked) = channel();
        let error = alongside(
            move || {
                loop {
                    if let Err(error) = reduce_ones(&mut ring, elements) {
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
        assert!(matches!(error, CollectiveError::PeerLost { rank: 1, .. }), "{transport:?}: {error:?}");
        drop(child);
        assert_eq!(left_behind(), Vec::<String>::new(), "{transport:?}");
    }
}

/// What lies in the folder of shared memory and looks like ours.
fn left_behind() -> Vec<String> {
    let Ok(files) = std::fs::read_dir("/dev/shm") else { return Vec::new() };
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("phalanx") || name.contains("collective")).collect()
}

/// The killed process's part: it reduces until it dies.
fn be_killed(rank_0: String) {
    let choice = std::env::var(CHILD_TRANSPORT).unwrap();
    let (transport, elements) = choice.split_once(' ').unwrap();
    let transport = TRANSPORTS.into_iter().find(|known| format!("{known:?}") == transport).unwrap();
    let mut listener = Listener::bind("127.0.0.1:0").unwrap();
    let addresses = [rank_0, listener.local_addr().to_string()];
    let mut ring = join_over(transport, &mut listener, &addresses, 1, 1, &AbortHandle::new()).unwrap();
    while reduce_ones(&mut ring, elements.parse().unwrap()).is_ok() {}
}

/// A reduction that spends its time moving data.
fn reduce_ones(ring: &mut Ring, elements: usize) -> Result<Reduced, CollectiveError> {
    let rank = ring.rank();
    ring.all_reduce(2, elements, vec![(rank..rank + 1, vec![1.0; elements])])
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
