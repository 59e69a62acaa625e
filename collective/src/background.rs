//! A collective that reduces on a thread of its own while its owner computes.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::{AbortHandle, Collective, CollectiveError, Reduced};

/// Runs the reductions of a collective on a thread, so that buckets of a gradient are reduced while the next ones are
/// computed.
///
/// Buckets are reduced in the order in which they were given, which must be the same on every rank, as must their number
/// between two gathers. A reduction that nobody has begun when its owner comes to wait is done on the owner's thread: a
/// single bucket costs no change of threads, and a group of one rank never has another thread.
///
/// A bucket that failed fails when it is finished, and so does everything after it, as [`Collective`] says. Dropping aborts
/// the collective if buckets are still under way, with its [`AbortHandle`], and ends the thread.
pub struct Background {
    rank: u32,
    world: u32,
    abort: AbortHandle,
    shared: Arc<Shared>,
    /// Buckets begun and not finished.
    begun: usize,
    /// None in a group of one rank.
    thread: Option<JoinHandle<()>>,
}

/// The owner and the thread meet only here, under a lock that is held for moving a few pointers.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Buckets that nobody has begun to reduce, and results that nobody has fetched, both from the oldest on.
    waiting: VecDeque<Bucket>,
    done: VecDeque<Done>,
    collective: Place,
    closing: bool,
}

/// What came of a bucket, and from when to when it was reduced.
type Done = (Result<Reduced, CollectiveError>, Range<Instant>);

/// Where the collective is.
enum Place {
    /// Free for either thread to take.
    Here(Box<dyn Collective>),
    /// One of them is in an operation.
    Taken,
    /// A panic took it along.
    Gone,
}

struct Bucket {
    leaves: u32,
    elements: usize,
    parts: Vec<(Range<u32>, Vec<f32>)>,
}

const LOCK: &str = "no code that can panic runs under this lock";

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(LOCK)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: impl Fn(&State) -> bool) -> MutexGuard<'a, State> {
        self.changed.wait_while(state, |state| !until(state)).expect(LOCK)
    }

    /// Takes the collective along for an operation, and brings it back.
    fn with<T>(
        &self,
        mut state: MutexGuard<'_, State>,
        operation: impl FnOnce(&mut dyn Collective) -> Result<T, CollectiveError>,
        keep: impl FnOnce(&mut State, Result<T, CollectiveError>),
    ) {
        let (place, result) = match std::mem::replace(&mut state.collective, Place::Taken) {
            Place::Here(mut collective) => {
                drop(state);
                let result = catch_unwind(AssertUnwindSafe(|| operation(&mut *collective)));
                match result {
                    Ok(result) => (Place::Here(collective), result),
                    // It is in no known state; dropping it tells the peers.
                    Err(panic) => {
                        drop(collective);
                        (Place::Gone, Err(CollectiveError::Panicked { detail: message(&*panic) }))
                    }
                }
            }
            Place::Gone => {
                drop(state);
                (Place::Gone, Err(CollectiveError::Broken))
            }
            Place::Taken => unreachable!("only who sees the collective free asks for it"),
        };
        let mut state = self.lock();
        state.collective = place;
        keep(&mut state, result);
        drop(state);
        self.changed.notify_all();
    }

    /// Reduces the oldest bucket that waits.
    fn reduce_next(&self, mut state: MutexGuard<'_, State>) {
        let bucket = state.waiting.pop_front().expect("only who sees a bucket asks for it");
        let begin = Instant::now();
        let reduce =
            |collective: &mut dyn Collective| collective.all_reduce(bucket.leaves, bucket.elements, bucket.parts);
        self.with(state, reduce, |state, result| state.done.push_back((result, begin..Instant::now())));
    }
}

impl State {
    fn is_free(&self) -> bool {
        !matches!(self.collective, Place::Taken)
    }

    fn can_reduce(&self) -> bool {
        self.is_free() && !self.waiting.is_empty()
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

impl Background {
    /// Takes the collective over.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(collective: Box<dyn Collective>) -> std::io::Result<Self> {
        let (rank, world, abort) = (collective.rank(), collective.world(), collective.abort_handle());
        let state = State {
            waiting: VecDeque::new(),
            done: VecDeque::new(),
            collective: Place::Here(collective),
            closing: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let thread = match world {
            1 => None,
            _ => {
                let shared = shared.clone();
                let thread = std::thread::Builder::new().name("collective".to_owned());
                Some(thread.spawn(move || work(&shared))?)
            }
        };
        Ok(Self { rank, world, abort, shared, begun: 0, thread })
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Number of ranks.
    pub fn world(&self) -> u32 {
        self.world
    }

    /// The handle that aborts the collective.
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    /// Begins to reduce a bucket, as [`Collective::all_reduce`] of as many elements as its first part has; returns at once.
    ///
    /// # Errors
    /// `Invalid` if there are no parts, as nothing says then how long the bucket is. All other errors come from
    /// [`finish`](Self::finish).
    pub fn reduce(&mut self, leaves: u32, parts: Vec<(Range<u32>, Vec<f32>)>) -> Result<(), CollectiveError> {
        self.begin(leaves, parts)?;
        if self.thread.is_some() {
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// The same for the last bucket before the owner comes to wait: the thread is not woken for it, since the owner can do it
    /// without a change of threads.
    ///
    /// # Errors
    /// As [`reduce`](Self::reduce).
    pub fn reduce_last(&mut self, leaves: u32, parts: Vec<(Range<u32>, Vec<f32>)>) -> Result<(), CollectiveError> {
        self.begin(leaves, parts)
    }

    fn begin(&mut self, leaves: u32, parts: Vec<(Range<u32>, Vec<f32>)>) -> Result<(), CollectiveError> {
        let Some((_, first)) = parts.first() else {
            return Err(CollectiveError::invalid("a bucket without parts"));
        };
        let bucket = Bucket { leaves, elements: first.len(), parts };
        self.begun += 1;
        let mut state = self.shared.lock();
        state.waiting.push_back(bucket);
        if self.thread.is_none() {
            self.shared.reduce_next(state);
        }
        Ok(())
    }

    /// Waits for the oldest bucket that was begun, and returns its sum.
    ///
    /// # Errors
    /// See [`Collective`]; `Invalid` if no bucket was begun that is not finished.
    pub fn finish(&mut self) -> Result<Reduced, CollectiveError> {
        self.finish_timed().map(|(reduced, _)| reduced)
    }

    /// The same, with when the reduction began and ended; in between, it may have waited for the other ranks.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_timed(&mut self) -> Result<(Reduced, Range<Instant>), CollectiveError> {
        if self.begun == 0 {
            return Err(CollectiveError::invalid("no bucket was begun"));
        }
        self.begun -= 1;
        loop {
            let state = self.shared.lock();
            let mut state = self.shared.wait(state, |state| !state.done.is_empty() || state.can_reduce());
            if let Some((result, took)) = state.done.pop_front() {
                return result.map(|reduced| (reduced, took));
            }
            self.shared.reduce_next(state);
        }
    }

    /// As [`Collective::all_gather`], after all buckets that were begun. They are finished as if it had not been.
    ///
    /// # Errors
    /// As there.
    pub fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        loop {
            let state = self.shared.lock();
            let state = self.shared.wait(state, State::is_free);
            if state.can_reduce() {
                self.shared.reduce_next(state);
                continue;
            }
            let mut gathered = Err(CollectiveError::Broken);
            self.shared.with(state, |collective| collective.all_gather(mine), |_, result| gathered = result);
            return gathered;
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let under_way = {
            let mut state = self.shared.lock();
            state.closing = true;
            !state.waiting.is_empty() || !state.is_free()
        };
        if under_way {
            self.abort.abort();
        }
        self.shared.changed.notify_all();
        // It cannot have panicked: operations are caught, and nothing else can.
        let _ = thread.join();
    }
}

/// What the thread does.
fn work(shared: &Shared) {
    loop {
        let state = shared.lock();
        let state = shared.wait(state, |state| state.closing || state.can_reduce());
        if state.closing {
            return;
        }
        shared.reduce_next(state);
    }
}
