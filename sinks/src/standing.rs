//! How sinks are doing, for whoever shows it.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::Sink;

/// How one sink is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which, without what may be secret.
    pub sink: String,
    /// Why it is not up to date, and since when in milliseconds since the Unix epoch. Nothing, if it is, or was not looked at yet.
    pub trouble: Option<(String, u64)>,
}

/// Where followers write how their sinks are doing. Clones are of one board.
#[derive(Clone, Debug, Default)]
pub struct Board(watch::Sender<Vec<Standing>>);

impl Board {
    /// All sinks, in the order in which they were named.
    pub fn standings(&self) -> Vec<Standing> {
        self.0.borrow().clone()
    }

    /// How many sinks are not up to date.
    pub fn troubled(&self) -> usize {
        self.0.borrow().iter().filter(|one| one.trouble.is_some()).count()
    }

    /// A place for one more sink. One follower adds them all, one after the other.
    pub(crate) fn add(&self, sink: &Sink) -> Place {
        let index = self.0.borrow().len();
        self.0.send_modify(|standings| standings.push(Standing { sink: sink.to_string(), trouble: None }));
        Place { board: self.clone(), index }
    }
}

/// The place of one sink on a board.
pub(crate) struct Place {
    board: Board,
    index: usize,
}

impl Place {
    /// Writes what hinders the sink; the time of the first of several troubles stays.
    pub(crate) fn set(&self, trouble: Option<String>) {
        self.board.0.send_modify(|standings| {
            let known = &mut standings[self.index].trouble;
            let since = known.take().map(|(_, since)| since);
            *known = trouble.map(|cause| (cause, since.unwrap_or_else(now_ms)));
        });
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
