//! YCSB's core workloads, one thread, each operation a transaction of its own, writes durable.
//!
//! Every round starts from a fresh copy of the loaded file, made and opened outside the clock.

use super::reading::{lookups, rate};
use super::Run;
use crate::disk;
use crate::report::Figure;
use crate::workload::{Workload, MIXES};
use crate::Res;

pub(crate) fn all(run: &Run<'_>) -> Res<Vec<Figure>> {
    let mut figures = Vec::new();
    for mix in &MIXES {
        let workload = Workload::new(run.data, mix);
        let samples = run.interleave(|_, engine| {
            let (path, store) = run.open_copy(engine, &run.base(engine)?)?;
            let rate = lookups(workload.len(), || store.drive(&workload))?;
            store.close()?;
            disk::remove(&path)?;
            Ok(rate)
        })?;
        let mut figure = run.figure(rate(mix.id, mix.title, "operations/s"), samples, &[]);
        figure.title = format!("{}; {} operations", figure.title, mix.operations);
        figures.push(figure);
    }
    Ok(figures)
}
