//! Opening a database and looking one entry up, in a warm page cache.
//!
//! The clock runs from the call that opens until the value has been verified; closing is outside. The file is the same
//! copy all the time, closed before each opening. A round is many openings, each with another key.

use super::{About, Run, READ_SEED};
use crate::data::Probes;
use crate::disk;
use crate::report::{Better, Figure};
use crate::Res;
use std::time::{Duration, Instant};

const OPENINGS: usize = 100;

pub(crate) fn first_get(run: &Run<'_>) -> Res<Figure> {
    let ids = run.data.shuffled(READ_SEED);
    let probes: Vec<Probes> =
        ids[..OPENINGS].iter().map(|id| Probes::new(run.data.shape, std::slice::from_ref(id), 0)).collect();
    let mut paths = Vec::new();
    for engine in run.engines() {
        let (path, store) = run.open_copy(engine, &run.base(engine)?)?;
        store.close()?;
        paths.push(path);
    }
    let samples = run.interleave(|i, engine| {
        let mut spent = Duration::ZERO;
        for probe in &probes {
            let start = Instant::now();
            let store = engine.open(&paths[i])?;
            store.get_all(probe)?;
            spent += start.elapsed();
            store.close()?;
        }
        Ok(spent.as_secs_f64() * 1e6 / OPENINGS as f64)
    })?;
    for path in paths {
        disk::remove(&path)?;
    }
    let about = About { id: "open", title: "open and first get, warm", unit: "us", better: Better::Lower };
    Ok(run.figure(about, samples, &[]))
}
