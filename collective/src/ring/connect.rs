//! Forming a group: one connection to every peer, all at the same time.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use tracing::debug;

use super::handshake::{ANSWER_BYTES, Hello, MAX_GROUP_BYTES, Verdict, decode_answer, encode_answer};
use super::introduce::Transport;
use super::link::Link;
use super::listener::{Caller, Listener, new_socket};
use super::wait::poll;
use super::{Deadline, Ring};
use crate::abort::Wake;
use crate::{AbortHandle, CollectiveError, MAX_WORLD};

/// First pause after a dial that failed; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Short enough that a peer which is late loses no time that anybody notices, long enough to cost nothing.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Which group to form, and this process's place in it.
#[derive(Clone, Copy, Debug)]
pub struct Membership<'a> {
    /// Name of the group, at most 255 bytes: the trial's id.
    pub group: &'a str,
    /// Generation of the group. A connection of an older one is refused; a newer one makes this one stale.
    pub generation: u64,
    /// This process's rank.
    pub rank: u32,
    /// `host:port` of every member's listener, by rank. A name is resolved once, on the calling thread, and that alone
    /// cannot be aborted; workers announce numbers.
    pub addresses: &'a [String],
}

/// Forms the group. The members may call this in any order, and before their peers have. Bulk data go through shared memory
/// where they can.
///
/// # Errors
/// As [`connect_over`].
pub fn connect(
    listener: &mut Listener,
    membership: Membership<'_>,
    abort: &AbortHandle,
    limit: Duration,
) -> Result<Ring, CollectiveError> {
    connect_over(Transport::Automatic, listener, membership, abort, limit)
}

/// As [`connect()`], with a choice of how bulk data travel. Ranks may choose differently; a pair shares memory only if
/// neither minds.
///
/// # Errors
/// `TimedOut` after `limit`; `Aborted`; `Stale` if a peer is at a newer generation already; `PeerLost` if a peer that
/// was connected gives up; `Protocol` if a peer has other members in mind; `Invalid` for a membership that cannot be; `Io`
/// if the operating system refuses what is needed, such as shared memory that was insisted on.
/// The listener is good for the next generation in every case.
pub fn connect_over(
    transport: Transport,
    listener: &mut Listener,
    membership: Membership<'_>,
    abort: &AbortHandle,
    limit: Duration,
) -> Result<Ring, CollectiveError> {
    let began = Instant::now();
    check(&membership)?;
    let deadline = Deadline { name: "connect", limit: Some(limit), at: began.checked_add(limit) };
    let doorbell = Arc::new(Doorbell::new().map_err(|source| io_error("make a pipe", source))?);
    let waker: Arc<dyn Wake> = doorbell.clone();
    abort.register(Arc::downgrade(&waker));
    let world = membership.addresses.len() as u32;
    let mut forming = Forming::new(listener, membership, began)?;
    forming.run(&doorbell, abort, deadline)?;
    let mut links = Vec::with_capacity(forming.links.len());
    for (rank, socket) in (0..).zip(forming.links) {
        links.extend(socket.map(|socket| Link::new(rank, socket)));
    }
    let mut ring = Ring::new(membership.rank, world, links, abort.clone());
    ring.introduce(transport, deadline)?;
    debug!(
        group = membership.group,
        generation = membership.generation,
        rank = membership.rank,
        world,
        neighbours = ?ring.neighbours(),
        "group connected"
    );
    Ok(ring)
}

fn check(membership: &Membership<'_>) -> Result<(), CollectiveError> {
    let Membership { group, generation: _, rank, addresses } = *membership;
    let world = addresses.len();
    if world == 0 || world > MAX_WORLD as usize {
        return Err(CollectiveError::invalid(format!("{world} members, a group has 1 to {MAX_WORLD}")));
    }
    if rank as usize >= world {
        return Err(CollectiveError::invalid(format!("rank {rank} of {world} members")));
    }
    if group.len() > MAX_GROUP_BYTES {
        let detail = format!("the group's name has {} bytes, at most {MAX_GROUP_BYTES} are allowed", group.len());
        return Err(CollectiveError::invalid(detail));
    }
    Ok(())
}

fn io_error(action: &'static str, source: io::Error) -> CollectiveError {
    CollectiveError::Io { action, source }
}

/// Wakes `poll` when the group is aborted while it forms.
struct Doorbell {
    reader: PipeReader,
    writer: PipeWriter,
    rung: AtomicBool,
}

impl Doorbell {
    fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer, rung: AtomicBool::new(false) })
    }
}

impl Wake for Doorbell {
    fn wake(&self) {
        // Once is enough, and never fills the pipe. It cannot fail while the reader is there.
        if !self.rung.swap(true, Ordering::SeqCst) {
            let _ = (&self.writer).write(&[1]);
        }
    }
}

/// A group that is not complete yet.
struct Forming<'a> {
    listener: &'a mut Listener,
    hello: Hello,
    /// By rank; this one's own stays empty.
    links: Vec<Option<TcpStream>>,
    /// To every lower rank, by rank.
    dials: Vec<Dial>,
}

struct Dial {
    /// What the name resolved to; a dial that fails goes on to the next one.
    addresses: Vec<SocketAddr>,
    tries: usize,
    state: DialState,
}

enum DialState {
    /// Nothing is under way until then.
    Resting(Instant),
    /// The connection is being made.
    Dialling(TcpStream),
    /// The hello was sent; these bytes of the answer came so far.
    Asking(TcpStream, Vec<u8>),
    Done,
}

/// What `poll` waits for, in the order of its list.
#[derive(Clone, Copy)]
enum Watched {
    Doorbell,
    Listener,
    Silent,
    Dial(usize),
    Link(usize),
}

impl<'a> Forming<'a> {
    fn new(listener: &'a mut Listener, membership: Membership<'_>, now: Instant) -> Result<Self, CollectiveError> {
        let Membership { group, generation, rank, addresses } = membership;
        let mut dials = Vec::with_capacity(rank as usize);
        for address in &addresses[..rank as usize] {
            let resolved = address.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            let addresses = resolved.map_err(|source| io_error("resolve a peer's address", source))?;
            if addresses.is_empty() {
                return Err(CollectiveError::invalid(format!("the address {address} resolves to nothing")));
            }
            dials.push(Dial { addresses, tries: 0, state: DialState::Resting(now) });
        }
        let world = addresses.len() as u32;
        let hello = Hello { group: group.as_bytes().to_vec(), generation, from: rank, to: rank, world };
        Ok(Self { listener, hello, links: addresses.iter().map(|_| None).collect(), dials })
    }

    fn run(&mut self, doorbell: &Doorbell, abort: &AbortHandle, deadline: Deadline) -> Result<(), CollectiveError> {
        let early = std::mem::take(&mut self.listener.early);
        self.admit_all(early)?;
        loop {
            if abort.is_aborted() {
                return Err(CollectiveError::Aborted);
            }
            let now = Instant::now();
            self.start_dials(now);
            let missing = self.missing();
            if missing.is_empty() {
                return Ok(());
            }
            if let (Some(limit), Some(at)) = (deadline.limit, deadline.at)
                && now >= at
            {
                return Err(CollectiveError::TimedOut { operation: deadline.name, limit, waiting_for: missing });
            }
            for watched in self.wait(doorbell, deadline.at).map_err(|source| io_error("wait for peers", source))? {
                match watched {
                    Watched::Doorbell => return Err(CollectiveError::Aborted),
                    Watched::Listener => {
                        self.listener.accept().map_err(|source| io_error("accept a peer's connection", source))?;
                    }
                    // All of them are heard below, the new ones too.
                    Watched::Silent => {}
                    Watched::Dial(rank) => self.continue_dial(rank)?,
                    Watched::Link(rank) => return Err(gave_up(rank as u32)),
                }
            }
            let callers = self.listener.listen_to_silent();
            self.admit_all(callers)?;
        }
    }

    fn missing(&self) -> Vec<u32> {
        let absent = (0..).zip(&self.links).filter(|(rank, link)| link.is_none() && *rank != self.hello.from);
        absent.map(|(rank, _)| rank).collect()
    }

    /// Waits until something happens or a pause or the limit ends, and says what happened.
    fn wait(&self, doorbell: &Doorbell, deadline: Option<Instant>) -> io::Result<Vec<Watched>> {
        let mut watched = vec![Watched::Doorbell, Watched::Listener];
        let mut fds = vec![
            PollFd::from_borrowed_fd(doorbell.reader.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
        ];
        let mut until = deadline;
        for silent in &self.listener.silent {
            watched.push(Watched::Silent);
            fds.push(PollFd::new(silent, PollFlags::IN));
        }
        for (rank, dial) in self.dials.iter().enumerate() {
            let (socket, flags) = match &dial.state {
                DialState::Resting(end) => {
                    until = Some(until.map_or(*end, |until| until.min(*end)));
                    continue;
                }
                DialState::Dialling(socket) => (socket, PollFlags::OUT),
                DialState::Asking(socket, _) => (socket, PollFlags::IN),
                DialState::Done => continue,
            };
            watched.push(Watched::Dial(rank));
            fds.push(PollFd::new(socket, flags));
        }
        for (rank, socket) in self.links.iter().enumerate() {
            if let Some(socket) = socket {
                watched.push(Watched::Link(rank));
                // A peer whose group is complete already may send; only its going away matters here.
                fds.push(PollFd::new(socket, PollFlags::RDHUP));
            }
        }
        poll(&mut fds, until)?;
        let happened = watched.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(happened.map(|(watched, _)| *watched).collect())
    }

    /// Dials every peer whose pause is over.
    fn start_dials(&mut self, now: Instant) {
        for rank in 0..self.dials.len() {
            let dial = &mut self.dials[rank];
            if !matches!(dial.state, DialState::Resting(end) if end <= now) {
                continue;
            }
            let address = dial.addresses[dial.tries % dial.addresses.len()];
            match dial_without_waiting(address) {
                Ok(socket) => dial.state = DialState::Dialling(socket),
                Err(error) => dial.rest(rank, &error),
            }
        }
    }

    /// Takes the next step with a dial whose socket is ready.
    fn continue_dial(&mut self, rank: usize) -> Result<(), CollectiveError> {
        let dial = &mut self.dials[rank];
        match std::mem::replace(&mut dial.state, DialState::Done) {
            DialState::Dialling(socket) => {
                let hello = Hello { to: rank as u32, ..self.hello.clone() };
                match say_hello(&socket, &hello) {
                    Ok(()) => dial.state = DialState::Asking(socket, Vec::new()),
                    Err(error) => dial.rest(rank, &error),
                }
            }
            DialState::Asking(socket, mut answer) => match read_answer(&socket, &mut answer) {
                Ok(None) => dial.state = DialState::Asking(socket, answer),
                Ok(Some((Verdict::Accepted, _))) => self.links[rank] = Some(socket),
                Ok(Some((Verdict::OtherGroup, _))) => {
                    dial.rest(rank, &io::Error::other("the peer forms another group"));
                }
                Ok(Some((Verdict::Older, theirs))) => {
                    return Err(CollectiveError::Stale { ours: self.hello.generation, theirs });
                }
                Ok(Some((Verdict::Contradiction, _))) => {
                    let detail = "it has other members in mind for this generation, or is connected already";
                    return Err(CollectiveError::protocol(rank as u32, detail));
                }
                Err(error) => dial.rest(rank, &error),
            },
            resting_or_done => dial.state = resting_or_done,
        }
        Ok(())
    }

    /// Judges all callers, so that none is lost to an error over another.
    fn admit_all(&mut self, callers: Vec<Caller>) -> Result<(), CollectiveError> {
        let mut newest = None;
        for caller in callers {
            if caller.hello.group == self.hello.group && caller.hello.generation > self.hello.generation {
                newest = newest.max(Some(caller.hello.generation));
                self.listener.keep_early(caller);
            } else {
                self.admit(caller);
            }
        }
        match newest {
            Some(theirs) => Err(CollectiveError::Stale { ours: self.hello.generation, theirs }),
            None => Ok(()),
        }
    }

    fn admit(&mut self, Caller { hello, socket }: Caller) {
        let ours = &self.hello;
        let verdict = if hello.group != ours.group {
            Verdict::OtherGroup
        } else if hello.generation < ours.generation {
            Verdict::Older
        } else {
            let agrees = hello.world == ours.world && hello.to == ours.from;
            let place = self.links.get(hello.from as usize).filter(|_| hello.from > ours.from);
            if agrees && matches!(place, Some(None)) { Verdict::Accepted } else { Verdict::Contradiction }
        };
        // The answer fits into the empty buffer of a new connection, or the connection is broken.
        let sent = (&socket).write(&encode_answer(verdict, ours.generation));
        if verdict == Verdict::Accepted && matches!(sent, Ok(ANSWER_BYTES)) {
            self.links[hello.from as usize] = Some(socket);
        } else {
            debug!(rank = hello.from, generation = hello.generation, ?verdict, "refused a connection");
        }
    }
}

fn gave_up(rank: u32) -> CollectiveError {
    let source = io::Error::new(ErrorKind::UnexpectedEof, "it gave up while the group was forming");
    CollectiveError::PeerLost { rank, source }
}

impl Dial {
    /// Waits a little before the next try.
    fn rest(&mut self, rank: usize, error: &io::Error) {
        debug!(rank, %error, tries = self.tries, "a dial failed");
        let pause = FIRST_PAUSE.saturating_mul(1 << self.tries.min(16)).min(LONGEST_PAUSE);
        self.tries += 1;
        self.state = DialState::Resting(Instant::now() + pause);
    }
}

fn dial_without_waiting(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = new_socket(address)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn say_hello(mut socket: &TcpStream, hello: &Hello) -> io::Result<()> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    // It fits into the empty buffer of a new connection.
    socket.write_all(&hello.encode())
}

/// Reads more of the answer; never beyond it, where the peer's first frame may follow.
fn read_answer(mut socket: &TcpStream, answer: &mut Vec<u8>) -> io::Result<Option<(Verdict, u64)>> {
    let mut buffer = [0; ANSWER_BYTES];
    let missing = ANSWER_BYTES - answer.len();
    match socket.read(&mut buffer[..missing]) {
        Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "hung up without an answer")),
        Ok(read) => answer.extend_from_slice(&buffer[..read]),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(error) => return Err(error),
    }
    match answer.first_chunk() {
        Some(answer) => match decode_answer(answer) {
            Some(verdict) => Ok(Some(verdict)),
            None => Err(io::Error::new(ErrorKind::InvalidData, "the answer is no peer's")),
        },
        None => Ok(None),
    }
}
