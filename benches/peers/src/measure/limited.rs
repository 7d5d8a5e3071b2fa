//! Random gets from a file four times as large as the memory that the process may use.
//!
//! A process of its own joins a memory cgroup (version 1 or 2) whose limit is a quarter of the file, opens the file, and
//! reads for a time that is not counted and then for one that is. The file is dropped from the page cache before, so that
//! its pages are charged to that cgroup. The limit holds for everything of the process: page cache, its own memory, page
//! tables. Engines with a cache of their own get half of the limit for it.
//!
//! The ratio is to the better of LMDB with and without MDB_NORDAHEAD in the same round.
//!
//! Failure: where no memory cgroup can be made (it takes root, as a rule) the measurement says so and has no figures.

use super::reading::rate;
use super::{Run, READ_SEED};
use crate::cli::engine_named;
use crate::data::{Data, Probes, Shape};
use crate::disk;
use crate::engine::{Engine, Tuning, BASELINE};
use crate::report::Figure;
use crate::Res;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Name of the hidden measure that the process of its own runs.
pub(crate) const CHILD: &str = "limited-child";
/// The file is so many times as large as the limit.
const FILE_PER_LIMIT: u64 = 4;
/// Below it the process itself hardly fits.
const LIMIT_MIN: u64 = 12 << 20;
/// Lookups between two looks at the clock.
const GETS_BETWEEN: usize = 20;
const WARM_UP: Duration = Duration::from_millis(1_500);
const TIMED: Duration = Duration::from_millis(1_500);
/// Ratios are to the better of them.
pub(super) const BASELINES: [&str; 2] = [BASELINE, "lmdb-nordahead"];

pub(crate) fn gets(run: &Run<'_>) -> Res<Figure> {
    let mut how = String::new();
    let mut paths = Vec::new();
    for engine in run.engines() {
        let (path, store) = run.open_copy(engine, &run.base(engine)?)?;
        store.close()?;
        paths.push(path);
    }
    let mut notes = vec![String::new(); run.engines().len()];
    let mut killed = vec![false; run.engines().len()];
    let mut samples = run.interleave(|i, engine| {
        let limit = disk::file_bytes(&paths[i])?.1 / FILE_PER_LIMIT;
        if limit < LIMIT_MIN {
            return Err(
                format!("a quarter of the file is {limit} bytes, too little for a process: more --entries").into()
            );
        }
        let group = Cgroup::new(limit)?;
        how = group.version.into();
        notes[i] = format!("limit {:.1} MiB", super::mib(limit));
        disk::drop_cache(&paths[i])?;
        let rate = in_child(run, engine, &paths[i], &group, limit)?;
        if rate.is_none() {
            killed[i] = true;
        }
        Ok(rate.unwrap_or(f64::NAN))
    })?;
    for path in paths {
        disk::remove(&path)?;
    }
    for (i, _) in killed.iter().enumerate().filter(|(_, killed)| **killed) {
        samples[i].clear();
        notes[i] += ": ended by the kernel, too little for it";
    }
    let title = "random gets, file 4 x the memory limit";
    let mut figure = run.figure(rate("cold_small", title, "lookups/s"), samples, &notes);
    figure.title = format!("{}; limited by {how}", figure.title);
    against_better(&mut figure);
    Ok(figure)
}

/// Takes the ratios to the better of the two LMDBs of each round.
fn against_better(figure: &mut Figure) {
    let of = |name: &str| figure.rows.iter().find(|row| row.engine == name).map(|row| row.values.clone());
    let (Some(base), Some(other)) = (of(BASELINES[0]), of(BASELINES[1])) else { return };
    let better: Vec<f64> = base.iter().zip(&other).map(|(a, b)| a.max(*b)).collect();
    for row in &mut figure.rows {
        row.ratios = row.values.iter().zip(&better).map(|(value, better)| value / better).collect();
    }
    figure.versus = format!("the better of {} and {} in the same round", BASELINES[0], BASELINES[1]);
}

/// Lookups per second; none if the kernel killed the process.
fn in_child(run: &Run<'_>, engine: &Engine, path: &Path, group: &Cgroup, limit: u64) -> Res<Option<f64>> {
    let output = Command::new(std::env::current_exe()?)
        .args([CHILD, engine.name, run.data.shape.name(), &run.data.entries.to_string(), &limit.to_string()])
        .args([&group.path, path])
        .output()?;
    if output.status.signal() == Some(libc::SIGKILL) {
        return Ok(None);
    }
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(format!("the limited process ended with {}: {said}", output.status).into());
    }
    Ok(Some(String::from_utf8(output.stdout)?.trim().parse()?))
}

/// Reads and prints lookups per second.
pub(crate) fn child(args: &[String]) -> Res<()> {
    let [engine, shape, entries, limit, group, path] = args else { return Err("six arguments".into()) };
    let data = Data { shape: Shape::parse(shape).ok_or("no such keys")?, entries: entries.parse()? };
    let tuning = Tuning { cache_bytes: Some(limit.parse::<usize>()? / 2), ..Tuning::default() };
    // What takes memory once, before the limit holds.
    let ids = data.shuffled(READ_SEED);
    let lists: Vec<Probes> =
        ids[..ids.len().min(200_000)].chunks(GETS_BETWEEN).map(|ids| Probes::new(data.shape, ids, 0)).collect();
    drop(ids);
    fs::write(Path::new(group).join("cgroup.procs"), std::process::id().to_string())?;
    let store = engine_named(engine)?.open_tuned(Path::new(path), tuning)?;
    let mut lists = lists.iter().cycle();
    let mut read_for = |time: Duration| -> Res<f64> {
        let start = Instant::now();
        let mut gets = 0;
        while start.elapsed() < time {
            let probes = lists.next().ok_or("nothing to read")?;
            store.get_all(probes)?;
            gets += probes.len();
        }
        Ok(gets as f64 / start.elapsed().as_secs_f64())
    };
    read_for(WARM_UP)?;
    println!("{}", read_for(TIMED)?);
    store.close()
}

/// A memory cgroup of our own; goes away with it.
struct Cgroup {
    path: PathBuf,
    version: &'static str,
}

impl Cgroup {
    fn new(limit: u64) -> Res<Cgroup> {
        let mut reasons = Vec::new();
        for (parent, version, file) in places()? {
            let path = parent.join(format!("mapleaf-peers-{}", std::process::id()));
            if version == V2 {
                // Already so, or not ours to change: making the limit will tell.
                fs::write(parent.join("cgroup.subtree_control"), "+memory").unwrap_or_default();
            }
            let made = fs::create_dir(&path).and_then(|()| {
                let group = Cgroup { path: path.clone(), version };
                fs::write(path.join(file), limit.to_string()).map(|()| group)
            });
            match made {
                Ok(group) => return Ok(group),
                Err(e) => reasons.push(format!("{}: {e}", path.display())),
            }
        }
        Err(format!("no memory cgroup can be made here: {}", reasons.join("; ")).into())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir(&self.path) {
            eprintln!("{}: left behind: {e}", self.path.display());
        }
    }
}

const V1: &str = "a memory cgroup (version 1)";
const V2: &str = "a memory cgroup (version 2)";

/// Where a group may be made: below our own, or below the root of the hierarchy; with the file that takes the limit.
fn places() -> Res<Vec<(PathBuf, &'static str, &'static str)>> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own_of = |wanted: &str| {
        let lines = own.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        let mut fit = lines.filter(|parts| parts.len() == 3 && parts[1].split(',').any(|name| name == wanted));
        fit.next().map(|parts| parts[2].trim_start_matches('/').to_string())
    };
    let mut found = Vec::new();
    for line in fs::read_to_string("/proc/self/mounts")?.lines() {
        let [_, mount, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let is_memory = options.split(',').any(|option| option == "memory");
        let (version, file, own) = match kind {
            "cgroup" if is_memory => (V1, "memory.limit_in_bytes", own_of("memory")),
            "cgroup2" => (V2, "memory.max", own_of("")),
            _ => continue,
        };
        found.extend(own.map(|own| (Path::new(mount).join(own), version, file)));
        found.push((mount.into(), version, file));
    }
    Ok(found)
}
