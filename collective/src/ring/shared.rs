//! Shared memory between the ranks of one host: who shares, and the streams of messages between them.
//!
//! A message is one slot. Its writer fills it, then raises its counter; its readers see the counter, read, and raise
//! theirs, which gives the slot back. So a slot has one user at a time, and data pass through the cache only. Whoever
//! finds nothing to do says that it sleeps and waits for its bell in `poll`, together with the sockets, whose end tells
//! of a peer that died.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::segment::{Bell, SLOTS, Segment, Stream};

/// How often a rank looks again before it sleeps: a few microseconds, less than falling asleep and waking take.
const LOOKS: u32 = 200;

/// This rank's part of the memory, and those of its neighbours.
pub(super) struct Shared {
    own: Segment,
    bell: Bell,
    /// This rank's place among the candidates.
    place: usize,
    /// Messages written for everybody.
    told: u64,
    pub(super) neighbours: Vec<Neighbour>,
    looks: u32,
}

/// A peer whose memory this rank sees, and which sees this rank's.
pub(super) struct Neighbour {
    pub(super) rank: u32,
    /// Its place among the candidates.
    place: usize,
    segment: Segment,
    bell: File,
    /// Messages written for it, read of what it wrote for this rank, and of what it wrote for everybody.
    sent: u64,
    taken: u64,
    heard: u64,
}

impl Neighbour {
    pub(super) fn new(rank: u32, place: usize, segment: Segment, bell: File) -> Self {
        Self { rank, place, segment, bell, sent: 0, taken: 0, heard: 0 }
    }

    /// Wakes it if it sleeps. What was written before is seen when it wakes.
    fn wake(&self) {
        // Pairs with the one in `fall_asleep`: either it sees what was published, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        let sleeping = self.segment.sleeping();
        if sleeping.load(Ordering::Relaxed) != 0 && sleeping.swap(0, Ordering::Relaxed) != 0 {
            // It fails only if the pipe is full, which wakes as well.
            let _ = (&self.bell).write(&[1]);
        }
    }
}

impl Shared {
    pub(super) fn new(own: Segment, bell: Bell, place: usize, neighbours: Vec<Neighbour>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Where ranks share cores, looking takes time from the one that is looked for.
        let looks = if neighbours.len() < cores { LOOKS } else { 0 };
        Self { own, bell, place, told: 0, neighbours, looks }
    }

    /// How often to look again before sleeping.
    pub(super) fn looks(&self) -> u32 {
        self.looks
    }

    /// Whether a message for a neighbour has room.
    pub(super) fn can_send(&self, index: usize) -> bool {
        let neighbour = &self.neighbours[index];
        has_room(neighbour.sent, &neighbour.segment.line(self.place).taken)
    }

    /// Writes a message for a neighbour, after [`can_send`](Self::can_send).
    pub(super) fn send(&mut self, index: usize, elements: usize, write: impl FnOnce(&mut [f32])) {
        debug_assert!(self.can_send(index));
        let neighbour = &mut self.neighbours[index];
        // SAFETY: the segment is this rank's, and `can_send` saw that the neighbour has released the slot.
        write(unsafe { self.own.message_mut(Stream::To(neighbour.place), neighbour.sent, elements) });
        neighbour.sent += 1;
        self.own.line(neighbour.place).sent.store(neighbour.sent, Ordering::Release);
        neighbour.wake();
    }

    /// Whether a neighbour has sent a message that was not released yet.
    pub(super) fn can_receive(&self, index: usize) -> bool {
        let neighbour = &self.neighbours[index];
        neighbour.segment.line(self.place).sent.load(Ordering::Acquire) > neighbour.taken
    }

    /// The oldest message from a neighbour, after [`can_receive`](Self::can_receive).
    fn received(&self, index: usize, elements: usize) -> &[f32] {
        debug_assert!(self.can_receive(index));
        let neighbour = &self.neighbours[index];
        // SAFETY: `can_receive` saw that the message was written, and `release`, which needs `&mut self`, comes later.
        unsafe { neighbour.segment.message(Stream::To(self.place), neighbour.taken, elements) }
    }

    /// Gives the slot of the oldest message of each of these neighbours back.
    fn release(&mut self, index: usize) {
        let neighbour = &mut self.neighbours[index];
        neighbour.taken += 1;
        self.own.line(neighbour.place).taken.store(neighbour.taken, Ordering::Release);
    }

    /// Whether a message for everybody has room.
    pub(super) fn can_tell(&self) -> bool {
        self.neighbours.iter().all(|neighbour| has_room(self.told, &neighbour.segment.line(self.place).heard))
    }

    /// Makes a message for everybody out of the oldest messages of the neighbours `from`, and releases those; after
    /// [`can_tell`](Self::can_tell), and [`can_receive`](Self::can_receive) of each. `make` gets the messages, in the
    /// order of `from`, of the lengths that go with them, and the place to write to.
    pub(super) fn tell(&mut self, from: &[(usize, usize)], elements: usize, make: impl FnOnce(&[&[f32]], &mut [f32])) {
        debug_assert!(self.can_tell());
        let messages: Vec<&[f32]> = from.iter().map(|(index, elements)| self.received(*index, *elements)).collect();
        // SAFETY: the segment is this rank's, and `can_tell` saw that every neighbour has released the slot.
        make(&messages, unsafe { self.own.message_mut(Stream::ToAll, self.told, elements) });
        for (index, _) in from {
            self.release(*index);
        }
        self.told += 1;
        self.own.told().store(self.told, Ordering::Release);
        self.neighbours.iter().for_each(Neighbour::wake);
    }

    /// Whether a neighbour has told everybody something that was not heard here.
    pub(super) fn can_hear(&self, index: usize) -> bool {
        let neighbour = &self.neighbours[index];
        neighbour.segment.told().load(Ordering::Acquire) > neighbour.heard
    }

    /// Reads the oldest message of a neighbour for everybody, after [`can_hear`](Self::can_hear).
    pub(super) fn hear(&mut self, index: usize, elements: usize, read: impl FnOnce(&[f32])) {
        debug_assert!(self.can_hear(index));
        let neighbour = &mut self.neighbours[index];
        // SAFETY: `can_hear` saw that the message was written, and it is released below.
        read(unsafe { neighbour.segment.message(Stream::ToAll, neighbour.heard, elements) });
        neighbour.heard += 1;
        self.own.line(neighbour.place).heard.store(neighbour.heard, Ordering::Release);
        neighbour.wake();
    }

    /// Says that this rank is about to sleep. Whatever is published from now on rings the bell, so one must look once
    /// more before sleeping.
    pub(super) fn fall_asleep(&self) {
        self.own.sleeping().store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that this rank looks by itself again.
    pub(super) fn wake_up(&self) {
        self.own.sleeping().store(0, Ordering::Relaxed);
    }

    /// Takes the ringing out of the bell after it rang.
    pub(super) fn quieten(&self) {
        self.bell.quieten();
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

fn has_room(written: u64, released: &AtomicU64) -> bool {
    written.saturating_sub(released.load(Ordering::Acquire)) < SLOTS as u64
}
