//! A group of threads in one process.
//!
//! Built on one primitive: an *exchange*, in which every rank lays down one message and takes all of them. Partial sums
//! are shared, not sent; each rank still adds up only the elements it owns, as over the network.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::abort::Wake;
use crate::arguments::{check_gather, check_reduction};
use crate::reduction::{Plan, owned_elements};
use crate::{AbortHandle, Collective, CollectiveError, MAX_WORLD, Reduced};

/// One thread's place in a group made by [`group`].
pub struct LocalCollective {
    rank: u32,
    world: u32,
    hall: Arc<Hall>,
    abort: AbortHandle,
    broken: bool,
}

/// Makes a group of `world` ranks, in the order of their ranks.
///
/// # Panics
/// If `world` is 0 or above [`MAX_WORLD`].
pub fn group(world: u32) -> Vec<LocalCollective> {
    assert!((1..=MAX_WORLD).contains(&world), "a group has 1 to {MAX_WORLD} ranks, asked for {world}");
    let state = State { laid: vec![None; world as usize], round: 0, taken: Arc::default(), lost: None };
    let hall = Arc::new(Hall { state: Mutex::new(state), changed: Condvar::new() });
    let member = |rank| {
        let abort = AbortHandle::new();
        let waker: Arc<dyn Wake> = hall.clone();
        abort.register(Arc::downgrade(&waker));
        LocalCollective { rank, world, hall: hall.clone(), abort, broken: false }
    };
    (0..world).map(member).collect()
}

/// Where the ranks meet. All of them touch the one state, and wait for each other, hence the mutex and the condition.
struct Hall {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What each rank has laid down in the round that is under way.
    laid: Vec<Option<Message>>,
    /// Rounds completed.
    round: u64,
    /// All messages of the last completed round. A round cannot complete before every rank took from the one before.
    taken: Arc<Vec<Message>>,
    /// The first rank that left.
    lost: Option<u32>,
}

#[derive(Clone)]
enum Message {
    Bytes(Vec<u8>),
    Parts { leaves: u32, elements: usize, parts: Arc<Vec<(Range<u32>, Vec<f32>)>> },
    Sum(Arc<Vec<f32>>),
}

impl Message {
    fn describe(&self) -> String {
        match self {
            Message::Bytes(_) => "all_gather".to_owned(),
            Message::Parts { leaves, elements, .. } => {
                format!("all_reduce of {leaves} leaves and {elements} elements")
            }
            Message::Sum(_) => "the end of all_reduce".to_owned(),
        }
    }
}

impl Hall {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that can panic runs under the hall's lock")
    }

    fn leave(&self, rank: u32) {
        self.lock().lost.get_or_insert(rank);
        self.changed.notify_all();
    }
}

impl Wake for Hall {
    fn wake(&self) {
        // Taking the lock first makes sure that a waiting thread is asleep, and not between its look and its sleep.
        drop(self.lock());
        self.changed.notify_all();
    }
}

impl LocalCollective {
    fn exchange(&self, mine: Message) -> Result<Arc<Vec<Message>>, CollectiveError> {
        let mut state = self.hall.lock();
        let round = state.round;
        state.laid[self.rank as usize] = Some(mine);
        if state.laid.iter().all(Option::is_some) {
            state.taken = Arc::new(state.laid.iter_mut().filter_map(Option::take).collect());
            state.round += 1;
            self.hall.changed.notify_all();
        }
        // A round that is complete counts even if somebody left right after it, as with data already received.
        let waits = |state: &mut State| state.round == round && state.lost.is_none() && !self.abort.is_aborted();
        let state = self.hall.changed.wait_while(state, waits).expect("no code that can panic runs under this lock");
        match state.lost {
            _ if self.abort.is_aborted() => Err(CollectiveError::Aborted),
            _ if state.round > round => Ok(state.taken.clone()),
            Some(rank) => {
                let source = io::Error::new(io::ErrorKind::ConnectionReset, "left the group");
                Err(CollectiveError::PeerLost { rank, source })
            }
            None => unreachable!("the wait ends for one of these reasons"),
        }
    }

    /// Runs one operation; a failure ends the collective for everybody.
    fn guarded<T>(
        &mut self,
        operation: impl FnOnce(&mut Self) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        if self.abort.is_aborted() {
            self.leave();
            return Err(CollectiveError::Aborted);
        }
        if self.broken {
            return Err(CollectiveError::Broken);
        }
        let result = operation(self);
        if result.is_err() {
            self.leave();
        }
        result
    }

    fn leave(&mut self) {
        self.broken = true;
        self.hall.leave(self.rank);
    }

    fn mismatch(&self, rank: usize, expected: &str, came: &Message) -> CollectiveError {
        CollectiveError::protocol(rank as u32, format!("expected {expected}, it does {}", came.describe()))
    }
}

impl Drop for LocalCollective {
    fn drop(&mut self) {
        self.hall.leave(self.rank);
    }
}

impl Collective for LocalCollective {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world(&self) -> u32 {
        self.world
    }

    fn all_reduce(
        &mut self,
        leaves: u32,
        elements: usize,
        parts: Vec<(Range<u32>, Vec<f32>)>,
    ) -> Result<Reduced, CollectiveError> {
        self.guarded(|group| group.reduce(leaves, elements, parts))
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.guarded(|group| group.gather(mine))
    }

    fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

impl LocalCollective {
    fn reduce(
        &self,
        leaves: u32,
        elements: usize,
        parts: Vec<(Range<u32>, Vec<f32>)>,
    ) -> Result<Reduced, CollectiveError> {
        check_reduction(leaves, elements, &parts)?;
        let mine = Message::Parts { leaves, elements, parts: Arc::new(parts) };
        let expected = mine.describe();
        let laid = self.exchange(mine)?;
        let mut parts = Vec::with_capacity(laid.len());
        for (rank, message) in laid.iter().enumerate() {
            match message {
                Message::Parts { leaves: l, elements: e, parts: p } if (*l, *e) == (leaves, elements) => parts.push(p),
                other => return Err(self.mismatch(rank, &expected, other)),
            }
        }
        let owned = owned_elements(elements, self.rank, self.world);
        let ranges: Vec<Vec<_>> = parts.iter().map(|p| p.iter().map(|(range, _)| range.clone()).collect()).collect();
        let plan = Plan::new(leaves, &ranges).map_err(|detail| CollectiveError::protocol(self.rank, detail))?;
        let mut sources: Vec<_> = parts.iter().flat_map(|parts| parts.iter()).collect();
        sources.sort_by_key(|(range, _)| range.start);
        let sources: Vec<&[f32]> = sources.iter().map(|(_, values)| &values[owned.clone()]).collect();
        let mut owned_sum = vec![0.0; owned.len()];
        plan.program(None).run(&mut owned_sum, &sources, None);
        let sums = self.exchange(Message::Sum(Arc::new(owned_sum)))?;
        let mut sum = Vec::with_capacity(elements);
        for (rank, message) in sums.iter().enumerate() {
            match message {
                Message::Sum(values) => sum.extend_from_slice(values),
                other => return Err(self.mismatch(rank, "the end of all_reduce", other)),
            }
        }
        // The others may still read what was laid down here, so it is not handed back.
        Ok(Reduced { sum, spare: Vec::new() })
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        check_gather(mine)?;
        let laid = self.exchange(Message::Bytes(mine.to_vec()))?;
        let mut all = Vec::with_capacity(laid.len());
        for (rank, message) in laid.iter().enumerate() {
            match message {
                Message::Bytes(bytes) => all.push(bytes.clone()),
                other => return Err(self.mismatch(rank, "all_gather", other)),
            }
        }
        Ok(all)
    }
}
