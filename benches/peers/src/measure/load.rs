//! Loads: all entries in one durable transaction, in random order and sorted; and the length of the file.
//!
//! The clock runs from before the transaction begins until its commit has returned; making and closing the file are
//! outside. Afterwards, outside the clock, everything is read back and compared.

use super::{mib, About, Run, LOAD_SEED};
use crate::data::{Pairs, Tally};
use crate::disk;
use crate::engine::{Direction, Engine, Order};
use crate::report::{Better, Figure};
use crate::Res;
use std::time::Instant;

pub(crate) fn random(run: &Run<'_>) -> Res<Figure> {
    let ids = run.data.shuffled(LOAD_SEED);
    let about =
        About { id: "load", title: "load in random order, one durable transaction", unit: "s", better: Better::Lower };
    measure(run, about, &ids, Order::Any)
}

pub(crate) fn append(run: &Run<'_>) -> Res<Figure> {
    let ids = run.data.sorted();
    let about =
        About { id: "append", title: "sorted append, one durable transaction", unit: "s", better: Better::Lower };
    measure(run, about, &ids, Order::Append)
}

fn measure(run: &Run<'_>, about: About, ids: &[u32], order: Order) -> Res<Figure> {
    let expected = run.data.tally();
    let samples = run.interleave(|_, engine| load(run, engine, ids, order, expected))?;
    for engine in run.engines() {
        let path = run.scratch.file("load", engine.name);
        match order {
            Order::Any | Order::Batch => disk::rename(&path, &run.scratch.file("base", engine.name))?,
            Order::Append => disk::remove(&path)?,
        }
    }
    Ok(run.figure(about, samples, &[]))
}

fn load(run: &Run<'_>, engine: &Engine, ids: &[u32], order: Order, expected: Tally) -> Res<f64> {
    let path = run.scratch.file("load", engine.name);
    disk::remove(&path)?;
    disk::settle(run.scratch.path())?;
    let mut store = engine.open(&path)?;
    let mut pairs = Pairs::listed(run.data.shape, ids, 0);
    let start = Instant::now();
    store.put_all(&mut pairs, order)?;
    let seconds = start.elapsed().as_secs_f64();
    if store.scan(Direction::Forward)? != expected {
        return Err("what was loaded does not read back".into());
    }
    store.close()?;
    Ok(seconds)
}

/// Not repeated: the same load makes the same file.
pub(crate) fn size(run: &Run<'_>) -> Res<Figure> {
    let (mut samples, mut notes) = (Vec::new(), Vec::new());
    for engine in run.engines() {
        let (length, occupied) = disk::file_bytes(&run.base(engine)?)?;
        samples.push(vec![mib(length)]);
        notes.push(format!("{:.1} MiB on disk", mib(occupied)));
    }
    let about =
        About { id: "size", title: "file after the load in random order, closed", unit: "MiB", better: Better::Lower };
    Ok(run.figure(about, samples, &notes))
}
