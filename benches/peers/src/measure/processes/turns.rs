//! Two processes that write in turns, in a file with very many free extents.
//!
//! The file is that of the load with a table of values that each fill a page; every second value has been removed, so
//! that each page that became free has neighbours in use. It is made once, and all rounds go on with it: a commit uses
//! and frees a few pages of so many.

use super::member::{together, Member, Variant, SHARED};
use super::{copy, figure, halves, rounds};
use crate::disk;
use crate::measure::{mib, About, Run};
use crate::report::{median, Better, Figure, Row};
use crate::Res;
use std::path::Path;

pub(super) fn in_turns(run: &Run<'_>) -> Res<Vec<Figure>> {
    let path = copy(run, SHARED.engine, "scattered")?;
    let mut maker = Member::open(run, SHARED, &path, 0)?;
    maker.ask(&format!("scatter {}", run.options.extents))?;
    maker.close()?;
    let relaxed = Variant { flags: "eventual", ..SHARED };
    let title = "commits of one entry by two processes in turns, durable";
    let mut figures = vec![by_level(run, &path, SHARED, "processes_turns", title)?];
    let title = "the same, not waiting for the disk";
    figures.push(by_level(run, &path, relaxed, "processes_turns_eventual", title)?);
    disk::remove(&path)?;
    Ok(figures)
}

fn by_level(run: &Run<'_>, path: &Path, variant: Variant, id: &'static str, title: &str) -> Res<Figure> {
    let (mut version, mut ones) = (0, Vec::new());
    let values = rounds(run, 1, |_, counts| {
        version += 2;
        let one = seconds(run, path, variant, 1, version)?;
        let two = seconds(run, path, variant, 2, version + 1)?;
        if counts {
            ones.push(one);
        }
        Ok(two)
    })?;
    let about = About { id, title, unit: "s", better: Better::Lower };
    let row = Row {
        engine: variant.name.into(),
        ratios: super::ratios(&values[0], &ones),
        values: values.into_iter().next().unwrap_or_default(),
        note: format!(
            "{} commits, {} free extents, file {:.0} MiB; one process: {:.2} s",
            commits(run),
            run.options.extents,
            mib(disk::file_bytes(path)?.0),
            median(&ones)
        ),
    };
    Ok(figure(run, about, "one process", vec![row]))
}

/// An even number.
fn commits(run: &Run<'_>) -> usize {
    run.options.turns.min(halves(run).1) / 2 * 2
}

/// Time of all commits.
fn seconds(run: &Run<'_>, path: &Path, variant: Variant, processes: usize, version: u64) -> Res<f64> {
    let mut members: Vec<Member> = (0..processes).map(|_| Member::open(run, variant, path, 0)).collect::<Res<_>>()?;
    let first = halves(run).0;
    let each = commits(run) / processes;
    let socket = run.scratch.path().join("turns");
    let answers = together(&mut members, |i| {
        let (socket, role) = (socket.display(), if i == 0 { "lead" } else { "follow" });
        match processes {
            1 => format!("turns {first} {each} {version} -"),
            _ => format!("turns {} {each} {version} {socket} {role}", first + i * each),
        }
    })?;
    together(&mut members, |_| format!("verify {first} {} {version}", commits(run)))?;
    members.into_iter().try_for_each(Member::close)?;
    Ok(answers.iter().map(|answer| answer[0]).fold(0.0, f64::max) / 1e9)
}
