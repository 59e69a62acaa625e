//! What can be tried: parameters with their domains, some of which exist only under a choice of another.
//!
//! Searchers work on the *unit cube*: every parameter has one coordinate in `[0, 1)`, in the order of [`Space::parameters`].
//! Logarithms and rounding live here alone.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::constraint::Constraint;
use crate::random::Stream;

/// A value that a parameter takes in a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Number(f64),
    /// A word.
    Text(String),
}

/// The values of a trial by the path of their key in the job file; inactive parameters are absent.
pub type Configuration = BTreeMap<String, Value>;

/// What a parameter can be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Domain {
    /// A number, all equally likely; `low < high`.
    Uniform {
        /// The least.
        low: f64,
        /// The bound above, not reached.
        high: f64,
    },
    /// A number whose logarithm is uniform; `0 < low < high`.
    LogUniform {
        /// The least.
        low: f64,
        /// The bound above, not reached.
        high: f64,
    },
    /// `low`, `low + step`, .. up to `high`.
    Integer {
        /// The least.
        low: i64,
        /// The greatest that may be reached.
        high: i64,
        /// The distance of neighbours, at least 1.
        step: i64,
    },
    /// A whole number from `low` to `high` whose logarithm is about uniform; `1 <= low <= high`.
    LogInteger {
        /// The least.
        low: i64,
        /// The greatest.
        high: i64,
    },
    /// One of several values without an order.
    Categorical {
        /// The values, each once.
        values: Vec<Value>,
    },
    /// One of several values in this order.
    Ordinal {
        /// The values, each once.
        values: Vec<Value>,
    },
    /// Always this one.
    Constant {
        /// The value.
        value: Value,
    },
}

/// Something to be chosen for every trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// The path of the key in the job file, such as `schedule.lr_max`.
    pub path: String,
    /// What it can be.
    pub domain: Domain,
    /// Under which choice it exists; always, if absent.
    pub when: Option<Condition>,
}

/// A parameter exists if another one is active and has one of these values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The path of the other parameter, which stands earlier in the space.
    pub path: String,
    /// Its values.
    pub values: Vec<Value>,
}

/// The kind of a coordinate, as a searcher must treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Any point of the interval; neighbours are alike.
    Continuous,
    /// So many equal cells in an order; neighbours are alike.
    Ordered(u64),
    /// So many equal cells without an order.
    Unordered(u64),
    /// Nothing to choose.
    Fixed,
}

/// What can be tried. Parameters stand after those that their conditions name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Space {
    parameters: Vec<Parameter>,
    #[serde(default)]
    constraints: Vec<Constraint>,
    /// The job's own values of paths that constraints name; they count where the configuration has none.
    #[serde(default)]
    defaults: Configuration,
}

/// Points that are drawn in search of one that the constraints admit. Where this many fail, fewer than one in a thousand
/// is admitted, but for a chance of e^-10.
pub const TRIES_MAX: u32 = 10_000;

/// The constraints admit nothing, or next to nothing, of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the constraints admit (almost) nothing: {TRIES_MAX} points were tried in vain")]
pub struct NothingAdmitted;

impl Space {
    /// The space of these parameters.
    ///
    /// # Panics
    /// If a condition names a parameter that does not stand before.
    pub fn new(parameters: Vec<Parameter>) -> Self {
        for (index, parameter) in parameters.iter().enumerate() {
            if let Some(condition) = &parameter.when {
                let is_before = parameters[..index].iter().any(|earlier| earlier.path == condition.path);
                assert!(is_before, "{} depends on {}, which does not stand before it", parameter.path, condition.path);
            }
        }
        Self { parameters, constraints: Vec::new(), defaults: Configuration::new() }
    }

    /// This space without what `constraints` exclude; `defaults` has the job's own values of what they name.
    pub fn constrained(self, constraints: Vec<Constraint>, defaults: Configuration) -> Self {
        Self { constraints, defaults, ..self }
    }

    /// What every configuration fulfils.
    pub fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }

    /// The parameters, in the order of the coordinates.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Which parameters exist at a point, given by the coordinates.
    pub fn active(&self, point: &[f64]) -> Vec<bool> {
        let mut active: Vec<bool> = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let exists = parameter.when.as_ref().is_none_or(|condition| {
                let other = self.index(&condition.path);
                active[other] && condition.values.contains(&self.parameters[other].domain.at(point[other]))
            });
            active.push(exists);
        }
        active
    }

    /// The configuration at a point of the unit cube; a coordinate outside counts as the nearest inside.
    pub fn decode(&self, point: &[f64]) -> Configuration {
        let named = self.parameters.iter().zip(point).zip(self.active(point));
        named.filter(|(_, active)| *active).map(|((p, u), _)| (p.path.clone(), p.domain.at(*u))).collect()
    }

    /// The coordinates of a configuration, the middle of its cell where there are cells; `None` where a parameter is absent
    /// or its value lies outside the domain.
    pub fn encode(&self, configuration: &Configuration) -> Vec<Option<f64>> {
        let coordinate = |p: &Parameter| configuration.get(&p.path).and_then(|value| p.domain.coordinate(value));
        self.parameters.iter().map(coordinate).collect()
    }

    /// Whether the constraints admit a configuration. One that cannot be computed excludes it.
    pub fn admits(&self, configuration: &Configuration) -> bool {
        let value_of = |path: &str| configuration.get(path).or_else(|| self.defaults.get(path));
        self.constraints.iter().all(|constraint| constraint.holds(&value_of) == Ok(true))
    }

    /// Whether the constraints admit the configuration at a point; [`Space::admits`] of [`Space::decode`].
    pub fn admits_point(&self, point: &[f64]) -> bool {
        self.constraints.is_empty() || self.admits(&self.decode(point))
    }

    /// Why a constraint cannot be computed for a configuration, with the constraint; [`None`] if all can.
    pub fn incomputable(&self, configuration: &Configuration) -> Option<(&Constraint, String)> {
        let value_of = |path: &str| configuration.get(path).or_else(|| self.defaults.get(path));
        self.constraints.iter().find_map(|c| c.holds(&value_of).err().map(|why| (c, why)))
    }

    /// A point drawn uniformly from those that the constraints admit. Where [`Space::try_sample`] fails, one that they do
    /// not: whoever reads a sweep has made sure that there are enough.
    pub fn sample(&self, stream: &mut Stream) -> Vec<f64> {
        self.try_sample(stream).unwrap_or_else(|NothingAdmitted| self.draw(stream))
    }

    /// A point drawn uniformly from those that the constraints admit.
    ///
    /// # Errors
    /// If none is among [`TRIES_MAX`] points.
    pub fn try_sample(&self, stream: &mut Stream) -> Result<Vec<f64>, NothingAdmitted> {
        let mut points = (0..TRIES_MAX).map(|_| self.draw(stream));
        points.find(|point| self.admits_point(point)).ok_or(NothingAdmitted)
    }

    /// A point drawn uniformly from the unit cube.
    pub(crate) fn draw(&self, stream: &mut Stream) -> Vec<f64> {
        self.parameters.iter().map(|_| stream.uniform_f64()).collect()
    }

    fn index(&self, path: &str) -> usize {
        self.parameters.iter().position(|p| p.path == path).expect("conditions name parameters of the space")
    }
}

/// The greatest number below 1.
const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

impl Domain {
    /// Its name, as sweep files write it.
    pub fn name(&self) -> &'static str {
        match self {
            Domain::Uniform { .. } => "uniform",
            Domain::LogUniform { .. } => "log_uniform",
            Domain::Integer { .. } => "integer",
            Domain::LogInteger { .. } => "log_integer",
            Domain::Categorical { .. } => "categorical",
            Domain::Ordinal { .. } => "ordinal",
            Domain::Constant { .. } => "constant",
        }
    }

    /// How a searcher must treat the coordinate.
    pub fn choice(&self) -> Choice {
        match self {
            Domain::Uniform { .. } | Domain::LogUniform { .. } => Choice::Continuous,
            Domain::Integer { low, high, step } => Choice::Ordered((high.abs_diff(*low)) / step.unsigned_abs() + 1),
            // Its cells are not equal; a searcher treats it as continuous.
            Domain::LogInteger { .. } => Choice::Continuous,
            Domain::Categorical { values } => Choice::Unordered(values.len() as u64),
            Domain::Ordinal { values } => Choice::Ordered(values.len() as u64),
            Domain::Constant { .. } => Choice::Fixed,
        }
    }

    /// The value at a coordinate.
    pub fn at(&self, coordinate: f64) -> Value {
        let u = coordinate.clamp(0.0, BELOW_ONE);
        match self {
            Domain::Uniform { low, high } => Value::Number((low + u * (high - low)).clamp(*low, *high)),
            Domain::LogUniform { low, high } => {
                let log = libm::log(*low) + u * (libm::log(*high) - libm::log(*low));
                Value::Number(libm::exp(log).clamp(*low, *high))
            }
            Domain::Integer { low, high, step } => {
                let cells = high.abs_diff(*low) / step.unsigned_abs() + 1;
                let offset = cell(u, cells) as i64 * step;
                Value::Integer(low + offset)
            }
            Domain::LogInteger { low, high } => {
                let (from, to) = log_edges(*low, *high);
                let value = libm::exp(from + u * (to - from));
                Value::Integer((libm::round(value) as i64).clamp(*low, *high))
            }
            Domain::Categorical { values } | Domain::Ordinal { values } => {
                values[cell(u, values.len() as u64) as usize].clone()
            }
            Domain::Constant { value } => value.clone(),
        }
    }

    /// The coordinate of a value, or `None` if it is not in the domain.
    pub fn coordinate(&self, value: &Value) -> Option<f64> {
        match (self, value) {
            (Domain::Uniform { low, high }, _) => {
                let x = value.as_number().filter(|x| (low..=high).contains(&x))?;
                Some(((x - low) / (high - low)).min(BELOW_ONE))
            }
            (Domain::LogUniform { low, high }, _) => {
                let x = value.as_number().filter(|x| (low..=high).contains(&x))?;
                let u = (libm::log(x) - libm::log(*low)) / (libm::log(*high) - libm::log(*low));
                Some(u.clamp(0.0, BELOW_ONE))
            }
            (Domain::Integer { low, high, step }, Value::Integer(x)) => {
                let is_in = (low..=high).contains(&x) && x.abs_diff(*low).is_multiple_of(step.unsigned_abs());
                let cells = high.abs_diff(*low) / step.unsigned_abs() + 1;
                is_in.then(|| middle(x.abs_diff(*low) / step.unsigned_abs(), cells))
            }
            (Domain::LogInteger { low, high }, Value::Integer(x)) => {
                let (from, to) = log_edges(*low, *high);
                let is_in = (low..=high).contains(&x);
                is_in.then(|| ((libm::log(*x as f64) - from) / (to - from)).clamp(0.0, BELOW_ONE))
            }
            (Domain::Integer { .. } | Domain::LogInteger { .. }, _) => None,
            (Domain::Categorical { values } | Domain::Ordinal { values }, _) => {
                let index = values.iter().position(|v| v == value)?;
                Some(middle(index as u64, values.len() as u64))
            }
            (Domain::Constant { value: only }, _) => (only == value).then_some(0.5),
        }
    }
}

/// Half a number beyond both ends, so that the ends are as likely as their neighbours.
fn log_edges(low: i64, high: i64) -> (f64, f64) {
    (libm::log(low as f64 - 0.5), libm::log(high as f64 + 0.5))
}

fn cell(u: f64, cells: u64) -> u64 {
    ((u * cells as f64) as u64).min(cells - 1)
}

fn middle(index: u64, cells: u64) -> f64 {
    (index as f64 + 0.5) / cells as f64
}

impl Value {
    /// The number it is, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Integer(x) => Some(*x as f64),
            Value::Number(x) => Some(*x),
            Value::Boolean(_) | Value::Text(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(x) => x.fmt(f),
            Value::Integer(x) => x.fmt(f),
            Value::Number(x) => write!(f, "{x:?}"),
            Value::Text(x) => f.write_str(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Purpose;

    fn domains() -> Vec<Domain> {
        let words = ["a", "b", "c"].map(|w| Value::Text(w.to_owned())).to_vec();
        vec![
            Domain::Uniform { low: -1.0, high: 3.0 },
            Domain::LogUniform { low: 1e-5, high: 1e-1 },
            Domain::Integer { low: -3, high: 8, step: 2 },
            Domain::LogInteger { low: 1, high: 1000 },
            Domain::Categorical { values: words.clone() },
            Domain::Ordinal { values: words },
            Domain::Constant { value: Value::Boolean(true) },
        ]
    }

    proptest! {
        #[test]
        fn a_value_comes_back_from_its_coordinate(u in -0.5f64..1.5) {
            for domain in domains() {
                let value = domain.at(u);
                let coordinate = domain.coordinate(&value).expect("a value of the domain has a coordinate");
                prop_assert!((0.0..1.0).contains(&coordinate));
                match (&value, domain.at(coordinate)) {
                    (Value::Number(a), Value::Number(b)) => prop_assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs())),
                    (_, again) => prop_assert_eq!(&value, &again),
                }
            }
        }
    }

    #[test]
    fn whole_numbers_are_equally_likely() {
        let domain = Domain::Integer { low: 2, high: 9, step: 3 };
        let mut stream = Stream::new(1, Purpose::Search, &[]);
        let mut counts = BTreeMap::new();
        for _ in 0..3000 {
            *counts.entry(domain.at(stream.uniform_f64()).to_string()).or_insert(0u32) += 1;
        }
        assert_eq!(counts.keys().map(String::as_str).collect::<Vec<_>>(), ["2", "5", "8"]);
        assert!(counts.values().all(|n| n.abs_diff(1000) < 120), "{counts:?}");
    }

    #[test]
    fn samples_keep_to_the_constraints() {
        let integer = |path: &str, low, high| Parameter {
            path: path.to_owned(),
            domain: Domain::Integer { low, high, step: 1 },
            when: None,
        };
        let constrained = |text: &str| {
            let space = Space::new(vec![integer("dim", 1, 64), integer("heads", 1, 8)]);
            let defaults = [("batch".to_owned(), Value::Integer(4))].into();
            space.constrained(vec![Constraint::parse(text).unwrap()], defaults)
        };
        let space = constrained("dim % heads == 0 and dim >= batch");
        let mut stream = Stream::new(1, Purpose::Search, &[]);
        for _ in 0..1000 {
            let configuration = space.decode(&space.try_sample(&mut stream).unwrap());
            let number = |path: &str| configuration[path].as_number().unwrap();
            assert!(number("dim") % number("heads") == 0.0 && number("dim") >= 4.0, "{configuration:?}");
        }
        assert_eq!(constrained("dim > 64").try_sample(&mut stream), Err(NothingAdmitted));
        assert_eq!(constrained("dim > 64").sample(&mut stream).len(), 2);
        let mistyped = constrained("dim > 'a'");
        let (at, why) = mistyped.incomputable(&space.decode(&[0.5, 0.5])).unwrap();
        assert_eq!((at.text(), why.as_str()), ("dim > 'a'", "33.0 cannot be compared with \"a\""));
        let json = serde_json::to_string(&space).unwrap();
        assert_eq!(serde_json::from_str::<Space>(&json).unwrap(), space);
    }

    #[test]
    fn a_parameter_exists_only_under_its_choice() {
        let text = |w: &str| Value::Text(w.to_owned());
        let space = Space::new(vec![
            Parameter {
                path: "optimizer.type".to_owned(),
                domain: Domain::Categorical { values: vec![text("adamw"), text("sgd")] },
                when: None,
            },
            Parameter {
                path: "optimizer.momentum".to_owned(),
                domain: Domain::Uniform { low: 0.0, high: 1.0 },
                when: Some(Condition { path: "optimizer.type".to_owned(), values: vec![text("sgd")] }),
            },
        ]);
        assert_eq!(space.decode(&[0.2, 0.5]).len(), 1);
        let sgd = space.decode(&[0.7, 0.5]);
        assert_eq!(sgd["optimizer.momentum"], Value::Number(0.5));
        assert_eq!(space.encode(&sgd), [Some(0.75), Some(0.5)]);
        assert_eq!(space.encode(&space.decode(&[0.2, 0.5])), [Some(0.25), None]);
    }
}
