//! Commits by members: opened shared and alone, by four processes, and handed over between two.

use super::member::{together, Member, Variant, EXCLUSIVE, LMDB, SHARED};
use super::{copy, figure, halves, name_rows, rounds};
use crate::disk;
use crate::measure::{About, Run};
use crate::report::{median, Better, Figure, Row};
use crate::Res;
use std::path::PathBuf;

const WARM_UP_COMMITS: usize = 100;
/// Of the entries, how many commits of the level `Eventual` there are per round: one for so many.
const ENTRIES_PER_EVENTUAL: u32 = 10;
const FOUR: usize = 4;
/// How long a transaction of `handover` stays the writer, and how long its process pauses then.
const HOLD_MICROS: u64 = 100;
const PAUSE_MICROS: u64 = 20;
const HANDOVERS: usize = 2_000;

const fn eventual(variant: Variant, flags: &'static str) -> Variant {
    Variant { flags, ..variant }
}

/// Single puts by one process.
pub(super) fn puts(run: &Run<'_>) -> Res<Vec<Figure>> {
    let durable = [LMDB, SHARED, EXCLUSIVE];
    let values = rates(run, &durable, 1, run.options.commits)?;
    let title = "single durable puts, one process that shares the file";
    let about = About { id: "processes_puts", title, unit: "commits/s", better: Better::Higher };
    let mut figures = vec![figure(run, about, EXCLUSIVE.name, name_rows(&durable, &values, &values[2]))];
    let commits = (run.data.entries / ENTRIES_PER_EVENTUAL) as usize;
    let relaxed = [eventual(LMDB, "eventual"), eventual(SHARED, "eventual"), eventual(EXCLUSIVE, "exclusive,eventual")];
    let values = rates(run, &relaxed, 1, commits)?;
    let title = "single puts that do not wait for the disk; LMDB with MDB_NOSYNC";
    let about = About { id: "processes_eventual", title, ..about };
    figures.push(figure(run, about, EXCLUSIVE.name, name_rows(&relaxed, &values, &values[2])));
    let about = About { id: "processes_eventual_lmdb", title: "the same beside LMDB", ..about };
    figures.push(figure(run, about, LMDB.name, name_rows(&relaxed, &values, &values[0])));
    Ok(figures)
}

/// Single durable puts of four processes together, and of one.
pub(super) fn four(run: &Run<'_>) -> Res<Vec<Figure>> {
    let variants = [LMDB, SHARED];
    let mut ones = vec![Vec::new(); 2];
    let values = rounds(run, variants.len(), |i, counts| {
        let one = rate(run, variants[i], 1, run.options.commits)?;
        if counts {
            ones[i].push(one);
        }
        rate(run, variants[i], FOUR, run.options.commits)
    })?;
    let rows = variants.iter().enumerate().map(|(i, variant)| Row {
        engine: variant.name.into(),
        values: values[i].clone(),
        ratios: super::ratios(&values[i], &ones[i]),
        note: format!("one: {:.0} commits/s", median(&ones[i])),
    });
    let about = About {
        id: "processes_four",
        title: "single durable puts by four processes at the same time, all together",
        unit: "commits/s",
        better: Better::Higher,
    };
    let mut figures = vec![figure(run, about, "one process of the same engine", rows.collect())];
    figures.push(handover(run)?);
    Ok(figures)
}

fn rates(run: &Run<'_>, variants: &[Variant], processes: usize, commits: usize) -> Res<Vec<Vec<f64>>> {
    rounds(run, variants.len(), |i, _| rate(run, variants[i], processes, commits))
}

/// Opens a fresh copy in so many processes.
fn members(run: &Run<'_>, variant: Variant, processes: usize) -> Res<(PathBuf, Vec<Member>)> {
    let path = copy(run, variant.engine, variant.name)?;
    let members = (0..processes).map(|_| Member::open(run, variant, &path, 0)).collect::<Res<_>>()?;
    Ok((path, members))
}

/// Commits per second of all together; each commits so many.
fn rate(run: &Run<'_>, variant: Variant, processes: usize, commits: usize) -> Res<f64> {
    let (path, mut members) = members(run, variant, processes)?;
    let (reads, writes) = halves(run);
    // Where there are too few entries, commits are fewer.
    let commits = commits.min(writes / processes);
    let warm_up = commits.min(WARM_UP_COMMITS);
    let first = |i: usize| reads + i * commits;
    together(&mut members, |i| format!("puts {} {warm_up} 1", first(i)))?;
    let answers = together(&mut members, |i| format!("puts {} {commits} 2", first(i)))?;
    let slowest = answers.iter().map(|answer| answer[0]).fold(0.0, f64::max);
    // Each reads what all have written.
    together(&mut members, |_| format!("verify {reads} {} 2", processes * commits))?;
    members.into_iter().try_for_each(Member::close)?;
    disk::remove(&path)?;
    Ok((processes * commits) as f64 * 1e9 / slowest)
}

/// From the moment when a writer is about to commit until the next one has begun: the next is another process that has
/// waited for it, or the same process.
fn handover(run: &Run<'_>) -> Res<Figure> {
    let variants = [eventual(LMDB, "eventual"), eventual(SHARED, "eventual")];
    let mut alone = vec![Vec::new(); 2];
    let mut counted = vec![Vec::new(); 2];
    let values = rounds(run, variants.len(), |i, counts| {
        let (one, _) = gap(run, variants[i], 1)?;
        let (two, handed) = gap(run, variants[i], 2)?;
        if counts {
            alone[i].push(one);
            counted[i].push(handed);
        }
        Ok(two - one)
    })?;
    let rows = variants.iter().enumerate().map(|(i, variant)| Row {
        engine: variant.name.into(),
        values: values[i].clone(),
        ratios: Vec::new(),
        note: format!("one process: {:.1} us; {:.0} hand-overs per round", median(&alone[i]), median(&counted[i])),
    });
    let about = About {
        id: "processes_handover",
        title: "begin_write handed over to a process that waits: time added, from before the commit (not durable) until begun",
        unit: "us",
        better: Better::Lower,
    };
    Ok(figure(run, about, "nothing", rows.collect()))
}

/// Microseconds at the median, and of how many.
fn gap(run: &Run<'_>, variant: Variant, processes: usize) -> Res<(f64, f64)> {
    let (path, mut members) = members(run, variant, processes)?;
    let (reads, writes) = halves(run);
    let count = HANDOVERS.min(writes / processes);
    let pause = if processes == 1 { 0 } else { PAUSE_MICROS };
    let answers = together(&mut members, |i| format!("begins {} {count} {HOLD_MICROS} {pause}", reads + i * count))?;
    together(&mut members, |_| format!("verify {reads} {} 1", processes * count))?;
    members.into_iter().try_for_each(Member::close)?;
    disk::remove(&path)?;
    let mut all: Vec<(&[f64], usize)> =
        answers.iter().enumerate().flat_map(|(i, times)| times.chunks_exact(3).map(move |times| (times, i))).collect();
    all.sort_by(|a, b| a.0[1].total_cmp(&b.0[1]));
    let gaps: Vec<f64> = all
        .windows(2)
        .filter(|two| {
            let ([before, after], waited) = ([two[0].1, two[1].1], two[1].0[0] < two[0].0[2]);
            processes == 1 || (before != after && waited)
        })
        .map(|two| (two[1].0[1] - two[0].0[2]) / 1e3)
        .collect();
    if gaps.is_empty() {
        return Err(format!("{}: no process has waited for another", variant.name).into());
    }
    Ok((median(&gaps), gaps.len() as f64))
}
