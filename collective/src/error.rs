//! Why a collective ended.

use std::io;
use std::time::Duration;

/// Why an operation, or the forming of a group, failed. The collective is dead afterwards, see [`crate::Collective`].
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// This rank's [`AbortHandle`](crate::AbortHandle) was used.
    #[error("the collective was aborted")]
    Aborted,
    /// The connection to a peer ended: it died, gave up, or its host vanished.
    #[error("rank {rank} was lost")]
    PeerLost {
        /// The rank first seen lost.
        rank: u32,
        /// How it was seen.
        source: io::Error,
    },
    /// A peer does another operation than this rank, or does not speak the protocol.
    #[error("rank {rank} broke the protocol: {detail}")]
    Protocol {
        /// The peer.
        rank: u32,
        /// What was expected and what came.
        detail: String,
    },
    /// It took longer than the limit that was set.
    #[error("{operation} took longer than {limit:?}, waiting for ranks {waiting_for:?}")]
    TimedOut {
        /// What was waited for: `connect`, `all_reduce` or `all_gather`.
        operation: &'static str,
        /// The limit.
        limit: Duration,
        /// The ranks that were missing.
        waiting_for: Vec<u32>,
    },
    /// The group has gone on to a newer generation than the one this rank wanted to form.
    #[error("generation {ours} is out of date, a peer is at generation {theirs}")]
    Stale {
        /// The generation asked for.
        ours: u64,
        /// The newer one a peer named.
        theirs: u64,
    },
    /// The caller's arguments are wrong.
    #[error("invalid argument: {detail}")]
    Invalid {
        /// What is wrong, with the numbers.
        detail: String,
    },
    /// The thread of a [`Background`](crate::Background) panicked in an operation; it is a defect.
    #[error("the collective's thread panicked: {detail}")]
    Panicked {
        /// What the panic said.
        detail: String,
    },
    /// An earlier operation failed, so this one was not tried.
    #[error("the collective is broken by an earlier failure")]
    Broken,
    /// The operating system refused something that concerns no peer in particular.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
}

impl CollectiveError {
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid { detail: detail.into() }
    }

    pub(crate) fn protocol(rank: u32, detail: impl Into<String>) -> Self {
        Self::Protocol { rank, detail: detail.into() }
    }
}
