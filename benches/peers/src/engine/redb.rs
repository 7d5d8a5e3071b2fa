//! redb with its defaults: `Durability::Immediate`, one-phase commit, 1 GiB of cache. It has no call for sorted input;
//! the sorted load inserts in order. Compacting works in place, on a copy.

use super::{Direction, Held, Order, Store, Tuning};
use crate::data::{entry_sum, Pairs, Probes, Seeks, Tally, Verifier};
use crate::disk::{self, Cache};
use crate::workload::{self, Single, Workload};
use crate::Res;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;

const MAIN: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("main");

struct Redb(Database);

pub(super) fn open(path: &Path, tuning: Tuning) -> Res<Box<dyn Store>> {
    let exists = path.exists();
    let mut builder = Database::builder();
    if let Some(bytes) = tuning.cache_bytes {
        builder.set_cache_size(bytes);
    }
    let db = builder.create(path)?;
    if !exists {
        let txn = db.begin_write()?;
        drop(txn.open_table(MAIN)?);
        txn.commit()?;
    }
    Ok(Box::new(Redb(db)))
}

/// A table of a read transaction, which lives as long as it.
impl Held for ReadOnlyTable<&'static [u8], &'static [u8]> {
    fn get_all(&self, probes: &Probes) -> Res<()> {
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            let value = self.get(key)?;
            verifier.check(value.as_ref().map(|guard| guard.value()), expected);
        }
        verifier.finish()
    }
}

impl Single for Redb {
    fn get(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>)) -> Res<()> {
        let value = self.0.begin_read()?.open_table(MAIN)?.get(key)?;
        see(value.as_ref().map(|guard| guard.value()));
        Ok(())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        let txn = self.0.begin_write()?;
        txn.open_table(MAIN)?.insert(key, value)?;
        Ok(txn.commit()?)
    }

    fn modify(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>), value: &[u8]) -> Res<()> {
        let txn = self.0.begin_write()?;
        let mut table = txn.open_table(MAIN)?;
        see(table.get(key)?.as_ref().map(|guard| guard.value()));
        table.insert(key, value)?;
        drop(table);
        Ok(txn.commit()?)
    }

    fn scan_from(&self, key: &[u8], count: usize, mut see: impl FnMut(&[u8], &[u8])) -> Res<()> {
        for item in self.0.begin_read()?.open_table(MAIN)?.range(key..)?.take(count) {
            let (key, value) = item?;
            see(key.value(), value.value());
        }
        Ok(())
    }
}

impl Store for Redb {
    fn put_all(&mut self, pairs: &mut Pairs<'_>, _order: Order) -> Res<()> {
        let txn = self.0.begin_write()?;
        let mut table = txn.open_table(MAIN)?;
        while let Some((key, value)) = pairs.next() {
            table.insert(key, value)?;
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn remove_all(&mut self, keys: &mut Pairs<'_>) -> Res<()> {
        let txn = self.0.begin_write()?;
        let mut table = txn.open_table(MAIN)?;
        while let Some((key, _)) = keys.next() {
            table.remove(key)?;
        }
        drop(table);
        Ok(txn.commit()?)
    }

    fn get_all(&self, probes: &Probes) -> Res<()> {
        self.0.begin_read()?.open_table(MAIN)?.get_all(probes)
    }

    fn hold(&self) -> Res<Box<dyn Held>> {
        Ok(Box::new(self.0.begin_read()?.open_table(MAIN)?))
    }

    fn put_each(&self, pairs: &mut Pairs<'_>) -> Res<()> {
        workload::put_each(self, pairs)
    }

    fn get_each(&self, probes: &Probes) -> Res<()> {
        workload::get_each(self, probes)
    }

    fn seek_all(&self, seeks: &Seeks) -> Res<()> {
        let table = self.0.begin_read()?.open_table(MAIN)?;
        let mut verifier = Verifier::default();
        for (key, expected) in seeks.iter() {
            let mut sum = 0u64;
            for item in table.range(key..)?.take(seeks.length) {
                let (key, value) = item?;
                sum = sum.wrapping_add(entry_sum(key.value(), value.value()));
            }
            verifier.check_sum(sum, expected);
        }
        verifier.finish()
    }

    fn scan(&self, direction: Direction) -> Res<Tally> {
        let table = self.0.begin_read()?.open_table(MAIN)?;
        let mut tally = Tally::default();
        match direction {
            Direction::Forward => {
                for item in table.iter()? {
                    let (key, value) = item?;
                    tally.add(key.value(), value.value());
                }
            }
            Direction::Reverse => {
                for item in table.iter()?.rev() {
                    let (key, value) = item?;
                    tally.add(key.value(), value.value());
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

    fn compact(self: Box<Self>, path: &Path, to: &Path) -> Res<bool> {
        self.0.close()?;
        disk::fresh_copy(path, to, Cache::Large)?;
        let mut db = Database::create(to)?;
        db.compact()?;
        db.close()?;
        Ok(true)
    }

    fn close(self: Box<Self>) -> Res<()> {
        Ok(self.0.close()?)
    }
}
