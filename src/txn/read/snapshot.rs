//! Read transactions: one state of the database, held until the last clone is gone.
//!
//! Floor: txn. Beginning takes a reader slot, shows the published txn in it, and then checks that
//! this txn is still the published one. It takes no lock, makes no system call, and writes no cache
//! line that another reader writes. `mod.rs` shows the types and the steps.
//!
//! Invariants:
//!   READ-1  from before a transaction chooses its state until its last clone is dropped, its slot
//!           shows a txn that is not newer than this state.
//!
//! Failure: [`Error::Poisoned`]; [`Error::Busy`] when every reader slot is taken, or the error of
//! the disk that has no room for more.

use crate::hooks::{self, Moment};
use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use crate::catalog::{self, TableRecord};
use crate::error::{Error, Result};
use crate::ids::TxnId;
use crate::mapping::owned_cell::{CellOwner, Leave, SharedOwner};
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::PageRead as _;
use crate::sys::clock;
use crate::tree::{self, Cursor, Tree};
use crate::txn::core::Core;
use crate::txn::env::Env;
use crate::txn::live::layout::READER_PAGE_BYTES;
use crate::txn::read::open_table::OpenTable;
use crate::txn::read::readers::{chunk_of, ReaderSlot, SlotCache, CHUNKS};
use crate::txn::state::State;

/// A reader slot with a reference that keeps its environment open. Only the reader that owns the
/// slot clones the `Arc` of its `PooledSlot`. The alignment keeps the counters of these `Arc`s on
/// different cache lines, so no two readers write the same line.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct PooledSlot {
    env: Arc<Env>,
    slot: Arc<ReaderSlot>,
}

/// The pooled slots of one database handle and its clones, one for each slot of the environment.
/// Each is made on first use and never removed.
pub(crate) struct ReadPool {
    env: Arc<Env>,
    chunks: [OnceLock<PooledChunk>; CHUNKS],
}

/// The pooled slots of a chunk.
type PooledChunk = Box<[OnceLock<Arc<PooledSlot>>]>;

impl ReadPool {
    pub(crate) fn new(env: Arc<Env>) -> ReadPool {
        ReadPool { env, chunks: std::array::from_fn(|_| OnceLock::new()) }
    }

    pub(crate) fn env(&self) -> &Arc<Env> {
        &self.env
    }

    /// Begins to read the published state.
    pub(crate) fn begin(&self) -> Result<ReadTxn> {
        // The writer runs in the parent and does not see the slots of a child (P22).
        self.env.check_process()?;
        self.env.check_poison()?;
        self.env.heed_cache_drops();
        let live = &self.env.live;
        let txn = live.published_txn();
        hooks::note(txn.0);
        hooks::reach(Moment::ReaderBeginning);
        let mut slot = self.take_slot(txn)?;
        hooks::reach(Moment::ReaderShown);
        let notes = slot.notes();
        notes[NOTE_BEGUN].store(clock::coarse_millis(), Ordering::Relaxed);
        notes[NOTE_LABEL].store(0, Ordering::Relaxed);
        self.env.show_published(&mut slot, txn)?;
        Ok(ReadTxn { slot: SharedOwner::new(slot) })
    }

    /// Takes a free slot, which shows a txn.
    #[inline(always)]
    pub(crate) fn take_slot(&self, txn: TxnId) -> Result<CellOwner<PooledSlot, SlotCache>> {
        let take = |index| CellOwner::take(self.pooled_slot(index), |pooled| &pooled.slot, txn.0);
        self.env.readers.take(take).ok_or_else(|| self.no_free_slot())
    }

    fn pooled_slot(&self, index: usize) -> &Arc<PooledSlot> {
        let (number, offset) = chunk_of(index);
        let made = self.chunks[number].get().and_then(|chunk| chunk[offset].get());
        made.unwrap_or_else(|| self.make_pooled_slot(index))
    }

    #[cold]
    fn make_pooled_slot(&self, index: usize) -> &Arc<PooledSlot> {
        let (number, offset) = chunk_of(index);
        let chunk = self.chunks[number].get_or_init(|| {
            let slots = 0..self.env.readers.slots_of_chunk(number);
            slots.map(|_| OnceLock::new()).collect()
        });
        chunk[offset].get_or_init(|| {
            let slot = Arc::clone(self.env.readers.slot(index));
            Arc::new(PooledSlot { env: Arc::clone(&self.env), slot })
        })
    }

    #[cold]
    fn no_free_slot(&self) -> Error {
        if let Err(e) = self.env.check_poison() {
            return e;
        }
        if let Some(e) = self.env.readers.why_no_more() {
            return self.env.no_room_for_readers(e);
        }
        Error::Busy {
            path: self.env.path().to_path_buf(),
            why: "every reader slot is taken; end read transactions that are no longer needed".into(),
        }
    }
}

impl Env {
    /// Claims reader slots for this process, so that beginning to read needs no room on the disk.
    pub(crate) fn claim_reader_slots(&self) -> Result<()> {
        self.readers.claim_first().map_err(|e| self.no_room_for_readers(e))
    }

    #[cold]
    fn no_room_for_readers(&self, e: io::Error) -> Error {
        Error::io("making room for readers in the lock file", self.path(), e).with_wanted(READER_PAGE_BYTES)
    }
}

impl Core {
    /// Makes a slot, which shows `txn`, one of the published state.
    #[inline(always)]
    pub(super) fn show_published<K>(&self, slot: &mut CellOwner<K, SlotCache>, mut txn: TxnId) -> Result<()> {
        let live = &self.live;
        // Mostly this txn is still the published one, and the cache of the slot belongs to it.
        while !slot.is_of(txn) || !live.is_published(txn) {
            let state = live.published();
            if live.is_damaged() {
                self.check_poison()?;
            }
            if state.txn == txn {
                slot.get_mut().set_state(&state);
                break;
            }
            txn = state.txn;
            slot.show(txn.0);
        }
        let set = slot.get_mut().set_pages(self.page_size, &self.mapping);
        set.map_err(|e| Error::io("mapping the file", self.path(), e))
    }
}

/// The notes in a slot: when its transaction began, and its label.
pub(crate) const NOTE_BEGUN: usize = 0;
pub(crate) const NOTE_LABEL: usize = 1;
/// The most bytes that a label may have.
pub(crate) const LABEL_BYTES_MAX: usize = 64;

/// A read transaction: one unchanging state of the database.
///
/// `Clone`, `Send` and `Sync`, and without a lifetime: it may be kept in a struct, sent to other
/// threads, and used by many at once. Clones share the state; pages that it reaches are kept until
/// the last clone is gone, so a transaction that is held for long makes the file larger. Beginning
/// one takes no lock, and no reader ever waits.
#[derive(Clone)]
pub struct ReadTxn {
    /// The reader slot that the transaction and its clones own. Dropping the last one frees it.
    slot: SharedOwner<PooledSlot, SlotCache>,
}

impl Leave<PooledSlot> for SlotCache {
    #[inline]
    fn leave(&mut self, pooled: &PooledSlot) {
        // The last reader of an old window unmaps it (R4).
        let window_id = pooled.env.mapping.window_id();
        hooks::reach(Moment::ReaderLeaving);
        drop(self.take_if_outgrown(window_id));
    }
}

impl ReadTxn {
    pub(crate) fn of(slot: SharedOwner<PooledSlot, SlotCache>) -> ReadTxn {
        ReadTxn { slot }
    }

    /// The number of the transaction whose state this is.
    pub fn txn_id(&self) -> u64 {
        self.state().txn.0
    }

    /// Moves this transaction to the newest committed state. Clones of it stay at theirs. Returns
    /// whether the state has changed.
    ///
    /// A program that reads for long gives pages back by this, and needs no new transaction.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const HITS: Table<&str, u64> = Table::new("hits");
    ///
    /// let mut txn = db.begin_read()?;
    /// db.write(|txn| txn.table(HITS)?.insert("/", 1).map(drop))?;
    /// assert_eq!(txn.table(HITS)?.get("/")?, None);
    /// txn.refresh()?;
    /// assert_eq!(txn.table(HITS)?.get("/")?, Some(1));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Db::begin_read`](crate::Db::begin_read). After an error, drop the transaction.
    pub fn refresh(&mut self) -> Result<bool> {
        self.check_process()?;
        let (before, env) = (self.state().txn, Arc::clone(&self.slot.keeper().env));
        env.check_poison()?;
        let published = env.live.published_txn();
        if published == before {
            return Ok(false);
        }
        match self.slot.get_mut() {
            // The slot shows the old state until the new one is known.
            Some(slot) => {
                slot.show(published.0);
                slot.notes()[NOTE_BEGUN].store(clock::coarse_millis(), Ordering::Relaxed);
                env.show_published(slot, published)?;
            }
            None => *self = ReadPool::new(env).begin()?,
        }
        Ok(true)
    }

    /// Names this transaction and its clones for [`Db::readers`](crate::Db::readers), with at most
    /// 64 bytes; the rest is left out.
    pub fn set_label(&self, label: &str) {
        let end = (0..=label.len().min(LABEL_BYTES_MAX)).rev().find(|&end| label.is_char_boundary(end)).unwrap_or(0);
        let mut bytes = [0; LABEL_BYTES_MAX];
        bytes[..end].copy_from_slice(&label.as_bytes()[..end]);
        for (word, bytes) in self.slot.notes()[NOTE_LABEL..].iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn pages(&self) -> &SnapshotPages {
        self.slot.pages()
    }

    #[inline]
    pub(crate) fn state(&self) -> &State {
        self.slot.state()
    }

    pub(crate) fn env(&self) -> &Env {
        &self.slot.keeper().env
    }

    /// Returns an error in a child that inherited the transaction by `fork`. The parent can end the
    /// transaction, and the child would not notice (P22).
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        self.env().check_process()
    }

    /// The table record of a table, if there is one.
    pub(crate) fn find_table(&self, name: &str) -> Result<Option<TableRecord>> {
        self.table_found(name, Tree::new(self.pages(), &self.state().catalog).get(name.as_bytes()))
    }

    /// Like [`ReadTxn::find_table`], but returns `WouldBlock` instead of waiting for the disk.
    pub(crate) fn find_table_nonblocking(&self, name: &str) -> Result<Option<TableRecord>> {
        let found = tree::get_nonblocking(self.pages(), &self.state().catalog, name.as_bytes());
        self.table_found(name, found.map_err(|e| e.with_table(name)))
    }

    fn table_found(&self, name: &str, found: Result<Option<&[u8]>>) -> Result<Option<TableRecord>> {
        catalog::check_name(name)?;
        let found = found.and_then(|found| found.map(TableRecord::decode).transpose().map_err(|e| e.with_table(name)));
        let record = self.check_fault(found)?.map(|record| record.with_order(&self.env().opened.key_orders));
        if let Some(record) = &record {
            record.known_flags(name)?;
        }
        Ok(record)
    }

    /// A table, as it is in this state.
    pub(crate) fn open_table(&self, name: &str) -> Result<Arc<OpenTable>> {
        self.check_process()?;
        self.slot.tables.get(name, self.state().txn, &self.env().flat_indexes, || self.find_table(name))
    }

    /// Names and table records of all tables, in the order of names.
    pub(crate) fn table_records(&self) -> Result<Vec<(String, TableRecord)>> {
        self.check_process()?;
        let mut tables = self.check_fault(table_records(self.pages(), &self.state().catalog))?;
        for (_, record) in &mut tables {
            *record = record.clone().with_order(&self.env().opened.key_orders);
        }
        Ok(tables)
    }

    /// Returns `found`, unless the kernel could not serve an access that led to it. Adds the path
    /// of the file to an error.
    pub(crate) fn check_fault<T>(&self, found: Result<T>) -> Result<T> {
        self.pages().check_fault(found).map_err(|e| self.locate(e))
    }

    /// Adds the path of the file to an error.
    #[cold]
    pub(crate) fn locate(&self, e: Error) -> Error {
        e.with_path(self.env().path())
    }
}

impl fmt::Debug for ReadTxn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (env, state) = (self.env(), self.state());
        let mut shown = f.debug_struct("ReadTxn");
        shown.field("path", &env.path).field("txn", &state.txn.0);
        shown.field("pages", &state.page_count).field("page_size", &env.page_size).finish()
    }
}

/// Names and table records of a catalog.
pub(crate) fn table_records<P: crate::pager::PageRead>(
    pages: &P,
    root: &crate::page::meta::TreeRoot,
) -> Result<Vec<(String, TableRecord)>> {
    let mut cursor = Cursor::new(Tree::new(pages, root));
    let mut next = cursor.seek_first()?;
    let mut tables = Vec::new();
    while let Some((key, value)) = next {
        let name = catalog::name_of(key)?;
        let record = TableRecord::decode(value).map_err(|e| e.with_table(&name))?;
        tables.push((name, record));
        next = cursor.next()?;
    }
    Ok(tables)
}
