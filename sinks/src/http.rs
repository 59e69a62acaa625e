//! Requests to the servers of sinks: over HTTP or HTTPS, within bounds, and never further than where they were sent.
//! Redirects are not followed, for they would lead secrets elsewhere.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::follow::Trouble;
use crate::points::cut;

/// How long a server may take for an answer, connecting included. One that is slower is tried again later.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Bytes of an answer that are read: some kilobytes are the most that any of ours has.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Connections kept open to a server. Each sink asks one thing at a time.
const IDLE_MAX: usize = 1;

/// Bytes of what a server said that are shown.
const SAID_BYTES_MAX: usize = 200;

/// Asks servers.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What a server said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why there is no answer. All of this may pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("it cannot be reached: {0}")]
    Connect(String),
    #[error("it gave no answer within {} s", ANSWER_LIMIT.as_secs())]
    Slow,
    #[error("its answer cannot be read: {0}")]
    Body(String),
}

impl Http {
    /// A client that trusts the certificates that this machine trusts, if `is_encrypted` says that they are needed.
    pub(crate) fn new(is_encrypted: bool) -> std::io::Result<Self> {
        let provider = rustls::crypto::ring::default_provider();
        let connector = if is_encrypted {
            HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?
        } else {
            let config = rustls::ClientConfig::builder_with_provider(provider.into());
            let config = config.with_safe_default_protocol_versions().map_err(std::io::Error::other)?;
            let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(config)
        };
        let connector = connector.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_MAX).build(connector);
        Ok(Self { client })
    }

    /// Sends a request and reads the answer whole.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
        let asked = async {
            let answer = self.client.request(request).await.map_err(|e| HttpError::Connect(chain(&e)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|e| HttpError::Body(chain(&*e)))?.to_bytes();
            Ok(Answer { status, body })
        };
        tokio::time::timeout(ANSWER_LIMIT, asked).await.unwrap_or(Err(HttpError::Slow))
    }
}

/// An error with what led to it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// What a server said, shortened and without control characters.
pub(crate) fn refused(what: &'static str, status: StatusCode, body: &[u8]) -> Trouble {
    let said = String::from_utf8_lossy(&body[..body.len().min(4 * SAID_BYTES_MAX)]);
    let said = cut(&said, SAID_BYTES_MAX).escape_debug().to_string();
    Trouble::Refused { what, status, said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_shortened_and_shown_safely() {
        let body = ["\u{1b}[31m\n".as_bytes(), "ä".repeat(1 << 20).as_bytes(), &[0xff]].concat();
        let Trouble::Refused { said, .. } = refused("create", StatusCode::BAD_REQUEST, &body) else { panic!() };
        assert!(said.len() <= 2 * SAID_BYTES_MAX && !said.contains('\u{1b}') && !said.contains('\n'), "{said}");
    }
}
