//! As little of HTTP as tests need.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::peer::soon;

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &str| line.split_once(": ").is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.headers.lines().find(|line| named(line))?.split_once(": ").map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Sends bytes and reads until the other end closes. What it no longer wants to read is its own affair.
pub(crate) async fn exchange(http: SocketAddr, request: &[u8]) -> Option<Reply> {
    let (mut read, mut write) = soon(TcpStream::connect(http)).await.unwrap().into_split();
    let request = request.to_vec();
    let sending = tokio::spawn(async move {
        let sent = write.write_all(&request).await;
        // Dropped it would close its direction, and who leaves gets no answer.
        (sent, write)
    });
    let mut answer = Vec::new();
    // A connection that is reset has given what it had.
    let _ = soon(read.read_to_end(&mut answer)).await;
    sending.abort();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let headers = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = headers.split_whitespace().nth(1)?.parse().ok()?;
    Some(Reply { status, headers, body: answer[end + 4..].to_vec() })
}

/// With HTTP/1.0 a body ends with its connection.
pub(crate) async fn send(http: SocketAddr, method: &str, path: &str, headers: &str) -> Reply {
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {http}\r\n{headers}\r\n");
    exchange(http, request.as_bytes()).await.expect("an answer")
}

pub(crate) async fn get(http: SocketAddr, path: &str) -> Reply {
    send(http, "GET", path, "").await
}

pub(crate) async fn get_json(http: SocketAddr, path: &str) -> Value {
    let reply = get(http, path).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

pub(crate) async fn post(http: SocketAddr, path: &str, headers: &str) -> Reply {
    send(http, "POST", path, headers).await
}
