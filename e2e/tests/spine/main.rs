//! The whole of Phalanx as its users run it: the real binary, real processes, real signals, real data.

mod bad_input;
#[path = "../../../telemetry/tests/collector/mod.rs"]
mod collector;
mod commands;
mod exact;
mod examples;
mod faults;
mod live;
mod otlp;
mod phalanx;
mod profile;
mod sweeps;
mod terminal;
mod users;
