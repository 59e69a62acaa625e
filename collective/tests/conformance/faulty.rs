//! Scripted failures.

use collective::faulty::{Fault, Faulty, Gate};
use collective::{Collective, CollectiveError, local};

use crate::group::{alongside, on_threads};

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
