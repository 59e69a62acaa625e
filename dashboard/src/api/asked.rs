//! What a request says, or a refusal in the form of all others.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use domain::ids::{RunName, Step, WorkerId};
use serde::de::DeserializeOwned;

use crate::Failure;

/// The query of a request.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => Err(Failure::bad_request(error.body_text())),
            Err(other) => Err(Failure::bad_request(other.body_text())),
        }
    }
}

/// The run or sweep that the path of a request names.
#[derive(Debug)]
pub(crate) struct Named(pub(crate) RunName);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|rejection: PathRejection| Failure::bad_request(rejection.body_text()))?;
        RunName::new(name).map(Self).map_err(|error| Failure::bad_request(error.to_string()))
    }
}

/// The run and the step that the path of a request names.
#[derive(Debug)]
pub(crate) struct NamedStep(pub(crate) RunName, pub(crate) Step);

impl<S: Send + Sync> FromRequestParts<S> for NamedStep {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<(String, u64)>::from_request_parts(parts, state).await;
        let Path((name, step)) =
            path.map_err(|rejection: PathRejection| Failure::bad_request(rejection.body_text()))?;
        let name = RunName::new(name).map_err(|error| Failure::bad_request(error.to_string()))?;
        Ok(Self(name, Step(step)))
    }
}

/// The worker that the path of a request names, by its id in full.
#[derive(Debug)]
pub(crate) struct TheWorker(pub(crate) WorkerId);

impl<S: Send + Sync> FromRequestParts<S> for TheWorker {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|rejection: PathRejection| Failure::bad_request(rejection.body_text()))?;
        let is_id = id.len() == WORKER_ID_DIGITS && id.bytes().all(|digit| digit.is_ascii_hexdigit());
        match u64::from_str_radix(&id, 16) {
            Ok(number) if is_id => Ok(Self(WorkerId(number))),
            _ => Err(Failure::bad_request("a worker is named by the sixteen hexadecimal digits of its id")),
        }
    }
}

/// As many as the id of a worker has where it is shown.
const WORKER_ID_DIGITS: usize = 16;
