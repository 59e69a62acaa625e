//! How a command ends: [`Exit`] if it ran, [`Failure`] if it could not.

use std::fmt;

use crate::output::escape_lines;

/// The exit codes, as `phalanx --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// The command line, a job file or the state of a run does not allow it.
    Config = 2,
    /// The coordinator cannot be reached.
    Unreachable = 3,
    /// The coordinator does not know who asks.
    Unknown = 4,
    /// A run failed or a check found something.
    Failed = 5,
    /// A worker was without its coordinator for too long.
    LostLease = 6,
    /// Left before the end; what was begun can be taken up again.
    Left = 75,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

/// Why a command could not do what it was asked to, with the exit code that says so and the way out, if there is one.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// The request does not fit: exit code 2.
    pub(crate) fn config(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Config, error: error.into(), hint: None }
    }

    /// There is nobody to talk to: exit code 3.
    pub(crate) fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Unreachable, error: error.into(), hint: None }
    }

    /// It was tried and did not work: exit code 5.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Failed, error: error.into(), hint: None }
    }

    /// Adds a way out.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether it is only that nobody reads the output any more, as with `| head`.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.error
            .root_cause()
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

/// What a coordinator replied, in terms of exit codes. Its message was written for people and is passed on.
impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        let exit = match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => Exit::Config,
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => Exit::Unreachable,
            Code::Unauthenticated | Code::PermissionDenied => Exit::Unknown,
            Code::Unimplemented => Exit::Config,
            Code::Ok
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss => Exit::Failed,
        };
        let message = match status.message() {
            "" => format!("the coordinator replied {:?}", status.code()),
            message => message.to_owned(),
        };
        Self { exit, error: anyhow::Error::msg(message), hint: None }
    }
}

/// The chain of causes on one line, each said once, then the hint on a line of its own: the failure's, or the first that
/// a cause brings along after `\nhint: `.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = String::new();
        let mut way_out = None;
        for cause in self.error.chain().map(ToString::to_string) {
            let cause = match cause.split_once("\nhint: ") {
                Some((cause, hint)) => {
                    way_out.get_or_insert(hint.to_owned());
                    cause
                }
                None => &cause,
            };
            if said.is_empty() {
                cause.clone_into(&mut said);
            } else if !said.contains(cause) {
                said.push_str(": ");
                said.push_str(cause);
            }
        }
        write!(f, "error: {}", escape_lines(&said))?;
        if let Some(hint) = self.hint.as_ref().or(way_out.as_ref()) {
            write!(f, "\n  hint: {}", escape_lines(hint))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_chain_is_printed_once_with_its_hint() {
        let io = std::io::Error::from_raw_os_error(98);
        let chain = Err::<(), _>(io).context("cannot listen on 127.0.0.1:7070").unwrap_err();
        let failure = Failure::config(chain).hint("take another port");
        let shown = failure.to_string();
        assert_eq!(
            shown,
            "error: cannot listen on 127.0.0.1:7070: Address already in use (os error 98)\n  hint: take another port"
        );
        let inner =
            Err::<(), _>(anyhow::Error::msg("it is in use\nhint: stop the other")).context("cannot open").unwrap_err();
        assert_eq!(Failure::config(inner).to_string(), "error: cannot open: it is in use\n  hint: stop the other");
        let twice = anyhow::Error::msg("tcp connect error").context("no way: tcp connect error");
        assert_eq!(Failure::failed(twice).to_string(), "error: no way: tcp connect error");
    }

    #[test]
    fn replies_become_exit_codes() {
        for (status, exit) in [
            (tonic::Status::not_found("no run x"), Exit::Config),
            (tonic::Status::already_exists("x"), Exit::Config),
            (tonic::Status::unavailable("x"), Exit::Unreachable),
            (tonic::Status::unauthenticated("x"), Exit::Unknown),
            (tonic::Status::data_loss("x"), Exit::Failed),
        ] {
            assert_eq!(Failure::from(status.clone()).exit(), exit, "{status}");
        }
        let status = tonic::Status::not_found("no run \u{1b}[31mx\nhint: look elsewhere");
        assert_eq!(Failure::from(status).to_string(), "error: no run \\u{1b}[31mx\n  hint: look elsewhere");
    }
}
