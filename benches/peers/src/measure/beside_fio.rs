//! Reads from a cold file beside what the device gives: `fio` reads the same file in the same round, with direct I/O.
//!
//! - Random: batches of 1,000 random keys, the first one alone and then some more, beside single pages of 4 KiB read at
//!   random, 32 in flight. A batch needs about one page per key, so lookups and pages compare.
//! - Sequential: a scan of the file as the load in random order has left it, and of the compacted file, beside pieces of
//!   1 MiB read in order, eight in flight. The rate of a scan is the length of the file by the time.
//!
//! Each figure comes twice: with ratios to LMDB, and with ratios to `fio`. The file is dropped from the page cache before
//! each reading, and opened outside the clock.
//!
//! Failure: without `fio` on the path the measurement says so and has no figures.

use super::cold::copies;
use super::reading::rate;
use super::{About, Run, READ_SEED};
use crate::data::Probes;
use crate::disk;
use crate::engine::{Direction, Engine, Store};
use crate::report::Figure;
use crate::Res;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Keys of a batch.
const BATCH: usize = 1_000;
/// Batches after the first one.
const BATCHES: usize = 20;
/// What `fio` reads for, in seconds.
const FIO_SECONDS: u64 = 2;
/// The engines in which `fio` may read, the first one that works.
const FIO_ENGINES: [&str; 2] = ["io_uring", "libaio"];

/// How `fio` reads.
#[derive(Clone, Copy)]
enum Pattern {
    Random,
    Sequential,
}

impl Pattern {
    fn arguments(self) -> [&'static str; 3] {
        match self {
            Pattern::Random => ["--rw=randread", "--bs=4k", "--iodepth=32"],
            Pattern::Sequential => ["--rw=read", "--bs=1m", "--iodepth=8"],
        }
    }
}

pub(crate) fn random(run: &Run<'_>) -> Res<Vec<Figure>> {
    let ids = run.data.shuffled(READ_SEED);
    let count = (BATCH * (1 + BATCHES)).min(ids.len());
    let (first, rest) = ids[..count].split_at(BATCH.min(count));
    let [first, rest] = [first, rest].map(|ids| Probes::new(run.data.shape, ids, 0));
    let paths = copies(run)?;
    let (mut firsts, mut device) = (vec![Vec::new(); run.engines().len()], Vec::new());
    let samples = run.interleave(|i, engine| {
        if i == 0 {
            device.push(fio(&paths[i], Pattern::Random)?);
        }
        cold(engine, &paths[i], |store| {
            let start = Instant::now();
            store.get_batches(&first, BATCH)?;
            let first_seconds = start.elapsed().as_secs_f64();
            store.get_batches(&rest, BATCH)?;
            firsts[i].push(first.len() as f64 / first_seconds);
            Ok((first.len() + rest.len()) as f64 / start.elapsed().as_secs_f64())
        })
    })?;
    remove(paths)?;
    let firsts = firsts.into_iter().map(|rates| rates[1..].to_vec()).collect();
    let titles = ["one batch of 1,000 random keys, cold", "21 batches of 1,000 random keys, cold"];
    let mut figures = both(run, ["fio_first", "fio_first_lmdb"], titles[0], "lookups/s", firsts, &device);
    figures.extend(both(run, ["fio_multi", "fio_multi_lmdb"], titles[1], "lookups/s", samples, &device));
    Ok(figures)
}

pub(crate) fn sequential(run: &Run<'_>) -> Res<Vec<Figure>> {
    let scattered = copies(run)?;
    let packed: Vec<PathBuf> = run.engines().iter().map(|engine| compacted(run, engine)).collect::<Res<_>>()?;
    let mut figures = Vec::new();
    let kinds = [
        (scattered, ["fio_scan", "fio_scan_lmdb"], "full scan, cold, after a load in random order"),
        (packed, ["fio_packed", "fio_packed_lmdb"], "full scan, cold, compacted"),
    ];
    for (paths, ids, title) in kinds {
        let (mut device, expected) = (Vec::new(), run.data.tally());
        let samples = run.interleave(|i, engine| {
            if i == 0 {
                device.push(fio(&paths[i], Pattern::Sequential)?);
            }
            let bytes = disk::file_bytes(&paths[i])?.1;
            cold(engine, &paths[i], |store| {
                let start = Instant::now();
                if store.scan(Direction::Forward)? != expected {
                    return Err("a scan saw something else than was stored".into());
                }
                Ok(super::mib(bytes) / start.elapsed().as_secs_f64())
            })
        })?;
        let entries_per_mib: Vec<f64> = paths
            .iter()
            .map(|path| Ok(f64::from(run.data.entries) / super::mib(disk::file_bytes(path)?.1)))
            .collect::<Res<_>>()?;
        remove(paths)?;
        let scans = samples.iter().zip(entries_per_mib);
        let entries = scans.map(|(rates, each)| rates.iter().map(|rate| rate * each).collect()).collect();
        figures.push(beside(run, rate(ids[0], title, "MiB/s"), samples, &device));
        figures.push(run.figure(rate(ids[1], title, "entries/s"), entries, &[]));
    }
    Ok(figures)
}

/// The same rates with ratios to `fio`, and with ratios to LMDB.
fn both(
    run: &Run<'_>,
    ids: [&'static str; 2],
    title: &str,
    unit: &'static str,
    samples: Vec<Vec<f64>>,
    device: &[f64],
) -> Vec<Figure> {
    let to_lmdb = run.figure(rate(ids[1], title, unit), samples.clone(), &[]);
    vec![beside(run, rate(ids[0], title, unit), samples, device), to_lmdb]
}

/// A figure whose ratios are to what `fio` read in the same round.
fn beside(run: &Run<'_>, about: About<'_>, samples: Vec<Vec<f64>>, device: &[f64]) -> Figure {
    let counted = &device[1..];
    let mut figure = run.figure(about, samples, &[]);
    figure.versus = format!("fio in the same round (median {:.0})", crate::report::median(counted));
    for row in &mut figure.rows {
        row.ratios = row.values.iter().zip(counted).map(|(value, device)| value / device).collect();
    }
    figure
}

/// Calls `take` with a database that was dropped from the page cache and opened again.
fn cold(engine: &Engine, path: &Path, take: impl FnOnce(&dyn Store) -> Res<f64>) -> Res<f64> {
    disk::drop_cache(path)?;
    let store = engine.open(path)?;
    let value = take(store.as_ref())?;
    store.close()?;
    Ok(value)
}

/// The engine's file after compaction; after the load, where it has no call for that.
fn compacted(run: &Run<'_>, engine: &Engine) -> Res<PathBuf> {
    let (work, to) = (run.scratch.file("compacting", engine.name), run.scratch.file("packed", engine.name));
    disk::fresh_copy(&run.base(engine)?, &work, run.options.cache)?;
    if engine.open(&work)?.compact(&work, &to)? {
        disk::remove(&work)?;
        return Ok(to);
    }
    disk::rename(&work, &to)?;
    Ok(to)
}

fn remove(paths: Vec<PathBuf>) -> Res<()> {
    Ok(paths.iter().try_for_each(|path| disk::remove(path))?)
}

/// Single pages per second, or MiB per second, that `fio` reads from a file, past the page cache.
fn fio(path: &Path, pattern: Pattern) -> Res<f64> {
    let mut said = String::new();
    for engine in FIO_ENGINES {
        let output = Command::new("fio")
            .args(["--name=beside", "--readonly", "--direct=1", "--time_based", "--output-format=json"])
            .args(pattern.arguments())
            .arg(format!("--ioengine={engine}"))
            .arg(format!("--runtime={FIO_SECONDS}"))
            .arg(format!("--filename={}", path.display()))
            .output()
            .map_err(|e| format!("fio, which this measure needs: {e}"))?;
        if output.status.success() {
            return rate_of(&output.stdout, pattern);
        }
        said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    }
    Err(format!("fio: {said}").into())
}

/// The rate in what `fio` prints.
fn rate_of(output: &[u8], pattern: Pattern) -> Res<f64> {
    let json: serde_json::Value = serde_json::from_slice(output)?;
    let read = &json["jobs"][0]["read"];
    let rate = match pattern {
        Pattern::Random => read["iops"].as_f64(),
        Pattern::Sequential => read["bw_bytes"].as_f64().map(|bytes| bytes / f64::from(1 << 20)),
    };
    rate.ok_or_else(|| "fio printed no rate".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_fio_is_read_from_its_first_job() -> Res<()> {
        let output = br#"{"jobs": [{"read": {"iops": 70000.5, "bw_bytes": 3145728}}]}"#;
        assert_eq!(rate_of(output, Pattern::Random)?, 70000.5);
        assert_eq!(rate_of(output, Pattern::Sequential)?, 3.0);
        assert!(rate_of(b"{}", Pattern::Random).is_err() && rate_of(b"fio: error", Pattern::Random).is_err());
        Ok(())
    }
}
