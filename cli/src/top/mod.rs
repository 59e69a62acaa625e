//! `phalanx top`: the cluster, its runs and sweeps, live.
//!
//! [`state`] is what is known and what keys do to it, [`mod@draw`] a pure function of it, [`feed`] tells it what the
//! coordinator says. The command itself (`commands/top.rs`) joins the three.

mod curve;
mod draw;
mod feed;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use self::draw::draw;
pub(crate) use self::feed::Feed;
pub(crate) use self::state::{Action, Top};
