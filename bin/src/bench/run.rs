//! Runs a workload on several threads, counts its operations, and ends it at its limits.
//!
//! The loop is closed: a thread begins its next operation when the previous one has ended. The
//! latency of an operation is the time from the end of the previous one to its own end. So it
//! includes choosing and generating the key and verifying the value.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::kind::{OperationKind, KIND_COUNT};
use crate::exit::{Exit, Failure};
use crate::random::Rng;
use crate::terminal::interrupt;

/// The limits of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) time: Option<Duration>,
    /// Number of operations of all threads together.
    pub(crate) operations: Option<u64>,
}

impl Limits {
    /// The limits of one thread.
    fn share(self, thread: u64, threads: u64) -> Limits {
        let share = |all: u64| all / threads + u64::from(thread < all % threads);
        Limits { operations: self.operations.map(share), ..self }
    }
}

/// The counts of a run, for each kind of operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) latencies: [Histogram; KIND_COUNT],
    pub(crate) entries: [u64; KIND_COUNT],
    /// From the first thread's start to the last thread's end.
    pub(crate) time: Duration,
}

/// One thread's part of a run.
#[derive(Debug)]
pub(crate) struct Lap<'r> {
    pub(crate) rng: Rng,
    limits: Limits,
    stop: &'r AtomicBool,
    tally: Tally,
    started: Option<Instant>,
    last: Instant,
    done: u64,
}

impl Lap<'_> {
    /// Whether the thread should execute another operation. The first call starts the clock.
    pub(crate) fn continues(&mut self) -> bool {
        let started = match self.started {
            Some(started) => started,
            None => {
                self.last = Instant::now();
                *self.started.insert(self.last)
            }
        };
        let over = self.limits.operations.is_some_and(|all| self.done >= all)
            || self.limits.time.is_some_and(|time| self.last - started >= time);
        !over && !interrupt::requested() && !self.stop.load(Ordering::Relaxed)
    }

    /// Counts an operation that has ended, and its entries.
    pub(crate) fn record(&mut self, kind: OperationKind, entries: u64) {
        let now = Instant::now();
        let latency = u64::try_from((now - self.last).as_nanos()).unwrap_or(u64::MAX);
        self.last = now;
        self.done += 1;
        self.tally.latencies[kind as usize].record(latency);
        self.tally.entries[kind as usize] += entries;
    }
}

/// Runs `body` on this many threads. The first failure ends all threads.
pub(crate) fn run(
    threads: u64,
    limits: Limits,
    seed: u64,
    body: impl Fn(&mut Lap<'_>) -> Result<(), Failure> + Sync,
) -> Result<Tally, Failure> {
    let stop = AtomicBool::new(false);
    let lap = |thread: u64| {
        let mut lap = Lap {
            rng: Rng::of(seed, thread),
            limits: limits.share(thread, threads),
            stop: &stop,
            tally: Tally::default(),
            started: None,
            last: Instant::now(),
            done: 0,
        };
        let result = body(&mut lap);
        if result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        result.map(|()| (lap.tally, lap.started.unwrap_or(lap.last), lap.last))
    };
    let laps: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || lap(thread))).collect();
        let died = |_| Err(Failure::new(Exit::Io, "a thread of the benchmark panicked; the text above says where"));
        running.into_iter().map(|thread| thread.join().unwrap_or_else(died)).collect()
    });
    let mut all = Tally::default();
    let (mut first, mut last) = (None::<Instant>, None::<Instant>);
    for lap in laps {
        let (tally, started, ended) = lap?;
        all.latencies.iter_mut().zip(&tally.latencies).for_each(|(all, more)| all.add(more));
        all.entries.iter_mut().zip(&tally.entries).for_each(|(all, more)| *all += more);
        first = Some(first.map_or(started, |first| first.min(started)));
        last = Some(last.map_or(ended, |last| last.max(ended)));
    }
    all.time = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn operations_are_divided_among_threads_and_repeatable() {
        let sum = |seed| {
            let drawn = AtomicU64::new(0);
            let limits = Limits { operations: Some(1003), time: None };
            let tally = run(4, limits, seed, |lap| {
                while lap.continues() {
                    drawn.fetch_add(lap.rng.next() >> 20, Ordering::Relaxed);
                    lap.record(OperationKind::Get, 2);
                }
                Ok(())
            })
            .unwrap();
            assert_eq!(tally.latencies[OperationKind::Get as usize].count(), 1003);
            assert_eq!(tally.entries[OperationKind::Get as usize], 2006);
            assert_eq!(tally.latencies[OperationKind::Update as usize].count(), 0);
            drawn.into_inner()
        };
        assert_eq!(sum(1), sum(1));
        assert_ne!(sum(1), sum(2));
    }

    #[test]
    fn time_and_failures_end_all_threads() {
        let limits = Limits { operations: None, time: Some(Duration::from_millis(20)) };
        let tally = run(2, limits, 1, |lap| {
            while lap.continues() {
                lap.record(OperationKind::Get, 1);
            }
            Ok(())
        })
        .unwrap();
        assert!(tally.time >= Duration::from_millis(20));
        let failed = run(3, Limits::default(), 1, |lap| {
            let fails = lap.rng.clone().next() == Rng::of(1, 1).next();
            while lap.continues() {
                lap.record(OperationKind::Get, 1);
                if fails {
                    return Err(Failure::usage("no"));
                }
            }
            Ok(())
        });
        assert_eq!(failed.unwrap_err().text.as_deref(), Some("no"));
    }
}
