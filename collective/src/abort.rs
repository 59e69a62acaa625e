//! Ending a collective from another thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Ends a collective from any thread: the operation it is in, or the forming of the group, and every later call.
///
/// It exists before the collective does, so that connecting can be aborted too. Clones are the same handle. A handle
/// that was used stays used: take a new one for the next generation.
#[derive(Clone, Default)]
pub struct AbortHandle {
    shared: Arc<Shared>,
}

/// The list is behind a mutex because the aborting thread and the one that connects or drops a collective meet only
/// here; it is locked for a push or a copy of a few pointers.
#[derive(Default)]
struct Shared {
    aborted: AtomicBool,
    wakers: Mutex<Vec<Weak<dyn Wake>>>,
}

/// Gets a thread that waits inside an operation out of it.
pub(crate) trait Wake: Send + Sync {
    /// May be called from any thread, more than once.
    fn wake(&self);
}

impl AbortHandle {
    /// A handle that was not used yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Aborts. Returns at once; doing it again changes nothing.
    pub fn abort(&self) {
        self.shared.aborted.store(true, Ordering::SeqCst);
        let wakers = self.wakers().clone();
        for waker in wakers.iter().filter_map(Weak::upgrade) {
            waker.wake();
        }
    }

    /// Whether [`abort`](Self::abort) was called.
    pub fn is_aborted(&self) -> bool {
        self.shared.aborted.load(Ordering::SeqCst)
    }

    /// Has `waker` woken when the handle is used, at once if it was used already. A waker that is gone is forgotten.
    pub(crate) fn register(&self, waker: Weak<dyn Wake>) {
        {
            let mut wakers = self.wakers();
            wakers.retain(|known| known.strong_count() > 0);
            wakers.push(waker.clone());
        }
        // Asked after the push: either `abort` sees the new waker, or this sees the flag.
        if self.is_aborted()
            && let Some(waker) = waker.upgrade()
        {
            waker.wake();
        }
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Wake>>> {
        self.shared.wakers.lock().expect("no code that can panic runs under this lock")
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle").field("aborted", &self.is_aborted()).finish_non_exhaustive()
    }
}
