//! Durable commits of one overwritten entry, on a file as loaded and on one with a long free list.
//!
//! Every round starts from a fresh copy of the same file (`disk::fresh_copy`), opens it and makes some commits that are
//! not counted. The keys are chosen at random among those present; afterwards, outside the clock, each is read back.
//!
//! The long free list: a transaction removes entries scattered over the whole file, one for every forty. That rewrites
//! about a third of the leaves, each in another place than its neighbours by key, so that their old places become free
//! one by one. With 1,000,000 entries (some 60,000 leaves) about 20,000 pages become free, in more than 10,000 extents
//! (LMDB: 21,964 pages in 14,759). A few commits later they may be used again, and the file is closed.

use super::{About, Run, COMMIT_SEED, REMOVE_SEED};
use crate::data::{Pairs, Probes, Rng};
use crate::disk::{self, Counters};
use crate::engine::{Engine, Order, Tuning, BASELINE};
use crate::report::{median, Better, Figure};
use crate::Res;
use std::path::{Path, PathBuf};
use std::time::Instant;

const WARM_UP_COMMITS: usize = 100;
/// One entry of so many is removed to make free extents.
const REMOVED_ONE_OF: usize = 40;
/// Commits until what a transaction freed may be used again.
const SETTLING_COMMITS: usize = 4;

/// One engine's work on one kind of file, over all rounds.
#[derive(Default, Clone)]
struct Series {
    rates: Vec<f64>,
    bytes: Vec<f64>,
    flushes: Vec<f64>,
    /// Length of the file before closing, to that of the file as loaded.
    lengths: Vec<f64>,
}

impl Series {
    fn note(&self) -> String {
        if self.bytes.is_empty() {
            return String::new();
        }
        let length = match self.lengths.is_empty() {
            true => String::new(),
            false => format!("; file {:.2} times as long as loaded", median(&self.lengths)),
        };
        let (bytes, flushes) = (median(&self.bytes) / 1024.0, median(&self.flushes));
        format!("{bytes:.1} KiB, {flushes:.1} flushes per commit{length}")
    }
}

pub(crate) fn plain(run: &Run<'_>) -> Res<Vec<Figure>> {
    let ids = chosen(run, &run.data.shuffled(REMOVE_SEED));
    let mut series = vec![Series::default(); run.engines().len()];
    let samples = run.interleave(|i, engine| commits(run, engine, &run.base(engine)?, &ids, &mut series[i]))?;
    Ok(vec![plain_figure(run, samples, &series)])
}

pub(crate) fn with_free_list(run: &Run<'_>) -> Res<Vec<Figure>> {
    let all = run.data.shuffled(REMOVE_SEED);
    let (removed, left) = all.split_at(all.len() / REMOVED_ONE_OF);
    let ids = chosen(run, left);
    let mut notes = Vec::new();
    for engine in run.engines() {
        notes.push(make_free(run, engine, removed, left[0])?);
    }
    let mut plain = vec![Series::default(); run.engines().len()];
    let mut freed = plain.clone();
    let mut pairs = vec![Vec::new(); run.engines().len()];
    let samples = run.interleave(|i, engine| {
        let rate = commits(run, engine, &run.base(engine)?, &ids, &mut plain[i])?;
        let with_list = commits(run, engine, &free_path(run, engine), &ids, &mut freed[i])?;
        pairs[i].push((rate, with_list));
        Ok(rate)
    })?;
    let first = plain_figure(run, samples, &plain);
    Ok(vec![first, freed_figure(run, &pairs, &freed, notes)])
}

/// Entries of a transaction of `batches`, and transactions per round.
const BATCH_ENTRIES: usize = 1000;
const BATCHES: usize = 200;
/// Threads of `threads`.
const THREADS: [usize; 3] = [1, 2, 8];

/// Transactions per round of `updates`.
const UPDATE_BATCHES: usize = 1000;
/// Commits per round of `eventual`, and uncounted ones before.
const EVENTUAL_COMMITS: usize = 100_000;

/// Durable commits of many overwritten entries each.
pub(crate) fn batches(run: &Run<'_>) -> Res<Vec<Figure>> {
    let title = "overwritten entries, 1,000 in a durable commit, closing included";
    by_call_and_by_puts(run, ["batches", "batches_puts"], title, BATCHES)
}

/// The same for so long that several checkpoints are made.
pub(crate) fn updates(run: &Run<'_>) -> Res<Vec<Figure>> {
    let title = "1,000,000 overwritten entries, 1,000 in a durable commit, closing included";
    by_call_and_by_puts(run, ["updates", "updates_puts"], title, UPDATE_BATCHES)
}

fn by_call_and_by_puts(run: &Run<'_>, ids: [&'static str; 2], title: &str, batches: usize) -> Res<Vec<Figure>> {
    let by_call = About { id: ids[0], title, unit: "entries/s", better: Better::Higher };
    let by_puts = About { id: ids[1], title: "the same, by a loop of puts in all engines", ..by_call };
    Ok(vec![many(run, by_call, batches, Order::Batch)?, many(run, by_puts, batches, Order::Any)?])
}

fn many(run: &Run<'_>, about: About<'_>, batches: usize, order: Order) -> Res<Figure> {
    let ids = random(&run.data.shuffled(REMOVE_SEED), (batches + 1) * BATCH_ENTRIES);
    let mut series = vec![Series::default(); run.engines().len()];
    let samples = run.interleave(|i, engine| in_batches(run, engine, &ids, order, &mut series[i]))?;
    Ok(run.figure(about, samples, &series.iter().map(Series::note).collect::<Vec<_>>()))
}

fn in_batches(run: &Run<'_>, engine: &Engine, ids: &[u32], order: Order, series: &mut Series) -> Res<f64> {
    let shape = run.data.shape;
    let base = run.base(engine)?;
    let (path, mut store) = run.open_copy(engine, &base)?;
    let (warm_up, timed) = ids.split_at(BATCH_ENTRIES);
    store.put_all(&mut Pairs::listed(shape, warm_up, 1), order)?;
    let before = counters(run)?;
    let start = Instant::now();
    for batch in timed.chunks(BATCH_ENTRIES) {
        store.put_all(&mut Pairs::listed(shape, batch, 1), order)?;
    }
    let puts = start.elapsed();
    series.lengths.push(disk::file_bytes(&path)?.0 as f64 / disk::file_bytes(&base)?.0 as f64);
    store.get_all(&Probes::new(shape, ids, 1))?;
    let closing = Instant::now();
    store.close()?;
    let rate = timed.len() as f64 / (puts + closing.elapsed()).as_secs_f64();
    if let (Some(before), Some(after)) = (before, counters(run)?) {
        let (done, commits) = (after.since(before), timed.len() / BATCH_ENTRIES);
        series.bytes.push(done.bytes_written as f64 / commits as f64);
        series.flushes.push(done.flushes as f64 / commits as f64);
    }
    disk::remove(&path)?;
    Ok(rate)
}

/// Commits that do not wait for the disk; closing, outside the clock, makes them durable.
pub(crate) fn eventual(run: &Run<'_>) -> Res<Figure> {
    let ids = random(&run.data.shuffled(REMOVE_SEED), WARM_UP_COMMITS + EVENTUAL_COMMITS);
    let shape = run.data.shape;
    let tuning = Tuning { eventual: true, ..Tuning::default() };
    let samples = run.interleave(|_, engine| {
        let (path, store) = run.open_tuned_copy(engine, &run.base(engine)?, tuning)?;
        let (warm_up, timed) = ids.split_at(WARM_UP_COMMITS);
        store.put_each(&mut Pairs::listed(shape, warm_up, 1))?;
        let start = Instant::now();
        store.put_each(&mut Pairs::listed(shape, timed, 1))?;
        let rate = timed.len() as f64 / start.elapsed().as_secs_f64();
        store.get_all(&Probes::new(shape, &ids, 1))?;
        store.close()?;
        disk::remove(&path)?;
        Ok(rate)
    })?;
    let title = "commits of one overwritten entry that survive a crash of the process; LMDB with MDB_NOSYNC";
    Ok(run.figure(About { id: "eventual", title, unit: "commits/s", better: Better::Higher }, samples, &[]))
}

/// Durable commits of one overwritten entry by several threads at a time.
pub(crate) fn threads(run: &Run<'_>) -> Res<Vec<Figure>> {
    let ids = chosen(run, &run.data.shuffled(REMOVE_SEED));
    let mut figures = Vec::new();
    for threads in THREADS {
        let samples = run.interleave(|_, engine| by_threads(run, engine, &ids, threads))?;
        let title = format!("durable commits of one overwritten entry, {threads} threads");
        let id = ["commits_1_thread", "commits_2_threads", "commits_8_threads"][threads.ilog2().min(2) as usize];
        let about = About { id, title: &title, unit: "commits/s", better: Better::Higher };
        figures.push(run.figure(about, samples, &[]));
    }
    Ok(figures)
}

fn by_threads(run: &Run<'_>, engine: &Engine, ids: &[u32], threads: usize) -> Res<f64> {
    let shape = run.data.shape;
    let (path, store) = run.open_copy(engine, &run.base(engine)?)?;
    let (warm_up, timed) = ids.split_at(WARM_UP_COMMITS);
    store.put_each(&mut Pairs::listed(shape, warm_up, 1))?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let puts: Vec<_> = timed
            .chunks(timed.len().div_ceil(threads))
            .map(|part| scope.spawn(|| store.put_each(&mut Pairs::listed(shape, part, 1)).map_err(|e| e.to_string())))
            .collect();
        puts.into_iter().try_for_each(|put| put.join().map_err(|_| "a thread panicked".to_string())?)
    })?;
    let rate = timed.len() as f64 / start.elapsed().as_secs_f64();
    store.get_all(&Probes::new(shape, ids, 1))?;
    store.close()?;
    disk::remove(&path)?;
    Ok(rate)
}

fn plain_figure(run: &Run<'_>, samples: Vec<Vec<f64>>, series: &[Series]) -> Figure {
    let about = About {
        id: "commits",
        title: "durable commits of one overwritten entry",
        unit: "commits/s",
        better: Better::Higher,
    };
    run.figure(about, samples, &series.iter().map(Series::note).collect::<Vec<_>>())
}

/// Ratios are to the same engine's commits of the same round without the free list.
fn freed_figure(run: &Run<'_>, pairs: &[Vec<(f64, f64)>], series: &[Series], mut notes: Vec<String>) -> Figure {
    let counted = |pairs: &Vec<(f64, f64)>| pairs[1..].to_vec();
    let samples = pairs.iter().map(|p| counted(p).iter().map(|&(_, freed)| freed).collect()).collect();
    for (note, series) in notes.iter_mut().zip(series) {
        *note = format!("{note}{}", series.note());
    }
    let about = About {
        id: "commits_free_list",
        title: "the same with a free list of at least 10,000 extents at 1,000,000 entries",
        unit: "commits/s",
        better: Better::Higher,
    };
    let mut figure = run.figure(about, samples, &notes);
    for (row, pairs) in figure.rows.iter_mut().zip(pairs) {
        if !row.ratios.is_empty() && row.engine != BASELINE {
            row.note = format!("{:.2} x {BASELINE}; {}", median(&row.ratios), row.note);
        }
        row.ratios = counted(pairs).iter().map(|(plain, freed)| freed / plain).collect();
    }
    figure.versus = "the same engine without the free list".into();
    figure
}

/// Random entries out of `from`, one per commit.
fn chosen(run: &Run<'_>, from: &[u32]) -> Vec<u32> {
    random(from, WARM_UP_COMMITS + run.options.commits)
}

/// So many random entries out of `from`, the same in each run.
fn random(from: &[u32], count: usize) -> Vec<u32> {
    let mut rng = Rng::new(COMMIT_SEED);
    (0..count).map(|_| from[rng.below(from.len() as u64) as usize]).collect()
}

/// Times the commits on a copy of `base`; returns commits per second.
fn commits(run: &Run<'_>, engine: &Engine, base: &Path, ids: &[u32], series: &mut Series) -> Res<f64> {
    let shape = run.data.shape;
    let (path, mut store) = run.open_copy(engine, base)?;
    let (warm_up, timed) = ids.split_at(WARM_UP_COMMITS);
    for id in warm_up {
        store.put_all(&mut Pairs::listed(shape, std::slice::from_ref(id), 1), Order::Any)?;
    }
    let before = counters(run)?;
    let start = Instant::now();
    for id in timed {
        store.put_all(&mut Pairs::listed(shape, std::slice::from_ref(id), 1), Order::Any)?;
    }
    let rate = timed.len() as f64 / start.elapsed().as_secs_f64();
    if let (Some(before), Some(after)) = (before, counters(run)?) {
        let done = after.since(before);
        series.bytes.push(done.bytes_written as f64 / timed.len() as f64);
        series.flushes.push(done.flushes as f64 / timed.len() as f64);
    }
    series.rates.push(rate);
    store.get_all(&Probes::new(shape, ids, 1))?;
    store.close()?;
    disk::remove(&path)?;
    Ok(rate)
}

fn counters(run: &Run<'_>) -> Res<Option<Counters>> {
    run.device.as_ref().map(|device| device.counters()).transpose()
}

fn free_path(run: &Run<'_>, engine: &Engine) -> PathBuf {
    run.scratch.file("free", engine.name)
}

/// Makes the file with the long free list; returns what the engine says of it.
fn make_free(run: &Run<'_>, engine: &Engine, removed: &[u32], kept: u32) -> Res<String> {
    let shape = run.data.shape;
    let (work, mut store) = run.open_copy(engine, &run.base(engine)?)?;
    store.remove_all(&mut Pairs::listed(shape, removed, 0))?;
    for _ in 0..SETTLING_COMMITS {
        store.put_all(&mut Pairs::listed(shape, &[kept], 0), Order::Any)?;
    }
    let free = store.free_pages()?;
    store.close()?;
    disk::rename(&work, &free_path(run, engine))?;
    Ok(free.map(|pages| format!("{pages} free pages; ")).unwrap_or_default())
}
