//! What users ask for beside starting and stopping, by gRPC and HTTP, and across a restart.

use domain::ids::Generation;
use proto::convert::Command;
use proto::v1;
use serde_json::json;
use tonic::Code;

use crate::http::client::{get_json, post};
use crate::peer::{Worker, info, running, trial};
use crate::{Coordinator, PATIENT, formed, position, records, saved, spec_json, step};

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
    assert_eq!(tools.run("b").await.reason, "waiting behind run a");
    drop((worker, tools));
    coordinator.end().await;

    let coordinator = Coordinator::start(folder.path()).await;
    let mut tools = coordinator.tools().await;
    assert_eq!((tools.run("a").await.priority, tools.run("b").await.priority), (9, 7));
    drop(tools);
    coordinator.end().await;
}

#[tokio::test]
async fn a_pinned_checkpoint_is_kept_and_an_unpinned_one_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let mut tools = coordinator.tools().await;
    let keep_one = spec_json("a", 1, 1).replace("\"keep_last\":2", "\"keep_last\":1");
    tools.submit(&keep_one.replace("\"keep_best\":1", "\"keep_best\":0")).await.unwrap();
    let mut worker = coordinator.worker(1).await;
    worker.assignment().await;
    worker.send(formed("a", 1, position(0, false))).await;
    let mut watch = tools.watch("a").await;
    let mut save = async |worker: &mut Worker, at: u64| {
        worker.send(records("a", 1, vec![step(at, 1, 1)])).await;
        let part = worker.save_part("a", 1, at, 0, 1).await;
        worker.send(saved("a", 1, part)).await;
        while watch.next().await.run.unwrap().checkpoints.last().is_none_or(|newest| newest.step != at) {}
    };
    save(&mut worker, 1).await;
    assert_eq!(tools.pin("a", 2).await.unwrap_err().code(), Code::NotFound);
    tools.pin("a", 1).await.unwrap();
    save(&mut worker, 2).await;
    save(&mut worker, 3).await;
    let shown = async || {
        let checkpoints = get_json(http, "/api/v1/runs/a").await["checkpoints"].clone();
        let checkpoints = checkpoints.as_array().unwrap().clone();
        checkpoints.iter().map(|one| (one["step"].as_u64().unwrap(), one["pinned"] == true)).collect::<Vec<_>>()
    };
    assert_eq!(shown().await, [(1, true), (3, false)]);
    assert!(tools.checkpoint("a", Some(1), false).await.is_ok(), "its parts are there");
    for (path, headers, status) in [
        ("/api/v1/runs/a/pin?step=3", "", 403),
        ("/api/v1/runs/a/pin?step=2", CONSENT, 404),
        ("/api/v1/runs/a/pin?step=-1", CONSENT, 400),
        ("/api/v1/runs/a/pin", CONSENT, 400),
        ("/api/v1/runs/b/pin?step=1", CONSENT, 404),
        ("/api/v1/runs/a/unpin?step=2", CONSENT, 404),
        ("/api/v1/runs/a/pin?step=3", CONSENT, 200),
    ] {
        let reply = post(http, path, headers).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    drop((watch, worker, tools));
    coordinator.end().await;

    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let mut tools = coordinator.tools().await;
    let pinned = |run: v1::Run| run.checkpoints.iter().map(|one| (one.step, one.pinned)).collect::<Vec<_>>();
    assert_eq!(pinned(tools.run("a").await), [(1, true), (3, true)]);
    assert_eq!(post(http, "/api/v1/runs/a/unpin?step=1", CONSENT).await.status, 200);
    assert_eq!(pinned(tools.run("a").await), [(3, true)]);
    assert_eq!(tools.checkpoint("a", Some(1), false).await.unwrap_err().code(), Code::NotFound);
    drop(tools);
    coordinator.end().await;
}

#[tokio::test]
async fn a_drained_worker_leaves_its_group_and_gets_no_work_until_that_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let (address, http) = (coordinator.address, coordinator.http);
    let mut tools = coordinator.tools().await;
    tools.submit(&spec_json("a", 2, 1)).await.unwrap();
    let (mut a, mut b) = (coordinator.worker(1).await, coordinator.worker(2).await);
    a.assignment().await;
    b.assignment().await;
    a.send(formed("a", 1, position(0, false))).await;
    a.acknowledged_all().await;
    assert_eq!(tools.drain(3).await.unwrap_err().code(), Code::NotFound);
    for (path, headers, status) in [
        ("/api/v1/workers/0000000000000001/drain", "", 403),
        ("/api/v1/workers/0000000000000003/drain", CONSENT, 404),
        ("/api/v1/workers/1/drain", CONSENT, 400),
        ("/api/v1/workers/000000000000000g/drain", CONSENT, 400),
        ("/api/v1/workers/0000000000000001/drain", CONSENT, 200),
    ] {
        let reply = post(http, path, headers).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    let next = b.assignment().await;
    let members: Vec<u64> = next.members.iter().map(|member| member.id.0).collect();
    assert_eq!((next.generation.0, members, next.leaving), (2, vec![2], vec![info(1).id]));
    let shown = async || get_json(http, "/api/v1/cluster").await["workers"].clone();
    let worker = shown().await[0].clone();
    assert_eq!((&worker["draining"], &worker["run"]), (&json!(true), &json!(null)));
    b.send(formed("a", 2, position(1, false))).await;
    assert_eq!(a.command().await, Command::Release { trial: trial("a"), generation: Generation(1) });
    let events = get_json(http, "/api/v1/events").await;
    let kinds = events["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "worker_drained");
    assert_eq!(kinds.count(), 1);
    let (a, b) = (a.disconnect(), b.disconnect());
    drop(tools);
    coordinator.end().await;

    let coordinator = Coordinator::start_at(folder.path(), address, PATIENT).await;
    let mut tools = coordinator.tools().await;
    let mut a = a.connect_again(address, None).await;
    let mut b = b.connect_again(address, Some(running("a", 2, position(1, false)))).await;
    b.assignment().await;
    let workers = tools.cluster().await.workers;
    assert_eq!(workers.iter().map(|worker| worker.draining).collect::<Vec<_>>(), [true, false]);
    tools.undrain(1).await.unwrap();
    assert_eq!((a.assignment().await.generation.0, b.assignment().await.generation.0), (3, 3));
    drop((a, b, tools));
    coordinator.end().await;
}
