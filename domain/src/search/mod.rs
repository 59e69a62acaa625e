//! Hyperparameter search: which configuration to try next, and which trial to stop. Pure: a function of specification,
//! seed and results.
//!
//! Start at [`space`], what can be tried. A searcher proposes points of it and is told losses, which are always minimised.

pub mod space;

pub use space::{Choice, Condition, Configuration, Domain, Parameter, Space, Value};
