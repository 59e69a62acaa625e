//! What `phalanx top` knows and shows, and what keys do to it. No clock, no terminal, no connection.

use std::collections::{BTreeMap, VecDeque};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proto::v1::{LogLine, Run, Stall, StepPoint, Sweep, SweepTrial, TrialState, Worker};

use super::curve::Curve;
use crate::follow::is_ended;
use crate::output::sweep;

/// Lines of a log that are kept: more than any terminal is high.
const LOG_LINES_MAX: usize = 500;

/// Something heard from the coordinator.
#[derive(Debug)]
pub(crate) enum News {
    /// All runs, workers and sweeps, the latter without trials.
    Cluster { runs: Vec<Run>, workers: Vec<Worker>, sweeps: Vec<Sweep>, stall: Option<Stall> },
    /// A run that is watched changed.
    Run { run: Box<Run>, newest: Option<StepPoint>, samples_per_second: Option<f64> },
    /// The course of a run from the beginning, or from not long ago.
    Curves { run: String, curves: Curves },
    /// A sweep changed, with the trials that did.
    Sweep(Box<Sweep>),
    /// Lines of the log of the run that is open.
    Log { run: String, lines: Vec<LogLine> },
    /// Nothing is heard any more.
    Away(String),
    /// What came of a request to stop.
    Asked(String),
}

/// The course of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Curves {
    /// Loss of the training steps.
    pub(crate) loss: Curve,
    /// Loss of the held-out samples.
    pub(crate) eval_loss: Curve,
    /// Accuracy on them.
    pub(crate) accuracy: Curve,
}

impl Curves {
    fn cut(&mut self, step: u64) {
        for curve in [&mut self.loss, &mut self.eval_loss, &mut self.accuracy] {
            curve.cut(step);
        }
    }

    fn begin_with(&mut self, whole: Curves) {
        self.loss.begin_with(whole.loss);
        self.eval_loss.begin_with(whole.eval_loss);
        self.accuracy.begin_with(whole.accuracy);
    }
}

/// A run with its course.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunRow {
    pub(crate) run: Run,
    pub(crate) newest: Option<StepPoint>,
    pub(crate) samples_per_second: Option<f64>,
    pub(crate) curves: Curves,
}

impl RunRow {
    fn take(&mut self, run: Run, newest: Option<StepPoint>) {
        // A picture of the whole cluster may be older than what a watcher told, so it takes nothing back.
        if let Some(newest) = &newest {
            self.curves.cut(newest.step.max(run.step));
        }
        for eval in &run.evals {
            self.curves.eval_loss.push(eval.step, eval.loss);
            self.curves.accuracy.push(eval.step, eval.accuracy);
        }
        if let Some(newest) = newest {
            self.curves.loss.push(newest.step, newest.loss);
            self.newest = Some(newest);
        }
        if is_ended(&run) {
            self.samples_per_second = None;
        }
        self.run = run;
    }

    /// Steps that are done.
    pub(crate) fn step(&self) -> u64 {
        self.newest.map_or(self.run.step, |newest| newest.step)
    }
}

/// A sweep with its trials, and what is shown of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SweepRow {
    pub(crate) sweep: Sweep,
    /// Trials that train, rest, completed, were stopped early, failed.
    pub(crate) counts: [usize; 5],
    /// The number and run of the best trial, and how good it is.
    pub(crate) best: Option<(u32, String, String)>,
}

impl SweepRow {
    fn take(&mut self, mut newest: Sweep) {
        let mut trials: BTreeMap<u32, SweepTrial> =
            std::mem::take(&mut self.sweep.trials).into_iter().map(|trial| (trial.number, trial)).collect();
        trials.extend(std::mem::take(&mut newest.trials).into_iter().map(|trial| (trial.number, trial)));
        newest.trials = trials.into_values().collect();
        self.counts = [0; 5];
        for trial in &newest.trials {
            match trial.state() {
                TrialState::Training | TrialState::Unspecified => self.counts[0] += 1,
                TrialState::Paused => self.counts[1] += 1,
                TrialState::Completed => self.counts[2] += 1,
                TrialState::Pruned => self.counts[3] += 1,
                TrialState::Failed => self.counts[4] += 1,
            }
        }
        let best = sweep::best(&newest);
        self.best = best.map(|best| (best.number, best.run.clone(), sweep::values_text(&newest, best)));
        self.sweep = newest;
    }
}

/// A part of the screen in which something can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Panel {
    Workers,
    #[default]
    Runs,
    Sweeps,
}

/// What lies over everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Over {
    #[default]
    Nothing,
    /// The keys are explained.
    Help,
    /// Is this run or sweep to be stopped?
    Stop(String),
}

/// What a key asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// To end.
    Quit,
    /// To hear all about a run.
    Open(String),
    /// No longer to.
    Close,
    /// To stop a run or sweep.
    Stop(String),
}

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Top {
    pub(crate) coordinator: String,
    /// Why nothing is heard, while nothing is.
    pub(crate) away: Option<String>,
    /// Why nothing can be made durable, if that is so.
    pub(crate) stall: Option<Stall>,
    /// Whether the first answer has come.
    pub(crate) is_known: bool,
    pub(crate) workers: Vec<Worker>,
    /// All of them: live ones in the order they were submitted in, then ended ones, the newest first.
    runs: Vec<RunRow>,
    /// Live ones, then ended ones, the newest first.
    pub(crate) sweeps: Vec<SweepRow>,
    pub(crate) panel: Panel,
    /// What is chosen in each panel, by name, so that it stays chosen when the order changes.
    chosen: BTreeMap<Panel, String>,
    /// The run that fills the screen.
    pub(crate) open: Option<String>,
    pub(crate) log: VecDeque<LogLine>,
    pub(crate) over: Over,
    /// What came of the last request.
    pub(crate) notice: Option<String>,
}

impl Top {
    /// Nothing is known yet.
    pub(crate) fn new(coordinator: &str) -> Self {
        Self { coordinator: coordinator.to_owned(), ..Self::default() }
    }

    /// Takes over what was heard.
    pub(crate) fn hear(&mut self, news: News) {
        match news {
            News::Cluster { runs, workers, sweeps, stall } => {
                self.stall = stall;
                self.hear_cluster(runs, workers, sweeps);
            }
            News::Run { run, newest, samples_per_second } => {
                if let Some(row) = self.runs.iter_mut().find(|row| row.run.name == run.name) {
                    row.samples_per_second = samples_per_second;
                    row.take(*run, newest);
                }
            }
            News::Curves { run, curves } => {
                if let Some(row) = self.runs.iter_mut().find(|row| row.run.name == run) {
                    row.curves.begin_with(curves);
                }
            }
            News::Sweep(newest) => {
                if let Some(row) = self.sweeps.iter_mut().find(|row| row.sweep.name == newest.name) {
                    row.take(*newest);
                }
            }
            News::Log { run, lines } => {
                if self.open.as_ref() == Some(&run) {
                    self.log.extend(lines);
                    let surplus = self.log.len().saturating_sub(LOG_LINES_MAX);
                    self.log.drain(..surplus);
                }
            }
            News::Away(why) => self.away = Some(why),
            News::Asked(notice) => self.notice = Some(notice),
        }
    }

    fn hear_cluster(&mut self, runs: Vec<Run>, workers: Vec<Worker>, sweeps: Vec<Sweep>) {
        self.away = None;
        self.is_known = true;
        self.workers = workers;
        let mut known: BTreeMap<String, RunRow> =
            std::mem::take(&mut self.runs).into_iter().map(|row| (row.run.name.clone(), row)).collect();
        for run in runs {
            let mut row = known.remove(&run.name).unwrap_or_default();
            row.take(run, None);
            self.runs.push(row);
        }
        self.runs.sort_by_key(|RunRow { run, .. }| {
            let age = if is_ended(run) { u64::MAX - run.ended_at_ms.unwrap_or_default() } else { run.submitted_at_ms };
            (is_ended(run), age, run.name.clone())
        });
        let mut known: BTreeMap<String, SweepRow> =
            std::mem::take(&mut self.sweeps).into_iter().map(|row| (row.sweep.name.clone(), row)).collect();
        for sweep in sweeps {
            let mut row = known.remove(&sweep.name).unwrap_or_default();
            let trials = std::mem::take(&mut row.sweep.trials);
            row.sweep = Sweep { trials, ..sweep };
            self.sweeps.push(row);
        }
        self.sweeps.sort_by_key(|SweepRow { sweep, .. }| {
            let ended = sweep.ended_at_ms;
            (ended.is_some(), ended.map_or(sweep.submitted_at_ms, |ended| u64::MAX - ended), sweep.name.clone())
        });
    }

    /// The runs that have a line: a trial that has ended is counted with its sweep.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &RunRow> {
        self.runs.iter().filter(|RunRow { run, .. }| run.sweep.is_empty() || !is_ended(run))
    }

    /// The run of that name.
    pub(crate) fn run_row(&self, name: &str) -> Option<&RunRow> {
        self.runs.iter().find(|row| row.run.name == name)
    }

    /// What can be chosen in `panel`, from top to bottom.
    fn names(&self, panel: Panel) -> Vec<String> {
        match panel {
            Panel::Workers => self.workers.iter().map(|worker| worker.id.to_string()).collect(),
            Panel::Runs => self.listed().map(|row| row.run.name.clone()).collect(),
            Panel::Sweeps => self.sweeps.iter().map(|row| row.sweep.name.clone()).collect(),
        }
    }

    /// Which line of `panel` is chosen; the first if nothing is.
    pub(crate) fn chosen(&self, panel: Panel) -> usize {
        let chosen = self.chosen.get(&panel);
        self.names(panel).iter().position(|name| Some(name) == chosen).unwrap_or(0)
    }

    /// The run that is open.
    pub(crate) fn opened(&self) -> Option<&RunRow> {
        self.run_row(self.open.as_ref()?)
    }

    /// The sweep of that name.
    fn sweep_row(&self, name: &str) -> Option<&SweepRow> {
        self.sweeps.iter().find(|row| row.sweep.name == name)
    }

    /// What a key does.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Action {
        let is_control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control_c {
            return Action::Quit;
        }
        match std::mem::take(&mut self.over) {
            Over::Help => return Action::None,
            Over::Stop(name) => {
                return if key.code == KeyCode::Char('y') { Action::Stop(name) } else { Action::None };
            }
            Over::Nothing => {}
        }
        self.notice = None;
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?') => self.over = Over::Help,
            KeyCode::Char('s') => self.ask_to_stop(),
            KeyCode::Esc | KeyCode::Backspace if self.open.is_some() => {
                self.open = None;
                self.log.clear();
                return Action::Close;
            }
            _ if self.open.is_some() => {}
            KeyCode::Enter => return self.open_chosen(),
            KeyCode::Tab | KeyCode::Right => self.panel = self.next_panel(1),
            KeyCode::BackTab | KeyCode::Left => self.panel = self.next_panel(2),
            KeyCode::Up | KeyCode::Char('k') => self.choose(|at| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(|at| at + 1),
            KeyCode::PageUp => self.choose(|at| at.saturating_sub(10)),
            KeyCode::PageDown => self.choose(|at| at + 10),
            KeyCode::Home => self.choose(|_| 0),
            KeyCode::End => self.choose(|_| usize::MAX),
            _ => {}
        }
        Action::None
    }

    fn next_panel(&self, by: usize) -> Panel {
        let panels = [Panel::Workers, Panel::Runs, Panel::Sweeps];
        panels[(self.panel as usize + by) % panels.len()]
    }

    fn choose(&mut self, to: impl Fn(usize) -> usize) {
        let names = self.names(self.panel);
        if let Some(last) = names.len().checked_sub(1) {
            let at = to(self.chosen(self.panel)).min(last);
            self.chosen.insert(self.panel, names[at].clone());
        }
    }

    /// The name that is chosen, or is open.
    fn subject(&self) -> Option<String> {
        match (&self.open, self.panel) {
            (Some(open), _) => Some(open.clone()),
            (None, Panel::Workers) => {
                let worker = self.workers.get(self.chosen(Panel::Workers))?;
                Some(worker.run.clone()).filter(|run| !run.is_empty())
            }
            (None, panel) => self.names(panel).get(self.chosen(panel)).cloned(),
        }
    }

    fn ask_to_stop(&mut self) {
        let Some(name) = self.subject() else { return };
        let run = self.run_row(&name).map(|row| is_ended(&row.run));
        let sweep = self.sweep_row(&name).map(|row| row.sweep.ended_at_ms.is_some());
        match run.or(sweep) {
            Some(false) => self.over = Over::Stop(name),
            Some(true) => self.notice = Some(format!("{name} has ended")),
            None => {}
        }
    }

    /// Opens the run that is chosen, that a chosen worker is in, or that is the best of a chosen sweep.
    fn open_chosen(&mut self) -> Action {
        let Some(name) = self.subject() else { return Action::None };
        let run = match self.panel {
            Panel::Workers | Panel::Runs => Some(name),
            Panel::Sweeps => {
                let best = self.sweep_row(&name).and_then(|row| row.best.clone());
                if best.is_none() {
                    self.notice = Some(format!("no trial of {name} has a result yet"));
                }
                best.map(|(_, run, _)| run)
            }
        };
        let Some(run) = run else { return Action::None };
        self.open = Some(run.clone());
        self.log.clear();
        Action::Open(run)
    }
}
