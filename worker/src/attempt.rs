//! What happens from an assignment to its end.

use collective::{Background, Collective, CollectiveError};
use data::Library;
use domain::engine::{Assignment, AttemptOutcome};
use domain::ids::{Generation, Step, TrialId};
use proto::convert::{Command, Report};
use tokio::runtime::Handle;
use tracing::{error, info, warn};

use crate::agreement::Garbled;
use crate::checkpoint::Saver;
use crate::device::{Inbox, Parts};
use crate::form::{self, Means};
use crate::orders::Orders;
use crate::profile::Recorder;
use crate::report::chain;
use crate::state::Trial;
use crate::step_trace::StepTracer;
use crate::training::{self, Training};

/// Why an attempt ends before the run does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Halt {
    /// Something newer waits.
    Left,
    /// The group cannot go on; another one can.
    Broken(String),
    /// A step's loss or gradient was not finite, and the job says to go back.
    Rollback {
        /// The step whose update is to be left out.
        step: Step,
        /// What was not finite.
        cause: String,
    },
    /// The run cannot go on, on no worker.
    Failed(String),
}

impl Halt {
    /// The run cannot go on because of `cause`.
    pub(crate) fn failed(cause: impl std::error::Error) -> Self {
        Self::Failed(chain(&cause))
    }

    /// A peer sent what it should not.
    pub(crate) fn garbled(cause: Garbled) -> Self {
        Self::Broken(format!("a member of the group is out of step: {cause}"))
    }
}

impl From<CollectiveError> for Halt {
    fn from(cause: CollectiveError) -> Self {
        match cause {
            CollectiveError::Aborted => Self::Left,
            CollectiveError::Invalid { .. } => Self::failed(cause),
            cause => Self::Broken(chain(&cause)),
        }
    }
}

/// Serves one command after another until the worker ends.
pub(crate) fn serve(parts: Parts, inbox: Inbox, saver: Saver, runtime: Handle) {
    let mut device = Device { parts, inbox, saver, runtime, library: Library::default(), trial: None };
    loop {
        match device.inbox.wait() {
            Command::Assign(assignment) => device.attempt(&assignment),
            Command::Release { trial, generation } => device.release(&trial, generation),
            Command::Shutdown => return,
            // A stop is for a group at work; whoever still wants it repeats it to the next one.
            Command::Stop { .. } | Command::Welcome { .. } | Command::Acknowledge { .. } => {}
        }
    }
}

/// The device thread.
struct Device {
    parts: Parts,
    inbox: Inbox,
    saver: Saver,
    runtime: Handle,
    library: Library,
    /// The trial it last worked for, unless that was released.
    trial: Option<Trial>,
}

impl Device {
    /// Takes a place in a group and works in it to the end, and reports that.
    fn attempt(&mut self, assignment: &Assignment) {
        let held = self.trial.as_ref().filter(|trial| trial.job.trial == assignment.trial);
        if held.is_some_and(|trial| trial.generation >= assignment.generation) {
            return;
        }
        let ended = self.open(assignment).and_then(|()| self.work(assignment));
        match ended {
            Ok(outcome) => self.completed(assignment, outcome),
            Err(halt) => self.halted(assignment, halt),
        }
    }

    /// Opens the trial's data, unless they are open.
    fn open(&mut self, assignment: &Assignment) -> Result<(), Halt> {
        if let Some(trial) = &mut self.trial
            && trial.job.trial == assignment.trial
            && trial.job.spec == assignment.spec
        {
            trial.generation = assignment.generation;
            return Ok(());
        }
        self.forget();
        let (trial, origin) = Trial::open(assignment, &mut self.library).map_err(Halt::failed)?;
        let trial = self.trial.insert(trial);
        let text = format!("{} training samples from {origin}", trial.job.plan.samples);
        self.parts.outbox.log(&assignment.trial, "info", text);
        self.parts.outbox.send(Report::DataOpened {
            trial: trial.job.trial.clone(),
            train_samples: trial.job.plan.samples,
            total_steps: trial.job.plan.total_steps(),
        });
        Ok(())
    }

    /// Forms the group and trains in it.
    fn work(&mut self, assignment: &Assignment) -> Result<AttemptOutcome, Halt> {
        let Self { parts, inbox, saver, runtime, trial, library: _ } = self;
        let trial = trial.as_mut().expect("opened before");
        let outbox = &parts.outbox;
        let mut orders = Orders::enter(inbox, assignment);
        let means = Means { ring: &mut parts.ring, offers: &parts.offers, runtime };
        let group = form::form(means, assignment, trial, &mut orders)?;

        let position = trial.position().expect("a group forms around a state");
        outbox.set_running(trial.running());
        let (rank, world, step) = (group.rank(), group.world(), position.step);
        info!(trial = %assignment.trial, generation = %assignment.generation, rank, world, %step, "group formed");
        if rank == 0 {
            let (trial, generation) = (assignment.trial.clone(), assignment.generation);
            outbox.send(Report::Formed { trial, generation, position });
        }
        let group = Background::start(Box::new(group)).map_err(Halt::failed)?;
        let tracer = parts.spans.clone().map(|spans| StepTracer::new(spans, assignment));
        let recorder = Recorder::new(parts.profile.clone(), tracer);
        let mut training =
            Training::new(training::Parts { assignment, trial, group, orders, outbox, saver, recorder })?;
        let ended = training.run();
        training.end_profile();
        if training.is_profiled {
            parts.profile = None;
        }
        ended
    }

    fn completed(&self, assignment: &Assignment, outcome: AttemptOutcome) {
        info!(trial = %assignment.trial, generation = %assignment.generation, ?outcome, "attempt ended");
        if assignment.rank.0 == 0 {
            self.ended(assignment, outcome);
        }
    }

    fn halted(&mut self, assignment: &Assignment, halt: Halt) {
        let (trial, generation) = (assignment.trial.clone(), assignment.generation);
        match halt {
            Halt::Left => info!(%trial, %generation, "left the group"),
            Halt::Broken(cause) => {
                warn!(%trial, %generation, cause, "the group broke");
                self.parts.outbox.send(Report::Broken { trial, generation, cause });
            }
            Halt::Rollback { step, cause } => {
                warn!(%trial, %generation, %step, cause, "going back to the last checkpoint");
                if assignment.rank.0 == 0 {
                    self.flush(assignment);
                    self.parts.outbox.send(Report::RollbackRequested { trial, generation, step, cause });
                }
            }
            Halt::Failed(cause) => {
                error!(%trial, %generation, cause, "the run cannot go on");
                if assignment.rank.0 == 0 {
                    self.flush(assignment);
                }
                let position = self.trial.as_ref().and_then(Trial::position).unwrap_or_default();
                self.ended(assignment, AttemptOutcome::Failed { step: position.step, cause });
                // The next attempt begins from what is on disk, which someone may have repaired by then.
                self.forget();
            }
        }
    }

    fn flush(&mut self, assignment: &Assignment) {
        if let Some(trial) = &mut self.trial {
            trial.records.flush(&self.parts.outbox, &assignment.trial, assignment.generation);
        }
    }

    fn ended(&self, assignment: &Assignment, outcome: AttemptOutcome) {
        let (trial, generation) = (assignment.trial.clone(), assignment.generation);
        self.parts.outbox.send(Report::AttemptEnded { trial, generation, outcome });
    }

    /// Drops what is held of a trial, up to a generation.
    fn release(&mut self, trial: &TrialId, generation: Generation) {
        if self.trial.as_ref().is_some_and(|held| held.job.trial == *trial && held.generation <= generation) {
            info!(%trial, "released");
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.trial = None;
        self.parts.outbox.set_running(None);
    }
}
