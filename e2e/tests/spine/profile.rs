//! A profile is a trace that Perfetto reads, and changes nothing of what is trained.

use std::fs;

use serde_json::Value;

use crate::phalanx::{Place, root, text, train};

const STEPS: u64 = 20;

pub(crate) fn job(place: &Place) -> String {
    let datasets = root().join("datasets/digits");
    let file = |name: &str| datasets.join(name).display().to_string();
    let (images, labels) = (file("images-idx3-ubyte.gz"), file("labels-idx1-ubyte.gz"));
    let job = format!(
        "{{version: 1, name: profiled, data: {{format: idx, images: '{images}', labels: '{labels}', pixel_max: 16}}, \
         model: {{type: vit, image: [8, 8], channels: 1, patch: 4, dim: 32, depth: 2, heads: 2, classes: 10}}, \
         train: {{steps: {STEPS}, global_batch: 32}}}}"
    );
    fs::write(place.path().join("job.yaml"), job).expect("a file");
    "job.yaml".to_owned()
}

/// The complete events of a kind.
fn events<'a>(trace: &'a Value, kind: &str) -> Vec<&'a Value> {
    let all = trace["traceEvents"].as_array().expect("events");
    all.iter().filter(|event| event["ph"] == "X" && event["cat"] == kind).collect()
}

/// Begin and end in microseconds.
fn range(event: &Value) -> (f64, f64) {
    let begin = event["ts"].as_f64().expect("a time");
    (begin, begin + event["dur"].as_f64().expect("a duration"))
}

/// Apart by less than the nanosecond that times are noted in.
fn lies_within(event: &Value, parent: &Value) -> bool {
    let ((begin, end), (first, last)) = (range(event), range(parent));
    first - 1e-3 <= begin && end <= last + 1e-3
}

fn assert_is_whole(trace: &Value) {
    let (steps, phases) = (events(trace, "step"), events(trace, "phase"));
    let names: Vec<&str> = steps.iter().map(|step| step["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["step 3", "step 4", "step 5", "step 6", "step 7"]);
    for step in steps {
        let inside = phases.iter().filter(|phase| lies_within(phase, step));
        let covered: f64 = inside.map(|phase| phase["dur"].as_f64().expect("a duration")).sum();
        assert!(covered >= 0.95 * step["dur"].as_f64().expect("a duration"), "{covered} of {step}");
    }
    let layers = events(trace, "layer");
    for layer in &layers {
        let phase = &layer["args"]["phase"];
        let is_around = |parent: &&&Value| parent["name"] == *phase && lies_within(layer, parent);
        assert!(phases.iter().any(|parent| is_around(&parent)), "{layer} lies in no {phase}");
    }
    for operator in events(trace, "operator") {
        assert!(layers.iter().any(|layer| lies_within(operator, layer)), "{operator} lies in no layer");
    }
    for bucket in events(trace, "bucket") {
        assert!(phases.iter().any(|phase| phase["name"] == "backward" && lies_within(bucket, phase)), "{bucket}");
    }
    let reductions = events(trace, "reduction");
    assert!(!reductions.is_empty());
    for reduction in reductions {
        assert!(events(trace, "step").iter().any(|step| lies_within(reduction, step)), "{reduction} lies in no step");
    }
    for phase in ["forward", "backward"] {
        let is_first = |layer: &&&Value| layer["name"] == "vit.encoder.layer.0" && layer["args"]["phase"] == phase;
        assert!(layers.iter().any(|layer| is_first(&layer)), "no {phase} pass of the first block");
    }
    assert!(trace["otherData"]["peak_gflops"].as_f64() > Some(0.0), "{}", trace["otherData"]);
}

#[test]
fn two_workers_leave_two_traces_and_the_same_weights() {
    let plain = Place::new();
    let expected = train(&plain, &job(&plain), 2);

    let place = Place::new();
    let output = place.run(&["launch", "--profile", &job(&place), "--workers", "2"]);
    let (said, noted) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{noted}");
    assert!(said.contains(expected["weights_sha256"].as_str().expect("a hash")), "{said} is not {expected}");
    assert!(said.contains("profile of 5 steps on 2 workers"), "{said}");
    for word in ["WHERE", "data", "forward", "backward", "reduce", "agree", "update", "report", "linear"] {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    let mut ranges = Vec::new();
    for rank in 0..2 {
        let path = place.state_dir().join(format!("profiles/profiled/profile-{rank}.json"));
        assert!(noted.contains(&path.display().to_string()), "{noted}");
        let trace = serde_json::from_slice(&fs::read(&path).expect("a trace")).expect("JSON");
        assert_is_whole(&trace);
        ranges.push(range(events(&trace, "step")[0]));
    }
    // The ranks make each step together, and their times have one origin.
    let [(begin, end), (first, last)] = ranges[..] else { panic!("a trace for each rank") };
    assert!(begin < last && first < end, "{ranges:?}");
    let left = fs::read_dir(place.state_dir().join("profiles/profiled")).expect("a folder").count();
    assert_eq!(left, 2, "something unfinished was left behind");
}
