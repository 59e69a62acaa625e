//! The operators a model is made of, each with its forward and its hand-written backward pass on the CPU.
//!
//! Candle's own fused operators either drop the gradient without a word (layer norm, softmax), get it wrong (max pooling)
//! or draw random numbers that cannot be seeded (dropout). Those here are checked against finite differences, take any
//! strides, and give the same bits for any number of threads: `parallel` cuts work into pieces of a fixed size. `tape`
//! records what ran and walks back over it.

mod add;
mod attention;
mod cross_entropy;
mod dropout;
mod embed;
mod gelu;
mod layer_norm;
mod linear;
mod math;
mod matrix;
mod parallel;
mod pool;
mod tape;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use add::add;
pub(crate) use attention::attention;
pub(crate) use cross_entropy::{CrossEntropy, cross_entropy, score};
pub(crate) use dropout::{Dropout, dropout};
pub(crate) use embed::{embed, patches};
pub(crate) use gelu::gelu;
pub(crate) use layer_norm::layer_norm;
pub(crate) use linear::{linear, linear_of_data};
pub(crate) use math::vectorised;
pub(crate) use parallel::pieces;
pub(crate) use pool::{first_token, mean_of_tokens};
pub(crate) use tape::Tape;
pub(crate) use values::{Values, tensor_of};
