//! Counts steps of what a transaction does besides its trees, so that tests can hold costs against sizes without a clock.
//!
//! Floor: none below. A step is one look at something that a transaction or the database holds: an open table, a reader
//! slot, a free extent. The count belongs to a thread, so that tests that run beside each other do not meet. Without the
//! feature `testing` nothing is counted.
//!
//! Failure: none.

#[cfg(feature = "testing")]
thread_local! {
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts one step of this thread.
#[inline(always)]
pub(crate) fn count() {
    #[cfg(feature = "testing")]
    TAKEN.set(TAKEN.get() + 1);
}

/// Steps that this thread has taken so far.
#[cfg(feature = "testing")]
pub(crate) fn taken() -> u64 {
    TAKEN.get()
}
