//! Point reads and scans: one thread, one read transaction per round, every byte of every value verified.
//!
//! Each engine reads a copy of its loaded file, opened once; the round that is not counted brings the mapping, a cache,
//! or the checks of a first touch into the state that later rounds meet.

use super::{About, Run, READ_SEED};
use crate::data::{Probes, Shape};
use crate::disk;
use crate::engine::{Direction, Store};
use crate::report::{Better, Figure, Goal};
use crate::Res;
use std::time::Instant;

pub(crate) fn points(run: &Run<'_>) -> Res<Figure> {
    let probes = Probes::new(run.data.shape, &run.data.shuffled(READ_SEED), 0);
    let stores = open_all(run)?;
    let samples = run.interleave(|i, _| {
        let start = Instant::now();
        stores[i].get_all(&probes)?;
        Ok(probes.len() as f64 / start.elapsed().as_secs_f64())
    })?;
    close_all(run, stores)?;
    let about = About {
        id: "reads",
        title: "random point reads, one thread",
        unit: "lookups/s",
        better: Better::Higher,
        goal: Some(Goal::RatioAtLeast(if run.data.shape == Shape::R { 1.6 } else { 1.3 })),
    };
    Ok(run.figure(about, samples, &[]))
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
    let about =
        |id, title| About { id, title, unit: "entries/s", better: Better::Higher, goal: Some(Goal::RatioAtLeast(1.0)) };
    Ok(vec![
        run.figure(about("scan_forward", "full scan, forward"), forward, &[]),
        run.figure(about("scan_reverse", "full scan, reverse"), reverse, &[]),
    ])
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
