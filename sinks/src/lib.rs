//! Figures and facts for the tools that other people live in: TensorBoard, MLflow, and whoever listens to a webhook.
//!
//! A [`Sink`] is one such place, as it is named on the command line. [`follow()`] keeps all that were named up to date from
//! the store and the picture, each in a task of its own, and remembers in the store how far each has come. So training
//! never waits for a sink: what a server does not take now, it is given later, also after a restart.
//!
//! Start at `follow.rs` for what all of them share; then there is a file for each: `tensorboard.rs`, `mlflow.rs`,
//! `webhook.rs`. [`points()`] says which figures a record has and what they are called, the same everywhere.

mod feed;
mod follow;
mod http;
mod mlflow;
mod points;
mod secrets;
mod sink;
mod standing;
pub mod tensorboard;
#[cfg(test)]
mod tests;
mod webhook;

pub use follow::{Behind, Pace, follow};
pub use points::points;
pub use secrets::{SecretError, Secrets};
pub use sink::{Sink, SinkError};
pub use standing::{Board, Standing};
