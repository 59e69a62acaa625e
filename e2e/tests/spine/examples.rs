//! The example at the end of each command's help does what it says.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use crate::phalanx::{Place, Running, root, text};
use crate::terminal::Screen;

/// In this order, each finds what the ones before it have left.
const ORDER: [&str; 32] = [
    "phalanx init job.yaml --data images-idx3-ubyte.gz --epochs 3 --yes",
    "phalanx validate job.yaml",
    "phalanx schema job",
    "phalanx doctor",
    "phalanx completions bash",
    "phalanx verify job.yaml --steps 40",
    "phalanx launch job.yaml --name digits",
    "phalanx watch digits --json",
    "phalanx wait digits --for step=10 --timeout 10m",
    "phalanx status digits",
    "phalanx list",
    "phalanx logs digits",
    "phalanx checkpoint list digits",
    "phalanx checkpoint show digits",
    "phalanx checkpoint export digits --output model",
    PIN,
    "phalanx export digits --parquet points.parquet",
    "phalanx audit digits",
    "phalanx plan sweep.yaml --seconds 0.5",
    "phalanx sweep sweep.yaml --name search",
    "phalanx sweep show search --top 20",
    "phalanx sweep curves search --parquet curves.parquet",
    "phalanx sweep best search --export best",
    "phalanx explain search/0",
    "phalanx replay search --eta 4",
    COORDINATOR,
    WORKER,
    TOP,
    "phalanx priority job 10",
    "phalanx stop job",
    "phalanx resume job",
    DRAIN,
];

/// Serves until the end.
const COORDINATOR: &str = "phalanx coordinator --listen 127.0.0.1:7070";
/// Serves it.
const WORKER: &str = "phalanx worker --coordinator http://127.0.0.1:7070 --threads 1";
/// A checkpoint that is there.
const PIN: &str = "phalanx checkpoint pin digits 100";
/// A worker that is there.
const DRAIN: &str = "phalanx drain 1a2b3c4d";
/// Needs a terminal, and a key to end.
const TOP: &str = "phalanx top";

/// The last line of the help of every command, found as people find them: from one help to the next.
fn examples(place: &Place, path: &[&str], found: &mut BTreeSet<String>) {
    let output = place.run(&[path, &["--help"]].concat());
    assert!(output.status.success(), "{path:?}: {}", text(&output.stderr));
    let help = text(&output.stdout);
    if !path.is_empty() {
        let example = help.trim_end().rsplit_once("Example:\n  ").map(|(_, example)| example.to_owned());
        found.insert(example.unwrap_or_else(|| panic!("{path:?} has no example:\n{help}")));
    }
    let commands = help.split_once("\nCommands:\n").map(|(_, rest)| rest).unwrap_or_default();
    for line in commands.lines().take_while(|line| line.starts_with("  ")) {
        let Some(name) = line.strip_prefix("  ").and_then(|line| line.split(' ').next()) else { continue };
        if !name.is_empty() && name != "help" {
            examples(place, &[path, &[name]].concat(), found);
        }
    }
}

#[test]
fn every_example_does_what_it_says() {
    let place = Place::new();
    for (from, to) in
        [("images-idx3-ubyte.gz", "images-idx3-ubyte.gz"), ("labels-idx1-ubyte.gz", "labels-idx1-ubyte.gz")]
    {
        fs::copy(root().join("datasets/digits").join(from), place.path().join(to)).expect("the digits are there");
    }
    let mut found = BTreeSet::new();
    examples(&place, &[], &mut found);
    let known: BTreeSet<String> = ORDER.iter().map(|example| (*example).to_owned()).collect();
    assert_eq!(found, known, "an example is missing here, or is no longer in a help");

    // Ports that nobody else has at the moment, instead of the ones that people would take.
    let ports: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let [listen, http] = [0, 1].map(|i: usize| ports[i].local_addr().expect("bound").to_string());
    drop(ports);
    let mut serving: Vec<Running> = Vec::new();
    for example in ORDER {
        let mut line = example.replace("127.0.0.1:7070", &listen);
        match example {
            PIN => {
                let step = place.json(&["checkpoint", "list", "digits", "--json"])[0]["step"].to_string();
                line = line.replace("100", &step);
            }
            DRAIN => {
                let status = place.run(&["status"]);
                let status = text(&status.stdout);
                let worker = status.lines().find(|line| line.contains("cpu")).expect("the worker");
                line = line.replace("1a2b3c4d", worker.split(' ').next().expect("its name"));
            }
            _ => {}
        }
        let mut arguments: Vec<&str> = line.split(' ').skip(1).collect();
        match example {
            COORDINATOR => {
                arguments.extend(["--http", &http]);
                serving.push(place.start(&arguments));
                let is_there = || place.run(&["list", "--coordinator", &listen]).status.success();
                assert!((0..1000).any(|_| is_there()), "the coordinator does not answer");
            }
            WORKER => {
                let launch = ["launch", "job.yaml", "--coordinator", &listen, "--json"];
                serving.push(place.start(&arguments));
                // Long enough to be looked at, stopped and taken up again.
                replace(&place, "job.yaml", "epochs: 3", "epochs: 40");
                let mut launched = place.start(&launch);
                launched.wait_for_step(5);
                serving.push(launched);
            }
            TOP => {
                let mut top = Screen::start(&place, &arguments);
                top.wait_for(&["job", "running"]);
                top.press("q");
                assert!(top.end().success());
            }
            _ => {
                let output = place.run(&arguments);
                let said = format!("{line}:\n{}{}", text(&output.stdout), text(&output.stderr));
                assert!(output.status.success(), "{said}");
                assert!(!output.stdout.is_empty() || arguments[0] == "wait" || line.contains("--parquet"), "{said}");
            }
        }
        if example.starts_with("phalanx init") {
            write_sweep(&place);
        }
    }
    for left in ["model/model.safetensors", "best/model.safetensors", "curves.parquet"] {
        assert!(place.path().join(left).is_file(), "{left} is missing");
    }
}

/// A sweep for the examples that need one.
fn write_sweep(place: &Place) {
    let line = "init sweep.yaml --sweep --data images-idx3-ubyte.gz --epochs 3 --yes";
    assert!(place.run(&line.split(' ').collect::<Vec<_>>()).status.success());
    replace(place, "sweep.yaml", "trials: 20", "trials: 4");
}

fn replace(place: &Place, file: &str, from: &str, to: &str) {
    let path = place.path().join(file);
    let before = fs::read_to_string(&path).expect("it was written before");
    assert!(before.contains(from), "{before}");
    fs::write(&path, before.replacen(from, to, 1)).expect("a file");
}
