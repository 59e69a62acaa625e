//! What users ask for beside starting and stopping, by gRPC and HTTP, and across a restart.

use serde_json::json;
use tonic::Code;

use crate::http::client::{get_json, post};
use crate::{Coordinator, spec_json};

/// Without it, nothing is done for a browser.
const CONSENT: &str = "X-Phalanx: 1\r\n";

#[tokio::test]
async fn a_priority_is_changed_and_outlives_the_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let mut tools = coordinator.tools().await;
    let mut worker = coordinator.worker(1).await;
    tools.submit(&spec_json("busy", 1, 1)).await.unwrap();
    worker.assignment().await;
    tools.submit(&spec_json("a", 1, 1)).await.unwrap();
    tools.submit(&spec_json("b", 1, 1)).await.unwrap();
    assert_eq!(tools.run("b").await.reason, "waiting behind run a");
    tools.set_priority("b", 7).await.unwrap();
    assert_eq!((tools.run("a").await.reason.as_str(), tools.run("b").await.priority), ("waiting behind run b", 7));
    assert_eq!(tools.set_priority("b", 1001).await.unwrap_err().code(), Code::InvalidArgument);

    for (path, headers, status) in [
        ("/api/v1/runs/a/priority?value=9", "", 403),
        ("/api/v1/runs/a/priority?value=9", CONSENT, 200),
        ("/api/v1/runs/a/priority?value=1001", CONSENT, 400),
        ("/api/v1/runs/a/priority?value=high", CONSENT, 400),
        ("/api/v1/runs/a/priority", CONSENT, 400),
        ("/api/v1/runs/nobody/priority?value=9", CONSENT, 404),
        ("/api/v1/sweeps/a/priority?value=9", CONSENT, 404),
    ] {
        let reply = post(http, path, headers).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    assert_eq!(get_json(http, "/api/v1/runs/a").await["priority"], json!(9));
    let events = get_json(http, "/api/v1/events?run=a").await;
    let newest = events["events"].as_array().unwrap().last().unwrap();
    assert_eq!((&newest["kind"], &newest["text"]), (&json!("priority_changed"), &json!("priority 9")));
    tools.stop("a").await.unwrap();
    assert_eq!(tools.set_priority("a", 1).await.unwrap_err().code(), Code::FailedPrecondition);
    tools.resume("a").await.unwrap();
    drop((worker, tools));
    coordinator.end().await;

    let coordinator = Coordinator::start(folder.path()).await;
    let mut tools = coordinator.tools().await;
    assert_eq!((tools.run("a").await.priority, tools.run("b").await.priority), (9, 7));
    assert_eq!(tools.run("b").await.reason, "waiting behind run a");
    drop(tools);
    coordinator.end().await;
}
