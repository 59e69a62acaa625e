//! What is due.

use domain::engine::{Deadline, Event};
use tracing::warn;

use super::round::Round;
use super::{Driver, Stopped};

/// A lease noticed to have run out this late says that this process did not look (it was suspended, or the store
/// stalled), and nothing about the worker.
const LATE_MS: u64 = 1_000;

impl Driver {
    pub(super) async fn pass_deadlines(&mut self) -> Result<(), Stopped> {
        while let Some((at, deadline)) = self.engine.next_deadline() {
            let now = self.clock.now();
            if at > now {
                return Ok(());
            }
            let mut round = Round::default();
            match &deadline {
                Deadline::Lease { worker } if now > at.after_ms(LATE_MS) && self.connections.is_open(*worker) => {
                    warn!(
                        worker = worker.short(),
                        late_ms = now.0 - at.0,
                        "a lease was looked at too late, it starts anew"
                    );
                    round.events.push(Event::Alive { worker: *worker });
                }
                Deadline::Lease { worker } => {
                    // If its stream is still there, it must say Hello again.
                    round.left.push(*worker);
                    round.events.push(Event::DeadlinePassed { deadline });
                }
                Deadline::Gather { .. }
                | Deadline::Form { .. }
                | Deadline::SweepTime { .. }
                | Deadline::TimeLimit { .. } => {
                    round.events.push(Event::DeadlinePassed { deadline });
                }
            }
            self.settle(round).await?;
        }
        Ok(())
    }
}
