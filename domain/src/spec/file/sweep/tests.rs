use super::*;
use crate::batch::Length;
use crate::search::{Condition, Domain, Parameter, Value};
use crate::spec::sweep::{AshaOptions, Goal, Objective, RungMode, SearcherSpec, TpeOptions};
use crate::spec::{ModelSpec, OptimizerRule};

mod searchers;

const JOB: &str = "\
version: 1
name: digits
workers: 4
data: {format: idx, images: i, labels: /abs/l}
model: {type: vit, image: [8, 8], channels: 1, patch: 2, dim: 32, depth: 2, heads: 4, classes: 10, mlp_ratio: 2}
train: {epochs: 100, global_batch: 64}
eval: {every_epochs: 5}
early_stopping: {metric: eval_loss}
";

/// The least that a sweep file says.
const SHORTEST: &str = "\
version: 1
name: sweep
job: jobs/job.yaml
space: {schedule.lr: {log_uniform: [1e-4, 1e-2]}}
trials: 3
";

const LONGEST: &str = "\
version: 1
name: sweep-1
seed: 7
job: jobs/job.yaml
space:
  optimizer.momentum: {uniform: [0.5, 0.99], when: {optimizer.type: [sgd]}}
  optimizer.type: {categorical: [adamw, sgd]}
  schedule.lr: {log_uniform: {low: 1e-4, high: 1e-2}}
  model.dim: {integer: {low: 16, high: 64, step: 16}}
  model.heads: {ordinal: [2, 4]}
  model.depth: {integer: [1, 4]}
  schedule.warmup_steps: {log_integer: [1, 100]}
  train.clip_norm: {constant: 1.0}
  train.micro_batches: 16
constraints:
  - model.dim % model.heads == 0
  - schedule.lr * train.global_batch < 2
objectives:
  - {metric: eval_accuracy, goal: maximize}
  - {metric: eval_loss}
searcher:
  type: tpe
  startup: 5
  candidates: 12
  good_share: 0.25
scheduler:
  type: asha
  min: {epochs: 5}
  max: {epochs: 80}
  eta: 2
  mode: stop
  warm_up: {epochs: 10}
trials: 60
max_steps: 100000
max_seconds: 3600
workers_per_trial: 2
max_concurrent: 3
priority: -5
elastic: true
lock_step: true
trial_retries: 2
max_failed: 4
warm_start: [first, second.3]
";

fn load(path: &Path) -> Result<String, String> {
    match path.to_str() {
        Some("/base/jobs/job.yaml") => Ok(JOB.to_owned()),
        Some("/base/jobs/wrong.yaml") => Ok(JOB.replace("depth: 2", "depth: two")),
        _ => Err("no such file".to_owned()),
    }
}

fn read_ok(text: &str) -> SweepSpec {
    read(text, "s/sweep.yaml", Path::new("/base"), load).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn shown(text: &str) -> String {
    match read(text, "s/sweep.yaml", Path::new("/base"), load) {
        Ok(spec) => panic!("was accepted: {text}\n{spec:#?}"),
        Err(problems) => super::super::tests::without_source(&problems),
    }
}

fn word(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn parameter(path: &str, domain: Domain) -> Parameter {
    Parameter { path: path.to_owned(), domain, when: None }
}

#[test]
fn defaults_are_filled_in() {
    let spec = read_ok(SHORTEST);
    assert_eq!(spec.seed, 0);
    assert_eq!(spec.objectives, [Objective { metric: EvalMetric::EvalLoss, goal: Goal::Minimize }], "as the job says");
    assert_eq!(spec.searcher, SearcherSpec::Tpe(TpeOptions { startup: 10, candidates: 24, good_share: 0.1 }));
    assert_eq!(spec.scheduler, SchedulerSpec::None);
    assert_eq!(spec.budget, SweepBudget { trials: Some(3), steps: None, seconds: None });
    assert_eq!((spec.workers_per_trial, spec.max_concurrent, spec.priority), (1, None, 0));
    assert_eq!((spec.elastic, spec.lock_step, spec.trial_retries, spec.max_failed), (false, false, 0, 10));
    let job = spec.base_job().unwrap();
    assert_eq!((job.name.as_str(), job.workers, job.min_workers), ("sweep", 1, 1));
    assert_eq!(
        (job.data.source, job.train.micro_batches),
        (crate::spec::DataSource::Idx { images: "/base/jobs/i".into(), labels: "/abs/l".into() }, 8)
    );
}

#[test]
fn every_key_is_read() {
    let spec = read_ok(LONGEST);
    let momentum = Domain::Uniform { low: 0.5, high: 0.99 };
    let when = Some(Condition { path: "optimizer.type".to_owned(), values: vec![word("sgd")] });
    let parameters = [
        // It moved up, because the next one depends on it.
        parameter("optimizer.type", Domain::Categorical { values: vec![word("adamw"), word("sgd")] }),
        Parameter { when, ..parameter("optimizer.momentum", momentum) },
        parameter("schedule.lr", Domain::LogUniform { low: 1e-4, high: 1e-2 }),
        parameter("model.dim", Domain::Integer { low: 16, high: 64, step: 16 }),
        parameter("model.heads", Domain::Ordinal { values: vec![Value::Integer(2), Value::Integer(4)] }),
        parameter("model.depth", Domain::Integer { low: 1, high: 4, step: 1 }),
        parameter("schedule.warmup_steps", Domain::LogInteger { low: 1, high: 100 }),
        parameter("train.clip_norm", Domain::Constant { value: Value::Number(1.0) }),
        parameter("train.micro_batches", Domain::Constant { value: Value::Integer(16) }),
    ];
    let mut paths = spec.space.parameters().to_vec();
    let mut expected = parameters.to_vec();
    assert!(paths.iter().position(|p| p.path == "optimizer.type") < paths.iter().position(|p| p.when.is_some()));
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(paths, expected);
    let texts: Vec<&str> = spec.space.constraints().iter().map(Constraint::text).collect();
    assert_eq!(texts, ["model.dim % model.heads == 0", "schedule.lr * train.global_batch < 2"]);
    assert_eq!(spec.objectives, [EvalMetric::EvalAccuracy, EvalMetric::EvalLoss].map(Objective::natural));
    assert_eq!(spec.searcher, SearcherSpec::Tpe(TpeOptions { startup: 5, candidates: 12, good_share: 0.25 }));
    let asha = AshaOptions {
        min: Length::Epochs(5),
        max: Some(Length::Epochs(80)),
        eta: 2,
        mode: RungMode::Stop,
        warm_up: Some(Length::Epochs(10)),
    };
    assert_eq!(spec.scheduler, SchedulerSpec::Asha(asha));
    assert_eq!(spec.budget, SweepBudget { trials: Some(60), steps: Some(100_000), seconds: Some(3600) });
    assert_eq!((spec.seed, spec.workers_per_trial, spec.max_concurrent, spec.priority), (7, 2, Some(3), -5));
    assert_eq!((spec.elastic, spec.lock_step, spec.trial_retries, spec.max_failed), (true, true, 2, 4));
    assert_eq!(spec.warm_start.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["first", "second.3"]);
    assert!(spec.prior.is_empty());
}

#[test]
fn a_configuration_becomes_a_job() {
    let spec = read_ok(LONGEST);
    let configuration = [
        ("optimizer.type", word("sgd")),
        ("optimizer.momentum", Value::Number(0.75)),
        ("schedule.lr", Value::Number(2e-3)),
        ("model.dim", Value::Integer(48)),
        ("train.clip_norm", Value::Number(1.0)),
    ];
    let configuration = configuration.map(|(path, value)| (path.to_owned(), value)).into();
    let job = spec.job(&configuration, 3).unwrap();
    let ModelSpec::Vit(vit) = &job.model;
    assert_eq!((vit.dim, vit.mlp_dim, vit.depth, job.seed), (48, 96, 2, 0));
    assert_eq!(job.optimizer.rule, OptimizerRule::Sgd { momentum: 0.75, nesterov: false });
    assert_eq!((job.schedule.lr_max, job.train.clip_norm), (2e-3, Some(1.0)));
    assert_eq!((job.name.as_str(), job.workers, job.min_workers), ("sweep-1", 2, 1));
    crate::spec::check::check(&job).unwrap();
    for (path, value, why) in [
        ("model.dim", Value::Integer(50), "model.heads: heads (4) must divide dim (50) (4)"),
        ("model.depth", Value::Number(2.0), "model.depth: must be a whole number from 1 to 1048576 (2.0)"),
        ("schedule.rate", Value::Integer(1), "schedule.rate: unknown key"),
        ("name.x", Value::Integer(1), "name.x: the job has a value where this path needs a section"),
    ] {
        let error = spec.job(&[(path.to_owned(), value)].into(), 3).unwrap_err();
        assert!(error.starts_with("trial 3 is no job: ") && error.contains(why), "{path}: {error}");
    }
}

#[test]
fn a_sweep_survives_json_and_is_checked_again() {
    for text in [SHORTEST, LONGEST] {
        let spec = read_ok(text);
        let json = serde_json::to_string(&spec).unwrap();
        let back: SweepSpec = serde_json::from_str(&json).unwrap();
        assert_eq!(back, spec);
        assert_eq!(check::check(&back), Ok(()));
    }
    let spoilt = |change: &dyn Fn(&mut SweepSpec)| {
        let mut spec = read_ok(LONGEST);
        change(&mut spec);
        check::check(&spec).unwrap_err().to_string()
    };
    let disordered = |spec: &mut SweepSpec| {
        let mut json = serde_json::to_value(&spec.space).unwrap();
        json["parameters"].as_array_mut().unwrap().reverse();
        spec.space = serde_json::from_value(json).unwrap();
    };
    assert!(spoilt(&disordered).ends_with("space: a parameter stands before the one that its condition names"));
    assert!(spoilt(&|spec| spec.max_failed = 0).ends_with("max_failed: must be a whole number from 1 to 1000000"));
    let no_job = |spec: &mut SweepSpec| spec.job = JobTemplate::new(Json::Null, "/".into());
    assert!(spoilt(&no_job).contains("job: is no job: version: is required"));
}

#[test]
fn the_examples_are_read() {
    let digits = include_str!("../../../../../configs/digits-vit.yaml");
    for (text, parameters) in [
        (include_str!("../../../../../configs/digits-sweep.yaml"), 7),
        (include_str!("../../../../../configs/population-sweep.yaml"), 3),
        (include_str!("../../../../../configs/hyperband-sweep.yaml"), 4),
        (include_str!("../../../../../configs/grid-sweep.yaml"), 4),
        (include_str!("../../../../../configs/conditional-sweep.yaml"), 6),
        (include_str!("../../../../../configs/tradeoff-sweep.yaml"), 3),
        (include_str!("../../../../../configs/cma-es-sweep.yaml"), 5),
        (include_str!("../../../../../configs/nsga2-sweep.yaml"), 4),
        (include_str!("../../../../../configs/warm-start-sweep.yaml"), 3),
    ] {
        let load = |path: &Path| {
            assert_eq!(path, Path::new("/configs/digits-vit.yaml"));
            Ok(digits.to_owned())
        };
        let spec = read(text, "configs/x.yaml", Path::new("/configs"), load);
        let spec = spec.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(spec.space.parameters().len(), parameters, "{text}");
        assert_eq!(check::check(&spec), Ok(()));
        assert!(is_sweep(text) && !is_sweep(digits));
    }
}

#[test]
fn the_values_of_the_default_job_lie_in_the_space_of_the_first_example() {
    let (text, digits) = (
        include_str!("../../../../../configs/digits-sweep.yaml"),
        include_str!("../../../../../configs/digits-vit.yaml"),
    );
    let spec = read(text, "x.yaml", Path::new("/configs"), |_| Ok(digits.to_owned())).unwrap();
    let values = spec.base_job().unwrap().values();
    assert!(spec.space.encode(&values).iter().all(Option::is_some), "{values:?}");
    assert!(spec.space.admits(&values));
}

fn check_edits(text: &str, edits: &[(&str, &str, &str)]) {
    let mut differing = Vec::new();
    for (from, to, expected) in edits {
        assert_eq!(text.matches(from).count(), 1, "{from:?} must stand in the text once");
        let expected = format!("s/sweep.yaml:{expected}\n1 problem");
        let found = shown(&text.replacen(from, to, 1));
        if found != expected {
            differing.push(format!("{from:?} -> {to:?}\n  found:    {found:?}\n  expected: {expected:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn each_mistake_in_the_space_has_its_place_and_its_remedy() {
    let kinds = "uniform, log_uniform, integer, log_integer, categorical, ordinal, constant";
    let none =
        format!("4:22: space.schedule.lr: must say what it can be (a section of 0 keys)\n  hint: one of {kinds}");
    check_edits(
        SHORTEST,
        &[
            ("{log_uniform: [1e-4, 1e-2]}", "{}", none.as_str()),
            (
                "{log_uniform: [1e-4, 1e-2]}",
                "[1, 2]",
                "4:22: space.schedule.lr: must say what it can be (a list of 2)\n  hint: {categorical: [..]} chooses among values, {uniform: [low, high]} between two",
            ),
            (
                "log_uniform: ",
                "log_unifrom: ",
                "4:23: space.schedule.lr.log_unifrom: unknown key\n  hint: did you mean log_uniform?",
            ),
            (
                "[1e-4, 1e-2]",
                "[1e-4, 1e-2], uniform: [1, 2]",
                "4:22: space.schedule.lr: must be either uniform or log_uniform (a section of 2 keys)",
            ),
            (
                "[1e-4, 1e-2]",
                "[0, 1e-2]",
                "4:36: space.schedule.lr.log_uniform: low (0.0) must be > 0 on a logarithmic scale (a list of 2)",
            ),
            (
                "[1e-4, 1e-2]",
                "[1e-1, 1e-2]",
                "4:36: space.schedule.lr.log_uniform: low (0.1) must be < high (0.01) (a list of 2)",
            ),
            (
                "[1e-4, 1e-2]",
                "[1e-4, 1e-4]",
                "4:36: space.schedule.lr.log_uniform: low (0.0001) must be < high (0.0001) (a list of 2)\n  hint: a bare value makes a constant",
            ),
            ("[1e-4, 1e-2]", "[1e-4]", "4:36: space.schedule.lr.log_uniform: must be [low, high] (a list of 1)"),
            ("[1e-4, 1e-2]", "1e-4", "4:36: space.schedule.lr.log_uniform: must be [low, high] (0.0001)"),
            ("[1e-4, 1e-2]", "[a, 1]", "4:37: space.schedule.lr.log_uniform[0]: must be a number (\"a\")"),
            ("[1e-4, 1e-2]", "{low: 1}", "4:36: space.schedule.lr.log_uniform.high: is required"),
            (
                "{log_uniform: [1e-4, 1e-2]}",
                "1e-3",
                "4:8: space: has constants only, there is nothing to search (a section of 1 keys)",
            ),
            (
                "{schedule.lr: {log_uniform: [1e-4, 1e-2]}}",
                "{}",
                "4:8: space: must have a parameter to search (a section of 0 keys)",
            ),
            ("1e-2]}}", "1e-2]}, schedule.lr: 1}", "4:51: space.schedule.lr: stands here a second time"),
            // What the job says to ends and choices.
            (
                "schedule.lr:",
                "schedule.lr_max:",
                "4:40: space.schedule.lr_max.log_uniform: 0.0001 is refused by the job: schedule.lr_max: unknown key (did you mean lr_min?) (a list of 2)",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
                "schedul.lr: 1, seed: {integer: [1, 3]}",
                "4:21: space.schedul.lr: 1 is refused by the job: schedul: unknown key (did you mean schedule?) (1)",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
                "model.dropout: {uniform: [0, 1]}",
                "4:34: space.model.dropout.uniform: 1.0 is refused by the job: model.dropout: must be a number >= 0 and < 1 (1.0) (a list of 2)",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
                "optimizer.type: {categorical: [adamw, adam]}",
                "4:47: space.optimizer.type.categorical[1]: adam is refused by the job: optimizer.type: must be adamw or sgd (\"adam\") (did you mean adamw?) (\"adam\")",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
                "optimizer.momentum: {uniform: [0, 0.9]}",
                "4:39: space.optimizer.momentum.uniform: 0.0 is refused by the job: optimizer.momentum: unknown key (known keys: betas, decay, eps, type, weight_decay) (a list of 2)",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
                "model.dim: {integer: [30, 34]}",
                "4:30: space.model.dim.integer: 30 is refused by the job: model.heads: heads (4) must divide dim (30) (4) (a list of 2)",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
                "workers: {integer: [1, 2]}",
                "4:18: space.workers: cannot be searched (a section of 1 keys)\n  hint: workers_per_trial sets it",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
                "priority: {integer: [0, 1]}",
                "4:19: space.priority: cannot be searched (a section of 1 keys)\n  hint: the sweep's own priority sets it",
            ),
        ],
    );
}

#[test]
fn each_mistake_in_a_longer_space_has_its_place_and_its_remedy() {
    check_edits(
        LONGEST,
        &[
            ("step: 16", "step: 0", "9:24: space.model.dim.integer: step (0) must be >= 1 (a section of 3 keys)"),
            (
                "step: 16",
                "step: 49",
                "9:24: space.model.dim.integer: step (49) must be <= high - low (48) (a section of 3 keys)",
            ),
            (
                "step: 16",
                "stride: 16",
                "9:44: space.model.dim.integer.stride: unknown key\n  hint: known keys: high, low, step",
            ),
            ("[1, 4]", "[4, 1]", "11:26: space.model.depth.integer: low (4) must be < high (1) (a list of 2)"),
            ("[1, 4]", "[1, 4.5]", "11:30: space.model.depth.integer[1]: must be a whole number (4.5)"),
            (
                "[1, 100]",
                "[0, 100]",
                "12:40: space.schedule.warmup_steps.log_integer: low (0) must be >= 1 on a logarithmic scale (a list of 2)",
            ),
            (
                "ordinal: [2, 4]",
                "ordinal: []",
                "10:26: space.model.heads.ordinal: must have 1 to 1000 values, found 0 (a list of 0)",
            ),
            (
                "ordinal: [2, 4]",
                "ordinal: [2, 4, 2.0]",
                "10:26: space.model.heads.ordinal: has 2.0 twice (a list of 3)",
            ),
            (
                "ordinal: [2, 4]",
                "ordinal: [2, null]",
                "10:30: space.model.heads.ordinal[1]: must be a number, text, true or false (null)",
            ),
            (
                "when: {optimizer.type: [sgd]}",
                "when: {optimizer.typ: [sgd]}",
                "6:52: space.optimizer.momentum.when: names optimizer.typ, which is not in the space (a section of 1 keys)\n  hint: did you mean optimizer.type?",
            ),
            (
                "when: {optimizer.type: [sgd]}",
                "when: {optimizer.type: [sgd, lion]}",
                "6:69: space.optimizer.momentum.when.optimizer.type: optimizer.type is never lion (a list of 2)\n  hint: its values: adamw, sgd",
            ),
            (
                "when: {optimizer.type: [sgd]}",
                "when: {schedule.lr: 1}",
                "6:66: space.optimizer.momentum.when.schedule.lr: schedule.lr takes any number: a condition needs choices or whole numbers (1)",
            ),
            (
                "when: {optimizer.type: [sgd]}",
                "when: {optimizer.type: sgd, model.depth: 1}",
                "6:52: space.optimizer.momentum.when: must name one parameter (a section of 2 keys)\n  hint: give one, and let that parameter depend on the next",
            ),
            (
                "[adamw, sgd]}",
                "[adamw, sgd], when: {optimizer.type: sgd}}",
                "7:53: space.optimizer.type.when: conditions go in a circle: optimizer.type needs optimizer.type (a section of 1 keys)",
            ),
            // Constraints.
            (
                "  - model.dim % model.heads == 0",
                "  - model.dim %",
                "16:5: constraints[0]: is no constraint: expected a value, found end at character 12 (\"model.dim %\")",
            ),
            (
                "  - model.dim % model.heads == 0",
                "  - model.dim % model.haeds == 0",
                "16:5: constraints[0]: names model.haeds, which is neither in the space nor a value of the job (\"model.dim % model.haeds == 0\")\n  hint: did you mean model.heads?",
            ),
            (
                "  - model.dim % model.heads == 0",
                "  - optimizer.type == sgd",
                "16:5: constraints[0]: names sgd, which is neither in the space nor a value of the job (\"optimizer.type == sgd\")\n  hint: text stands in quotes",
            ),
            (
                "  - model.dim % model.heads == 0",
                "  - model.mlp_dim < 100",
                "16:5: constraints[0]: names model.mlp_dim, which changes with model.dim (\"model.mlp_dim < 100\")\n  hint: name model.dim instead",
            ),
            (
                "  - model.dim % model.heads == 0",
                "  - model.dim > optimizer.type",
                "16:5: constraints[0]: cannot be computed: 48.0 cannot be compared with \"sgd\" (\"model.dim > optimizer.type\")",
            ),
            (
                "  - model.dim % model.heads == 0",
                "  - model.dim > 64",
                "16:3: constraints: admit (almost) nothing: 10000 points were tried in vain (a list of 2)",
            ),
        ],
    );
}

#[test]
fn each_mistake_in_the_method_has_its_place_and_its_remedy() {
    check_edits(
        LONGEST,
        &[
            (
                "{metric: eval_loss}",
                "{metric: eval_accuracy}",
                "20:14: objectives[1].metric: eval_accuracy stands here twice (\"eval_accuracy\")",
            ),
            (
                "goal: maximize",
                "goal: minimize",
                "19:35: objectives[0].goal: must be maximize for eval_accuracy (\"minimize\")",
            ),
            (
                "type: tpe",
                "type: tpa",
                "22:9: searcher.type: must be grid, random, sobol, tpe, gaussian_process, cma_es, nsga2 or population (\"tpa\")\n  hint: did you mean tpe?",
            ),
            ("startup: 5", "startup: 0", "23:12: searcher.startup: must be a whole number from 1 to 1000000 (0)"),
            ("good_share: 0.25", "good_share: 1", "25:15: searcher.good_share: must be a number > 0 and < 1 (1)"),
            (
                "good_share: 0.25",
                "gamma: 0.25",
                "25:3: searcher.gamma: unknown key\n  hint: known keys: candidates, good_share, startup, type",
            ),
            (
                "min: {epochs: 5}",
                "min: {epochs: 80}",
                "28:8: scheduler.min: min (80 epochs) must be < max (80 epochs) (a section of 1 keys)",
            ),
            (
                "min: {epochs: 5}",
                "min: {steps: 5}",
                "28:8: scheduler.min: min (5 steps) must be in the same unit as max (80 epochs) (a section of 1 keys)",
            ),
            (
                "min: {epochs: 5}",
                "min: 5",
                "28:8: scheduler.min: must say epochs or steps (5)\n  hint: {epochs: 5} or {steps: 100}",
            ),
            (
                "max: {epochs: 80}",
                "max: {epochs: 101}",
                "29:8: scheduler.max: must be at most the length of the job (100 epochs) (a section of 1 keys)",
            ),
            ("eta: 2", "eta: 1", "30:8: scheduler.eta: must be a whole number from 2 to 1000 (1)"),
            ("mode: stop", "mode: kill", "31:9: scheduler.mode: must be stop or pause (\"kill\")"),
            (
                "warm_up: {epochs: 10}",
                "warm_up: {epochs: 100}",
                "32:12: scheduler.warm_up: must be < the length of a trial (100 epochs) (a section of 1 keys)",
            ),
            ("trials: 60", "trials: 0", "33:9: trials: must be a whole number from 1 to 1000000 (0)"),
            (
                "workers_per_trial: 2",
                "workers_per_trial: 17",
                "14:24: space.train.micro_batches: 16 is refused by the job: train.micro_batches: micro_batches (16) must be >= workers (17) (16) (every worker needs a micro-batch of each step) (16)",
            ),
            ("priority: -5", "priority: 5000", "38:11: priority: must be a whole number from -1000 to 1000 (5000)"),
            ("max_failed: 4", "max_failed: 0", "42:13: max_failed: must be a whole number from 1 to 1000000 (0)"),
            ("seed: 7", "sed: 7", "3:1: sed: unknown key\n  hint: did you mean seed?"),
            ("jobs/job.yaml", "jobs/none.yaml", "4:6: job: is not readable: no such file (\"jobs/none.yaml\")"),
            ("jobs/job.yaml", "[a]", "4:6: job: must be the path of a job file, or the sections of one (a list of 1)"),
        ],
    );
    check_edits(
        SHORTEST,
        &[
            ("trials: 3", "trials: 3\nscheduler: {type: threshold}", "6:12: scheduler.value: is required"),
            ("trials: 3\n", "", "1:1: trials: trials, max_steps or max_seconds is required"),
            (
                "trials: 3",
                "searcher: {type: grid}",
                "5:11: searcher.points: is required: schedule.lr has no values of its own to go through",
            ),
            (
                "trials: 3",
                "trials: 3\nscheduler: {type: bohb, min: {epochs: 5}}\nsearcher: {type: random}",
                "7:18: searcher.type: must be tpe for the scheduler bohb, found random (\"random\")",
            ),
            (
                "trials: 3",
                "trials: 3\nscheduler: {type: median}\nsearcher: {type: population}",
                "6:19: scheduler.type: must be none: the searcher population ends no trial early (\"median\")",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}}",
                "model.depth: {integer: [1, 2]}}\nsearcher: {type: population}",
                "4:32: space.model.depth.integer: cannot change while a trial trains, as the searcher population does (a list of 2)\n  hint: learning rate, weight decay, momentum, dropout and label smoothing can",
            ),
            (
                "schedule.lr: {log_uniform: [1e-4, 1e-2]}}",
                "seed: {integer: [1, 2000]}, model.depth: {integer: [1, 2000]}}\nsearcher: {type: grid}",
                "5:11: searcher: the grid has 4000000 points, at most 1000000 are allowed (a section of 1 keys)",
            ),
        ],
    );
}

#[test]
fn all_mistakes_are_reported_at_once_with_those_of_the_job() {
    let text = "\
version: 1
name: sweep
job: jobs/wrong.yaml
space:
  schedule.lr: {log_uniform: [0, 1]}
  model.depth: {integer: [1, x]}
constraints: ['1 +']
scheduler: {type: asha, eta: many}
unknown: 0
";
    let expected = "\
s/sweep.yaml:6:30: space.model.depth.integer[1]: must be a whole number (\"x\")
s/sweep.yaml:7:15: constraints[0]: is no constraint: expected a value, found end at character 4 (\"1 +\")
s/sweep.yaml:8:30: scheduler.eta: must be a whole number from 0 to 4294967295 (\"many\")
s/sweep.yaml:9:1: unknown: unknown key
  hint: known keys: constraints, elastic, job, lock_step, max_concurrent, max_failed, max_seconds, max_steps, name, objectives, priority, scheduler, searcher, seed, space, trial_retries, trials, version, warm_start, workers_per_trial
s/jobs/wrong.yaml:5:74: model.depth: must be a whole number from 1 to 1048576 (\"two\")
5 problems";
    assert_eq!(shown(text), expected);
    let required = |key: &str| format!("s/sweep.yaml:1:1: {key}: is required\n");
    let all: String = ["version", "name", "job", "space"].map(required).concat();
    assert_eq!(shown(""), format!("{all}4 problems"));
}

#[test]
fn an_inline_job_is_read_where_it_stands() {
    let sections = JOB.lines().skip(3).map(|line| format!("  {line}\n")).collect::<String>();
    let inline = SHORTEST.replace("job: jobs/job.yaml\n", &format!("job:\n{sections}"));
    let spec = read_ok(&inline);
    let job = spec.base_job().unwrap();
    assert_eq!(job.data.source, crate::spec::DataSource::Idx { images: "/base/i".into(), labels: "/abs/l".into() });
    assert_eq!(job.name.as_str(), "sweep");
    let expected = "s/sweep.yaml:5:76: job.model.depth: must be a whole number from 1 to 1048576 (\"two\")\n1 problem";
    assert_eq!(shown(&inline.replace("depth: 2", "depth: two")), expected);
}

#[test]
fn combinations_that_are_no_job_are_found() {
    let text = SHORTEST.replace(
        "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
        "model.dim: {ordinal: [32, 33]}, model.heads: {ordinal: [4, 3]}",
    );
    let found = shown(&text);
    assert!(found.starts_with("s/sweep.yaml:4:8: space: holds what is no job: model.heads: heads ("), "{found}");
    assert!(found.ends_with("(a section of 2 keys)\n  hint: exclude it by a constraint\n1 problem"), "{found}");
    read_ok(&format!("{text}constraints: [model.dim % model.heads == 0]\n"));
}

#[test]
fn conditions_that_go_in_a_circle_are_refused_however_long_it_is() {
    let text = SHORTEST.replace(
        "schedule.lr: {log_uniform: [1e-4, 1e-2]}",
        "model.pool: {categorical: [mean, class_token], when: {optimizer.type: sgd}}, \
         optimizer.type: {categorical: [adamw, sgd], when: {model.depth: 2}}, \
         model.depth: {ordinal: [1, 2], when: {model.pool: mean}}",
    );
    let problems = shown(&text);
    let circle = "conditions go in a circle: model.pool needs optimizer.type needs model.depth needs model.pool";
    assert!(problems.contains(circle), "{problems}");
}
