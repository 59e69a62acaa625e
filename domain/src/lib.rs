//! What Phalanx decides, without touching the world: no clock, no file, no socket, no tensor.
//!
//! Start at [`engine`]: facts go in, effects come out. [`spec`] is what a user asked for, [`batch`] says which samples a
//! step reads, [`tree`] in which order gradients are added, [`random`] where every random number comes from, [`results`] what
//! came of a sweep.

pub mod audit;
pub mod batch;
pub mod engine;
pub mod ids;
pub mod inspection;
pub mod keep;
pub mod picture;
pub mod random;
pub mod record;
pub mod results;
pub mod schedule;
pub mod search;
pub mod series;
pub mod sim;
pub mod spec;
pub mod stop;
pub mod timeline;
pub mod tree;
pub mod view;
