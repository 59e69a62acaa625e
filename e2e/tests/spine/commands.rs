//! Every command on a short real run.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::phalanx::{Place, config, text, train};

/// The digits job, a few steps long.
fn short_job(place: &Place) -> String {
    let datasets = crate::phalanx::root().join("datasets").display().to_string();
    let yaml = fs::read_to_string(config("digits-vit.yaml")).expect("the example is there");
    let yaml = yaml.replace("../datasets", &datasets).replacen("epochs:", "steps: 40 #", 1);
    let path = place.path().join("short.yaml");
    fs::write(&path, yaml).expect("a file");
    path.display().to_string()
}

#[test]
fn an_ended_run_can_be_looked_at_without_a_coordinator() {
    let place = Place::new();
    let ended = train(&place, &short_job(&place), 2);

    let list = text(&place.run(&["list"]).stdout);
    assert!(list.contains("digits-vit") && list.contains("completed"), "{list}");
    let status = place.json(&["status", "digits-vit", "--json"]);
    assert_eq!((&status["step"], &status["total_steps"]), (&40.into(), &40.into()), "{status}");
    let logs = text(&place.run(&["logs", "digits-vit"]).stdout);
    assert!(logs.contains("generation 1"), "{logs}");
    place.assert_audit_is_clean("digits-vit");

    let listed = place.json(&["checkpoint", "list", "digits-vit", "--json"]);
    assert!(listed.to_string().contains(ended["weights_sha256"].as_str().expect("a hash")), "{listed}");
    assert!(place.run(&["checkpoint", "show", "digits-vit"]).status.success());
}

#[test]
fn a_run_is_seen_in_the_browser_while_it_trains() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "1", "--json"]);
    let started = launch.wait_for("the start", |line| line["event"] == "started");
    let url = started["dashboard"].as_str().expect("a dashboard");
    launch.wait_for_step(3);
    let address = url.strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    write!(stream, "GET /api/v1/runs/digits-vit HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("headers and a body");
    let run: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&run["state"], &run["workers"]), (&"running".into(), &1.into()), "{run}");
    assert!(run["step"].as_u64() >= Some(1) && run["samples_per_second"].as_f64() > Some(0.0), "{run}");
}

#[test]
fn an_exported_checkpoint_is_a_hugging_face_folder() {
    let place = Place::new();
    train(&place, &short_job(&place), 1);
    let output = place.run(&["checkpoint", "export", "digits-vit", "--output", "exported"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let folder = place.path().join("exported");
    let config = fs::read_to_string(folder.join("config.json")).expect("config.json");
    assert!(config.contains("ViTForImageClassification"), "{config}");
    let model = fs::read(folder.join("model.safetensors")).expect("model.safetensors");
    let header = u64::from_le_bytes(model[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&model[8..8 + header]).expect("a JSON header");
    assert_eq!(header["__metadata__"]["format"], "pt");
    assert_eq!(header["classifier.weight"]["shape"], serde_json::json!([10, 64]));

    let again = place.run(&["checkpoint", "export", "digits-vit", "--output", "exported"]);
    assert_ne!(again.status.code(), Some(0), "an export must not overwrite another one");
}

#[test]
fn a_sink_and_an_export_hold_the_same_points_as_a_table() {
    let place = Place::new();
    let launched = place.run(&["launch", &short_job(&place), "--workers", "2", "--sink", "tensorboard=runs"]);
    assert!(launched.status.success(), "{}", text(&launched.stderr));
    for arguments in [["--tensorboard", "exported"], ["--parquet", "points.parquet"]] {
        let output = place.run(&[["export", "digits-vit"].as_slice(), &arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let again = place.run(&[["export", "digits-vit"].as_slice(), &arguments].concat());
        assert_eq!(again.status.code(), Some(2), "{}", text(&again.stderr));
    }
    let events = |folder: &str| {
        let files = fs::read_dir(place.path().join(folder).join("digits-vit")).expect("a folder of the run");
        let files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        fs::read(&files[0]).expect("an event file")
    };
    assert!(
        events("runs") == events("exported"),
        "what was written meanwhile differs from what was written at the end"
    );
    let csv = text(&place.run(&["export", "digits-vit", "--csv"]).stdout);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "step,epoch,metric,value,seconds,generation,rolled_back");
    let of = |metric: &str| rows.iter().filter(|row| row.split(',').nth(2) == Some(metric)).count();
    assert_eq!((of("loss"), of("samples_per_second"), of("eval_accuracy")), (40, 40, of("eval_loss")));
    assert!(of("eval_loss") > 0 && rows[1].starts_with("1,0.0"), "{}", rows[1]);
    assert_eq!(text(&place.run(&["export", "digits-vit", "--json"]).stdout).lines().count(), rows.len() - 1);
}

#[test]
fn a_sink_that_is_away_is_named_at_the_end_and_costs_nothing_else() {
    let place = Place::new();
    // Nobody listens on the first port.
    let launched = place.run(&["launch", &short_job(&place), "--workers", "1", "--sink", "mlflow=http://127.0.0.1:1"]);
    let said = text(&launched.stderr);
    assert!(launched.status.success(), "{said}");
    assert!(said.contains("mlflow at http://127.0.0.1:1 lacks something: it cannot be reached"), "{said}");
    let twice = ["launch", "short.yaml", "--name", "b", "--sink", "tensorboard=runs", "--sink", "tensorboard=./runs"];
    let refused = place.run(&twice);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("--sink names tensorboard in "), "{}", text(&refused.stderr));
}

#[test]
fn a_folder_of_pictures_trains() {
    let place = Place::new();
    for (class, shade) in [("dark", 40u8), ("bright", 200)] {
        let folder = place.path().join("pictures").join(class);
        fs::create_dir_all(&folder).expect("a folder");
        for i in 0..24u8 {
            let picture =
                image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([shade + i, shade + x as u8, shade + y as u8]));
            let ending = if i % 2 == 0 { "png" } else { "jpeg" };
            picture.save(folder.join(format!("{i}.{ending}"))).expect("a picture");
        }
    }
    let job = "{version: 1, name: pictures, data: {format: image_folder, path: pictures, holdout: 0.25}, \
               model: {type: vit, image: [16, 16], channels: 3, patch: 8, dim: 16, depth: 1, heads: 2, classes: 2}, \
               train: {steps: 40, global_batch: 8}}";
    fs::write(place.path().join("pictures.yaml"), job).expect("a file");
    let ended = train(&place, "pictures.yaml", 2);
    assert_eq!(ended["accuracy"], 1.0, "{ended}");
    place.assert_audit_is_clean("pictures");
}

#[test]
fn verify_finds_no_difference() {
    let place = Place::new();
    let output = place.run(&["verify", &config("digits-vit.yaml"), "--steps", "60"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("0 ULP"), "{said}");
}

#[test]
fn what_is_not_there_is_said_plainly() {
    let place = Place::new();
    train(&place, &short_job(&place), 1);
    for command in ["status", "logs", "resume", "audit"] {
        let output = place.run(&[command, "nobody"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("nobody"), "{command}: {said}");
    }
    let output = place.run(&["status", "--coordinator", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}
