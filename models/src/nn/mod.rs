//! The operators a model is made of, each with its forward and its hand-written backward pass on the CPU.
//!
//! Candle's own fused operators either drop the gradient without a word (layer norm, softmax), get it wrong (max pooling)
//! or draw random numbers that cannot be seeded (dropout). Those here are checked against PyTorch in double precision and
//! against finite differences, take any strides, and give the same bits for any number of threads. [`Tape`] records what
//! ran and walks back over it; the arithmetic is in the crate `kernels`.

mod activation;
mod add;
mod attention;
mod batch_norm;
mod conv;
mod cross_entropy;
mod dropout;
mod embed;
mod group_norm;
mod linear;
mod norm;
mod pool;
mod pool2d;
mod profile;
mod tape;
#[cfg(test)]
mod tests;
mod values;

pub use activation::{Activation, activation};
pub use add::{add, add_layer_norm};
pub use attention::{Blocks, Pattern, cross_attention, self_attention};
pub use batch_norm::{BatchNorm, RunningStatistics, Statistics, Then, batch_norm};
pub use conv::{Conv2d, conv2d};
pub use cross_entropy::{CrossEntropy, cross_entropy, score};
pub use dropout::{Dropout, Dropped, dropout};
pub use embed::{embed, embedding, patches};
pub use group_norm::group_norm;
pub use kernels::gemm::Precision;
pub use linear::{Order, linear, linear_activated, linear_inputs_first, linear_stack};
pub use norm::{layer_norm, rms_norm};
pub use pool::{first_token, mean_of_tokens};
pub use pool2d::{Divisor, Pool2d, avg_pool2d, global_avg_pool, max_pool2d};
pub use profile::{Phase, Profile, Span};
pub use tape::{Gradients, Operator, Outcome, Shared, Tape, Watcher};
pub use values::{Values, tensor_of};
