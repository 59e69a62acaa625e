//! Groups of every kind, and threads on which their members work.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use collective::faulty::Faulty;
use collective::ring::{Listener, Membership, Ring, Transport, connect_over};
use collective::{AbortHandle, Collective, CollectiveError, local};

use crate::buckets::Buckets;

/// Nothing takes longer unless it hangs.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(20);

pub(crate) type Group = Vec<Box<dyn Collective>>;

/// Forms a group of so many ranks.
type Forming = fn(u32) -> Group;

/// Every implementation that the contract is checked on.
pub(crate) const KINDS: [(&str, Forming); 7] = [
    ("local", local_group),
    ("faulty", faulty_group),
    ("ring by TCP", |world| boxed(ring_group_over(Transport::Tcp, world))),
    ("ring in shared memory", |world| boxed(ring_group_over(Transport::SharedMemory, world))),
    ("mixed ring", |world| boxed(mixed_group(world))),
    ("background", |world| background(ring_group_over(Transport::SharedMemory, world), 1)),
    ("background in buckets", |world| background(ring_group_over(Transport::Tcp, world), 3)),
];

pub(crate) fn local_group(world: u32) -> Group {
    boxed(local::group(world))
}

pub(crate) fn faulty_group(world: u32) -> Group {
    boxed(local::group(world).into_iter().map(|c| Faulty::new(c, [])).collect())
}

fn boxed<C: Collective + 'static>(members: Vec<C>) -> Group {
    members.into_iter().map(|member| Box::new(member) as Box<dyn Collective>).collect()
}

fn background(rings: Vec<Ring>, buckets: usize) -> Group {
    boxed(rings.into_iter().map(|ring| Buckets::new(Box::new(ring), buckets)).collect())
}

/// The ways of a ring, each of them alone.
pub(crate) const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::SharedMemory];

pub(crate) fn ring_group(world: u32) -> Vec<Ring> {
    ring_group_over(Transport::Automatic, world)
}

pub(crate) fn ring_group_over(transport: Transport, world: u32) -> Vec<Ring> {
    ring_group_of(&vec![transport; world as usize])
}

/// Every third rank shares no memory.
pub(crate) fn mixed_group(world: u32) -> Vec<Ring> {
    let transport = |rank| if rank % 3 == 1 { Transport::Tcp } else { Transport::Automatic };
    ring_group_of(&(0..world).map(transport).collect::<Vec<_>>())
}

pub(crate) fn ring_group_of(transports: &[Transport]) -> Vec<Ring> {
    let (mut listeners, addresses) = listeners(transports.len() as u32);
    let addresses = &addresses;
    thread::scope(|scope| {
        let join = |((rank, listener), transport): ((u32, _), &Transport)| {
            let transport = *transport;
            scope.spawn(move || join_over(transport, listener, addresses, 1, rank, &AbortHandle::new()).unwrap())
        };
        let threads: Vec<_> = (0..).zip(&mut listeners).zip(transports).map(join).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
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
    join_over(Transport::Automatic, listener, addresses, generation, rank, abort)
}

pub(crate) fn join_over(
    transport: Transport,
    listener: &mut Listener,
    addresses: &[String],
    generation: u64,
    rank: u32,
    abort: &AbortHandle,
) -> Result<Ring, CollectiveError> {
    let membership = Membership { group: "digits/0", generation, rank, addresses };
    connect_over(transport, listener, membership, abort, HANGS_AFTER)
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
