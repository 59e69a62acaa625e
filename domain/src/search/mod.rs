//! Hyperparameter search: which configuration to try next, and which trial to stop. Pure: a function of specification,
//! seed and results.
//!
//! Start at [`space`], what can be tried. A [`searcher`] proposes points of it and is told losses, which are always
//! minimised. A [`scheduler`] decides where a trial comes to rest, and there whether it goes on. A [`study`] is both
//! together with the limits of a sweep; [`study::simulate`] plays one in virtual time. [`importance`] says afterwards
//! which parameters mattered.

pub mod constraint;
pub mod gaussian_process;
pub mod grid;
mod history;
pub mod importance;
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

pub use constraint::Constraint;
pub use scheduler::{Decision, SchedulerSpec, StopReason};
pub use searcher::{Searcher, SearcherSpec};
pub use space::{Choice, Condition, Configuration, Domain, NothingAdmitted, Parameter, Space, Value};
pub use study::{Next, Study, StudySpec};
