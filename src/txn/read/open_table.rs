//! The tables that a reader slot caches, for later transactions that read the same state.
//!
//! Floor: txn. To open a table takes a lookup in the catalog and the comparison of two codec names,
//! which takes longer than a lookup in the table. A reader that begins a transaction for each
//! lookup would pay for this each time. So a reader slot caches the tables that its transactions
//! have opened. No other reader uses this cache, and it is dropped when the slot changes to another
//! state.
//!
//! A cached table also has the flat index of its tree. After some lookups it builds a small one,
//! and after some more it asks a thread for one of the leaves (`index_builder`). If another state
//! of the table has had one of the leaves, it is renewed instead. No lookup waits for a thread.
//!
//! Invariants:
//!   TABLE-1  a cached table belongs to the state of its txn. States do not change.
//!
//! Failure: errors of the catalog are not cached.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
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

/// The flat indexes of a table: a small one, and the largest one that is allowed.
const STEPS: usize = 2;
/// The most pages of a small flat index. A reader builds or renews it in less than the time in
/// which it reads a page from the disk.
const SMALL_PAGES_MAX: usize = PAGES_MAX[0];
/// The most pages that a reader renews by itself: copying them takes no longer.
const COPIED_PAGES_MAX: usize = PAGES_MAX[1];
pub(super) const LARGE_PAGES_MAX: usize = PAGES_MAX[PAGES_MAX.len() - 1];
/// Lookups before a small flat index is built. So many descents have taken longer than that.
const LOOKUPS_BEFORE: u32 = 1 << 10;
/// A large flat index is built after one lookup for so many pages: earlier, most lookups touch a
/// page for the first time, and the thread would only slow them down.
const PAGES_PER_LOOKUP: u64 = 2;
/// A flat index is renewed after one lookup for so many of its pages: a lookup gains up to a
/// microsecond by it, and renewing takes some nanoseconds for each page.
const RENEWED_PER_LOOKUP: u64 = 64;
/// The fewest lookups between two attempts.
const LOOKUPS_BETWEEN: u32 = 1 << 7;
/// If no thread can be started: lookups before a reader builds a large flat index by itself.
const LOOKUPS_BEFORE_ALONE: u32 = 1 << 16;

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
    /// After so many lookups, the next step is tried.
    next_at: AtomicU32,
    /// The flat index of another state could not be renewed.
    renewal_failed: AtomicBool,
}

impl OpenTable {
    fn new(name: &str, txn: TxnId, record: Option<TableRecord>, flat_indexes: &Arc<FlatIndexes>) -> OpenTable {
        let root = record.as_ref().map_or_else(|| TreeRoot::empty(TreeId::FIRST_TABLE), |record| record.root);
        let newest = flat_indexes.newest(root.tree).filter(|_| record.is_some());
        let renew_at = |pages: usize| lookups_for(pages as u64, RENEWED_PER_LOOKUP);
        let next_at = match root.order.is_bytewise() {
            true => newest.map_or(LOOKUPS_BEFORE, |(_, newest)| renew_at(newest.page_count())),
            // Lookups go through the branches: a flat index compares bytes.
            false => u32::MAX,
        };
        OpenTable {
            root,
            name: name.into(),
            txn,
            record,
            right: [AtomicUsize::new(0), AtomicUsize::new(0)],
            made: [const { OnceLock::new() }; STEPS],
            flat_indexes: Arc::clone(flat_indexes),
            lookups: AtomicU32::new(0),
            next_at: AtomicU32::new(next_at),
            renewal_failed: AtomicBool::new(false),
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
        if lookups >= self.next_at.load(Ordering::Relaxed) {
            let next_at = self.advance(pages, lookups);
            self.next_at.store(next_at, Ordering::Relaxed);
        }
        self.made.iter().rev().find_map(OnceLock::get)?.as_deref()
    }

    /// Tries the next step. Returns after how many lookups it is to be tried again.
    #[cold]
    #[inline(never)]
    fn advance(&self, pages: &SnapshotPages, lookups: u32) -> u32 {
        let again = later(lookups);
        if !pages.all_served() {
            return again;
        }
        if let Some(shared) = self.flat_indexes.find(self.txn, &self.root, LARGE_PAGES_MAX) {
            return self.set_last(shared);
        }
        if let Some(newest) = self.newest() {
            return self.renew_or_ask(pages, newest, lookups);
        }
        if self.made[0].get().is_none() {
            return self.make_small(pages).unwrap_or(again);
        }
        self.ask(pages, lookups)
    }

    /// The flat index of another state that may be renewed.
    fn newest(&self) -> Option<(TxnId, Arc<FlatIndex>)> {
        match self.renewal_failed.load(Ordering::Relaxed) {
            true => None,
            false => self.flat_indexes.newest(self.root.tree),
        }
    }

    /// Sets the last step, and those before it. No further step is tried.
    fn set_last(&self, made: Option<Arc<FlatIndex>>) -> u32 {
        // A smaller flat index may be worth using if a larger one is not.
        let made = made.or_else(|| self.made[0].get()?.clone());
        self.made.iter().for_each(|step| {
            step.get_or_init(|| made.clone());
        });
        u32::MAX
    }

    /// Renews the flat index of another state, or asks the builder to do so. The builder serves the
    /// published state, so the reader of an older one renews by itself.
    fn renew_or_ask(&self, pages: &SnapshotPages, (txn, old): (TxnId, Arc<FlatIndex>), lookups: u32) -> u32 {
        let is_large = old.page_count() > COPIED_PAGES_MAX;
        if is_large && self.txn > txn && self.flat_indexes.ask(&self.name) {
            return later(lookups);
        }
        let left = self.flat_indexes.pages_left(file_bytes(pages), old.bytes());
        let renew = || {
            let made = old.renew(Tree::new(pages, &self.root), left.min(LARGE_PAGES_MAX)).unwrap_or(None);
            // Then it is built from nothing.
            self.renewal_failed.store(made.is_none(), Ordering::Relaxed);
            made.map(Some)
        };
        let made = self.flat_indexes.get(self.txn, &self.root, LARGE_PAGES_MAX, renew);
        made.map_or_else(|| later(lookups), |made| self.set_last(made))
    }

    /// Builds a small flat index, unless another thread is building one: of the leaves, if there
    /// are few, else of a level above them.
    fn make_small(&self, pages: &SnapshotPages) -> Option<u32> {
        let made = self.build(pages, SMALL_PAGES_MAX, 0)?;
        // Below the leaves there is nothing more to make flat.
        if made.as_ref().is_none_or(|made| made.level() == 0) {
            return Some(self.set_last(made));
        }
        self.made[0].get_or_init(|| made);
        Some(lookups_for(self.pages_estimate(pages), PAGES_PER_LOOKUP))
    }

    /// Asks the builder for a large flat index. Builds it if there can be no such thread, after
    /// more lookups.
    fn ask(&self, pages: &SnapshotPages, lookups: u32) -> u32 {
        let again = later(lookups);
        let alone_at = u32::try_from(self.pages_estimate(pages)).unwrap_or(u32::MAX).max(LOOKUPS_BEFORE_ALONE);
        if self.flat_indexes.ask(&self.name) || lookups < alone_at {
            return again;
        }
        let replaced = self.made[0].get().and_then(|made| Some(made.as_ref()?.bytes())).unwrap_or(0);
        self.build(pages, LARGE_PAGES_MAX, replaced).map_or(again, |made| self.set_last(made))
    }

    /// Builds a flat index that replaces one of so many bytes. `None` while another thread builds.
    fn build(&self, pages: &SnapshotPages, pages_max: usize, replaced: usize) -> Option<Option<Arc<FlatIndex>>> {
        let left = self.flat_indexes.pages_left(file_bytes(pages), replaced);
        // Ignore damage here: a lookup that meets it reports it.
        let build = || FlatIndex::build(Tree::new(pages, &self.root), pages_max.min(left)).unwrap_or(None);
        self.flat_indexes.get(self.txn, &self.root, pages_max, || Some(build()))
    }

    /// No less than the number of leaves, if the file is not damaged.
    fn pages_estimate(&self, pages: &SnapshotPages) -> u64 {
        self.root.entries.min(pages.page_count())
    }
}

/// Lookups before a flat index of so many pages is made.
fn lookups_for(pages: u64, per_lookup: u64) -> u32 {
    u32::try_from(pages / per_lookup).unwrap_or(u32::MAX)
}

/// When to try again after so many lookups. The distance grows with them, so attempts that never
/// succeed cost little.
fn later(lookups: u32) -> u32 {
    lookups.saturating_add(lookups / 8).saturating_add(LOOKUPS_BETWEEN)
}

/// Bytes of the pages of a state.
pub(super) fn file_bytes(pages: &SnapshotPages) -> u64 {
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
