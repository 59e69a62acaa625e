//! `phalanx export`: every point of a run, for tables and for TensorBoard.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use domain::batch::BatchPlan;
use domain::ids::Time;
use domain::record::Record;
use proto::convert;
use proto::v1::{self, ReadHistoryResponse, ReadInspectionsResponse, Run, StoredPoint};
use serde_json::{Value, json};
use sinks::{points, tensorboard};
use tonic::Streaming;

use crate::args::{PointsFormat, RunExportArgs};
use crate::client::spec_of;
use crate::exit::{Exit, Failure};
use crate::export::{Half, must_be_new_file};
use crate::output::parquet::{Cells, Kind, Writer};
use crate::output::{count, note, print, sweep};
use crate::session::Session;

pub(crate) async fn run(args: RunExportArgs) -> Result<Exit, Failure> {
    let format = args.format();
    if let PointsFormat::Parquet(path) = &format {
        must_be_new_file(path)?;
    }
    let mut session = Session::to_read(&args.place).await?;
    let written = async {
        let run = session.client.run(&args.run).await?;
        let pages = session.client.history(&args.run).await?;
        let seen = match format {
            PointsFormat::TensorBoard(_) => Some(session.client.inspections(&args.run).await?),
            PointsFormat::Json | PointsFormat::Csv | PointsFormat::Parquet(_) => None,
        };
        write(&About::of(&run)?, pages, seen, &format).await
    };
    let written = written.await;
    session.close().await?;
    written.map(|()| Exit::Done)
}

/// What points need to know of their run.
struct About {
    name: String,
    submitted_at: Time,
    /// Unknown until a worker has opened the data.
    plan: Option<BatchPlan>,
}

impl About {
    fn of(run: &Run) -> Result<Self, Failure> {
        let plan = match run.train_samples {
            0 => None,
            samples => Some(spec_of(run)?.batch_plan(samples)),
        };
        Ok(Self { name: run.name.clone(), submitted_at: Time(run.submitted_at_ms), plan })
    }
}

/// Gives points out as they come, so that a run of any length fits.
async fn write(
    about: &About,
    mut pages: Streaming<ReadHistoryResponse>,
    seen: Option<Streaming<ReadInspectionsResponse>>,
    format: &PointsFormat<'_>,
) -> Result<(), Failure> {
    match format {
        PointsFormat::Json => {
            while let Some(page) = pages.message().await? {
                let mut rows = Rows::default();
                rows.add(page, about)?;
                print(&rows.json().join("\n"))?;
            }
            Ok(())
        }
        PointsFormat::Csv => {
            print(&POINT.map(|(name, _)| name).join(","))?;
            while let Some(page) = pages.message().await? {
                let mut rows = Rows::default();
                rows.add(page, about)?;
                print(&rows.csv().join("\n"))?;
            }
            Ok(())
        }
        PointsFormat::Parquet(path) => write_parquet(about, pages, path).await,
        PointsFormat::TensorBoard(folder) => write_events(about, pages, seen, folder).await,
    }
}

async fn write_parquet(about: &About, mut pages: Streaming<ReadHistoryResponse>, path: &Path) -> Result<(), Failure> {
    let half = Half::create(path)?;
    let mut writer = Writer::new(&half.file, &POINT)?;
    let (mut rows, mut written) = (Rows::default(), 0);
    while let Some(page) = pages.message().await? {
        rows.add(page, about)?;
        if rows.step.len() >= GROUP_ROWS {
            written += rows.step.len();
            writer.write(&std::mem::take(&mut rows).cells())?;
        }
    }
    written += rows.step.len();
    writer.write(&rows.cells())?;
    writer.close()?;
    half.finish()?;
    note(&format!("{} written to {}", count(written as u64, "point"), path.display()));
    Ok(())
}

async fn write_events(
    about: &About,
    mut pages: Streaming<ReadHistoryResponse>,
    seen: Option<Streaming<ReadInspectionsResponse>>,
    folder: &Path,
) -> Result<(), Failure> {
    let folder = folder.join(&about.name);
    let path = folder.join(tensorboard::file_name(about.submitted_at));
    must_be_new_file(&path)?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))
        .map_err(Failure::config)?;
    let half = Half::create(&path)?;
    let put = |bytes: Vec<u8>| (&half.file).write_all(&bytes).with_context(|| half.cannot_write());
    put(tensorboard::beginning(about.submitted_at))?;
    let mut written = 0;
    while let Some(ReadHistoryResponse { points: page }) = pages.message().await? {
        let mut bytes = Vec::new();
        for point in page.into_iter().filter(|point| !point.rolled_back) {
            let Point { record, samples, at, rolled_back: _ } = Point::of(point)?;
            let points = points(&record, samples);
            written += points.len();
            bytes.extend(tensorboard::scalars(at.unwrap_or(about.submitted_at), record.position().step.0, &points));
        }
        put(bytes)?;
    }
    let mut looks = 0;
    if let Some(mut seen) = seen {
        while let Some(ReadInspectionsResponse { inspection, rolled_back, at_ms }) = seen.message().await? {
            let Some(inspection) = inspection.filter(|_| !rolled_back) else { continue };
            let inspection = convert::inspection_from_wire(inspection);
            let inspection = inspection.context("the coordinator sent an inspection that does not hold together")?;
            put(tensorboard::inspection(Time(at_ms), &inspection))?;
            looks += 1;
        }
    }
    half.finish()?;
    let inside = if looks > 0 { format!(" and {}", count(looks, "inspection")) } else { String::new() };
    note(&format!("{}{inside} written to {}", count(written as u64, "point"), path.display()));
    Ok(())
}

/// A step or an evaluation, with what is known beside its figures.
struct Point {
    record: Record,
    samples: Option<u64>,
    at: Option<Time>,
    rolled_back: bool,
}

impl Point {
    fn of(point: StoredPoint) -> Result<Self, Failure> {
        use v1::record::Body;
        let StoredPoint { point, rolled_back, at_ms } = point;
        let (body, samples) = match point {
            Some(v1::stored_point::Point::Step(step)) => {
                let samples = Some(step.samples).filter(|samples| *samples > 0);
                (Some(Body::Step(v1::StepRecord { point: Some(step), reads: Vec::new() })), samples)
            }
            Some(v1::stored_point::Point::Eval(eval)) => (Some(Body::Eval(eval)), None),
            None => (None, None),
        };
        let record = convert::record_from_wire(v1::Record { body });
        let record = record.context("the coordinator sent a point that this program does not know")?;
        Ok(Self { record, samples, at: at_ms.map(Time), rolled_back })
    }
}

/// A row for each figure of each step and evaluation.
const POINT: [(&str, Kind); 7] = [
    ("step", Kind::Integer),
    ("epoch", Kind::Number),
    ("metric", Kind::Text),
    ("value", Kind::Number),
    ("seconds", Kind::Number),
    ("generation", Kind::Integer),
    ("rolled_back", Kind::Boolean),
];

/// Rows that are written together: some 20 MB, and enough for a dictionary to pay.
const GROUP_ROWS: usize = 200_000;

/// Rows of [`POINT`].
#[derive(Default)]
struct Rows {
    step: Vec<Option<i64>>,
    epoch: Vec<Option<f64>>,
    metric: Vec<Option<String>>,
    value: Vec<Option<f64>>,
    seconds: Vec<Option<f64>>,
    generation: Vec<Option<i64>>,
    rolled_back: Vec<Option<bool>>,
}

impl Rows {
    fn add(&mut self, page: ReadHistoryResponse, about: &About) -> Result<(), Failure> {
        for point in page.points {
            let Point { record, samples, at, rolled_back } = Point::of(point)?;
            let step = record.position().step.0;
            let epoch = about.plan.as_ref().map(|plan| plan.epochs_at(step));
            let seconds = at.map(|at| at.0.saturating_sub(about.submitted_at.0) as f64 / 1e3);
            for (metric, value) in points(&record, samples) {
                self.step.push(Some(step as i64));
                self.epoch.push(epoch);
                self.metric.push(Some(metric.to_owned()));
                self.value.push(Some(value));
                self.seconds.push(seconds);
                self.generation.push(Some(record.generation().0 as i64));
                self.rolled_back.push(Some(rolled_back));
            }
        }
        Ok(())
    }

    fn json(&self) -> Vec<String> {
        let row = |at: usize| {
            let value = self.value[at].map_or(Value::Null, number);
            json!({
                "step": self.step[at], "epoch": self.epoch[at], "metric": self.metric[at], "value": value,
                "seconds": self.seconds[at], "generation": self.generation[at], "rolled_back": self.rolled_back[at],
            })
            .to_string()
        };
        (0..self.step.len()).map(row).collect()
    }

    fn cells(self) -> [Cells; 7] {
        let Self { step, epoch, metric, value, seconds, generation, rolled_back } = self;
        [
            Cells::Integers(step),
            Cells::Numbers(epoch),
            Cells::Texts(metric),
            Cells::Numbers(value),
            Cells::Numbers(seconds),
            Cells::Integers(generation),
            Cells::Booleans(rolled_back),
        ]
    }

    fn csv(self) -> Vec<String> {
        let names = POINT.map(|(name, _)| name.to_owned());
        let columns = names.into_iter().zip(self.cells()).map(|(name, cells)| sweep::Column { name, cells });
        sweep::csv_rows(&columns.collect::<Vec<_>>())
    }
}

/// What is no number is a word, for JSON has none for it.
fn number(value: f64) -> Value {
    if value.is_finite() { value.into() } else { format!("{value:?}").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_same_in_every_form() {
        let step = v1::StepPoint {
            step: 3,
            generation: 2,
            loss: f64::NAN,
            grad_norm: f64::INFINITY,
            lr: 0.1,
            micros: 500_000,
            samples: 8,
            ..Default::default()
        };
        let eval = v1::EvalPoint { step: 3, generation: 2, loss: 0.1 + 0.2, accuracy: 1.0, samples: 9 };
        let stored = |point, at_ms| StoredPoint { point: Some(point), rolled_back: at_ms == Some(2500), at_ms };
        let page = || ReadHistoryResponse {
            points: vec![
                stored(v1::stored_point::Point::Step(step), Some(2500)),
                stored(v1::stored_point::Point::Eval(eval), None),
            ],
        };
        let about = About { name: "a".to_owned(), submitted_at: Time(1000), plan: None };
        let mut rows = Rows::default();
        rows.add(page(), &about).unwrap();
        let json = rows.json();
        assert_eq!(json.len(), 8);
        let first: Value = serde_json::from_str(&json[0]).unwrap();
        assert_eq!(
            first,
            json!({
                "step": 3, "epoch": null, "metric": "loss", "value": "NaN", "seconds": 1.5, "generation": 2,
                "rolled_back": true,
            })
        );
        let csv = rows.csv();
        assert_eq!(csv[0], "3,,loss,NaN,1.5,2,true");
        assert_eq!(csv[2], "3,,grad_norm,inf,1.5,2,true");
        assert_eq!(csv[5], "3,,samples_per_second,16.0,1.5,2,true");
        assert_eq!(csv[6], "3,,eval_loss,0.30000000000000004,,2,false");
    }
}
