//! Mapleaf with its defaults, through its public API alone.

use super::{Direction, Held, Order, Step, Store, Tuning};
use crate::data::{entry_sum, Pairs, Probes, Seeks, Tally, Verifier};
use crate::workload::{self, Single, Workload};
use crate::Res;
use mapleaf::{Db, Durability, Options, ReadTxn, Table};
use std::path::Path;

const MAIN: Table<&[u8], &[u8]> = Table::new("main");
/// Values of a page each, of which every second is removed.
const SCATTERED: Table<u64, &[u8]> = Table::new("scattered");
/// A value too long for a leaf, in a page of its own.
const SCATTERED_BYTES: usize = 3500;
/// Values stored in one transaction.
const SCATTERED_AT_ONCE: u64 = 20_000;

struct Mapleaf {
    db: Db,
    /// Whether many entries are stored by the call for that, whatever their order.
    loads: bool,
    durability: Durability,
}

/// Fewer pairs are no load.
const LOAD_PAIRS: u64 = 1000;

pub(super) fn open(path: &Path, tuning: Tuning) -> Res<Box<dyn Store>> {
    let durability = if tuning.eventual { Durability::Eventual } else { Durability::Immediate };
    let db = Options::new().exclusive(tuning.exclusive).open(path)?;
    Ok(Box::new(Mapleaf { db, loads: false, durability }))
}

pub(super) fn open_loading(path: &Path, _: Tuning) -> Res<Box<dyn Store>> {
    Ok(Box::new(Mapleaf { db: Db::open(path)?, loads: true, durability: Durability::Immediate }))
}

impl Held for ReadTxn {
    fn get_all(&self, probes: &Probes) -> Res<()> {
        let table = self.table(MAIN)?;
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            verifier.check(table.get(key)?, expected);
        }
        verifier.finish()
    }
}

impl Single for Mapleaf {
    fn get(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>)) -> Res<()> {
        see(self.db.begin_read()?.table(MAIN)?.get(key)?);
        Ok(())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(self.durability);
        txn.table(MAIN)?.put(key, value)?;
        Ok(txn.commit()?)
    }

    fn modify(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>), value: &[u8]) -> Res<()> {
        let txn = self.db.begin_write()?;
        {
            let mut table = txn.table(MAIN)?;
            see(table.get(key)?);
            table.put(key, value)?;
        }
        Ok(txn.commit()?)
    }

    fn scan_from(&self, key: &[u8], count: usize, mut see: impl FnMut(&[u8], &[u8])) -> Res<()> {
        for item in self.db.begin_read()?.table(MAIN)?.range(key..)?.take(count) {
            let (key, value) = item?;
            see(key, value);
        }
        Ok(())
    }
}

impl Store for Mapleaf {
    fn put_all(&mut self, pairs: &mut Pairs<'_>, order: Order) -> Res<()> {
        let txn = self.db.begin_write()?;
        {
            let mut table = txn.table(MAIN)?;
            match order {
                _ if self.loads && pairs.count() >= LOAD_PAIRS => {
                    let mut loader = table.loader()?;
                    while let Some((key, value)) = pairs.next() {
                        loader.push(key, value)?;
                    }
                    loader.finish()?;
                }
                Order::Batch => {
                    let mut entries = Vec::with_capacity(pairs.count() as usize);
                    while let Some((key, value)) = pairs.next() {
                        entries.push((key.to_vec(), value.to_vec()));
                    }
                    table.put_all(entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))?;
                }
                Order::Any => {
                    while let Some((key, value)) = pairs.next() {
                        table.put(key, value)?;
                    }
                }
                Order::Append => {
                    while let Some((key, value)) = pairs.next() {
                        table.append(key, value)?;
                    }
                }
            }
        }
        Ok(txn.commit()?)
    }

    fn remove_all(&mut self, keys: &mut Pairs<'_>) -> Res<()> {
        let txn = self.db.begin_write()?;
        {
            let mut table = txn.table(MAIN)?;
            while let Some((key, _)) = keys.next() {
                table.remove(key)?;
            }
        }
        Ok(txn.commit()?)
    }

    fn get_all(&self, probes: &Probes) -> Res<()> {
        self.db.begin_read()?.get_all(probes)
    }

    fn put_each(&self, pairs: &mut Pairs<'_>) -> Res<()> {
        workload::put_each(self, pairs)
    }

    fn get_each(&self, probes: &Probes) -> Res<()> {
        workload::get_each(self, probes)
    }

    fn get_batches(&self, probes: &Probes, batch: usize) -> Res<()> {
        let txn = self.db.begin_read()?;
        let table = txn.table(MAIN)?;
        let mut verifier = Verifier::default();
        for (keys, checksums) in probes.batches(batch) {
            for (value, &expected) in table.multi_get(keys)?.into_iter().zip(checksums) {
                verifier.check(value, expected);
            }
        }
        verifier.finish()
    }

    fn seek_all(&self, seeks: &Seeks) -> Res<()> {
        let txn = self.db.begin_read()?;
        let table = txn.table(MAIN)?;
        let mut verifier = Verifier::default();
        for (key, expected) in seeks.iter() {
            let mut sum = 0u64;
            for item in table.range(key..)?.take(seeks.length) {
                let (key, value) = item?;
                sum = sum.wrapping_add(entry_sum(key, value));
            }
            verifier.check_sum(sum, expected);
        }
        verifier.finish()
    }

    fn scan(&self, direction: Direction) -> Res<Tally> {
        let txn = self.db.begin_read()?;
        let table = txn.table(MAIN)?;
        let mut tally = Tally::default();
        match direction {
            Direction::Forward => {
                for item in table.iter() {
                    let (key, value) = item?;
                    tally.add(key, value);
                }
            }
            Direction::Reverse => {
                for item in table.iter().rev() {
                    let (key, value) = item?;
                    tally.add(key, value);
                }
            }
        }
        Ok(tally)
    }

    fn drive(&self, workload: &Workload) -> Res<()> {
        workload::drive(self, workload)
    }

    fn free_pages(&self) -> Res<Option<u64>> {
        Ok(None)
    }

    fn compact(self: Box<Self>, _: &Path, to: &Path) -> Res<bool> {
        self.db.compact_to(to)?;
        Ok(true)
    }

    fn put_each_seen(&self, pairs: &mut Pairs<'_>, see: &mut dyn FnMut(Step) -> Res<()>) -> Res<()> {
        while let Some((key, value)) = pairs.next() {
            see(Step::Call)?;
            let mut txn = self.db.begin_write()?;
            see(Step::Begun)?;
            txn.set_durability(self.durability);
            txn.table(MAIN)?.put(key, value)?;
            see(Step::Commit)?;
            txn.commit()?;
            see(Step::Done)?;
        }
        Ok(())
    }

    fn hold(&self) -> Res<Box<dyn Held>> {
        Ok(Box::new(self.db.begin_read()?))
    }

    fn scatter_free(&mut self, extents: u64) -> Res<()> {
        let value = [7; SCATTERED_BYTES];
        let mut next = 0;
        while next < 2 * extents {
            let txn = self.db.begin_write()?;
            {
                let mut table = txn.table(SCATTERED)?;
                let end = (next + SCATTERED_AT_ONCE).min(2 * extents);
                for number in next..end {
                    table.append(number, &value)?;
                }
                next = end;
            }
            txn.commit()?;
        }
        let txn = self.db.begin_write()?;
        {
            let mut table = txn.table(SCATTERED)?;
            for number in (0..2 * extents).step_by(2) {
                table.remove(number)?;
            }
        }
        txn.commit()?;
        // What a transaction freed may be used again when later states are durable.
        for _ in 0..4 {
            let txn = self.db.begin_write()?;
            txn.table(SCATTERED)?.put(1, &value)?;
            txn.commit()?;
            self.db.checkpoint()?;
        }
        // Pages count as pending until a transaction that needs some has looked at them.
        let stats = self.db.stats()?;
        match stats.free_pages + stats.pending_pages {
            free if free >= extents => Ok(()),
            free => Err(format!("{free} free pages instead of {extents}").into()),
        }
    }

    fn close(self: Box<Self>) -> Res<()> {
        Ok(())
    }
}
