//! Sweeps with real training: what is tried and decided depends on nothing but the file.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::phalanx::{Place, root, signal, text};

/// Twelve trials of at most nine steps, decided in waves.
fn write_sweep(place: &Place, more: &str) -> &'static str {
    let datasets = root().join("datasets/digits");
    let file = |name: &str| datasets.join(name).display().to_string();
    let (images, labels) = (file("images-idx3-ubyte.gz"), file("labels-idx1-ubyte.gz"));
    let sweep = format!(
        "{{version: 1, name: swept, job: {{data: {{format: idx, images: \'{images}\', labels: \'{labels}\', pixel_max: 16}}, \
         model: {{type: vit, image: [8, 8], channels: 1, patch: 4, dim: 16, depth: 1, heads: 2, classes: 10}}, \
         train: {{steps: 9, global_batch: 64}}, eval: {{every_steps: 1}}, checkpoint: {{every_steps: 1}}}}, \
         space: {{schedule.lr: {{log_uniform: [1e-4, 0.1]}}, model.dim: {{integer: {{low: 8, high: 32, step: 8}}}}}}, \
         objectives: [{{metric: eval_loss}}], searcher: {{type: tpe, startup: 4}}, trials: 12, \
         scheduler: {{type: asha, min: {{steps: 1}}, max: {{steps: 9}}, eta: 3}}{more}}}"
    );
    fs::write(place.path().join("sweep.yaml"), sweep).expect("a file");
    "sweep.yaml"
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The trials without what depends on when they ran.
fn trials(place: &Place) -> Value {
    place.json(&["sweep", "show", "swept", "--json"])["trials"].clone()
}

#[test]
fn the_same_trials_and_decisions_on_any_number_of_workers_and_through_a_crash() {
    let place = Place::new();
    let file = write_sweep(&place, ", lock_step: true");
    let mut sweeping = place.start(&["sweep", file, "--workers", "1", "--threads", "1", "--json"]);
    sweeping.wait_for("the end of the sweep", |v| v["event"] == "ended");
    assert!(sweeping.wait().success());
    let alone = trials(&place);
    assert_eq!(alone.as_array().expect("trials").len(), 12);

    let other = Place::new();
    let file = write_sweep(&other, ", lock_step: true");
    let mut sweeping = other.start(&["sweep", file, "--workers", "2", "--threads", "1", "--json"]);
    // Coordinator and workers go at once, in the middle.
    sweeping.wait_for("a third trial", |v| v["event"] == "trial" && v["trial"]["number"] == 3);
    signal("KILL", sweeping.pid());
    sweeping.wait_for_exit();
    succeed(&other.run(&["resume", "swept", "--workers", "2"]));
    assert_eq!(trials(&other), alone);

    // And it can be asked again.
    let replayed = succeed(&other.run(&["replay", "swept"]));
    assert!(replayed.starts_with("12 trials and "), "{replayed}");
    assert!(succeed(&other.run(&["replay", "swept", "--eta", "2"])).contains("WOULD BE"));
    let pruned =
        alone.as_array().expect("trials").iter().find(|trial| trial["state"] == "pruned").expect("one was stopped");
    let number = pruned["number"].as_u64().expect("a number");
    let explained = succeed(&other.run(&["explain", &format!("swept/{number}")]));
    assert!(explained.contains("rested after 1 steps with loss") && explained.contains("of rung"), "{explained}");
    let status = succeed(&other.run(&["status", "swept"]));
    assert!(status.contains("state:   completed: all 12 trials came to their end"), "{status}");
    assert!(succeed(&other.run(&["logs", "swept"])).contains("trial 0 starts with model.dim = "));
    // A trial is a run like any other.
    other.assert_audit_is_clean("swept.0");
    succeed(&other.run(&["sweep", "best", "swept", "--export", "model"]));
    assert!(other.path().join("model/model.safetensors").exists());
    let csv = succeed(&other.run(&["sweep", "show", "swept", "--csv"]));
    assert_eq!(csv.lines().count(), 13);
    assert!(csv.starts_with("trial,run,state,step,budget,eval_loss,model.dim,schedule.lr\n"), "{csv}");
}

#[test]
fn members_of_a_population_go_on_from_copies_of_better_ones() {
    let place = Place::new();
    let file = write_sweep(&place, "");
    let path = place.path().join(file);
    let sweep = fs::read_to_string(&path).expect("just written");
    let (head, _scheduler) = sweep.split_once("scheduler:").expect("a key");
    let population = "searcher: {type: population, population: 4, interval: {steps: 3}}";
    let head = head.replace("searcher: {type: tpe, startup: 4}", population);
    // The shape of the model stays, or weights could not be copied.
    let head = head.replace(", model.dim: {integer: {low: 8, high: 32, step: 8}}", "");
    fs::write(&path, format!("{}}}", head.trim_end().trim_end_matches(','))).expect("a file");
    succeed(&place.run(&["sweep", file, "--workers", "2", "--threads", "1"]));
    let trials = trials(&place);
    let copies: Vec<&Value> =
        trials.as_array().expect("trials").iter().filter(|trial| trial["parent"].is_u64()).collect();
    assert!(!copies.is_empty(), "{trials}");
    for copy in copies {
        assert_ne!(copy["state"], "failed", "{copy}");
    }
}

#[test]
fn a_sweep_is_stopped_and_resumed_by_its_name() {
    let place = Place::new();
    let file = write_sweep(&place, "");
    let mut sweeping = place.start(&["sweep", file, "--workers", "1", "--threads", "1", "--json"]);
    sweeping.wait_for("a second trial", |v| v["event"] == "trial" && v["trial"]["number"] == 2);
    let stopped = succeed(&place.run(&["stop", "swept"]));
    assert!(stopped.starts_with("sweep swept is stopped, "), "{stopped}");
    assert_eq!(sweeping.wait().code(), Some(75));
    let refused = place.run(&["stop", "swept.0"]);
    assert_ne!(refused.status.code(), Some(0));
    succeed(&place.run(&["resume", "swept", "--workers", "1", "--threads", "1"]));
    assert!(succeed(&place.run(&["status", "swept"])).contains("completed: all 12 trials"));
}

#[test]
fn what_cannot_be_swept_is_said_before_it_begins() {
    let place = Place::new();
    let file = write_sweep(&place, ", max_concurent: 2");
    let output = place.run(&["sweep", file]);
    assert_eq!(output.status.code(), Some(2));
    let shown = text(&output.stderr);
    assert!(shown.contains("max_concurent: unknown key") && shown.contains("did you mean max_concurrent?"), "{shown}");
    let output = place.run(&["explain", "nothing/1"]);
    assert_eq!(output.status.code(), Some(2));
}
