//! Reads from a file that is not in the page cache and would fit into it.
//!
//! Before each round the file is closed, flushed and dropped from the page cache, and `mincore` must say that no page of
//! it is left. Opening is outside the clock, as is whatever an engine reads for it. What the disk itself, or a machine
//! below this one, keeps in memory is out of reach: the same for all.
//!
//! Random gets are told twice, after the first 1,000 and after all: a kernel that reads ahead generously pays for the
//! first ones and gains from it later.

use super::device;
use super::reading::{rate, BATCH};
use super::{Run, READ_SEED};
use crate::data::Probes;
use crate::disk;
use crate::engine::{Direction, Engine, Store};
use crate::report::Figure;
use crate::Res;
use std::path::PathBuf;
use std::time::Instant;

const FIRST_GETS: usize = 1_000;
/// One entry of so many is looked up.
const READ_ONE_OF: usize = 50;

/// Lookups of a round: the first thousand, and those after.
struct Lookups {
    first: Probes,
    rest: Probes,
}

impl Lookups {
    fn new(run: &Run<'_>) -> Lookups {
        let ids = run.data.shuffled(READ_SEED);
        let count = (ids.len() / READ_ONE_OF).clamp(FIRST_GETS.min(ids.len() / 2) + BATCH, ids.len());
        let (first, rest) = ids[..count].split_at(FIRST_GETS.min(ids.len() / 2));
        Lookups { first: Probes::new(run.data.shape, first, 0), rest: Probes::new(run.data.shape, rest, 0) }
    }

    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }
}

pub(crate) fn gets(run: &Run<'_>) -> Res<Vec<Figure>> {
    let lookups = Lookups::new(run);
    let mut all = vec![Vec::new(); run.engines().len()];
    let first = each_cold(run, |i, store| {
        let start = Instant::now();
        store.get_all(&lookups.first)?;
        let first = start.elapsed().as_secs_f64();
        store.get_all(&lookups.rest)?;
        all[i].push(lookups.len() as f64 / start.elapsed().as_secs_f64());
        Ok(lookups.first.len() as f64 / first)
    })?;
    let all = all.into_iter().map(|rates| rates[1..].to_vec()).collect();
    let counted = |mut figure: Figure, count: usize| {
        figure.title = format!("{}; {count} gets", figure.title);
        figure
    };
    let about = |id| rate(id, "random gets, cold, one thread", "lookups/s");
    Ok(vec![
        counted(run.figure(about("cold_first"), first, &[]), lookups.first.len()),
        counted(run.figure(about("cold_gets"), all, &[]), lookups.len()),
    ])
}

pub(crate) fn batches(run: &Run<'_>) -> Res<Figure> {
    let lookups = Lookups::new(run);
    let samples = each_cold(run, |_, store| {
        let start = Instant::now();
        store.get_batches(&lookups.first, BATCH)?;
        store.get_batches(&lookups.rest, BATCH)?;
        Ok(lookups.len() as f64 / start.elapsed().as_secs_f64())
    })?;
    let mut figure = run.figure(rate("cold_multi", "batches of 100 random keys, cold", "lookups/s"), samples, &[]);
    figure.title = format!("{}; {} lookups", figure.title, lookups.len());
    Ok(figure)
}

pub(crate) fn scan(run: &Run<'_>) -> Res<Figure> {
    let expected = run.data.tally();
    let samples = each_cold(run, |_, store| {
        let start = Instant::now();
        if store.scan(Direction::Forward)? != expected {
            return Err("a scan saw something else than was stored".into());
        }
        Ok(f64::from(run.data.entries) / start.elapsed().as_secs_f64())
    })?;
    Ok(run.figure(rate("cold_scan", "full scan, forward, cold", "entries/s"), samples, &[]))
}

/// Commits after cold reads: whoever reads a file into large folios writes them back whole.
pub(crate) fn folios(run: &Run<'_>) -> Res<Vec<Figure>> {
    let lookups = Lookups::new(run);
    let after_gets = device::after_reads(run, "cold_folios", "cold gets and batches", &|store: &dyn Store| {
        store.get_all(&lookups.first)?;
        store.get_batches(&lookups.rest, BATCH)
    })?;
    let after_scans =
        device::after_reads(run, "cold_folios_scan", "a cold scan, and one back", &|store: &dyn Store| {
            store.scan(Direction::Forward)?;
            store.scan(Direction::Reverse).map(|_| ())
        })?;
    Ok(vec![after_gets, after_scans])
}

/// A closed copy of each engine's loaded file.
pub(super) fn copies(run: &Run<'_>) -> Res<Vec<PathBuf>> {
    let copy = |engine: &Engine| -> Res<PathBuf> {
        let (path, store) = run.open_copy(engine, &run.base(engine)?)?;
        store.close()?;
        Ok(path)
    };
    run.engines().iter().map(copy).collect()
}

/// Calls `take` with a database that was dropped from the page cache and opened again.
fn each_cold(run: &Run<'_>, mut take: impl FnMut(usize, &dyn Store) -> Res<f64>) -> Res<Vec<Vec<f64>>> {
    let paths = copies(run)?;
    let samples = run.interleave(|i, engine| {
        disk::drop_cache(&paths[i])?;
        let store = engine.open(&paths[i])?;
        let value = take(i, store.as_ref())?;
        store.close()?;
        Ok(value)
    })?;
    for path in paths {
        disk::remove(&path)?;
    }
    Ok(samples)
}
