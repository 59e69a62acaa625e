//! Changes as they come.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::training;
use crate::peer::soon;
use crate::{Coordinator, records, spec_json, step};

/// Somebody who follows topics.
struct Viewer(BufReader<TcpStream>);

impl Viewer {
    async fn follow(http: SocketAddr, topics: &str) -> Self {
        let mut stream = soon(TcpStream::connect(http)).await.unwrap();
        let request = format!("GET /api/v1/stream?topics={topics} HTTP/1.0\r\nHost: {http}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut viewer = Self(BufReader::new(stream));
        assert!(viewer.line().await.unwrap().contains(" 200 "));
        while viewer.line().await.unwrap() != "" {}
        viewer
    }

    /// The next line; nothing at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = soon(self.0.read_line(&mut line)).await.unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event of a topic that `is_wanted`.
    async fn event(&mut self, topic: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let mut named = String::new();
        loop {
            let line = self.line().await.expect("the stream ended");
            if let Some(name) = line.strip_prefix("event: ") {
                named = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                if named == topic && is_wanted(&data) {
                    return data;
                }
            }
        }
    }
}

#[tokio::test]
async fn changes_are_told_as_they_come_and_the_stream_ends_with_the_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let mut viewer = Viewer::follow(http, "cluster,run:a,run:other").await;
    let first = viewer.event("run:a", |_| true).await;
    assert!(first["version"].is_u64() && first.get("run").is_none(), "everything may be new at first");
    let (_tools, mut worker) = training(&coordinator, 4).await;
    let told = viewer.event("cluster", |data| data["runs"][0]["state"] == "running").await;
    assert!(told["version"].as_u64() > first["version"].as_u64());
    worker.send(records("a", 1, vec![step(1, 1, 1)])).await;
    let told = viewer.event("run:a", |data| data["run"]["step"] == 1).await;
    assert_eq!(told["run"]["loss"], 1.0);
    coordinator.end().await;
    while viewer.line().await.is_some() {}
}

#[tokio::test]
async fn many_viewers_are_told_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut viewers = Vec::new();
    for _ in 0..200 {
        viewers.push(Viewer::follow(coordinator.http, "cluster").await);
    }
    coordinator.tools().await.submit(&spec_json("a", 1, 1)).await.unwrap();
    for viewer in &mut viewers {
        viewer.event("cluster", |data| data["runs"][0]["name"] == "a").await;
    }
    coordinator.end().await;
}
