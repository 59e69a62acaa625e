//! Searchers and asynchronous halving on recorded learning curves. A table is a file of JSON:
//! `{"sizes": [cells of every parameter], "steps": [rising budgets], "losses": [[a curve for each combination]]}`, the
//! combinations in the order in which the last parameter changes fastest. `bench/tables.py` makes them and runs this.
//!
//! `table_bench FILE search SEARCHER PENDING FIRST..END` prints for each seed the best last loss after 50, 100 and 200
//! trials. `table_bench FILE halving SEARCHER ETA GOOD FIRST..END` prints for each seed after how many steps asynchronous
//! halving by `ETA` of what `SEARCHER` proposes, and random search without halving, have trained a trial to the end whose loss is
//! at most `GOOD`; `null` if they never do.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to the person who runs it")]

use std::collections::VecDeque;
use std::ops::Range;
use std::process::ExitCode;

use domain::search::gaussian_process::GaussianProcessSpec;
use domain::search::scheduler::{AshaSpec, Decision, NoneSpec, SchedulerSpec};
use domain::search::study::Limits;
use domain::search::tpe::TpeSpec;
use domain::search::{Domain, Next, Parameter, Searcher, SearcherSpec, Space, Study, StudySpec, Value};

/// After so many trials the best loss is noted.
const NOTED: [usize; 3] = [50, 100, 200];
/// A study that has found nothing good ends after so many trials.
const TRIALS_MOST: u32 = 20_000;

/// Recorded curves over a grid.
#[derive(serde::Deserialize)]
struct Table {
    /// Values of each parameter.
    sizes: Vec<usize>,
    /// Where the curves have their points.
    steps: Vec<u64>,
    /// A curve for each combination.
    losses: Vec<Vec<f64>>,
}

impl Table {
    fn space(&self) -> Space {
        let parameter = |(index, size): (usize, &usize)| Parameter {
            path: format!("x{index}"),
            domain: Domain::Ordinal { values: (0..*size as i64).map(Value::Integer).collect() },
            when: None,
        };
        Space::new(self.sizes.iter().enumerate().map(parameter).collect())
    }

    fn curve(&self, point: &[f64]) -> &[f64] {
        let cell = |(u, size): (&f64, &usize)| ((u * *size as f64) as usize).min(size - 1);
        let cells = point.iter().zip(&self.sizes).map(cell);
        let row = cells.zip(&self.sizes).fold(0, |row, (cell, size)| row * size + cell);
        &self.losses[row]
    }

    fn last_loss(&self, point: &[f64]) -> f64 {
        *self.curve(point).last().expect("a curve has points")
    }
}

/// The best loss after each trial. Trials finish in the order they began, and each is replaced when it finishes.
fn search(table: &Table, spec: &SearcherSpec, pending: usize, seed: u64) -> Option<Vec<f64>> {
    let space = table.space();
    let mut searcher = Searcher::new(spec, &space, seed);
    let mut running: VecDeque<(u32, f64)> = VecDeque::new();
    let mut best = f64::INFINITY;
    let mut history = Vec::new();
    for number in 0.. {
        if running.len() == pending {
            let (finished, loss) = running.pop_front()?;
            searcher.observe(finished, 1, &[loss]);
            searcher.close(finished);
            best = best.min(loss);
            history.push(best);
            if history.len() == NOTED[NOTED.len() - 1] {
                break;
            }
        }
        let point = searcher.propose(&space, number)?;
        running.push_back((number, table.last_loss(&point)));
    }
    Some(history)
}

/// Steps trained until a trial has come to the end of its curve with a loss of at most `good`, one trial at a time.
fn steps_until(table: &Table, searcher: &SearcherSpec, scheduler: SchedulerSpec, good: f64, seed: u64) -> Option<u64> {
    let limits = Limits { trials: Some(TRIALS_MOST), ..Limits::default() };
    let spec = StudySpec { searcher: searcher.clone(), scheduler, limits, lock_step: None, prior: Vec::new() };
    let mut study = Study::new(spec, table.space(), seed);
    let mut spent = 0;
    loop {
        let (trial, mut target) = match study.next() {
            Next::Start { trial, target, .. } | Next::Resume { trial, target } => (trial, target),
            Next::End { .. } => continue,
            Next::Wait(_) | Next::Finished(_) => return None,
        };
        loop {
            // Budgets of the study are points of the curve, from 1.
            let record = &study.trials()[trial as usize];
            let begun = record.budget().checked_sub(1).map_or(0, |point| table.steps[point as usize]);
            let loss = table.curve(record.point())[target as usize - 1];
            spent += table.steps[target as usize - 1] - begun;
            if target as usize == table.steps.len() && loss <= good {
                return Some(spent);
            }
            match study.rested(trial, target, &[loss]) {
                Decision::Continue { target: next } => target = next,
                _ => break,
            }
        }
    }
}

fn run(arguments: &[&str]) -> Option<()> {
    let [file, what, searcher, first, second @ .., seeds] = arguments else { return None };
    let table: Table = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let spec = match *searcher {
        "random" => SearcherSpec::Random,
        "sobol" => SearcherSpec::Sobol,
        "tpe" => SearcherSpec::Tpe(TpeSpec::default()),
        "gaussian_process" => SearcherSpec::GaussianProcess(GaussianProcessSpec::default()),
        _ => return None,
    };
    if *what == "halving" {
        let [good] = second else { return None };
        let (eta, good): (u32, f64) = (first.parse().ok()?, good.parse().ok()?);
        let max = table.steps.len() as u64;
        for seed in range(seeds)? {
            let asha = SchedulerSpec::Asha(AshaSpec { min: 1, max, eta, ..AshaSpec::default() });
            let halving = steps_until(&table, &spec, asha, good, seed);
            let random = steps_until(&table, &SearcherSpec::Random, SchedulerSpec::None(NoneSpec { max }), good, seed);
            let shown = |steps: Option<u64>| steps.map_or("null".to_owned(), |steps| steps.to_string());
            println!(r#"{{"seed":{seed},"halving":{},"random":{}}}"#, shown(halving), shown(random));
        }
        return Some(());
    }
    let pending = first.parse().ok().filter(|n| *n > 0)?;
    for seed in range(seeds)? {
        let best = search(&table, &spec, pending, seed)?;
        let noted = NOTED.map(|trials| best[trials - 1]);
        println!(r#"{{"searcher":"{searcher}","pending":{pending},"seed":{seed},"best":{noted:?}}}"#);
    }
    (*what == "search").then_some(())
}

fn range(text: &str) -> Option<Range<u64>> {
    let (first, end) = text.split_once("..")?;
    Some(first.parse().ok()?..end.parse().ok()?)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if run(&arguments).is_none() {
        eprintln!(
            "usage: table_bench FILE search SEARCHER PENDING FIRST..END | table_bench FILE halving SEARCHER ETA GOOD FIRST..END"
        );
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
