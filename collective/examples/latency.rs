//! Measures reductions between processes of one host:
//! `cargo run --release -p collective --example latency -- --world 2 --transport shm --bytes 1000 --times 100`.
//!
//! It starts a process for every further rank. Rank 0 prints the seconds of each reduction, one a line. Every sum is
//! checked. `--operation gather` measures a gather instead; `--background` hands every reduction to another thread.
//! `--operation abort` measures how long it takes, from the call of rank 0 in the midst of reductions, until every rank has
//! returned with an error; the group forms anew each time.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it prints its figures, and stops at the first failure")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use collective::ring::{Listener, Membership, Ring, Transport, connect_over};
use collective::{AbortHandle, Background, Collective};

/// What the command line says.
struct Options {
    world: u32,
    transport: String,
    operation: String,
    bytes: usize,
    times: usize,
    background: bool,
    /// Set in the processes that are started for further ranks.
    rank: u32,
}

impl Options {
    fn parse() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let after = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name);
            at.and_then(|at| arguments.get(at + 1)).cloned()
        };
        let number = |name: &str, default: usize| after(name).map_or(default, |text| text.parse().unwrap());
        Self {
            world: number("--world", 2) as u32,
            transport: after("--transport").unwrap_or_else(|| "shm".to_owned()),
            operation: after("--operation").unwrap_or_else(|| "reduce".to_owned()),
            bytes: number("--bytes", 1000),
            times: number("--times", 100),
            background: arguments.iter().any(|argument| argument == "--background"),
            rank: number("--rank", 0) as u32,
        }
    }

    fn transport(&self) -> Transport {
        match self.transport.as_str() {
            "tcp" => Transport::Tcp,
            "shm" => Transport::SharedMemory,
            other => panic!("--transport is tcp or shm, not {other}"),
        }
    }
}

fn main() {
    let options = Options::parse();
    let mut listener = Listener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().to_string();
    let (addresses, mut children) =
        if options.rank == 0 { start_others(&options, own) } else { (told(own), Vec::new()) };
    let samples = match (options.operation.as_str(), options.background) {
        ("abort", _) => abort(&options, &mut listener, &addresses, &mut children),
        ("gather", _) => gather(form(&options, &mut listener, &addresses, 1, &AbortHandle::new()), &options),
        (_, background) => {
            let ring = form(&options, &mut listener, &addresses, 1, &AbortHandle::new());
            if background { reduce_in_background(ring, &options) } else { reduce(ring, &options) }
        }
    };
    if options.rank == 0 {
        samples.iter().for_each(|sample| println!("{:.9}", sample.as_secs_f64()));
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

fn form(
    options: &Options,
    listener: &mut Listener,
    addresses: &[String],
    generation: u64,
    abort: &AbortHandle,
) -> Ring {
    let membership = Membership { group: "latency", generation, rank: options.rank, addresses };
    connect_over(options.transport(), listener, membership, abort, Duration::from_secs(20)).unwrap()
}

/// Starts the other ranks; each says its address and is told all of them.
fn start_others(options: &Options, own: String) -> (Vec<String>, Vec<Child>) {
    let start = |rank: u32| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(std::env::args().skip(1)).args(["--rank", &rank.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut children: Vec<Child> = (1..options.world).map(start).collect();
    let mut addresses = vec![own];
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        addresses.push(line.trim().to_owned());
    }
    for child in &mut children {
        use std::io::Write;
        writeln!(child.stdin.as_mut().unwrap(), "{}", addresses.join(" ")).unwrap();
    }
    (addresses, children)
}

fn told(own: String) -> Vec<String> {
    println!("{own}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// What rank `rank` adds. The sums of small whole numbers are exact in any order.
fn value(rank: u32, round: usize) -> f32 {
    (rank as usize + 1 + round % 7) as f32
}

fn expected(world: u32, round: usize) -> f32 {
    (0..world).map(|rank| value(rank, round)).sum()
}

fn reduce(mut ring: Ring, options: &Options) -> Vec<Duration> {
    let (rank, world) = (ring.rank(), ring.world());
    let mut buffer = vec![0.0f32; options.bytes / 4];
    let mut samples = Vec::with_capacity(options.times);
    for round in 0..options.times {
        buffer.fill(value(rank, round));
        ring.all_gather(b"").unwrap();
        let began = Instant::now();
        let elements = buffer.len();
        let reduced = ring.all_reduce(world, elements, vec![(rank..rank + 1, buffer)]).unwrap();
        samples.push(began.elapsed());
        // Who is done earlier must not take the processor from the others with its check.
        ring.all_gather(b"").unwrap();
        buffer = reduced.sum;
        assert!(buffer.iter().all(|sum| *sum == expected(world, round)), "a wrong sum");
    }
    samples
}

fn reduce_in_background(ring: Ring, options: &Options) -> Vec<Duration> {
    let (rank, world) = (ring.rank(), ring.world());
    let mut background = Background::start(Box::new(ring)).unwrap();
    let mut buffer = vec![0.0f32; options.bytes / 4];
    let mut samples = Vec::with_capacity(options.times);
    for round in 0..options.times {
        buffer.fill(value(rank, round));
        background.all_gather(b"").unwrap();
        let began = Instant::now();
        background.reduce(world, vec![(rank..rank + 1, buffer)]).unwrap();
        let reduced = background.finish().unwrap();
        samples.push(began.elapsed());
        background.all_gather(b"").unwrap();
        buffer = reduced.sum;
        assert!(buffer.iter().all(|sum| *sum == expected(world, round)), "a wrong sum");
    }
    samples
}

fn gather(mut ring: Ring, options: &Options) -> Vec<Duration> {
    let mine = vec![1; options.bytes];
    let timed = |_| {
        let began = Instant::now();
        assert_eq!(ring.all_gather(&mine).unwrap().len(), options.world as usize);
        began.elapsed()
    };
    (0..options.times).map(timed).collect()
}

/// The clock is that of the host, which all ranks share.
#[expect(
    clippy::disallowed_methods,
    reason = "the abort is to come at any moment of a reduction, so no event tells it"
)]
fn abort(options: &Options, listener: &mut Listener, addresses: &[String], children: &mut [Child]) -> Vec<Duration> {
    let mut outputs: Vec<_> = children.iter_mut().map(|child| BufReader::new(child.stdout.as_mut().unwrap())).collect();
    let mut samples = Vec::with_capacity(options.times);
    for round in 0..options.times {
        let handle = AbortHandle::new();
        let mut ring = form(options, listener, addresses, 1 + round as u64, &handle);
        // Long enough for several reductions, and at another place of one each time.
        let pause = Duration::from_micros(50_000 + 1_700 * round as u64 % 20_000);
        let aborting = (options.rank == 0).then(|| {
            std::thread::spawn(move || {
                std::thread::sleep(pause);
                let now = SystemTime::now();
                handle.abort();
                now
            })
        });
        let mut buffer = vec![1.0f32; options.bytes / 4];
        let part = options.rank..options.rank + 1;
        while let Ok(reduced) = ring.all_reduce(options.world, options.bytes / 4, vec![(part.clone(), buffer)]) {
            buffer = reduced.sum;
        }
        let ended = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let Some(aborting) = aborting else {
            println!("{}", ended.as_nanos());
            continue;
        };
        let began = aborting.join().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let ends = outputs.iter_mut().map(|output| {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            Duration::from_nanos(line.trim().parse().unwrap())
        });
        samples.push(ends.fold(ended, Duration::max).saturating_sub(began));
    }
    samples
}
