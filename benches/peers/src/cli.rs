//! The command line.

use crate::data::{Shape, ENTRIES_MAX};
use crate::disk::Cache;
use crate::engine::{self, Engine};
use crate::measure::features;
use crate::measure::processes::{Part, PARTS};
use crate::Res;
use std::path::PathBuf;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Measure {
    Load,
    Append,
    Size,
    Reads,
    TwoThreads,
    TxnReads,
    Multi,
    Seek,
    Scan,
    Commits,
    FreeList,
    Batches,
    Updates,
    Eventual,
    Threads,
    Device,
    Memory,
    Large,
    Open,
    ColdGet,
    ColdMulti,
    ColdScan,
    ColdFolios,
    ColdSmall,
    FioRandom,
    FioSequential,
    Compact,
    Ycsb,
    Processes,
    Features,
}

const MEASURES: &[(&str, Measure, &str)] = &[
    ("load", Measure::Load, "all entries in random order, one durable transaction"),
    ("append", Measure::Append, "all entries in order, one durable transaction"),
    ("size", Measure::Size, "length of the file after the load in random order, closed"),
    ("reads", Measure::Reads, "random point reads, one thread, one read transaction"),
    ("reads2", Measure::TwoThreads, "random point reads by two threads, and by one in the same round"),
    ("txn-reads", Measure::TxnReads, "random point reads, a read transaction for each"),
    ("multi", Measure::Multi, "batches of 100 random keys"),
    ("seek", Measure::Seek, "seek to a random key and read 10 entries"),
    ("scan", Measure::Scan, "everything in order, forward and reverse"),
    ("commits", Measure::Commits, "durable commits of one overwritten entry"),
    ("batches", Measure::Batches, "overwritten entries, 1,000 in a durable commit"),
    ("updates", Measure::Updates, "1,000 of these commits, several checkpoints included, and the length of the file"),
    ("eventual", Measure::Eventual, "commits of one overwritten entry that do not wait for the disk"),
    ("threads", Measure::Threads, "durable commits of one overwritten entry by 1, 2 and 8 threads"),
    ("freelist", Measure::FreeList, "the same, and again with some 10,000 free extents (contains commits)"),
    ("device", Measure::Device, "bytes written to the device per page that a commit changed"),
    ("memory", Measure::Memory, "peak of anonymous memory of a load of 1 GiB in one transaction"),
    ("large", Measure::Large, "values of 100 KiB: durable writes, random reads"),
    ("open", Measure::Open, "open and first get, warm page cache"),
    ("cold-get", Measure::ColdGet, "random gets, file dropped from the page cache before"),
    ("cold-multi", Measure::ColdMulti, "batches of 100 random keys, the same"),
    ("cold-scan", Measure::ColdScan, "full scan, the same"),
    ("cold-folios", Measure::ColdFolios, "pages written to the device per page changed, after cold reads"),
    ("cold-small", Measure::ColdSmall, "random gets under a memory limit of a quarter of the file"),
    ("fio-random", Measure::FioRandom, "batches of 1,000 random keys, cold, beside fio (in neither run nor all)"),
    ("fio-sequential", Measure::FioSequential, "full scans, cold, beside fio (in neither run nor all)"),
    ("compact", Measure::Compact, "length of the file after compaction"),
    ("ycsb", Measure::Ycsb, "YCSB workloads A to F, each operation a transaction, writes durable"),
    ("processes", Measure::Processes, "several processes that share a file (in neither run nor all); see --part"),
    ("features", Measure::Features, "multimaps, removals, nesting, long keys (in neither run nor all); see --part"),
];

pub(crate) struct Options {
    pub(crate) measures: Vec<Measure>,
    pub(crate) entries: Vec<u32>,
    pub(crate) rounds: usize,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) engines: Vec<Engine>,
    pub(crate) commits: usize,
    pub(crate) memory_mib: u64,
    pub(crate) large: usize,
    pub(crate) large_batch: usize,
    /// Of `processes` and `features`.
    pub(crate) parts: Vec<&'static Part>,
    pub(crate) extents: u64,
    pub(crate) turns: usize,
    pub(crate) cache: Cache,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) out: Option<PathBuf>,
    /// All measures: those that the kind of keys hardly changes are taken with the first kind alone.
    everything: bool,
}

/// In neither `run` nor `all`: part of another measure, or with needs of its own.
const SEPARATE: &[Measure] =
    &[Measure::Commits, Measure::Processes, Measure::Features, Measure::FioRandom, Measure::FioSequential];

/// What the kind of keys decides.
const BY_KEYS: &[Measure] = &[
    Measure::Load,
    Measure::Append,
    Measure::Size,
    Measure::Reads,
    Measure::TwoThreads,
    Measure::TxnReads,
    Measure::Multi,
    Measure::Seek,
    Measure::Scan,
    Measure::ColdGet,
    Measure::ColdMulti,
    Measure::ColdScan,
    Measure::Compact,
];

impl Options {
    /// Whether a measure is taken again with further kinds of keys.
    pub(crate) fn repeats(&self, measure: Measure) -> bool {
        !self.everything || BY_KEYS.contains(&measure)
    }
}

pub(crate) fn help() -> String {
    let mut text =
        String::from("usage: mapleaf-peers MEASURE [OPTIONS]\n\nMeasures\n  run          all of these with the engines marked below\n  all          all of these with all engines\n");
    for (name, _, about) in MEASURES {
        text += &format!("  {name:<11}  {about}\n");
    }
    text += "  report FILE  tables, Markdown and plots again from the JSON of a run (with --out)
In run and all, what the kind of keys hardly changes is measured with the first kind alone.

Options
  --entries LIST   entries of a database; more than one: one run after the other (1000000)
  --rounds N       rounds that count, after one that does not (5)
  --keys LIST      R, R16, S1, S2, N; more than one: one run after the other (R)
  --engines LIST   see below
  --commits N      commits per round of `commits`, `freelist` and parts of `processes` (2000)
  --part LIST      of `processes` or `features`, see below (all)
  --extents N      free extents of the part `turns`, 8 KiB of the file for each (1000000)
  --turns N        commits of the part `turns` (10000)
  --memory-mib N   size of the load of `memory` (1024)
  --large N        values of `large` (1000)
  --large-batch N  of those, how many in a transaction (1)
  --cache KIND     page cache of the files that are read and changed: small folios, or large ones
                   as a plain copy leaves them (small)
  --dir PATH       where the files go; in a folder that is removed at the end (that of the executable)
  --json PATH      the figures as JSON as well; - for stdout
  --out FOLDER     the figures as JSON, as Markdown, and as plots into this folder

Parts of processes
";
    for part in PARTS {
        text += &format!("  {:<15}  {}\n", part.name, part.about);
    }
    text += "\nParts of features\n";
    for part in features::PARTS {
        text += &format!("  {:<15}  {}\n", part.name, part.about);
    }
    text += "\nEngines\n";
    for engine in engine::all() {
        let mark = if engine.default { '*' } else { ' ' };
        text += &format!("{mark} {:<15}  {}\n", engine.name, engine.about);
    }
    text + "(* in every run unless --engines chooses)\n"
}

pub(crate) fn parse(args: &[String]) -> Res<Options> {
    let (name, rest) = args.split_first().ok_or_else(help)?;
    let mut options = Options {
        measures: measures(name)?,
        entries: vec![1_000_000],
        rounds: 5,
        shapes: vec![Shape::R],
        engines: engine::all().into_iter().filter(|engine| engine.default).collect(),
        commits: 2_000,
        memory_mib: 1024,
        large: 1_000,
        large_batch: 1,
        parts: all_parts().collect(),
        extents: 1_000_000,
        turns: 10_000,
        cache: Cache::Small,
        dir: None,
        json: None,
        out: None,
        everything: matches!(name.as_str(), "run" | "all"),
    };
    if name == "all" {
        options.engines = engine::all().into_iter().filter(|engine| engine.name != "lmdb-named").collect();
    }
    for pair in rest.chunks(2) {
        let [name, value] = pair else { return Err(format!("{}: a value is missing", pair[0]).into()) };
        set(&mut options, name, value).map_err(|e| format!("{name} {value}: {e}"))?;
    }
    Ok(options)
}

fn measures(name: &str) -> Res<Vec<Measure>> {
    let all = MEASURES.iter().map(|&(_, measure, _)| measure);
    if matches!(name, "run" | "all") {
        return Ok(all.filter(|measure| !SEPARATE.contains(measure)).collect());
    }
    match MEASURES.iter().find(|(known, ..)| *known == name) {
        Some(&(_, measure, _)) => Ok(vec![measure]),
        None => Err(format!("no measure {name:?}\n\n{}", help()).into()),
    }
}

fn set(options: &mut Options, name: &str, value: &str) -> Res<()> {
    match name {
        "--entries" => {
            options.entries = value.split(',').map(count).collect::<Res<_>>()?;
        }
        "--rounds" => options.rounds = value.parse::<usize>()?.max(1),
        "--keys" => {
            options.shapes = value
                .split(',')
                .map(Shape::parse)
                .collect::<Option<_>>()
                .ok_or("R, R16, S1, S2 or N, with commas between")?;
        }
        "--engines" => options.engines = value.split(',').map(engine_named).collect::<Res<_>>()?,
        "--commits" => options.commits = value.parse::<usize>()?.max(1),
        "--memory-mib" => options.memory_mib = value.parse::<u64>()?.max(1),
        "--part" => options.parts = value.split(',').map(part_named).collect::<Res<_>>()?,
        "--extents" => options.extents = value.parse::<u64>()?.max(1),
        "--turns" => options.turns = value.parse::<usize>()?.max(2),
        "--large" => options.large = value.parse::<usize>()?.clamp(1, 1_000_000),
        "--large-batch" => options.large_batch = value.parse::<usize>()?.max(1),
        "--cache" => {
            options.cache = match value {
                "small" => Cache::Small,
                "large" => Cache::Large,
                _ => return Err("small or large".into()),
            }
        }
        "--dir" => options.dir = Some(value.into()),
        "--out" => options.out = Some(value.into()),
        "--json" => options.json = Some(value.into()),
        _ => return Err(format!("no such option\n\n{}", help()).into()),
    }
    Ok(())
}

/// The parts of all measures that have some.
fn all_parts() -> impl Iterator<Item = &'static Part> {
    PARTS.iter().chain(features::PARTS)
}

fn part_named(name: &str) -> Res<&'static Part> {
    all_parts().find(|part| part.name == name).ok_or_else(|| "no such part".into())
}

fn count(text: &str) -> Res<u32> {
    let entries = text.replace('_', "").parse()?;
    if !(1_000..=ENTRIES_MAX).contains(&u64::from(entries)) {
        return Err(format!("from 1000 to {ENTRIES_MAX}").into());
    }
    Ok(entries)
}

pub(crate) fn engine_named(name: &str) -> Res<Engine> {
    let known = engine::all().into_iter().find(|engine| engine.name == name);
    known.ok_or_else(|| format!("no engine {name:?} in this build").into())
}
