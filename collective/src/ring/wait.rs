//! Waiting for sockets.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::Deadline;
use super::link::Link;
use super::shared::Shared;
use crate::{AbortHandle, CollectiveError};

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

    /// Whether something is still to be done with the peer of `link` through shared memory. Its end matters then too.
    fn awaits(&self, _link: &Link) -> bool {
        false
    }

    /// Does a portion of what can be done without sockets; says whether there was anything.
    fn work(&mut self) -> bool {
        false
    }

    /// The shared memory in which something may happen while this rank sleeps.
    fn shared(&self) -> Option<&Shared> {
        None
    }

    /// Called when the peer of a watched or awaited link has closed its end; looks at what that means.
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
pub(super) fn drive(
    links: &mut [Link],
    job: &mut impl Drive,
    abort: &AbortHandle,
    deadline: Deadline,
) -> Result<(), CollectiveError> {
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
        if abort.is_aborted() {
            return Err(CollectiveError::Aborted);
        }
        let mut moved = work(job);
        if moved && !uses_sockets(links, job) {
            continue;
        }
        if !moved && let Some(shared) = job.shared() {
            shared.fall_asleep();
            moved = job.work();
        }
        let finished = wait_for_links(links, job, deadline, moved, &mut ready);
        if let Some(shared) = job.shared() {
            shared.wake_up();
        }
        if finished? {
            return Ok(());
        }
        for &(index, flags) in &ready {
            let link = &mut links[index];
            if !job.wants_receive(index) && !job.wants_send(index) {
                if job.watches(index) || job.awaits(link) {
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

/// Works, and if there is nothing to do looks a little longer whether there will be.
fn work(job: &mut impl Drive) -> bool {
    if job.work() {
        return true;
    }
    for _ in 0..job.shared().map_or(0, Shared::looks) {
        std::hint::spin_loop();
        if job.work() {
            return true;
        }
    }
    false
}

fn uses_sockets(links: &[Link], job: &impl Drive) -> bool {
    (0..links.len()).any(|index| job.wants_send(index) || job.wants_receive(index))
}

/// Fills `ready` with the links that can go on or have ended. Returns `true` if nothing is wanted any more. Does not
/// wait if something `moved` elsewhere.
fn wait_for_links(
    links: &[Link],
    job: &impl Drive,
    deadline: Deadline,
    moved: bool,
    ready: &mut Vec<(usize, PollFlags)>,
) -> Result<bool, CollectiveError> {
    ready.clear();
    let mut wanting = Vec::with_capacity(links.len());
    let mut polled = Vec::with_capacity(links.len());
    let mut fds = Vec::with_capacity(links.len() + 1);
    for (index, link) in links.iter().enumerate() {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, job.wants_receive(index));
        flags.set(PollFlags::OUT, job.wants_send(index));
        if !flags.is_empty() {
            wanting.push(index);
        } else if job.awaits(link) {
            wanting.push(index);
            flags = PollFlags::RDHUP;
        } else if job.watches(index) {
            flags = PollFlags::RDHUP;
        } else {
            continue;
        }
        polled.push(index);
        fds.push(PollFd::new(link, flags));
    }
    if wanting.is_empty() {
        return Ok(!moved);
    }
    if let Some(shared) = job.shared() {
        fds.push(PollFd::new(shared, PollFlags::IN));
    }
    let until = if moved { Some(Instant::now()) } else { deadline.at };
    poll(&mut fds, until).map_err(|source| CollectiveError::Io { action: "wait for peers", source })?;
    let mut rang = false;
    if let Some(shared) = job.shared()
        && fds.pop().is_some_and(|fd| fd.revents().contains(PollFlags::IN))
    {
        shared.quieten();
        rang = true;
    }
    let flags = polled.iter().zip(&fds).map(|(index, fd)| (*index, fd.revents()));
    ready.extend(flags.filter(|(_, flags)| !flags.is_empty()));
    if ready.is_empty()
        && !moved
        && !rang
        && let (Some(limit), Some(at)) = (deadline.limit, deadline.at)
        && Instant::now() >= at
    {
        let waiting_for = wanting.iter().map(|index| links[*index].rank()).collect();
        return Err(CollectiveError::TimedOut { operation: deadline.name, limit, waiting_for });
    }
    Ok(false)
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
