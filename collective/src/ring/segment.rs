//! Memory of one rank that its peers on the same host see too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use super::{CHUNK_BYTES, CHUNK_ELEMENTS};

/// Messages of one stream that may be under way. More would leave the cache before they are read; fewer would make the
/// two ends wait for each other.
pub(super) const SLOTS: usize = 4;

/// Name of the memory in `/proc`; it has none in any directory, so nothing is left behind by a process that is killed.
const NAME: &str = "phalanx-collective";

/// Bytes before the first slot: the head, then a line for each candidate.
const HEAD_BYTES: usize = size_of::<Head>();

/// A page, so that slots begin on one.
const PAGE_BYTES: usize = 4096;

/// Written by the owner, but for `sleeping`. Each field has cache lines of its own.
#[repr(C)]
struct Head {
    /// Says to those who open the memory that it is what they were told of.
    token: Apart<AtomicU64>,
    told: Apart<AtomicU64>,
    sleeping: Apart<AtomicU32>,
}

/// Two cache lines, since processors fetch them in pairs.
#[repr(C, align(128))]
struct Apart<T>(T);

/// What the owner of a segment tells one candidate. All of them count messages since the group was formed.
#[repr(C, align(128))]
pub(super) struct Line {
    /// Written for the candidate.
    pub(super) sent: AtomicU64,
    /// Read of what the candidate wrote for the owner.
    pub(super) taken: AtomicU64,
    /// Read of what the candidate wrote for everybody.
    pub(super) heard: AtomicU64,
}

/// The memory. Only its owner writes it, apart from the flag that says that the owner sleeps; everybody reads it.
///
/// For each candidate there is a stream of [`SLOTS`] slots, and one stream more for everybody.
pub(super) struct Segment {
    map: MmapRaw,
    candidates: usize,
}

impl Segment {
    /// Makes the memory of a rank that has so many candidates, itself included. The file is for the others to open.
    pub(super) fn create(candidates: usize, token: u64) -> io::Result<(Self, File)> {
        let file = rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let file = File::from(file);
        file.set_len(length(candidates) as u64)?;
        // Access to memory that was cut off would kill the process.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let segment = Self::map(&file, candidates)?;
        segment.head().token.0.store(token, Ordering::Relaxed);
        Ok((segment, file))
    }

    /// Opens the memory that process `pid` has at file descriptor `fd`.
    pub(super) fn open(pid: u32, fd: u32, token: u64, candidates: usize) -> io::Result<Self> {
        let path = path_of(pid, fd);
        // What is not ours is not even opened, since that may have effects.
        if !std::fs::read_link(&path)?.to_string_lossy().starts_with(&format!("/memfd:{NAME}")) {
            return Err(io::Error::other("the peer's memory is something else here"));
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let sealed = rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK);
        if !sealed || file.metadata()?.len() != length(candidates) as u64 {
            return Err(io::Error::other("the peer's memory has another size"));
        }
        let segment = Self::map(&file, candidates)?;
        if segment.head().token.0.load(Ordering::Relaxed) != token {
            return Err(io::Error::other("the peer's memory is another one's here"));
        }
        Ok(segment)
    }

    fn map(file: &File, candidates: usize) -> io::Result<Self> {
        Ok(Self { map: MmapOptions::new().len(length(candidates)).map_raw(file)?, candidates })
    }

    fn head(&self) -> &Head {
        // SAFETY: the mapping is page-aligned, at least as long as a head, lives as long as `self`, and every field is
        // an atomic number, for which any bytes are a value and which others may change.
        unsafe { &*self.map.as_ptr().cast::<Head>() }
    }

    /// Messages that the owner has written for everybody.
    pub(super) fn told(&self) -> &AtomicU64 {
        &self.head().told.0
    }

    /// Not zero while the owner waits for its bell.
    pub(super) fn sleeping(&self) -> &AtomicU32 {
        &self.head().sleeping.0
    }

    /// The owner's counters for a candidate.
    pub(super) fn line(&self, candidate: usize) -> &Line {
        assert!(candidate < self.candidates, "a line for each candidate");
        // SAFETY: as in `head`; `length` has room for a line of every candidate behind the head, whose size is a
        // multiple of a line's alignment.
        unsafe { &*self.map.as_ptr().add(HEAD_BYTES).cast::<Line>().add(candidate) }
    }

    /// The slot of message `number` of the stream for a candidate, or of the one for everybody.
    fn slot(&self, stream: Stream, number: u64) -> *mut f32 {
        let stream = match stream {
            Stream::To(candidate) => candidate,
            Stream::ToAll => self.candidates,
        };
        assert!(stream <= self.candidates, "a stream for each candidate, and one more");
        let slot = stream * SLOTS + (number % SLOTS as u64) as usize;
        self.map.as_mut_ptr().wrapping_add(slots_begin(self.candidates) + slot * CHUNK_BYTES).cast()
    }

    /// The first elements of a message.
    ///
    /// # Safety
    /// The owner has written the message, which was seen with acquire ordering, and the reader has not released it yet,
    /// so that nobody writes to it.
    pub(super) unsafe fn message(&self, stream: Stream, number: u64, elements: usize) -> &[f32] {
        assert!(elements <= CHUNK_ELEMENTS, "{elements} elements in a slot");
        // SAFETY: the slot lies in the mapping, is aligned to a page, and any bytes are numbers; the caller sees to it
        // that nobody writes.
        unsafe { std::slice::from_raw_parts(self.slot(stream, number), elements) }
    }

    /// The first elements of a message that is to be written.
    ///
    /// # Safety
    /// This rank owns the segment, and every reader has released what was in the slot before, which was seen with
    /// acquire ordering, so that nobody else reads or writes it.
    #[expect(clippy::mut_from_ref, reason = "the memory is not Rust's; the caller answers for who else uses it")]
    pub(super) unsafe fn message_mut(&self, stream: Stream, number: u64, elements: usize) -> &mut [f32] {
        assert!(elements <= CHUNK_ELEMENTS, "{elements} elements in a slot");
        // SAFETY: as in `message`; the caller sees to it that nobody else uses the slot.
        unsafe { std::slice::from_raw_parts_mut(self.slot(stream, number), elements) }
    }
}

/// Whom messages are for.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    To(usize),
    ToAll,
}

fn slots_begin(candidates: usize) -> usize {
    (HEAD_BYTES + candidates * size_of::<Line>()).next_multiple_of(PAGE_BYTES)
}

/// Pages that are never written take no memory.
fn length(candidates: usize) -> usize {
    slots_begin(candidates) + (candidates + 1) * SLOTS * CHUNK_BYTES
}

fn path_of(pid: u32, fd: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd/{fd}"))
}

/// What wakes a rank that sleeps: the reading end of a pipe, next to which the rank waits for its sockets. Peers open the
/// pipe as they open the memory, which is why it is no event counter: those cannot be opened.
pub(super) struct Bell {
    reader: io::PipeReader,
    /// Kept so that the pipe does not hang up.
    writer: io::PipeWriter,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer })
    }

    /// The file descriptor that peers open.
    pub(super) fn number(&self) -> u32 {
        self.writer.as_raw_fd() as u32
    }

    /// Opens the bell of process `pid`. For reading too, so that writing never raises a signal.
    pub(super) fn open(pid: u32, fd: u32) -> io::Result<File> {
        let path = path_of(pid, fd);
        if !std::fs::read_link(&path)?.to_string_lossy().starts_with("pipe:") {
            return Err(io::Error::other("the peer's bell is something else here"));
        }
        OpenOptions::new().read(true).write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
    }

    /// Takes out what was written; called only when something was.
    pub(super) fn quieten(&self) {
        let _ = (&self.reader).read(&mut [0; 64]);
    }
}

impl std::os::fd::AsFd for Bell {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
