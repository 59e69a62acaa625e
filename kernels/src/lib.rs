//! Arithmetic on slices of `f32`: what the operators of a network are made of, fast, and with results that depend on
//! nothing but the values.
//!
//! [`gemm`] multiplies matrices, [`threads`] deals work to the one pool of this process, [`simd`] compiles loops for the
//! vector unit that the machine has, [`math`] holds elementary functions, [`fresh`] makes outputs without filling them
//! with zeros first.
//!
//! The layers stand on these. [`linear`], [`conv`] and [`attention`] are products at heart: fully connected layers,
//! convolutions in two dimensions, and attention in tiles that never stores its scores; each has its gradients beside it.
//! [`activation`], [`dropout`], [`elementwise`] and [`pool`] go over values or planes once; [`norm`], [`group_norm`] and
//! [`batch_norm`] bring them to mean 0 and variance 1 over a token, over groups of channels, and over a batch.
//! [`embedding`] looks rows of a table up and adds gradients to them in a fixed order. [`cross_entropy`] gives the loss of
//! logits and turns them into its gradient; [`optimizer`] holds the steps of SGD and AdamW over all parameters.

//! **The same bits everywhere.** Every element of a result is made by a fixed sequence of roundings. How work is cut
//! among threads, how wide the vectors are and how a matrix is blocked for the caches decides only who makes an element and when,
//! never in which order its terms are added. So results agree between any number of threads, and between processors with AVX-512,
//! AVX2, NEON, or none of them. The one exception says so: products of `bf16` values by an instruction for them.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod fresh;
pub mod gemm;
pub mod group_norm;
pub mod linear;
pub mod math;
pub mod norm;
pub mod optimizer;
pub mod pool;
pub mod simd;
pub mod threads;
