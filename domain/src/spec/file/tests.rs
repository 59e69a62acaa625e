use super::*;

/// Every section that must be there, and nothing else.
const SHORTEST: &str = "\
version: 1
name: digits
data: {format: idx, images: digits/i.gz, labels: /abs/l.gz}
model: {type: vit, image: [8, 12], channels: 1, patch: 2, dim: 16, depth: 3, heads: 2, classes: 10}
train: {epochs: 2}
";

/// Every key that a file with IDX data, AdamW and a falling rate can have.
const LONGEST: &str = "\
version: 1
name: run-1
seed: 18446744073709551615
workers: 3
min_workers: 2
data:
  format: idx
  images: i
  labels: l
  holdout:
    format: idx
    images: hi
    labels: hl
  pixel_max: 16
  mean: [0.25]
  std: [0.125]
  augment:
    shift: 2
    flip: true
model:
  type: vit
  image: [8, 8]
  channels: 1
  patch: 4
  dim: 64
  depth: 4
  heads: 4
  classes: 10
  mlp_dim: 100
  pool: mean
  dropout: 0.1
train:
  steps: 500
  global_batch: 60
  micro_batches: 4
  label_smoothing: 0.1
  clip_norm: 1.0
  on_non_finite: rollback
  precision: bf16
optimizer:
  type: adamw
  betas: [0.8, 0.95]
  eps: 1e-7
  weight_decay: 0.05
  decay: all
schedule:
  type: linear
  lr: 2e-3
  lr_min: 1e-5
  warmup_steps: 50
eval:
  every_steps: 25
  batch: 32
checkpoint:
  every_epochs: 2
  keep_last: 3
  keep_best: 0
  keep_every_steps: 100
early_stopping:
  metric: eval_loss
  mode: min
  patience: 5
  min_delta: 1e-3
  threshold: 0.05
  max_seconds: 3600
inspect:
  every_steps: 50
  histograms: true
  attention: false
priority: -7
";

fn read_ok(text: &str) -> JobSpec {
    read(text, "job.yaml", Path::new("/base")).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// What is said, without the lines of the file, which begin with their number or a gap and a bar, and without what missing
/// keys are for.
pub(super) fn without_source(problems: &Problems) -> String {
    let is_source = |line: &str| {
        let number = line.split_once(" | ").map(|(number, _)| number.trim());
        number.is_some_and(|number| number.is_empty() || number.parse::<u64>().is_ok())
    };
    let said = problems.to_string();
    let lines: Vec<&str> = said.lines().filter(|line| !is_source(line)).collect();
    let is_meaning =
        |i: &usize| *i > 0 && lines[*i].starts_with("  hint: ") && lines[*i - 1].ends_with(": is required");
    (0..lines.len()).filter(|i| !is_meaning(i)).map(|i| lines[i]).collect::<Vec<_>>().join("\n")
}

/// The problems as a user sees them.
fn shown(text: &str) -> String {
    match read(text, "job.yaml", Path::new("/base")) {
        Ok(spec) => panic!("was accepted: {text}\n{spec:#?}"),
        Err(problems) => without_source(&problems),
    }
}

/// `text` with one piece of it replaced.
fn edited(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} must stand in the text once");
    text.replacen(from, to, 1)
}

#[test]
fn defaults_are_filled_in() {
    let expected = JobSpec {
        name: RunName::new("digits").unwrap(),
        seed: 0,
        workers: 1,
        min_workers: 1,
        priority: 0,
        data: DataSpec {
            source: DataSource::Idx { images: "/base/digits/i.gz".into(), labels: "/abs/l.gz".into() },
            holdout: Holdout::Fraction(0.1),
            pixel_max: 255.0,
            mean: vec![0.5],
            std: vec![0.5],
            augment: AugmentSpec { shift: 0, flip: false },
        },
        model: ModelSpec::Vit(VitSpec {
            height: 8,
            width: 12,
            channels: 1,
            patch: 2,
            dim: 16,
            depth: 3,
            heads: 2,
            mlp_dim: 64,
            classes: 10,
            pool: Pool::ClassToken,
            dropout: 0.0,
        }),
        train: TrainSpec {
            length: Length::Epochs(2),
            global_batch: 64,
            micro_batches: 8,
            label_smoothing: 0.0,
            clip_norm: None,
            on_non_finite: NonFinitePolicy::Stop,
            precision: Precision::F32,
        },
        optimizer: OptimizerSpec {
            rule: OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
            weight_decay: 0.01,
            decay: Decay::Matrices,
        },
        schedule: ScheduleSpec { lr_max: 1e-3, warmup_steps: 0, shape: ScheduleShape::Cosine { lr_min: 0.0 } },
        eval: EvalSpec { every: Every::Epochs(1), batch: 256 },
        checkpoint: CheckpointSpec { every: Every::Epochs(1), keep_last: 2, keep_best: 1, keep_every_steps: None },
        early_stopping: EarlyStoppingSpec {
            metric: EvalMetric::EvalAccuracy,
            patience: None,
            min_delta: 0.0,
            threshold: None,
            max_seconds: None,
        },
        inspect: None,
    };
    assert_eq!(read_ok(SHORTEST), expected);
    // A section of which every line was commented out, a byte order mark, Windows line ends: all the same job.
    let emptied = format!("\u{feff}{SHORTEST}optimizer:\nschedule:\neval:\ncheckpoint:\nearly_stopping:\ninspect:\n");
    assert_eq!(read_ok(&emptied), expected);
    assert_eq!(read_ok(&SHORTEST.replace('\n', "\r\n")), expected);
}

#[test]
fn every_key_is_read() {
    let expected = JobSpec {
        name: RunName::new("run-1").unwrap(),
        seed: u64::MAX,
        workers: 3,
        min_workers: 2,
        priority: -7,
        data: DataSpec {
            source: DataSource::Idx { images: "/base/i".into(), labels: "/base/l".into() },
            holdout: Holdout::Source(DataSource::Idx { images: "/base/hi".into(), labels: "/base/hl".into() }),
            pixel_max: 16.0,
            mean: vec![0.25],
            std: vec![0.125],
            augment: AugmentSpec { shift: 2, flip: true },
        },
        model: ModelSpec::Vit(VitSpec {
            height: 8,
            width: 8,
            channels: 1,
            patch: 4,
            dim: 64,
            depth: 4,
            heads: 4,
            mlp_dim: 100,
            classes: 10,
            pool: Pool::Mean,
            dropout: 0.1,
        }),
        train: TrainSpec {
            length: Length::Steps(500),
            global_batch: 60,
            micro_batches: 4,
            label_smoothing: 0.1,
            clip_norm: Some(1.0),
            on_non_finite: NonFinitePolicy::Rollback,
            precision: Precision::Bf16,
        },
        optimizer: OptimizerSpec {
            rule: OptimizerRule::Adamw { beta1: 0.8, beta2: 0.95, eps: 1e-7 },
            weight_decay: 0.05,
            decay: Decay::All,
        },
        schedule: ScheduleSpec { lr_max: 2e-3, warmup_steps: 50, shape: ScheduleShape::Linear { lr_min: 1e-5 } },
        eval: EvalSpec { every: Every::Steps(25), batch: 32 },
        checkpoint: CheckpointSpec { every: Every::Epochs(2), keep_last: 3, keep_best: 0, keep_every_steps: Some(100) },
        early_stopping: EarlyStoppingSpec {
            metric: EvalMetric::EvalLoss,
            patience: Some(5),
            min_delta: 1e-3,
            threshold: Some(0.05),
            max_seconds: Some(3600),
        },
        inspect: Some(InspectSpec { every: Every::Steps(50), histograms: true, attention: false }),
    };
    assert_eq!(read_ok(LONGEST), expected);
}

#[test]
fn the_other_choices_are_read() {
    let with = |section: &str| read_ok(&format!("{SHORTEST}{section}\n"));
    let sgd = with("optimizer: {type: sgd, momentum: 0.5, nesterov: true}").optimizer;
    let rule = OptimizerRule::Sgd { momentum: 0.5, nesterov: true };
    assert_eq!(sgd, OptimizerSpec { rule, weight_decay: 0.0, decay: Decay::Matrices });
    for (text, shape) in [
        ("{type: constant}", ScheduleShape::Constant),
        ("{type: inverse_sqrt}", ScheduleShape::InverseSqrt),
        ("{type: linear}", ScheduleShape::Linear { lr_min: 0.0 }),
        ("{type: cosine, lr_min: 1e-4}", ScheduleShape::Cosine { lr_min: 1e-4 }),
    ] {
        assert_eq!(with(&format!("schedule: {text}")).schedule.shape, shape);
    }
    let folder =
        edited(SHORTEST, "format: idx, images: digits/i.gz, labels: /abs/l.gz", "format: image_folder, path: x");
    assert_eq!(read_ok(&folder).data.source, DataSource::ImageFolder { path: "/base/x".into() });
    assert_eq!(read_ok(&edited(SHORTEST, "{epochs", "{clip_norm: null, epochs")).train.clip_norm, None);
    let more_workers = edited(SHORTEST, "name: digits", "name: digits\nworkers: 9");
    let more_workers = read_ok(&more_workers);
    assert_eq!((more_workers.workers, more_workers.train.micro_batches), (9, 16));
}

#[test]
fn presets_give_sizes_that_keys_replace() {
    let preset = |model: &str| {
        let text = format!(
            "version: 1\nname: p\ndata: {{format: image_folder, path: x}}\ntrain: {{steps: 1}}\nmodel: {model}\n"
        );
        let JobSpec { model: ModelSpec::Vit(vit), data, .. } = read_ok(&text);
        let VitSpec { height, width, channels, patch, dim, depth, heads, mlp_dim, classes, .. } = vit;
        (data.mean.len(), [height, width, channels, patch, dim, depth, heads, mlp_dim, classes])
    };
    for (text, expected) in [
        ("{type: vit, preset: vit-tiny-16, classes: 5}", [224, 224, 3, 16, 192, 12, 3, 768, 5]),
        ("{type: vit, preset: vit-small-16, classes: 5}", [224, 224, 3, 16, 384, 12, 6, 1536, 5]),
        ("{type: vit, preset: vit-base-16, classes: 1000}", [224, 224, 3, 16, 768, 12, 12, 3072, 1000]),
        (
            "{type: vit, preset: vit-base-16, image: [32, 48], depth: 2, mlp_ratio: 2, classes: 5}",
            [32, 48, 3, 16, 768, 2, 12, 1536, 5],
        ),
    ] {
        assert_eq!(preset(text), (3, expected), "{text}");
    }
}

#[test]
fn a_spec_survives_json_to_the_bit() {
    for text in [SHORTEST, LONGEST] {
        let spec = read_ok(text);
        let json = serde_json::to_string(&spec).unwrap();
        let back: JobSpec = serde_json::from_str(&json).unwrap();
        assert_eq!(back, spec);
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
    }
    // Numbers whose nearest decimal is easily read back as a neighbour.
    let mut spec = read_ok(LONGEST);
    let mut stream = crate::random::Stream::new(0, crate::random::Purpose::Order, &[]);
    for _ in 0..2000 {
        spec.schedule.lr_max = f64::from_bits(stream.next_u64() >> 2);
        spec.train.label_smoothing = f32::from_bits(stream.next_u32() >> 2);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&json).unwrap(), spec, "{json}");
    }
}

#[test]
fn each_mistake_has_its_place_and_its_remedy() {
    let mut differing = Vec::new();
    for (from, to, expected) in [
        // Unknown keys, with the likely one or all of them.
        ("dropout: 0.1", "droput: 0.1", "31:3: model.droput: unknown key\n  hint: did you mean dropout?"),
        ("seed: ", "sed: ", "3:1: sed: unknown key\n  hint: did you mean seed?"),
        ("flip: true", "mirror: true", "19:5: data.augment.mirror: unknown key\n  hint: known keys: flip, shift"),
        ("shift: 2", "1: 2", "18:5: data.augment.1: unknown key\n  hint: known keys: flip, shift"),
        (
            "decay: all",
            "momentum: 0.9",
            "45:3: optimizer.momentum: unknown key\n  hint: known keys: betas, decay, eps, type, weight_decay",
        ),
        // Wrong types.
        (
            "seed: 18446744073709551615",
            "seed: yes please",
            "3:7: seed: must be a whole number from 0 to 18446744073709551615 (\"yes please\")",
        ),
        (
            "seed: 18446744073709551615",
            "seed: 18446744073709551616",
            "3:7: seed: must be a whole number from 0 to 18446744073709551615 (1.8446744073709552e19)",
        ),
        (
            "seed: 18446744073709551615",
            "seed: -1",
            "3:7: seed: must be a whole number from 0 to 18446744073709551615 (-1)",
        ),
        ("workers: 3", "workers: 2.5", "4:10: workers: must be a whole number from 1 to 1024 (2.5)"),
        (
            "workers: 3",
            "workers: '3'",
            "4:10: workers: must be a whole number from 1 to 1024 (\"3\")\n  hint: leave the quotes out",
        ),
        ("flip: true", "flip: yes", "19:11: data.augment.flip: must be true or false (\"yes\")"),
        ("name: run-1", "name: 1.5", "2:7: name: must be text (1.5)\n  hint: put it in quotes"),
        ("mean: [0.25]", "mean: 0.25", "15:9: data.mean: must be a list (0.25)"),
        ("image: [8, 8]", "image: [8, 8, 1]", "22:10: model.image: must be [height, width] (a list of 3)"),
        ("betas: [0.8, 0.95]", "betas: [0.8]", "42:10: optimizer.betas: must be [beta1, beta2] (a list of 1)"),
        ("betas: [0.8, 0.95]", "betas: [0.8, x]", "42:16: optimizer.betas[1]: must be a number >= 0 and < 1 (\"x\")"),
        ("type: vit", "type: vot", "21:9: model.type: must be vit (\"vot\")\n  hint: did you mean vit?"),
        (
            "type: linear",
            "type: exponential",
            "47:9: schedule.type: must be constant, linear, cosine or inverse_sqrt (\"exponential\")",
        ),
        // Names that would leave their folder.
        (
            "name: run-1",
            "name: ../../x",
            "2:7: name: may hold only letters, digits, '-', '_' and '.', and must begin with a letter or digit (\"../../x\")",
        ),
        ("name: run-1", "name: ''", "2:7: name: must not be empty (\"\")"),
        (
            "name: run-1",
            "name: \"a\\nb\"",
            "2:7: name: may hold only letters, digits, '-', '_' and '.', and must begin with a letter or digit (\"a\\nb\")",
        ),
        // Numbers that are none.
        ("lr: 2e-3", "lr: .nan", "48:7: schedule.lr: must be a finite number > 0 (.nan)"),
        ("lr: 2e-3", "lr: 1e400", "48:7: schedule.lr: must be a finite number > 0 (.inf)"),
        ("lr: 2e-3", "lr: 0", "48:7: schedule.lr: must be a number > 0 (0)"),
        ("clip_norm: 1.0", "clip_norm: -.inf", "37:14: train.clip_norm: must be a finite number > 0 (-.inf)"),
        (
            "clip_norm: 1.0",
            "clip_norm: 1e300",
            "37:14: train.clip_norm: is too large or too small for single precision (1e300)",
        ),
        (
            "clip_norm: 1.0",
            "clip_norm: 1e-300",
            "37:14: train.clip_norm: is too large or too small for single precision (1e-300)",
        ),
        ("std: [0.125]", "std: [0]", "16:9: data.std[0]: must be a number > 0 (0)"),
        ("dropout: 0.1", "dropout: 1", "31:12: model.dropout: must be a number >= 0 and < 1 (1)"),
        // Sizes that do not fit each other.
        ("heads: 4", "heads: 6", "27:10: model.heads: heads (6) must divide dim (64) (6)"),
        ("patch: 4", "patch: 3", "24:10: model.patch: patch (3) must divide both sides of image (8x8) (3)"),
        (
            "micro_batches: 4",
            "micro_batches: 2",
            "35:18: train.micro_batches: micro_batches (2) must be >= workers (3) (2)\n  hint: every worker needs a micro-batch of each step",
        ),
        (
            "micro_batches: 4",
            "micro_batches: 7",
            "35:18: train.micro_batches: micro_batches (7) must divide global_batch (60) (7)\n  hint: micro_batches: 6 would do",
        ),
        (
            "  micro_batches: 4\n",
            "",
            "34:17: train.global_batch: micro_batches (8, the default) must divide global_batch (60) (60)\n  hint: micro_batches: 6 would do",
        ),
        ("min_workers: 2", "min_workers: 4", "5:14: min_workers: must be at most workers (3) (4)"),
        ("priority: -7", "priority: 1001", "70:11: priority: must be a whole number from -1000 to 1000 (1001)"),
        ("shift: 2", "shift: 8", "18:12: data.augment.shift: must be < the image's shorter side (8) (8)"),
        (
            "mean: [0.25]",
            "mean: [0.25, 0.5]",
            "15:9: data.mean: must hold one number for each of the 1 channel(s), found 2 (a list of 2)",
        ),
        ("lr_min: 1e-5", "lr_min: 1", "49:11: schedule.lr_min: must be <= lr (0.002) (1)"),
        ("warmup_steps: 50", "warmup_steps: 501", "50:17: schedule.warmup_steps: must be <= train.steps (500) (501)"),
        ("mode: min", "mode: max", "61:9: early_stopping.mode: must be min for eval_loss (\"max\")"),
        ("threshold: 0.05", "threshold: -1", "64:14: early_stopping.threshold: must be a number >= 0 (-1)"),
        // Keys that exclude each other, are missing, or stand twice.
        ("steps: 500", "steps: 500\n  epochs: 2", "33:10: train.steps: must not be given together with epochs (500)"),
        (
            "every_steps: 25",
            "every_steps: 25\n  every_epochs: 1",
            "52:16: eval.every_steps: must not be given together with every_epochs (25)",
        ),
        (
            "mlp_dim: 100",
            "mlp_dim: 100\n  mlp_ratio: 2",
            "30:14: model.mlp_ratio: must not be given together with mlp_dim (2)",
        ),
        ("  steps: 500\n", "", "33:3: train.epochs: epochs or steps is required"),
        ("  classes: 10\n", "", "21:3: model.classes: is required"),
        ("name: run-1\n", "", "1:1: name: is required"),
        ("seed: ", "name: run-2\nseed: ", "3:1: name: stands here a second time"),
        ("flip: true", "shift: 3", "19:5: data.augment.shift: stands here a second time"),
        // The version of the format.
        ("version: 1\n", "", "1:1: version: is required"),
        ("version: 1", "version: 2", "1:10: version: is not known, this program reads version 1 (2)"),
        // Sections that are something else.
        (
            "holdout:\n    format: idx\n    images: hi\n    labels: hl",
            "holdout: test",
            "10:12: data.holdout: must be a fraction of the data, or a section with format and paths (\"test\")",
        ),
        (
            "holdout:\n    format: idx\n    images: hi\n    labels: hl",
            "holdout: 1.0",
            "10:12: data.holdout: must be a number > 0 and < 1 (1.0)",
        ),
        (
            "    format: idx\n    images: hi",
            "    format: csv\n    images: hi",
            "11:13: data.holdout.format: must be idx or image_folder (\"csv\")",
        ),
        (
            "precision: bf16",
            "precision: f16",
            "39:14: train.precision: must be f32 or bf16 (\"f16\")\n  hint: did you mean bf16?",
        ),
        ("images: i\n", "images: ''\n", "8:11: data.images: must be the path of a file or folder (\"\")"),
    ] {
        let expected = format!("job.yaml:{expected}\n1 problem");
        let found = shown(&edited(LONGEST, from, to));
        if found != expected {
            differing.push(format!("{from:?} -> {to:?}\n  found:    {found:?}\n  expected: {expected:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn files_without_sections_say_so() {
    let required = |key: &str| format!("job.yaml:1:1: {key}: is required\n");
    let all: String = ["version", "name", "model", "data", "train"].map(required).concat();
    for empty in ["", "# nothing\n", "null", "{}"] {
        assert_eq!(shown(empty), format!("{all}5 problems"), "{empty:?}");
    }
    for (text, expected) in [
        ("[1, 2]", "job.yaml:1:1: must be a section of keys and values (a list of 2)\n1 problem"),
        ("just text", "job.yaml:1:1: must be a section of keys and values (\"just text\")\n1 problem"),
    ] {
        assert_eq!(shown(text), expected);
    }
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = "\
version: 1
name: ../../x
tree: 1
workers: 4
data: {format: idx, images: i, mean: [.nan]}
model:
  type: vit
  image: [10, 8]
  channels: 1
  patch: 3
  dim: 10
  heads: 4
  depht: 2
  classes: ten
train: {epochs: 0, global_batch: 30, micro_batches: 2}
schedule: {type: cosin, lr: fast}
";
    let expected = "\
job.yaml:2:7: name: may hold only letters, digits, '-', '_' and '.', and must begin with a letter or digit (\"../../x\")
job.yaml:3:1: tree: unknown key
  hint: known keys: checkpoint, data, early_stopping, eval, inspect, min_workers, model, name, optimizer, priority, schedule, seed, train, version, workers
job.yaml:5:7: data.labels: is required
job.yaml:5:39: data.mean[0]: must be a finite number (.nan)
job.yaml:7:3: model.depth: is required
job.yaml:10:10: model.patch: patch (3) must divide both sides of image (10x8) (3)
job.yaml:12:10: model.heads: heads (4) must divide dim (10) (4)
job.yaml:13:3: model.depht: unknown key
  hint: did you mean depth?
job.yaml:14:12: model.classes: must be a whole number from 1 to 1048576 (\"ten\")
job.yaml:15:17: train.epochs: must be a whole number from 1 to 1048576 (0)
job.yaml:15:53: train.micro_batches: micro_batches (2) must be >= workers (4) (2)
  hint: every worker needs a micro-batch of each step
job.yaml:16:18: schedule.type: must be constant, linear, cosine or inverse_sqrt (\"cosin\")
  hint: did you mean cosine?
job.yaml:16:29: schedule.lr: must be a number > 0 (\"fast\")
13 problems";
    assert_eq!(shown(text), expected);
}

#[test]
fn long_lists_of_problems_are_cut_off() {
    let mut text = SHORTEST.to_owned();
    (0..250).for_each(|i| text.push_str(&format!("key-number-{i}: 0\n")));
    let problems = read(&text, "job.yaml", Path::new("/base")).unwrap_err();
    assert_eq!((problems.list().len(), problems.count()), (PROBLEMS_MAX, 250));
    assert!(problems.to_string().ends_with("\n250 problems, the first 100 shown"));
}

#[test]
fn what_is_no_yaml_ends_with_one_finding_at_its_place() {
    for (text, line, message) in [
        ("version: 1\nname: [a\n", 2, "not readable as YAML"),
        ("version: 1\n\tname: a\n", 1, "not readable as YAML"),
        ("a: *nowhere\n", 1, "not readable as YAML"),
        ("a: !mine x\n", 1, "not readable as YAML"),
        ("version: 1\n---\nversion: 1\n", 2, "not readable as YAML"),
        ("a: \u{0}\n", 1, "not readable as YAML"),
    ] {
        let problems = read(text, "job.yaml", Path::new("/base")).unwrap_err();
        let [problem] = problems.list() else { panic!("{text:?}: {problems}") };
        assert!(problem.message.starts_with(message), "{text:?}: {problems}");
        assert_eq!(problem.line, line, "{text:?}: {problems}");
    }
}

#[test]
fn bombs_are_refused_early() {
    let deep = "[".repeat(100_000);
    let deep_blocks: String = (0..2000).map(|depth| format!("{}k:\n", " ".repeat(depth))).take(1200).collect();
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{before}]\n"));
    }
    let many_aliases = format!("a: &a [x]\nb: [{}]\n", vec!["*a"; 1000].join(", "));
    let many_keys: String = (0..60_000).map(|i| format!("k{i}: 0\n")).collect();
    let endless = "x".repeat(FILE_BYTES_MAX + 1);
    for (name, text) in [
        ("depth", &deep),
        ("depth of blocks", &deep_blocks),
        ("a billion laughs", &laughs),
        ("aliases", &many_aliases),
        ("keys", &many_keys),
        ("size", &endless),
    ] {
        let problems = read(text, "job.yaml", Path::new("/base")).unwrap_err();
        assert_eq!(problems.count(), 1, "{name}: {problems}");
        assert!(problems.to_string().len() < 1000, "{name}: {problems}");
    }
    // An anchor as people use it is fine.
    let shared =
        edited(SHORTEST, "labels: /abs/l.gz", "labels: /abs/l.gz, holdout: {format: idx, images: &t t, labels: *t}");
    assert!(matches!(read_ok(&shared).data.holdout, Holdout::Source(DataSource::Idx { .. })));
}

#[test]
fn a_mistake_is_shown_with_its_line() {
    let said = |text: &str| read(text, "job.yaml", Path::new("/base")).unwrap_err().to_string();
    let named = said(&edited(SHORTEST, "name: digits", "name: {}"));
    assert!(named.contains("\n  2 | name: {}\n    |       ^\n"), "{named}");
    // A long line from a little before the place on; a tab is as wide as any character.
    let long = said(&edited(
        SHORTEST,
        "name: digits",
        &format!("name: digits # {}\nsead: {}", "x".repeat(500), "y".repeat(500)),
    ));
    assert!(long.lines().all(|line| line.chars().count() < 160), "{long}");
    let wide = format!("{SHORTEST}schedule: {{lr: 1, {}warmup_steps: -1}}\n", " ".repeat(300));
    let wide = said(&wide);
    let lines: Vec<&str> = wide.lines().collect();
    assert_eq!(lines[1].find("-1"), lines[2].find('^'), "{wide}");
    assert!(said("version: 1\ndata:\n\tformat: idx\n").contains("\n  hint: indent with spaces\n"));
    assert!(said("version: 1\n").contains("name: is required\n  hint: the run's name: letters"));
}
