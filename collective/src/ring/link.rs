//! The connection to one peer.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::frame::{HEADER_BYTES, MAX_START_BYTES};
use crate::CollectiveError;
use crate::abort::Wake;

/// How long a host may leave sent data or probes without an answer before its connections are given up. Longer than any
/// pause of a healthy host that reads; the coordinator's lease is there to be quicker.
pub const VANISHED_AFTER: Duration = Duration::from_secs(10);

/// How often a silent connection is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes read ahead: a whole start frame, and the next header with it.
const STASH_BYTES: usize = 2 * (HEADER_BYTES + MAX_START_BYTES);

/// One peer's socket, and what was read from it beyond what was asked for.
pub(super) struct Link {
    rank: u32,
    socket: Arc<TcpStream>,
    stash: Box<[u8]>,
    /// The part of the stash that is still to be taken.
    start: usize,
    end: usize,
    sent: u64,
}

impl Link {
    /// Takes a connected socket that does not block.
    pub(super) fn new(rank: u32, socket: TcpStream) -> Self {
        if let Err(error) = notice_vanished_hosts(&socket) {
            debug!(rank, %error, "cannot set the keep-alive of a connection; a vanished host is left to the lease");
        }
        Self { rank, socket: Arc::new(socket), stash: vec![0; STASH_BYTES].into(), start: 0, end: 0, sent: 0 }
    }

    pub(super) fn rank(&self) -> u32 {
        self.rank
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        self.sent
    }

    /// Sends as much of `first`, then `second`, as the socket takes now. Returns the number of bytes.
    pub(super) fn send(&mut self, first: &[u8], second: &[u8]) -> Result<usize, CollectiveError> {
        let written = match (first.is_empty(), second.is_empty()) {
            (true, _) => (&*self.socket).write(second),
            (false, true) => (&*self.socket).write(first),
            (false, false) => (&*self.socket).write_vectored(&[IoSlice::new(first), IoSlice::new(second)]),
        };
        let written = self.now(written)?;
        self.sent += written as u64;
        Ok(written)
    }

    /// Reads what is there into `target` and, beyond it, ahead. Returns the number of bytes put into `target`.
    pub(super) fn receive(&mut self, target: &mut [u8]) -> Result<usize, CollectiveError> {
        debug_assert!(target.is_empty() || self.start == self.end, "what was read ahead must be taken first");
        self.stash.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let ahead = IoSliceMut::new(&mut self.stash[self.end..]);
        let wanted = target.len();
        let read = if target.is_empty() {
            (&*self.socket).read_vectored(&mut [ahead])
        } else {
            (&*self.socket).read_vectored(&mut [IoSliceMut::new(target), ahead])
        };
        if matches!(read, Ok(0)) {
            return Err(self.closed());
        }
        let read = self.now(read)?;
        self.end += read.saturating_sub(wanted);
        Ok(read.min(wanted))
    }

    /// The peer's end of the connection is closed: fails unless something came before the end that is still to be read.
    pub(super) fn check_end(&self) -> Result<(), CollectiveError> {
        if self.ahead().is_empty() && self.socket.peek(&mut [0]).map_err(|error| self.lost(error))? == 0 {
            return Err(self.closed());
        }
        Ok(())
    }

    /// What was read ahead and not taken yet.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.stash[self.start..self.end]
    }

    /// Marks bytes read ahead as taken.
    pub(super) fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.end - self.start);
        self.start += bytes;
    }

    /// Moves bytes read ahead into `target`. Returns how many.
    pub(super) fn take(&mut self, target: &mut [u8]) -> usize {
        let taken = target.len().min(self.ahead().len());
        target[..taken].copy_from_slice(&self.ahead()[..taken]);
        self.consume(taken);
        taken
    }

    /// A call that would have blocked moved nothing; anything else that failed means that the peer is lost.
    fn now(&self, result: io::Result<usize>) -> Result<usize, CollectiveError> {
        match result {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            other => other.map_err(|error| self.lost(error)),
        }
    }

    /// The error for a peer that has closed its end.
    pub(super) fn closed(&self) -> CollectiveError {
        self.lost(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed"))
    }

    fn lost(&self, source: io::Error) -> CollectiveError {
        CollectiveError::PeerLost { rank: self.rank, source }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn notice_vanished_hosts(socket: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepintvl(socket, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, (VANISHED_AFTER.as_secs() / PROBE_INTERVAL.as_secs()) as u32)?;
    sockopt::set_tcp_user_timeout(socket, VANISHED_AFTER.as_millis() as u32)?;
    Ok(())
}

/// All sockets of a group, for whoever ends it. Shutting down works from any thread and wakes the one in `poll`.
pub(super) struct Sockets(Vec<Arc<TcpStream>>);

impl Sockets {
    pub(super) fn of(links: &[Link]) -> Self {
        Self(links.iter().map(|link| link.socket.clone()).collect())
    }

    pub(super) fn shut_down(&self) {
        for socket in &self.0 {
            // It fails if the connection is gone already, which is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Wake for Sockets {
    fn wake(&self) {
        self.shut_down();
    }
}
