//! Calls that do not fit: together or in themselves.

use collective::{Collective, CollectiveError, MAX_GATHER_BYTES};

use crate::group::{KINDS, is_end, on_threads};
use crate::work::{Call, Exact, parts, reduce};

#[test]
fn members_that_do_different_things_are_found_out() {
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
    let cases: [(&str, Call); 5] = [
        ("leaves 1..2 come before leaves 0..1", |member| {
            member.all_reduce(2, 0, vec![(1..2, vec![]), (0..1, vec![])]).map(drop)
        }),
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
            // A bucket is as long as its first part.
            if kind.starts_with("background") && message.contains("elements") {
                continue;
            }
            let mut members = group(2);
            let error = call(&mut *members[0]).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid argument: {message}"), "{kind}");
            assert!(matches!(members[0].all_gather(b""), Err(CollectiveError::Broken)), "{kind}");
            let error = members[1].all_gather(b"").unwrap_err();
            assert!(matches!(error, CollectiveError::PeerLost { rank: 0, .. }), "{kind}: {error:?}");
        }
    }
}
