//! The command line as people meet it: messages, exit codes, and nothing left behind. Nothing is trained here.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must say where")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const GOOD: &str = "\
version: 1
name: digits
model: { type: vit, image: [8, 8], channels: 1, patch: 4, dim: 8, depth: 1, heads: 2, classes: 10 }
data: { format: idx, images: images.gz, labels: labels.gz }
train: { steps: 4, global_batch: 8, micro_batches: 4 }
";

const BAD: &str = "\
version: 1
name: ../../x
model: { type: vit, image: [8, 8], channels: 1, patch: 3, dim: 8, depth: 1, heads: 3, classes: 10, colour: red }
data: { format: idx, images: images.gz, labels: 7 }
train: { steps: 4, global_batch: 8, micro_batches: 4 }
";

/// A folder with `good.yaml` and `bad.yaml`.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.yaml"), GOOD).unwrap();
    std::fs::write(dir.path().join("bad.yaml"), BAD).unwrap();
    dir
}

fn phalanx(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phalanx"));
    command.current_dir(dir).args(line.split_whitespace());
    command.env_remove("PHALANX_COORDINATOR").env_remove("PHALANX_STATE_DIR").env_remove("RUST_LOG");
    command
}

fn run(dir: &Path, line: &str) -> Output {
    phalanx(dir, line).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs `line` and checks its exit code and all of its two outputs.
#[track_caller]
fn check(dir: &Path, line: &str, code: i32, stdout: &str, stderr: &str) {
    let output = run(dir, line);
    let got = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(got, (Some(code), stdout.to_owned(), stderr.to_owned()), "{line}");
}

#[test]
fn what_cannot_be_done_is_said_with_a_way_out() {
    let dir = folder();
    let no_state = "error: there is no state directory .phalanx\n  \
                    hint: --state-dir DIR names another one, --coordinator URL a running coordinator\n";
    let not_there = "error: cannot reach the coordinator at http://127.0.0.1:1: transport error: \
                     tcp connect error: Connection refused (os error 111)\n";
    for (line, code, stderr) in [
        ("list", 2, no_state),
        ("status digits", 2, no_state),
        ("resume digits", 2, no_state),
        (
            "stop digits",
            3,
            "error: no coordinator holds .phalanx\n  \
             hint: then no run of it is being trained; --coordinator URL names a coordinator\n",
        ),
        ("watch digits", 2, no_state),
        ("wait digits", 2, no_state),
        ("top", 2, "error: top needs a terminal for its input and output\n  hint: phalanx status is for scripts\n"),
        ("list --coordinator http://127.0.0.1:1", 3, not_there),
        ("launch good.yaml --coordinator 127.0.0.1:1", 3, not_there),
        ("audit digits --coordinator 127.0.0.1:1 --json", 3, not_there),
        ("launch none.yaml", 2, "error: cannot read none.yaml: No such file or directory (os error 2)\n"),
        (
            "launch good.yaml --workers 5",
            2,
            "error: micro_batches (4) must be >= workers (5)\n  hint: every worker needs a micro-batch of each step\n",
        ),
    ] {
        check(dir.path(), line, code, "", stderr);
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "something was left behind: {left:?}");
}

#[test]
fn validate_reports_every_problem_of_every_file() {
    let dir = folder();
    check(dir.path(), "validate good.yaml", 0, "good.yaml: ok, run digits\n", "");
    check(
        dir.path(),
        "validate good.yaml bad.yaml none.yaml",
        2,
        "good.yaml: ok, run digits\n",
        "\
bad.yaml:2:7: name: may hold only letters, digits, '-', '_' and '.', and must begin with a letter or digit (\"../../x\")
  2 | name: ../../x
    |       ^
bad.yaml:3:56: model.patch: patch (3) must divide both sides of image (8x8) (3)
  3 | channels: 1, patch: 3, dim: 8, depth: 1, heads: 3, classes: 10, colour: red }
    |                     ^
bad.yaml:3:84: model.heads: heads (3) must divide dim (8) (3)
  3 | 8, depth: 1, heads: 3, classes: 10, colour: red }
    |                     ^
bad.yaml:3:100: model.colour: unknown key
  3 | ds: 3, classes: 10, colour: red }
    |                     ^
  hint: known keys: channels, classes, depth, dim, dropout, heads, image, mlp_dim, mlp_ratio, patch, pool, preset, type
bad.yaml:4:49: data.labels: must be text (7)
  4 | data: { format: idx, images: images.gz, labels: 7 }
    |                                                 ^
  hint: put it in quotes
5 problems
error: cannot read none.yaml: No such file or directory (os error 2)
",
    );
}

#[test]
fn validate_prints_the_canonical_form() {
    let dir = folder();
    let output = run(dir.path(), "validate --json good.yaml");
    assert_eq!(output.status.code(), Some(0));
    let spec = domain_spec(&text(&output.stdout));
    assert_eq!(spec["name"], "digits");
    let images = spec["data"]["source"]["images"].as_str().unwrap();
    assert_eq!(Path::new(images), dir.path().canonicalize().unwrap().join("images.gz"), "relative to the file");
}

fn domain_spec(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn names_that_are_paths_are_refused_everywhere() {
    let dir = folder();
    let name = "../../x";
    for line in
        ["status", "stop", "resume", "logs", "audit", "checkpoint list", "checkpoint export", "launch good.yaml --name"]
    {
        let output = run(dir.path(), &format!("{line} {name}"));
        assert_eq!(output.status.code(), Some(2), "{line}");
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with("error: invalid value '../../x' for '"), "{line}: {stderr}");
        assert!(stderr.contains("may hold only letters, digits, '-', '_' and '.'"), "{line}: {stderr}");
    }
}

#[test]
fn every_shell_gets_completions() {
    let dir = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(dir.path(), &format!("completions {shell}"));
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text(&output.stdout).contains("checkpoint"), "{shell}");
    }
}

#[test]
fn help_names_every_command_and_exit_code() {
    let dir = folder();
    let help = text(&run(dir.path(), "--help").stdout);
    for word in ["launch", "resume", "verify", "audit", "Exit codes:", "75  left before the end", "PHALANX_STATE_DIR"] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn what_profiles_are_asked_for_with_is_explained_and_checked() {
    let dir = folder();
    for (verb, option) in
        [("launch", "--profile[=<FIRST-LAST>]"), ("resume", "--profile[=<FIRST-LAST>]"), ("worker", "--profile <DIR>")]
    {
        let help = text(&run(dir.path(), &format!("{verb} --help")).stdout);
        assert!(help.contains(option) && help.contains("ui.perfetto.dev"), "{verb}: {help}");
    }
    let refused = run(dir.path(), "launch good.yaml --profile=7-3");
    assert_eq!(refused.status.code(), Some(2));
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("must be FIRST-LAST, such as 3-7, counted from 1"), "{stderr}");
}

/// Runs `line` with `input` on its standard input.
fn run_with(dir: &Path, line: &str, input: &str) -> Output {
    let mut command = phalanx(dir, line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // It may end before it has read everything.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    process.wait_with_output().unwrap()
}

#[test]
fn init_asks_and_writes_a_job_that_validates() {
    let dir = folder();
    let asked = run_with(dir.path(), "init", "no\nphotos\nmany\n3\n32x48\nsmall\n\n1\n");
    assert_eq!(asked.status.code(), Some(0), "{}", text(&asked.stderr));
    assert_eq!(text(&asked.stdout), "job.yaml is written\n  phalanx launch job.yaml\n");
    let said = text(&asked.stderr);
    for part in ["Classes [10]: ", "many is no answer: ", "pixels [224x224]: ", "Epochs [30]: ", "photos is not here"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    check(dir.path(), "validate job.yaml", 0, "job.yaml: ok, run job\n", "");
    let written = std::fs::read_to_string(dir.path().join("job.yaml")).unwrap();
    for part in ["path: \"photos\"", "classes: 3", "image: [32, 48]", "dim: 192", "epochs: 30", "workers: 1"] {
        assert!(written.contains(part), "no {part:?} in {written}");
    }

    let exists = "error: job.yaml exists already\n  hint: name another file, or --force replaces it\n";
    check(dir.path(), "init --yes", 2, "", exists);
    assert_eq!(std::fs::read_to_string(dir.path().join("job.yaml")).unwrap(), written, "nothing was touched");
    assert_eq!(run(dir.path(), "init --yes --force --epochs 5").status.code(), Some(0));
    assert!(std::fs::read_to_string(dir.path().join("job.yaml")).unwrap().contains("epochs: 5"));

    let sweep = run_with(dir.path(), "init deep.yaml --data photos --epochs 9", "yes\n\n\n\n\n");
    assert_eq!(text(&sweep.stdout), "deep.yaml is written\n  phalanx sweep deep.yaml\n", "{}", text(&sweep.stderr));
    check(dir.path(), "validate deep.yaml", 0, "deep.yaml: ok, sweep deep\n", "");

    let ended = run_with(dir.path(), "init other.yaml", "no\n");
    assert_eq!(ended.status.code(), Some(2));
    assert!(text(&ended.stderr).contains("hint: --yes takes the defaults"), "{}", text(&ended.stderr));
    let odd = run(dir.path(), "init other.yaml --yes --image 223x223");
    assert!(text(&odd.stderr).contains("223x223"), "{}", text(&odd.stderr));
    assert!(!dir.path().join("other.yaml").exists());
}

#[test]
fn doctor_finds_what_does_not_work() {
    let dir = folder();
    let json = |line: &str, code| -> serde_json::Value {
        let output = run(dir.path(), line);
        assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let verdict = |found: &serde_json::Value, check: &str| -> String {
        let found = found["checks"].as_array().unwrap().iter().find(|found| found["check"] == check).cloned();
        found.unwrap_or_else(|| panic!("{check} was not looked at"))["verdict"].as_str().unwrap().to_owned()
    };
    let alone = json("doctor --json", 0);
    assert_eq!(alone["ok"], true);
    for check in ["state directory", "shared memory", "coordinator", "GPU"] {
        assert_eq!(verdict(&alone, check), "ok", "{alone}");
    }
    assert_eq!(verdict(&json("doctor --json --coordinator 127.0.0.1:1", 5), "coordinator"), "fail");
    assert_eq!(verdict(&json("doctor --json --state-dir good.yaml", 5), "state directory"), "fail");
    assert!(!dir.path().join(".phalanx").exists(), "to look must not make it");

    let service = Service::start(dir.path());
    let reached = json("doctor --json --state-dir state", 0);
    assert_eq!((verdict(&reached, "coordinator"), verdict(&reached, "clock")), ("ok".to_owned(), "ok".to_owned()));
    assert_eq!(verdict(&reached, "workers"), "warn", "{reached}");
    assert!(text(&run(dir.path(), &format!("doctor --coordinator {}", service.url)).stdout).contains("0 fail"));
}

/// A running coordinator, killed when dropped.
struct Service {
    process: Child,
    url: String,
}

impl Service {
    fn start(dir: &Path) -> Self {
        let mut command = phalanx(dir, "coordinator --listen 127.0.0.1:0 --http 127.0.0.1:0 --state-dir state");
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.strip_prefix("coordinator at ").and_then(|rest| rest.split_once(" with its state in state\n"));
        let url = url.unwrap_or_else(|| panic!("unexpected first line {line:?}")).0.to_owned();
        Self { process, url }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_coordinator_is_found_by_its_state_directory() {
    let dir = folder();
    let service = Service::start(dir.path());
    let url = &service.url;
    let empty = "NAME  STATE  STEP  ACCURACY  WORKERS  SUBMITTED\n";
    check(dir.path(), "list --state-dir state", 0, empty, "");
    check(dir.path(), &format!("list --coordinator {url}"), 0, empty, "");
    check(dir.path(), "list --json --state-dir state", 0, "[]\n", "");
    let unknown = "error: there is no run nosuch\n  hint: `phalanx list` shows all runs\n";
    for verb in ["status", "stop", "resume", "audit", "logs", "checkpoint list", "checkpoint show", "checkpoint export"]
    {
        check(dir.path(), &format!("{verb} nosuch --state-dir state"), 2, "", unknown);
    }
    let in_use = format!(
        "error: state directory state is in use by the coordinator at {url}\n  \
         hint: --coordinator {url} hands the job to that one, --state-dir DIR takes another folder\n"
    );
    check(dir.path(), "launch good.yaml --state-dir state", 2, "", &in_use);
    let port = url.strip_prefix("http://").unwrap();
    let taken = format!(
        "error: cannot listen on {port}: Address already in use (os error 98)\n  \
         hint: --listen 127.0.0.1:0 takes a port that is free\n"
    );
    check(dir.path(), &format!("coordinator --listen {port} --state-dir other"), 2, "", &taken);
    let http = format!("coordinator --listen 127.0.0.1:0 --http {port} --state-dir other");
    check(dir.path(), &http, 2, "", &taken.replace("--listen", "--http"));
    check(dir.path(), &format!("launch good.yaml --listen {port} --state-dir other"), 2, "", &taken);
}

#[test]
fn a_coordinator_lives_on_when_nobody_reads_what_it_prints() {
    let dir = folder();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = phalanx(dir.path(), "coordinator --listen 127.0.0.1:0 --http 127.0.0.1:0 --state-dir state");
    let process = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let mut service = Service { process, url: String::new() };
    let is_found = || {
        let found = run(dir.path(), "doctor --json --state-dir state");
        let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
        found["checks"].as_array().unwrap().iter().any(|found| found["check"] == "clock")
    };
    // Its line is printed right after it can be found: so it must be found twice, some time apart.
    while !is_found() {
        assert_eq!(service.process.try_wait().unwrap(), None, "the coordinator ended");
    }
    for _ in 0..5 {
        assert!(is_found(), "the coordinator ended");
    }
}

#[test]
fn reading_works_without_a_running_coordinator() {
    let dir = folder();
    drop(Service::start(dir.path()));
    check(dir.path(), "list --json --state-dir state", 0, "[]\n", "");
    let unknown = "error: there is no run nosuch\n  hint: `phalanx list` shows all runs\n";
    check(dir.path(), "status nosuch --state-dir state", 2, "", unknown);
}
