//! Waiting for sockets.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::Deadline;
use super::link::Link;
use crate::CollectiveError;

/// One stage of an operation on all links at once.
pub(super) trait Drive {
    /// Whether link `index` has something to send now.
    fn wants_send(&self, index: usize) -> bool;

    /// Whether link `index` has still to deliver something in this stage.
    fn wants_receive(&self, index: usize) -> bool;

    /// Whether the end of link `index` matters although it has nothing to send or to deliver.
    fn watches(&self, _index: usize) -> bool {
        false
    }

    /// Called when the peer of a watched link has closed its end; looks at what that means.
    fn ended(&mut self, _index: usize, _link: &Link) -> Result<(), CollectiveError> {
        Ok(())
    }

    /// Sends what the socket takes, at most one frame.
    fn send(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError>;

    /// Handles what was read ahead.
    fn take(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError>;

    /// Reads from the socket once, and handles it.
    fn receive(&mut self, index: usize, link: &mut Link) -> Result<(), CollectiveError>;
}

/// Runs a stage to its end.
///
/// Only links that still owe something are read, so that a peer which finished and left does not fail those that have
/// not. Sending comes first and without asking: in a small operation every socket has room.
pub(super) fn drive(links: &mut [Link], job: &mut impl Drive, deadline: Deadline) -> Result<(), CollectiveError> {
    for (index, link) in links.iter_mut().enumerate() {
        if job.wants_send(index) {
            job.send(index, link)?;
        }
    }
    for (index, link) in links.iter_mut().enumerate() {
        job.take(index, link)?;
    }
    let mut ready = Vec::with_capacity(links.len());
    loop {
        wait_for_links(links, job, deadline, &mut ready)?;
        if ready.is_empty() {
            return Ok(());
        }
        for &(index, flags) in &ready {
            let link = &mut links[index];
            if !job.wants_receive(index) && !job.wants_send(index) {
                if job.watches(index) {
                    job.ended(index, link)?;
                }
                continue;
            }
            // A hang-up or an error shows itself in the call that it ends.
            let failed = flags.intersects(PollFlags::ERR | PollFlags::HUP);
            if job.wants_receive(index) && (failed || flags.contains(PollFlags::IN)) {
                job.receive(index, link)?;
            }
            if job.wants_send(index) && (failed || flags.contains(PollFlags::OUT)) {
                job.send(index, link)?;
            }
        }
    }
}

/// Fills `ready` with the links that can go on or have ended; leaves it empty if no link wants anything any more.
fn wait_for_links(
    links: &[Link],
    job: &impl Drive,
    deadline: Deadline,
    ready: &mut Vec<(usize, PollFlags)>,
) -> Result<(), CollectiveError> {
    ready.clear();
    let mut wanting = Vec::with_capacity(links.len());
    let mut polled = Vec::with_capacity(links.len());
    let mut fds = Vec::with_capacity(links.len());
    for (index, link) in links.iter().enumerate() {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, job.wants_receive(index));
        flags.set(PollFlags::OUT, job.wants_send(index));
        if !flags.is_empty() {
            wanting.push(index);
        } else if job.watches(index) {
            flags = PollFlags::RDHUP;
        } else {
            continue;
        }
        polled.push(index);
        fds.push(PollFd::new(link, flags));
    }
    while !wanting.is_empty() {
        poll(&mut fds, deadline.at).map_err(|source| CollectiveError::Io { action: "wait for peers", source })?;
        let flags = polled.iter().zip(&fds).map(|(index, fd)| (*index, fd.revents()));
        ready.extend(flags.filter(|(_, flags)| !flags.is_empty()));
        if !ready.is_empty() {
            return Ok(());
        }
        if let (Some(limit), Some(at)) = (deadline.limit, deadline.at)
            && Instant::now() >= at
        {
            let waiting_for = wanting.iter().map(|index| links[*index].rank()).collect();
            return Err(CollectiveError::TimedOut { operation: deadline.name, limit, waiting_for });
        }
    }
    Ok(())
}

/// Waits until one of `fds` is ready, or until `until`. It may return early with nothing ready.
pub(super) fn poll(fds: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<()> {
    // A wait of a year is as good as one without end, and no timestamp overflows.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    let timeout = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now()).min(LONGEST);
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
    });
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            for fd in fds {
                fd.clear_revents();
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
