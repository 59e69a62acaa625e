//! What the profiles of a run's workers come to: a table of where the time of a step went.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{Show, count, escape, note, print, table};

/// The phases of a step, in their order.
const PHASES: [&str; 8] = ["data", "forward", "backward", "reduce", "agree", "update", "inspect", "report"];

/// Where the workers of a run write their profiles.
pub(crate) fn folder(state_dir: &Path, run: &str) -> PathBuf {
    state_dir.join("profiles").join(run)
}

/// Removes what an earlier command left in `folder`.
pub(crate) fn clear(folder: &Path) -> Result<(), Failure> {
    for path in files(folder)? {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Shows what lies in `folder`, as JSON or as a table.
pub(crate) fn show(folder: &Path, show: &Show) -> Result<(), Failure> {
    let paths = files(folder)?;
    let traces = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let Some(summary) = Summary::of(&traces) else {
        note("no profile: the run ended before the steps to profile, or the workers could not write");
        return Ok(());
    };
    if let Show::Json = show {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        print(&summary.json(&paths).to_string())?;
        return Ok(());
    }
    print(&summary.text())?;
    for path in &paths {
        note(&format!("profile: {}", escape(&path.display().to_string())));
    }
    note("  hint: ui.perfetto.dev opens these files");
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("profile-") && name.ends_with(".json") {
            files.push(path);
        }
    }
    // Ranks of more digits come later.
    files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    Ok(files)
}

fn read(path: &Path) -> Result<Value, Failure> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes).with_context(|| format!("{} is not a profile", path.display()))?)
}

/// Time and work of all events of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    name: String,
    /// The phase that it is a part of; empty for a phase itself.
    phase: String,
    micros: f64,
    operations: f64,
}

impl Row {
    fn add(&mut self, event: &Value) {
        self.micros += event["dur"].as_f64().unwrap_or_default();
        self.operations += event["args"]["operations"].as_f64().unwrap_or_default();
    }

    fn gflops(&self) -> Option<f64> {
        (self.operations > 0.0 && self.micros > 0.0).then(|| self.operations * 1e-3 / self.micros)
    }
}

/// A mean over all workers and all their profiled steps.
#[derive(Clone, Debug, PartialEq)]
struct Summary {
    workers: usize,
    /// Steps of all workers together.
    steps: f64,
    peak_gflops: f64,
    step: Row,
    /// Each phase, followed by its operators from the longest on.
    rows: Vec<Row>,
}

impl Summary {
    /// `None` if no step was profiled.
    fn of(traces: &[Value]) -> Option<Self> {
        let events: Vec<&Value> = traces.iter().filter_map(|trace| trace["traceEvents"].as_array()).flatten().collect();
        let of_kind = |kind: &'static str| events.iter().copied().filter(move |event| event["cat"] == kind);
        let mut step = Row { name: "step".to_owned(), ..Row::default() };
        let steps = of_kind("step").inspect(|event| step.add(event)).count();
        if steps == 0 {
            return None;
        }
        let mut rows = Vec::new();
        for phase in PHASES {
            let mut parts: Vec<Row> = Vec::new();
            for event in of_kind("operator").chain(of_kind("bucket")).filter(|event| event["args"]["phase"] == phase) {
                let name = if event["cat"] == "bucket" { "gradient buckets" } else { event["name"].as_str()? };
                match parts.iter_mut().find(|part| part.name == name) {
                    Some(part) => part.add(event),
                    None => {
                        let mut part = Row { name: name.to_owned(), phase: phase.to_owned(), ..Row::default() };
                        part.add(event);
                        parts.push(part);
                    }
                }
            }
            parts.sort_by(|left, right| right.micros.total_cmp(&left.micros));
            let mut whole = Row { name: phase.to_owned(), ..Row::default() };
            of_kind("phase").filter(|event| event["name"] == phase).for_each(|event| whole.add(event));
            whole.operations = parts.iter().map(|part| part.operations).sum();
            // Few jobs look into their model.
            if phase == "inspect" && whole.micros == 0.0 {
                continue;
            }
            step.operations += whole.operations;
            rows.push(whole);
            rows.append(&mut parts);
        }
        let peaks = traces.iter().filter_map(|trace| trace["otherData"]["peak_gflops"].as_f64());
        let peak_gflops = peaks.sum::<f64>() / traces.len() as f64;
        Some(Self { workers: traces.len(), steps: steps as f64, peak_gflops, step, rows })
    }

    fn text(&self) -> String {
        let Self { workers, steps, peak_gflops, step, rows } = self;
        let line = |row: &Row| {
            let indent = if row.phase.is_empty() { "" } else { "  " };
            let gflops = row.gflops();
            [
                format!("{indent}{}", escape(&row.name)),
                format!("{:.3}", row.micros / steps * 1e-3),
                format!("{:.1} %", 100.0 * row.micros / step.micros.max(f64::MIN_POSITIVE)),
                gflops.map(|rate| format!("{rate:.1}")).unwrap_or_default(),
                gflops.map(|rate| format!("{:.0} %", 100.0 * rate / peak_gflops)).unwrap_or_default(),
            ]
        };
        let lines: Vec<[String; 5]> = rows.iter().chain([step]).map(line).collect();
        let steps = *steps as usize / workers;
        format!(
            "profile of {} on {}; a large product reaches {peak_gflops:.1} GFLOP/s on each\n{}",
            count(steps as u64, "step"),
            count(*workers as u64, "worker"),
            table(["WHERE", "MS/STEP", "SHARE", "GFLOP/S", "OF PEAK"], &lines)
        )
    }

    fn json(&self, files: &[String]) -> Value {
        let Self { workers, steps, peak_gflops, step, rows } = self;
        let line = |row: &Row| {
            let phase = if row.phase.is_empty() { &row.name } else { &row.phase };
            let operator = (!row.phase.is_empty()).then_some(&row.name);
            let (ms, share) = (row.micros / steps * 1e-3, row.micros / step.micros.max(f64::MIN_POSITIVE));
            json!({"phase": phase, "operator": operator, "ms_per_step": ms, "share": share, "gflops": row.gflops()})
        };
        json!({
            "event": "profile", "files": files, "workers": workers, "peak_gflops": peak_gflops,
            "ms_per_step": step.micros / steps * 1e-3, "rows": rows.iter().map(line).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, name: &str, phase: &str, micros: f64, operations: u64) -> Value {
        json!({"cat": kind, "name": name, "dur": micros, "args": {"phase": phase, "operations": operations}})
    }

    #[test]
    fn time_is_shared_out_over_steps_and_workers() {
        let trace = |micros: f64| {
            let events = [
                event("step", "step 3", "", 10.0 * micros, 0),
                event("phase", "forward", "forward", 6.0 * micros, 0),
                event("layer", "vit", "forward", 5.0 * micros, 0),
                event("operator", "gelu", "forward", micros, 0),
                event("operator", "linear", "forward", 2.0 * micros, 3_000_000),
                event("operator", "linear", "forward", 2.0 * micros, 3_000_000),
                event("phase", "backward", "backward", 4.0 * micros, 0),
                event("bucket", "bucket 0", "backward", micros, 0),
            ];
            json!({"otherData": {"peak_gflops": 40.0}, "traceEvents": events})
        };
        let summary = Summary::of(&[trace(50.0), trace(150.0)]).unwrap();
        let shown = summary.text();
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0].join(" "), "profile of 1 step on 2 workers; a large product reaches 40.0 GFLOP/s on each");
        assert_eq!(lines[3], ["forward", "0.600", "60.0", "%", "10.0", "25", "%"]);
        assert_eq!(lines[4], ["linear", "0.400", "40.0", "%", "15.0", "38", "%"]);
        assert_eq!(lines[5], ["gelu", "0.100", "10.0", "%"]);
        assert_eq!(lines[7], ["gradient", "buckets", "0.100", "10.0", "%"]);
        assert_eq!(lines.last().unwrap(), &["step", "1.000", "100.0", "%", "6.0", "15", "%"]);
        assert_eq!(summary.json(&[])["rows"][2]["operator"], "linear");
        assert_eq!(Summary::of(&[]), None);
    }
}
