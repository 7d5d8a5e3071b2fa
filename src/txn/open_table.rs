//! Tables as a read transaction has found them, kept for the next transactions that read the same state.
//!
//! Floor: txn. To find a table takes a lookup in the catalog and the comparison of two names of codecs, which is more than a
//! lookup in the table takes; a reader that begins a transaction for each lookup would pay it each time. So a reader slot keeps
//! what its transactions found: no other reader touches it, and it is dropped when the slot sees another state. With the
//! table is kept the flat top of its tree, once that was worth making: a small one soon, and a larger one, down to the leaves
//! if there are not too many, for a table that is looked up very often.
//!
//! Invariants:
//!   O1  what is kept belongs to the state whose number it has, and states do not change.
//!
//! Failure: errors of the catalog are not kept.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::catalog::TableRecord;
use crate::error::Result;
use crate::ids::{TreeId, TxnId};
use crate::page::meta::TreeRoot;
use crate::pager::snapshot_pages::SnapshotPages;
use crate::tree::{self, Top};
use crate::txn::write::check_codecs;

/// Tables that a slot keeps.
const KEPT_MAX: usize = 8;

/// Lookups after which a top of few pages is made, and one of many: their descents took longer than making it does.
const LOOKUPS_BEFORE_SMALL: u32 = 4096;
const LOOKUPS_BEFORE_LARGE: u32 = 1 << 16;

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
    /// The top that is used from now on, if any is worth it. Not known before enough keys were looked up.
    top: OnceLock<Option<Arc<Top>>>,
    small: OnceLock<Option<Arc<Top>>>,
    /// A thread makes a top: the others do without.
    making: AtomicBool,
    /// Keys that were looked up before `top` was known. Not exact: threads may count over each other.
    lookups: AtomicU32,
}

impl OpenTable {
    fn new(name: &str, txn: TxnId, record: Option<TableRecord>) -> OpenTable {
        OpenTable {
            root: record.as_ref().map_or_else(|| TreeRoot::empty(TreeId::FIRST_TABLE), |record| record.root),
            name: name.into(),
            txn,
            record,
            right: [AtomicUsize::new(0), AtomicUsize::new(0)],
            top: OnceLock::new(),
            small: OnceLock::new(),
            making: AtomicBool::new(false),
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
        check_codecs(&self.name, record, Some((&key(), &value())))?;
        self.right.iter().zip(asked).for_each(|(right, asked)| right.store(asked, Ordering::Relaxed));
        Ok(())
    }

    /// The top of the tree, if it was worth making. `keys` are about to be looked up.
    #[inline(always)]
    pub(crate) fn top(&self, pages: &SnapshotPages, keys: u32) -> Option<&Top> {
        match self.top.get() {
            Some(made) => made.as_deref(),
            None => self.count(pages, keys),
        }
    }

    #[inline(never)]
    fn count(&self, pages: &SnapshotPages, keys: u32) -> Option<&Top> {
        let lookups = self.lookups.load(Ordering::Relaxed).saturating_add(keys);
        self.lookups.store(lookups, Ordering::Relaxed);
        let small = self.small.get();
        let due = lookups >= if small.is_some() { LOOKUPS_BEFORE_LARGE } else { LOOKUPS_BEFORE_SMALL };
        if due && !self.making.swap(true, Ordering::Acquire) {
            self.make(pages);
            self.making.store(false, Ordering::Release);
        }
        self.small.get()?.as_deref()
    }

    /// Makes the small top, or when there is that one, a larger one if the tree has it.
    #[cold]
    #[inline(never)]
    fn make(&self, pages: &SnapshotPages) {
        // Damage is for the lookup to find that comes to it.
        let build = |pages_max| Top::build(pages, &self.root, pages_max).unwrap_or(None).map(Arc::new);
        let Some(small) = self.small.get() else {
            self.small.get_or_init(|| build(tree::PAGES_SMALL));
            return;
        };
        self.top.get_or_init(|| build(tree::PAGES_LARGE).or_else(|| small.clone()));
    }
}

/// What a reader slot keeps.
#[derive(Debug, Default)]
pub(crate) struct OpenTables(Mutex<Vec<Arc<OpenTable>>>);

impl OpenTables {
    /// A table of the state `txn`: the one that is kept, or what `find` says of it.
    pub(crate) fn get(
        &self,
        name: &str,
        txn: TxnId,
        find: impl FnOnce() -> Result<Option<TableRecord>>,
    ) -> Result<Arc<OpenTable>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.iter().find(|table| table.txn == txn && *table.name == *name) {
            return Ok(Arc::clone(found));
        }
        kept.retain(|table| table.txn == txn);
        let table = Arc::new(OpenTable::new(name, txn, find()?));
        if kept.len() < KEPT_MAX {
            kept.push(Arc::clone(&table));
        }
        Ok(table)
    }
}
