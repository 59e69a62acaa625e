//! What a coordinator can take: `load_bench PHALANX [SECONDS] [WORKERS] [VIEWERS] [TRIALS] [POINTS A SECOND]`.
//!
//! Starts `PHALANX coordinator` on the journal of a sweep with many trials. Simulated workers, each with a run of its own, connect by
//! gRPC and report steps at an even rate with a line of the ledger for each; what counts is what was acknowledged, which is
//! durable. Six figures are stored of a step: loss, learning rate, norm of the gradient, time, time outside of the model, and
//! samples a second. Meanwhile viewers follow the event stream, and queries of the dashboard are made at fixed times, however long
//! the earlier ones take. Prints one JSON object. `bench/load.py` runs this and writes the results.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is what an example is for")]

mod played;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::engine::{Assignment, Effect, Engine, Event, Timing, WorkerInfo};
use domain::ids::{Step, Time, WorkerId};
use domain::record::{Read, Record, StepRecord};
use domain::spec::file;
use proto::convert::{self, Command, Report};
use proto::v1;
use proto::v1::control_client::ControlClient;
use proto::v1::worker_link_client::WorkerLinkClient;
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// Events that are journalled at once.
const AT_ONCE: usize = 1_000;
/// Figures that are stored of a step.
const FIGURES: u64 = 6;
/// Steps of a report, as of a worker that steps every other millisecond and reports every tenth of a second.
const BATCH: u64 = 50;
/// Reports that a worker sends before the first of them is acknowledged.
const WINDOW: u64 = 8;
/// Time between two queries.
const QUERY_EVERY: Duration = Duration::from_millis(20);
/// Time for everything to connect before anything is counted.
const WARM_UP: Duration = Duration::from_secs(3);

/// What is to be done.
#[derive(Clone, Copy)]
struct Load {
    seconds: u64,
    workers: u64,
    viewers: usize,
    trials: usize,
    points_per_second: u64,
}

/// What was counted.
#[derive(Default)]
struct Counted {
    is_counting: AtomicBool,
    is_over: AtomicBool,
    /// Steps that were acknowledged.
    steps: AtomicU64,
    /// Bytes that viewers have received.
    seen: AtomicU64,
    /// Times from a report to its acknowledgement.
    acknowledged: Mutex<Vec<Duration>>,
    /// Times of queries, by path.
    queries: Mutex<BTreeMap<&'static str, Vec<Duration>>>,
}

/// A coordinator, killed when dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let argument =
        |at: usize, default: u64| std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let Some(program) = std::env::args().nth(1) else {
        eprintln!("usage: load_bench PHALANX [SECONDS] [WORKERS] [VIEWERS] [TRIALS] [POINTS A SECOND]");
        std::process::exit(2);
    };
    let load = Load {
        seconds: argument(2, 20),
        workers: argument(3, 64),
        viewers: argument(4, 500) as usize,
        trials: argument(5, 10_000) as usize,
        points_per_second: argument(6, 100_000),
    };
    let folder = tempfile::tempdir()?;
    let (store, _) = Store::open(folder.path()).map_err(io::Error::other)?;
    for portion in played_journal(load.trials).chunks(AT_ONCE) {
        store.append(portion.to_vec()).await.map_err(io::Error::other)?;
    }
    drop(store);
    let began = Instant::now();
    let (service, grpc, http) = start(&program, folder.path())?;
    let started_ms = began.elapsed().as_millis() as u64;
    let loaded_kib = memory_kib(service.0.id(), "VmRSS:");

    let counted = Arc::new(Counted::default());
    submit(grpc, load.workers).await?;
    for id in 0..load.workers {
        let counted = counted.clone();
        tokio::spawn(async move {
            if let Err(cause) = work(grpc, id, load, &counted).await {
                eprintln!("worker {id}: {cause}");
            }
        });
    }
    for viewer in 0..load.viewers {
        tokio::spawn(follow(http, viewer as u64 % load.workers, counted.clone()));
    }
    tokio::spawn(query(http, counted.clone()));
    tokio::time::sleep(WARM_UP).await;
    counted.is_counting.store(true, Ordering::Relaxed);
    let (steps, cpu, began) = (counted.steps.load(Ordering::Relaxed), processor_ms(service.0.id()), Instant::now());
    tokio::time::sleep(Duration::from_secs(load.seconds)).await;
    let seconds = began.elapsed().as_secs_f64();
    let steps = counted.steps.load(Ordering::Relaxed) - steps;
    let cpu = processor_ms(service.0.id()) - cpu;
    counted.is_over.store(true, Ordering::Relaxed);
    let (resident_kib, peak_kib) = (memory_kib(service.0.id(), "VmRSS:"), memory_kib(service.0.id(), "VmHWM:"));
    let mut queries = std::mem::take(&mut *counted.queries.lock().await);
    let mut all: Vec<Duration> = queries.values().flatten().copied().collect();
    let by_path: serde_json::Map<String, serde_json::Value> =
        queries.iter_mut().map(|(path, times)| ((*path).to_owned(), quantiles(times))).collect();
    println!(
        "{}",
        serde_json::json!({
            "workers": load.workers, "viewers": load.viewers, "trials": load.trials,
            "start_ms": started_ms, "loaded_mib": loaded_kib / 1024,
            "seconds": seconds,
            "steps_per_second": steps as f64 / seconds,
            "points_per_second": (steps * FIGURES) as f64 / seconds,
            "acknowledged_ms": quantiles(&mut counted.acknowledged.lock().await),
            "query_ms": quantiles(&mut all), "query_ms_by_path": by_path,
            "viewers_mib": counted.seen.load(Ordering::Relaxed) >> 20,
            "coordinator_cores": cpu as f64 / 1e3 / seconds,
            "resident_mib": resident_kib / 1024, "peak_mib": peak_kib / 1024,
        })
    );
    Ok(())
}

/// The facts of a sweep in which one trial is left in the middle.
fn played_journal(trials: usize) -> Vec<(Time, Event)> {
    let mut engine = Engine::new(Timing::default());
    let mut waiting = VecDeque::from(played::opening(trials + 1));
    let (mut journal, mut begun) = (Vec::new(), 0);
    while let Some(event) = waiting.pop_front() {
        let now = Time(journal.len() as u64);
        if event.is_fact() {
            journal.push((now, event.clone()));
        }
        for effect in engine.apply(now, event) {
            begun += usize::from(matches!(effect, Effect::Assign { .. }));
            if begun <= trials {
                waiting.extend(played::answers(effect));
            }
        }
    }
    journal
}

fn start(program: &str, folder: &Path) -> io::Result<(Service, SocketAddr, SocketAddr)> {
    let mut command = Process::new(program);
    command.args(["coordinator", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--state-dir"]).arg(folder);
    let mut service = Service(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let mut lines = io::BufReader::new(service.0.stdout.take().ok_or(io::ErrorKind::Other)?).lines();
    let mut address = || -> io::Result<SocketAddr> {
        let line = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
        let found = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        found.ok_or_else(|| io::Error::other(line))
    };
    let (grpc, http) = (address()?, address()?);
    Ok((service, grpc, http))
}

async fn channel(grpc: SocketAddr) -> io::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}")).map_err(io::Error::other)?;
    endpoint.connect().await.map_err(io::Error::other)
}

/// A run for each worker.
async fn submit(grpc: SocketAddr, runs: u64) -> io::Result<()> {
    let mut control = ControlClient::new(channel(grpc).await?);
    for id in 0..runs {
        let text = format!(
            "{{version: 1, name: load-{id}, data: {{format: idx, images: i, labels: l}}, train: {{steps: 1000000000, \
             global_batch: 64}}, model: {{type: vit, image: [4, 4], channels: 1, patch: 2, dim: 8, depth: 1, heads: 1, \
             classes: 2}}}}"
        );
        let spec =
            file::read(&text, "job.yaml", Path::new("/")).map_err(|problems| io::Error::other(problems.to_string()))?;
        let request = v1::SubmitRequest { spec_json: convert::spec_to_json(&spec) };
        control.submit(request).await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// A worker that computes nothing, but tells of steps at an even rate.
async fn work(grpc: SocketAddr, id: u64, load: Load, counted: &Counted) -> io::Result<()> {
    let info = WorkerInfo {
        id: WorkerId((id + 100) << 32),
        host: format!("host-{}", id / 8),
        pid: id as u32 + 1,
        device: "cpu".to_owned(),
        peer_address: format!("127.0.0.1:{}", 10_000 + id),
        ring_address: format!("127.0.0.1:{}", 20_000 + id),
    };
    let (up, reports) = mpsc::channel(2 * WINDOW as usize);
    let send = |sequence: u64, report: Report| {
        let up = up.clone();
        async move { up.send(convert::report_to_wire(sequence, report)).await.map_err(io::Error::other) }
    };
    send(0, Report::Hello { worker: info.clone(), running: None }).await?;
    let mut client = WorkerLinkClient::new(channel(grpc).await?);
    let mut down = client.attach(ReceiverStream::new(reports)).await.map_err(io::Error::other)?.into_inner();
    let mut assignment: Option<Assignment> = None;
    let (mut sequence, mut acknowledged, mut step) = (0, 0, 0);
    let mut sent: VecDeque<(u64, u64, Instant)> = VecDeque::new();
    let pause = Duration::from_secs_f64((BATCH * FIGURES * load.workers) as f64 / load.points_per_second as f64);
    let mut next = tokio::time::interval(pause);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while !counted.is_over.load(Ordering::Relaxed) {
        tokio::select! {
            command = down.message() => {
                let Some(command) = command.map_err(io::Error::other)? else { return Ok(()) };
                match convert::command_from_wire(command).map_err(io::Error::other)? {
                    Command::Assign(assigned) => {
                        let Assignment { trial, generation, recorded, .. } = (*assigned).clone();
                        step = recorded.step.0;
                        sequence += 1;
                        send(sequence, Report::Formed { trial, generation, position: recorded }).await?;
                        sent.push_back((sequence, 0, Instant::now()));
                        assignment = Some(*assigned);
                    }
                    Command::Acknowledge { sequence } => {
                        acknowledged = sequence;
                        while let Some((number, steps, at)) = sent.front().copied().filter(|(n, ..)| *n <= sequence) {
                            sent.pop_front();
                            counted.steps.fetch_add(steps, Ordering::Relaxed);
                            if steps > 0 && counted.is_counting.load(Ordering::Relaxed) && number % 16 == 0 {
                                counted.acknowledged.lock().await.push(at.elapsed());
                            }
                        }
                    }
                    _ => {}
                }
            }
            _ = next.tick(), if sequence - acknowledged < WINDOW => {
                let Some(Assignment { trial, generation, .. }) = &assignment else { continue };
                let records = (1..=BATCH).map(|n| Record::Step(StepRecord {
                    step: Step(step + n),
                    generation: *generation,
                    loss: 2.0 / (1.0 + (step + n) as f64 * 1e-3),
                    grad_norm: 1.5 + ((step + n) % 17) as f64 * 0.01,
                    lr: 1e-3,
                    skipped: false,
                    micros: 2_000 + (step + n) % 97,
                    micros_outside_model: 100,
                    reads: vec![Read { micro_batch: 0, worker: info.id, samples: (0..64).map(|i| (step + n) * 64 + i).collect() }],
                }));
                let report = Report::Records { trial: trial.clone(), generation: *generation, records: records.collect() };
                step += BATCH;
                sequence += 1;
                sent.push_back((sequence, BATCH, Instant::now()));
                send(sequence, report).await?;
            }
        }
    }
    Ok(())
}

/// Somebody who looks at the sweep and at a run.
async fn follow(http: SocketAddr, run: u64, counted: Arc<Counted>) -> io::Result<()> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET /api/v1/stream?topics=cluster,sweep:s,run:load-{run} HTTP/1.0\r\nHost: {http}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = stream.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        if counted.is_counting.load(Ordering::Relaxed) {
            counted.seen.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}

/// What pages ask for, one after the other at fixed times.
async fn query(http: SocketAddr, counted: Arc<Counted>) {
    const PATHS: [&str; 8] = [
        "/api/v1/cluster",
        "/api/v1/runs/load-3",
        "/api/v1/runs/load-3/series?points=1000",
        "/api/v1/sweeps/s",
        "/api/v1/runs/s.7",
        "/api/v1/runs/load-5/series?keys=loss&points=500",
        "/api/v1/sweeps/s/decisions",
        "/api/v1/runs/load-7/log",
    ];
    let mut next = tokio::time::interval(QUERY_EVERY);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for path in PATHS.into_iter().cycle() {
        next.tick().await;
        if counted.is_over.load(Ordering::Relaxed) {
            return;
        }
        let counted = counted.clone();
        let began = Instant::now();
        tokio::spawn(async move {
            let answered = get(http, path).await;
            let took = began.elapsed();
            match answered {
                Ok(true) if counted.is_counting.load(Ordering::Relaxed) => {
                    counted.queries.lock().await.entry(path).or_default().push(took);
                }
                Ok(true) => {}
                Ok(false) | Err(_) => eprintln!("{path} was not answered"),
            }
        });
    }
}

/// Whether the answer is good, once all of it has come.
async fn get(http: SocketAddr, path: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(http).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {http}\r\nAccept-Encoding: gzip\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"))
}

/// Median, 99 % and most, in milliseconds, and how many there are.
fn quantiles(times: &mut [Duration]) -> serde_json::Value {
    times.sort();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map(|time| time.as_secs_f64() * 1e3)
    };
    serde_json::json!({ "count": times.len(), "median": at(0.5), "p99": at(0.99), "most": at(1.0) })
}

/// A line of the memory that a process holds.
fn memory_kib(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_default();
    value.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// The processor's time that a process has taken.
fn processor_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // In hundredths of a second on every Linux.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10
}
