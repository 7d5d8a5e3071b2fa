//! Tables as a read transaction has found them, kept for the next transactions that read the same
//! state.
//!
//! Floor: txn. To find a table takes a lookup in the catalog and the comparison of two names of
//! codecs, which is more than a lookup in the table takes; a reader that begins a transaction for
//! each lookup would pay it each time. So a reader slot keeps what its transactions found: no other
//! reader touches it, and it is dropped when the slot shows another state. With the table is kept
//! the flat index of its tree, once that was worth making: a small one soon, and larger ones, down
//! to the leaves if there are not too many, for a table that is looked up very often.
//!
//! Invariants:
//!   TABLE-1  what is kept belongs to the state whose number it has, and states do not change.
//!
//! Failure: errors of the catalog are not kept.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::catalog::{Asked, TableRecord};
use crate::error::Result;
use crate::hooks;
use crate::ids::{TreeId, TxnId};
use crate::page::meta::TreeRoot;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::PageRead as _;
use crate::tree::{FlatIndex, PAGES_MAX};
use crate::txn::read::flat_indexes::FlatIndexes;

/// Tables that a slot keeps.
const TABLES_MAX: usize = 8;

/// Lookups after which a top is made of as many pages as `PAGES_MAX` says: their descents took
/// longer than making it does.
const LOOKUPS_BEFORE: [u32; STEPS] = [1 << 12, 1 << 16, 1 << 18];
const STEPS: usize = PAGES_MAX.len();

/// Names a codec.
type CodecName = fn() -> String;

/// A table of one state.
#[derive(Debug)]
pub(crate) struct OpenTable {
    pub(crate) root: TreeRoot,
    name: Box<str>,
    txn: TxnId,
    record: Option<TableRecord>,
    /// Functions whose names were found right, of a key codec and of a value codec.
    right: [AtomicUsize; 2],
    /// The top after each step, if any is worth it: the last one is used from then on. Not known
    /// before enough keys were looked up.
    made: [OnceLock<Option<Arc<FlatIndex>>>; STEPS],
    flat_indexes: Arc<FlatIndexes>,
    /// Keys that were looked up before the last step. Not exact: threads may count over each other.
    lookups: AtomicU32,
}

impl OpenTable {
    fn new(name: &str, txn: TxnId, record: Option<TableRecord>, flat_indexes: &Arc<FlatIndexes>) -> OpenTable {
        OpenTable {
            root: record.as_ref().map_or_else(|| TreeRoot::empty(TreeId::FIRST_TABLE), |record| record.root),
            name: name.into(),
            txn,
            record,
            right: [AtomicUsize::new(0), AtomicUsize::new(0)],
            made: [const { OnceLock::new() }; STEPS],
            flat_indexes: Arc::clone(flat_indexes),
            lookups: AtomicU32::new(0),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Refuses codecs other than those of the table.
    pub(crate) fn check_codecs(&self, key: CodecName, value: CodecName) -> Result<()> {
        let Some(record) = &self.record else { return Ok(()) };
        let asked = [key as usize, value as usize];
        // Each was found right by itself, so that they need not be of one call.
        if self.right.iter().zip(asked).all(|(right, asked)| right.load(Ordering::Relaxed) == asked) {
            return Ok(());
        }
        record.check_codecs(&self.name, Asked::Types(&key(), &value()))?;
        self.right.iter().zip(asked).for_each(|(right, asked)| right.store(asked, Ordering::Relaxed));
        Ok(())
    }

    /// The top of the tree, if it was worth making. `keys` are about to be looked up.
    #[inline(always)]
    pub(crate) fn flat_index(&self, pages: &SnapshotPages, keys: u32) -> Option<&FlatIndex> {
        match self.made[STEPS - 1].get() {
            Some(made) => made.as_deref(),
            None => self.count(pages, keys),
        }
    }

    #[inline(never)]
    fn count(&self, pages: &SnapshotPages, keys: u32) -> Option<&FlatIndex> {
        let lookups = self.lookups.load(Ordering::Relaxed).saturating_add(keys);
        self.lookups.store(lookups, Ordering::Relaxed);
        if let Some(step) = self.made.iter().position(|made| made.get().is_none()) {
            if lookups >= LOOKUPS_BEFORE[step] {
                self.make(pages, step);
            }
        }
        self.made.iter().rev().find_map(OnceLock::get)?.as_deref()
    }

    /// Makes the top of a step, unless another thread is at it.
    #[cold]
    #[inline(never)]
    fn make(&self, pages: &SnapshotPages, step: usize) {
        if !pages.all_served() {
            return;
        }
        // Damage is for the lookup to find that comes to it.
        let build = || FlatIndex::build(pages, &self.root, PAGES_MAX[step]).unwrap_or(None);
        let Some(made) = self.flat_indexes.get(self.txn, &self.root, PAGES_MAX[step], build) else { return };
        // A smaller one may be worth using where a larger one is not.
        let made = made.or_else(|| self.made[..step].last()?.get()?.clone());
        // Below the leaves there is nothing more to make flat.
        let is_last = made.as_ref().is_some_and(|flat_index| flat_index.level() == 0);
        for made_then in &self.made[step..=if is_last { STEPS - 1 } else { step }] {
            made_then.get_or_init(|| made.clone());
        }
    }
}

/// The tables of one state, found by the clones of a transaction and by those after it.
#[derive(Debug, Default)]
pub(crate) struct OpenTables([OnceLock<Arc<OpenTable>>; TABLES_MAX]);

impl OpenTables {
    /// A table of the state `txn`, whose tables these are: the one that is kept, or what `find`
    /// says of it.
    pub(crate) fn get(
        &self,
        name: &str,
        txn: TxnId,
        flat_indexes: &Arc<FlatIndexes>,
        find: impl FnOnce() -> Result<Option<TableRecord>>,
    ) -> Result<Arc<OpenTable>> {
        let cached =
            self.0.iter().map_while(OnceLock::get).inspect(|_| hooks::count_step()).find(|table| *table.name == *name);
        if let Some(found) = cached {
            return Ok(Arc::clone(found));
        }
        let table = Arc::new(OpenTable::new(name, txn, find()?, flat_indexes));
        for place in &self.0 {
            // Another clone may have found it, or another one, meanwhile.
            let cached = place.get_or_init(|| Arc::clone(&table));
            if *cached.name == *name {
                return Ok(Arc::clone(cached));
            }
        }
        Ok(table)
    }
}
