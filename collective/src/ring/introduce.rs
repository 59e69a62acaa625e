//! How the ranks of a new group find out who of them shares memory.
//!
//! Three small gathers over the sockets: on which host each rank is; where each rank of a host with several has its
//! memory, which the others then try to open; whom each rank reaches. Two ranks share memory if each reaches the other.
//! A host is known by its boot id. Whether the memory can be opened is not deduced but tried: a peer in another
//! container may have the same host and yet be out of sight, or be taken for another process. Whatever fails leaves the
//! pair with its socket.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;

use tracing::debug;

use super::segment::{Bell, Segment};
use super::shared::{Neighbour, Shared};
use super::{Deadline, Ring};
use crate::CollectiveError;

/// How bulk data travel between the ranks of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Through shared memory where two ranks can see each other's, by TCP otherwise.
    #[default]
    Automatic,
    /// By TCP to every peer, whatever those prefer.
    Tcp,
    /// Through shared memory to every peer; forming the group fails where that cannot be.
    SharedMemory,
}

/// Most ranks of one host that share memory. Their segments grow with the square of their number; beyond it they would
/// not fit into the cache anyway.
const MAX_CANDIDATES: usize = 32;

/// A message of the second gather: process, file descriptors of the memory and of the bell, token.
const OFFER_BYTES: usize = 4 + 4 + 4 + 8;

/// This rank's own memory, until the others have opened it.
struct Own {
    segment: Segment,
    file: File,
    bell: Bell,
    token: u64,
}

impl Own {
    fn new(candidates: usize) -> io::Result<Self> {
        // It need not be a secret, only be no other's.
        let token = RandomState::new().hash_one(std::process::id());
        let (segment, file) = Segment::create(candidates, token)?;
        Ok(Self { segment, file, bell: Bell::new()?, token })
    }

    fn offer(&self) -> Vec<u8> {
        use std::os::fd::AsRawFd;
        let mut offer = Vec::with_capacity(OFFER_BYTES);
        for number in [std::process::id(), self.file.as_raw_fd() as u32, self.bell.number()] {
            offer.extend(number.to_le_bytes());
        }
        offer.extend(self.token.to_le_bytes());
        offer
    }
}

/// Opens what a peer offers.
fn reach(offer: &[u8], candidates: usize) -> io::Result<(Segment, File)> {
    let offer: &[u8; OFFER_BYTES] =
        offer.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the peer offers no memory"))?;
    let number = |at: usize| u32::from_le_bytes([offer[at], offer[at + 1], offer[at + 2], offer[at + 3]]);
    let (pid, memory, bell) = (number(0), number(4), number(8));
    let token = u64::from(number(12)) | u64::from(number(16)) << 32;
    Ok((Segment::open(pid, memory, token, candidates)?, Bell::open(pid, bell)?))
}

impl Ring {
    /// Finds the neighbours of this rank.
    pub(super) fn introduce(&mut self, transport: Transport, deadline: Deadline) -> Result<(), CollectiveError> {
        let host = match transport {
            Transport::Tcp => String::new(),
            Transport::Automatic | Transport::SharedMemory => boot_id(),
        };
        let hosts = self.introductory_gather(host.as_bytes(), deadline)?;
        let here = |rank: &u32| !host.is_empty() && hosts[*rank as usize] == host.as_bytes();
        let mut candidates: Vec<u32> = (0..self.world).filter(here).collect();
        if candidates.len() > MAX_CANDIDATES {
            candidates.clear();
        }
        let own = match candidates.len() {
            0 | 1 => None,
            several => {
                let own = Own::new(several);
                own.map_err(|error| debug!(%error, "no memory to share; bulk data go by TCP")).ok()
            }
        };
        let offers = self.introductory_gather(&own.as_ref().map(Own::offer).unwrap_or_default(), deadline)?;
        let mut neighbours = Vec::new();
        let mut reached = vec![0; self.world as usize];
        for (place, &rank) in candidates.iter().enumerate().filter(|(_, rank)| **rank != self.rank && own.is_some()) {
            match reach(&offers[rank as usize], candidates.len()) {
                Ok((segment, bell)) => {
                    reached[rank as usize] = 1;
                    neighbours.push(Neighbour::new(rank, place, segment, bell));
                }
                Err(error) => debug!(rank, %error, "cannot reach a peer's memory; bulk data go by TCP"),
            }
        }
        let reached = self.introductory_gather(&reached, deadline)?;
        let own_rank = self.rank as usize;
        neighbours.retain(|neighbour| reached[neighbour.rank as usize].get(own_rank) == Some(&1));
        if transport == Transport::SharedMemory && neighbours.len() + 1 < self.world as usize {
            let shared =
                self.peers().filter(|peer| neighbours.iter().all(|neighbour| neighbour.rank != *peer)).collect();
            return Err(self.fail(not_shared(shared)));
        }
        let place = candidates.iter().position(|rank| *rank == self.rank);
        if let (Some(own), Some(place), false) = (own, place, neighbours.is_empty()) {
            self.shared = Some(Shared::new(own.segment, own.bell, place, neighbours));
        }
        Ok(())
    }

    fn introductory_gather(&mut self, mine: &[u8], deadline: Deadline) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.guarded_until(deadline, |ring, deadline| ring.gather(mine, deadline))
    }
}

fn not_shared(ranks: Vec<u32>) -> CollectiveError {
    let source = io::Error::other(format!("ranks {ranks:?} are on another host or out of sight"));
    CollectiveError::Io { action: "share memory with every peer", source }
}

/// The host, as far as anybody on it knows; empty if it has no name.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
