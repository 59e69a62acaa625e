use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::ids::Time;
use tokio::time::Instant;

/// What the engine is told the time is: Unix time, read from the machine once at the start and carried on by a clock that
/// only goes forward. Whatever happens to the machine's time later, no lease is lost by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Time,
    started: Instant,
}

impl Clock {
    /// A clock that begins now, but not before `floor`, the time of the newest journalled event.
    pub(crate) fn start(floor: Time) -> Self {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        Self { start: Time(machine).max(floor), started: Instant::now() }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Time {
        self.time(Instant::now())
    }

    fn time(&self, instant: Instant) -> Time {
        self.start.after_ms(instant.duration_since(self.started).as_millis() as u64)
    }

    /// When it will be `at`.
    pub(crate) fn instant(&self, at: Time) -> Instant {
        self.started + Duration::from_millis(at.0.saturating_sub(self.start.0)).min(FAR)
    }
}

/// Beyond this, adding to an instant could overflow; whoever waits that long may as well look again.
const FAR: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_the_later_of_machine_and_journal() {
        let future = Time(u64::MAX / 2);
        let clock = Clock::start(future);
        assert_eq!(clock.time(clock.started), future);
        let later = clock.started + Duration::from_millis(1500);
        assert_eq!(clock.time(later), future.after_ms(1500));
        assert_eq!(clock.instant(future.after_ms(1500)), later);
        assert_eq!(clock.instant(Time(0)), clock.started, "what is past is due at once");
        assert!(Clock::start(Time(0)).now() > Time(1_600_000_000_000));
    }
}
