//! The tables that a reader slot caches, for later transactions that read the same state.
//!
//! Floor: txn. To open a table takes a lookup in the catalog and the comparison of two codec names,
//! which takes longer than a lookup in the table. A reader that begins a transaction for each
//! lookup would pay for this each time. So a reader slot caches the tables that its transactions
//! have opened. No other reader uses this cache, and it is dropped when the slot changes to another
//! state.
//!
//! A cached table also has the flat index of its tree. Each step of `LOOKUPS_BEFORE` builds a
//! larger one, down to the leaves if there are not too many. If another state of the table has had
//! one of the leaves, it is renewed instead, after few lookups.
//!
//! Invariants:
//!   TABLE-1  a cached table belongs to the state of its txn. States do not change.
//!
//! Failure: errors of the catalog are not cached.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::catalog::{Asked, TableRecord, TableSpec};
use crate::error::Result;
use crate::hooks;
use crate::ids::{TreeId, TxnId};
use crate::page::meta::TreeRoot;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::PageRead as _;
use crate::tree::{FlatIndex, Tree, PAGES_MAX};
use crate::txn::read::flat_indexes::FlatIndexes;

/// Tables that a slot caches.
const TABLES_MAX: usize = 8;

/// Lookups of a table before it builds a flat index of at most as many pages as `PAGES_MAX` says
/// for this step. So many descents have taken longer than the build does.
const LOOKUPS_BEFORE: [u32; STEPS] = [1 << 12, 1 << 16, 1 << 18, 1 << 20];
const STEPS: usize = PAGES_MAX.len();
/// A flat index is renewed after one lookup for so many of its pages: a lookup gains about a
/// microsecond by it, and renewing takes some nanoseconds for each page.
const PAGES_PER_LOOKUP: usize = 64;

/// Returns the name of a codec.
type CodecName = fn() -> String;

/// A table of one state, as readers have opened it.
#[derive(Debug)]
pub(crate) struct OpenTable {
    pub(crate) root: TreeRoot,
    name: Box<str>,
    txn: TxnId,
    record: Option<TableRecord>,
    /// Addresses of the functions that name the key codec and the value codec, after their names
    /// were found to be those of the table.
    right: [AtomicUsize; 2],
    /// The flat index of each step. Unset until the step was taken, `None` if the tree gains
    /// nothing by one. Lookups use the last one that is set.
    made: [OnceLock<Option<Arc<FlatIndex>>>; STEPS],
    flat_indexes: Arc<FlatIndexes>,
    /// Lookups before the last step was taken. Not exact: threads may overwrite each other's count.
    lookups: AtomicU32,
    /// After so many lookups, the flat index of another state is renewed. `u32::MAX`: there is
    /// none.
    renew_at: AtomicU32,
}

impl OpenTable {
    fn new(name: &str, txn: TxnId, record: Option<TableRecord>, flat_indexes: &Arc<FlatIndexes>) -> OpenTable {
        let root = record.as_ref().map_or_else(|| TreeRoot::empty(TreeId::FIRST_TABLE), |record| record.root);
        let newest = flat_indexes.newest(root.tree).filter(|_| record.is_some());
        let renew_at = newest.map_or(u32::MAX, |newest| (newest.page_count() / PAGES_PER_LOOKUP) as u32);
        OpenTable {
            root,
            name: name.into(),
            txn,
            record,
            right: [AtomicUsize::new(0), AtomicUsize::new(0)],
            made: [const { OnceLock::new() }; STEPS],
            flat_indexes: Arc::clone(flat_indexes),
            lookups: AtomicU32::new(0),
            renew_at: AtomicU32::new(renew_at),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns an error unless flags and key order are those of the table. Codecs are not compared.
    pub(crate) fn check_kind(&self, spec: TableSpec<'_>) -> Result<()> {
        self.record.as_ref().map_or(Ok(()), |record| record.check_kind(&self.name, spec))
    }

    /// Returns an error unless the codecs are those of the table.
    pub(crate) fn check_codecs(&self, key: CodecName, value: CodecName) -> Result<()> {
        let Some(record) = &self.record else { return Ok(()) };
        let asked = [key as usize, value as usize];
        // Each codec was checked separately, so the two may come from different calls.
        if self.right.iter().zip(asked).all(|(right, asked)| right.load(Ordering::Relaxed) == asked) {
            return Ok(());
        }
        record.check_codecs(&self.name, Asked::Types(&key(), &value()))?;
        self.right.iter().zip(asked).for_each(|(right, asked)| right.store(asked, Ordering::Relaxed));
        Ok(())
    }

    /// The flat index of the tree, if there is one. The caller is about to look up `keys` keys.
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
        if lookups >= self.renew_at.load(Ordering::Relaxed) {
            self.renew(pages);
        } else if let Some(step) = self.made.iter().position(|made| made.get().is_none()) {
            if lookups >= LOOKUPS_BEFORE[step] {
                self.make(pages, step);
            }
        }
        self.made.iter().rev().find_map(OnceLock::get)?.as_deref()
    }

    /// Renews the flat index of another state, unless another thread is building one.
    #[cold]
    #[inline(never)]
    fn renew(&self, pages: &SnapshotPages) {
        let Some(old) = self.flat_indexes.newest(self.root.tree).filter(|_| pages.all_served()) else { return };
        let left = self.flat_indexes.pages_left(file_bytes(pages), old.bytes());
        let renew = || old.renew(Tree::new(pages, &self.root), left.min(PAGES_MAX[STEPS - 1])).unwrap_or(None);
        let Some(made) = self.flat_indexes.get(self.txn, &self.root, PAGES_MAX[STEPS - 1], renew) else { return };
        // If it cannot be renewed, it is built from nothing.
        self.renew_at.store(u32::MAX, Ordering::Relaxed);
        if made.is_some() {
            self.made.iter().for_each(|step| {
                step.get_or_init(|| made.clone());
            });
        }
    }

    /// Builds the flat index of a step, unless another thread is building one.
    #[cold]
    #[inline(never)]
    fn make(&self, pages: &SnapshotPages, step: usize) {
        if !pages.all_served() {
            return;
        }
        let smaller = self.made[..step].last().and_then(|made| made.get()?.clone());
        let left = self.flat_indexes.pages_left(file_bytes(pages), smaller.as_ref().map_or(0, |made| made.bytes()));
        // Ignore damage here: a lookup that meets it reports it.
        let build = || FlatIndex::build(Tree::new(pages, &self.root), PAGES_MAX[step].min(left)).unwrap_or(None);
        let Some(made) = self.flat_indexes.get(self.txn, &self.root, PAGES_MAX[step], build) else { return };
        // A smaller flat index may be worth using if a larger one is not.
        let made = made.or(smaller);
        // Below the leaves there is nothing more to make flat.
        let is_last = made.as_ref().is_some_and(|flat_index| flat_index.level() == 0);
        for made_then in &self.made[step..=if is_last { STEPS - 1 } else { step }] {
            made_then.get_or_init(|| made.clone());
        }
    }
}

/// Bytes of the pages of a state.
fn file_bytes(pages: &SnapshotPages) -> u64 {
    pages.page_count() * pages.page_size() as u64
}

/// The tables of one state that a slot caches. Clones of a transaction may open tables at the same
/// time.
#[derive(Debug, Default)]
pub(crate) struct OpenTables([OnceLock<Arc<OpenTable>>; TABLES_MAX]);

impl OpenTables {
    /// Opens a table of the state of `txn`, to which all tables here belong: returns the cached
    /// table, or caches the one that `find` reads from the catalog.
    pub(crate) fn get(
        &self,
        name: &str,
        txn: TxnId,
        flat_indexes: &Arc<FlatIndexes>,
        find: impl FnOnce() -> Result<Option<TableRecord>>,
    ) -> Result<Arc<OpenTable>> {
        let cached =
            self.0.iter().map_while(OnceLock::get).inspect(|_| hooks::count_step()).find(|table| *table.name == *name);
        if let Some(table) = cached {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(OpenTable::new(name, txn, find()?, flat_indexes));
        for entry in &self.0 {
            // Another clone may have cached this table, or another one, meanwhile.
            let cached = entry.get_or_init(|| Arc::clone(&table));
            if *cached.name == *name {
                return Ok(Arc::clone(cached));
            }
        }
        Ok(table)
    }
}
