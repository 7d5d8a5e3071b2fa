//! fjall, a log-structured store: `PersistMode::SyncAll` with each commit, a cache of 1 GiB (its default is 32 MiB; redb
//! and canopydb have 1 GiB by default), all else as it comes.
//!
//! Closing flushes what is in memory into tables and waits until the work in the background is done, so that a file that
//! is measured later is what it would be after a while, and no log is replayed when it is opened. Reading and writing a
//! key "in one transaction" is a read and a durable write here: its plain database has no transactions that read, and
//! nobody else writes.

use super::{Direction, Order, Store, Tuning};
use crate::data::{entry_sum, Pairs, Probes, Seeks, Tally, Verifier};
use crate::workload::{self, Single, Workload};
use crate::Res;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use std::path::Path;
use std::time::Duration;

const CACHE_BYTES: usize = 1 << 30;

struct Fjall {
    db: Database,
    main: Keyspace,
}

pub(super) fn open(path: &Path, tuning: Tuning) -> Res<Box<dyn Store>> {
    let cache = tuning.cache_bytes.unwrap_or(CACHE_BYTES);
    let db = Database::builder(path).cache_size(cache as u64).open()?;
    let main = db.keyspace("main", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { db, main }))
}

impl Single for Fjall {
    fn get(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>)) -> Res<()> {
        see(self.db.snapshot().get(&self.main, key)?.as_deref());
        Ok(())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.main, key, value);
        Ok(batch.commit()?)
    }

    fn modify(&self, key: &[u8], see: impl FnMut(Option<&[u8]>), value: &[u8]) -> Res<()> {
        self.get(key, see)?;
        self.put(key, value)
    }

    fn scan_from(&self, key: &[u8], count: usize, mut see: impl FnMut(&[u8], &[u8])) -> Res<()> {
        for item in self.db.snapshot().range(&self.main, key..).take(count) {
            let (key, value) = item.into_inner()?;
            see(&key, &value);
        }
        Ok(())
    }
}

impl Store for Fjall {
    fn put_all(&mut self, pairs: &mut Pairs<'_>, _order: Order) -> Res<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        while let Some((key, value)) = pairs.next() {
            batch.insert(&self.main, key, value);
        }
        Ok(batch.commit()?)
    }

    fn remove_all(&mut self, keys: &mut Pairs<'_>) -> Res<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        while let Some((key, _)) = keys.next() {
            batch.remove(&self.main, key);
        }
        Ok(batch.commit()?)
    }

    fn get_all(&self, probes: &Probes) -> Res<()> {
        let snapshot = self.db.snapshot();
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            verifier.check(snapshot.get(&self.main, key)?.as_deref(), expected);
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
        let snapshot = self.db.snapshot();
        let mut verifier = Verifier::default();
        for (key, expected) in seeks.iter() {
            let mut sum = 0u64;
            for item in snapshot.range(&self.main, key..).take(seeks.length) {
                let (key, value) = item.into_inner()?;
                sum = sum.wrapping_add(entry_sum(&key, &value));
            }
            verifier.check_sum(sum, expected);
        }
        verifier.finish()
    }

    fn scan(&self, direction: Direction) -> Res<Tally> {
        let entries = self.db.snapshot().iter(&self.main);
        let mut tally = Tally::default();
        match direction {
            Direction::Forward => {
                for item in entries {
                    let (key, value) = item.into_inner()?;
                    tally.add(&key, &value);
                }
            }
            Direction::Reverse => {
                for item in entries.rev() {
                    let (key, value) = item.into_inner()?;
                    tally.add(&key, &value);
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

    fn close(self: Box<Self>) -> Res<()> {
        self.main.rotate_memtable_and_wait()?;
        while self.db.outstanding_flushes() + self.db.active_compactions() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}
