//! Values of 100 KiB: written into a new file, each in a durable transaction of its own, then read at random.
//!
//! The values are pieces of one stretch of random bytes in memory, so that making them takes no time. The file grows
//! while it is written. Reads are in one transaction, in the page cache that the writes have left; the whole value is
//! verified.

use super::reading::{lookups, rate};
use super::{Run, LOAD_SEED, READ_SEED};
use crate::data::{LargeValues, Pairs, Probes, Rng, LARGE_BYTES};
use crate::disk;
use crate::engine::Order;
use crate::report::Figure;
use crate::Res;

/// Reads per value written.
const READS_PER_VALUE: usize = 4;

pub(crate) fn values(run: &Run<'_>) -> Res<Vec<Figure>> {
    let count = run.options.large as u32;
    let values = LargeValues::new();
    let mut order: Vec<u32> = (0..count).collect();
    Rng::new(LOAD_SEED).shuffle(&mut order);
    let mut rng = Rng::new(READ_SEED);
    let reads: Vec<u32> = (0..count as usize * READS_PER_VALUE).map(|_| rng.below(u64::from(count)) as u32).collect();
    let probes = Probes::large(run.data.shape, &reads, &values);
    let mut read = vec![Vec::new(); run.engines().len()];
    let written = run.interleave(|i, engine| {
        let path = run.scratch.file("large", engine.name);
        disk::remove(&path)?;
        disk::settle(run.scratch.path())?;
        let mut store = engine.open(&path)?;
        let write_rate = lookups(order.len(), || {
            for id in &order {
                let mut pair = Pairs::large(run.data.shape, std::slice::from_ref(id), &values);
                store.put_all(&mut pair, Order::Any)?;
            }
            Ok(())
        })?;
        read[i].push(lookups(probes.len(), || store.get_all(&probes))?);
        store.close()?;
        disk::remove(&path)?;
        Ok(write_rate)
    })?;
    let read = read.into_iter().map(|rates| rates[1..].to_vec()).collect();
    let title = |figure: Figure| {
        let title =
            format!("{} (keys {}, {count} values of {} KiB)", figure.title, run.data.shape.name(), LARGE_BYTES >> 10);
        Figure { title, ..figure }
    };
    let writes = rate("large_writes", "large values, each in a durable transaction of its own", "values/s");
    let reads = rate("large_reads", "random reads of large values, whole value verified", "values/s");
    Ok(vec![title(run.bare_figure(writes, written, &[])), title(run.bare_figure(reads, read, &[]))])
}
