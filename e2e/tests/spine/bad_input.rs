//! What must be refused: with the right exit code, a message that says what is wrong and what to do, and nothing begun.

use std::fs;
use std::io::Write;
use std::process::Command;

use crate::phalanx::{Place, Running, binary, config, root, text};

/// The digits job with some of its text replaced.
fn job(place: &Place, changes: &[(&str, &str)]) -> String {
    let mut yaml = fs::read_to_string(config("digits-vit.yaml")).expect("the example is there");
    let datasets = root().join("datasets").display().to_string();
    yaml = yaml.replace("../datasets", &datasets);
    for (from, to) in changes {
        assert!(yaml.contains(from), "the example has no {from:?}");
        yaml = yaml.replacen(from, to, 1);
    }
    let path = place.path().join("job.yaml");
    fs::write(&path, yaml).expect("a file");
    path.display().to_string()
}

/// Launches a job that cannot work and gives what was said.
fn refused(place: &Place, file: &str, extra: &[&str], exit: i32) -> String {
    let output = place.run(&[&["launch", file], extra].concat());
    let said = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(exit), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn assert_nothing_was_begun(place: &Place) {
    assert!(!place.state_dir().exists(), "a refused job left something behind");
}

#[test]
fn mistakes_in_the_file_are_reported_together_before_anything_starts() {
    let place = Place::new();
    let file = job(&place, &[("heads: 4", "heads: 5"), ("seed:", "sead:"), ("patch: 4", "patch: 3")]);
    let said = refused(&place, &file, &[], 2);
    for part in ["heads (5) must divide dim (64)", "did you mean seed?", "patch (3) must divide", "3 problems"] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    assert_nothing_was_begun(&place);
}

#[test]
fn more_workers_than_micro_batches_are_refused() {
    let place = Place::new();
    let said = refused(&place, &config("digits-vit.yaml"), &["--workers", "9"], 2);
    assert!(said.contains("micro_batches (8) must be >= workers (9)"), "{said}");
    assert_nothing_was_begun(&place);
}

#[test]
fn a_run_name_is_never_a_path() {
    let place = Place::new();
    let file = job(&place, &[("name: digits-vit", "name: ../../x")]);
    assert!(refused(&place, &file, &[], 2).contains("name"));
    refused(&place, &config("digits-vit.yaml"), &["--name", "../../x"], 2);
    assert_nothing_was_begun(&place);
}

#[test]
fn data_that_cannot_be_read_fail_the_run_with_the_reason() {
    let images = root().join("datasets/digits/images-idx3-ubyte.gz").display().to_string();
    let place = Place::new();
    let missing = place.path().join("no-such-file").display().to_string();
    let file = job(&place, &[(&images, &missing)]);
    let said = refused(&place, &file, &[], 5);
    assert!(said.contains(&missing) && said.contains("No such file"), "{said}");

    let place = Place::new();
    let truncated = place.path().join("truncated-idx3-ubyte");
    let mut whole = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(fs::File::open(&images).expect("a file")), &mut whole)
        .expect("a gzip file");
    fs::File::create(&truncated).and_then(|mut f| f.write_all(&whole[..10_000])).expect("a file");
    let file = job(&place, &[(&images, &truncated.display().to_string())]);
    let said = refused(&place, &file, &[], 5);
    assert!(said.contains("truncated"), "{said}");
}

#[test]
fn images_of_another_size_than_the_models_fail_the_run_with_both_sizes() {
    let place = Place::new();
    let file = job(&place, &[("image: [8, 8]", "image: [12, 12]")]);
    let said = refused(&place, &file, &[], 5);
    assert!(said.contains("8x8") && said.contains("12x12"), "{said}");
}

#[test]
fn a_model_whose_first_gradient_is_not_finite_is_refused_by_name() {
    let place = Place::new();
    let file = job(&place, &[("std: [0.376]", "std: [1.0e-39]")]);
    let said = refused(&place, &file, &[], 5);
    assert!(said.contains("first gradient is not finite") && said.contains("classifier.weight"), "{said}");
}

#[test]
fn a_second_run_of_the_same_name_is_refused_while_the_first_goes_on() {
    let place = Place::new();
    let mut first = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "1", "--json"]);
    first.wait_for_step(5);
    let status = place.json(&["status", "--json"]);
    let url = status["coordinator"].as_str().map(str::to_owned);
    let said = refused(&place, &config("digits-vit.yaml"), &[], 2);
    assert!(said.contains("in use") && said.contains("hint"), "{said}");
    let url = url.unwrap_or_else(|| fs::read_to_string(place.state_dir().join("coordinator.url")).expect("a URL"));
    let said = refused(&place, &config("digits-vit.yaml"), &["--coordinator", url.trim()], 2);
    assert!(said.contains("digits-vit exists already") && said.contains("--name"), "{said}");
    first.wait_for_step(30);
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let place = Place::new();
    for arguments in
        [vec!["coordinator", "--listen", &address], vec!["launch", &config("digits-vit.yaml"), "--listen", &address]]
    {
        let output = Running::start(place.command(&arguments)).output();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&address) && said.contains("in use"), "{said}");
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_and_names_the_file() {
    let place = Place::new();
    let file = job(&place, &[("epochs:", "steps: 60 #")]);
    let mut launch = place.start(&["launch", &file, "--workers", "1", "--json"]);
    launch.wait_for_step(30);
    assert!(place.run(&["stop", "digits-vit"]).status.success());
    launch.wait_for_end();
    drop(launch);
    let mut damaged = 0;
    for part in parts(&place.state_dir().join("checkpoints")) {
        let mut bytes = fs::read(&part).expect("a part");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&part, bytes).expect("a part");
        damaged += 1;
    }
    assert!(damaged > 0);
    let output = place.run(&["checkpoint", "export", "digits-vit"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(".safetensors"), "{}", text(&output.stderr));
    let output = place.run(&["resume", "digits-vit"]);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains(".safetensors"), "{said}");
}

fn parts(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(parts(&path));
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            found.push(path);
        }
    }
    found
}

/// Every file of `e2e/broken` has one mistake. The answers, which name file, line, column, key and a way out, are kept beside
/// them: `expected.txt` is what is said of all, file by file.
#[test]
fn broken_files_are_answered_with_the_place_and_a_way_out() {
    let folder = root().join("e2e/broken");
    let names = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("a name")).collect();
    names.retain(|name| name.ends_with(".yaml"));
    names.sort();
    assert!(names.len() >= 40, "{} files", names.len());
    let mut said = String::new();
    for name in names {
        let output = Command::new(binary()).args(["validate", &name]).current_dir(&folder).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{name}");
        let answer = text(&output.stderr);
        assert!(answer.starts_with(&format!("{name}:")), "{answer}");
        said += &answer;
    }
    let expected = fs::read_to_string(folder.join("expected.txt")).expect("what is said");
    assert!(said == expected, "said is what follows; if it is better, keep it in expected.txt\n{said}");
}
