//! What is trained: architectures with exact gradients, optimizers whose state can be saved, and snapshots of both.
//!
//! Start at [`Network`]: it turns a micro-batch into a loss and a gradient, cut into buckets as its [`Layout`] says.
//! [`Optimizer`] moves the weights, [`Snapshot`] carries weights and moments to bytes and back. The operators are in
//! [`nn`], each with a hand-written backward pass; no other crate names the tensor library.
//!
//! Two things hold everywhere. Nothing depends on the number of threads: work is cut into pieces of a fixed size, and
//! sums are added in a fixed order. Nothing depends on the order of calls: random numbers are keyed by what they are for.

mod error;
mod gradient;
mod inspect;
mod layout;
mod network;
pub mod nn;
mod optimizer;
mod parameters;
mod snapshot;
mod threads;
mod vit;

pub use domain::schedule::learning_rate;
pub use error::{ModelError, SnapshotError};
pub use gradient::{Audit, Gradient, GradientSink, audit, clip_scale};
pub use inspect::{Attended, histogram};
pub use kernels::elementwise::add_into;
pub use kernels::gemm::rate as peak_gflops;
pub use kernels::simd::name as vector_unit;
pub use layout::{Declaration, Layout, Parameter, Role};
pub use network::{Batch, EvalSums, Network, TrainForward};
pub use optimizer::{Optimizer, Update};
pub use parameters::Parameters;
pub use snapshot::Snapshot;
pub use threads::set_threads;
