use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    status: StatusCode,
    error: String,
    hint: Option<String>,
}

/// The longest message, in bytes. Some repeat what was asked for.
const TEXT_BYTES_MAX: usize = 1_000;

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What is wrong.
    error: String,
    /// What to do about it.
    hint: Option<String>,
}

impl Failure {
    /// With a status for programs, and words for people.
    pub fn new(status: StatusCode, error: impl Into<String>, hint: Option<String>) -> Self {
        Self { status, error: error.into(), hint }
    }

    /// As [`Failure::new`], from an error that may have its hint on a line of its own.
    pub fn told(status: StatusCode, message: &str) -> Self {
        match message.split_once("\nhint: ") {
            Some((error, hint)) => Self::new(status, error, Some(hint.to_owned())),
            None => Self::new(status, message, None),
        }
    }

    /// The request makes no sense.
    pub(crate) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, None)
    }

    /// With a way out.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        Self { hint: Some(hint.to_owned()), ..self }
    }

    /// There is no such thing.
    pub(crate) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, None)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let cut = |mut text: String| {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text
        };
        let problem = Problem { error: cut(self.error), hint: self.hint.map(cut) };
        (self.status, Json(problem)).into_response()
    }
}
