//! redb with its defaults: `Durability::Immediate`, one-phase commit, 1 GiB of cache. It has no call for sorted input;
//! the sorted load inserts in order.

use super::{Direction, Order, Store};
use crate::data::{Pairs, Probes, Tally, Verifier};
use crate::Res;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;

const MAIN: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("main");

struct Redb(Database);

pub(super) fn open(path: &Path) -> Res<Box<dyn Store>> {
    let exists = path.exists();
    let db = Database::create(path)?;
    if !exists {
        let txn = db.begin_write()?;
        drop(txn.open_table(MAIN)?);
        txn.commit()?;
    }
    Ok(Box::new(Redb(db)))
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
        let table = self.0.begin_read()?.open_table(MAIN)?;
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            let value = table.get(key)?;
            verifier.check(value.as_ref().map(|guard| guard.value()), expected);
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

    fn free_pages(&self) -> Res<Option<u64>> {
        Ok(None)
    }

    fn close(self: Box<Self>) -> Res<()> {
        Ok(self.0.close()?)
    }
}
