//! `phalanx sweep show`, `curves` and `best`: what came of a sweep, for people, tables and machines.

use std::path::Path;

use domain::ids::RunName;
use domain::spec::sweep::SweepSpec;
use proto::v1::{EvalPoint, ReadSweepEvalsResponse, TrialEvals};
use serde_json::json;

use crate::args::{CurvesFormat, ExportArgs, SweepBestArgs, SweepCurvesArgs, SweepShowArgs};
use crate::client::Client;
use crate::commands::checkpoint;
use crate::exit::{Exit, Failure};
use crate::export::{Half, must_be_new_file};
use crate::output::parquet::{Cells, Kind, Writer};
use crate::output::{count, note, print, sweep, terminal_width};
use crate::session::Session;

pub(crate) async fn show(args: SweepShowArgs) -> Result<Exit, Failure> {
    if let Some(path) = &args.parquet {
        must_be_new_file(path)?;
    }
    let mut session = Session::to_read(&args.place).await?;
    let found = session.client.sweep_results(&args.sweep).await;
    session.close().await?;
    let found = found?;
    if args.json {
        print(&sweep::results_json(&found).to_string())?;
    } else if args.csv {
        print(&sweep::csv(&sweep::columns(&found, &known_spec(&found.sweep)?)))?;
    } else if let Some(path) = &args.parquet {
        write_trials(path, &sweep::columns(&found, &known_spec(&found.sweep)?))?;
        note(&format!("{} written to {}", count(found.sweep.trials.len() as u64, "trial"), path.display()));
    } else {
        print(&sweep::sweep_text(&found, args.top, terminal_width()))?;
    }
    Ok(Exit::Done)
}

/// The specification, without which columns have no types.
fn known_spec(found: &proto::v1::Sweep) -> Result<SweepSpec, Failure> {
    sweep::spec(found).ok_or_else(|| {
        let message = "the coordinator sent a sweep that this program does not know";
        Failure::failed(anyhow::Error::msg(message))
            .hint("coordinator and command line may be of different versions; --json shows what was sent")
    })
}

fn write_trials(path: &Path, columns: &[sweep::Column]) -> Result<(), Failure> {
    let half = Half::create(path)?;
    let named: Vec<(&str, Kind)> = columns.iter().map(|column| (column.name.as_str(), column.cells.kind())).collect();
    let cells: Vec<Cells> = columns.iter().map(|column| column.cells.clone()).collect();
    let mut writer = Writer::new(&half.file, &named)?;
    writer.write(&cells)?;
    writer.close()?;
    half.finish()
}

pub(crate) async fn curves(args: SweepCurvesArgs) -> Result<Exit, Failure> {
    let format = args.format();
    if let CurvesFormat::Parquet(path) = &format {
        must_be_new_file(path)?;
    }
    let mut session = Session::to_read(&args.place).await?;
    let written = write_curves(&mut session.client, &args.sweep, &format).await;
    session.close().await?;
    written.map(|()| Exit::Done)
}

/// Gives out the evaluations as they come, so that a sweep of any size fits.
async fn write_curves(client: &mut Client, name: &RunName, format: &CurvesFormat<'_>) -> Result<(), Failure> {
    let mut pages = client.sweep_evals(name).await?;
    match format {
        CurvesFormat::Json => {
            while let Some(page) = pages.message().await? {
                print(&json_lines(&page).join("\n"))?;
            }
            Ok(())
        }
        CurvesFormat::Csv => {
            print(&CURVE.map(|(name, _)| name).join(","))?;
            while let Some(page) = pages.message().await? {
                let mut rows = Rows::default();
                rows.add(page);
                print(&rows.csv().join("\n"))?;
            }
            Ok(())
        }
        CurvesFormat::Parquet(path) => {
            let half = Half::create(path)?;
            let mut writer = Writer::new(&half.file, &CURVE)?;
            let (mut rows, mut written) = (Rows::default(), 0);
            while let Some(page) = pages.message().await? {
                rows.add(page);
                if rows.trial.len() >= GROUP_ROWS {
                    written += rows.trial.len();
                    writer.write(&std::mem::take(&mut rows).cells())?;
                }
            }
            written += rows.trial.len();
            writer.write(&rows.cells())?;
            writer.close()?;
            half.finish()?;
            note(&format!("{} written to {}", count(written as u64, "row"), path.display()));
            Ok(())
        }
    }
}

fn json_lines(page: &ReadSweepEvalsResponse) -> Vec<String> {
    let lines = page.trials.iter().flat_map(|TrialEvals { number, evals }| {
        evals.iter().map(move |EvalPoint { step, loss, accuracy, .. }| {
            json!({ "trial": number, "step": step, "eval_loss": loss, "eval_accuracy": accuracy }).to_string()
        })
    });
    lines.collect()
}

/// A row for each metric of each evaluation.
const CURVE: [(&str, Kind); 4] =
    [("trial", Kind::Integer), ("step", Kind::Integer), ("metric", Kind::Text), ("value", Kind::Number)];

/// Rows that are written together: some 10 MB, and enough for a dictionary to pay.
const GROUP_ROWS: usize = 200_000;

/// Rows of [`CURVE`].
#[derive(Default)]
struct Rows {
    trial: Vec<Option<i64>>,
    step: Vec<Option<i64>>,
    metric: Vec<Option<String>>,
    value: Vec<Option<f64>>,
}

impl Rows {
    fn add(&mut self, page: ReadSweepEvalsResponse) {
        for TrialEvals { number, evals } in page.trials {
            for EvalPoint { step, loss, accuracy, .. } in evals {
                for (metric, value) in [("eval_loss", loss), ("eval_accuracy", accuracy)] {
                    self.trial.push(Some(number.into()));
                    self.step.push(Some(step as i64));
                    self.metric.push(Some(metric.to_owned()));
                    self.value.push(Some(value));
                }
            }
        }
    }

    fn cells(self) -> [Cells; 4] {
        let Self { trial, step, metric, value } = self;
        [Cells::Integers(trial), Cells::Integers(step), Cells::Texts(metric), Cells::Numbers(value)]
    }

    fn csv(self) -> Vec<String> {
        let names = CURVE.map(|(name, _)| name.to_owned());
        let columns = names.into_iter().zip(self.cells()).map(|(name, cells)| sweep::Column { name, cells });
        sweep::csv_rows(&columns.collect::<Vec<_>>())
    }
}

pub(crate) async fn best(args: SweepBestArgs) -> Result<Exit, Failure> {
    let mut session = Session::to_read(&args.place).await?;
    let found = session.client.sweep(&args.sweep).await;
    session.close().await?;
    let found = found?;
    let Some(best) = sweep::best(&found) else {
        let message = format!("no trial of sweep {} has a result yet", args.sweep);
        let hint = format!("a trial has one when it rests for the first time: phalanx sweep show {}", args.sweep);
        return Err(Failure::config(anyhow::Error::msg(message)).hint(hint));
    };
    match &args.export {
        Some(folder) => export(best.run.parse().map_err(Failure::config)?, folder, &args).await,
        None => {
            let text = || sweep::trial_text(&found, best, terminal_width());
            let shown = if args.json { sweep::trial_json(best).to_string() } else { text() };
            print(&shown)?;
            Ok(Exit::Done)
        }
    }
}

async fn export(run: RunName, folder: &Path, args: &SweepBestArgs) -> Result<Exit, Failure> {
    checkpoint::export(ExportArgs {
        run,
        step: None,
        output: Some(folder.to_owned()),
        whole: false,
        place: args.place.clone(),
        json: args.json,
    })
    .await
}
