//! The training loop of one attempt, around the step.

use std::sync::mpsc::Receiver;

use collective::Background;
use data::Prefetcher;
use domain::batch::{self, BatchPlan};
use domain::engine::{Assignment, AttemptOutcome, Running, StartFrom};
use domain::ids::Step;
use domain::record::{EvalRecord, Position, Record};
use domain::stop::Verdict;
use models::{EvalSums, Gradient};
use tracing::info;

use crate::attempt::Halt;
use crate::checkpoint::{Part, Saver, Written};
use crate::evaluation::Evaluation;
use crate::orders::{Orders, Wish};
use crate::profile::Recorder;
use crate::records::Records;
use crate::reduction::Spare;
use crate::report::Outbox;
use crate::sidecar;
use crate::state::{Job, State, Trial};
use crate::step::Clock;

/// Steps whose batches are prepared ahead: one being taken while the next is made hides the work, a second one evens out.
const STEPS_AHEAD: usize = 2;

/// What a training works with and on.
pub(crate) struct Parts<'a> {
    pub(crate) assignment: &'a Assignment,
    pub(crate) trial: &'a mut Trial,
    pub(crate) group: Background,
    pub(crate) orders: Orders<'a>,
    pub(crate) outbox: &'a Outbox,
    pub(crate) saver: &'a mut Saver,
    pub(crate) recorder: Recorder,
}

/// A formed group at work, as one rank sees it.
pub(crate) struct Training<'a> {
    pub(crate) assignment: &'a Assignment,
    pub(crate) job: &'a Job,
    pub(crate) state: &'a mut State,
    pub(crate) records: &'a mut Records,
    pub(crate) group: Background,
    pub(crate) orders: Orders<'a>,
    pub(crate) outbox: &'a Outbox,
    saver: &'a mut Saver,
    pub(crate) batches: Prefetcher,
    /// The reduced gradient of the step.
    pub(crate) gradient: Gradient,
    pub(crate) spare: Spare,
    pub(crate) clock: Clock,
    pub(crate) recorder: Recorder,
    /// A profile was written.
    pub(crate) is_profiled: bool,
    /// What some rank wished by the end of the last step.
    pub(crate) wish: Wish,
    /// The step after which the trial comes to rest, if that is before its end.
    rest: Option<Step>,
    /// The newest step whose state is saved or being saved.
    saved: Option<Step>,
    /// What becomes of the part saved last.
    writing: Option<Receiver<Written>>,
}

impl<'a> Training<'a> {
    /// Prepares the loop of a group whose members all hold the trial's state.
    pub(crate) fn new(parts: Parts<'a>) -> Result<Self, Halt> {
        let Parts { assignment, trial, group, orders, outbox, saver, recorder } = parts;
        let Trial { job, state, records, generation: _ } = trial;
        let state = state.as_mut().expect("a group forms around a state");
        let position = state.progress.position;
        let owned = batch::split(u64::from(job.plan.micro_batches), group.rank(), group.world());
        let batches = Prefetcher::new(
            job.train.clone(),
            job.plan,
            job.spec.data.augment,
            owned.start as u32..owned.end as u32,
            position.step.0,
            STEPS_AHEAD,
        )
        .map_err(Halt::failed)?;
        let gradient = Gradient::zeros(state.network.layout());
        let saved = match assignment.start {
            StartFrom::Checkpoint { step, .. } if step == position.step => Some(step),
            StartFrom::Checkpoint { .. } | StartFrom::Copy { .. } | StartFrom::Scratch => None,
        };
        Ok(Self {
            assignment,
            job,
            state,
            records,
            group,
            orders,
            outbox,
            saver,
            batches,
            gradient,
            spare: Spare::default(),
            clock: Clock::start(),
            recorder,
            is_profiled: false,
            wish: Wish::default(),
            rest: assignment.until.map(|until| Step(BatchPlan { length: until, ..job.plan }.total_steps())),
            saved,
            writing: None,
        })
    }

    /// Makes steps until the run is over, is stopped, or the group changes.
    pub(crate) fn run(&mut self) -> Result<AttemptOutcome, Halt> {
        loop {
            if self.wish.leave {
                return Err(Halt::Left);
            }
            if self.evaluation_is_due() {
                self.evaluate()?;
            }
            let step = self.step_count();
            if self.is_over() {
                return self.finish(AttemptOutcome::Completed { step });
            }
            if self.is_to_rest() {
                return self.finish(AttemptOutcome::Rested { step });
            }
            if self.wish.stop {
                return self.finish(AttemptOutcome::Stopped { step });
            }
            if self.job.spec.checkpoint.every.is_due(step.0, &self.job.plan) {
                self.save();
            }
            self.clock.pause();
            self.step()?;
        }
    }

    /// Writes the steps that were profiled. That it cannot be done is no reason to end a training.
    pub(crate) fn end_profile(&mut self) {
        let rank = self.group.rank();
        let member = &self.assignment.members[rank as usize];
        let worker = format!("worker {} on {} (pid {})", member.id.short(), member.host, std::process::id());
        match self.recorder.end(&mut self.state.network, rank, worker) {
            None => {}
            Some(Ok(path)) => {
                info!(path = %path.display(), "profile written");
                self.is_profiled = true;
            }
            Some(Err(cause)) => self.log("warn", format!("rank {rank} cannot write its profile: {cause}")),
        }
    }

    /// Rank 0 speaks for the group where all ranks know the same.
    pub(crate) fn is_first(&self) -> bool {
        self.group.rank() == 0
    }

    /// Adds a line to the run's log.
    pub(crate) fn log(&self, level: &str, text: String) {
        self.outbox.log(&self.job.trial, level, text);
    }

    /// Keeps a record until it is durable, and sends it soon.
    pub(crate) fn report(&mut self, record: Record) {
        self.records.push(record);
        if self.is_first() {
            self.records.flush_if_due(self.outbox, &self.job.trial, self.assignment.generation);
        }
        self.outbox.set_running(Some(Running {
            trial: self.job.trial.clone(),
            generation: self.assignment.generation,
            position: self.state.progress.position,
        }));
    }

    fn flush(&mut self) {
        if self.is_first() {
            self.records.flush(self.outbox, &self.job.trial, self.assignment.generation);
        }
    }

    fn step_count(&self) -> Step {
        self.state.progress.position.step
    }

    /// Nothing is left to do: the last step is made, or early stopping has decided so.
    fn is_over(&self) -> bool {
        let made = self.step_count().0 >= self.job.plan.total_steps();
        made || matches!(self.state.progress.verdict, Verdict::Stop(_))
    }

    /// What becomes of the trial is decided after this step.
    fn is_to_rest(&self) -> bool {
        self.rest.is_some_and(|rest| self.step_count() >= rest)
    }

    fn evaluation_is_due(&self) -> bool {
        let Position { step, evaluated } = self.state.progress.position;
        let is_last = step.0 == self.job.plan.total_steps() || self.rest == Some(step);
        !evaluated && (is_last || self.job.spec.eval.every.is_due(step.0, &self.job.plan))
    }

    fn evaluate(&mut self) -> Result<(), Halt> {
        let network = &self.state.network;
        let evaluation = Evaluation { network, holdout: &self.job.holdout, batch: self.job.spec.eval.batch };
        let EvalSums { loss, correct, samples } = evaluation.run(&mut self.group, &self.orders)?;
        let (loss, accuracy) = (loss / samples as f64, correct as f64 / samples as f64);

        let step = self.step_count();
        let progress = &mut self.state.progress;
        progress.verdict = progress.stopper.observe(step, loss, accuracy);
        progress.position.evaluated = true;
        let generation = self.assignment.generation;
        self.report(Record::Eval(EvalRecord { step, generation, loss, accuracy, samples }));
        self.flush();
        Ok(())
    }

    /// Has a copy of the state written, unless this state is written already. The records before it are sent first, so
    /// that a checkpoint is never ahead of them.
    fn save(&mut self) {
        let step = self.step_count();
        if self.saved == Some(step) {
            return;
        }
        self.flush();
        self.writing = Some(self.saver.save(Part {
            url: self.orders.checkpoint_url(),
            trial: self.job.trial.clone(),
            generation: self.assignment.generation,
            step,
            rank: self.group.rank(),
            world: self.group.world(),
            snapshot: self.state.snapshot(),
            metadata: sidecar::write(&self.state.progress, &self.job.identity),
        }));
        self.saved = Some(step);
    }

    /// Saves, and waits until this rank's part is written.
    fn finish(&mut self, outcome: AttemptOutcome) -> Result<AttemptOutcome, Halt> {
        self.flush();
        self.save();
        if let Some(writing) = self.writing.take() {
            let written = writing.recv().unwrap_or_else(|_| Err("the thread that saves has ended".to_owned()));
            written.map_err(|cause| Halt::Failed(format!("cannot save the state at the end: {cause}")))?;
        }
        if let (Verdict::Stop(reason), true) = (&self.state.progress.verdict, self.is_first()) {
            self.log("info", format!("stopped early: {reason}"));
        }
        Ok(outcome)
    }
}
