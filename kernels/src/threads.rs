//! Deals work to the one pool of threads of this process. Threads without work sleep.

use rayon::prelude::*;

/// Sets how many threads this process computes with; called once, before anything is computed. Results do not depend
/// on it.
pub fn set_threads(threads: usize) -> Result<(), String> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|index| format!("compute-{index}"))
        .build_global()
        .map_err(|error| error.to_string())
}

/// How many threads compute.
pub fn count() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` on a thread of the pool, if there are several: handing every single operator over would cost more than
/// many of them do.
pub fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if count() == 1 { work() } else { rayon::scope(|_| work()) }
}

/// Calls `task` with every number below `tasks`, on all threads if the work is worth it: `cost` is about the number of
/// values that are touched in all.
pub fn for_each(tasks: usize, cost: usize, task: impl Fn(usize) + Send + Sync) {
    /// Values below which handing work over costs more than it gains.
    const SEQUENTIAL_MAX: usize = 1 << 13;
    if tasks == 1 || cost <= SEQUENTIAL_MAX || count() == 1 {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// Calls `task` with every element of `out` and its number, on all threads if the work is worth it: see [`for_each`].
pub fn for_each_mut<T: Send>(out: &mut [T], cost: usize, task: impl Fn(usize, &mut T) + Send + Sync) {
    let shared = Shared::new(out);
    for_each(shared.len, cost, |i| {
        // SAFETY: each task has an element of its own.
        let [element] = (unsafe { shared.slice(i, 1) }) else { unreachable!("one element was asked for") };
        task(i, element);
    });
}

/// Calls `task` with every piece of `size` values of `out` and its number, on all threads if the work is worth it.
pub fn pieces<T: Send>(out: &mut [T], size: usize, task: impl Fn(usize, &mut [T]) + Send + Sync) {
    let (len, shared) = (out.len(), Shared::new(out));
    for_each(len.div_ceil(size), len, |i| {
        // SAFETY: each task has a piece of its own.
        task(i, unsafe { shared.slice(i * size, size.min(len - i * size)) });
    });
}

/// A slice that several tasks write to, each to places of its own.
pub(crate) struct Shared<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: the only way to reach an element is `slice`, whose caller promises that nobody else reaches it meanwhile.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(values: &mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len() }
    }

    /// The `len` elements from `first` on.
    ///
    /// # Safety
    /// The slice that this was made of is still borrowed, and no other part that is in use overlaps this one.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that parts do not overlap")]
    pub(crate) unsafe fn slice(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first + len <= self.len, "a part lies inside of the whole");
        // SAFETY: inside of the slice, as asserted, and exclusive, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}
