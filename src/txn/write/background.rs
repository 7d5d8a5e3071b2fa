//! The thread of an environment: checkpoints beside writers, and flushes for transactions that no
//! thread waits for.
//!
//! Floor: txn. The thread starts with the log and ends with the environment. It shares only the
//! core of the environment, so it does not keep the environment open.
//!
//! Failure: a failed flush poisons the database, as in any other thread. If the thread cannot be
//! created, writers make the checkpoints themselves when the log is full.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::hooks;
use crate::ids::TxnId;
use crate::sys::fork;
use crate::txn::core::Core;

/// Requests that the thread has not begun yet.
#[derive(Debug, Default)]
struct Wanted {
    checkpoint: bool,
    /// The time by which the latest state has to be durable.
    sync_at: Option<Instant>,
    stop: bool,
}

/// Requests of other threads to the environment's thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    /// Writers that wait for a checkpoint.
    waiting: AtomicU64,
    /// Whether the thread runs.
    runs: AtomicBool,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a checkpoint.
    pub(crate) fn want_checkpoint(&self) {
        let mut wanted = self.lock();
        if !wanted.checkpoint {
            wanted.checkpoint = true;
            self.changed.notify_one();
        }
    }

    /// Asks for a flush of the latest state within a time.
    pub(crate) fn want_sync(&self, within: Duration) {
        let Some(at) = Instant::now().checked_add(within) else { return };
        let mut wanted = self.lock();
        if wanted.sync_at.is_none_or(|earlier| at < earlier) {
            wanted.sync_at = Some(at);
            self.changed.notify_one();
        }
    }

    /// Whether a writer waits for a checkpoint, or the thread is to stop.
    pub(crate) fn is_urgent(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 || self.lock().stop
    }

    /// Whether the thread runs.
    pub(crate) fn has_thread(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    /// Counts a writer that waits for a checkpoint, until the guard is dropped.
    pub(crate) fn wait(&self) -> WaitGuard<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        WaitGuard { signal: self }
    }
}

/// A writer that waits for a checkpoint.
#[derive(Debug)]
pub(crate) struct WaitGuard<'s> {
    signal: &'s Signal,
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.signal.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The running thread. Dropping this ends the thread.
#[derive(Debug)]
pub(crate) struct Background {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl Background {
    /// Starts the thread. `None` if it cannot be created.
    pub(crate) fn start(core: &Arc<Core>) -> Option<Background> {
        let shared = Arc::clone(core);
        let inherited = hooks::inheritance();
        let run = move || {
            hooks::inherit(inherited);
            let _runs = Runs(&shared);
            work(&shared);
        };
        let thread = std::thread::Builder::new().name("mapleaf-checkpoint".into()).spawn(run).ok()?;
        core.signal.runs.store(true, Ordering::Relaxed);
        Some(Background { core: Arc::clone(core), thread: Some(thread), process: fork::id() })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.process != fork::id() {
            // A child after `fork` does not have the thread: waiting for it would not end.
            std::mem::forget(self.thread.take());
            return;
        }
        self.core.signal.lock().stop = true;
        self.core.signal.changed.notify_one();
        let is_own = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        // A task that the environment's thread has woken may drop the last handle. That thread
        // cannot join itself.
        if let Some(thread) = self.thread.take().filter(|thread| !is_own(thread)) {
            // A panic of the thread would be a bug, and has poisoned nothing.
            drop(thread.join());
        }
        self.core.signal.lock().stop = false;
        self.core.signal.runs.store(false, Ordering::Relaxed);
    }
}

/// Clears `runs` when the thread ends, also by a panic.
struct Runs<'c>(&'c Core);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.signal.runs.store(false, Ordering::Relaxed);
        self.0.waiters.wake(TxnId(u64::MAX));
        self.0.waiters.wake_tasks();
    }
}

fn work(core: &Core) {
    loop {
        let mut wanted = core.signal.lock();
        let (checkpoint, sync) = loop {
            if wanted.stop {
                return;
            }
            let now = Instant::now();
            let sync = wanted.sync_at.is_some_and(|at| at <= now);
            if wanted.checkpoint || sync {
                break (std::mem::take(&mut wanted.checkpoint), sync);
            }
            wanted = match wanted.sync_at {
                Some(at) => {
                    let waited = core.signal.changed.wait_timeout(wanted, at.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => core.signal.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner),
            };
        };
        if sync {
            wanted.sync_at = None;
        }
        drop(wanted);
        let synced = if sync { core.sync() } else { Ok(()) };
        // The last checkpoint may have done what was asked for while it ran.
        let checkpoint = checkpoint && core.is_checkpoint_due(&core.live.latest());
        let done = synced.and_then(|()| if checkpoint { core.checkpoint_beside_writers(true) } else { Ok(()) });
        // Also if another thread has made the commits durable, and under locks: each commit that a
        // task waits for has asked for a flush here, so no task depends on that thread. After an
        // error, the next call of each task reports the poison.
        core.waiters.wake(if done.is_ok() { core.live.published_txn() } else { TxnId(u64::MAX) });
        core.waiters.wake_tasks();
    }
}
