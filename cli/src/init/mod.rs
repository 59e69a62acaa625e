//! `phalanx init`: a job file from a few answers. [`data`] looks at what is there, [`mod@file`] writes it down.

mod data;
mod file;
#[cfg(test)]
mod tests;

pub(crate) use self::data::{Data, Source};
pub(crate) use self::file::{Answers, Kind, patch_for, yaml};
