//! Several processes that have one file open: each figure one part, `--part NAME`.
//!
//! The program starts itself again for each process (`child.rs`) and tells each what to do (`member.rs`). Within a
//! round variants take turns, the first round is not counted, and ratios are taken round by round. Every value that is
//! read is verified: reads take the first half of the entries, which nobody changes, and writes the second half, which
//! is read back.

pub(crate) mod child;
mod clock;
mod kill;
mod member;
mod reading;
mod stuck;
mod turns;
mod updates;
mod writing;

use super::{About, Run};
use crate::cli::engine_named;
use crate::disk;
use crate::goals;
use crate::report::{Figure, Row};
use crate::Res;
use member::Variant;
use std::path::PathBuf;

pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(super) take: fn(&Run<'_>) -> Res<Vec<Figure>>,
}

pub(crate) const PARTS: &[Part] = &[
    Part { name: "begin", about: "begin, get, end: shared, alone, LMDB; by two processes", take: reading::begin },
    Part { name: "open", about: "open and first get in a new process", take: reading::open },
    Part { name: "puts", about: "single puts, durable and not, shared and alone", take: writing::puts },
    Part { name: "four", about: "durable puts by four processes; the writer handed over", take: writing::four },
    Part { name: "turns", about: "commits in turns with many free extents", take: turns::in_turns },
    Part { name: "stuck", about: "growth beside a reader that is stuck", take: stuck::growth },
    Part { name: "kill", about: "the next begin_write after a writer was killed", take: kill::next_begin },
    Part { name: "beside", about: "two readers beside a writer", take: reading::beside },
];

/// Those of some parts that the options name; one that fails is told at the end, and the others go on.
pub(crate) fn figures(run: &Run<'_>, of: &[Part]) -> Res<Vec<Figure>> {
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    for part in run.options.parts.iter().filter(|part| of.iter().any(|own| own.name == part.name)) {
        eprintln!("[part {}]", part.name);
        match (part.take)(run) {
            Ok(taken) => figures.extend(taken),
            Err(e) => failed.push(format!("part {}: {e}", part.name)),
        }
    }
    if failed.is_empty() {
        return Ok(figures);
    }
    figures.iter().for_each(|figure| println!("\n{}", figure.table().trim_end()));
    Err(failed.join("\n").into())
}

/// A copy of an engine's loaded file, closed, flushed, in the page cache that the options ask for.
pub(super) fn copy(run: &Run<'_>, engine: &str, name: &str) -> Res<PathBuf> {
    let path = run.scratch.file("shared", name);
    disk::fresh_copy(&run.base(&engine_named(engine)?)?, &path, run.options.cache)?;
    Ok(path)
}

/// How many entries are only read, and how many are written.
fn halves(run: &Run<'_>) -> (usize, usize) {
    let entries = run.data.entries as usize;
    (entries / 2, entries - entries / 2)
}

/// Something per second.
fn per(count: f64, nanos: f64) -> f64 {
    count * 1e9 / nanos
}

/// Calls `take` for each variant in turn, round by round, and tells it whether the round counts: the first does not.
pub(super) fn rounds(
    run: &Run<'_>,
    variants: usize,
    mut take: impl FnMut(usize, bool) -> Res<f64>,
) -> Res<Vec<Vec<f64>>> {
    let mut values = vec![Vec::new(); variants];
    for round in 0..=run.options.rounds {
        for (i, values) in values.iter_mut().enumerate() {
            let value = take(i, round > 0)?;
            if round > 0 {
                values.push(value);
            }
        }
    }
    Ok(values)
}

fn column(rows: &[Vec<f64>], at: usize) -> Vec<f64> {
    rows.iter().map(|row| row[at]).collect()
}

pub(super) fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    values.iter().zip(base).map(|(value, base)| value / base).collect()
}

/// A row for each variant, with ratios to `base`.
fn name_rows(variants: &[Variant], values: &[Vec<f64>], base: &[f64]) -> Vec<Row> {
    let row = |(variant, values): (&Variant, &Vec<f64>)| Row {
        engine: variant.name.into(),
        values: values.clone(),
        ratios: ratios(values, base),
        note: String::new(),
    };
    variants.iter().zip(values).map(row).collect()
}

fn figure(run: &Run<'_>, about: About<'_>, versus: &str, rows: Vec<Row>) -> Figure {
    let (shape, entries) = (run.data.shape, run.data.entries);
    Figure {
        id: about.id.into(),
        title: format!("{} (keys {}, {entries} entries)", about.title, shape.name()),
        keys: shape.name().into(),
        entries: u64::from(entries),
        unit: about.unit.into(),
        better: about.better,
        versus: versus.into(),
        goal: goals::goal(about.id, shape),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::ratios;

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(ratios(&[1.0, 4.0], &[2.0, 2.0]), [0.5, 2.0]);
    }
}
