//! Sweeps with real training: what is tried and decided depends on nothing but the file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use parquet::file::reader::SerializedFileReader;
use parquet::record::Field;
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
    let mut trials = shown(place)["trials"].clone();
    for trial in trials.as_array_mut().expect("trials") {
        let seconds = trial.as_object_mut().expect("a trial").remove("worker_seconds");
        assert!(seconds.is_some_and(|seconds| seconds.as_f64() > Some(0.0)), "{trial}");
    }
    trials
}

fn shown(place: &Place) -> Value {
    place.json(&["sweep", "show", "swept", "--json"])
}

/// The rows of a Parquet file, by the names of its columns.
fn parquet(path: &Path) -> Vec<BTreeMap<String, Field>> {
    let reader = SerializedFileReader::try_from(path).expect("a Parquet file");
    reader.into_iter().map(|row| row.expect("a row").into_columns().into_iter().collect()).collect()
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
    assert!(explained.contains("rested after 1 step with eval loss") && explained.contains("of rung"), "{explained}");
    let status = succeed(&other.run(&["status", "swept"]));
    assert!(status.contains("state:   completed: all 12 trials came to their end"), "{status}");
    assert!(succeed(&other.run(&["logs", "swept"])).contains("trial 0 starts with model.dim = "));
    data_are_read_once_by_the_workers_of_a_host(&other);
    // A trial is a run like any other.
    other.assert_audit_is_clean("swept.0");
    succeed(&other.run(&["sweep", "best", "swept", "--export", "model"]));
    assert!(other.path().join("model/model.safetensors").exists());
    let csv = succeed(&other.run(&["sweep", "show", "swept", "--csv"]));
    assert_eq!(csv.lines().count(), 13);
    let head = "trial,run,state,reason,step,budget,worker_seconds,on_front,parent,parent_budget,eval_loss,";
    assert!(csv.starts_with(head), "{csv}");
    what_was_saved_and_what_mattered_is_told(&other);
    files_hold_what_is_shown(&other);
}

/// All trials, by workers that were started twice, read the same files.
fn data_are_read_once_by_the_workers_of_a_host(place: &Place) {
    let logs: String = (0..12).map(|number| succeed(&place.run(&["logs", &format!("swept.{number}")]))).collect();
    let from = |origin: &str| logs.matches(&format!("training samples from {origin}")).count();
    // Lines may be lost when everything is killed; and the other workers may belong to other tests.
    let (files, shared, kept) = (from("their files"), from("the memory of another worker"), from("the trial before"));
    assert!(files <= 2 && (1..=4).contains(&(files + shared)) && kept >= 4, "{files}, {shared}, {kept}:\n{logs}");
}

fn what_was_saved_and_what_mattered_is_told(place: &Place) {
    let shown = shown(place);
    let steps: u64 =
        shown["trials"].as_array().expect("trials").iter().filter_map(|trial| trial["step"].as_u64()).sum();
    let saved = &shown["saved"];
    assert_eq!((&saved["trials"], &saved["steps"], &saved["full_steps"]), (&12.into(), &steps.into(), &108.into()));
    let (took, full) = (saved["worker_seconds"].as_f64(), saved["full_worker_seconds"].as_f64());
    assert!(took > Some(0.0) && took < full, "{saved}");
    // Less than half of the trials got beyond their first rest.
    let importance = &shown["importance"];
    assert_eq!((&importance["trials"], &importance["budget"]), (&12.into(), &1.into()), "{importance}");
    let parameters = importance["objectives"][0]["parameters"].as_array().expect("parameters");
    let shares: f64 = parameters.iter().filter_map(|parameter| parameter["share"].as_f64()).sum();
    assert!(parameters.len() == 2 && (shares - 1.0).abs() < 1e-9, "{importance}");
    let text = succeed(&place.run(&["sweep", "show", "swept"]));
    for line in [
        &*format!(" of the steps: {steps} instead of 108\n"),
        " of the workers' time: ",
        "importance, by 12 trials after 1 step:",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

fn files_hold_what_is_shown(place: &Place) {
    succeed(&place.run(&["sweep", "show", "swept", "--parquet", "trials.parquet"]));
    let rows = parquet(&place.path().join("trials.parquet"));
    let trials = trials(place);
    let trials = trials.as_array().expect("trials");
    assert_eq!(rows.len(), trials.len());
    for (row, trial) in rows.iter().zip(trials) {
        assert_eq!(row["trial"], Field::Long(trial["number"].as_i64().expect("a number")));
        assert_eq!(row["state"], Field::Str(trial["state"].as_str().expect("a state").to_owned()));
        assert_eq!(row["step"], Field::Long(trial["step"].as_i64().expect("a step")));
        assert_eq!(row["eval_loss"], Field::Double(trial["values"][0].as_f64().expect("a loss")));
        assert_eq!(row["on_front"], Field::Bool(trial["on_front"].as_bool().expect("yes or no")));
        assert_eq!(row["parent"], Field::Null);
        let configuration = &trial["configuration"];
        assert_eq!(row["model.dim"], Field::Long(configuration["model.dim"].as_i64().expect("a whole number")));
        assert_eq!(row["schedule.lr"], Field::Double(configuration["schedule.lr"].as_f64().expect("a number")));
        assert!(matches!(row["worker_seconds"], Field::Double(seconds) if seconds > 0.0), "{row:?}");
    }
    let again = place.run(&["sweep", "show", "swept", "--parquet", "trials.parquet"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("trials.parquet exists already\n  hint: name another file"));

    succeed(&place.run(&["sweep", "curves", "swept", "--parquet", "curves.parquet"]));
    let curves = parquet(&place.path().join("curves.parquet"));
    let csv = succeed(&place.run(&["sweep", "curves", "swept", "--csv"]));
    assert_eq!(csv.lines().count(), 1 + curves.len());
    assert!(csv.starts_with("trial,step,metric,value\n0,1,eval_loss,"), "{csv}");
    for trial in trials {
        let mine = |row: &&BTreeMap<String, Field>| {
            row["trial"] == Field::Long(trial["number"].as_i64().expect("a number"))
                && row["metric"] == Field::Str("eval_loss".to_owned())
        };
        let curve: Vec<_> = curves.iter().filter(mine).collect();
        let steps: Vec<_> = curve.iter().map(|row| row["step"].clone()).collect();
        let made = trial["step"].as_i64().expect("a step");
        assert_eq!(steps, (1..=made).map(Field::Long).collect::<Vec<_>>(), "an evaluation after every step");
        let last = curve.last().expect("it was evaluated");
        assert_eq!(last["value"], Field::Double(trial["values"][0].as_f64().expect("a loss")));
    }
}

#[test]
fn of_two_objectives_the_front_is_the_result() {
    let place = Place::new();
    let file = write_sweep(&place, "");
    let path = place.path().join(file);
    let sweep = fs::read_to_string(&path).expect("just written");
    let (head, _) = sweep.split_once("objectives:").expect("a key");
    let head = head.replace(
        "model.dim: {integer: {low: 8, high: 32, step: 8}}",
        "optimizer.type: {categorical: [adamw, sgd]}, optimizer.momentum: {uniform: [0.5, 0.9], when: {optimizer.type: sgd}}",
    );
    let rest = "objectives: [{metric: eval_accuracy}, {metric: eval_loss}], searcher: {type: random}, trials: 6}";
    fs::write(&path, format!("{head}{rest}")).expect("a file");
    let summary = succeed(&place.run(&["sweep", file, "--workers", "2", "--threads", "1"]));

    let shown = shown(&place);
    let trials = shown["trials"].as_array().expect("trials");
    let values = |trial: &Value| [0, 1].map(|at| trial["values"][at].as_f64().expect("a value"));
    let beats = |a: &Value, b: &Value| {
        let ([accuracy_a, loss_a], [accuracy_b, loss_b]) = (values(a), values(b));
        accuracy_a >= accuracy_b && loss_a <= loss_b && (accuracy_a > accuracy_b || loss_a < loss_b)
    };
    let free = trials.iter().filter(|trial| !trials.iter().any(|other| beats(other, trial)));
    let front: Vec<u64> = free.map(|trial| trial["number"].as_u64().expect("a number")).collect();
    assert_eq!(shown["front"], Value::from(front.clone()), "{shown}");
    let text = succeed(&place.run(&["sweep", "show", "swept"]));
    for text in [&summary, &text] {
        assert!(text.contains("(marked *): no other one is better in every objective"), "{text}");
        assert!(text.lines().any(|line| line.starts_with(&format!("{}* ", front[0]))), "{text}");
        assert!(text.contains("too few trials were measured after the same length: 6 of 10"), "{text}");
        assert!(text.contains("saved:   nothing, no trial ended early"), "{text}");
    }

    succeed(&place.run(&["sweep", "show", "swept", "--parquet", "trials.parquet"]));
    let rows = parquet(&place.path().join("trials.parquet"));
    for (row, trial) in rows.iter().zip(trials) {
        assert_eq!(row["on_front"], Field::Bool(front.contains(&trial["number"].as_u64().expect("a number"))));
        let is_sgd = row["optimizer.type"] == Field::Str("sgd".to_owned());
        assert_eq!(row["optimizer.momentum"] == Field::Null, !is_sgd, "{row:?}");
    }
    let kinds: Vec<&Field> = rows.iter().map(|row| &row["optimizer.type"]).collect();
    assert!(kinds.iter().any(|kind| **kind != *kinds[0]), "both optimizers were tried: {kinds:?}");
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
    for copy in &copies {
        assert_ne!(copy["state"], "failed", "{copy}");
        // What it took over, its parent has read.
        let audit = succeed(&place.run(&["audit", copy["run"].as_str().expect("a run")]));
        assert!(audit.ends_with("0 missing, 0 duplicated\n"), "{audit}");
    }
    // Members are replaced, not ended: nothing is saved.
    assert!(shown(&place)["saved"].is_null());
    succeed(&place.run(&["sweep", "show", "swept", "--parquet", "trials.parquet"]));
    let rows = parquet(&place.path().join("trials.parquet"));
    for copy in copies {
        let row = &rows[copy["number"].as_u64().expect("a number") as usize];
        assert_eq!(row["parent"], Field::Long(copy["parent"].as_i64().expect("a number")), "{row:?}");
        assert_eq!(row["parent_budget"], Field::Long(copy["parent_budget"].as_i64().expect("a budget")), "{row:?}");
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
fn a_sweep_without_a_number_for_its_metric_fails_and_says_why() {
    let lacking = |mode: &str| {
        let place = Place::new();
        let file = write_sweep(&place, ", max_failed: 3");
        let path = place.path().join(file);
        let sweep = fs::read_to_string(&path).expect("a file");
        let sweep = sweep.replace("[1e-4, 0.1]", "[1e37, 1e38]").replace("global_batch: 64", mode);
        // After one step the weights are beyond all numbers; the second one shows it.
        let sweep = sweep.replace("min: {steps: 1}", "min: {steps: 3}");
        fs::write(&path, sweep).expect("a file");
        let output = place.run(&["sweep", file, "--workers", "2", "--threads", "1"]);
        assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
        (shown(&place), text(&output.stderr))
    };
    let (sweep, said) = lacking("global_batch: 64, on_non_finite: stop");
    let cause = "3 trials failed one after the other, the last with: after step 1: step 2 has loss NaN and gradient norm NaN; \
                 lower schedule.lr, or set train.on_non_finite to skip or rollback";
    assert!(said.contains(cause), "{said}");
    assert!(sweep["trials"].as_array().expect("trials").iter().all(|trial| trial["state"] == "failed"), "{sweep}");

    let (sweep, said) = lacking("global_batch: 64, on_non_finite: skip");
    assert!(said.contains("all 12 trials came to their end; no trial has a number for eval_loss"), "{said}");
    assert_eq!(sweep["trials"].as_array().expect("trials").len(), 12);
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
