//! The result does not depend on the cluster: the same weights, to the bit, from any number of workers and through
//! anything that happens to them; and every sample read exactly once.

use std::sync::OnceLock;

use serde_json::Value;

use crate::phalanx::{Place, config, signal, start_coordinator, train};

const RUN: &str = "digits-vit";

/// The hash of the weights that one undisturbed worker ends with.
pub(crate) fn reference() -> &'static Value {
    static REFERENCE: OnceLock<Value> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let place = Place::new();
        let ended = train(&place, &config("digits-vit.yaml"), 1);
        let accuracy = ended["accuracy"].as_f64().expect("a number");
        assert!(accuracy >= 0.97, "accuracy {accuracy}");
        place.assert_audit_is_clean(RUN);
        ended["weights_sha256"].clone()
    })
}

fn assert_is_the_reference(place: &Place, ended: &Value) {
    assert_eq!(ended["state"], "completed", "{ended}");
    assert_eq!(ended["weights_sha256"], *reference(), "{ended}");
    place.assert_audit_is_clean(RUN);
}

fn workers_agree(workers: u32) {
    let place = Place::new();
    let ended = train(&place, &config("digits-vit.yaml"), workers);
    assert_is_the_reference(&place, &ended);
}

#[test]
fn two_workers_give_the_weights_of_one() {
    workers_agree(2);
}

#[test]
fn three_workers_give_the_weights_of_one() {
    workers_agree(3);
}

#[test]
fn four_workers_give_the_weights_of_one() {
    workers_agree(4);
}

#[test]
fn a_worker_killed_mid_epoch_and_replaced_changes_nothing() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "2", "--json"]);
    launch.wait_for_step(60);
    signal("KILL", place.worker_pids(RUN)[0]);
    let whole = |v: &Value| {
        v["event"] == "group"
            && v["generation"].as_u64() > Some(1)
            && v["members"].as_array().is_some_and(|m| m.len() == 2)
    };
    launch.wait_for("the group whole again", whole);
    let ended = launch.wait_for_end();
    assert!(launch.wait().success());
    assert!(ended["failures"].as_u64() >= Some(1), "{ended}");
    assert_is_the_reference(&place, &ended);
}

#[test]
fn a_coordinator_killed_and_restarted_changes_nothing() {
    let place = Place::new();
    let (mut coordinator, url) = start_coordinator(&place, "127.0.0.1:0");
    let worker = || place.start(&["worker", "--coordinator", &url, "--threads", "1"]);
    let (_first, _second) = (worker(), worker());
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--coordinator", &url, "--json"]);
    launch.wait_for_step(60);
    signal("KILL", coordinator.pid());
    coordinator.wait_for_exit();
    let address = url.strip_prefix("http://").expect("a URL");
    let (_coordinator, _) = start_coordinator(&place, address);
    let ended = launch.wait_for_end();
    assert!(launch.wait().success());
    assert_eq!(ended["failures"], 0, "the workers went on without their coordinator: {ended}");
    assert_is_the_reference(&place, &ended);
}

#[test]
fn a_run_stopped_and_resumed_ends_like_one_undisturbed() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "2", "--json"]);
    launch.wait_for_step(100);
    assert!(place.run(&["stop", RUN]).status.success());
    let stopped = launch.wait_for_end();
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    assert_eq!(launch.wait().code(), Some(75), "a stopped run can be taken up again");

    let mut resume = place.start(&["resume", RUN, "--workers", "1", "--json"]);
    let ended = resume.wait_for_end();
    assert!(resume.wait().success());
    assert_is_the_reference(&place, &ended);
}
