//! The socket that outlives generations, and the connections that wait at it.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::handshake::{Heard, Hello, MAX_HELLO_BYTES};
use crate::MAX_WORLD;

/// Connections that the kernel keeps while this process is busy with a step. All peers may dial at the same moment.
const BACKLOG: i32 = 2 * MAX_WORLD as i32;

/// Most connections that have not said who they are. Only strangers leave it at that, so the oldest goes first.
const MAX_SILENT: usize = 64;

/// Most connections that wait for a newer generation: every peer once, and once more for a peer that came back.
const MAX_EARLY: usize = 2 * MAX_WORLD as usize;

/// The socket on which this process waits for its peers, for all its groups one after another.
///
/// A connection of a generation that has not begun here is not lost: while no group is forming, it waits in the
/// kernel's backlog; if it comes while an older generation forms, that one fails as stale and the connection waits in
/// the listener. The dialling side therefore needs no second try, which would cost it a delay. It tries again only if
/// the connection fails or the listener forms another group.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    /// Connections of which no whole hello came yet, oldest first.
    pub(super) silent: Vec<Silent>,
    /// Connections of a newer generation than the one that was forming, oldest first.
    pub(super) early: Vec<Caller>,
}

/// A connection that has said who it is.
pub(super) struct Caller {
    pub(super) hello: Hello,
    pub(super) socket: TcpStream,
}

/// A connection that has not said who it is.
pub(super) struct Silent {
    socket: TcpStream,
    heard: Vec<u8>,
}

impl Listener {
    /// Listens on `address`, `host:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address does not resolve, is not this host's, or is taken.
    pub fn bind(address: &str) -> io::Result<Self> {
        let mut error = io::Error::new(ErrorKind::InvalidInput, "the address resolves to nothing");
        for address in address.to_socket_addrs()? {
            match listen(address) {
                Ok(socket) => {
                    let address = socket.local_addr()?;
                    return Ok(Self { socket, address, silent: Vec::new(), early: Vec::new() });
                }
                Err(refused) => error = refused,
            }
        }
        Err(error)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes all connections that have arrived. They are silent at first.
    pub(super) fn accept(&mut self) -> io::Result<()> {
        loop {
            let socket = match self.socket.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The caller hung up while it waited.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                Err(error) => return Err(error),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            if self.silent.len() == MAX_SILENT {
                self.silent.remove(0);
            }
            self.silent.push(Silent { socket, heard: Vec::new() });
        }
    }

    /// Reads what silent connections have to say by now. Returns those that said all, drops those that talk nonsense.
    pub(super) fn listen_to_silent(&mut self) -> Vec<Caller> {
        let mut callers = Vec::new();
        let mut still_silent = Vec::new();
        for mut silent in self.silent.drain(..) {
            match silent.read() {
                Heard::Incomplete => still_silent.push(silent),
                Heard::Garbage => tracing::debug!("dropped a connection that is no peer's"),
                Heard::Hello(hello) => callers.push(Caller { hello, socket: silent.socket }),
            }
        }
        self.silent = still_silent;
        callers
    }

    /// Keeps a connection for a generation that will begin here.
    pub(super) fn keep_early(&mut self, caller: Caller) {
        if self.early.len() == MAX_EARLY {
            self.early.remove(0);
        }
        self.early.push(caller);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Silent {
    fn read(&mut self) -> Heard {
        let mut buffer = [0; MAX_HELLO_BYTES];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => return Heard::Garbage,
                Ok(read) => self.heard.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Incomplete,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Heard::Garbage,
            }
            match Hello::decode(&self.heard) {
                Heard::Incomplete => {}
                done => return done,
            }
        }
    }
}

impl AsFd for Silent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// As `TcpListener::bind`, but with a longer backlog, and without blocking.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address)?;
    // A worker that is started again at the same port must not wait for the old connections to expire.
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A TCP socket for `address` that does not block.
pub(super) fn new_socket(address: SocketAddr) -> io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}
