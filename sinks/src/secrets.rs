use std::env::{self, VarError};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Keys that are shorter can be guessed; longer ones are no safer. The bounds are those of Standard Webhooks.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What servers are shown so that they know who asks. Comes from the environment alone, and goes nowhere else.
#[derive(Clone, Default)]
pub struct Secrets {
    /// The key with which webhooks are signed.
    pub(crate) webhook: Option<Vec<u8>>,
    /// The header `Authorization` for MLflow.
    pub(crate) mlflow: Option<String>,
}

/// Why a secret cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is not a key.
    #[error(
        "PHALANX_WEBHOOK_SECRET must be whsec_ and the base64 of 24 to 64 bytes\n\
         hint: echo whsec_$(head -c 32 /dev/urandom | base64) makes one"
    )]
    Webhook,
    /// It cannot be a header.
    #[error("{name} must be printable ASCII")]
    Text {
        /// The variable.
        name: &'static str,
    },
}

impl Secrets {
    /// What the environment holds: `PHALANX_WEBHOOK_SECRET`, and for MLflow what its own clients look for.
    pub fn from_env() -> Result<Self, SecretError> {
        Self::read(|name| match env::var(name) {
            Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(SecretError::Text { name }),
        })
    }

    fn read(get: impl Fn(&'static str) -> Result<Option<String>, SecretError>) -> Result<Self, SecretError> {
        let text = |name: &'static str| {
            let found = get(name)?;
            match &found {
                Some(text) if !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
                    Err(SecretError::Text { name })
                }
                _ => Ok(found),
            }
        };
        let webhook = text("PHALANX_WEBHOOK_SECRET")?.map(|secret| webhook_key(&secret)).transpose()?;
        let mlflow = match text("MLFLOW_TRACKING_TOKEN")? {
            Some(token) => Some(format!("Bearer {token}")),
            None => text("MLFLOW_TRACKING_USERNAME")?
                .map(|user| {
                    let password = text("MLFLOW_TRACKING_PASSWORD")?.unwrap_or_default();
                    Ok::<_, SecretError>(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
                })
                .transpose()?,
        };
        Ok(Self { webhook, mlflow })
    }
}

fn webhook_key(secret: &str) -> Result<Vec<u8>, SecretError> {
    let base64 = secret.strip_prefix("whsec_").unwrap_or(secret);
    let key = STANDARD.decode(base64).map_err(|_| SecretError::Webhook)?;
    if KEY_BYTES.contains(&key.len()) { Ok(key) } else { Err(SecretError::Webhook) }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&'static str, &str)]) -> Result<Secrets, SecretError> {
        Secrets::read(|name| Ok(variables.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned())))
    }

    #[test]
    fn secrets_come_from_variables_and_are_not_shown() {
        let key = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let secrets = read(&[
            ("PHALANX_WEBHOOK_SECRET", key),
            ("MLFLOW_TRACKING_USERNAME", "me"),
            ("MLFLOW_TRACKING_PASSWORD", "pass word"),
        ])
        .unwrap();
        assert_eq!(secrets.webhook.as_deref(), Some(b"0123456789abcdef0123456789abcdef".as_slice()));
        assert_eq!(secrets.mlflow.as_deref(), Some("Basic bWU6cGFzcyB3b3Jk"));
        assert_eq!(format!("{secrets:?}"), "Secrets");
        let token = read(&[("MLFLOW_TRACKING_TOKEN", "t"), ("MLFLOW_TRACKING_USERNAME", "me")]).unwrap();
        assert_eq!((token.mlflow.as_deref(), token.webhook), (Some("Bearer t"), None));
        for bad in ["short", "whsec_", "whsec_c2hvcnQ=", "ä"] {
            let error = read(&[("PHALANX_WEBHOOK_SECRET", bad)]).unwrap_err().to_string();
            assert!(error.starts_with("PHALANX_WEBHOOK_SECRET must be") && !error.contains("c2hvcnQ"), "{error}");
        }
        let smuggled = read(&[("MLFLOW_TRACKING_TOKEN", "a\r\nHost: b")]).unwrap_err();
        assert_eq!(smuggled, SecretError::Text { name: "MLFLOW_TRACKING_TOKEN" });
    }
}
