//! What the contract of `Collective` promises, checked on every implementation, and what the ring promises beyond it.
//!
//! Nothing here measures time. Whatever waits for threads does so with a generous bound, so that a hang is a failure.
//!
//! [`group`] forms the groups and runs their members, [`work`] is what the members do. Every implementation: results in
//! [`exact`], failures in [`abort`] and [`partial`], wrong calls in [`misuse`]. The wrapper for failures: [`faulty`]. The ring: how
//! it forms in [`forming`], how it works in [`ring`], what goes through shared memory in [`shared`]. Work in the background:
//! [`background`], and [`buckets`], which makes it a collective that the contract is checked on.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests may unwrap as the tests do")]

mod abort;
mod background;
mod buckets;
mod exact;
mod faulty;
mod forming;
mod group;
mod misuse;
mod partial;
mod ring;
mod shared;
mod work;
