use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use sha2::{Digest, Sha256};

/// The longest address. No browser takes a longer one.
const URL_BYTES_MAX: usize = 2048;

/// A place where figures or facts go. It is written `KIND=TARGET`.
///
/// An address may be a secret, as those of chat rooms are: it is shown without its path, and kept nowhere.
#[derive(Clone, PartialEq, Eq)]
pub enum Sink {
    /// Event files of TensorBoard, in a folder for each run.
    TensorBoard {
        /// Where the folders of the runs are.
        folder: PathBuf,
    },
    /// Runs of an MLflow tracking server.
    Mlflow {
        /// The server.
        url: Uri,
    },
    /// Somebody who takes facts as JSON.
    Webhook {
        /// Where they are posted to.
        url: Uri,
    },
}

/// Why a text is not a [`Sink`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// There is no such kind.
    #[error("a sink is tensorboard=DIR, mlflow=URL or webhook=URL")]
    Kind,
    /// The folder is not one.
    #[error("tensorboard= must be followed by a folder")]
    Folder,
    /// The address is not one.
    #[error("{kind}= must be followed by an address such as http://host:5000, of at most {URL_BYTES_MAX} bytes")]
    Url {
        /// Of what.
        kind: &'static str,
    },
    /// The address holds a password.
    #[error("the address of {kind} must not hold a user or password{hint}")]
    Password {
        /// Of what.
        kind: &'static str,
        /// Where it belongs.
        hint: &'static str,
    },
}

impl FromStr for Sink {
    type Err = SinkError;

    fn from_str(text: &str) -> Result<Self, SinkError> {
        match text.split_once('=').ok_or(SinkError::Kind)? {
            ("tensorboard", "") => Err(SinkError::Folder),
            ("tensorboard", folder) => {
                // Where it is must not depend on where the next coordinator is started.
                let folder = std::path::absolute(folder).map_err(|_| SinkError::Folder)?;
                Ok(Sink::TensorBoard { folder })
            }
            ("mlflow", url) => Ok(Sink::Mlflow { url: address("mlflow", url)? }),
            ("webhook", url) => Ok(Sink::Webhook { url: address("webhook", url)? }),
            _ => Err(SinkError::Kind),
        }
    }
}

fn address(kind: &'static str, text: &str) -> Result<Uri, SinkError> {
    let bad = || SinkError::Url { kind };
    let url: Uri = Some(text).filter(|text| text.len() <= URL_BYTES_MAX).ok_or_else(bad)?.parse().map_err(|_| bad())?;
    let authority = url.authority().ok_or_else(bad)?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
        return Err(bad());
    }
    if authority.as_str().contains('@') {
        let hint = match kind {
            "mlflow" => {
                "\nhint: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, give it"
            }
            _ => "",
        };
        return Err(SinkError::Password { kind, hint });
    }
    Ok(url)
}

impl Sink {
    /// Under which name its position is kept. It tells nothing of the address.
    pub(crate) fn key(&self) -> String {
        let (kind, target) = match self {
            Sink::TensorBoard { folder } => ("tensorboard", folder.as_os_str().as_encoded_bytes().to_vec()),
            Sink::Mlflow { url } => ("mlflow", url.to_string().into_bytes()),
            Sink::Webhook { url } => ("webhook", url.to_string().into_bytes()),
        };
        format!("{kind}-{}", hex(&Sha256::digest(target)[..8]))
    }
}

/// In lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What may be seen of an address.
pub(crate) fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    format!("{scheme}://{}", url.authority().map(|authority| authority.as_str()).unwrap_or_default())
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::TensorBoard { folder } => write!(f, "tensorboard in {}", folder.display()),
            Sink::Mlflow { url } => write!(f, "mlflow at {}", shown(url)),
            Sink::Webhook { url } => write!(f, "webhook at {}", shown(url)),
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_are_read_and_shown_without_what_may_be_secret() {
        for (text, expected) in [
            ("tensorboard=/tmp/a b", "tensorboard in /tmp/a b"),
            ("mlflow=http://127.0.0.1:5000", "mlflow at http://127.0.0.1:5000"),
            ("mlflow=https://host/base/", "mlflow at https://host"),
            (
                "webhook=https://chat.example:8443/services/T0/B1/SECRET?token=SECRET",
                "webhook at https://chat.example:8443",
            ),
        ] {
            let sink: Sink = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(sink.to_string(), expected);
            assert_eq!(format!("{sink:?}"), format!("Sink({expected})"));
            assert!(!sink.key().contains("SECRET") && sink.key().len() < 40, "{}", sink.key());
            assert_eq!(sink.key(), text.parse::<Sink>().unwrap().key());
        }
        let relative: Sink = "tensorboard=runs".parse().unwrap();
        assert!(matches!(relative, Sink::TensorBoard { folder } if folder.is_absolute()));
        assert_ne!("mlflow=http://a".parse::<Sink>().unwrap().key(), "webhook=http://a".parse::<Sink>().unwrap().key());
    }

    #[test]
    fn what_is_no_sink_is_refused_with_a_way_out() {
        let long = format!("mlflow=http://{}", "a".repeat(1 << 20));
        for (text, part) in [
            ("", "a sink is"),
            ("mlflow", "a sink is"),
            ("wandb=x", "a sink is"),
            ("tensorboard=", "a folder"),
            ("mlflow=", "mlflow= must"),
            ("mlflow=host:5000", "mlflow= must"),
            ("mlflow=ftp://host", "mlflow= must"),
            ("webhook=http://", "webhook= must"),
            ("webhook=/path", "webhook= must"),
            ("webhook=http://host/a b", "webhook= must"),
            (&long, "at most 2048 bytes"),
            ("mlflow=http://me:secret@host", "MLFLOW_TRACKING_TOKEN"),
        ] {
            let error = text.parse::<Sink>().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("secret@"), "{error}");
        }
    }
}
