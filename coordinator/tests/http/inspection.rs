//! The inside of a model, from a worker's report to the answers.

use domain::ids::{Generation, Step};
use domain::inspection::{
    Attention, AttentionLayer, BUCKETS, Histogram, Inspection, Pattern, Sample, TensorHistograms,
};
use proto::convert::{self, Report};
use proto::v1;
use serde_json::{Value, json};
use tonic::Code;

use super::client::{get, get_json};
use super::training;
use crate::peer::{Tools, Worker, hello, info, trial};
use crate::{Coordinator, records, step};

pub(crate) fn inspection(step: u64, generation: u64) -> Inspection {
    let mut counts = vec![0; BUCKETS];
    (counts[0], counts[63]) = (2, 1);
    let (low, high) = (-(step as f64), 0.5);
    let histogram = |non_finite| Histogram {
        low,
        high,
        counts: counts.clone(),
        min: low,
        max: high,
        mean: 0.0,
        std: 1.0,
        zeros: 0,
        non_finite,
    };
    let tensor = |name: &str| TensorHistograms {
        name: name.to_owned(),
        shape: vec![2, 2],
        weights: histogram(1),
        gradient: histogram(1),
    };
    let sample = Sample { label: 3, width: 2, height: 1, channels: 1, pixels: vec![0, 255] };
    let layer = AttentionLayer {
        name: "layer".to_owned(),
        heads: 1,
        queries: 2,
        keys: 2,
        block: 1,
        patterns: vec![Pattern { peak: 0.75, cells: vec![65_535, 21_845, 43_690, 43_690] }],
    };
    Inspection {
        step: Step(step),
        generation: Generation(generation),
        tensors: vec![tensor("a"), tensor("b")],
        tensors_left_out: 1,
        attention: Some(Attention { samples: vec![sample], layers: vec![layer] }),
    }
}

async fn inspect(worker: &mut Worker, step: u64, generation: u64) {
    let inspection = Box::new(inspection(step, generation));
    worker.send(Report::Inspected { trial: trial("a"), inspection }).await;
}

#[tokio::test]
async fn what_was_seen_is_kept_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let (mut tools, mut worker) = training(&coordinator, 8).await;
    let none = get_json(http, "/api/v1/runs/a/inspections").await;
    assert_eq!(none, json!({"inspections": [], "tensors": []}));
    for number in 1..=4 {
        if number % 2 == 0 {
            inspect(&mut worker, number, 1).await;
        }
        worker.send(records("a", 1, vec![step(number, 1, 1)])).await;
    }
    worker.acknowledged_all().await;

    let list = get_json(http, "/api/v1/runs/a/inspections").await;
    assert_eq!(list["tensors"], json!([{"name": "a", "shape": [2, 2]}, {"name": "b", "shape": [2, 2]}]));
    let steps: Vec<&Value> = list["inspections"].as_array().unwrap().iter().map(|one| &one["step"]).collect();
    assert_eq!(steps, [2, 4]);
    let one = get_json(http, "/api/v1/runs/a/inspections/4").await;
    assert_eq!((&one["step"], &one["generation"], &one["rolled_back"]), (&json!(4), &json!(1), &json!(false)));
    assert_eq!((one["tensors"].as_array().unwrap().len(), &one["tensors_left_out"]), (2, &json!(1)));
    let weights = &one["tensors"][1]["weights"];
    assert_eq!((&weights["low"], &weights["counts"][0], &weights["non_finite"]), (&json!(-4.0), &json!(2), &json!(1)));
    let layer = &one["attention"]["layers"][0];
    assert_eq!(
        (&layer["rows"], &layer["columns"], &layer["patterns"][0]["peak"]),
        (&json!(2), &json!(2), &json!(0.75))
    );
    assert_eq!(layer["patterns"][0]["cells"], json!([65_535, 21_845, 43_690, 43_690]));
    assert_eq!(one["attention"]["samples"][0]["pixels"], json!([0, 255]));
    let part = get_json(http, "/api/v1/runs/a/inspections/4?part=attention").await;
    assert_eq!((&part["tensors"], part["attention"].is_object()), (&json!([]), true));
    let part = get_json(http, "/api/v1/runs/a/inspections/4?part=histograms&generation=1").await;
    assert_eq!((part["tensors"].as_array().unwrap().len(), &part["attention"]), (2, &Value::Null));
    let over_time = get_json(http, "/api/v1/runs/a/histograms?tensor=b").await;
    let steps = over_time["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|at| &at["weights"]["low"]).collect::<Vec<_>>(), [&json!(-2.0), &json!(-4.0)]);
    assert_eq!(get_json(http, "/api/v1/runs/a/histograms?tensor=c").await["steps"], json!([]));

    for (path, status) in [
        ("inspections/3", 404),
        ("inspections/4?generation=2", 404),
        ("inspections/x", 400),
        ("inspections/4?part=weights", 400),
        ("histograms", 400),
        (&format!("histograms?tensor={}", "x".repeat(300)), 400),
    ] {
        let reply = get(http, &format!("/api/v1/runs/a/{path}")).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }

    let found = by_grpc(&mut tools).await;
    assert_eq!(found, [(inspection(2, 1), false), (inspection(4, 1), false)]);
    coordinator.end().await;
}

async fn by_grpc(tools: &mut Tools) -> Vec<(Inspection, bool)> {
    let pages = tools.inspections("a").await.into_iter();
    let read = |page: v1::ReadInspectionsResponse| {
        let v1::ReadInspectionsResponse { inspection, rolled_back, at_ms } = page;
        assert!(at_ms > 1_600_000_000_000);
        (convert::inspection_from_wire(inspection.unwrap()).unwrap(), rolled_back)
    };
    pages.map(read).collect()
}

/// A report that does not hold together ends the stream of who sent it, and nothing of it is kept.
#[tokio::test]
async fn what_does_not_hold_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let (_tools, mut worker) = training(&coordinator, 8).await;
    worker.acknowledged_all().await;
    let cases: [fn(&mut v1::Inspection); 3] = [
        |i| i.tensors[0].weights.as_mut().unwrap().high = f64::NAN,
        |i| i.attention.as_mut().unwrap().layers[0].patterns[0].cells.truncate(7),
        |i| i.tensors[0].name = "x".repeat(2 << 20),
    ];
    for (number, spoil) in (10..).zip(cases) {
        let mut other = Worker::connect(coordinator.address, hello(info(number), None)).await;
        let mut wire = convert::inspection_to_wire(inspection(2, 1));
        spoil(&mut wire);
        let body = v1::report::Body::Inspected(v1::Inspected { trial: "a/0".to_owned(), inspection: Some(wire) });
        other.send_raw(v1::Report { sequence: 1, body: Some(body) }).await;
        assert_eq!(other.end().await, Some(Code::InvalidArgument));
    }
    let list = get_json(coordinator.http, "/api/v1/runs/a/inspections").await;
    assert_eq!(list["inspections"], json!([]));
    // One of a run that nobody knows is passed over.
    let unknown = Report::Inspected { trial: trial("b"), inspection: Box::new(inspection(1, 1)) };
    worker.send(unknown).await;
    worker.acknowledged_all().await;
    coordinator.end().await;
}
