//! Groups of every kind, and threads on which their members work.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use collective::faulty::Faulty;
use collective::ring::{Listener, Membership, Ring, connect};
use collective::{AbortHandle, Collective, CollectiveError, local};

/// Nothing takes longer unless it hangs.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(20);

pub(crate) type Group = Vec<Box<dyn Collective>>;

/// Forms a group of so many ranks.
type Forming = fn(u32) -> Group;

/// Every implementation that the contract is checked on.
pub(crate) const KINDS: [(&str, Forming); 3] = [("local", local_group), ("ring", boxed_ring), ("faulty", faulty_group)];

pub(crate) fn local_group(world: u32) -> Group {
    local::group(world).into_iter().map(|c| Box::new(c) as Box<dyn Collective>).collect()
}

pub(crate) fn faulty_group(world: u32) -> Group {
    local::group(world).into_iter().map(|c| Box::new(Faulty::new(c, [])) as Box<dyn Collective>).collect()
}

pub(crate) fn boxed_ring(world: u32) -> Group {
    ring_group(world).into_iter().map(|c| Box::new(c) as Box<dyn Collective>).collect()
}

pub(crate) fn ring_group(world: u32) -> Vec<Ring> {
    let (mut listeners, addresses) = listeners(world);
    let rings = form(&mut listeners, &addresses, 1);
    rings.into_iter().map(|ring| ring.unwrap()).collect()
}

pub(crate) fn listeners(world: u32) -> (Vec<Listener>, Vec<String>) {
    let listeners: Vec<_> = (0..world).map(|_| Listener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = listeners.iter().map(|l| l.local_addr().to_string()).collect();
    (listeners, addresses)
}

pub(crate) fn join(
    listener: &mut Listener,
    addresses: &[String],
    generation: u64,
    rank: u32,
) -> Result<Ring, CollectiveError> {
    join_abortable(listener, addresses, generation, rank, &AbortHandle::new())
}

pub(crate) fn join_abortable(
    listener: &mut Listener,
    addresses: &[String],
    generation: u64,
    rank: u32,
    abort: &AbortHandle,
) -> Result<Ring, CollectiveError> {
    connect(listener, Membership { group: "digits/0", generation, rank, addresses }, abort, HANGS_AFTER)
}

/// Forms one generation on all listeners at once.
pub(crate) fn form(
    listeners: &mut [Listener],
    addresses: &[String],
    generation: u64,
) -> Vec<Result<Ring, CollectiveError>> {
    thread::scope(|scope| {
        let join = |(rank, listener)| scope.spawn(move || join(listener, addresses, generation, rank));
        let threads: Vec<_> = (0..).zip(listeners).map(join).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs `work` on a thread per member, and returns the results in order; a member lives until its work ends.
pub(crate) fn on_threads<C: Send + 'static, T: Send + 'static>(
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
pub(crate) fn alongside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static, meanwhile: impl FnOnce()) -> T {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(work()));
    meanwhile();
    receiver.recv_timeout(HANGS_AFTER).expect("the other thread hangs or panicked")
}

pub(crate) fn is_end(error: &CollectiveError) -> bool {
    matches!(error, CollectiveError::PeerLost { .. } | CollectiveError::Protocol { .. })
}
