//! What a search begins with: the finished trials of earlier sweeps.
//!
//! A trial fits another sweep if it says the same things of it: it has a value for each parameter that exists there under
//! its other values and for no other, every value lies in the domain, the constraints admit it, its losses are those of the
//! same objectives, and its budget counts the same unit. What does not fit is left out and counted. The result is part of
//! the sweep that begins, so whoever repeats it needs no other sweep.

use serde::{Deserialize, Serialize};

use super::space::{Configuration, Space};
use super::study::Study;
use crate::engine::MetricValue;
use crate::spec::sweep::SweepSpec;

/// A finished trial of an earlier sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// What it tried.
    pub configuration: Configuration,
    /// How long it trained, in the unit of both sweeps.
    pub budget: u64,
    /// Its losses then, one for each objective; less is better.
    pub losses: Vec<MetricValue>,
}

/// The same as searchers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its point of the unit cube; coordinates that do not exist are in the middle.
    pub point: Vec<f64>,
    /// How long it trained.
    pub budget: u64,
    /// Its losses then.
    pub losses: Vec<f64>,
}

/// What earlier sweeps are worth to another one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prior {
    /// Trials that fit it, in the order in which the sweeps are named and the trials began.
    pub observations: Vec<Observation>,
    /// How many finished trials do not fit.
    pub left_out: u32,
}

impl Observation {
    /// As searchers of `space` see it; `None` if it does not fit.
    pub fn known(&self, space: &Space) -> Option<Known> {
        let Observation { configuration, budget, losses } = self;
        let point: Vec<f64> = space.encode(configuration).into_iter().map(|u| u.unwrap_or(0.5)).collect();
        // What decodes to the same has all values in their domains, and exactly those that exist.
        let again = space.decode(&point);
        let is_same = again.keys().eq(configuration.keys())
            && space.parameters().iter().all(|p| {
                let value = configuration.get(&p.path);
                value.is_none_or(|value| p.domain.coordinate(value).is_some())
            });
        let losses = losses.iter().map(|loss| (*loss).into()).collect();
        (is_same && space.admits(configuration)).then_some(Known { point, budget: *budget, losses })
    }
}

impl Prior {
    /// Adds the finished trials of `study`, which is that of the sweep `earlier`, as far as they fit `sweep`.
    pub fn add(&mut self, sweep: &SweepSpec, earlier: &SweepSpec, study: &Study) {
        let unit = |spec: &SweepSpec| spec.study_spec().map(|(_, unit)| unit);
        let is_comparable = earlier.objectives == sweep.objectives && unit(earlier) == unit(sweep);
        for trial in study.trials().iter().filter(|trial| trial.phase().is_over() && !trial.losses().is_empty()) {
            let observation = Observation {
                configuration: study.space().decode(trial.point()),
                budget: trial.budget(),
                losses: trial.losses().iter().map(|loss| (*loss).into()).collect(),
            };
            if is_comparable && observation.known(&sweep.space).is_some() {
                self.observations.push(observation);
            } else {
                self.left_out += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Condition, Constraint, Domain, Parameter, Value};

    fn space() -> Space {
        let word = |w: &str| Value::Text(w.to_owned());
        let when = Some(Condition { path: "kind".to_owned(), values: vec![word("b")] });
        let parameter = |path: &str, domain| Parameter { path: path.to_owned(), domain, when: None };
        Space::new(vec![
            parameter("x", Domain::Uniform { low: 0.0, high: 2.0 }),
            parameter("kind", Domain::Categorical { values: vec![word("a"), word("b")] }),
            Parameter { when, ..parameter("n", Domain::Integer { low: 1, high: 4, step: 1 }) },
        ])
        .constrained(vec![Constraint::parse("x < 1.5").unwrap()], Configuration::new())
    }

    #[test]
    fn a_trial_fits_if_it_says_the_same_things() {
        let observation = |values: &[(&str, Value)]| Observation {
            configuration: values.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect(),
            budget: 3,
            losses: vec![f64::NAN.into()],
        };
        let x = |x: f64| ("x", Value::Number(x));
        let kind = |kind: &str| ("kind", Value::Text(kind.to_owned()));
        let n = |n: i64| ("n", Value::Integer(n));
        let known = |values: &[(&str, Value)]| observation(values).known(&space());
        let found = known(&[x(1.0), kind("b"), n(4)]).unwrap();
        assert_eq!((found.point.as_slice(), found.budget), ([0.5, 0.75, 0.875].as_slice(), 3));
        assert!(found.losses[0].is_nan());
        assert_eq!(known(&[x(0.5), kind("a")]).unwrap().point, [0.25, 0.25, 0.5]);
        assert_eq!(known(&[x(0.5), kind("a"), n(1)]), None, "no such parameter under this choice");
        assert_eq!(known(&[x(0.5), kind("b")]), None, "a parameter is missing");
        assert_eq!(known(&[x(0.5), kind("c")]), None, "no such choice");
        assert_eq!(known(&[x(2.5), kind("a")]), None, "outside of the domain");
        assert_eq!(known(&[x(1.6), kind("a")]), None, "not admitted");
        assert_eq!(known(&[x(0.5), kind("a"), ("y", Value::Integer(1))]), None, "an unknown parameter");
        let json = serde_json::to_string(&observation(&[x(0.1), kind("a")])).unwrap();
        let again: Observation = serde_json::from_str(&json).unwrap();
        assert_eq!(again, observation(&[x(0.1), kind("a")]));
    }
}
