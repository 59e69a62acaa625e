use crate::ModelError;

/// Sets how many threads this process computes with; called once, before anything is computed. Results do not depend
/// on it.
pub fn set_threads(threads: usize) -> Result<(), ModelError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|index| format!("compute-{index}"))
        .build_global()
        .map_err(|e| ModelError::Threads { threads, reason: e.to_string() })
}
