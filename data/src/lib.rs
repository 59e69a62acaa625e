//! Labelled images: reading them, choosing the held-out ones, and making normalised batches ahead of the training loop.
//!
//! Start at [`Library::open`], which shares decoded images among the processes of a host. A [`Split`] turns sample numbers into a [`Batch`]; a [`Prefetcher`] does so on a thread of
//! its own for the steps to come. Which samples a step reads is decided in `domain::batch`; nothing here depends on the
//! order of calls, so any worker makes the same batch from the same numbers.
//!
//! Everything read from outside is hostile until checked: sizes in headers are compared with bounds before memory is
//! asked for, compressed files are read no further than their header promised, and links inside image folders are
//! refused.

mod dataset;
mod error;
mod folder;
mod idx;
mod images;
mod library;
mod prefetch;
mod shared;
mod split;

#[cfg(test)]
mod fixture;

pub use dataset::Dataset;
pub use error::{DataError, ImageShape, Misfit, Misfits};
pub use images::{FILES_MAX, IMAGE_SIDE_MAX, PIXEL_BYTES_MAX};
pub use library::{Library, Origin};
pub use prefetch::{MicroBatch, Prefetcher};
pub use split::{Augmentation, Batch, Split};
