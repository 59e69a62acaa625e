//! The store as its users see it: everything here goes through the public interface and the files on the disk.

#![expect(clippy::unwrap_used, reason = "a test fails by it, in helper functions too")]

mod checkpoints;
mod damage;
mod disk_full;
mod fixtures;
mod inspections;
mod journal;
mod log;
mod records;
mod sinks;
