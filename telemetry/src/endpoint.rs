use std::fmt;
use std::str::FromStr;

use http::Uri;

/// Where a collector takes OTLP over gRPC, such as `http://127.0.0.1:4317`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// Why a text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no address of a server.
    #[error("must be an address such as http://127.0.0.1:4317, where a collector takes OTLP over gRPC")]
    Address,
    /// It asks for an encrypted connection.
    #[error("must begin with http://: connections are not encrypted\nhint: a collector on this machine can pass it on")]
    Encrypted,
    /// It holds a password.
    #[error("must not hold a user or password\nhint: OTEL_EXPORTER_OTLP_HEADERS gives headers")]
    Password,
}

impl Endpoint {
    /// The whole address.
    pub fn url(&self) -> String {
        self.0.to_string()
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let url: Uri = text.parse().map_err(|_| EndpointError::Address)?;
        match url.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(EndpointError::Encrypted),
            _ => return Err(EndpointError::Address),
        }
        let authority = url.authority().ok_or(EndpointError::Address)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::Password);
        }
        if authority.host().is_empty() || url.query().is_some() {
            return Err(EndpointError::Address);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_server() {
        for (text, shown) in [
            ("http://127.0.0.1:4317", "http://127.0.0.1:4317"),
            ("http://collector:4317/", "http://collector:4317"),
            ("http://[::1]:4317", "http://[::1]:4317"),
        ] {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()), Ok(shown.to_owned()));
        }
        for (text, error) in [
            ("", EndpointError::Address),
            ("collector:4317", EndpointError::Address),
            ("grpc://collector:4317", EndpointError::Address),
            ("/path", EndpointError::Address),
            ("http://collector:4317/?key=1", EndpointError::Address),
            ("https://collector:4317", EndpointError::Encrypted),
            ("http://me:secret@collector:4317", EndpointError::Password),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
