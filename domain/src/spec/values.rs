//! What a job says about each key of a job file, defaults included.

use std::collections::BTreeMap;

use super::{
    CheckpointSpec, DataSpec, Decay, EarlyStoppingSpec, EvalSpec, Every, InspectSpec, JobSpec, ModelSpec,
    NonFinitePolicy, OptimizerRule, OptimizerSpec, Pool, Precision, ScheduleShape, ScheduleSpec, TrainSpec, VitSpec,
};
use crate::batch::Length;
use crate::search::{Configuration, Value};

impl JobSpec {
    /// The values by the paths of their keys in the job file. Left out is what is not set, is no single value, or is not
    /// the job's own: lists, the source of the data, and the name.
    pub fn values(&self) -> Configuration {
        let JobSpec {
            name: _,
            seed,
            workers,
            min_workers,
            priority,
            data,
            model: ModelSpec::Vit(vit),
            train,
            optimizer,
            schedule,
            eval,
            checkpoint,
            early_stopping,
            inspect,
        } = self;
        let mut values = Values(BTreeMap::new());
        values.integer("seed", *seed);
        values.integer("workers", u64::from(*workers));
        values.integer("min_workers", u64::from(*min_workers));
        values.set("priority", Value::Integer(i64::from(*priority)));
        values.data(data);
        values.vit(vit);
        values.train(train);
        values.optimizer(optimizer);
        values.schedule(schedule);
        let EvalSpec { every, batch } = eval;
        values.every("eval", *every);
        values.integer("eval.batch", *batch);
        values.checkpoint(checkpoint);
        values.early_stopping(early_stopping);
        if let Some(InspectSpec { every, histograms, attention }) = inspect {
            values.every("inspect", *every);
            values.set("inspect.histograms", Value::Boolean(*histograms));
            values.set("inspect.attention", Value::Boolean(*attention));
        }
        values.0
    }
}

struct Values(Configuration);

impl Values {
    fn set(&mut self, path: &str, value: Value) {
        self.0.insert(path.to_owned(), value);
    }

    fn integer(&mut self, path: &str, value: u64) {
        // A seed may be larger than a value can be; as a number it is near enough for a comparison.
        self.set(path, i64::try_from(value).map_or(Value::Number(value as f64), Value::Integer));
    }

    fn number(&mut self, path: &str, value: f64) {
        self.set(path, Value::Number(value));
    }

    /// The number that was written, not the nearest of single precision.
    fn single(&mut self, path: &str, value: f32) {
        self.number(path, value.to_string().parse().expect("a number is printed as one"));
    }

    fn text(&mut self, path: &str, value: &str) {
        self.set(path, Value::Text(value.to_owned()));
    }

    fn every(&mut self, section: &str, every: Every) {
        match every {
            Every::Epochs(n) => self.integer(&format!("{section}.every_epochs"), n),
            Every::Steps(n) => self.integer(&format!("{section}.every_steps"), n),
        }
    }

    fn data(&mut self, data: &DataSpec) {
        let DataSpec { source: _, holdout: _, pixel_max, mean: _, std: _, augment } = data;
        self.single("data.pixel_max", *pixel_max);
        self.integer("data.augment.shift", u64::from(augment.shift));
        self.set("data.augment.flip", Value::Boolean(augment.flip));
    }

    fn vit(&mut self, vit: &VitSpec) {
        let VitSpec { height: _, width: _, channels, patch, dim, depth, heads, mlp_dim, classes, pool, dropout } = vit;
        let sizes = [
            ("model.channels", channels),
            ("model.patch", patch),
            ("model.dim", dim),
            ("model.depth", depth),
            ("model.heads", heads),
            ("model.mlp_dim", mlp_dim),
            ("model.classes", classes),
        ];
        sizes.into_iter().for_each(|(path, size)| self.integer(path, u64::from(*size)));
        let pool = match pool {
            Pool::ClassToken => "class_token",
            Pool::Mean => "mean",
        };
        self.text("model.pool", pool);
        self.single("model.dropout", *dropout);
    }

    fn train(&mut self, train: &TrainSpec) {
        let TrainSpec { length, global_batch, micro_batches, label_smoothing, clip_norm, on_non_finite, precision } =
            train;
        match length {
            Length::Epochs(n) => self.integer("train.epochs", *n),
            Length::Steps(n) => self.integer("train.steps", *n),
        }
        self.integer("train.global_batch", *global_batch);
        self.integer("train.micro_batches", u64::from(*micro_batches));
        self.single("train.label_smoothing", *label_smoothing);
        if let Some(norm) = clip_norm {
            self.single("train.clip_norm", *norm);
        }
        let on_non_finite = match on_non_finite {
            NonFinitePolicy::Skip => "skip",
            NonFinitePolicy::Stop => "stop",
            NonFinitePolicy::Rollback => "rollback",
        };
        self.text("train.on_non_finite", on_non_finite);
        let precision = match precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        };
        self.text("train.precision", precision);
    }

    fn optimizer(&mut self, optimizer: &OptimizerSpec) {
        let OptimizerSpec { rule, weight_decay, decay } = optimizer;
        match rule {
            OptimizerRule::Adamw { beta1: _, beta2: _, eps } => {
                self.text("optimizer.type", "adamw");
                self.number("optimizer.eps", *eps);
            }
            OptimizerRule::Sgd { momentum, nesterov } => {
                self.text("optimizer.type", "sgd");
                self.number("optimizer.momentum", *momentum);
                self.set("optimizer.nesterov", Value::Boolean(*nesterov));
            }
        }
        self.number("optimizer.weight_decay", *weight_decay);
        let decay = match decay {
            Decay::Matrices => "matrices",
            Decay::All => "all",
        };
        self.text("optimizer.decay", decay);
    }

    fn schedule(&mut self, schedule: &ScheduleSpec) {
        let ScheduleSpec { lr_max, warmup_steps, shape } = schedule;
        self.number("schedule.lr", *lr_max);
        self.integer("schedule.warmup_steps", *warmup_steps);
        let (shape, lr_min) = match shape {
            ScheduleShape::Constant => ("constant", None),
            ScheduleShape::Linear { lr_min } => ("linear", Some(*lr_min)),
            ScheduleShape::Cosine { lr_min } => ("cosine", Some(*lr_min)),
            ScheduleShape::InverseSqrt => ("inverse_sqrt", None),
        };
        self.text("schedule.type", shape);
        if let Some(lr_min) = lr_min {
            self.number("schedule.lr_min", lr_min);
        }
    }

    fn checkpoint(&mut self, checkpoint: &CheckpointSpec) {
        let CheckpointSpec { every, keep_last, keep_best, keep_every_steps } = checkpoint;
        self.every("checkpoint", *every);
        self.integer("checkpoint.keep_last", u64::from(*keep_last));
        self.integer("checkpoint.keep_best", u64::from(*keep_best));
        if let Some(steps) = keep_every_steps {
            self.integer("checkpoint.keep_every_steps", *steps);
        }
    }

    fn early_stopping(&mut self, stopping: &EarlyStoppingSpec) {
        let EarlyStoppingSpec { metric, patience, min_delta, threshold, max_seconds } = stopping;
        self.text("early_stopping.metric", metric.name());
        if let Some(patience) = patience {
            self.integer("early_stopping.patience", u64::from(*patience));
        }
        self.number("early_stopping.min_delta", *min_delta);
        if let Some(threshold) = threshold {
            self.number("early_stopping.threshold", *threshold);
        }
        if let Some(seconds) = max_seconds {
            self.integer("early_stopping.max_seconds", *seconds);
        }
    }
}
