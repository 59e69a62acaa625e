//! The screen: a pure function of what is known. Everything that comes from outside is escaped here.

mod list;
mod open;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph};

use super::state::{Over, Top};
use crate::follow::is_ended;
use crate::output::{count, escape};
use proto::v1::RunState;

/// Less than this shows nothing that can be read.
const COLUMNS_MIN: u16 = 60;
/// See [`COLUMNS_MIN`].
const ROWS_MIN: u16 = 16;

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame, top: &Top) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let text = format!("{COLUMNS_MIN}x{ROWS_MIN} is the least that top needs; q quits");
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let [title, body, keys] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(title_line(top, title.width), title);
    match top.opened() {
        Some(row) => open::draw(frame, body, row, &top.log),
        None => list::draw(frame, body, top),
    }
    frame.render_widget(key_line(top, keys.width), keys);
    match &top.over {
        Over::Nothing => {}
        Over::Help => pop_up(frame, "Keys", &HELP.map(|(key, does)| format!("{key:<12}{does}"))),
        Over::Stop(name) => {
            let question = format!("Stop {} after the step in progress, its state saved?", safe(name, 30));
            pop_up(frame, "Stop", &[question, "y stops it, any other key does not".to_owned()]);
        }
    }
}

const HELP: [(&str, &str); 7] = [
    ("Tab ← →", "another part of the screen"),
    ("↑ ↓", "choose; also k j, PgUp PgDn, Home End"),
    ("Enter", "the run in full; of a worker its run, of a sweep its best trial"),
    ("Esc", "back"),
    ("s", "stop the run or sweep, its state saved"),
    ("q Ctrl-C", "quit; nothing that trains is touched"),
    ("?", "this"),
];

fn title_line(top: &Top, width: u16) -> Line<'static> {
    let connected = top.workers.iter().filter(|worker| worker.connected).count();
    let live = top.listed().filter(|row| !is_ended(&row.run)).count();
    let live_sweeps = top.sweeps.iter().filter(|row| row.sweep.ended_at_ms.is_none()).count();
    let place = safe(&top.coordinator, 40);
    let text = match &top.away {
        Some(why) => format!("phalanx top  AWAY, what is shown is old: {}", safe(why, 200)),
        None if let Some(stall) = &top.stall => {
            format!("phalanx top  NOTHING IS SAVED, the store cannot be written: {}", safe(&stall.cause, 200))
        }
        None if !top.is_known => format!("phalanx top  {place}  connecting"),
        None => format!(
            "phalanx top  {place}  {connected} of {} connected, {} and {} live",
            count(top.workers.len() as u64, "worker"),
            count(live as u64, "run"),
            count(live_sweeps as u64, "sweep"),
        ),
    };
    let style = if top.away.is_some() || top.stall.is_some() { bold().fg(Color::Red) } else { bold() };
    Line::styled(safe(&text, width.into()), style)
}

fn key_line(top: &Top, width: u16) -> Line<'static> {
    if let Some(notice) = &top.notice {
        return Line::styled(safe(notice, width.into()), bold());
    }
    let keys: &[(&str, &str)] = if top.open.is_some() {
        &[("q", "quit"), ("Esc", "back"), ("s", "stop"), ("?", "help")]
    } else {
        &[("q", "quit"), ("Tab", "part"), ("↑↓", "choose"), ("Enter", "open"), ("s", "stop"), ("?", "help")]
    };
    let spans = keys.iter().flat_map(|(key, does)| [Span::styled(*key, bold()), Span::raw(format!(" {does}  "))]);
    Line::from_iter(spans)
}

/// A box in the middle, over what was drawn.
fn pop_up(frame: &mut Frame, title: &'static str, lines: &[String]) {
    let area = frame.area();
    let width = lines.iter().map(|line| Span::raw(line).width()).max().unwrap_or(0) as u16 + 4;
    let height = lines.len() as u16 + 2;
    let (width, height) = (width.min(area.width), height.min(area.height));
    let at = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    let text: Vec<Line> = lines.iter().map(|line| Line::raw(format!(" {line}"))).collect();
    frame.render_widget(Clear, at);
    frame.render_widget(Paragraph::new(text).alignment(Alignment::Left).block(panel(title.to_owned(), true)), at);
}

/// A frame around a part of the screen; thick around the one that keys go to.
fn panel(title: String, has_keys: bool) -> Block<'static> {
    let border = if has_keys { BorderType::Thick } else { BorderType::Plain };
    Block::bordered().border_type(border).title(format!(" {title} "))
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Colour only underlines what the word says.
fn state_style(state: RunState) -> Style {
    match state {
        RunState::Running => Style::new().fg(Color::Green),
        RunState::Failed => Style::new().fg(Color::Red),
        RunState::Waiting | RunState::Forming | RunState::Stopping => Style::new().fg(Color::Yellow),
        RunState::Unspecified | RunState::Stopped | RunState::Completed | RunState::Paused | RunState::Pruned => {
            Style::new()
        }
    }
}

/// `text` escaped, on one line of at most `width` columns; its end is left out if it does not fit.
fn safe(text: &str, width: usize) -> String {
    fit(&escape(text), width)
}

fn fit(text: &str, width: usize) -> String {
    if Span::raw(text).width() <= width && text.len() <= 4 * width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut columns = 0;
    // Characters without a width of their own must not pile up either.
    for c in text.chars().take(2 * width) {
        columns += Span::raw(c.to_string()).width();
        if columns + 1 > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// A name escaped, in at most `width` columns: its middle is left out, for the numbers of trials stand at the end.
fn safe_name(name: &str, width: usize) -> String {
    let name = escape(name);
    let length = name.chars().count();
    if Span::raw(&name).width() <= width || length <= 8 {
        return fit(&name, width);
    }
    let tail: String = name.chars().skip(length - width / 3).collect();
    let head = fit(&name, width.saturating_sub(Span::raw(&tail).width()));
    fit(&(head + &tail), width)
}
