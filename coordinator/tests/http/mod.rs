//! The dashboard of a real coordinator, asked over real connections.

pub(crate) mod client;
mod hostile;
mod inspection;
mod stream;

use std::net::SocketAddr;

use domain::engine::AttemptOutcome;
use domain::ids::Step;
use domain::record::{Pace, Vitals};
use proto::convert::{LogLine, Report};
use serde_json::{Value, json};

use self::client::{Reply, get, get_json, post};
use crate::peer::{Tools, Worker, soon, trial};
use crate::{Coordinator, ended, eval, formed, position, records, saved, spec_json, step};

/// A run of `steps` steps over 100 samples, eight at a time.
fn long_spec(name: &str, steps: u64) -> String {
    spec_json(name, 1, 1).replace("{\"steps\":4}", &format!("{{\"steps\":{steps}}}"))
}

/// A worker in the middle of run `a`, at step 0 of generation 1.
async fn training(coordinator: &Coordinator, steps: u64) -> (Tools, Worker) {
    let mut tools = coordinator.tools().await;
    tools.submit(&long_spec("a", steps)).await.unwrap();
    let mut worker = coordinator.worker(1).await;
    worker.assignment().await;
    worker.send(Report::DataOpened { trial: trial("a"), train_samples: 100, total_steps: steps }).await;
    worker.send(formed("a", 1, position(0, false))).await;
    (tools, worker)
}

/// Waits until worker 1 has so many lines in the log of `a`: reports are acknowledged before their lines are written.
async fn lines_are_there(http: SocketAddr, count: usize) {
    let written = async {
        loop {
            let log = get_json(http, "/api/v1/runs/a/log?limit=1000&source=00000001").await;
            if log["lines"].as_array().is_some_and(|lines| lines.len() >= count) {
                return;
            }
        }
    };
    soon(written).await;
}

fn line(text: &str) -> LogLine {
    LogLine { at_ms: 7, level: "warn".to_owned(), text: text.to_owned() }
}

#[tokio::test]
async fn a_run_is_shown_from_its_first_step_to_its_last() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let (_, mut worker) = training(&coordinator, 4).await;
    worker.send(records("a", 1, (1..=3).map(|s| step(s, 1, 1)).collect())).await;
    worker.acknowledged_all().await;
    let cluster = get_json(http, "/api/v1/cluster").await;
    assert_eq!(cluster["workers"][0]["id"], "0000000000000001");
    assert_eq!((&cluster["workers"][0]["run"], &cluster["workers"][0]["rank"]), (&json!("a"), &json!(0)));
    let run = &cluster["runs"][0];
    assert_eq!((&run["name"], &run["state"], &run["step"]), (&json!("a"), &json!("running"), &json!(3)));
    assert_eq!((&run["total_steps"], &run["samples_per_second"]), (&json!(4), &json!(8000.0)));
    assert_eq!(run["eval_loss"], Value::Null);

    worker.send(records("a", 1, vec![step(4, 1, 1), eval(4, 1)])).await;
    let part = worker.save_part("a", 1, 4, 0, 1).await;
    worker.send(saved("a", 1, part)).await;
    worker.send(ended("a", 1, AttemptOutcome::Completed { step: Step(4) })).await;
    worker.acknowledged_all().await;
    coordinator.tools().await.watch("a").await.last().await;

    let run = get_json(http, "/api/v1/runs/a").await;
    assert_eq!((&run["state"], &run["eval_accuracy"]), (&json!("completed"), &json!(0.75)));
    assert_eq!(run["measurements"], json!([{ "step": 4, "loss": 0.5, "accuracy": 0.75 }]));
    assert_eq!((&run["checkpoints"][0]["step"], &run["checkpoints"][0]["result"]), (&json!(4), &json!(true)));
    assert!(run["checkpoints"][0]["at"].as_u64() > Some(1_600_000_000_000), "{run}");
    assert_eq!(run["generations"][0]["workers"], json!(["0000000000000001"]));
    assert_eq!(run["goodput"], json!({ "productive_micros": 4000, "lost_micros": 0, "share": 1.0 }));
    assert_eq!((&run["spec"]["name"], &run["data"]["train_samples"]), (&json!("a"), &json!(100)));
    let series = get_json(http, "/api/v1/runs/a/series?keys=loss,grad_norm,elapsed_seconds").await;
    assert_eq!((&series["steps"], &series["total"]), (&json!([1, 2, 3, 4]), &json!(4)));
    assert_eq!(series["series"]["loss"]["max"], json!([1.0, 0.5, 1.0 / 3.0, 0.25]));
    assert_eq!(series["series"]["grad_norm"]["last"][0], "NaN", "what is no number is a word");
    assert_eq!(series["series"]["elapsed_seconds"]["last"], json!([0.001, 0.002, 0.003, 0.004]));
    let model = get_json(http, "/api/v1/runs/a/model").await;
    assert_eq!(model, json!({ "parameters": 1, "layers": [{ "name": "r0", "shape": [1], "parameters": 1 }] }));
    let ledger = get_json(http, "/api/v1/runs/a/ledger").await;
    // This worker tells of two samples a step, and not of those that the plan wants.
    assert_eq!((&ledger["audit"]["ok"], &ledger["epochs"][0]["samples"]), (&json!(false), &json!(100)));
    let csv = get(http, "/api/v1/runs/a/export.csv").await.text();
    let rows: Vec<&str> = csv.lines().collect();
    assert!(rows.len() == 5 && rows[4].starts_with("4,1,false,0.25,0.1,NaN,0.001,") && rows[4].ends_with(",0.5,0.75"));
    let events = get_json(http, "/api/v1/events?run=a").await;
    let mut kinds: Vec<&str> =
        events["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    // Whether the checkpoint or the end of the attempt is told first, is not said.
    kinds.sort_unstable();
    assert_eq!(kinds, ["checkpoint_committed", "completed", "group_formed", "submitted"]);
    coordinator.end().await;
}

#[tokio::test]
async fn charts_keep_their_extremes_and_show_what_was_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let (_, mut worker) = training(&coordinator, 400).await;
    worker.send(records("a", 1, (1..=300).map(|s| step(s, 1, 1)).collect())).await;
    worker.acknowledged_all().await;
    // The next group goes on from step 200.
    worker.send(Report::Goodbye).await;
    let mut worker = coordinator.worker(2).await;
    let again = worker.assignment().await;
    let generation = again.generation.0;
    assert!(generation > 1);
    worker.send(formed("a", generation, position(200, false))).await;
    worker.send(records("a", generation, (201..=400).map(|s| step(s, generation, 1)).collect())).await;
    worker.acknowledged_all().await;
    let series = get_json(http, "/api/v1/runs/a/series?points=50").await;
    let steps = series["steps"].as_array().unwrap();
    assert!(steps.len() <= 50 && steps.len() > 25, "{} points", steps.len());
    assert_eq!((&series["total"], steps.last()), (&json!(400), Some(&json!(400))));
    let loss = &series["series"]["loss"];
    assert_eq!((&loss["max"][0], loss["min"].as_array().unwrap().last()), (&json!(1.0), Some(&json!(1.0 / 400.0))));
    assert_eq!(series["rolled_back"][0]["generation"], 1);
    assert_eq!(series["rolled_back"][0]["steps"].as_array().unwrap().last(), Some(&json!(300)));
    let goodput = get_json(http, "/api/v1/runs/a").await["goodput"].clone();
    assert_eq!(goodput, json!({ "productive_micros": 400_000, "lost_micros": 100_000, "share": 0.8 }));
    assert_eq!(
        series["rolled_back"][0]["series"]["elapsed_seconds"],
        Value::Null,
        "the time of lost steps leads nowhere"
    );
    let some = get_json(http, "/api/v1/runs/a/series?from=390&to=1000000&keys=lr,elapsed_seconds").await;
    assert_eq!(some["steps"].as_array().map(Vec::len), Some(11));
    let elapsed = &some["series"]["elapsed_seconds"]["last"];
    assert_eq!((&elapsed[0], &elapsed[10]), (&json!(0.39), &json!(0.4)), "the steps before count too");
    coordinator.end().await;
}

#[tokio::test]
async fn workers_tell_how_they_are_doing_until_they_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let (_tools, mut worker) = training(&coordinator, 4).await;
    let told = async |wanted: [Value; 4]| {
        let shown = async {
            loop {
                let worker = get_json(http, "/api/v1/cluster").await["workers"][0].clone();
                let figures =
                    ["memory_bytes", "step_micros", "outside_micros", "phases"].map(|figure| worker[figure].clone());
                if figures == wanted {
                    return;
                }
            }
        };
        soon(shown).await;
    };
    told([Value::Null, Value::Null, Value::Null, Value::Null]).await;
    let pace = Pace { data: 10, passes: 450, reduce: 300, agree: 80, update: 50, report: 10 };
    worker.send_unnumbered(Report::Heartbeat(Vitals { resident_bytes: Some(5 << 20), pace: Some(pace) })).await;
    let phases = json!({"data": 10, "passes": 450, "reduce": 300, "agree": 80, "update": 50, "report": 10});
    told([json!(5 << 20), json!(900), json!(400), phases]).await;
    worker.send_unnumbered(Report::Heartbeat(Vitals { resident_bytes: Some(6 << 20), pace: None })).await;
    told([json!(6 << 20), Value::Null, Value::Null, Value::Null]).await;
    coordinator.end().await;
}

#[tokio::test]
async fn a_log_is_read_in_pages_and_searched() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let (_, mut worker) = training(&coordinator, 4).await;
    let lines = (0..30).map(|i| line(&format!("line {i} of <b>many</b>"))).collect();
    worker.send(Report::Logs { trial: trial("a"), lines }).await;
    lines_are_there(http, 30).await;
    let read = async |query: &str| get_json(http, &format!("/api/v1/runs/a/log?{query}")).await;
    let numbers = |page: &Value| -> Vec<u64> {
        page["lines"].as_array().unwrap().iter().map(|line| line["sequence"].as_u64().unwrap()).collect()
    };
    let newest = read("limit=5").await;
    let last = *numbers(&newest).last().unwrap();
    assert_eq!((numbers(&newest), &newest["next"]), ((last - 4..=last).collect(), &Value::Null));
    assert_eq!(numbers(&read(&format!("limit=5&before={}", last - 4)).await), (last - 9..last - 4).collect::<Vec<_>>());
    let (mut seen, mut after) = (Vec::new(), json!(0));
    while let Some(number) = after.as_u64() {
        let page = read(&format!("limit=7&after={number}")).await;
        seen.extend(numbers(&page));
        after = page["next"].clone();
    }
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    let found = read("search=LINE%2017%20OF%20%3Cb").await;
    assert_eq!(found["lines"][0]["text"], "line 17 of <b>many</b>");
    assert_eq!(numbers(&found).len(), 1);
    assert!(numbers(&read("source=coordinator").await).len() < last as usize - 20);
    assert_eq!(numbers(&read("source=nobody").await), [0; 0]);
    coordinator.end().await;
}

#[tokio::test]
async fn users_can_stop_and_resume_with_consent() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let mut tools = coordinator.tools().await;
    tools.submit(&spec_json("a", 1, 1)).await.unwrap();
    let consent = "X-Phalanx: 1\r\n";
    assert_eq!(
        post(http, "/api/v1/runs/a/stop", "").await.status,
        403,
        "a form of a foreign page cannot send a header"
    );
    assert_eq!(get_json(http, "/api/v1/runs/a").await["state"], "waiting");
    let stopped = post(http, "/api/v1/runs/a/stop", consent).await;
    assert_eq!((stopped.status, stopped.json()), (200, json!({})));
    assert_eq!(get_json(http, "/api/v1/runs/a").await["state"], "stopped");
    let again = post(http, "/api/v1/runs/a/stop", consent).await;
    assert_eq!(again.status, 409);
    assert!(again.json()["error"].as_str().is_some_and(|error| error.contains("stopped")), "{again:?}");
    assert_eq!(post(http, "/api/v1/runs/a/resume", consent).await.status, 200);
    assert_eq!(post(http, "/api/v1/runs/b/stop", consent).await.status, 404);
    assert_eq!(post(http, "/api/v1/sweeps/a/stop", consent).await.status, 404, "it is no sweep");
    coordinator.end().await;
}

fn sweep_json(name: &str) -> String {
    let text = format!(
        "{{version: 1, name: {name}, job: {{data: {{format: image_folder, path: images}}, train: {{steps: 4, \
         global_batch: 8, micro_batches: 4}}, model: {{type: vit, image: [8, 8], channels: 1, patch: 2, dim: 8, depth: 1, \
         heads: 2, classes: 10}}}}, space: {{schedule.lr: {{uniform: [0.1, 0.5]}}}}, trials: 1, \
         searcher: {{type: random}}}}"
    );
    let base = std::path::Path::new("/data");
    let spec = domain::spec::file::sweep::read(&text, "s.yaml", base, |_| Err("no other file".to_owned())).unwrap();
    proto::convert::sweep_spec_to_json(&spec)
}

#[tokio::test]
async fn a_sweep_is_shown_with_its_trials_and_decisions() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let channel = crate::peer::channel(coordinator.address).await;
    let mut sweeps = proto::v1::sweeps_client::SweepsClient::new(channel);
    let request = proto::v1::SubmitSweepRequest { spec_json: sweep_json("s") };
    soon(sweeps.submit_sweep(request)).await.unwrap();
    let mut worker = coordinator.worker(1).await;
    worker.assignment().await;
    worker.send(Report::DataOpened { trial: trial("s.0"), train_samples: 100, total_steps: 4 }).await;
    worker.send(formed("s.0", 1, position(0, false))).await;
    worker.send(records("s.0", 1, (1..=4).map(|s| step(s, 1, 1)).chain([eval(4, 1)]).collect())).await;
    worker.acknowledged_all().await;
    let sweep = get_json(http, "/api/v1/sweeps/s").await;
    assert_eq!((&sweep["state"], &sweep["counts"]["training"]), (&json!("running"), &json!(1)));
    let part = worker.save_part("s.0", 1, 4, 0, 1).await;
    worker.send(saved("s.0", 1, part)).await;
    worker.send(ended("s.0", 1, AttemptOutcome::Completed { step: Step(4) })).await;
    coordinator.tools().await.watch("s.0").await.last().await;

    let sweep = get_json(http, "/api/v1/sweeps/s").await;
    let shown = &sweep["trials"][0];
    assert_eq!((&shown["state"], &shown["step"], &shown["run"]), (&json!("completed"), &json!(4), &json!("s.0")));
    assert!(shown["parameters"]["schedule.lr"].is_number(), "{shown}");
    assert_eq!(shown["metrics"]["eval_accuracy"], json!({ "last": 0.75, "min": 0.75, "max": 0.75 }));
    assert_eq!(sweep["space"][0]["kind"], "uniform");
    assert_eq!(sweep["best"]["number"], 0);
    assert_eq!(sweep["importance"], json!([]));
    let decisions = get_json(http, "/api/v1/sweeps/s/decisions?trial=0").await;
    let texts: Vec<&str> =
        decisions["decisions"].as_array().unwrap().iter().map(|one| one["text"].as_str().unwrap()).collect();
    assert!(texts[0].starts_with("started, to rest after 4 steps") && texts[1].contains("complete"), "{texts:?}");
    let csv = get(http, "/api/v1/sweeps/s/export.csv").await.text();
    assert!(
        csv.starts_with("trial,run,state,step,budget,parent,reason,") && csv.contains("\n0,s.0,completed,4,"),
        "{csv}"
    );
    let cluster = get_json(http, "/api/v1/cluster").await;
    assert_eq!(cluster["runs"], json!([]), "trials are not listed among the runs");
    assert_eq!(cluster["sweeps"][0]["trials"]["completed"], 1);
    coordinator.end().await;
}

#[tokio::test]
async fn metrics_count_what_happened_and_the_grafana_dashboard_asks_for_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let (_, mut worker) = training(&coordinator, 4).await;
    let made: Vec<_> = (1..=3).map(|s| step(s, 1, 1)).collect();
    worker.send(records("a", 1, made.clone())).await;
    worker.send(records("a", 1, made)).await;
    worker.acknowledged_all().await;
    let text = get(coordinator.http, "/metrics").await.text();
    let value = |series: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse::<f64>().unwrap()
    };
    for (series, expected) in [
        ("phalanx_steps_total", 3.0),
        ("phalanx_samples_total", 24.0),
        ("phalanx_records_stored_total", 6.0),
        ("phalanx_group_formations_total", 1.0),
        ("phalanx_workers_connected", 1.0),
        ("phalanx_runs{state=\"running\"}", 1.0),
        ("phalanx_runs{state=\"failed\"}", 0.0),
        ("phalanx_workers_lost_total{cause=\"lease_expired\"}", 0.0),
        ("phalanx_step_duration_seconds_count", 3.0),
        ("phalanx_step_duration_seconds_bucket{le=\"0.001\"}", 3.0),
    ] {
        assert_eq!(value(series), expected, "{series}");
    }
    assert!(value("process_resident_memory_bytes") > 1e6 && value("phalanx_journal_append_seconds_sum") > 0.0);
    assert!(!text.contains("\"a\""), "no name of a run is a label");

    let grafana = include_str!("../../../deploy/grafana/phalanx.json");
    let board: Value = serde_json::from_str(grafana).unwrap();
    let queries = expressions(&board);
    assert!(queries.len() > 8, "only {} queries", queries.len());
    for query in queries {
        let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in words.filter(|word| word.starts_with("phalanx_") || word.starts_with("process_")) {
            assert!(text.contains(&format!("\n{name}")), "{query}: there is no {name}");
        }
    }
    coordinator.end().await;
}

/// All queries of a Grafana dashboard.
fn expressions(board: &Value) -> Vec<&str> {
    match board {
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| match value {
                Value::String(text) if key == "expr" => vec![text.as_str()],
                other => expressions(other),
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_page_is_served_to_browsers_once() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let page = get(http, "/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").is_some_and(|csp| csp.starts_with("default-src 'self'; ")));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(get(http, "/runs/some-run?tab=log").await.body, page.body, "the page finds its way by itself");
    let etag = page.header("etag").unwrap().to_owned();
    let known = client::send(http, "GET", "/", &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let text = page.text();
    let script = text.split('"').find(|part| part.starts_with("/assets/") && part.ends_with(".js")).unwrap().to_owned();
    let plain = get(http, &script).await;
    let gzip = client::send(http, "GET", &script, "Accept-Encoding: gzip, br\r\n").await;
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert!(gzip.body.len() * 2 < plain.body.len(), "{} bytes of {}", gzip.body.len(), plain.body.len());
    assert!(plain.header("cache-control").is_some_and(|caching| caching.contains("immutable")));
    assert_eq!(get(http, "/assets/nothing.js").await.status, 404);
    let docs: Reply = get(http, "/api/docs").await;
    assert!(docs.status == 200 && docs.text().contains("/api/v1/cluster") && !docs.text().contains("<script"));
    coordinator.end().await;
}
