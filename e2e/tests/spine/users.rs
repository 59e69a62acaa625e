//! What users change while a run is on: who is next, what is kept, who leaves.

use serde_json::Value;

use crate::exact::reference;
use crate::phalanx::{Place, config, start_coordinator, text};

const RUN: &str = "digits-vit";

/// Runs a command that must succeed, and gives what it prints.
fn said(place: &Place, arguments: &[&str]) -> String {
    let output = place.run(arguments);
    assert!(output.status.success(), "{arguments:?} failed: {}", text(&output.stderr));
    text(&output.stdout)
}

fn assert_nothing_was_lost(place: &Place, ended: &Value) {
    assert_eq!((&ended["state"], &ended["weights_sha256"]), (&"completed".into(), reference()), "{ended}");
    assert_eq!(ended["failures"], 0, "{ended}");
    place.assert_audit_is_clean(RUN);
    let report = place.json(&["audit", RUN, "--json"])["report"].clone();
    assert_eq!(report["rolled_back_steps"], 0, "steps were made again: {report}");
}

#[test]
fn a_worker_is_drained_and_taken_back_without_a_failure_or_a_lost_step() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "2", "--json"]);
    launch.wait_for_step(60);
    // The first one, which speaks for the group.
    let worker = place.json(&["status", RUN, "--json"])["members"][0].as_str().expect("a member").to_owned();
    let short = &worker[8..];
    let told = said(&place, &["drain", short]);
    assert_eq!(told, format!("worker {short} is drained: it works for no run, and gets no work\n"));
    assert!(said(&place, &["status"]).lines().any(|line| line.starts_with(short) && line.contains("drained")));
    let run = place.json(&["status", RUN, "--json"]);
    assert_eq!((&run["state"], run["members"].as_array().map(Vec::len)), (&"running".into(), Some(1)), "{run}");
    assert_eq!(run["failures"], 0, "{run}");
    assert_eq!(said(&place, &["drain", &worker, "--undo"]), format!("worker {short} gets work again\n"));
    let whole = |v: &Value| v["event"] == "group" && v["members"].as_array().is_some_and(|m| m.len() == 2);
    launch.wait_for("a whole group", whole);
    assert_nothing_was_lost(&place, &launch.wait_for_end());
}

#[test]
fn a_run_that_cannot_do_without_a_drained_worker_waits_saved() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "1", "--json"]);
    launch.wait_for_step(60);
    let worker = place.json(&["status", RUN, "--json"])["members"][0].as_str().expect("a member").to_owned();
    said(&place, &["drain", &worker]);
    let run = place.json(&["status", RUN, "--json"]);
    let why = "waiting for workers: 0 of at least 1 are free, 1 more is drained";
    assert_eq!((&run["state"], &run["reason"]), (&"waiting".into(), &why.into()), "{run}");
    let newest = run["checkpoints"].as_array().and_then(|all| all.last()).expect("its state is saved")["step"].clone();
    assert_eq!(newest, run["step"], "{run}");
    said(&place, &["drain", &worker, "--undo"]);
    assert_nothing_was_lost(&place, &launch.wait_for_end());
}

#[test]
fn a_pinned_checkpoint_is_kept_to_the_end_and_beyond() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "1", "--json"]);
    let first = launch.wait_for("a checkpoint", |v| v["event"] == "checkpoint")["step"].to_string();
    let told = said(&place, &["checkpoint", "pin", RUN, &first]);
    assert_eq!(told, format!("the checkpoint of step {first} of run {RUN} is kept until it is unpinned\n"));
    launch.wait_for_end();
    launch.wait_for_exit();
    let kinds = || {
        let listed = place.json(&["checkpoint", "list", RUN, "--json"]);
        let listed = listed.as_array().expect("checkpoints").clone();
        listed.iter().map(|one| (one["step"].to_string(), one["pinned"] == true)).collect::<Vec<_>>()
    };
    let before = kinds();
    assert!(before.contains(&(first.clone(), true)) && before.len() > 2, "{before:?}");
    let gone = place.run(&["checkpoint", "pin", RUN, "1"]);
    assert_eq!(gone.status.code(), Some(2));
    let why = "error: run digits-vit has no checkpoint of step 1: none was saved there, or it is not kept any more\n  \
               hint: `phalanx checkpoint list digits-vit`\n";
    assert_eq!(text(&gone.stderr), why);
    // Nothing runs any more: what is stored can be changed all the same.
    said(&place, &["checkpoint", "pin", RUN, &first, "--unpin"]);
    let after = kinds();
    assert_eq!(after, before[1..], "only what need not stay is gone");
}

#[test]
fn priorities_are_changed_where_runs_wait() {
    let place = Place::new();
    let (_coordinator, url) = start_coordinator(&place, "127.0.0.1:0");
    let _waiting: Vec<_> = ["a", "b"]
        .map(|name| {
            let arguments = ["launch", &config("digits-vit.yaml"), "--name", name, "--coordinator", &url, "--json"];
            let mut launch = place.start(&arguments);
            launch.wait_for("a run that waits", |v| v["event"] == "state" || v["event"] == "started");
            launch
        })
        .into();
    assert_eq!(said(&place, &["priority", "b", "-7"]), "b has priority -7\n");
    assert_eq!(place.json(&["status", "b", "--json"])["priority"], -7);
    assert!(said(&place, &["status", "b"]).contains("priority:    -7"));
    let nobody = place.run(&["priority", "nobody", "7"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", text(&nobody.stderr));
    let stopped = place.run(&["stop", "b"]);
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    let late = place.run(&["priority", "b", "7"]);
    assert_eq!((late.status.code(), text(&late.stderr)), (Some(2), "error: run b is stopped already\n".to_owned()));
}
