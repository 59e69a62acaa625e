//! What holds for every request: who may ask, and what every answer says to browsers.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use crate::Failure;

/// No request of ours has a body.
const BODY_BYTES_MAX: usize = 4 << 10;

/// The header that requests which change something must carry. A form or image on a foreign page cannot send it, and a
/// script there is asked by the browser to ask us first, which we do not answer.
const CONSENT: HeaderName = HeaderName::from_static("x-phalanx");

/// Nothing but our own files is run, shown or framed.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// Puts the rules around `router`, which is served at `address`.
pub(crate) fn guarded(router: Router, address: SocketAddr) -> Router {
    router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).layer(middleware::from_fn_with_state(address, guard))
}

async fn guard(State(address): State<SocketAddr>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = match refusal(address, request.method(), request.uri().host(), request.headers()) {
        Some(failure) => failure.into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_api {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

/// Why a request is not even looked at.
fn refusal(address: SocketAddr, method: &Method, authority: Option<&str>, headers: &HeaderMap) -> Option<Failure> {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = authority.or(named.map(without_port));
    if address.ip().is_loopback() && !host.is_some_and(is_this_machine) {
        // A name that leads here is not enough: whoever owns the name could let a page of theirs read our answers.
        let hint = "ask for http://127.0.0.1 or http://localhost".to_owned();
        return Some(Failure::new(StatusCode::FORBIDDEN, "this address serves this machine only", Some(hint)));
    }
    let is_reading = matches!(*method, Method::GET | Method::HEAD);
    if !is_reading && headers.get(CONSENT).is_none_or(|value| value != "1") {
        let hint = "curl -X POST -H 'X-Phalanx: 1' URL".to_owned();
        return Some(Failure::new(StatusCode::FORBIDDEN, "the header `X-Phalanx: 1` is missing", Some(hint)));
    }
    None
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_served_on_loopback() {
        let loopback: SocketAddr = "127.0.0.1:7788".parse().unwrap();
        let everywhere: SocketAddr = "0.0.0.0:7788".parse().unwrap();
        for (host, here) in [
            ("127.0.0.1:7788", true),
            ("127.0.0.1", true),
            ("localhost:7788", true),
            ("LOCALHOST", true),
            ("[::1]:7788", true),
            ("[::1]", true),
            ("evil.example:7788", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.168.0.7", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert_eq!(refusal(loopback, &Method::GET, None, &headers).is_none(), here, "{host:?}");
            assert_eq!(refusal(everywhere, &Method::GET, None, &headers), None, "{host:?}");
        }
        assert!(refusal(loopback, &Method::GET, None, &HeaderMap::new()).is_some());
    }

    #[test]
    fn what_changes_something_needs_consent() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let host = (header::HOST, HeaderValue::from_static("localhost"));
        for (value, allowed) in [(None, false), (Some("0"), false), (Some("1"), true)] {
            let consent = value.map(|value| (CONSENT, HeaderValue::from_static(value)));
            let headers = HeaderMap::from_iter(consent.into_iter().chain([host.clone()]));
            for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
                assert_eq!(refusal(address, &method, None, &headers).is_none(), allowed, "{method} {value:?}");
            }
            assert_eq!(refusal(address, &Method::GET, None, &headers), None);
        }
    }
}
