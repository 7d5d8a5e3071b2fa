//! Group commit: one thread flushes the log for all transactions that wait.
//!
//! Floor: txn. A transaction that has to be durable waits until `durable` and `published` have
//! reached its txn. A waiter that gets the flush lock leads. Steps, as in docs/concurrency.md:
//!
//! ```text
//! 1  copy the latest state; if it is durable, go to 7
//! 2  raise `closed` to its head, rounded up to a page; full fence
//! 3  wait while `appending` keeps its value (P8)
//! 4  flush the log from `flushed`, or from the log start of the durable meta page, to `closed`
//! 5  store `flushed`
//! 6  store `durable`
//! 7  store `published` (P10: after `durable`)
//! ```
//!
//! A leader that knows of other committers first waits for their records, at most as long as a
//! flush takes, because a flush costs more than a transaction. This is group commit, as in DeWitt
//! and others, "Implementation Techniques for Main Memory Database Systems" (1984).
//!
//! A waker that a program has given to a `PendingCommit` may do anything, also begin a transaction.
//! So [`Waiters::wake`], which runs under locks, only lists the wakers as due, and
//! [`Waiters::wake_tasks`] calls them when the thread holds no lock:
//!
//! ```text
//! leader, poison, checkpoint  under the writer lock: when that is released; else: at the end
//! the environment's thread    after each flush or checkpoint that it was asked for
//! ```
//!
//! Failure: a failed flush poisons the database before any waiter wakes (R9).

use std::sync::atomic::{fence, AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::hooks::{self, FlushKind, Moment, Mutant};
use crate::ids::TxnId;
use crate::txn::core::Core;
use crate::txn::live::{FlushMark, UNPUBLISHED_MAX};
use crate::txn::locks::NamedGuard;
use crate::txn::state::State;

/// How long a waiter sleeps before it looks again whether the flush lock is free.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// The longest time that a leader waits for the records of others.
const GATHER_MAX: Duration = Duration::from_millis(2);
/// Waiters that spin instead of sleeping, at a time. Waking a thread takes about half as long as a
/// flush.
const SPINNERS_MAX: u64 = 1;
/// Flushes for one transaction each, after which the next commit is made with one write
/// (`sole_commit.rs`).
const LONE_FLUSHES_MIN: u64 = 8;
/// With more committers than this, a waiter that spins takes the processor from the others.
const SPIN_COMMITTERS_MAX: u64 = 2;

/// Threads and tasks that wait until a transaction is durable.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    state: Mutex<Waiting>,
    /// Whether tasks are due.
    has_due: AtomicBool,
    /// Waiters that spin now.
    spinning: AtomicU64,
    /// Transactions that the last flush made durable, or that committed while it ran.
    committers: AtomicU64,
    /// The last flushes, if each was for one transaction.
    lone_flushes: AtomicU64,
    /// Mean time of a flush, in nanoseconds.
    flush_nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Waker>,
    /// Wakers to call as soon as a thread holds no lock.
    due: Vec<Waker>,
    threads: Vec<(TxnId, Thread)>,
}

impl Waiters {
    /// Wakes the threads that wait for a transaction up to `txn`, and one more thread, which leads
    /// the next flush. All tasks become due: when the caller has released its locks, it calls
    /// [`wake_tasks`](Waiters::wake_tasks).
    pub(crate) fn wake(&self, txn: TxnId) {
        let mut guard = self.lock();
        let waiting = &mut *guard;
        waiting.due.append(&mut waiting.wakers);
        self.has_due.store(!waiting.due.is_empty(), Ordering::Release);
        let (mut ready, mut rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut waiting.threads).into_iter().partition(|(waits_for, _)| *waits_for <= txn);
        ready.extend(rest.pop());
        waiting.threads = rest;
        drop(guard);
        ready.iter().for_each(|(_, thread)| thread.unpark());
        if hooks::is(Mutant::WakersUnderLocks) {
            self.wake_tasks();
        }
    }

    /// Calls the wakers of tasks that are due. The caller holds no lock, because a waker may begin
    /// a transaction, make a checkpoint or close the database.
    #[inline]
    pub(crate) fn wake_tasks(&self) {
        if self.has_due.load(Ordering::Acquire) {
            self.call_wakers();
        }
    }

    #[cold]
    fn call_wakers(&self) {
        let mut waiting = self.lock();
        self.has_due.store(false, Ordering::Relaxed);
        let due = std::mem::take(&mut waiting.due);
        drop(waiting);
        due.into_iter().for_each(Waker::wake);
    }

    /// Adds a task to wake when the next flush or checkpoint has ended.
    pub(crate) fn add(&self, waker: &Waker) {
        // Cloned and dropped without the lock, because both are code of the program.
        let waker = waker.clone();
        let mut waiting = self.lock();
        if !waiting.wakers.iter().any(|known| known.will_wake(&waker)) {
            waiting.wakers.push(waker);
        }
    }

    /// Whether the last flushes were for one transaction each, so that the next one probably is.
    pub(super) fn flushes_are_lone(&self) -> bool {
        self.lone_flushes.load(Ordering::Relaxed) >= LONE_FLUSHES_MIN
    }

    /// Other threads want to commit too.
    pub(super) fn expect_others(&self) {
        self.lone_flushes.store(0, Ordering::Relaxed);
    }

    /// Notes for how many transactions a flush was, with those that committed while it ran.
    fn note_committers(&self, committers: u64) {
        self.committers.store(committers, Ordering::Relaxed);
        match committers {
            1 => self.lone_flushes.fetch_add(1, Ordering::Relaxed),
            _ => self.lone_flushes.swap(0, Ordering::Relaxed),
        };
    }

    /// Notes how long a flush took.
    pub(super) fn note_flush(&self, time: Duration) {
        let average = self.flush_nanos.load(Ordering::Relaxed);
        self.flush_nanos.store((3 * average + time.as_nanos() as u64) / 4, Ordering::Relaxed);
    }

    fn enter(&self, txn: TxnId) {
        self.lock().threads.push((txn, std::thread::current()));
    }

    fn leave(&self) {
        let own = std::thread::current().id();
        self.lock().threads.retain(|(_, thread)| thread.id() != own);
    }

    fn flush_time(&self) -> Duration {
        Duration::from_nanos(self.flush_nanos.load(Ordering::Relaxed)).min(GATHER_MAX)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Whether a transaction is durable and visible.
    pub(crate) fn is_acknowledged(&self, txn: TxnId) -> bool {
        self.live.published_txn() >= txn && self.live.durable_txn() >= txn
    }

    /// Returns when a transaction is durable and visible. Leads a flush if no other thread does.
    pub(crate) fn wait_durable(&self, txn: TxnId) -> Result<()> {
        loop {
            if self.is_acknowledged(txn) {
                return Ok(());
            }
            hooks::reach(Moment::Waiting);
            self.check_process()?;
            self.check_poison()?;
            self.prove_cache_unlocked()?;
            if hooks::is(Mutant::WaitsForFlushLock) {
                self.lead(self.flush_lock.lock())?;
                continue;
            }
            if self.try_lead()? || self.spin(txn) {
                continue;
            }
            self.waiters.enter(txn);
            let slept = self.sleep_until_flushed(txn);
            self.waiters.leave();
            slept?;
        }
    }

    /// Sleeps until a leader wakes this thread, which is in the list of waiters.
    fn sleep_until_flushed(&self, txn: TxnId) -> Result<()> {
        let sleeper = self.is_member().then(|| self.live.sleeper());
        // A leader that ended before this thread was in the list did not wake it.
        if self.is_acknowledged(txn) || self.check_poison().is_err() || self.try_lead()? {
            return Ok(());
        }
        match sleeper.filter(|_| self.flush_lock.is_free()) {
            // The leader is another process.
            Some(sleeper) => {
                sleeper.sleep(WAIT_MAX);
                self.waiters.wake(self.live.published_txn());
            }
            None => std::thread::park_timeout(WAIT_MAX),
        }
        Ok(())
    }

    /// Wakes all threads that wait for states up to the published one, in all processes; tasks
    /// become due.
    pub(crate) fn wake_waiters(&self) {
        self.waiters.wake(self.live.published_txn());
        self.live.wake_processes();
    }

    /// Leads a flush if no other thread does, and wakes tasks. Returns whether it did. The caller
    /// holds no lock.
    fn try_lead(&self) -> Result<bool> {
        match self.flush_lock.try_lock() {
            Some(flush) => {
                self.gather();
                let led = self.lead(flush);
                self.waiters.wake_tasks();
                led.map(|()| true)
            }
            None => Ok(false),
        }
    }

    /// Spins while another thread flushes, if fewer than `SPINNERS_MAX` waiters do. Returns false
    /// if the caller had better sleep.
    fn spin(&self, txn: TxnId) -> bool {
        if hooks::waits(Moment::AwaitingFlush(txn.0)) {
            return true;
        }
        let is_other_process = self.is_member() && self.flush_lock.is_free();
        if is_other_process || self.waiters.committers.load(Ordering::Relaxed) > SPIN_COMMITTERS_MAX {
            return false;
        }
        if self.waiters.spinning.fetch_add(1, Ordering::Relaxed) >= SPINNERS_MAX {
            self.waiters.spinning.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let (begin, limit) = (Instant::now(), 2 * self.waiters.flush_time());
        while !self.is_acknowledged(txn) && !self.flush_lock.is_free() && begin.elapsed() < limit {
            std::thread::yield_now();
        }
        self.waiters.spinning.fetch_sub(1, Ordering::Relaxed);
        begin.elapsed() < limit
    }

    /// Makes the latest state durable and visible.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_process()?;
        self.check_poison()?;
        self.wait_durable(self.live.latest().txn)
    }

    /// Leads a flush before a txn would pass `published` by more than the ring holds (P5), or if
    /// more than a quarter of the log is unflushed. The search for damage reads half of the log
    /// past the end (`Scanner::damage`): the unflushed quarter and one record.
    pub(crate) fn keep_unflushed(&self, state: &State) -> Result<()> {
        let unflushed = state.log.start.saturating_sub(self.live.flushed().max(self.live.durable_meta().log_start));
        let quarter = state.log.pages * self.page_size as u64 / 4;
        let overruns = state.txn.0 > self.live.published_txn().0 + UNPUBLISHED_MAX && !hooks::is(Mutant::RingOverrun);
        if overruns || unflushed > quarter {
            self.lead(self.flush_lock.lock())?;
        }
        Ok(())
    }

    /// Waits for the records of other committers, if the last flush had some: until as many
    /// transactions are unflushed as then, but no longer than the mean time of a flush (at most
    /// [`GATHER_MAX`]).
    fn gather(&self) {
        let committers = self.waiters.committers.load(Ordering::Relaxed);
        if committers < 2 || hooks::is_scheduled() {
            return;
        }
        let flush = self.waiters.flush_time();
        let (begin, mut last, mut known) = (Instant::now(), Instant::now(), self.unflushed());
        while known < committers && begin.elapsed() < flush && last.elapsed() < flush {
            std::thread::yield_now();
            let unflushed = self.unflushed();
            if unflushed > known {
                (known, last) = (unflushed, Instant::now());
            }
        }
    }

    /// Number of transactions that are committed and not durable.
    fn unflushed(&self) -> u64 {
        self.live.latest().txn.0.saturating_sub(self.live.durable_txn().0)
    }

    /// Flushes the log, then releases the flush lock and wakes waiters; tasks become due. Poisons
    /// if the flush fails.
    fn lead(&self, flush: NamedGuard<'_>) -> Result<()> {
        let done = self.check_poison().and_then(|()| self.flush_log());
        if let Err(e) = &done {
            self.set_poison(e);
        }
        drop(flush);
        self.wake_waiters();
        done
    }

    fn flush_log(&self) -> Result<()> {
        let state = self.live.latest();
        let durable = self.live.durable_txn();
        hooks::note(state.txn.0);
        if durable < state.txn {
            if hooks::is(Mutant::AcknowledgedEarly) {
                self.live.set_durable(state.txn);
                self.live.publish(state.txn);
                return Ok(());
            }
            if hooks::is(Mutant::PublishedEarly) {
                self.live.publish(state.txn);
            }
            let again = self.live.set_odd(FlushMark::Flush);
            self.flush_records(&state, again)?;
            // The committers of this flush, and those that committed while it ran.
            let committers = self.live.latest().txn.0.saturating_sub(durable.0);
            self.waiters.note_committers(committers);
        }
        hooks::reach(Moment::Publishing);
        self.live.publish(state.txn);
        if durable < state.txn {
            self.live.set_even(FlushMark::Flush);
        }
        Ok(())
    }

    /// Flushes the records of the log up to a state. `again`: a leader has died in its flush, so
    /// what it covered is flushed again, by a file description that will report its error (P18).
    fn flush_records(&self, state: &State, again: bool) -> Result<()> {
        let page_size = self.page_size as u64;
        let closed = state.log.start.next_multiple_of(page_size);
        hooks::reach(Moment::LatestCopied);
        self.live.raise_closed(closed);
        fence(Ordering::SeqCst);
        hooks::reach(Moment::LogClosed);
        self.await_appender();
        self.mapping.follow().map_err(|e| self.flush_error("mapping the log", e))?;
        if again {
            self.mapping.flush_all(FlushKind::Log).map_err(|e| self.flush_error("flushing the file again", e))?;
        }
        let begun = self.live.flushed().max(self.live.durable_meta().log_start / page_size * page_size);
        if begun < closed && state.log.pages > 0 {
            let begin = Instant::now();
            let log_file = self.log_file(&state.log).map_err(|e| self.flush_error("opening the commit log", e))?;
            log_file.flush(&self.mapping, begun, closed).map_err(|e| self.flush_error("flushing the commit log", e))?;
            self.waiters.note_flush(begin.elapsed());
        }
        self.finish_flush(state, closed)
    }

    /// Ends a flush of the records up to `closed`: stores `flushed` and `durable`.
    pub(crate) fn finish_flush(&self, state: &State, closed: u64) -> Result<()> {
        // The kernel reports no error for records that were cut off after they were written, so
        // look at the length.
        self.check_whole(state).map_err(|e| self.unknown(&e))?;
        self.live.raise_flushed(closed);
        hooks::reach(Moment::FlushedStored);
        self.live.set_durable(state.txn);
        Ok(())
    }

    /// Waits until the record that is being appended is written, because it may begin in a page
    /// that is about to be flushed (P8).
    fn await_appender(&self) {
        let appending = self.live.appending();
        if appending == TxnId(0) || hooks::is(Mutant::AppenderNotAwaited) {
            return;
        }
        // A writer clears it before it releases its lock, unless it has stopped.
        while self.live.appending() == appending && self.writer_lock.is_held() && !self.live.is_damaged() {
            if !hooks::waits(Moment::AwaitingAppender(appending.0)) {
                std::thread::yield_now();
            }
        }
    }

    /// Returns the error of commits that may or may not be found when the file is opened again.
    fn unknown(&self, cause: &Error) -> Error {
        self.not_known(cause)
    }
}
