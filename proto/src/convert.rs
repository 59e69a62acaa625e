//! Wire to domain and back. The only such place: a field added on either side fails to compile here until it is handled.

use domain::engine::{Assignment, AttemptOutcome, Running, WorkerInfo};
use domain::ids::{Generation, Step, TrialId, WorkerId};
use domain::inspection::Inspection;
use domain::record::{EvalRecord, LedgerStep, Pace, Position, Read, Record, SavedPart, StepRecord, Vitals};
use domain::spec::JobSpec;
use domain::spec::file::STEPS_MAX;
use domain::view::WorkerView;

use crate::v1;

mod assignment;
mod inspection;
mod run;
mod sweep;

use self::assignment::{assignment_from_wire, assignment_to_wire};
pub use self::inspection::{inspection_bytes, inspection_from_wire, inspection_to_wire};
pub use self::run::{EVALS_SHOWN_MAX, run_to_wire};
pub use self::sweep::{
    effort_to_wire, fact_from_json, fact_to_json, importances_to_wire, saved_to_wire, sweep_spec_from_json,
    sweep_spec_to_json, sweep_to_wire, sweep_trial_to_wire,
};

/// Why a message does not hold together.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be set is not.
    #[error("{message}.{field} is missing")]
    Missing {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field holds what it must not.
    #[error("{message}.{field} is not valid: {cause}")]
    Invalid {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        cause: String,
    },
}

fn missing(message: &'static str, field: &'static str) -> ConvertError {
    ConvertError::Missing { message, field }
}

fn trial(message: &'static str, text: &str) -> Result<TrialId, ConvertError> {
    text.parse().map_err(|e: domain::ids::TrialIdError| ConvertError::Invalid {
        message,
        field: "trial",
        cause: e.to_string(),
    })
}

/// The canonical JSON form of a specification.
pub fn spec_to_json(spec: &JobSpec) -> String {
    serde_json::to_string(spec).expect("a specification has only string keys and finite numbers")
}

/// Reads the canonical JSON form of a specification.
pub fn spec_from_json(json: &str) -> Result<JobSpec, ConvertError> {
    serde_json::from_str(json).map_err(|e| ConvertError::Invalid {
        message: "Job",
        field: "spec_json",
        cause: e.to_string(),
    })
}

/// What a worker reports, without its sequence number.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// First on every stream.
    Hello {
        /// The worker.
        worker: WorkerInfo,
        /// What it is in the middle of.
        running: Option<Running>,
    },
    /// A sign of life.
    Heartbeat(Vitals),
    /// The group is connected.
    Formed {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The state all members hold.
        position: Position,
    },
    /// This worker cannot go on in its generation.
    Broken {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// What was seen.
        cause: String,
    },
    /// Completed work.
    Records {
        /// The trial.
        trial: TrialId,
        /// The sender's generation.
        generation: Generation,
        /// The work, oldest first.
        records: Vec<Record>,
    },
    /// A part of a checkpoint is durable.
    PartSaved {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The part.
        part: SavedPart,
    },
    /// A part of a checkpoint could not be written.
    PartFailed {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The step.
        step: Step,
        /// Why.
        cause: String,
    },
    /// Go back to the last checkpoint and leave out one update.
    RollbackRequested {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The step to leave out.
        step: Step,
        /// What was not finite.
        cause: String,
    },
    /// Nothing is left to do, or nothing can be done.
    AttemptEnded {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// How.
        outcome: AttemptOutcome,
    },
    /// Lines for the run's log: level and text, with the time in milliseconds.
    Logs {
        /// The trial.
        trial: TrialId,
        /// The lines.
        lines: Vec<LogLine>,
    },
    /// The worker leaves.
    Goodbye,
    /// The worker has opened the data.
    DataOpened {
        /// The trial.
        trial: TrialId,
        /// Training samples.
        train_samples: u64,
        /// Steps of the whole run.
        total_steps: u64,
    },
    /// The inside of the model at a step.
    Inspected {
        /// The trial.
        trial: TrialId,
        /// What was seen.
        inspection: Box<Inspection>,
    },
}

/// A line that a worker wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What happened.
    pub text: String,
}

/// What a coordinator tells a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// First on every stream.
    Welcome {
        /// The lease.
        lease_ms: u64,
        /// Where checkpoints are kept.
        checkpoint_url: String,
    },
    /// Take a place in a group.
    Assign(Box<Assignment>),
    /// Bring the group to a stop.
    Stop {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
    },
    /// Drop a trial.
    Release {
        /// The trial.
        trial: TrialId,
        /// Everything up to this generation.
        generation: Generation,
    },
    /// Reports up to this sequence number are durable.
    Acknowledge {
        /// The number.
        sequence: u64,
    },
    /// End the process.
    Shutdown,
}

/// A report from the wire.
pub fn report_from_wire(report: v1::Report) -> Result<Report, ConvertError> {
    use v1::report::Body;
    let v1::Report { sequence: _, body } = report;
    Ok(match body.ok_or_else(|| missing("Report", "body"))? {
        Body::Hello(v1::Hello { worker, running }) => Report::Hello {
            worker: worker_from_wire(worker.ok_or_else(|| missing("Hello", "worker"))?),
            running: running.map(running_from_wire).transpose()?,
        },
        Body::Heartbeat(v1::Heartbeat { resident_bytes, pace }) => {
            let pace = pace.map(|v1::Pace { data, passes, reduce, agree, update, report }| Pace {
                data,
                passes,
                reduce,
                agree,
                update,
                report,
            });
            Report::Heartbeat(Vitals { resident_bytes, pace })
        }
        Body::Formed(v1::Formed { trial: id, generation, position }) => Report::Formed {
            trial: trial("Formed", &id)?,
            generation: Generation(generation),
            position: bounded_position("Formed", position)?,
        },
        Body::Broken(v1::Broken { trial: id, generation, cause }) => {
            Report::Broken { trial: trial("Broken", &id)?, generation: Generation(generation), cause }
        }
        Body::Records(v1::Records { trial: id, generation, records }) => Report::Records {
            trial: trial("Records", &id)?,
            generation: Generation(generation),
            records: records.into_iter().map(record_from_wire).collect::<Result<_, _>>()?,
        },
        Body::PartSaved(v1::PartSaved { trial: id, generation, part }) => Report::PartSaved {
            trial: trial("PartSaved", &id)?,
            generation: Generation(generation),
            part: part_from_wire(part.ok_or_else(|| missing("PartSaved", "part"))?)?,
        },
        Body::PartFailed(v1::PartFailed { trial: id, generation, step, cause }) => Report::PartFailed {
            trial: trial("PartFailed", &id)?,
            generation: Generation(generation),
            step: bounded_step("PartFailed", step, 0)?,
            cause,
        },
        Body::RollbackRequested(v1::RollbackRequested { trial: id, generation, step, cause }) => {
            Report::RollbackRequested {
                trial: trial("RollbackRequested", &id)?,
                generation: Generation(generation),
                step: bounded_step("RollbackRequested", step, 0)?,
                cause,
            }
        }
        Body::AttemptEnded(ended) => attempt_ended_from_wire(ended)?,
        Body::Logs(v1::Logs { trial: id, lines }) => {
            Report::Logs { trial: trial("Logs", &id)?, lines: lines.into_iter().map(log_line_from_wire).collect() }
        }
        Body::Goodbye(v1::Goodbye {}) => Report::Goodbye,
        Body::DataOpened(v1::DataOpened { trial: id, train_samples, total_steps }) => Report::DataOpened {
            trial: trial("DataOpened", &id)?,
            train_samples: storable("DataOpened", "train_samples", train_samples)?,
            total_steps: storable("DataOpened", "total_steps", total_steps)?,
        },
        Body::Inspected(v1::Inspected { trial: id, inspection }) => Report::Inspected {
            trial: trial("Inspected", &id)?,
            inspection: Box::new(inspection_from_wire(inspection.ok_or_else(|| missing("Inspected", "inspection"))?)?),
        },
    })
}

fn attempt_ended_from_wire(ended: v1::AttemptEnded) -> Result<Report, ConvertError> {
    let v1::AttemptEnded { trial: id, generation, step, outcome, cause } = ended;
    let step = bounded_step("AttemptEnded", step, 0)?;
    let outcome = match v1::AttemptOutcome::try_from(outcome) {
        Ok(v1::AttemptOutcome::Completed) => AttemptOutcome::Completed { step },
        Ok(v1::AttemptOutcome::Stopped) => AttemptOutcome::Stopped { step },
        Ok(v1::AttemptOutcome::Rested) => AttemptOutcome::Rested { step },
        Ok(v1::AttemptOutcome::Failed) => AttemptOutcome::Failed { step, cause },
        Ok(v1::AttemptOutcome::Unspecified) | Err(_) => return Err(missing("AttemptEnded", "outcome")),
    };
    Ok(Report::AttemptEnded { trial: trial("AttemptEnded", &id)?, generation: Generation(generation), outcome })
}

fn log_line_from_wire(line: v1::LogLine) -> LogLine {
    let v1::LogLine { sequence: _, at_ms, source: _, level, text } = line;
    LogLine { at_ms, level, text }
}

/// A report for the wire, as number `sequence` of the worker's session.
pub fn report_to_wire(sequence: u64, report: Report) -> v1::Report {
    use v1::report::Body;
    let body = match report {
        Report::Hello { worker, running } => Body::Hello(v1::Hello {
            worker: Some(worker_to_wire(&worker)),
            running: running.map(|Running { trial, generation, position }| v1::Running {
                trial: trial.to_string(),
                generation: generation.0,
                position: Some(position_to_wire(position)),
            }),
        }),
        Report::Heartbeat(Vitals { resident_bytes, pace }) => {
            let pace = pace.map(|Pace { data, passes, reduce, agree, update, report }| v1::Pace {
                data,
                passes,
                reduce,
                agree,
                update,
                report,
            });
            Body::Heartbeat(v1::Heartbeat { resident_bytes, pace })
        }
        Report::Formed { trial, generation, position } => Body::Formed(v1::Formed {
            trial: trial.to_string(),
            generation: generation.0,
            position: Some(position_to_wire(position)),
        }),
        Report::Broken { trial, generation, cause } => {
            Body::Broken(v1::Broken { trial: trial.to_string(), generation: generation.0, cause })
        }
        Report::Records { trial, generation, records } => Body::Records(v1::Records {
            trial: trial.to_string(),
            generation: generation.0,
            records: records.into_iter().map(record_to_wire).collect(),
        }),
        Report::PartSaved { trial, generation, part } => Body::PartSaved(v1::PartSaved {
            trial: trial.to_string(),
            generation: generation.0,
            part: Some(part_to_wire(part)),
        }),
        Report::PartFailed { trial, generation, step, cause } => {
            Body::PartFailed(v1::PartFailed { trial: trial.to_string(), generation: generation.0, step: step.0, cause })
        }
        Report::RollbackRequested { trial, generation, step, cause } => {
            Body::RollbackRequested(v1::RollbackRequested {
                trial: trial.to_string(),
                generation: generation.0,
                step: step.0,
                cause,
            })
        }
        Report::AttemptEnded { trial, generation, outcome } => {
            let (step, outcome, cause) = match outcome {
                AttemptOutcome::Completed { step } => (step, v1::AttemptOutcome::Completed, String::new()),
                AttemptOutcome::Stopped { step } => (step, v1::AttemptOutcome::Stopped, String::new()),
                AttemptOutcome::Rested { step } => (step, v1::AttemptOutcome::Rested, String::new()),
                AttemptOutcome::Failed { step, cause } => (step, v1::AttemptOutcome::Failed, cause),
            };
            Body::AttemptEnded(v1::AttemptEnded {
                trial: trial.to_string(),
                generation: generation.0,
                step: step.0,
                outcome: outcome.into(),
                cause,
            })
        }
        Report::Logs { trial, lines } => Body::Logs(v1::Logs {
            trial: trial.to_string(),
            lines: lines
                .into_iter()
                .map(|LogLine { at_ms, level, text }| v1::LogLine {
                    sequence: 0,
                    at_ms,
                    source: String::new(),
                    level,
                    text,
                })
                .collect(),
        }),
        Report::Goodbye => Body::Goodbye(v1::Goodbye {}),
        Report::DataOpened { trial, train_samples, total_steps } => {
            Body::DataOpened(v1::DataOpened { trial: trial.to_string(), train_samples, total_steps })
        }
        Report::Inspected { trial, inspection } => Body::Inspected(v1::Inspected {
            trial: trial.to_string(),
            inspection: Some(inspection_to_wire(*inspection)),
        }),
    };
    v1::Report { sequence, body: Some(body) }
}

/// A command from the wire.
pub fn command_from_wire(command: v1::Command) -> Result<Command, ConvertError> {
    use v1::command::Body;
    let v1::Command { body } = command;
    Ok(match body.ok_or_else(|| missing("Command", "body"))? {
        Body::Welcome(v1::Welcome { lease_ms, checkpoint_url }) => Command::Welcome { lease_ms, checkpoint_url },
        Body::Assign(assign) => Command::Assign(Box::new(assignment_from_wire(assign)?)),
        Body::Stop(v1::Stop { trial: id, generation }) => {
            Command::Stop { trial: trial("Stop", &id)?, generation: Generation(generation) }
        }
        Body::Release(v1::Release { trial: id, generation }) => {
            Command::Release { trial: trial("Release", &id)?, generation: Generation(generation) }
        }
        Body::Acknowledge(v1::Acknowledge { sequence }) => Command::Acknowledge { sequence },
        Body::Shutdown(v1::Shutdown {}) => Command::Shutdown,
    })
}

/// A command for the wire.
pub fn command_to_wire(command: Command) -> v1::Command {
    use v1::command::Body;
    let body = match command {
        Command::Welcome { lease_ms, checkpoint_url } => Body::Welcome(v1::Welcome { lease_ms, checkpoint_url }),
        Command::Assign(assignment) => Body::Assign(assignment_to_wire(&assignment)),
        Command::Stop { trial, generation } => {
            Body::Stop(v1::Stop { trial: trial.to_string(), generation: generation.0 })
        }
        Command::Release { trial, generation } => {
            Body::Release(v1::Release { trial: trial.to_string(), generation: generation.0 })
        }
        Command::Acknowledge { sequence } => Body::Acknowledge(v1::Acknowledge { sequence }),
        Command::Shutdown => Body::Shutdown(v1::Shutdown {}),
    };
    v1::Command { body: Some(body) }
}

fn worker_from_wire(worker: v1::Worker) -> WorkerInfo {
    let v1::Worker { id, host, pid, device, peer_address, ring_address, connected: _, run: _, draining: _ } = worker;
    WorkerInfo { id: WorkerId(id), host, pid, device, peer_address, ring_address }
}

fn worker_to_wire(worker: &WorkerInfo) -> v1::Worker {
    let WorkerInfo { id, host, pid, device, peer_address, ring_address } = worker;
    v1::Worker {
        id: id.0,
        host: host.clone(),
        pid: *pid,
        device: device.clone(),
        peer_address: peer_address.clone(),
        ring_address: ring_address.clone(),
        connected: true,
        run: String::new(),
        draining: false,
    }
}

/// A worker as people see it.
pub fn worker_view_to_wire(view: &WorkerView) -> v1::Worker {
    let WorkerView { info, connected, run, draining } = view;
    v1::Worker {
        connected: *connected,
        run: run.as_ref().map(ToString::to_string).unwrap_or_default(),
        draining: *draining,
        ..worker_to_wire(info)
    }
}

fn running_from_wire(running: v1::Running) -> Result<Running, ConvertError> {
    let v1::Running { trial: id, generation, position } = running;
    Ok(Running {
        trial: trial("Running", &id)?,
        generation: Generation(generation),
        position: bounded_position("Running", position)?,
    })
}

/// A position from the wire.
pub fn position_from_wire(position: v1::Position) -> Position {
    let v1::Position { step, evaluated } = position;
    Position { step: Step(step), evaluated }
}

/// A position for the wire.
pub fn position_to_wire(position: Position) -> v1::Position {
    let Position { step, evaluated } = position;
    v1::Position { step: step.0, evaluated }
}

/// A record from the wire.
pub fn record_from_wire(record: v1::Record) -> Result<Record, ConvertError> {
    use v1::record::Body;
    let v1::Record { body } = record;
    Ok(match body.ok_or_else(|| missing("Record", "body"))? {
        Body::Step(v1::StepRecord { point, reads }) => {
            let point = point.ok_or_else(|| missing("StepRecord", "point"))?;
            let v1::StepPoint {
                step,
                generation,
                loss,
                grad_norm,
                lr,
                skipped,
                micros,
                micros_outside_model,
                samples: _,
            } = point;
            Record::Step(StepRecord {
                step: bounded_step("StepPoint", step, 1)?,
                generation: Generation(storable("StepPoint", "generation", generation)?),
                loss,
                grad_norm,
                lr,
                skipped,
                micros: storable("StepPoint", "micros", micros)?,
                micros_outside_model: storable("StepPoint", "micros_outside_model", micros_outside_model)?,
                reads: reads.into_iter().map(read_from_wire).collect(),
            })
        }
        Body::Eval(v1::EvalPoint { step, generation, loss, accuracy, samples }) => {
            let step = bounded_step("EvalPoint", step, 0)?;
            let generation = Generation(storable("EvalPoint", "generation", generation)?);
            let samples = storable("EvalPoint", "samples", samples)?;
            Record::Eval(EvalRecord { step, generation, loss, accuracy, samples })
        }
    })
}

/// A step no longer than any run, so that arithmetic with it cannot overflow and every store can hold it.
fn bounded_step(message: &'static str, step: u64, least: u64) -> Result<Step, ConvertError> {
    bounded(message, "step", step, least, STEPS_MAX).map(Step)
}

fn bounded_position(message: &'static str, position: Option<v1::Position>) -> Result<Position, ConvertError> {
    let position = position_from_wire(position.ok_or_else(|| missing(message, "position"))?);
    bounded_step(message, position.step.0, 0)?;
    Ok(position)
}

/// A number that every store can hold.
fn storable(message: &'static str, field: &'static str, value: u64) -> Result<u64, ConvertError> {
    bounded(message, field, value, 0, i64::MAX as u64)
}

fn bounded(message: &'static str, field: &'static str, value: u64, least: u64, most: u64) -> Result<u64, ConvertError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConvertError::Invalid { message, field, cause: format!("{value} must be {least} to {most}") })
}

/// A record for the wire.
pub fn record_to_wire(record: Record) -> v1::Record {
    use v1::record::Body;
    let body = match record {
        Record::Step(step) => {
            Body::Step(v1::StepRecord { point: Some(step_point_to_wire(&step)), reads: reads_to_wire(step.reads) })
        }
        Record::Eval(eval) => Body::Eval(eval_point_to_wire(&eval)),
    };
    v1::Record { body: Some(body) }
}

/// Bytes that a record takes in a message, at most: those who send many cut them by this.
pub fn record_bytes_max(record: &Record) -> usize {
    // A message's own tag and length, and the fields around the samples; the numbers alone are of any length.
    const RECORD_BYTES: usize = 128;
    const READ_BYTES: usize = 32;
    match record {
        Record::Eval(_) => RECORD_BYTES,
        Record::Step(step) => {
            let of_read = |read: &Read| READ_BYTES + read.samples.iter().map(|s| varint_bytes(*s)).sum::<usize>();
            RECORD_BYTES + step.reads.iter().map(of_read).sum::<usize>()
        }
    }
}

/// Seven bits a byte, and one byte at least.
fn varint_bytes(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

fn read_from_wire(read: v1::SampleRead) -> Read {
    let v1::SampleRead { micro_batch, worker, samples } = read;
    Read { micro_batch, worker: WorkerId(worker), samples }
}

/// Lines of the ledger for the wire.
pub fn reads_to_wire(reads: Vec<Read>) -> Vec<v1::SampleRead> {
    reads
        .into_iter()
        .map(|Read { micro_batch, worker, samples }| v1::SampleRead { micro_batch, worker: worker.0, samples })
        .collect()
}

/// A step of the ledger for the wire.
pub fn ledger_step_to_wire(line: LedgerStep) -> v1::LedgerStep {
    let LedgerStep { step, generation, rolled_back, reads } = line;
    v1::LedgerStep { step: step.0, generation: generation.0, rolled_back, reads: reads_to_wire(reads) }
}

/// A step of the ledger from the wire.
pub fn ledger_step_from_wire(line: v1::LedgerStep) -> LedgerStep {
    let v1::LedgerStep { step, generation, rolled_back, reads } = line;
    LedgerStep {
        step: Step(step),
        generation: Generation(generation),
        rolled_back,
        reads: reads.into_iter().map(read_from_wire).collect(),
    }
}

/// The figures of a step for the wire.
pub fn step_point_to_wire(record: &StepRecord) -> v1::StepPoint {
    let StepRecord { step, generation, loss, grad_norm, lr, skipped, micros, micros_outside_model, reads } = record;
    v1::StepPoint {
        step: step.0,
        generation: generation.0,
        loss: *loss,
        grad_norm: *grad_norm,
        lr: *lr,
        skipped: *skipped,
        micros: *micros,
        micros_outside_model: *micros_outside_model,
        samples: reads.iter().map(|r| r.samples.len() as u64).sum(),
    }
}

/// An evaluation for the wire.
pub fn eval_point_to_wire(record: &EvalRecord) -> v1::EvalPoint {
    let EvalRecord { step, generation, loss, accuracy, samples } = record;
    v1::EvalPoint { step: step.0, generation: generation.0, loss: *loss, accuracy: *accuracy, samples: *samples }
}

fn part_from_wire(part: v1::Part) -> Result<SavedPart, ConvertError> {
    let v1::Part { step, rank, world, path, bytes, blake3, weights_sha256 } = part;
    let (step, bytes) = (bounded_step("Part", step, 0)?, storable("Part", "bytes", bytes)?);
    Ok(SavedPart { step, rank, world, path, bytes, blake3, weights_sha256 })
}

fn part_to_wire(part: SavedPart) -> v1::Part {
    let SavedPart { step, rank, world, path, bytes, blake3, weights_sha256 } = part;
    v1::Part { step: step.0, rank, world, path, bytes, blake3, weights_sha256 }
}

#[cfg(test)]
mod tests;
