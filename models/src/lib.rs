//! What is trained: architectures with exact gradients, optimizers whose state can be saved, and snapshots of both.
//!
//! Start at [`Network`]: it turns a micro-batch into a loss and one flat gradient, ordered as its [`Layout`] says.
//! [`Optimizer`] moves the weights, [`Snapshot`] carries weights and moments to bytes and back. The operators are in
//! `nn`, each with a hand-written backward pass; no other crate names the tensor library.
//!
//! Two things hold everywhere. Nothing depends on the number of threads: work is cut into pieces of a fixed size, and
//! sums are added in a fixed order. Nothing depends on the order of calls: random numbers are keyed by what they are for.

mod error;
mod gradient;
mod layout;
mod network;
mod nn;
mod optimizer;
mod snapshot;
mod threads;
mod vit;

pub use domain::schedule::learning_rate;
pub use error::{ModelError, SnapshotError};
pub use gradient::{Audit, audit, clip_scale, global_norm};
pub use layout::{Layout, Parameter};
pub use network::{Batch, EvalSums, Network, TrainForward};
pub use optimizer::{Optimizer, Update};
pub use snapshot::Snapshot;
pub use threads::set_threads;
