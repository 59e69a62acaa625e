//! Failures on demand, for tests of what uses a collective.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::abort::Wake;
use crate::{AbortHandle, Collective, CollectiveError, Reduced};

/// A collective that fails as its script says. Calls of either operation are numbered together, from 0.
pub struct Faulty<C> {
    /// `None` once a scripted failure dropped it, as a dying process would.
    inner: Option<C>,
    rank: u32,
    world: u32,
    abort: AbortHandle,
    script: BTreeMap<u64, Fault>,
    calls: u64,
}

/// What happens instead of, or before, a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The call fails as if the next rank had been lost, and the wrapped collective is dropped, so that the peers fail.
    Fail,
    /// The abort handle is used just before the call.
    Abort,
    /// The call waits until the gate is released, then goes on as if nothing had happened.
    Delay(Gate),
}

impl<C: Collective> Faulty<C> {
    /// Wraps `inner`; calls that the script does not name go straight through.
    pub fn new(inner: C, script: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self {
            rank: inner.rank(),
            world: inner.world(),
            abort: inner.abort_handle(),
            inner: Some(inner),
            script: script.into_iter().collect(),
            calls: 0,
        }
    }

    /// How many calls were made so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Plays the script's entry for this call, then hands out the wrapped collective.
    fn next_call(&mut self) -> Result<&mut C, CollectiveError> {
        let call = self.calls;
        self.calls += 1;
        match self.script.remove(&call) {
            None => {}
            Some(Fault::Abort) => self.abort.abort(),
            Some(Fault::Delay(gate)) => gate.pass(&self.abort)?,
            Some(Fault::Fail) => {
                self.inner = None;
                let source = io::Error::new(io::ErrorKind::ConnectionReset, "scripted failure");
                return Err(CollectiveError::PeerLost { rank: (self.rank + 1) % self.world, source });
            }
        }
        self.inner.as_mut().ok_or(CollectiveError::Broken)
    }
}

impl<C: Collective> Collective for Faulty<C> {
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
        self.next_call()?.all_reduce(leaves, elements, parts)
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.next_call()?.all_gather(mine)
    }

    fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }
}

/// Holds a delayed call until a test releases it. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    shared: Arc<GateShared>,
}

/// Two threads wait for each other here, which is what a condition variable and its mutex are for.
#[derive(Debug, Default)]
struct GateShared {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    arrived: bool,
    released: bool,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the delayed call go on, now or when it arrives.
    pub fn release(&self) {
        self.shared.lock().released = true;
        self.shared.changed.notify_all();
    }

    /// Waits until a delayed call has arrived.
    pub fn wait_for_arrival(&self) {
        let state = self.shared.lock();
        drop(self.shared.changed.wait_while(state, |state| !state.arrived).expect(GATE_LOCK));
    }

    fn pass(&self, abort: &AbortHandle) -> Result<(), CollectiveError> {
        let waker: Arc<dyn Wake> = self.shared.clone();
        abort.register(Arc::downgrade(&waker));
        let mut state = self.shared.lock();
        state.arrived = true;
        self.shared.changed.notify_all();
        let waits = |state: &mut GateState| !state.released && !abort.is_aborted();
        drop(self.shared.changed.wait_while(state, waits).expect(GATE_LOCK));
        if abort.is_aborted() { Err(CollectiveError::Aborted) } else { Ok(()) }
    }
}

const GATE_LOCK: &str = "no code that can panic runs under the gate's lock";

impl GateShared {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().expect(GATE_LOCK)
    }
}

impl Wake for GateShared {
    fn wake(&self) {
        // Taking the lock first makes sure that the waiting thread is asleep, and not between its look and its sleep.
        drop(self.lock());
        self.changed.notify_all();
    }
}
