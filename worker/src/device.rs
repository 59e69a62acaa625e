//! The thread that all tensors of a worker live on, and the way commands reach it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use collective::AbortHandle;
use domain::ids::{Generation, TrialId, WorkerId};
use proto::convert::Command;
use telemetry::Spans;
use tokio::sync::oneshot;

use crate::attempt;
use crate::checkpoint::Saver;
use crate::peer::Offers;
use crate::profile::Profiling;
use crate::report::Outbox;

/// Backward passes recurse over the graph, some 100 bytes of stack an operation; 64 MiB hold the deepest models.
const STACK_BYTES: usize = 64 << 20;

/// What the device thread owns.
pub(crate) struct Parts {
    pub(crate) ring: collective::ring::Listener,
    pub(crate) offers: Offers,
    pub(crate) outbox: Outbox,
    /// What is still to be profiled.
    pub(crate) profile: Option<Profiling>,
    /// Where what is profiled is told.
    pub(crate) spans: Option<Spans>,
}

/// The device thread while it runs.
pub(crate) struct Device {
    pub(crate) commands: Commands,
    pub(crate) thread: JoinHandle<()>,
    /// Comes to nothing when the thread ends, whyever it does.
    pub(crate) ended: oneshot::Receiver<()>,
}

/// Starts the device thread, and the one that saves for it. Must be called inside a tokio runtime, which they use for
/// their input and output.
pub(crate) fn start(parts: Parts) -> std::io::Result<Device> {
    let (sender, receiver) = channel();
    let shared = Arc::new(Mutex::new(Shared::default()));
    let commands = Commands { sender, shared: shared.clone(), outbox: parts.outbox.clone() };
    let inbox = Inbox { receiver, later: VecDeque::new(), shared };
    let runtime = tokio::runtime::Handle::current();
    let (saving, saver) = Saver::start(parts.outbox.clone(), runtime.clone())?;
    let (alive, ended) = oneshot::channel();
    let work = move || {
        let _alive: oneshot::Sender<()> = alive;
        attempt::serve(parts, inbox, saver, runtime);
        // What was being written is finished; a panic there was reported by the hook.
        let _ = saving.join();
    };
    let thread = std::thread::Builder::new().name("device-cpu".to_owned()).stack_size(STACK_BYTES).spawn(work)?;
    Ok(Device { commands, thread, ended })
}

/// What both sides of the channel see: locked for a few moves of memory only. It is shared, and no message, because the
/// connection must wake the device thread out of a collective whose group no longer exists, when that thread reads none.
#[derive(Default)]
struct Shared {
    checkpoint_url: String,
    in_group: Option<InGroup>,
}

/// The group that the device thread is in, and how to get it out.
struct InGroup {
    trial: TrialId,
    generation: Generation,
    members: Vec<WorkerId>,
    forming: bool,
    abort: AbortHandle,
}

/// The connection's side.
pub(crate) struct Commands {
    sender: Sender<Command>,
    shared: Arc<Mutex<Shared>>,
    outbox: Outbox,
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder of the device's state panics")
    }

    /// Hands a command over, and wakes the device thread if its group cannot finish the step it is in.
    ///
    /// A group that only grows, or from which members leave in good order, is left alone: its members see the command at the
    /// end of the step. A group that lost a member may be waiting for it.
    pub(crate) fn send(&self, command: Command) {
        let shared = self.lock();
        let hopeless = shared.in_group.as_ref().filter(|group| match &command {
            Command::Assign(a) => {
                let newer = a.trial != group.trial || a.generation > group.generation;
                let is_there = |id: &WorkerId| a.members.iter().any(|m| m.id == *id) || a.leaving.contains(id);
                newer && (group.forming || !group.members.iter().all(is_there))
            }
            Command::Release { trial, generation } => *trial == group.trial && *generation >= group.generation,
            Command::Shutdown => true,
            Command::Stop { .. } | Command::Welcome { .. } | Command::Acknowledge { .. } => false,
        });
        let abort = hopeless.map(|group| group.abort.clone());
        // Sent under the lock: a thread that enters a group after this sees the command when it looks, and one that
        // entered before is aborted. A closed channel means that it has ended; there is nobody left to command.
        let _ = self.sender.send(command);
        drop(shared);
        if let Some(abort) = abort {
            abort.abort();
        }
    }

    /// Says where checkpoints are kept.
    pub(crate) fn set_checkpoint_url(&self, url: String) {
        self.lock().checkpoint_url = url;
    }

    /// Ends the device thread after the operation it is in.
    pub(crate) fn shut_down(&self) {
        self.outbox.close();
        self.send(Command::Shutdown);
    }
}

/// The device thread's side.
pub(crate) struct Inbox {
    receiver: Receiver<Command>,
    /// Commands that were read early, before those in the channel.
    later: VecDeque<Command>,
    shared: Arc<Mutex<Shared>>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder of the device's state panics")
    }

    /// The next command; [`Command::Shutdown`] once the connection has ended.
    pub(crate) fn wait(&mut self) -> Command {
        self.later.pop_front().unwrap_or_else(|| self.receiver.recv().unwrap_or(Command::Shutdown))
    }

    /// The next command, if there is one.
    pub(crate) fn poll(&mut self) -> Option<Command> {
        self.later.pop_front().or_else(|| match self.receiver.try_recv() {
            Ok(command) => Some(command),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Command::Shutdown),
        })
    }

    /// Takes commands back that were read before their turn.
    pub(crate) fn put_back(&mut self, mut commands: VecDeque<Command>) {
        commands.append(&mut self.later);
        self.later = commands;
    }

    /// Where checkpoints are kept.
    pub(crate) fn checkpoint_url(&self) -> String {
        self.lock().checkpoint_url.clone()
    }

    /// Says that the thread is about to form a group, so that newer commands can get it out.
    pub(crate) fn enter(&self, trial: &TrialId, generation: Generation, members: Vec<WorkerId>, abort: &AbortHandle) {
        let group = InGroup { trial: trial.clone(), generation, members, forming: true, abort: abort.clone() };
        self.lock().in_group = Some(group);
    }

    /// Says that the group has formed.
    pub(crate) fn formed(&self) {
        if let Some(group) = &mut self.lock().in_group {
            group.forming = false;
        }
    }

    /// Says that the thread is in no group.
    pub(crate) fn leave(&self) {
        self.lock().in_group = None;
    }
}
