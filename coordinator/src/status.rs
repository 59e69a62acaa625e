//! The one place where gRPC codes are chosen, and from them those of HTTP.

use std::error::Error;
use std::fmt::Write;

use dashboard::{Failure, StatusCode};
use domain::engine::Refusal;
use domain::ids::{RunName, Step};
use domain::spec::check::Inconsistent;
use proto::convert::ConvertError;
use store::{CheckpointError, StoreError};
use tonic::{Code, Status};

use crate::driver::RequestError;

/// A user's request was not taken.
pub(crate) fn of_request(error: &RequestError) -> Status {
    match error {
        RequestError::Refused(refusal) => of_refusal(refusal),
        RequestError::Store(error) => of_store(error),
        RequestError::Stalled => Status::resource_exhausted(error.to_string()),
        RequestError::Ending => Status::unavailable(error.to_string()),
    }
}

fn of_refusal(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::RunLive { .. } | Refusal::RunEnded { .. } | Refusal::NameOfSweep { .. } => {
            Status::already_exists(message)
        }
        Refusal::NoSuchRun { .. }
        | Refusal::NoEarlierSweep { .. }
        | Refusal::NoSuchCheckpoint { .. }
        | Refusal::NoSuchWorker { .. } => Status::not_found(message),
        Refusal::PriorityOutOfRange { .. } => Status::invalid_argument(message),
        Refusal::NotLive { .. }
        | Refusal::NotResumable { .. }
        | Refusal::PartOfSweep { .. }
        | Refusal::SweepNotLive { .. }
        | Refusal::SweepNotResumable { .. } => Status::failed_precondition(message),
    }
}

/// The same for HTTP.
pub(crate) fn failure(status: &Status) -> Failure {
    let code = match status.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::INSUFFICIENT_STORAGE,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure::told(code, status.message())
}

/// The store did not do what it was asked.
pub(crate) fn of_store(error: &StoreError) -> Status {
    let message = chain(error);
    match error {
        StoreError::DiskFull { .. } => Status::resource_exhausted(message),
        StoreError::NotJournalable { .. } | StoreError::TooLarge { .. } => Status::invalid_argument(message),
        StoreError::Damaged { .. }
        | StoreError::DamagedRecord { .. }
        | StoreError::DamagedInspection { .. }
        | StoreError::JournalGap { .. }
        | StoreError::JournalRow { .. } => Status::data_loss(message),
        StoreError::Io { .. } | StoreError::Closed => Status::unavailable(message),
        StoreError::InUse { .. }
        | StoreError::Open { .. }
        | StoreError::Folder { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::Foreign { .. }
        | StoreError::Sqlite { .. } => Status::internal(message),
    }
}

/// A checkpoint cannot be given out.
pub(crate) fn of_checkpoint(error: &CheckpointError) -> Status {
    let message = chain(error);
    match error {
        CheckpointError::Missing { .. }
        | CheckpointError::NotPlain { .. }
        | CheckpointError::Length { .. }
        | CheckpointError::TooLong { .. }
        | CheckpointError::Hash { .. }
        | CheckpointError::Manifest { .. }
        | CheckpointError::Conflict { .. }
        | CheckpointError::Safetensors { .. }
        | CheckpointError::Parts { .. } => Status::data_loss(message),
        CheckpointError::NoSpace { .. } => Status::resource_exhausted(message),
        CheckpointError::Access { .. } | CheckpointError::Write { .. } => Status::unavailable(message),
        CheckpointError::Url { .. } | CheckpointError::Open { .. } | CheckpointError::Path { .. } => {
            Status::internal(message)
        }
    }
}

/// A message does not hold together.
pub(crate) fn of_message(error: &ConvertError) -> Status {
    Status::invalid_argument(chain(error))
}

/// A specification does not hold together.
pub(crate) fn of_spec(error: &Inconsistent) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A name is not one.
pub(crate) fn of_name(error: &domain::ids::RunNameError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// There is no such run.
pub(crate) fn no_run(run: &RunName) -> Status {
    of_refusal(&Refusal::NoSuchRun { run: run.clone() })
}

/// There is no such sweep.
pub(crate) fn no_sweep(sweep: &RunName) -> Status {
    Status::not_found(format!("there is no sweep {sweep}\nhint: `phalanx list` shows all"))
}

/// There is no such checkpoint.
pub(crate) fn no_checkpoint(run: &RunName, step: Option<u64>) -> Status {
    match step {
        Some(step) => of_refusal(&Refusal::NoSuchCheckpoint { run: run.clone(), step: Step(step) }),
        None => Status::not_found(format!("run {run} has no checkpoint yet")),
    }
}

/// A worker broke the protocol.
pub(crate) fn out_of_order(cause: String) -> Status {
    Status::invalid_argument(cause)
}

/// A worker connected and said nothing.
pub(crate) fn no_hello(limit_s: u64) -> Status {
    Status::deadline_exceeded(format!("no Hello within {limit_s} s"))
}

/// The coordinator is going away.
pub(crate) fn ending() -> Status {
    Status::unavailable("the coordinator is shutting down")
}

fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        // Writing to a string cannot fail.
        let _ = write!(message, ": {source}");
        next = source.source();
    }
    message
}
