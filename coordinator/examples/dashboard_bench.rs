//! What the dashboard costs: `cargo run --release -p coordinator --example dashboard_bench [TRIALS] [VIEWERS]`.
//!
//! A sweep is played with one worker that computes nothing. After every event, what changed is put over the picture and
//! published, while the version before is still held by somebody who looks; for comparison, everything is copied as a
//! whole. Then a coordinator is started on the same journal, and asked over HTTP.

#![expect(clippy::print_stdout, reason = "it is what an example is for")]

mod played;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coordinator::Config;
use domain::engine::{Engine, Event, Timing};
use domain::ids::Time;
use domain::picture::Picture;
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use played::{answers, opening};

/// Events that are timed at the end, when all trials are there.
const TIMED: usize = 2_000;
/// Events that are journalled at once.
const AT_ONCE: usize = 1_000;
/// Requests of each kind.
const REQUESTS: usize = 20;

#[tokio::main]
async fn main() -> io::Result<()> {
    let argument = |at: usize| std::env::args().nth(at).and_then(|text| text.parse::<usize>().ok());
    let (trials, viewers) = (argument(1).unwrap_or(10_000), argument(2).unwrap_or(500));
    let folder = tempfile::tempdir()?;
    let journal = play(trials);
    let (store, _) = Store::open(folder.path()).map_err(io::Error::other)?;
    for portion in journal.chunks(AT_ONCE) {
        store.append(portion.to_vec()).await.map_err(io::Error::other)?;
    }
    drop(store);

    let (listener, dashboard) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let (grpc, http) = (listener.local_addr()?, dashboard.local_addr()?);
    let shutdown = CancellationToken::new();
    let config = Config::new(folder.path().to_owned(), Timing::default());
    let began = Instant::now();
    let running = tokio::spawn(coordinator::run(config, listener, Some(dashboard), shutdown.clone()));
    get(http, "/api/v1/cluster").await?;
    println!("{} events at {grpc} were replayed and shown in {:.0} ms", journal.len(), millis(began.elapsed()));
    for path in ["/api/v1/cluster", "/api/v1/sweeps/s", "/api/v1/sweeps/s/decisions", "/api/v1/runs/s.7", "/metrics"] {
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..REQUESTS {
            let began = Instant::now();
            bytes = get(http, path).await?;
            times.push(began.elapsed());
        }
        times.sort();
        let (median, most) = (millis(times[REQUESTS / 2]), millis(times[REQUESTS - 1]));
        println!("{path}: {bytes} bytes in {median:.1} ms, at most {most:.1} ms");
    }
    follow(http, viewers).await?;
    shutdown.cancel();
    let ended = running.await.map_err(io::Error::other)?;
    ended.map_err(io::Error::other).map(drop)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The bytes of an answer.
async fn get(http: SocketAddr, path: &str) -> io::Result<usize> {
    let mut stream = TcpStream::connect(http).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {http}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.len())
}

/// Times how long it takes until all of many viewers have heard of a change.
async fn follow(http: SocketAddr, viewers: usize) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..viewers {
        let mut stream = TcpStream::connect(http).await?;
        let request = format!("GET /api/v1/stream?topics=cluster,sweep:s HTTP/1.0\r\nHost: {http}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        read_until(&mut stream, "event: sweep:s").await?;
        streams.push(stream);
    }
    let began = Instant::now();
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("POST /api/v1/sweeps/s/stop HTTP/1.0\r\nHost: {http}\r\nX-Phalanx: 1\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    for stream in &mut streams {
        read_until(stream, "\"stopp").await?;
    }
    println!("{viewers} viewers heard of a change after {:.1} ms", millis(began.elapsed()));
    Ok(())
}

/// Reads until `text` has come.
async fn read_until(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let mut seen = Vec::new();
    let mut bytes = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = stream.read(&mut bytes).await?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended"));
        }
        seen.extend_from_slice(&bytes[..read]);
    }
    Ok(())
}

/// Plays a sweep, times how its changes are shown, and gives its journal. One trial is left in the middle.
fn play(trials: usize) -> Vec<(Time, Event)> {
    let mut engine = Engine::new(Timing::default());
    let mut picture = Picture::default();
    let mut waiting = VecDeque::from(opening(trials + 1));
    let mut costs: Vec<Duration> = Vec::new();
    let mut looked_at = Arc::new(picture.clone());
    let mut journal = Vec::new();
    while let Some(event) = waiting.pop_front() {
        let now = Time(journal.len() as u64);
        if event.is_fact() {
            journal.push((now, event.clone()));
        }
        for effect in engine.apply(now, event) {
            if looked_at.runs().len() < trials {
                waiting.extend(answers(effect));
            }
        }
        let changes = engine.take_changes();
        let began = Instant::now();
        picture.put(changes, &engine);
        looked_at = Arc::new(picture.clone());
        costs.push(began.elapsed());
    }
    let mut last = costs.split_off(costs.len().saturating_sub(TIMED));
    last.sort();
    let micros = |at: usize| last[at].as_nanos() as f64 / 1e3;
    let (median, most) = (micros(last.len() / 2), micros(last.len() * 99 / 100));
    println!("{} trials: an event is shown in {median:.1} us (99 %: {most:.1} us)", looked_at.runs().len());
    let began = Instant::now();
    let copy = looked_at.view();
    println!("copying all {} runs as a whole takes {:.0} us", copy.runs.len(), began.elapsed().as_nanos() as f64 / 1e3);
    journal
}
