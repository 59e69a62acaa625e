//! Worker processes of our own: started, started again when they die, and ended with us whatever happens.
//!
//! A worker holds the reading end of a pipe as its standard input. When this process ends, however it ends, the pipe
//! closes and the worker leaves. It has a process group of its own, so that Ctrl-C on a terminal reaches only us.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use telemetry::Endpoint;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use worker::Profiling;

use crate::exit::Failure;
use crate::output::escape_lines;

/// A worker that lives shorter than this, while the run makes no step, died of something that will happen again.
const QUICK: Duration = Duration::from_secs(3);

/// So many quick deaths in a row, and the cause is shown instead of trying once more.
const QUICK_DEATHS_MAX: u32 = 5;

/// The pause after the second quick death in a row; it doubles with each. After the first there is none.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a worker may take to leave before it is killed.
const LEAVE_LIMIT: Duration = Duration::from_millis(1500);

/// Events that nobody has looked at yet. A worker task waits at a full queue; nothing is lost.
const EVENTS_MAX: usize = 64;

/// A log larger than this is put aside when workers are started; the one put aside before is lost.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// What is shown of the log of a worker that could not be kept alive.
const TAIL_LINES: usize = 12;

/// Enough for [`TAIL_LINES`] long lines.
const TAIL_BYTES: u64 = 8 << 10;

/// How workers are started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The coordinator's URL.
    pub(crate) coordinator: String,
    /// How many.
    pub(crate) workers: u32,
    /// Threads of each.
    pub(crate) threads: u32,
    /// Where `worker-N.log` is written.
    pub(crate) log_dir: PathBuf,
    /// What they profile.
    pub(crate) profile: Option<Profiling>,
    /// The collector that they tell what they do.
    pub(crate) otlp: Option<Endpoint>,
}

/// What happened to a worker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEvent {
    /// It was started.
    Started { slot: u32, pid: u32 },
    /// It ended, and another one will be started.
    Died { slot: u32, pid: u32, how: String },
    /// It cannot be kept alive. The last event of its slot.
    GaveUp { slot: u32, why: String },
}

/// The worker processes. Dropping them kills them; [`Workers::shut_down`] lets them leave first.
pub(crate) struct Workers {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    events: mpsc::Receiver<WorkerEvent>,
    kills: Vec<mpsc::Sender<()>>,
    progress: watch::Sender<u64>,
}

impl Workers {
    /// Starts them.
    pub(crate) fn start(plan: &Plan) -> Result<Self, Failure> {
        let dir = &plan.log_dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let stop = CancellationToken::new();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (progress, _) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let mut kills = Vec::new();
        for slot in 0..plan.workers {
            let (kill, killed) = mpsc::channel(1);
            kills.push(kill);
            let keeper = Keeper {
                slot,
                program: program.clone(),
                plan: plan.clone(),
                log: open_log(dir, slot)?,
                stop: stop.clone(),
                events: sender.clone(),
                killed,
                progress: progress.subscribe(),
            };
            tasks.spawn(keeper.keep());
        }
        Ok(Self { stop, tasks, events, kills, progress })
    }

    /// Waits for the next event.
    pub(crate) async fn next_event(&mut self) -> WorkerEvent {
        match self.events.recv().await {
            Some(event) => event,
            // Every slot has given up, and said so.
            None => std::future::pending().await,
        }
    }

    /// Says that the run made a step: workers that die are not dying for nothing.
    pub(crate) fn progressed(&self, step: u64) {
        self.progress.send_replace(step);
    }

    /// Sends SIGKILL to the worker of `slot`, which is then replaced like any that dies.
    pub(crate) async fn kill(&self, slot: u32) {
        // The receiver is gone only when the slot has given up, which is an event of its own.
        let _ = self.kills[slot as usize].send(()).await;
    }

    /// Lets all leave, kills those that do not, and waits until none is left.
    pub(crate) async fn shut_down(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Kills all and waits until none is left.
    pub(crate) async fn kill_all(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Keeps one worker alive.
struct Keeper {
    slot: u32,
    program: PathBuf,
    plan: Plan,
    log: Log,
    stop: CancellationToken,
    events: mpsc::Sender<WorkerEvent>,
    killed: mpsc::Receiver<()>,
    progress: watch::Receiver<u64>,
}

struct Log {
    path: PathBuf,
    file: File,
}

impl Keeper {
    async fn keep(mut self) {
        let mut quick_deaths = 0;
        loop {
            let (mut child, stdin) = match self.spawn() {
                Ok(spawned) => spawned,
                Err(cause) => return self.tell(WorkerEvent::GaveUp { slot: self.slot, why: cause.to_string() }).await,
            };
            let (slot, pid) = (self.slot, child.id().unwrap_or_default());
            let (began, step) = (Instant::now(), *self.progress.borrow());
            self.tell(WorkerEvent::Started { slot, pid }).await;
            let Some(status) = self.wait(&mut child).await else { return leave(child, stdin).await };
            let how = describe(status);
            let quick = began.elapsed() < QUICK && *self.progress.borrow() == step;
            quick_deaths = if quick { quick_deaths + 1 } else { 0 };
            if quick_deaths == QUICK_DEATHS_MAX {
                let why = self.give_up_reason(&how);
                return self.tell(WorkerEvent::GaveUp { slot, why }).await;
            }
            self.tell(WorkerEvent::Died { slot, pid, how }).await;
            if quick_deaths > 1 {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE * 2_u32.pow(quick_deaths - 2)) => {}
                }
            }
        }
    }

    fn spawn(&self) -> std::io::Result<(Child, Option<ChildStdin>)> {
        let mut command = Command::new(&self.program);
        command
            .args(["worker", "--exit-with-stdin", "--coordinator", &self.plan.coordinator])
            .args(["--threads", &self.plan.threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(self.log.file.try_clone()?)
            .process_group(0)
            .kill_on_drop(true);
        if let Some(Profiling { folder, steps }) = &self.plan.profile {
            command.arg("--profile").arg(folder).args(["--profile-steps", &steps.to_string()]);
        }
        // Whatever the environment says, it is as this process has it.
        command.arg("--otlp").arg(self.plan.otlp.as_ref().map_or_else(|| "off".to_owned(), Endpoint::url));
        let mut child = command.spawn()?;
        // Waiting for a child closes its standard input unless that is held elsewhere.
        let stdin = child.stdin.take();
        Ok((child, stdin))
    }

    /// How the child ended; `None` when it is to be ended.
    async fn wait(&mut self, child: &mut Child) -> Option<ExitStatus> {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                Some(()) = self.killed.recv() => {
                    // Fails only if it has just ended by itself.
                    let _ = child.start_kill();
                }
                status = child.wait() => return status.ok(),
            }
        }
    }

    async fn tell(&self, event: WorkerEvent) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            _ = self.events.send(event) => {}
        }
    }

    fn give_up_reason(&self, how: &str) -> String {
        let path = self.log.path.display();
        let mut why = format!("worker {} died {QUICK_DEATHS_MAX} times in a row at once ({how})", self.slot);
        match tail(&self.log.path) {
            Ok(lines) if lines.is_empty() => why.push_str(&format!(", its log {path} is empty")),
            Ok(lines) => why.push_str(&format!(", the end of its log {path}:\n{lines}")),
            Err(_) => why.push_str(&format!(", see {path}")),
        }
        why
    }
}

/// Closes a worker's standard input, on which it leaves, and kills it if it does not.
async fn leave(mut child: Child, stdin: Option<ChildStdin>) {
    drop(stdin);
    if tokio::time::timeout(LEAVE_LIMIT, child.wait()).await.is_err() {
        // Both fail only if it has ended in this moment.
        let _ = child.kill().await;
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed by SIGKILL".to_owned(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn open_log(dir: &Path, slot: u32) -> Result<Log, Failure> {
    let path = dir.join(format!("worker-{slot}.log"));
    if std::fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        let aside = path.with_extension("log.1");
        std::fs::rename(&path, &aside).with_context(|| format!("cannot put {} aside", path.display()))?;
    }
    let opened = File::options().create(true).append(true).open(&path);
    let file = opened.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Log { path, file })
}

/// The last lines of a log, safe to show.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(escape_lines(&last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")))
}

/// Threads of each of `workers` workers that share this machine.
pub(crate) fn threads_for(workers: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    (cores / workers).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_short_and_safe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker-0.log");
        let text: String = (0..1000).map(|i| format!("line {i} \u{1b}[31m\n")).collect();
        std::fs::write(&path, text).unwrap();
        let shown = tail(&path).unwrap();
        assert_eq!(shown.lines().count(), TAIL_LINES);
        assert_eq!(shown.lines().last(), Some("  line 999 \\u{1b}[31m"));
    }

    #[test]
    fn cores_are_shared_out() {
        let cores = std::thread::available_parallelism().unwrap().get() as u32;
        assert_eq!(threads_for(1), cores);
        assert_eq!(threads_for(cores * 2), 1);
    }

    #[tokio::test]
    async fn a_worker_that_cannot_live_is_given_up_with_its_last_words() {
        // The test binary itself is the program: it knows no command `worker`, and ends at once with an error.
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan {
            coordinator: "http://127.0.0.1:1".to_owned(),
            workers: 1,
            threads: 1,
            log_dir: dir.path().to_owned(),
            profile: None,
            otlp: None,
        };
        let mut workers = Workers::start(&plan).unwrap();
        let mut died = 0;
        let why = loop {
            match workers.next_event().await {
                WorkerEvent::Started { .. } => {}
                WorkerEvent::Died { .. } => died += 1,
                WorkerEvent::GaveUp { why, .. } => break why,
            }
        };
        assert_eq!(died, QUICK_DEATHS_MAX - 1);
        assert!(why.starts_with("worker 0 died 5 times in a row at once (exit code 101)"), "{why}");
        assert!(why.contains("exit-with-stdin"), "{why}");
        workers.shut_down().await;
    }
}
