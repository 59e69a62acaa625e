//! Workers, runs and sweeps, a line each.

use proto::v1::Worker;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Cell, HighlightSpacing, Paragraph, Row, Table, TableState};

use super::{bold, panel, safe, safe_name, state_style};
use crate::output::{percent, run_state_name, worker_name, worker_state};
use crate::top::state::{Panel, RunRow, SweepRow, Top};

/// Around and above the lines of a panel: its frame and the headings.
const PANEL_ROWS: usize = 3;

/// What a chosen line begins with.
const MARK: &str = "> ";

pub(super) fn draw(frame: &mut Frame, area: Rect, top: &Top) {
    let height = usize::from(area.height);
    // One line at least, and no more than leaves the runs their room.
    let rows = |lines: usize, most: usize| {
        Constraint::Length((lines + PANEL_ROWS).clamp(PANEL_ROWS + 1, most.max(PANEL_ROWS + 1)) as u16)
    };
    let [workers, runs, sweeps] = Layout::vertical([
        rows(top.workers.len(), height / 3),
        Constraint::Fill(1),
        rows(top.sweeps.len(), height / 3),
    ])
    .areas(area);
    draw_workers(frame, workers, top);
    draw_runs(frame, runs, top);
    draw_sweeps(frame, sweeps, top);
}

fn draw_workers(frame: &mut Frame, area: Rect, top: &Top) {
    let rows = top.workers.iter().map(|worker| {
        let state = worker_state(worker);
        Row::new([
            worker_name(worker.id),
            safe(&worker.host, 20),
            worker.pid.to_string(),
            safe(&worker.device, 8),
            state.to_owned(),
            safe(&work(worker, top), 60),
        ])
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Fill(3),
    ];
    let part = Part { panel: Panel::Workers, title: "Workers", empty: "no worker has connected yet" };
    part.draw(frame, area, top, ["WORKER", "HOST", "PID", "DEVICE", "STATE", "DOES"], rows.collect(), &widths);
}

/// `digits, rank 0 of 2`.
fn work(worker: &Worker, top: &Top) -> String {
    if worker.run.is_empty() {
        return "free".to_owned();
    }
    let members = top.run_row(&worker.run).map(|row| &row.run.members[..]).unwrap_or_default();
    match members.iter().position(|member| *member == worker.id) {
        Some(rank) => format!("{}, rank {rank} of {}", worker.run, members.len()),
        None => worker.run.clone(),
    }
}

fn draw_runs(frame: &mut Frame, area: Rect, top: &Top) {
    let fixed = [9, 13, 8, 8, 9];
    // Beside the frame, the mark, the fixed columns and a space between all eight.
    let left = usize::from(area.width).saturating_sub(2 + MARK.len() + fixed.iter().sum::<usize>() + 7);
    let curve = left * 3 / 10;
    let name = left - 2 * curve;
    let rows = top.listed().map(|row| {
        let RunRow { run, newest, samples_per_second, curves } = row;
        let loss = newest.map(|point| point.loss).or(run.evals.last().map(|eval| eval.loss));
        // A run that is not watched has the losses of its evaluations.
        let course = if curves.loss.points().is_empty() { &curves.eval_loss } else { &curves.loss };
        Row::new([
            Cell::new(safe_name(&run.name, name)),
            Cell::new(run_state_name(run.state())).style(state_style(run.state())),
            Cell::new(progress(row.step(), run.total_steps)),
            Cell::new(loss.map_or_else(|| "-".to_owned(), figure)),
            Cell::new(run.evals.last().map_or_else(|| "-".to_owned(), |eval| percent(eval.accuracy))),
            Cell::new(samples_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"))),
            Cell::new(course.sparkline(curve)),
            Cell::new(curves.accuracy.sparkline(curve)),
        ])
    });
    let widths: Vec<Constraint> =
        [name].into_iter().chain(fixed).chain([curve; 2]).map(|width| Constraint::Length(width as u16)).collect();
    let headings = ["NAME", "STATE", "STEP", "LOSS", "ACCURACY", "SAMPLES/S", "LOSS", "ACCURACY"];
    let part = Part { panel: Panel::Runs, title: "Runs", empty: "no runs; `phalanx launch FILE --coordinator URL`" };
    part.draw(frame, area, top, headings, rows.collect(), &widths);
}

fn draw_sweeps(frame: &mut Frame, area: Rect, top: &Top) {
    let rows = top.sweeps.iter().map(|row| {
        let SweepRow { sweep, counts, best } = row;
        let best = best.as_ref().map_or_else(|| "-".to_owned(), |(number, _, values)| format!("{number}: {values}"));
        let cells = [safe_name(&sweep.name, usize::from(area.width) / 6)];
        let state = Cell::new(run_state_name(sweep.state())).style(state_style(sweep.state()));
        let counts = counts.map(|number| Cell::new(number.to_string()));
        Row::new(cells.map(Cell::new).into_iter().chain([state]).chain(counts).chain([Cell::new(safe(&best, 80))]))
    });
    let widths = [
        Constraint::Length(area.width / 6),
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(4),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Fill(1),
    ];
    let headings = ["NAME", "STATE", "TRAIN", "PAUSED", "DONE", "PRUNED", "FAILED", "BEST TRIAL"];
    let part = Part { panel: Panel::Sweeps, title: "Sweeps", empty: "no sweeps" };
    part.draw(frame, area, top, headings, rows.collect(), &widths);
}

/// A part of the screen with a table.
struct Part {
    panel: Panel,
    title: &'static str,
    /// What is said in place of rows.
    empty: &'static str,
}

impl Part {
    fn draw<const N: usize>(
        &self,
        frame: &mut Frame,
        area: Rect,
        top: &Top,
        headings: [&'static str; N],
        rows: Vec<Row<'_>>,
        widths: &[Constraint],
    ) {
        let has_keys = top.panel == self.panel;
        let hidden = rows.len().saturating_sub(usize::from(area.height).saturating_sub(PANEL_ROWS));
        let title = match hidden {
            0 => self.title.to_owned(),
            hidden => format!("{} ({}, {hidden} more than fit)", self.title, rows.len()),
        };
        let block = panel(title, has_keys);
        if rows.is_empty() {
            let text = if top.is_known { self.empty } else { "" };
            frame.render_widget(Paragraph::new(text).block(block), area);
            return;
        }
        let table = Table::new(rows, widths.iter().copied())
            .header(Row::new(headings).style(bold()))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .highlight_symbol(MARK)
            .highlight_spacing(HighlightSpacing::Always)
            .block(block);
        let mut state = TableState::default().with_selected(has_keys.then(|| top.chosen(self.panel)));
        frame.render_stateful_widget(table, area, &mut state);
    }
}

/// `120/564 21 %`, or shorter where numbers are long.
fn progress(step: u64, total: u64) -> String {
    if total == 0 {
        return step.to_string();
    }
    let share = (step as f64 / total as f64 * 100.0).floor();
    let whole = format!("{step}/{total} {share:.0} %");
    if whole.len() <= 13 { whole } else { format!("{share:.0} % of {:.0e}", total as f64) }
}

/// A loss in at most eight characters.
pub(super) fn figure(value: f64) -> String {
    if value == 0.0 || (1e-3..1e3).contains(&value.abs()) { format!("{value:.4}") } else { format!("{value:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        for (step, total, shown) in
            [(7, 0, "7"), (120, 564, "120/564 21 %"), (999, 1000, "999/1000 99 %"), (5000, 123_456, "4 % of 1e5")]
        {
            assert_eq!(progress(step, total), shown);
        }
        for (value, shown) in
            [(0.0, "0.0000"), (0.25, "0.2500"), (f64::NAN, "NaN"), (f64::MAX, "1.8e308"), (-1e-7, "-1.0e-7")]
        {
            assert_eq!(figure(value), shown);
        }
    }
}
