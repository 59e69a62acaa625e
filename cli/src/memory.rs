//! What the allocator does with memory that was freed.

/// The number of mimalloc's option `purge_delay` in its list of options, which its bindings do not name.
const PURGE_DELAY: i32 = 15;

/// Never gives freed memory back to the system. A training step frees what the next one needs again, and getting it back costs
/// a page fault every 4 KiB: a tenth of the time of a step of ViT-Ti/16.
pub(crate) fn keep_freed() {
    // SAFETY: any option may be set at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_the_option() {
        let delay = || {
            // SAFETY: any option may be read at any time.
            unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }
        };
        // Its default is in milliseconds; the options beside it are 0 or 1.
        assert!(delay() >= 10, "{} is the delay", delay());
        keep_freed();
        assert_eq!(delay(), -1);
    }
}
