//! LMDB through heed: defaults, with the mapping written (MDB_WRITEMAP), without read-ahead (MDB_NORDAHEAD), and with a
//! named database.
//!
//! The defaults of heed are kept but for the size of the map, which an application has to choose, and for
//! MDB_NOSUBDIR, which only names the file. `APPEND` stands for the sorted load.

use super::{Direction, Held, Order, Step, Store, Tuning};
use crate::data::{entry_sum, Pairs, Probes, Seeks, Tally, Verifier};
use crate::workload::{self, Single, Workload};
use crate::Res;
use heed::types::Bytes;
use heed::{CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, WithTls};
use std::ops::Bound;
use std::path::Path;

const MAP_BYTES: usize = 64 << 30;

pub(super) struct Lmdb {
    env: Env,
    db: Database<'static, Bytes, Bytes>,
}

pub(super) fn open_default(path: &Path, tuning: Tuning) -> Res<Box<dyn Store>> {
    open(path, if tuning.eventual { EnvFlags::NO_SYNC } else { EnvFlags::empty() }, None)
}

pub(super) fn open_write_map(path: &Path, _: Tuning) -> Res<Box<dyn Store>> {
    open(path, EnvFlags::WRITE_MAP, None)
}

pub(super) fn open_no_read_ahead(path: &Path, _: Tuning) -> Res<Box<dyn Store>> {
    open(path, EnvFlags::NO_READ_AHEAD, None)
}

pub(super) fn open_named(path: &Path, _: Tuning) -> Res<Box<dyn Store>> {
    open(path, EnvFlags::empty(), Some("main"))
}

fn open(path: &Path, flags: EnvFlags, name: Option<&str>) -> Res<Box<dyn Store>> {
    let exists = path.exists();
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    if name.is_some() {
        options.max_dbs(1);
    }
    // SAFETY: no flag used here weakens locking, and no process is killed where one weakens durability.
    unsafe { options.flags(flags | EnvFlags::NO_SUB_DIR) };
    // SAFETY: the files live in a folder of this run; nobody else changes them, and this process opens each once.
    let env = unsafe { options.open(path)? };
    let made = if exists {
        env.open_databases_and_commit(env.read_txn()?, |opener, txn| {
            opener.open_database(txn, name).map(CommitOrAbort::<_, ()>::Commit)
        })?
    } else {
        env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
            opener.create_database(txn, name).map(|db| CommitOrAbort::Commit(Some(db)))
        })?
    };
    let CommitOrAbort::Commit(Some(db)) = made else { return Err("there is no database of that name".into()) };
    Ok(Box::new(Lmdb { env, db }))
}

/// A read transaction that keeps its environment open.
struct HeldTxn {
    txn: RoTxn<'static, WithTls>,
    db: Database<'static, Bytes, Bytes>,
}

impl Held for HeldTxn {
    fn get_all(&self, probes: &Probes) -> Res<()> {
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            verifier.check(self.db.get(&self.txn, key)?, expected);
        }
        verifier.finish()
    }
}

impl Single for Lmdb {
    fn get(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>)) -> Res<()> {
        let txn = self.env.read_txn()?;
        see(self.db.get(&txn, key)?);
        Ok(())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        let mut txn = self.env.write_txn()?;
        self.db.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    fn modify(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>), value: &[u8]) -> Res<()> {
        let mut txn = self.env.write_txn()?;
        see(self.db.get(&txn, key)?);
        self.db.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    fn scan_from(&self, key: &[u8], count: usize, mut see: impl FnMut(&[u8], &[u8])) -> Res<()> {
        let txn = self.env.read_txn()?;
        for item in self.db.range(&txn, &(Bound::Included(key), Bound::Unbounded))?.take(count) {
            let (key, value) = item?;
            see(key, value);
        }
        Ok(())
    }
}

impl Store for Lmdb {
    fn put_all(&mut self, pairs: &mut Pairs<'_>, order: Order) -> Res<()> {
        let mut txn = self.env.write_txn()?;
        match order {
            Order::Any | Order::Batch => {
                while let Some((key, value)) = pairs.next() {
                    self.db.put(&mut txn, key, value)?;
                }
            }
            Order::Append => {
                while let Some((key, value)) = pairs.next() {
                    self.db.put_with_flags(&mut txn, PutFlags::APPEND, key, value)?;
                }
            }
        }
        Ok(txn.commit()?)
    }

    fn remove_all(&mut self, keys: &mut Pairs<'_>) -> Res<()> {
        let mut txn = self.env.write_txn()?;
        while let Some((key, _)) = keys.next() {
            self.db.delete(&mut txn, key)?;
        }
        Ok(txn.commit()?)
    }

    fn get_all(&self, probes: &Probes) -> Res<()> {
        let txn = self.env.read_txn()?;
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            verifier.check(self.db.get(&txn, key)?, expected);
        }
        verifier.finish()
    }

    fn put_each(&self, pairs: &mut Pairs<'_>) -> Res<()> {
        workload::put_each(self, pairs)
    }

    fn get_each(&self, probes: &Probes) -> Res<()> {
        workload::get_each(self, probes)
    }

    fn seek_all(&self, seeks: &Seeks) -> Res<()> {
        let txn = self.env.read_txn()?;
        let mut verifier = Verifier::default();
        for (key, expected) in seeks.iter() {
            let mut sum = 0u64;
            for item in self.db.range(&txn, &(Bound::Included(key), Bound::Unbounded))?.take(seeks.length) {
                let (key, value) = item?;
                sum = sum.wrapping_add(entry_sum(key, value));
            }
            verifier.check_sum(sum, expected);
        }
        verifier.finish()
    }

    fn scan(&self, direction: Direction) -> Res<Tally> {
        let txn = self.env.read_txn()?;
        let mut tally = Tally::default();
        match direction {
            Direction::Forward => {
                for item in self.db.iter(&txn)? {
                    let (key, value) = item?;
                    tally.add(key, value);
                }
            }
            Direction::Reverse => {
                for item in self.db.rev_iter(&txn)? {
                    let (key, value) = item?;
                    tally.add(key, value);
                }
            }
        }
        Ok(tally)
    }

    /// All pages but the two metas and those of the table; the few of LMDB's own free list count as free.
    fn free_pages(&self) -> Res<Option<u64>> {
        let txn = self.env.read_txn()?;
        let stat = self.db.stat(&txn)?;
        let used = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
        Ok(Some((self.env.info().last_page_number as u64 + 1).saturating_sub(2 + used as u64)))
    }

    fn drive(&self, workload: &Workload) -> Res<()> {
        workload::drive(self, workload)
    }

    fn compact(self: Box<Self>, _path: &Path, to: &Path) -> Res<bool> {
        self.env.copy_to_path(to, CompactionOption::Enabled)?.sync_all()?;
        self.close()?;
        Ok(true)
    }

    fn put_each_seen(&self, pairs: &mut Pairs<'_>, see: &mut dyn FnMut(Step) -> Res<()>) -> Res<()> {
        while let Some((key, value)) = pairs.next() {
            see(Step::Call)?;
            let mut txn = self.env.write_txn()?;
            see(Step::Begun)?;
            self.db.put(&mut txn, key, value)?;
            see(Step::Commit)?;
            txn.commit()?;
            see(Step::Done)?;
        }
        Ok(())
    }

    fn hold(&self) -> Res<Box<dyn Held>> {
        Ok(Box::new(HeldTxn { txn: self.env.clone().static_read_txn()?, db: self.db }))
    }

    fn close(self: Box<Self>) -> Res<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
