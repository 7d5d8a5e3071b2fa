//! The writer lock: one writer at a time, and no thread waits for ever.
//!
//! Floor: txn. The lock belongs to the environment and not to a thread, so that a write transaction
//! can move between threads. Threads that wait form a queue, and a release wakes only the first of
//! them. A running thread that finds the lock free passes the queue, because waking a thread takes
//! long, unless the first thread of the queue has waited for [`PATIENCE`]. A thread whose time
//! limit ends leaves the queue without disturbing the others.
//!
//! The thread that has the lock of its process asks for the lock between the processes. A process
//! that had it last lets another one that has waited for [`PATIENCE`] be first: the kernel gives
//! the lock to any process that runs when it is free.
//!
//! Failure: none. Reaching the time limit is a result, not an error.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::hooks::{self, Moment};
use crate::txn::live::{Live, Process};
use crate::txn::locks::{check_order, LockName};
use crate::txn::processes::descriptor::ProcessLock;

/// Once the first thread of the queue has waited this long, no other thread passes it.
const PATIENCE: Duration = Duration::from_millis(1);

/// How long a thread yields in a loop before it sleeps, and how many threads may do so at a time.
const SPIN: Duration = Duration::from_micros(50);
const SPINNERS_MAX: u64 = 1;

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    thread: Thread,
    since: Instant,
}

#[derive(Debug, Default)]
struct Queue {
    held: bool,
    waiting: VecDeque<Waiter>,
    next_ticket: u64,
}

impl Queue {
    fn first(&self) -> Option<u64> {
        self.waiting.front().map(|waiter| waiter.ticket)
    }

    /// The thread to wake when the lock is free.
    fn to_wake(&self) -> Option<Thread> {
        self.waiting.front().filter(|_| !self.held).map(|waiter| waiter.thread.clone())
    }
}

/// A lock without a guard: [`acquire`](WriterLock::acquire) takes it,
/// [`release`](WriterLock::release) frees it, from any thread.
#[derive(Debug)]
pub(crate) struct WriterLock {
    env: u64,
    queue: Mutex<Queue>,
    /// Threads that yield in a loop now.
    spinning: AtomicU64,
    /// A thread gave up, since `was_awaited` was last called.
    refused: AtomicBool,
    /// The lock between processes. `None` if only this process writes.
    between: Option<Between>,
}

/// The lock between processes, and the hints that make it fair.
struct Between {
    lock: ProcessLock,
    live: Live,
    own: Process,
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Between").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// How long a process lets another one be first, at most.
const COURTESY: Duration = Duration::from_millis(2);
/// The longest pause of a thread that asks for the lock between processes until its time limit.
const PAUSE_MAX: Duration = Duration::from_millis(1);

impl Between {
    /// Waits for the lock, at most until `deadline` if there is one. Returns whether it was
    /// acquired.
    fn acquire(&self, deadline: Option<Instant>) -> bool {
        self.let_others_pass(deadline);
        if self.lock.try_lock() {
            self.live.set_last_writer(self.own.index);
            return true;
        }
        self.live.note_waiting(self.own.index, true);
        let acquired = self.try_yielding(deadline)
            || match deadline {
                None => {
                    self.lock.lock();
                    true
                }
                Some(deadline) => self.try_until(deadline),
            };
        self.live.note_waiting(self.own.index, false);
        if acquired {
            self.live.set_last_writer(self.own.index);
        }
        acquired
    }

    /// Asks for the lock again and again for a short time, in which a short transaction ends. The
    /// kernel would take longer to wake the thread.
    fn try_yielding(&self, deadline: Option<Instant>) -> bool {
        let begin = Instant::now();
        let end = deadline.map_or(begin + SPIN, |deadline| deadline.min(begin + SPIN));
        while Instant::now() < end {
            std::thread::yield_now();
            if self.lock.try_lock() {
                return true;
            }
        }
        false
    }

    fn try_until(&self, deadline: Instant) -> bool {
        let mut pause = Duration::from_micros(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.lock.try_lock();
            }
            std::thread::park_timeout(pause.min(left));
            if self.lock.try_lock() {
                return true;
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// If this process had the lock last and another one waits, lets that one be first.
    fn let_others_pass(&self, deadline: Option<Instant>) {
        let own = self.own.index;
        if self.live.last_writer() != own as u64 + 1 {
            return;
        }
        let Some(other) = self.live.waiting_since(own, PATIENCE) else { return };
        let end = Instant::now() + COURTESY;
        let end = deadline.map_or(end, |deadline| deadline.min(end));
        while self.live.last_writer() == own as u64 + 1 {
            if Instant::now() >= end {
                if !self.lock.is_alive(other) {
                    self.live.forget_waiting(other);
                }
                return;
            }
            std::thread::park_timeout(Duration::from_micros(20));
        }
    }
}

impl WriterLock {
    /// The lock of an environment with this number.
    pub(crate) fn new(env: u64, between: Option<(ProcessLock, Live, Process)>) -> WriterLock {
        WriterLock {
            env,
            queue: Mutex::default(),
            spinning: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            between: between.map(|(lock, live, own)| Between { lock, live, own }),
        }
    }

    /// Waits for the lock, at most for `limit` if one is given. Returns whether it was acquired.
    pub(crate) fn acquire(&self, limit: Option<Duration>) -> bool {
        check_order(self.env, LockName::Writer);
        hooks::reach(Moment::Taking(LockName::Writer));
        // A limit that overflows the clock counts as no limit.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        if !self.acquire_in_process(deadline) {
            return false;
        }
        let acquired = self.between.as_ref().is_none_or(|between| between.acquire(deadline));
        if !acquired {
            self.release_in_process();
        }
        acquired
    }

    fn acquire_in_process(&self, deadline: Option<Instant>) -> bool {
        if self.take_spinning(deadline) {
            return true;
        }
        let mut queue = self.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back(Waiter { ticket, thread: std::thread::current(), since: Instant::now() });
        loop {
            if !queue.held && queue.first() == Some(ticket) {
                queue.waiting.pop_front();
                queue.held = true;
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                queue.waiting.retain(|waiter| waiter.ticket != ticket);
                // This thread may be the one that a release woke. Then the next one has to be
                // woken.
                let next = queue.to_wake();
                drop(queue);
                next.inspect(Thread::unpark);
                self.refused.store(true, Ordering::Relaxed);
                return false;
            }
            drop(queue);
            match left {
                Some(left) => std::thread::park_timeout(left),
                None => std::thread::park(),
            }
            queue = self.lock();
        }
    }

    /// Takes the lock if it is free or becomes free soon. A short transaction ends before a thread
    /// could fall asleep and be woken.
    fn take_spinning(&self, deadline: Option<Instant>) -> bool {
        if self.try_take() {
            return true;
        }
        let begin = Instant::now();
        let end = deadline.map_or(begin + SPIN, |deadline| deadline.min(begin + SPIN));
        let mut taken = false;
        if self.spinning.fetch_add(1, Ordering::Relaxed) < SPINNERS_MAX {
            while !taken && Instant::now() < end {
                std::thread::yield_now();
                taken = self.try_take();
            }
        }
        self.spinning.fetch_sub(1, Ordering::Relaxed);
        taken
    }

    /// Whether a thread of any process holds the lock at this moment.
    pub(crate) fn is_held(&self) -> bool {
        match &self.between {
            None => self.lock().held,
            // A thread of this process may have the lock of the process only.
            Some(between) if between.lock.is_held_by_others() => true,
            Some(between) => self.lock().held && between.live.last_writer() == between.own.index as u64 + 1,
        }
    }

    /// Whether another thread waits for the lock, or gave up since the last call.
    pub(crate) fn was_awaited(&self) -> bool {
        let refused = self.refused.swap(false, Ordering::Relaxed);
        let others = |between: &Between| between.live.waiting_since(between.own.index, Duration::ZERO).is_some();
        refused
            || self.spinning.load(Ordering::Relaxed) > 0
            || self.lock().first().is_some()
            || self.between.as_ref().is_some_and(others)
    }

    fn try_take(&self) -> bool {
        let mut queue = self.lock();
        let may_pass = queue.waiting.front().is_none_or(|first| first.since.elapsed() < PATIENCE);
        let taken = !queue.held && may_pass;
        queue.held |= taken;
        taken
    }

    /// Releases the lock, and wakes the first thread of the queue.
    pub(crate) fn release(&self) {
        if let Some(between) = &self.between {
            between.lock.unlock();
        }
        self.release_in_process();
    }

    fn release_in_process(&self) {
        let mut queue = self.lock();
        queue.held = false;
        let next = queue.to_wake();
        drop(queue);
        next.inspect(Thread::unpark);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_waiter_gives_up_after_its_timeout_and_does_not_keep_the_lock() {
        let lock = WriterLock::new(0, None);
        assert!(lock.acquire(None));
        assert!(!lock.acquire(Some(Duration::from_millis(5))));
        assert!(!lock.acquire(Some(Duration::ZERO)));
        lock.release();
        assert!(lock.acquire(Some(Duration::ZERO)));
    }

    #[test]
    fn sleeping_waiters_get_the_lock_in_the_order_of_their_arrival() {
        let lock = Arc::new(WriterLock::new(0, None));
        let order = Arc::new(Mutex::new(Vec::new()));
        assert!(lock.acquire(None));
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (waiter, order) = (Arc::clone(&lock), Arc::clone(&order));
                let thread = std::thread::spawn(move || {
                    waiter.acquire(None);
                    order.lock().expect("order").push(n);
                    waiter.release();
                });
                while lock.lock().waiting.len() <= n {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        lock.release();
        for thread in threads {
            thread.join().expect("waiter");
        }
        assert_eq!(*order.lock().expect("order"), [0, 1, 2, 3]);
    }

    #[test]
    fn a_waiter_that_gives_up_leaves_the_others_in_line() {
        let lock = Arc::new(WriterLock::new(0, None));
        assert!(lock.acquire(None));
        let waiter = Arc::clone(&lock);
        let thread = std::thread::spawn(move || {
            assert!(waiter.acquire(None));
            waiter.release();
        });
        while lock.lock().waiting.is_empty() {
            std::thread::yield_now();
        }
        assert!(!lock.acquire(Some(Duration::ZERO)));
        // Otherwise the other thread would wait for ever.
        assert_eq!(lock.lock().waiting.len(), 1);
        lock.release();
        thread.join().expect("waiter");
    }
}
