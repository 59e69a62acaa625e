//! Logs and traces of a whole launch, as a collector hears them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::Instant;

use opentelemetry_proto::tonic::trace::v1::Span;

use crate::collector::{self, Collector, Log, attribute};
use crate::phalanx::{Place, text};
use crate::profile::job;

const STEPS: [&str; 3] = ["step 2", "step 3", "step 4"];

fn launch(place: &Place, otlp: &[&str]) -> (serde_json::Value, String) {
    let file = job(place);
    let arguments = ["launch", &file, "--json", "--workers", "2", "--threads", "1", "--profile=2-4"];
    let output = place.run(&[&arguments, otlp].concat());
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let stdout = text(&output.stdout);
    let ended = stdout.lines().find(|line| line.contains("\"event\":\"ended\"")).expect("the run has ended");
    (serde_json::from_str(ended).expect("a line is JSON"), errors)
}

#[test]
fn a_profiled_step_is_one_trace_of_all_ranks() {
    let collector = Collector::start();
    let (with, errors) = launch(&Place::new(), &["--otlp", &collector.url()]);
    assert!(!errors.contains("did not get to the collector"), "{errors}");

    let spans: Vec<Span> = collector.spans().into_iter().map(|(_, span)| span).collect();
    let roots: Vec<&Span> = spans.iter().filter(|span| span.name.starts_with("step ")).collect();
    let names: BTreeSet<&str> = roots.iter().map(|root| &*root.name).collect();
    assert_eq!((names, roots.len()), (BTreeSet::from(STEPS), STEPS.len()));
    for root in roots {
        is_whole(root, spans.iter().filter(|span| span.trace_id == root.trace_id).collect());
    }

    let known: BTreeSet<&str> = spans.iter().map(|span| &*span.name).collect();
    for name in
        ["round", "journal", "decide", "form group", "commit checkpoint", "write part", "phalanx.v1.Control/Submit"]
    {
        assert!(known.contains(name), "{name} is not among {known:?}");
    }

    let told = collector.logs();
    let of = |key: &str| -> BTreeSet<String> {
        told.iter().filter_map(|log| attribute(&log.resource.attributes, key)).collect()
    };
    assert_eq!(of("service.name"), BTreeSet::from(["phalanx".to_owned()]));
    let instances = of("service.instance.id");
    assert!(instances.contains("coordinator") && instances.len() == 3, "{instances:?}");

    let formed = told.iter().filter(|log| log.target.starts_with("worker") && body(log) == "group formed");
    let ranks: BTreeSet<Option<String>> = formed.map(|log| attribute(&log.record.attributes, "rank")).collect();
    assert_eq!(ranks, ["0", "1"].map(|rank| Some(rank.to_owned())).into());

    let (without, _) = launch(&Place::new(), &[]);
    assert_eq!(with["weights_sha256"], without["weights_sha256"]);
    assert!(with["weights_sha256"].is_string(), "{with}");
}

fn body(log: &Log) -> String {
    collector::text(log.record.body.as_ref()).unwrap_or_default()
}

/// A step's root, with a span for each of two ranks below, and their parts in them.
fn is_whole(root: &Span, trace: Vec<&Span>) {
    let by_id: BTreeMap<&[u8], &Span> = trace.iter().map(|span| (&*span.span_id, *span)).collect();
    assert_eq!(by_id.len(), trace.len());
    let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for span in &trace {
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        if span.parent_span_id.is_empty() {
            assert_eq!(span.span_id, root.span_id, "{span:?} is a second root");
            continue;
        }
        let parent = by_id.get(&*span.parent_span_id).unwrap_or_else(|| panic!("nobody told the parent of {span:?}"));
        below.entry(&parent.name).or_default().insert(&span.name);
        // The ranks' own clocks and beginnings differ.
        let is_rank = parent.span_id == root.span_id;
        let is_within = parent.start_time_unix_nano <= span.start_time_unix_nano
            && span.end_time_unix_nano <= parent.end_time_unix_nano;
        assert!(is_rank || is_within, "{span:?} is not within {parent:?}");
    }
    assert_eq!(below[&*root.name], BTreeSet::from(["rank 0", "rank 1"]));
    for rank in ["rank 0", "rank 1"] {
        let parts = ["data", "forward", "backward", "reduce", "agree", "update", "report", "bucket 0"];
        assert!(parts.iter().all(|part| below[rank].contains(part)), "{rank}: {:?}", below[rank]);
    }
    assert!(below["backward"].contains("bucket 0"), "{:?}", below["backward"]);
    assert!(below["forward"].iter().any(|part| part.starts_with("vit")), "{:?}", below["forward"]);
    let samples = |span: &&&Span| attribute(&span.attributes, "phalanx.samples")?.parse::<u64>().ok();
    let ranks = trace.iter().filter(|span| span.name.starts_with("rank "));
    assert_eq!(ranks.filter_map(|span| samples(&span)).sum::<u64>(), 32);
}

#[test]
fn a_collector_that_is_not_there_changes_nothing_and_is_named_at_the_end() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let url = format!("http://127.0.0.1:{port}");
    let (without, _) = launch(&Place::new(), &[]);
    let began = Instant::now();
    let (dead, errors) = launch(&Place::new(), &["--otlp", &url]);
    let took = began.elapsed();
    assert_eq!(dead["weights_sha256"], without["weights_sha256"]);
    assert!(errors.contains(&format!("did not get to the collector at {url}")), "{errors}");
    assert!(took.as_secs() < 60, "{took:?}");
}
