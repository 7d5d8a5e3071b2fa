//! canopydb: commits that wait for the flush of its log (`default_commit_sync`), all else as it comes: 1 GiB of cache, no
//! checksums on pages.
//!
//! Closing makes a checkpoint, so that a file that is measured later holds everything and no log is replayed when it is
//! opened.

use super::{Direction, Order, Store, Tuning};
use crate::data::{entry_sum, Pairs, Probes, Seeks, Tally, Verifier};
use crate::disk::{self, Cache};
use crate::workload::{self, Single, Workload};
use crate::Res;
use canopydb::{Database, DbOptions, EnvOptions, Tree};
use std::path::Path;

const MAIN: &[u8] = b"main";

struct Canopydb(Database);

fn open_database(path: &Path, tuning: Tuning) -> Res<Database> {
    std::fs::create_dir_all(path)?;
    let mut env = EnvOptions::new(path);
    if let Some(bytes) = tuning.cache_bytes {
        env.page_cache_size = bytes;
    }
    let mut options = DbOptions::new();
    options.default_commit_sync = true;
    Ok(Database::with_options(env, options)?)
}

pub(super) fn open(path: &Path, tuning: Tuning) -> Res<Box<dyn Store>> {
    let exists = path.exists();
    let db = open_database(path, tuning)?;
    if !exists {
        let txn = db.begin_write()?;
        drop(txn.get_or_create_tree(MAIN)?);
        txn.commit()?;
    }
    Ok(Box::new(Canopydb(db)))
}

fn main_of<'t>(found: Option<Tree<'t>>) -> Res<Tree<'t>> {
    Ok(found.ok_or("the tree is missing")?)
}

impl Single for Canopydb {
    fn get(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>)) -> Res<()> {
        let txn = self.0.begin_read()?;
        see(main_of(txn.get_tree(MAIN)?)?.get(key)?.as_deref());
        Ok(())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        let txn = self.0.begin_write()?;
        main_of(txn.get_tree(MAIN)?)?.insert(key, value)?;
        txn.commit()?;
        Ok(())
    }

    fn modify(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>), value: &[u8]) -> Res<()> {
        let txn = self.0.begin_write()?;
        {
            let mut tree = main_of(txn.get_tree(MAIN)?)?;
            see(tree.get(key)?.as_deref());
            tree.insert(key, value)?;
        }
        txn.commit()?;
        Ok(())
    }

    fn scan_from(&self, key: &[u8], count: usize, mut see: impl FnMut(&[u8], &[u8])) -> Res<()> {
        let txn = self.0.begin_read()?;
        for item in main_of(txn.get_tree(MAIN)?)?.range(key..)?.take(count) {
            let (key, value) = item?;
            see(&key, &value);
        }
        Ok(())
    }
}

impl Store for Canopydb {
    fn put_all(&mut self, pairs: &mut Pairs<'_>, _order: Order) -> Res<()> {
        let txn = self.0.begin_write()?;
        {
            let mut tree = main_of(txn.get_tree(MAIN)?)?;
            while let Some((key, value)) = pairs.next() {
                tree.insert(key, value)?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    fn remove_all(&mut self, keys: &mut Pairs<'_>) -> Res<()> {
        let txn = self.0.begin_write()?;
        {
            let mut tree = main_of(txn.get_tree(MAIN)?)?;
            while let Some((key, _)) = keys.next() {
                tree.delete(key)?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    fn get_all(&self, probes: &Probes) -> Res<()> {
        let txn = self.0.begin_read()?;
        let tree = main_of(txn.get_tree(MAIN)?)?;
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            verifier.check(tree.get(key)?.as_deref(), expected);
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
        let txn = self.0.begin_read()?;
        let tree = main_of(txn.get_tree(MAIN)?)?;
        let mut verifier = Verifier::default();
        for (key, expected) in seeks.iter() {
            let mut sum = 0u64;
            for item in tree.range(key..)?.take(seeks.length) {
                let (key, value) = item?;
                sum = sum.wrapping_add(entry_sum(&key, &value));
            }
            verifier.check_sum(sum, expected);
        }
        verifier.finish()
    }

    fn scan(&self, direction: Direction) -> Res<Tally> {
        let txn = self.0.begin_read()?;
        let tree = main_of(txn.get_tree(MAIN)?)?;
        let mut tally = Tally::default();
        match direction {
            Direction::Forward => {
                for item in tree.iter()? {
                    let (key, value) = item?;
                    tally.add(&key, &value);
                }
            }
            Direction::Reverse => {
                for item in tree.iter()?.rev() {
                    let (key, value) = item?;
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

    fn compact(self: Box<Self>, path: &Path, to: &Path) -> Res<bool> {
        self.close()?;
        disk::fresh_copy(path, to, Cache::Large)?;
        let db = open_database(to, Tuning::default())?;
        db.compact()?;
        db.checkpoint()?;
        Ok(true)
    }

    fn close(self: Box<Self>) -> Res<()> {
        Ok(self.0.checkpoint()?)
    }
}
