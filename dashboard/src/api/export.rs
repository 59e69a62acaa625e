//! Tables to take along.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::ids::{RunName, Step};
use domain::record::Record;
use domain::search::Value as Tried;
use domain::series::Figure;
use domain::view::SweepTrialView;
use futures::stream;

use super::asked::Named;
use super::{known_run, known_sweep, picture};
use crate::failure::Problem;
use crate::{App, Failure};

/// Records read at once.
const RECORDS: usize = 2_000;

fn download(name: &RunName, body: Body) -> Response {
    let file = format!("attachment; filename=\"{name}.csv\"");
    ([(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, file)], body)
        .into_response()
}

/// Rows as bytes.
fn table(rows: impl IntoIterator<Item = Vec<String>>) -> Bytes {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(&row).expect("writing to memory does not fail, and all rows of a table are as long");
    }
    Bytes::from(writer.into_inner().expect("writing to memory does not fail"))
}

/// A text that a spreadsheet does not take for a formula.
fn text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

fn number(value: f64) -> String {
    format!("{value:?}")
}

/// All steps of a run that count, as CSV
#[utoipa::path(
    get, path = "/api/v1/runs/{name}/export.csv", tag = "export", params(("name" = String, Path)),
    responses(
        (status = 200, content_type = "text/csv", body = String),
        (status = 400, body = Problem), (status = 404, body = Problem)
    )
)]
pub(crate) async fn run(State(app): State<App>, Named(name): Named) -> Result<Response, Failure> {
    let run = known_run(&picture(&app), &name)?;
    let mut head: Vec<String> = ["step", "generation", "skipped"].map(str::to_owned).to_vec();
    head.extend(Figure::ALL.map(|figure| figure.name().to_owned()));
    head.extend(["eval_loss", "eval_accuracy"].map(str::to_owned));
    let head = stream::iter([Ok::<Bytes, String>(table([head]))]);
    let rows = stream::unfold((app, run, Step(0), 0), |(app, run, after, mut elapsed_micros)| async move {
        let name = run.view.name.clone();
        let records = match app.source.records(name, after, RECORDS).await {
            Ok(records) => records,
            // The answer has begun: cutting it off is all that tells the reader.
            Err(failure) => return Some((Err(failure.to_string()), (app, run, Step(u64::MAX), 0))),
        };
        let last = records.last()?.position().step;
        let mut rows: Vec<Vec<String>> = Vec::new();
        for record in &records {
            match record {
                Record::Step(step) => {
                    let samples = run.samples_of(step);
                    let mut row = vec![step.step.to_string(), step.generation.to_string(), step.skipped.to_string()];
                    elapsed_micros = step.micros.saturating_add(elapsed_micros);
                    row.extend(Figure::ALL.map(|figure| number(figure.of(step, samples, elapsed_micros))));
                    row.extend([String::new(), String::new()]);
                    rows.push(row);
                }
                // It follows its step on the same page.
                Record::Eval(eval) => {
                    if let Some([.., loss, accuracy]) = rows.last_mut().map(Vec::as_mut_slice) {
                        (*loss, *accuracy) = (number(eval.loss), number(eval.accuracy));
                    }
                }
            }
        }
        Some((Ok(table(rows)), (app, run, last, elapsed_micros)))
    });
    Ok(download(&name, Body::from_stream(futures::StreamExt::chain(head, rows))))
}

/// All trials of a sweep, as CSV
#[utoipa::path(
    get, path = "/api/v1/sweeps/{name}/export.csv", tag = "export", params(("name" = String, Path)),
    responses(
        (status = 200, content_type = "text/csv", body = String),
        (status = 400, body = Problem), (status = 404, body = Problem)
    )
)]
pub(crate) async fn sweep(State(app): State<App>, Named(name): Named) -> Result<Response, Failure> {
    let picture = picture(&app);
    let sweep = known_sweep(&picture, &name)?;
    let paths: Vec<&str> = sweep.spec.space.parameters().iter().map(|parameter| parameter.path.as_str()).collect();
    let metrics = sweep.spec.objectives.iter().map(|objective| objective.metric.name());
    let fixed = ["trial", "run", "state", "step", "budget", "parent", "reason"];
    let head = fixed.into_iter().chain(metrics).chain(paths.iter().copied()).map(text).collect();
    let row = |view: &SweepTrialView| {
        let SweepTrialView { number: trial, run, configuration, state, reason, budget, step, values, parent } = view;
        let parent = parent.map(|(parent, _)| parent.to_string()).unwrap_or_default();
        let (trial, run, state) = (trial.to_string(), run.to_string(), state.to_string());
        let mut row = vec![trial, run, state, step.to_string(), budget.to_string(), parent, text(reason)];
        let value = |at: usize| values.get(at).map(|value| number(f64::from(*value))).unwrap_or_default();
        row.extend((0..sweep.spec.objectives.len()).map(value));
        let cell = |path: &&str| match configuration.get(*path) {
            Some(Tried::Text(word)) => text(word),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        row.extend(paths.iter().map(cell));
        row
    };
    let rows = std::iter::once(head).chain(sweep.trials().map(|trial| row(&trial.view)));
    Ok(download(&name, Body::from(table(rows))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_formula_is_text_and_what_has_commas_is_one_cell() {
        let row = |cells: [&str; 2]| cells.map(text).to_vec();
        let bytes = table([row(["a", "=HYPERLINK(1)"]), row(["x,\"y\"\nz", "-1"])]);
        assert_eq!(bytes, "a,'=HYPERLINK(1)\n\"x,\"\"y\"\"\nz\",'-1\n");
    }
}
