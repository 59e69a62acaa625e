//! What is on its way to the coordinator.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use domain::engine::Running;
use domain::ids::TrialId;
use domain::record::Pace;
use proto::convert::{self, LogLine, Report};
use proto::v1;
use tokio::sync::Notify;

/// Reports kept for an absent coordinator. A step's record of 64 samples takes some 300 bytes, so this bridges 200,000
/// steps; beyond it the worker waits instead of losing anything.
const UNACKNOWLEDGED_BYTES_MAX: usize = 64 << 20;
/// Log lines kept for an absent coordinator; further ones are dropped and counted.
const LOG_LINES_MAX: usize = 1000;

/// The queue between the device thread, which must not wait for the network, and the connection, which must not block:
/// a lock held for a few moves of memory on either side, never across a wait.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Woken when something was added.
    added: Notify,
    /// Woken when something was acknowledged or the worker ends.
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    last_sequence: u64,
    acknowledged: u64,
    unacknowledged: VecDeque<(u64, v1::Report)>,
    bytes: usize,
    logs: VecDeque<v1::Report>,
    /// Lines dropped since there was room, by trial.
    dropped: BTreeMap<TrialId, u64>,
    running: Option<Running>,
    pace: Option<Pace>,
    closed: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().expect("no holder of the outbox panics")
    }

    /// Queues a report that is kept until it is acknowledged; gives its number. Waits while too much is unacknowledged.
    pub(crate) fn send(&self, report: Report) -> u64 {
        let mut queue = self.lock();
        while queue.bytes > UNACKNOWLEDGED_BYTES_MAX && !queue.closed {
            queue = self.0.room.wait(queue).expect("no holder of the outbox panics");
        }
        queue.last_sequence += 1;
        let sequence = queue.last_sequence;
        let report = convert::report_to_wire(sequence, report);
        queue.bytes += prost_len(&report);
        queue.unacknowledged.push_back((sequence, report));
        drop(queue);
        self.0.added.notify_one();
        sequence
    }

    /// Queues a line for the run's log, or drops and counts it if the coordinator has been away for long.
    pub(crate) fn log(&self, trial: &TrialId, level: &str, text: String) {
        let mut queue = self.lock();
        // What is queued comes first, then how many were dropped after it, and only then lines that are newer still.
        if queue.logs.len() < LOG_LINES_MAX && queue.dropped.is_empty() {
            queue.logs.push_back(log_line(trial, level, text));
        } else {
            *queue.dropped.entry(trial.clone()).or_default() += 1;
        }
        drop(queue);
        self.0.added.notify_one();
    }

    /// Takes note that everything up to `sequence` is durable.
    pub(crate) fn acknowledge(&self, sequence: u64) {
        let mut queue = self.lock();
        queue.acknowledged = queue.acknowledged.max(sequence);
        while queue.unacknowledged.front().is_some_and(|(s, _)| *s <= sequence) {
            let (_, report) = queue.unacknowledged.pop_front().expect("just seen");
            queue.bytes -= prost_len(&report);
        }
        drop(queue);
        self.0.room.notify_all();
    }

    /// The highest number up to which everything is durable.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    /// The next report after `sent_through`: a log line first, since those carry no number.
    pub(crate) fn next(&self, sent_through: u64) -> Option<v1::Report> {
        let mut queue = self.lock();
        if let Some(log) = queue.logs.pop_front() {
            return Some(log);
        }
        if let Some((trial, count)) = queue.dropped.pop_first() {
            let (lines, were) = if count == 1 { ("line", "was") } else { ("lines", "were") };
            let text = format!("{count} log {lines} {were} dropped while the coordinator was away");
            return Some(log_line(&trial, "warn", text));
        }
        let first = queue.unacknowledged.front()?.0;
        let index = (sent_through + 1).saturating_sub(first);
        queue.unacknowledged.get(index as usize).map(|(_, report)| report.clone())
    }

    /// Waits until something may have been added.
    pub(crate) async fn added(&self) {
        self.0.added.notified().await;
    }

    /// Says what the worker is in the middle of.
    pub(crate) fn set_running(&self, running: Option<Running>) {
        let mut queue = self.lock();
        if running.is_none() {
            queue.pace = None;
        }
        queue.running = running;
    }

    /// Says what the newest step took.
    pub(crate) fn set_pace(&self, pace: Pace) {
        self.lock().pace = Some(pace);
    }

    /// What the newest step took; nothing while none is made.
    pub(crate) fn pace(&self) -> Option<Pace> {
        self.lock().pace
    }

    /// What the worker is in the middle of.
    pub(crate) fn running(&self) -> Option<Running> {
        self.lock().running.clone()
    }

    /// The worker ends: nobody waits for room any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.0.room.notify_all();
    }
}

fn log_line(trial: &TrialId, level: &str, text: String) -> v1::Report {
    let line = LogLine { at_ms: now_ms(), level: level.to_owned(), text };
    convert::report_to_wire(0, Report::Logs { trial: trial.clone(), lines: vec![line] })
}

fn prost_len(report: &v1::Report) -> usize {
    prost::Message::encoded_len(report)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// An error with all its causes as one readable line, each said once. The first way out that one of them brings along
/// after `\nhint: ` comes last, after the same mark.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = String::new();
    let mut way_out = None;
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        let text = match text.split_once("\nhint: ") {
            Some((text, hint)) => {
                way_out.get_or_insert(hint.to_owned());
                text
            }
            None => &text,
        };
        if said.is_empty() {
            text.clone_into(&mut said);
        } else if !says(&said, text) {
            said += &format!(": {text}");
        }
        next = cause.source();
    }
    if let Some(hint) = way_out {
        said += &format!("\nhint: {hint}");
    }
    said
}

/// Whether `said` has `cause` in it. The number that the standard library adds to an error of the operating system
/// tells a person nothing new.
fn says(said: &str, cause: &str) -> bool {
    let cause = cause.rsplit_once(" (os error ").map_or(cause, |(words, _)| words);
    said.to_lowercase().contains(&cause.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_given_in_order_until_acknowledged() {
        let outbox = Outbox::default();
        let sent: Vec<u64> = (0..3).map(|_| outbox.send(Report::Goodbye)).collect();
        assert_eq!(sent, [1, 2, 3]);
        assert_eq!(outbox.next(0).map(|r| r.sequence), Some(1));
        assert_eq!(outbox.next(2).map(|r| r.sequence), Some(3));
        assert_eq!(outbox.next(3), None);
        outbox.acknowledge(2);
        assert_eq!(outbox.next(0).map(|r| r.sequence), Some(3), "what is acknowledged is not sent again");
        outbox.acknowledge(1);
        assert_eq!(outbox.acknowledged(), 2, "an older acknowledgement changes nothing");
    }

    /// The first is caused by the second, and so on.
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: String,
        source: Option<Box<Link>>,
    }

    #[test]
    fn each_cause_is_said_once() {
        let cases: [(&[&str], &str); 8] = [
            (&["it broke"], "it broke"),
            (&["cannot read x", "permission denied"], "cannot read x: permission denied"),
            (&["no way: tcp connect error", "tcp connect error"], "no way: tcp connect error"),
            (&["x not written: no space left", "No space left (os error 28)"], "x not written: no space left"),
            (&["x not written", "No space left (os error 28)"], "x not written: No space left (os error 28)"),
            (&["a", "b", "B", "c"], "a: b: c"),
            (&["cannot open\nhint: stop it", "in use"], "cannot open: in use\nhint: stop it"),
            (&["cannot open", "in use\nhint: first", "by 7\nhint: second"], "cannot open: in use: by 7\nhint: first"),
        ];
        for (texts, expected) in cases {
            let link = |source, text: &&str| Some(Box::new(Link { text: (*text).to_owned(), source }));
            let error = texts.iter().rev().fold(None, link).unwrap();
            assert_eq!(chain(&error), expected);
        }
    }

    fn text_of(report: v1::Report) -> (String, String) {
        match convert::report_from_wire(report).unwrap() {
            Report::Logs { mut lines, .. } if lines.len() == 1 => {
                let LogLine { at_ms: _, level, text } = lines.remove(0);
                (level, text)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn log_lines_are_bounded_and_dropped_ones_counted() {
        let outbox = Outbox::default();
        let trial: TrialId = "a/0".parse().unwrap();
        let log = |line: usize| outbox.log(&trial, "info", line.to_string());
        (0..LOG_LINES_MAX + 7).for_each(log);
        let next = || outbox.next(0).map(text_of);
        assert_eq!(next(), Some(("info".into(), "0".into())));
        // There is room again, but a line in it would come before the count of older ones.
        log(LOG_LINES_MAX + 7);
        for line in 1..LOG_LINES_MAX {
            assert_eq!(next(), Some(("info".into(), line.to_string())));
        }
        let told = "8 log lines were dropped while the coordinator was away";
        assert_eq!(next(), Some(("warn".into(), told.into())));
        log(0);
        assert_eq!(next(), Some(("info".into(), "0".into())));
        assert_eq!(next(), None, "what was told is not told again");
    }
}
