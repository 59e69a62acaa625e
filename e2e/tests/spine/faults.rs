//! Things that break while a run is on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::phalanx::{Place, Running, config, signal, text};

const RUN: &str = "digits-vit";

/// A command of `place` whose state folder is a file system of its own with `size` bytes, gone with the process.
fn on_small_disk(place: &Place, size: &str, arguments: &[&str]) -> Command {
    std::fs::create_dir_all(place.state_dir()).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs \"$PHALANX_STATE_DIR\" && \"$@\"; code=$?; \
         find \"$PHALANX_STATE_DIR\" -name '*.safetensors*' -size 0; exit $code"
    );
    let inner = place.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(place.path()).env("PHALANX_STATE_DIR", place.state_dir()).env_remove("PHALANX_COORDINATOR");
    command
}

#[test]
fn a_full_disk_ends_the_run_with_its_reason_and_keeps_what_was_saved() {
    let place = Place::new();
    let config = config("digits-vit.yaml");
    let launch = Running::start(on_small_disk(&place, "6m", &["launch", &config, "--workers", "2", "--json"]));
    let output = launch.output();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.to_lowercase().contains("no space left on device"), "{said}");
}

#[test]
fn a_frozen_worker_is_replaced_when_its_lease_ends_and_is_not_heard_any_more() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "2", "--json"]);
    launch.wait_for_step(60);
    let frozen = place.worker_pids(RUN)[1];
    signal("STOP", frozen);
    let without = |v: &Value| v["event"] == "group" && v["members"].as_array().is_some_and(|m| m.len() == 1);
    launch.wait_for("a group without the frozen worker", without);
    signal("CONT", frozen);
    let ended = launch.wait_for_end();
    assert_eq!(ended["state"], "completed", "{ended}");
    place.assert_audit_is_clean(RUN);
}

#[test]
fn no_worker_outlives_a_killed_launch() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "2", "--json"]);
    launch.wait_for_step(20);
    let workers = place.worker_pids(RUN);
    signal("KILL", launch.pid());
    launch.wait_for_exit();
    let deadline = Instant::now() + Duration::from_secs(30);
    for pid in workers {
        let process = format!("/proc/{pid}");
        while Path::new(&process).exists() {
            assert!(Instant::now() < deadline, "worker {pid} is still there");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_killed_launch_can_be_resumed() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "2", "--json"]);
    launch.wait_for("a checkpoint", |v| v["event"] == "checkpoint");
    launch.wait_for_step(100);
    signal("KILL", launch.pid());
    launch.wait_for_exit();
    let mut resume = place.start(&["resume", RUN, "--workers", "2", "--json"]);
    let ended = resume.wait_for_end();
    assert_eq!(ended["state"], "completed", "{ended}");
    place.assert_audit_is_clean(RUN);
}
