//! The commands that reach a worker in the middle of an attempt, sorted by what they mean for it.

use std::collections::VecDeque;

use collective::AbortHandle;
use domain::engine::Assignment;
use domain::ids::{Generation, TrialId};
use proto::convert::Command;

use crate::device::Inbox;

/// What the commands so far ask of the attempt.
pub(crate) struct Orders<'a> {
    inbox: &'a mut Inbox,
    trial: TrialId,
    generation: Generation,
    abort: AbortHandle,
    stop: bool,
    /// Commands that are for after the attempt, in order.
    later: VecDeque<Command>,
}

/// What a rank wishes at the end of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The run is to stop, saved.
    pub(crate) stop: bool,
    /// Something newer waits.
    pub(crate) leave: bool,
}

impl<'a> Orders<'a> {
    /// Takes note of the attempt at `assignment`, so that from now on a command that makes it hopeless aborts it.
    pub(crate) fn enter(inbox: &'a mut Inbox, assignment: &Assignment) -> Self {
        let (trial, generation, abort) = (assignment.trial.clone(), assignment.generation, AbortHandle::new());
        inbox.enter(&trial, generation, assignment.members.iter().map(|m| m.id).collect(), &abort);
        Self { inbox, trial, generation, abort, stop: false, later: VecDeque::new() }
    }

    /// The handle that ends the attempt's collective operations.
    pub(crate) fn abort(&self) -> &AbortHandle {
        &self.abort
    }

    /// Whether the attempt cannot be finished: its group no longer exists.
    pub(crate) fn is_aborted(&self) -> bool {
        self.abort.is_aborted()
    }

    /// The group has formed: from now on its members leave it together.
    pub(crate) fn formed(&self) {
        self.inbox.formed();
    }

    /// Where checkpoints are kept.
    pub(crate) fn checkpoint_url(&self) -> String {
        self.inbox.checkpoint_url()
    }

    /// Reads the commands that have come.
    pub(crate) fn look(&mut self) -> Wish {
        while let Some(command) = self.inbox.poll() {
            self.sort(command);
        }
        Wish { stop: self.stop, leave: !self.later.is_empty() }
    }

    fn sort(&mut self, command: Command) {
        let is_of_this = |trial: &TrialId| *trial == self.trial;
        match command {
            Command::Stop { trial, generation } if is_of_this(&trial) && generation == self.generation => {
                self.stop = true;
            }
            Command::Assign(again) if is_of_this(&again.trial) && again.generation <= self.generation => {}
            Command::Release { trial, generation } if is_of_this(&trial) && generation >= self.generation => {
                self.later.push_back(Command::Release { trial, generation });
            }
            later @ (Command::Assign(_) | Command::Shutdown) => self.later.push_back(later),
            // About something that is not held here, unless an assignment came before it.
            other @ (Command::Stop { .. } | Command::Release { .. }) => {
                if !self.later.is_empty() {
                    self.later.push_back(other);
                }
            }
            Command::Welcome { .. } | Command::Acknowledge { .. } => {}
        }
    }
}

impl Drop for Orders<'_> {
    fn drop(&mut self) {
        self.inbox.leave();
        self.inbox.put_back(std::mem::take(&mut self.later));
    }
}
