//! `phalanx plan`: what a sweep will take, before it is started.

use std::time::Duration;

use domain::search::study::Study;
use domain::search::study::simulate::{Portion, PowerLaw, World, simulate};
use domain::spec::sweep::SweepSpec;
use serde_json::{Value, json};

use crate::args::PlanArgs;
use crate::exit::{Exit, Failure};
use crate::job;
use crate::output::{duration, note, print, table};

/// The most workers that a plan looks at.
const WORKERS_MAX: u32 = 1024;

pub(crate) fn run(args: &PlanArgs) -> Result<Exit, Failure> {
    let spec = job::read_sweep(&args.file)?;
    let (study, unit) = spec.study().map_err(|cause| Failure::config(anyhow::Error::msg(cause)))?;
    let counts = std::iter::successors(Some(1u32), |n| Some(n * 2)).take_while(|n| *n <= WORKERS_MAX);
    let rows: Vec<Row> = counts.filter_map(|workers| Row::of(&spec, &study, workers, args.seconds)).collect();
    if args.json {
        print(&Value::from_iter(rows.iter().map(Row::json)).to_string())?;
        return Ok(Exit::Done);
    }
    let one = unit.name().trim_end_matches('s');
    note(&format!(
        "made-up learning curves, {} s for each {one} of a trial (--seconds); loss tells only one row from another",
        args.seconds
    ));
    let cells: Vec<[String; 7]> = rows.iter().map(Row::cells).collect();
    print(&table(
        ["WORKERS", "DURATION", "WORKER-HOURS", "IN USE", "TRIALS", &unit.name().to_uppercase(), "BEST LOSS"],
        &cells,
    ))?;
    Ok(Exit::Done)
}

/// A sweep on so many workers.
struct Row {
    workers: u32,
    makespan: Duration,
    in_use: f64,
    trials: u32,
    budget: u64,
    best: Option<f64>,
}

impl Row {
    /// Nothing if the workers are too few for one trial.
    fn of(spec: &SweepSpec, study: &Study, workers: u32, seconds: f64) -> Option<Self> {
        let slots = workers / spec.workers_per_trial;
        if slots == 0 {
            return None;
        }
        let mut curves = PowerLaw::new(&spec.space, spec.seed);
        curves.unit_ms = seconds * 1000.0;
        let mut curves = Curves { curves, objectives: spec.objectives.len() };
        let timeline = simulate(&mut study.clone(), slots, &mut curves);
        Some(Self {
            workers,
            makespan: Duration::from_millis(timeline.makespan_ms),
            in_use: timeline.utilisation(slots),
            trials: timeline.trials,
            budget: timeline.budget,
            best: timeline.best.map(|(_, loss)| loss),
        })
    }

    fn worker_hours(&self) -> f64 {
        self.makespan.as_secs_f64() * f64::from(self.workers) / 3600.0
    }

    fn cells(&self) -> [String; 7] {
        [
            self.workers.to_string(),
            duration(self.makespan),
            format!("{:.2}", self.worker_hours()),
            format!("{:.0} %", 100.0 * self.in_use),
            self.trials.to_string(),
            self.budget.to_string(),
            self.best.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}")),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "workers": self.workers,
            "seconds": self.makespan.as_secs_f64(),
            "worker_hours": self.worker_hours(),
            "in_use": self.in_use,
            "trials": self.trials,
            "budget": self.budget,
            "best_loss": self.best,
        })
    }
}

/// The same curve for every objective.
struct Curves {
    curves: PowerLaw,
    objectives: usize,
}

impl World for Curves {
    fn duration_ms(&mut self, portion: &Portion<'_>) -> u64 {
        self.curves.duration_ms(portion)
    }

    fn outcome(&mut self, portion: &Portion<'_>) -> Result<Vec<f64>, String> {
        Ok(vec![self.curves.outcome(portion)?[0]; self.objectives])
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn more_workers_are_faster_and_fewer_hours_are_never_gained() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/digits-sweep.yaml");
        let spec = job::read_sweep(&path).unwrap_or_else(|_| panic!("{} is a sweep file", path.display()));
        let (study, _) = spec.study().unwrap();
        let rows: Vec<Row> = [1, 4, 64].into_iter().filter_map(|n| Row::of(&spec, &study, n, 1.0)).collect();
        assert!(rows.iter().all(|row| row.trials == 60 && row.in_use <= 1.0));
        assert!(rows[0].in_use > 0.999, "one worker is never idle");
        assert!(rows[0].makespan > rows[1].makespan && rows[1].makespan > rows[2].makespan);
        let mut wide = spec.clone();
        wide.workers_per_trial = 8;
        assert!(Row::of(&wide, &study, 4, 1.0).is_none());
    }
}
