//! Sinks on a real store and a real engine, against servers on this machine. Other people's readers and servers have
//! their say in `sinks/tests/clients.sh`.

mod mlflow;
mod tensorboard;
mod webhook;
mod world;

use std::time::Duration;

use crate::Pace;

/// A pace at which tests do not wait.
const FAST: Pace = Pace {
    between: Duration::from_millis(1),
    pause_min: Duration::from_millis(1),
    pause_max: Duration::from_millis(4),
    last_chance: Duration::from_secs(20),
};
