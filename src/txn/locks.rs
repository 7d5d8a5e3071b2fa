//! The locks of an environment, by name, and their order.
//!
//! Floor: txn. A thread never takes a lock that stands before one that it holds (P2):
//!
//! ```text
//! writer      one write transaction at a time; belongs to the environment, not to a thread
//! checkpoint  one checkpoint at a time
//! flush       one leader at a time
//! ```
//!
//! Threads of a process queue for a lock; the first of them asks for it between the processes.
//! Debug builds check the order at each step.
//!
//! Failure: none. A lock can be taken after a thread has panicked while holding it: the live
//! records that it protects are whole between any two steps.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::hooks::{self, Moment};
use crate::txn::processes::descriptor::ProcessLock;

pub(crate) use crate::hooks::LockName;

#[cfg(debug_assertions)]
thread_local! {
    static HELD: std::cell::RefCell<Vec<(u64, LockName)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// In debug builds, panics if this thread holds a lock of the same environment that stands at or
/// after `name`.
#[inline]
pub(crate) fn check_order(env: u64, name: LockName) {
    #[cfg(debug_assertions)]
    HELD.with_borrow(|held| {
        let in_order = held.iter().all(|&(other, held)| other != env || held < name);
        assert!(in_order, "lock {name:?} is taken by a thread that holds {held:?}");
    });
    let _ = (env, name);
}

/// Returns a number that no other environment of this process has.
pub(crate) fn new_env_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A lock with a name.
#[derive(Debug)]
pub(crate) struct NamedLock {
    env: u64,
    name: LockName,
    is_held: AtomicBool,
    /// Threads that wait for the lock.
    waiting: AtomicU64,
    mutex: Mutex<()>,
    /// The lock between processes. `None` if only this process takes it.
    between: Option<ProcessLock>,
}

/// A lock that is held.
#[derive(Debug)]
pub(crate) struct NamedGuard<'l> {
    lock: &'l NamedLock,
    _guard: MutexGuard<'l, ()>,
}

impl NamedLock {
    pub(crate) fn new(env: u64, name: LockName, between: Option<ProcessLock>) -> NamedLock {
        let (is_held, waiting) = (AtomicBool::new(false), AtomicU64::new(0));
        NamedLock { env, name, is_held, waiting, mutex: Mutex::new(()), between }
    }

    /// Waits for the lock and takes it.
    pub(crate) fn lock(&self) -> NamedGuard<'_> {
        check_order(self.env, self.name);
        hooks::reach(Moment::Taking(self.name));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(between) = &self.between {
            between.lock();
        }
        self.held(guard)
    }

    /// Takes the lock if it is free and no thread waits for it. A thread that takes a lock again
    /// and again would else starve a waiter, which needs some time to wake.
    pub(crate) fn try_lock_unawaited(&self) -> Option<NamedGuard<'_>> {
        match self.waiting.load(Ordering::Relaxed) {
            0 => self.try_lock(),
            _ => None,
        }
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Option<NamedGuard<'_>> {
        check_order(self.env, self.name);
        let guard = match self.mutex.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let is_ours = self.between.as_ref().is_none_or(ProcessLock::try_lock);
        is_ours.then(|| self.held(guard))
    }

    /// Whether no thread of this process holds the lock at this moment.
    pub(crate) fn is_free(&self) -> bool {
        !self.is_held.load(Ordering::Relaxed)
    }

    fn held<'l>(&'l self, guard: MutexGuard<'l, ()>) -> NamedGuard<'l> {
        self.is_held.store(true, Ordering::Relaxed);
        #[cfg(debug_assertions)]
        HELD.with_borrow_mut(|held| held.push((self.env, self.name)));
        NamedGuard { lock: self, _guard: guard }
    }
}

impl Drop for NamedGuard<'_> {
    fn drop(&mut self) {
        if let Some(between) = &self.lock.between {
            between.unlock();
        }
        // The field `_guard` unlocks the mutex after this function.
        self.lock.is_held.store(false, Ordering::Relaxed);
        #[cfg(debug_assertions)]
        HELD.with_borrow_mut(|held| held.retain(|&held| held != (self.lock.env, self.lock.name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_thread_waits_for_is_not_taken_unawaited() {
        let lock = NamedLock::new(1, LockName::Checkpoint, None);
        drop(lock.try_lock_unawaited().expect("free"));
        let held = lock.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(lock.lock()));
            while lock.waiting.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            // Even while the lock is free, before the other thread has woken.
            assert!(lock.try_lock_unawaited().is_none());
            drop(held);
        });
        assert!(lock.try_lock_unawaited().is_some());
    }

    #[test]
    fn locks_are_taken_in_their_order_only() {
        let (checkpoint, flush) =
            (NamedLock::new(1, LockName::Checkpoint, None), NamedLock::new(1, LockName::Flush, None));
        {
            let _checkpoint = checkpoint.lock();
            let _flush = flush.lock();
        }
        let _flush = flush.lock();
        let other = NamedLock::new(2, LockName::Checkpoint, None);
        drop(other.lock());
        let wrong = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(checkpoint.lock())));
        assert_eq!(wrong.is_err(), cfg!(debug_assertions));
    }
}
