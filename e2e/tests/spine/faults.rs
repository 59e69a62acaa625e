//! Things that break while a run is on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::exact::reference;
use crate::phalanx::{Place, Running, config, signal, text};

const RUN: &str = "digits-vit";

/// A shell script for which `folder` of the state folder is a file system of its own of `size` bytes; `"$@"` is the binary.
fn on_small_disk(place: &Place, folder: &str, size: &str, script: &str) -> Running {
    let disk = place.state_dir().join(folder);
    std::fs::create_dir_all(&disk).expect("a folder");
    let binary = place.command(&[]);
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size={size} tmpfs \"$DISK\" || exit 99; {script}");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(binary.get_program());
    command.current_dir(place.path()).env("PHALANX_STATE_DIR", place.state_dir()).env("DISK", disk);
    command.env_remove("PHALANX_COORDINATOR");
    Running::start(command)
}

/// The run is completed, with the weights of one that nothing happened to.
fn assert_completed(said: &str) {
    let ended = said.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()).next_back();
    let ended = ended.expect("the run says how it ended");
    assert_eq!((&ended["state"], &ended["weights_sha256"]), (&"completed".into(), reference()), "{said}");
}

#[test]
fn a_full_disk_ends_the_run_with_its_reason_and_nothing_saved_is_lost() {
    let place = Place::new();
    let config = config("digits-vit.yaml");
    let script = format!(
        "\"$@\" launch {config} --workers 2 --json; echo \"{{\\\"exit\\\": $?}}\"; mount -o remount,size=64m \"$DISK\"; \
         \"$@\" resume {RUN} --json; \"$@\" audit {RUN}"
    );
    // Room for a checkpoint or two.
    let output = on_small_disk(&place, "checkpoints", "2m", &script).output();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.to_lowercase().contains("no space left on device"), "{said}");
    assert!(said.contains("{\"exit\": 5}"), "{said}");
    assert!(said.contains("0 missing, 0 duplicated"), "{said}");
    assert_completed(&text(&output.stdout));
}

#[test]
fn without_space_for_what_happens_training_waits_until_there_is_some() {
    let place = Place::new();
    let config = config("digits-vit.yaml");
    let script = format!(
        "\"$@\" launch {config} --workers 2 --json > out 2> err & \
         until grep -q '\"checkpoint\"' out; do kill -0 $! || exit 98; sleep 0.02; done; \
         cat /dev/zero > \"$DISK/ballast\"; \
         until grep -q 'the store cannot be written' err; do kill -0 $! || exit 97; sleep 0.02; done; \
         \"$@\" status >&2; \"$@\" doctor >&2; \
         page=$(grep -om1 '\"dashboard\":\"[^\"]*' out | cut -d'\"' -f4); \
         curl -s \"$page/api/v1/store\" >&2; curl -s \"$page/metrics\" | grep ^phalanx_store_stalled >&2; \
         rm \"$DISK/ballast\"; wait $!; code=$?; cat out; cat err >&2; \"$@\" audit {RUN} >&2; exit $code"
    );
    let output = on_small_disk(&place, "", "64m", &script).output();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{} {said}", output.status);
    assert!(said.contains("0 missing, 0 duplicated"), "{said}");
    // Who asks is told: status, doctor, the page, Prometheus.
    let cause = "no space left on the disk of the store";
    for told in [
        &format!(" the store cannot be written: {cause}\nworkers go on and nothing is lost"),
        &format!(" the store cannot be written: {cause}\n                       hint: workers go on"),
        &format!("\"trouble\":\"{cause}\",\"since\":1"),
        "phalanx_store_stalled 1\n",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert_completed(&text(&output.stdout));
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
