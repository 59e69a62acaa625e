//! Hyperparameter search: which configuration to try next, and which trial to stop. Pure: a function of specification,
//! seed and results.
//!
//! Start at [`space`], what can be tried. A [`searcher`] proposes points of it and is told losses, which are always
//! minimised. A [`scheduler`] decides where a trial comes to rest, and there whether it goes on. A [`study`] is both
//! together with the limits of a sweep; [`study::simulate`] plays one in virtual time. [`importance`] says afterwards
//! which parameters mattered, and [`warm_start`] what another sweep can begin with.

pub mod cma_es;
pub mod constraint;
pub mod gaussian_process;
mod generation;
pub mod grid;
mod history;
pub mod importance;
pub mod nsga2;
pub mod pareto;
pub mod population;
pub mod random;
pub mod scheduler;
pub mod searcher;
pub mod sobol;
pub mod space;
mod spread;
pub mod study;
pub mod tpe;
pub mod warm_start;

pub use constraint::Constraint;
pub use scheduler::{Decision, SchedulerSpec, StopReason};
pub use searcher::{Searcher, SearcherSpec};
pub use space::{Choice, Condition, Configuration, Domain, NothingAdmitted, Parameter, Space, Value};
pub use study::{Next, Study, StudySpec};
pub use warm_start::Observation;

/// What other people's programs compute; `fixtures/make_search_reference.py` says how.
#[cfg(test)]
pub(crate) fn reference() -> serde_json::Value {
    serde_json::from_str(include_str!("../../fixtures/search_reference.json")).expect("the fixture is JSON")
}
