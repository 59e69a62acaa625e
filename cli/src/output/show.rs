//! How a run that is being watched is shown: a bar on a terminal, plain lines elsewhere, JSON for machines.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use proto::v1::{Checkpoint, Run, RunState, StepPoint};
use serde_json::json;

use super::progress::{Change, Rate, percent, run_state_name};
use super::{Place, count, duration, escape, json, note, print, worker_name};
use crate::workers::WorkerEvent;

/// Plain lines about steps come no more often than this: a log file of a long run stays readable.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where progress goes.
pub(crate) enum Show {
    /// Redrawn in place, with lines above it.
    Bar(ProgressBar),
    /// Lines on standard error.
    Lines {
        /// When the last one about a step was written.
        last_step: Option<Instant>,
    },
    /// One object per line on standard output.
    Json,
    /// Nowhere.
    Quiet,
}

/// How a followed run ended.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// The run.
    pub(crate) run: Run,
    /// How long it was followed; `None` if it had ended before.
    pub(crate) seconds: Option<f64>,
    /// Over the steps that were seen.
    pub(crate) samples_per_second: Option<f64>,
    /// Where manifests lie, if on this machine.
    pub(crate) checkpoint_folder: Option<PathBuf>,
}

impl Summary {
    /// The checkpoint to name: the result, or the newest.
    pub(crate) fn checkpoint(&self) -> Option<&Checkpoint> {
        let checkpoints = &self.run.checkpoints;
        checkpoints.iter().rev().find(|c| c.result).or(checkpoints.last())
    }
}

impl Show {
    /// Picks by `json` and by whether somebody is watching.
    pub(crate) fn new(json: bool) -> Self {
        if json {
            return Show::Json;
        }
        if !std::io::stderr().is_terminal() {
            return Show::Lines { last_step: None };
        }
        let style = ProgressStyle::with_template("{bar:30.cyan/dim} {pos}/{len} steps  {msg}")
            .expect("the template is constant")
            .progress_chars("━╸─");
        Show::Bar(ProgressBar::no_length().with_style(style))
    }

    /// A bar where somebody is watching and text is wanted, and nothing at all elsewhere.
    pub(crate) fn bar_or_quiet(json: bool) -> Self {
        match Show::new(json) {
            Show::Bar(bar) => Show::Bar(bar),
            Show::Lines { .. } | Show::Json | Show::Quiet => Show::Quiet,
        }
    }

    /// The run begins to be watched.
    pub(crate) fn started(&self, run: &Run, place: &Place<'_>) -> std::io::Result<()> {
        let Place { coordinator, dashboard, workers } = *place;
        let Show::Json = self else {
            let workers = workers.map(|n| format!(" with {} on this machine", count(u64::from(n), "worker")));
            self.say(&format!("training {}{}", escape(&run.name), workers.as_deref().unwrap_or_default()));
            if let Some(url) = dashboard {
                self.say(&format!("dashboard at {url}"));
            }
            if workers.is_none() && run.state() == RunState::Waiting {
                self.say(&waiting_line(&run.reason));
            }
            return Ok(());
        };
        let line = json!({
            "event": "started",
            "run": run.name,
            "coordinator": coordinator,
            "dashboard": dashboard,
            "workers": workers,
        });
        print(&line.to_string())
    }

    /// Something changed.
    pub(crate) fn change(&mut self, change: &Change) -> std::io::Result<()> {
        if let Show::Json = self {
            return print(&json::change(change).to_string());
        }
        match change {
            Change::Step { point, total_steps, rate, accuracy } => self.step(point, *total_steps, *rate, *accuracy),
            Change::Checkpoint { .. } => {}
            Change::State { .. } | Change::Group { .. } | Change::Eval(_) => {
                if let Some(line) = change_line(change) {
                    self.say(&line);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, point: &StepPoint, total_steps: u64, rate: Option<Rate>, accuracy: Option<f64>) {
        match self {
            Show::Bar(bar) => {
                bar.set_length(total_steps);
                bar.set_message(step_figures(point, rate, accuracy));
                bar.set_position(point.step);
            }
            Show::Lines { last_step } => {
                let now = Instant::now();
                if last_step.is_none_or(|last| now.duration_since(last) >= LINE_EVERY) {
                    *last_step = Some(now);
                    note(&format!("step {}/{total_steps}  {}", point.step, step_figures(point, rate, accuracy)));
                }
            }
            Show::Json | Show::Quiet => {}
        }
    }

    /// Something happened to a worker process of ours.
    pub(crate) fn worker(&self, event: &WorkerEvent) -> std::io::Result<()> {
        match (self, event) {
            (Show::Json, WorkerEvent::Started { slot, pid }) => {
                print(&json!({ "event": "worker", "worker": slot, "pid": pid, "what": "started" }).to_string())
            }
            (Show::Json, WorkerEvent::Died { slot, pid, how }) => {
                print(&json!({ "event": "worker", "worker": slot, "pid": pid, "what": "died", "how": how }).to_string())
            }
            (_, WorkerEvent::Died { slot, pid, how }) => {
                self.say(&format!("worker {slot} (pid {pid}) died ({how}), starting another"));
                Ok(())
            }
            (_, WorkerEvent::Started { .. } | WorkerEvent::GaveUp { .. }) => Ok(()),
        }
    }

    /// Tells a person, above the bar if there is one. Machines are not told.
    pub(crate) fn say(&self, line: &str) {
        match self {
            Show::Bar(bar) => bar.suspend(|| note(line)),
            Show::Lines { .. } => note(line),
            Show::Json | Show::Quiet => {}
        }
    }

    /// The last word.
    pub(crate) fn summary(&self, summary: &Summary) -> std::io::Result<()> {
        self.clear();
        match self {
            Show::Json => print(&json::summary(summary).to_string()),
            Show::Bar(_) | Show::Lines { .. } => print(&summary_text(summary)),
            Show::Quiet => Ok(()),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Show::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// `None` for what needs no line of its own.
fn change_line(change: &Change) -> Option<String> {
    match change {
        Change::State { state, reason } => match state {
            RunState::Waiting => Some(waiting_line(reason)),
            RunState::Stopping => Some("stopping, saving the state".to_owned()),
            RunState::Unspecified
            | RunState::Forming
            | RunState::Running
            | RunState::Stopped
            | RunState::Paused
            | RunState::Pruned
            | RunState::Completed
            | RunState::Failed => None,
        },
        Change::Group { generation, members, step } => {
            let names: Vec<String> = members.iter().map(|id| worker_name(*id)).collect();
            let workers = count(members.len() as u64, "worker");
            Some(format!("group of {workers} at generation {generation}, from step {step} ({})", names.join(", ")))
        }
        Change::Eval(eval) => {
            Some(format!("step {}: accuracy {}, eval loss {:.4}", eval.step, percent(eval.accuracy), eval.loss))
        }
        Change::Step { .. } | Change::Checkpoint { .. } => None,
    }
}

fn waiting_line(reason: &str) -> String {
    let reason = escape(reason);
    if reason.starts_with("waiting") { reason } else { format!("waiting: {reason}") }
}

fn step_figures(point: &StepPoint, rate: Option<Rate>, accuracy: Option<f64>) -> String {
    let mut text = format!("loss {:.4}", point.loss);
    if let Some(accuracy) = accuracy {
        let _ = write!(text, "  accuracy {}", percent(accuracy));
    }
    if let Some(Rate { samples_per_second, left }) = rate {
        let _ = write!(text, "  {samples_per_second:.0} samples/s");
        if let Some(left) = left {
            let _ = write!(text, "  {} left", duration(left));
        }
    }
    text
}

fn summary_text(summary: &Summary) -> String {
    let Summary { run, seconds, samples_per_second, checkpoint_folder } = summary;
    let mut lines = vec![format!("run:            {}", escape(&run.name))];
    let state = run_state_name(run.state());
    lines.push(match run.reason.as_str() {
        "" => format!("state:          {state}"),
        reason => format!("state:          {state}: {}", escape(reason)),
    });
    lines.push(format!("steps:          {} of {}", run.step, run.total_steps));
    if let Some(eval) = run.evals.last() {
        let (accuracy, loss) = (percent(eval.accuracy), eval.loss);
        lines.push(format!("accuracy:       {accuracy} (eval loss {loss:.4}, step {})", eval.step));
    }
    if let Some(seconds) = seconds {
        lines.push(format!("wall time:      {}", duration(Duration::try_from_secs_f64(*seconds).unwrap_or_default())));
    }
    if let Some(rate) = samples_per_second {
        lines.push(format!("samples/s:      {rate:.0}"));
    }
    if let Some(checkpoint) = summary.checkpoint() {
        let path = json::checkpoint_path(checkpoint_folder.as_deref(), &checkpoint.manifest);
        lines.push(format!("checkpoint:     step {}, {}", checkpoint.step, escape(&path)));
        lines.push(format!("weights sha256: {}", escape(&checkpoint.weights_sha256)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::EvalPoint;

    #[test]
    fn changes_have_their_lines() {
        let group = Change::Group { generation: 3, members: vec![0x1234_5678, 1], step: 40 };
        let eval = Change::Eval(EvalPoint { step: 51, loss: 0.30, accuracy: 0.95, ..EvalPoint::default() });
        let waiting = Change::State { state: RunState::Waiting, reason: "1 of 2 workers\u{1b}".to_owned() };
        for (change, line) in [
            (group, "group of 2 workers at generation 3, from step 40 (12345678, 00000001)"),
            (eval, "step 51: accuracy 95.00 %, eval loss 0.3000"),
            (waiting, "waiting: 1 of 2 workers\\u{1b}"),
        ] {
            assert_eq!(change_line(&change).as_deref(), Some(line));
        }
    }

    #[test]
    fn a_step_shows_what_is_known() {
        let point = StepPoint { step: 3, loss: 1.5, ..StepPoint::default() };
        assert_eq!(step_figures(&point, None, None), "loss 1.5000");
        let rate = Rate { samples_per_second: 1234.5, left: Some(Duration::from_secs(90)) };
        let shown = step_figures(&point, Some(rate), Some(0.9));
        assert_eq!(shown, "loss 1.5000  accuracy 90.00 %  1234 samples/s  1 min 30 s left");
        let nan = StepPoint { loss: f64::NAN, ..point };
        assert_eq!(step_figures(&nan, None, None), "loss NaN");
    }

    #[test]
    fn the_summary_names_the_result() {
        let checkpoint = |step: u64, result| Checkpoint {
            step,
            manifest: format!("a/0/{step}.json"),
            weights_sha256: format!("hash{step}"),
            result,
            ..Checkpoint::default()
        };
        let mut run = Run { name: "a".to_owned(), step: 9, total_steps: 9, ..Run::default() };
        run.set_state(RunState::Completed);
        run.checkpoints = vec![checkpoint(5, false), checkpoint(9, true)];
        run.evals = vec![EvalPoint { step: 9, loss: 0.1, accuracy: 0.98, ..EvalPoint::default() }];
        let summary =
            Summary { run, seconds: Some(12.3), samples_per_second: None, checkpoint_folder: Some("s/c".into()) };
        assert_eq!(
            summary_text(&summary),
            "run:            a\n\
             state:          completed\n\
             steps:          9 of 9\n\
             accuracy:       98.00 % (eval loss 0.1000, step 9)\n\
             wall time:      12 s\n\
             checkpoint:     step 9, s/c/a/0/9.json\n\
             weights sha256: hash9"
        );
        let line = json::summary(&summary);
        assert_eq!(line["weights_sha256"], "hash9");
        assert_eq!(line["state"], "completed");
    }
}
