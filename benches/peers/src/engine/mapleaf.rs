//! Mapleaf with its defaults, through its public API alone.

use super::{Direction, Order, Store};
use crate::data::{Pairs, Probes, Tally, Verifier};
use crate::Res;
use mapleaf::{Db, Table};
use std::path::Path;

const MAIN: Table<&[u8], &[u8]> = Table::new("main");

struct Mapleaf(Db);

pub(super) fn open(path: &Path) -> Res<Box<dyn Store>> {
    Ok(Box::new(Mapleaf(Db::open(path)?)))
}

impl Store for Mapleaf {
    fn put_all(&mut self, pairs: &mut Pairs<'_>, order: Order) -> Res<()> {
        let mut txn = self.0.begin_write()?;
        {
            let mut table = txn.table(MAIN)?;
            match order {
                Order::Any => {
                    while let Some((key, value)) = pairs.next() {
                        table.insert(key, value)?;
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
        let mut txn = self.0.begin_write()?;
        {
            let mut table = txn.table(MAIN)?;
            while let Some((key, _)) = keys.next() {
                table.remove(key)?;
            }
        }
        Ok(txn.commit()?)
    }

    fn get_all(&self, probes: &Probes) -> Res<()> {
        let txn = self.0.begin_read()?;
        let table = txn.table(MAIN)?;
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            verifier.check(table.get(key)?, expected);
        }
        verifier.finish()
    }

    fn scan(&self, direction: Direction) -> Res<Tally> {
        let txn = self.0.begin_read()?;
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

    fn free_pages(&self) -> Res<Option<u64>> {
        Ok(None)
    }

    fn close(self: Box<Self>) -> Res<()> {
        Ok(())
    }
}
