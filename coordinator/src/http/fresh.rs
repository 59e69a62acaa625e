use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashboard::Failure;
use domain::ids::RunName;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Entries that are kept; each is of one run or sweep that somebody looks at.
const ENTRIES_MAX: usize = 32;

/// Things that take long to make and are asked for often: made once for all who ask at the same time, and again only
/// when what they are made from has changed and they have some age. Requests are answered on many threads and share what
/// was made, hence the lock; it is held to find an entry, never while something is made.
#[derive(Debug)]
pub(super) struct Fresh<T> {
    age_max: Duration,
    entries: Mutex<BTreeMap<RunName, Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    changed: u64,
    since: Instant,
    cell: Arc<OnceCell<Arc<T>>>,
}

impl<T> Fresh<T> {
    pub(super) fn new(age_max: Duration) -> Self {
        Self { age_max, entries: Mutex::default() }
    }

    /// The thing of `name`, which changed last in picture `changed`.
    pub(super) async fn get(
        &self,
        name: RunName,
        changed: u64,
        make: impl AsyncFnOnce() -> Result<T, Failure>,
    ) -> Result<Arc<T>, Failure> {
        let cell = self.cell(name, changed, Instant::now());
        cell.get_or_try_init(async || make().await.map(Arc::new)).await.cloned()
    }

    fn cell(&self, name: RunName, changed: u64, now: Instant) -> Arc<OnceCell<Arc<T>>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&name)
            && (entry.changed == changed || now.duration_since(entry.since) < self.age_max)
        {
            return entry.cell.clone();
        }
        if entries.len() >= ENTRIES_MAX && !entries.contains_key(&name) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.since).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| entries.remove(&oldest));
        }
        let cell = Arc::new(OnceCell::new());
        entries.insert(name, Entry { changed, since: now, cell: cell.clone() });
        cell
    }
}

#[cfg(test)]
mod tests {
    use dashboard::StatusCode;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_thing_is_made_again_when_it_has_changed_and_is_old() {
        let fresh = Fresh::new(Duration::from_secs(1));
        let made = AtomicU32::new(0);
        let start = Instant::now();
        let get = async |name: &str, changed: u64, seconds: u64| {
            let cell = fresh.cell(name.parse().unwrap(), changed, start + Duration::from_secs(seconds));
            **cell.get_or_init(async || Arc::new(made.fetch_add(1, Ordering::Relaxed))).await
        };
        assert_eq!((get("a", 1, 0).await, get("a", 1, 0).await, get("a", 2, 0).await), (0, 0, 0));
        assert_eq!((get("a", 1, 2).await, get("a", 2, 2).await, get("b", 1, 2).await), (0, 1, 2));
        let failed = fresh.get("c".parse().unwrap(), 1, async || Err(Failure::told(StatusCode::CONFLICT, "no"))).await;
        assert!(failed.is_err());
        assert_eq!(get("c", 1, 0).await, 3, "a failure is not kept");
        for other in 0..2 * ENTRIES_MAX {
            get(&format!("other{other}"), 1, 3).await;
        }
        assert_eq!(fresh.entries.lock().unwrap().len(), ENTRIES_MAX);
    }
}
