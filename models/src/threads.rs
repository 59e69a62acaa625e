use crate::ModelError;

/// Sets how many threads this process computes with; called once, before anything is computed. Results do not depend
/// on it.
pub fn set_threads(threads: usize) -> Result<(), ModelError> {
    kernels::threads::set_threads(threads).map_err(|reason| ModelError::Threads { threads, reason })
}
