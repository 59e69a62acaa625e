//! One run: its figures, its curves, the end of its log.

use std::collections::VecDeque;

use proto::v1::{LogLine, Run};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, LegendPosition, LineGauge, Paragraph};

use super::list::figure;
use super::{bold, panel, safe, state_style};
use crate::output::{count, percent, run_state_name, utc, worker_name};
use crate::top::curve::Curve;
use crate::top::state::RunRow;

/// Lines of figures above the curves.
const FIGURE_ROWS: u16 = 4;

pub(super) fn draw(frame: &mut Frame, area: Rect, row: &RunRow, log: &VecDeque<LogLine>) {
    let [figures, curves, lines] =
        Layout::vertical([Constraint::Length(FIGURE_ROWS), Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
    draw_figures(frame, figures, row);
    let [loss, accuracy] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(curves);
    let (training, held_out) = (&row.curves.loss, &row.curves.eval_loss);
    draw_chart(frame, loss, "Loss (line: training, dots: held out)", training, held_out, &figure);
    draw_chart(frame, accuracy, "Accuracy (held out)", &row.curves.accuracy, &Curve::default(), &percent);
    draw_log(frame, lines, log);
}

fn draw_figures(frame: &mut Frame, area: Rect, row: &RunRow) {
    let width = usize::from(area.width);
    let RunRow { run, newest, samples_per_second, curves: _ } = row;
    let rows: [Rect; FIGURE_ROWS as usize] =
        Layout::vertical([Constraint::Length(1); FIGURE_ROWS as usize]).areas(area);
    let reason = if run.reason.is_empty() { String::new() } else { format!(": {}", safe(&run.reason, width)) };
    let state = Span::styled(format!("{}{reason}", run_state_name(run.state())), state_style(run.state()));
    frame.render_widget(Line::from(vec![Span::styled(safe(&run.name, 40), bold()), Span::raw("  "), state]), rows[0]);

    let share = if run.total_steps == 0 { 0.0 } else { row.step() as f64 / run.total_steps as f64 };
    let label = match run.total_steps {
        0 => format!("step {}", row.step()),
        total => format!("step {} of {total}", row.step()),
    };
    let gauge =
        LineGauge::default().ratio(share.clamp(0.0, 1.0)).label(label).filled_style(Style::new().fg(Color::Cyan));
    frame.render_widget(gauge, rows[1]);

    let mut figures = Vec::new();
    if let Some(newest) = newest {
        figures.push(format!("loss {}", figure(newest.loss)));
        figures.push(format!("lr {:.2e}", newest.lr));
    }
    if let Some(eval) = run.evals.last() {
        figures.push(format!("accuracy {} (eval loss {})", percent(eval.accuracy), figure(eval.loss)));
    }
    if let Some(rate) = samples_per_second {
        figures.push(format!("{rate:.0} samples/s"));
    }
    frame.render_widget(Line::raw(safe(&figures.join("  "), width)), rows[2]);
    frame.render_widget(Line::raw(safe(&group(run), width)), rows[3]);
}

/// `2 of 2 workers (0000abcd, 0000ef01)  generation 3, 1 lost  2 checkpoints, the newest at step 90`.
fn group(run: &Run) -> String {
    let names: Vec<String> = run.members.iter().map(|id| worker_name(*id)).collect();
    let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let wanted = count(run.workers_wanted.into(), "worker");
    let checkpoints = match run.checkpoints.last() {
        Some(newest) => {
            format!("{}, the newest at step {}", count(run.checkpoints.len() as u64, "checkpoint"), newest.step)
        }
        None => "no checkpoint".to_owned(),
    };
    let (members, generation, failures) = (run.members.len(), run.generation, run.failures);
    format!("{members} of {wanted}{names}  generation {generation}, {failures} lost  {checkpoints}")
}

/// What a chart can be scaled to; a loss beyond it is at its edge.
const VALUE_MAX: f64 = 1e30;

fn draw_chart(frame: &mut Frame, area: Rect, title: &str, line: &Curve, dots: &Curve, told: &dyn Fn(f64) -> String) {
    let points = |curve: &Curve| -> Vec<(f64, f64)> {
        let clamped = |value: f64| value.clamp(-VALUE_MAX, VALUE_MAX);
        curve.points().iter().map(|(step, value)| (*step as f64, clamped(*value))).collect()
    };
    let (line, dots) = (points(line), points(dots));
    let block = panel(title.to_owned(), false);
    let both = || line.iter().chain(&dots);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = both().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        // What is flat lies in the middle.
        if high > low { [low, high] } else { [low - low.abs() * 0.1 - 0.1, high + high.abs() * 0.1 + 0.1] }
    };
    if both().next().is_none() {
        frame.render_widget(Paragraph::new("nothing was measured yet").block(block), area);
        return;
    }
    let (across, up) = (bounds(|point| point.0), bounds(|point| point.1));
    let steps = [across[0].max(0.0), across[1]].map(|step| format!("{step:.0}"));
    let datasets = vec![
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .data(&line)
            .style(Style::new().fg(Color::Cyan)),
        Dataset::default().marker(Marker::Dot).data(&dots).style(Style::new().fg(Color::Yellow)),
    ];
    let chart = Chart::new(datasets)
        .block(block)
        .legend_position(None::<LegendPosition>)
        .x_axis(Axis::default().bounds(across).labels(steps))
        .y_axis(Axis::default().bounds(up).labels(up.map(told)));
    frame.render_widget(chart, area);
}

fn draw_log(frame: &mut Frame, area: Rect, log: &VecDeque<LogLine>) {
    let rows = usize::from(area.height.saturating_sub(2));
    let width = usize::from(area.width.saturating_sub(2));
    let newest = log.iter().skip(log.len().saturating_sub(rows));
    let lines: Vec<Line> = newest
        .map(|LogLine { at_ms, source, level, text, .. }| {
            let time = utc(*at_ms);
            let time = time.get(11..19).unwrap_or(&time);
            Line::raw(safe(&format!("{time} {level:<5} {source}: {text}"), width))
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(panel("Log".to_owned(), false)), area);
}
