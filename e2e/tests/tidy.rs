//! The rules of the house that can be checked, checked. What a rule is for stands at its test.

#![expect(clippy::unwrap_used, reason = "a check that cannot read the repository has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use domain::spec::file::{self, schema};
use serde_json::Value;

/// Which of our crates a crate may use, in code and tests. `e2e` may use any in its tests.
const ARROWS: [(&str, &[&str]); 14] = [
    ("domain", &[]),
    ("proto", &["domain"]),
    ("store", &["domain"]),
    ("kernels", &[]),
    ("models", &["domain", "kernels"]),
    ("data", &["domain"]),
    ("collective", &["domain"]),
    ("sinks", &["domain", "store"]),
    ("dashboard", &["domain"]),
    ("telemetry", &[]),
    ("coordinator", &["domain", "proto", "store", "sinks", "dashboard", "telemetry"]),
    ("worker", &["domain", "proto", "store", "models", "data", "collective", "telemetry"]),
    ("cli", &["domain", "proto", "sinks", "telemetry", "coordinator", "worker"]),
    ("e2e", &[]),
];

/// What `domain` may use of other people's: no runtime, no file, no socket, no clock, no randomness of the system.
const DOMAIN_USES: [&str; 10] = [
    "libm",
    "nalgebra",
    "rand_chacha",
    "rpds",
    "serde",
    "serde_json",
    "serde-saphyr",
    "sha2",
    "sobol_burley",
    "thiserror",
];

#[test]
fn no_crate_points_backwards() {
    let members = members();
    let arrows = BTreeMap::from(ARROWS);
    assert_eq!(members.keys().map(String::as_str).collect::<Vec<_>>(), arrows.keys().copied().collect::<Vec<_>>());
    for (name, dependencies) in &members {
        for Dependency { name: used, kind } in dependencies.iter().filter(|d| members.contains_key(&d.name)) {
            let allowed = arrows[name.as_str()].contains(&used.as_str()) || (name == "e2e" && kind == "dev");
            assert!(allowed, "{name} must not depend on {used}: see ARROWS");
        }
    }
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    for (name, dependencies) in &members() {
        for Dependency { name: used, kind } in dependencies {
            let at = format!("{name} must not depend on {used}");
            match used.as_str() {
                // Only `models` holds tensors.
                "candle-core" => assert_eq!(name, "models", "{at}"),
                // Its layers cut the gradient without a word.
                "candle-nn" | "candle-transformers" => panic!("{at}"),
                "tonic" if ["telemetry", "e2e"].contains(&&**name) => assert_eq!(kind, "dev", "{at}"),
                "tonic" => assert!(["proto", "coordinator", "worker", "cli"].contains(&&**name), "{at}"),
                // Others open spans of `tracing`, or tell what is over.
                used if used.contains("opentelemetry") => assert!(name == "telemetry" || kind == "dev", "{at}"),
                "prost" => assert!(["proto", "sinks", "worker"].contains(&&**name), "{at}"),
                // Who trains reaches for no web server.
                "hyper-rustls" | "rustls" => assert_eq!(name, "sinks", "{at}"),
                "rusqlite" | "object_store" => assert_eq!(name, "store", "{at}"),
                "anyhow" => assert_eq!(name, "cli", "{at}"),
                _ => {}
            }
            if name == "domain" && kind != "dev" {
                assert!(DOMAIN_USES.contains(&used.as_str()), "{at}");
            }
        }
    }
}

/// Time and randomness are arguments there, and what is iterated has an order, or a replay would not repeat.
#[test]
fn domain_is_pure() {
    let banned = [
        "Instant",
        "SystemTime",
        "std::fs",
        "std::net",
        "std::thread",
        "std::env",
        "std::process",
        "tokio",
        "HashMap",
        "HashSet",
        "RandomState",
        "println!",
    ];
    refuse(&banned, |file| file.path.starts_with("domain/src") && !file.is_test(), "in domain");
}

/// These operators of candle have no gradient or a wrong one; `models/src/nn` has ours, checked by finite differences.
#[test]
fn operators_with_wrong_gradients_are_not_used() {
    let banned = [
        "candle_nn",
        "candle_transformers",
        "softmax_last_dim",
        "ops::layer_norm",
        "ops::rms_norm",
        "rotary_emb",
        "flash_attn",
        "sdpa",
        ".max_pool2d(",
        ".avg_pool2d(",
        ".scatter(",
        ".scatter_add(",
        ".scatter_set(",
        "upsample_",
        "interpolate1d",
        "interpolate2d",
        "conv_transpose1d",
        "Tensor::rand",
        "Tensor::randn",
    ];
    let outside_nn = |file: &Source| file.is("rs") && !file.path.starts_with("models/src/nn") && !file.is_this();
    refuse(&banned, outside_nn, "outside models/src/nn");
}

#[test]
fn nothing_is_left_for_later() {
    let banned = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];
    for file in sources() {
        for (number, line) in numbered(&file.text) {
            let found = banned.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{}:{number}: {line}", file.shown());
        }
    }
}

/// A lint that is silenced says why, and is no longer silenced once there is nothing to silence.
#[test]
fn lints_are_expected_not_allowed() {
    refuse(&[concat!("#[al", "low("), concat!("#![al", "low(")], |file| file.is("rs"), "anywhere");
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let banned = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("../sha", "red/")];
    for file in sources() {
        for (number, line) in numbered(&file.text) {
            let found = banned.iter().find(|path| line.contains(**path));
            assert!(found.is_none(), "{}:{number}: {line}", file.shown());
        }
    }
}

#[test]
fn every_library_says_what_it_is_for_and_no_file_is_endless() {
    for file in sources().iter().filter(|file| file.is("rs")) {
        let lines = file.text.lines().count();
        assert!(lines <= 700, "{} has {lines} lines, at most 700 are allowed: split it", file.shown());
        if file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs") {
            let (opening, words) = (file.text.lines().next().unwrap_or_default(), file.text.split_whitespace().count());
            assert!(opening.starts_with("//! ") && words > 5, "{} must open with what it is for", file.shown());
        }
    }
}

/// State has one owner; where a lock is shared all the same, a sentence says why that is right.
#[test]
fn shared_locks_are_justified() {
    for file in sources().iter().filter(|file| file.is("rs") && !file.is_test() && !file.is_this()) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("Arc<Mutex")) {
            let justified = lines[i.saturating_sub(5)..=i].iter().any(|line| line.contains("//"));
            assert!(justified, "{}:{}: {line}: say why this lock is shared", file.shown(), i + 1);
        }
    }
}

/// A protocol is what its messages say they mean.
#[test]
fn every_message_call_and_field_is_documented() {
    let mut checked = 0;
    for file in sources().iter().filter(|file| file.is("proto")) {
        let mut before = "";
        for (number, line) in numbered(&file.text) {
            let line = line.trim();
            let first = line.split_whitespace().next().unwrap_or_default();
            let declares = ["message", "enum", "service", "rpc", "oneof"].contains(&first)
                || (line.contains(" = ") && line.ends_with(';') && first != "syntax" && first != "option");
            if declares {
                assert!(before.starts_with("//"), "{}:{number}: {line}: say what it means", file.shown());
                checked += 1;
            }
            before = line;
        }
    }
    assert!(checked > 100, "only {checked} declarations were found");
}

#[test]
fn every_example_is_a_job() {
    let configs = configs();
    assert!(configs.len() >= 12, "examples are missing");
    let mut names = BTreeSet::new();
    for Source { path, text } in &configs {
        let base = root().join("configs");
        assert!(text.starts_with("# "), "{} must open with what it shows", path.display());
        if file::sweep::is_sweep(text) {
            let load = |path: &Path| fs::read_to_string(path).map_err(|e| e.to_string());
            let read = file::sweep::read(text, &path.display().to_string(), &base, load);
            let sweep = read.unwrap_or_else(|problems| panic!("{problems}"));
            sweep.study().unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
            assert!(names.insert(sweep.name.clone()), "{}: the name {} is taken", path.display(), sweep.name);
            continue;
        }
        let job = file::read(text, &path.display().to_string(), &base).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(names.insert(job.name.clone()), "{}: the name {} is taken", path.display(), job.name);
        assert!(job.batch_plan(60_000).total_steps() > 0, "{}", path.display());
    }
}

/// A key exists only if an example shows it and the reference explains it; and the README has that reference.
#[test]
fn every_key_is_shown_and_explained() {
    let shown: BTreeSet<String> = configs().iter().flat_map(|config| keys_of(&config.text)).collect();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let [of_jobs, of_sweeps] = schema::reference();
    for (reference, known, count) in [(of_jobs, schema::job_keys(), 50), (of_sweeps, schema::sweep_keys(), 35)] {
        assert!(known.len() > count, "only {} keys were found", known.len());
        let explained: BTreeSet<&str> = reference.iter().map(|(key, _, _)| *key).collect();
        for key in &known {
            let section = key.rsplit_once('.').map_or("", |(section, _)| section);
            assert!(explained.contains(key.as_str()) || explained.contains(section), "no reference explains {key}");
        }
        for (key, default, meaning) in reference {
            let is_section = |other: &String| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
            assert!(
                known.contains(*key) || known.iter().any(is_section) || ["job", "space"].contains(key),
                "no reader knows {key}"
            );
            assert!(shown.contains(*key), "no file in configs/ shows {key}");
            let (name, rest) = (format!("`{key}`"), format!(" | {default} | {meaning} |"));
            let is_row = |line: &str| line.starts_with("| `") && line.contains(&name) && line.ends_with(&rest);
            assert!(readme.lines().any(is_row), "README.md lacks | {name}{rest}");
        }
    }
}

/// Editors read the schema from a file; `phalanx schema` prints it.
#[test]
fn the_schema_files_are_what_the_readers_say() {
    for (name, schema) in [("job", schema::job()), ("sweep", schema::sweep())] {
        let file = root().join(format!("configs/schema/{name}.json"));
        let kept: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert!(kept == schema, "write it anew: phalanx schema {name} > {}", file.display());
    }
    for config in configs() {
        let name = if file::sweep::is_sweep(&config.text) { "sweep" } else { "job" };
        let line = format!("# yaml-language-server: $schema=schema/{name}.json");
        assert!(config.text.lines().any(|one| one == line), "{} lacks the line {line}", config.path.display());
    }
}

/// The keys that a block-style YAML file uses, as paths. Those of a holdout are those of its data.
fn keys_of(text: &str) -> Vec<String> {
    let mut parents: Vec<(usize, &str)> = Vec::new();
    let mut keys = Vec::new();
    for line in text.lines() {
        // An element of a list has its keys further in, as its first line has.
        let content = line.trim_start().trim_start_matches("- ");
        let Some((key, _)) = content.split_once(':').filter(|_| !content.starts_with('#')) else { continue };
        let indent = line.len() - content.len();
        parents.retain(|(parent, _)| *parent < indent);
        let path: Vec<&str> = parents.iter().map(|(_, key)| *key).chain([key]).collect();
        keys.push(path.join("."));
        parents.push((indent, key));
    }
    keys
}

fn configs() -> Vec<Source> {
    sources().into_iter().filter(|file| file.path.starts_with("configs") && file.is("yaml")).collect()
}

/// A file of the project.
struct Source {
    /// From the root.
    path: PathBuf,
    text: String,
}

impl Source {
    fn is(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|e| e == extension)
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.components().any(|part| part.as_os_str() == "tests")
    }

    /// This file names what it bans.
    fn is_this(&self) -> bool {
        self.path.ends_with("e2e/tests/tidy.rs")
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// Fails if the code (not the comments, not the tests at the end of a file) of a chosen file holds a banned word.
fn refuse(banned: &[&str], chosen: impl Fn(&Source) -> bool, place: &str) {
    let mut searched = 0;
    for file in sources().iter().filter(|file| chosen(file)) {
        searched += 1;
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in numbered(code) {
            let line = line.split("//").next().unwrap_or_default();
            let found = banned.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{}:{number}: {} is banned {place}: {line}", file.shown(), found.unwrap_or(&""));
        }
    }
    assert!(searched > 5, "only {searched} files were searched");
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in the workspace")
}

/// All text files of the project; not what was built, measured or left behind by runs.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(root(), &mut sources);
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    sources
}

const TEXT: [&str; 9] = ["rs", "toml", "proto", "yaml", "yml", "md", "py", "sh", "json"];

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let inside = path.strip_prefix(root()).expect("the walk began at the root").to_owned();
        let hidden = name.starts_with('.') && name != ".ci";
        let passed_over = ["target", "node_modules"].contains(&name.as_str()) || inside == Path::new("bench/results");
        if hidden || passed_over || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, sources);
        } else if name == "justfile"
            || inside == Path::new(".ci/run")
            || TEXT.iter().any(|e| name.ends_with(&format!(".{e}")))
        {
            sources.push(Source { path: inside, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

struct Dependency {
    name: String,
    /// `normal`, `dev` or `build`.
    kind: String,
}

/// The crates of the workspace with what each depends on, as Cargo sees it.
fn members() -> BTreeMap<String, Vec<Dependency>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("normal").to_owned();
    let dependency = |d: &Value| Dependency { name: text(&d["name"]), kind: text(&d["kind"]) };
    let member = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter().map(dependency).collect();
        (text(&package["name"]), dependencies)
    };
    metadata["packages"].as_array().unwrap().iter().map(member).collect()
}
