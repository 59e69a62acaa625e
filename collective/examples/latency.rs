//! Measures the ring over loopback: `cargo run --release -p collective --example latency`.
//!
//! Each rank is a thread with sockets of its own. A sample is the time of one operation on rank 0, with all ranks
//! calling it over and over.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it prints its figures, and stops at the first failure")]

use std::thread;
use std::time::{Duration, Instant};

use collective::ring::{Listener, Membership, Ring, connect};
use collective::{AbortHandle, Collective};

/// What is measured: a name, what an operation works on, and how often it is done.
struct Case {
    name: &'static str,
    work: Work,
    samples: usize,
}

enum Work {
    Gather { bytes: usize },
    Reduce { bytes: usize },
}

const CASES: [Case; 3] = [
    Case { name: "all_gather of 1 kB", work: Work::Gather { bytes: 1000 }, samples: 2000 },
    Case { name: "all_reduce_exact of 0.5 MB", work: Work::Reduce { bytes: 500_000 }, samples: 300 },
    Case { name: "all_reduce_exact of 25 MB", work: Work::Reduce { bytes: 25_000_000 }, samples: 20 },
];

fn main() {
    for world in [2, 4] {
        for case in &CASES {
            let mut samples = measure(world, case);
            samples.sort_unstable();
            let at = |percent: usize| samples[(samples.len() - 1) * percent / 100].as_secs_f64() * 1e6;
            println!("{world} ranks, {:27} p50 {:9.1} us, p99 {:9.1} us", case.name, at(50), at(99));
        }
    }
}

fn measure(world: u32, case: &Case) -> Vec<Duration> {
    let mut listeners: Vec<_> = (0..world).map(|_| Listener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().to_string()).collect();
    thread::scope(|scope| {
        let addresses = &addresses;
        let member = |(rank, listener)| {
            scope.spawn(move || {
                let membership = Membership { group: "latency", generation: 1, rank, addresses };
                let ring = connect(listener, membership, &AbortHandle::new(), Duration::from_secs(10)).unwrap();
                run(ring, case)
            })
        };
        let members: Vec<_> = (0..).zip(&mut listeners).map(member).collect();
        members.into_iter().map(|member| member.join().unwrap()).next().unwrap()
    })
}

fn run(mut ring: Ring, case: &Case) -> Vec<Duration> {
    let warm_up = case.samples / 10;
    let mut samples = Vec::with_capacity(case.samples);
    for _ in 0..case.samples + warm_up {
        samples.push(match case.work {
            Work::Gather { bytes } => {
                let mine = vec![1; bytes];
                timed(|| drop(ring.all_gather(&mine).unwrap()))
            }
            Work::Reduce { bytes } => {
                let (rank, world) = (ring.rank(), ring.world());
                let mut sum = vec![0.0; bytes / 4];
                let parts = vec![(rank..rank + 1, vec![1.0; bytes / 4])];
                timed(|| ring.all_reduce_exact(world, parts, &mut sum).unwrap())
            }
        });
    }
    samples.split_off(warm_up)
}

fn timed(operation: impl FnOnce()) -> Duration {
    let began = Instant::now();
    operation();
    began.elapsed()
}
