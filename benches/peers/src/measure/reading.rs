//! Point reads, batches, seeks and scans in a warm page cache; every byte of every value verified.
//!
//! Each engine reads a copy of its loaded file, opened once; the round that is not counted brings the mapping, a cache,
//! or the checks of a first touch into the state that later rounds meet. Unless a measurement says else, one thread reads
//! in one read transaction per round.

use super::{About, Run, READ_SEED, SECOND_READ_SEED};
use crate::data::{Probes, Seeks};
use crate::disk;
use crate::engine::{Direction, Store};
use crate::report::{median, Better, Figure};
use crate::Res;
use std::sync::Barrier;
use std::time::Instant;

/// Point reads per round, or as many as there are entries.
const READS_MAX: usize = 1_000_000;
const TXN_READS_MAX: usize = 500_000;
const SEEKS_MAX: usize = 200_000;
/// Entries read from a key on.
const SEEK_LENGTH: usize = 10;
/// Keys of a batch.
pub(crate) const BATCH: usize = 100;

pub(crate) fn points(run: &Run<'_>) -> Res<Figure> {
    let probes = probes(run, READ_SEED, READS_MAX);
    let samples = each_round(run, |store| lookups(probes.len(), || store.get_all(&probes)))?;
    Ok(run.figure(rate("reads", "random point reads, one thread", "lookups/s"), samples, &[]))
}

pub(crate) fn in_own_txn(run: &Run<'_>) -> Res<Figure> {
    let probes = probes(run, READ_SEED, TXN_READS_MAX);
    let samples = each_round(run, |store| lookups(probes.len(), || store.get_each(&probes)))?;
    Ok(run.figure(rate("txn_reads", "random point reads, a read transaction for each", "lookups/s"), samples, &[]))
}

pub(crate) fn batches(run: &Run<'_>) -> Res<Figure> {
    let probes = probes(run, READ_SEED, READS_MAX);
    let samples = each_round(run, |store| lookups(probes.len(), || store.get_batches(&probes, BATCH)))?;
    let title = "batches of 100 random keys; a loop of gets where an engine has no call for it";
    Ok(run.figure(rate("multi", title, "lookups/s"), samples, &[]))
}

pub(crate) fn seeks(run: &Run<'_>) -> Res<Figure> {
    let ids = run.data.shuffled(READ_SEED);
    let seeks = Seeks::new(run.data, &ids[..ids.len().min(SEEKS_MAX)], SEEK_LENGTH);
    let samples = each_round(run, |store| lookups(seeks.len(), || store.seek_all(&seeks)))?;
    Ok(run.figure(rate("seek", "seek to a random key and read 10 entries", "seeks/s"), samples, &[]))
}

/// Two threads, each with all probes in an order of its own; and one thread in the same round, just before.
pub(crate) fn two_threads(run: &Run<'_>) -> Res<Vec<Figure>> {
    let probes = [probes(run, READ_SEED, READS_MAX), probes(run, SECOND_READ_SEED, READS_MAX)];
    let stores = open_all(run)?;
    let mut gains = vec![Vec::new(); run.engines().len()];
    let samples = run.interleave(|i, _| {
        let store = stores[i].as_ref();
        // Not counted: both then meet a processor cache that this engine has filled, not the one before it.
        store.get_all(&probes[0])?;
        let alone = lookups(probes[0].len(), || get_by_threads(store, &probes[..1]))?;
        let both = lookups(probes[0].len() * 2, || get_by_threads(store, &probes))?;
        gains[i].push(both / alone);
        Ok(both)
    })?;
    close_all(run, stores)?;
    let notes: Vec<String> =
        gains.iter().map(|gains| format!("{:.2} x its own single thread", median(&gains[1..]))).collect();
    let together =
        run.figure(rate("reads_two_threads", "random point reads, two threads", "lookups/s"), samples, &notes);
    let gains = gains.into_iter().map(|gains| gains[1..].to_vec()).collect();
    let about = rate("reads_second_thread", "random point reads, two threads beside one", "of one thread");
    let mut beside = run.figure(about, gains, &[]);
    beside.versus = "the same engine's single thread in the same round".into();
    for row in &mut beside.rows {
        row.ratios = row.values.clone();
    }
    Ok(vec![together, beside])
}

/// One thread for each list of probes; returns when all are done. Starting them is in the time, some ten microseconds.
fn get_by_threads(store: &dyn Store, probes: &[Probes]) -> Res<()> {
    let barrier = Barrier::new(probes.len());
    let results: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let start = |probes| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                store.get_all(probes).map_err(|e| e.to_string())
            })
        };
        let threads: Vec<_> = probes.iter().map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
        threads
            .into_iter()
            .map(|thread| join(thread).unwrap_or_else(|_| Err("a reading thread panicked".into())))
            .collect()
    });
    Ok(results.into_iter().collect::<Result<(), String>>()?)
}

pub(crate) fn scans(run: &Run<'_>) -> Res<Vec<Figure>> {
    let expected = run.data.tally();
    let stores = open_all(run)?;
    let scan = |direction| {
        run.interleave(|i, _| {
            let start = Instant::now();
            if stores[i].scan(direction)? != expected {
                return Err("a scan saw something else than was stored".into());
            }
            Ok(f64::from(run.data.entries) / start.elapsed().as_secs_f64())
        })
    };
    let forward = scan(Direction::Forward)?;
    let reverse = scan(Direction::Reverse)?;
    close_all(run, stores)?;
    Ok(vec![
        run.figure(rate("scan_forward", "full scan, forward", "entries/s"), forward, &[]),
        run.figure(rate("scan_reverse", "full scan, reverse", "entries/s"), reverse, &[]),
    ])
}

pub(super) fn rate<'a>(id: &'static str, title: &'a str, unit: &'static str) -> About<'a> {
    About { id, title, unit, better: Better::Higher }
}

/// The first `max` entries of a random order.
fn probes(run: &Run<'_>, seed: u64, max: usize) -> Probes {
    let ids = run.data.shuffled(seed);
    Probes::new(run.data.shape, &ids[..ids.len().min(max)], 0)
}

/// Lookups per second.
pub(super) fn lookups(count: usize, read: impl FnOnce() -> Res<()>) -> Res<f64> {
    let start = Instant::now();
    read()?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn each_round(run: &Run<'_>, take: impl Fn(&dyn Store) -> Res<f64>) -> Res<Vec<Vec<f64>>> {
    let stores = open_all(run)?;
    let samples = run.interleave(|i, _| take(stores[i].as_ref()))?;
    close_all(run, stores)?;
    Ok(samples)
}

fn open_all(run: &Run<'_>) -> Res<Vec<Box<dyn Store>>> {
    let open = |engine| Ok(run.open_copy(engine, &run.base(engine)?)?.1);
    run.engines().iter().map(open).collect()
}

fn close_all(run: &Run<'_>, stores: Vec<Box<dyn Store>>) -> Res<()> {
    for (store, engine) in stores.into_iter().zip(run.engines()) {
        store.close()?;
        disk::remove(&run.scratch.file("work", engine.name))?;
    }
    Ok(())
}
