//! Starting the real binary and reading what it says.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// No process of a test lives longer; the slowest training takes a quarter of this on two busy cores.
const PROCESS_LIMIT: Duration = Duration::from_secs(600);

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// The binary of the profile that this test was built with.
///
/// It is brought up to date on first use, by the very build that `cargo test --workspace` makes: asking for the binary
/// alone would choose other features of its dependencies, and compile them all once more.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let this = std::env::current_exe().expect("a running test has a path");
        let profile = this.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--quiet", "--workspace", "--no-run"]).current_dir(root());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.stdin(Stdio::null()).output().expect("cargo runs");
        assert!(built.status.success(), "the binary does not build: {}", text(&built.stderr));
        profile.join("phalanx")
    })
}

/// A folder of its own with a state folder in it, gone at the end of the test.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// A command on this place; nothing of the caller's environment points it elsewhere.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.path()).env("PHALANX_STATE_DIR", self.state_dir());
        command
            .env_remove("PHALANX_COORDINATOR")
            .env_remove("RUST_LOG")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Running::start(self.command(arguments)).output()
    }

    /// Runs a command that must succeed, and reads its one JSON document.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?} failed: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?} printed no JSON: {e}"))
    }

    /// Starts a command whose stdout is one JSON object per line.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// The process ids of the workers that serve `run`, by rank.
    pub(crate) fn worker_pids(&self, run: &str) -> Vec<u64> {
        let status = self.json(&["status", "--json"]);
        let runs = status["runs"].as_array().expect("runs");
        let members = &runs.iter().find(|r| r["name"] == run).expect("the run is there")["members"];
        let workers = status["workers"].as_array().expect("workers");
        let pid = |member: &Value| workers.iter().find(|w| w["id"] == *member).and_then(|w| w["pid"].as_u64());
        members.as_array().expect("members").iter().map(|m| pid(m).expect("a member is a known worker")).collect()
    }

    /// Asserts that every sample of every epoch was read exactly once.
    pub(crate) fn assert_audit_is_clean(&self, run: &str) {
        let output = self.run(&["audit", run]);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        assert!(text(&output.stdout).contains("0 missing, 0 duplicated"), "{}", text(&output.stdout));
    }
}

/// A job file of the repository.
pub(crate) fn config(name: &str) -> String {
    root().join("configs").join(name).display().to_string()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends a signal to a process.
pub(crate) fn signal(name: &str, pid: u64) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.expect("kill runs").success(), "cannot send {name} to process {pid}");
}

/// A process whose lines are read as they come, and which ends with the test.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    seen: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (to_lines, lines) = channel();
        let (to_errors, errors) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test may have seen enough.
                let _ = to_lines.send(line);
            }
        });
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            let _ = to_errors.send(text(&bytes));
        });
        Self { child, lines, errors, seen: String::new() }
    }

    pub(crate) fn pid(&self) -> u64 {
        self.child.id().into()
    }

    /// The next line that is JSON and fits; fails the test if the process ends or falls silent before.
    pub(crate) fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.lines.recv_timeout(PROCESS_LIMIT) {
                Ok(line) => {
                    self.seen += &(line.clone() + "\n");
                    if let Ok(value) = serde_json::from_str::<Value>(&line)
                        && fits(&value)
                    {
                        return value;
                    }
                }
                Err(why) => {
                    let _ = self.child.kill();
                    let errors = self.errors.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
                    panic!("never saw {what} ({why}); stdout:\n{}stderr:\n{errors}", self.seen);
                }
            }
        }
    }

    /// Waits until at least `step` steps are done.
    pub(crate) fn wait_for_step(&mut self, step: u64) {
        let reached = |v: &Value| v["event"] == "step" && v["step"].as_u64().is_some_and(|s| s >= step);
        self.wait_for(&format!("step {step}"), reached);
    }

    /// Waits for the summary of a followed run.
    pub(crate) fn wait_for_end(&mut self) -> Value {
        self.wait_for("the end of the run", |v| v["event"] == "ended")
    }

    /// Waits for a process that was sent a signal.
    pub(crate) fn wait_for_exit(&mut self) {
        self.child.wait().expect("a child can be waited for");
    }

    /// Waits for the process to end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    /// Everything it says until it ends.
    pub(crate) fn output(mut self) -> Output {
        let mut stdout = String::new();
        while let Ok(line) = self.lines.recv_timeout(PROCESS_LIMIT) {
            stdout += &(line + "\n");
        }
        let stderr = self.errors.recv_timeout(PROCESS_LIMIT).unwrap_or_default();
        let status = self.child.wait().expect("a child can be waited for");
        Output { status, stdout: stdout.into_bytes(), stderr: stderr.into_bytes() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Trains `file` to its end and gives the summary.
pub(crate) fn train(place: &Place, file: &str, workers: u32) -> Value {
    let mut running = place.start(&["launch", file, "--workers", &workers.to_string(), "--json"]);
    let ended = running.wait_for_end();
    assert!(running.wait().success());
    assert_eq!(ended["state"], "completed", "{ended}");
    ended
}

/// Starts a coordinator of its own on `place` and gives its URL once it serves.
pub(crate) fn start_coordinator(place: &Place, listen: &str) -> (Running, String) {
    let mut command = place.command(&["coordinator", "--listen", listen, "--http", "127.0.0.1:0"]);
    command.stdout(Stdio::piped());
    let mut running = Running::start(command);
    let line = running.lines.recv_timeout(PROCESS_LIMIT).expect("the coordinator says where it listens");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL").to_owned();
    running.seen = line;
    (running, url)
}
