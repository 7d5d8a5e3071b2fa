//! Values of 100 KiB, written in durable transactions, of one value each unless an option says else: into a new file,
//! which grows meanwhile; then once more, with other bytes, over those that are there, in another order. Then read at
//! random.
//!
//! The values are pieces of one stretch of random bytes in memory, so that making them takes no time. Reads are in one
//! transaction, in the page cache that the writes have left; the whole value is verified.

use super::reading::{lookups, rate};
use super::{Run, LOAD_SEED, READ_SEED, REMOVE_SEED};
use crate::data::{LargeValues, Pairs, Probes, Rng, LARGE_BYTES};
use crate::disk;
use crate::engine::Order;
use crate::report::Figure;
use crate::Res;

/// Reads per value written.
const READS_PER_VALUE: usize = 4;

pub(crate) fn values(run: &Run<'_>) -> Res<Vec<Figure>> {
    let count = run.options.large as u32;
    let batch = run.options.large_batch;
    let each = match batch {
        1 => String::from("each in a durable transaction of its own"),
        batch => format!("{batch} in each durable transaction"),
    };
    let values = LargeValues::new();
    let mut order: Vec<u32> = (0..count).collect();
    Rng::new(LOAD_SEED).shuffle(&mut order);
    let mut again = order.clone();
    Rng::new(REMOVE_SEED).shuffle(&mut again);
    let mut rng = Rng::new(READ_SEED);
    let reads: Vec<u32> = (0..count as usize * READS_PER_VALUE).map(|_| rng.below(u64::from(count)) as u32).collect();
    let probes = Probes::large(run.data.shape, &reads, &values, 1);
    let mut read = vec![Vec::new(); run.engines().len()];
    let mut overwritten = read.clone();
    let written = run.interleave(|i, engine| {
        let path = run.scratch.file("large", engine.name);
        disk::remove(&path)?;
        disk::settle(run.scratch.path())?;
        let mut store = engine.open(&path)?;
        let mut write = |ids: &[u32], version| {
            lookups(ids.len(), || {
                for ids in ids.chunks(batch) {
                    store.put_all(&mut Pairs::large(run.data.shape, ids, &values, version), Order::Any)?;
                }
                Ok(())
            })
        };
        let write_rate = write(&order, 0)?;
        overwritten[i].push(write(&again, 1)?);
        read[i].push(lookups(probes.len(), || store.get_all(&probes))?);
        store.close()?;
        disk::remove(&path)?;
        Ok(write_rate)
    })?;
    let counted = |rates: Vec<Vec<f64>>| rates.into_iter().map(|rates| rates[1..].to_vec()).collect::<Vec<Vec<f64>>>();
    let figure = |id, title: &str, samples| {
        let keys = run.data.shape.name();
        let title = format!("{title} (keys {keys}, {count} values of {} KiB)", LARGE_BYTES >> 10);
        run.bare_figure(rate(id, &title, "values/s"), samples, &[])
    };
    Ok(vec![
        figure("large_writes", &format!("new large values, {each}"), written),
        figure("large_overwrites", &format!("large values overwritten, {each}"), counted(overwritten)),
        figure("large_reads", "random reads of large values, whole value verified", counted(read)),
    ])
}
