//! The state of the running write transaction: aborted on drop, committed by log or by checkpoint.
//!
//! Floor: txn. `shared.rs` shares it among the handles of tables. A write transaction changes
//! copies of pages on the writable mapping. A commit makes them the next state (`commit.rs`). An
//! abort drops the claimed pages and the writer's cache of the free space. A running transaction
//! records its operations for the commit log, as long as the record is small enough.
//!
//! Invariants:
//!   WRITE-1  no page that a committed state reaches changes (rule R1): only pages of this
//!            transaction are claimed.
//!   WRITE-2  a transaction in which a tree operation failed half-way cannot be committed.
//!   WRITE-3  the latest state is stored only when every page of it is sealed (R2, R12).
//!
//! Failure: errors of the operation. After an error that may have left a tree half-changed, every
//! call returns that error.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{TreeId, MAX_U48};
use crate::page::meta::TreeRoot;

use crate::pager::write::txn_pages::{TxnPages, WRITING};
use crate::pager::PageRead;
use crate::sys::folios::Dirtied;
use crate::tree::{self, AppendHint, PopHint, PutHint, TreeMut};
use crate::txn::env::{Env, Writer};
use crate::txn::free::free_tree::FreeCache;
use crate::txn::log::operations::TxnRecord;
use crate::txn::state::Basis;
use crate::txn::write::commit::Durability;
use crate::txn::write::folios::FolioWatch;
use crate::txn::write::handles::TableHandles;
use crate::txn::write::savepoints::{is_undone_by_going_back, SavedPoint};
use crate::txn::write::table_set::TableSet;

/// The running write transaction. Dropping it aborts.
pub(crate) struct RunningTxn {
    pub(crate) env: Arc<Env>,
    /// The window that was current at the beginning.
    pub(super) window_id: u64,
    /// `None` only while the transaction ends.
    pub(crate) writer: Option<Box<Writer>>,
    pub(crate) basis: Basis,
    pub(crate) catalog: TreeRoot,
    /// The tree of named snapshots.
    pub(crate) snapshots: TreeRoot,
    pub(super) next_tree: TreeId,
    pub(crate) tables: TableSet,
    /// Tables that do not exist and were opened for reading.
    pub(super) absent: BTreeMap<String, Arc<TableHandles>>,
    /// The catalog was changed directly, by a drop or a rename, or the named snapshots were.
    pub(crate) catalog_changed: bool,
    pub(crate) broken: Option<String>,
    /// Going back to a savepoint does not undo what has broken the transaction.
    pub(super) is_beyond_repair: bool,
    /// The savepoints, with the beginnings of nested transactions, in this order.
    pub(super) marks: Vec<SavedPoint>,
    pub(super) durability: Durability,
    /// The state of this transaction has a new log.
    pub(crate) makes_log: bool,
    folios: FolioWatch,
}

#[cold]
fn cannot_go_on(cause: &str) -> Result<()> {
    Err(Error::usage(format!(
        "the transaction cannot go on after an earlier error ({cause}); abort it and begin another"
    )))
}

/// Whether a failed write may have lost bytes. It has not if the kernel refused the call or the
/// file may not get so long: then nothing was written.
fn may_have_lost(source: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, Unsupported};
    !matches!(source.kind(), FileTooLarge | PermissionDenied | Unsupported)
}

impl Env {
    /// Makes enough pages usable for one step of an operation, with an extent of `extent` pages
    /// among them.
    #[inline]
    pub(super) fn ensure(
        &self,
        pages: &mut TxnPages,
        cache: &mut FreeCache,
        basis: &mut Basis,
        extent: u64,
    ) -> Result<()> {
        cache.ensure(pages, basis, extent)?;
        match pages.may_have_to_grow(extent) {
            true => self.make_room(pages, cache, basis, extent),
            false => Ok(()),
        }
    }

    /// Frees the slots of dead processes before the file grows for the pages that they pin.
    fn free_dead_readers(
        &self,
        pages: &mut TxnPages,
        cache: &mut FreeCache,
        basis: &mut Basis,
        extent: u64,
    ) -> Result<()> {
        if !self.readers.free_dead() {
            return Ok(());
        }
        basis.live = self.live_states(basis.named.as_deref());
        cache.look_again(pages, basis, extent)
    }

    /// Grows the file before a step needs it. On a full disk, makes a checkpoint instead, which
    /// releases the held pages.
    #[cold]
    fn make_room(&self, pages: &mut TxnPages, cache: &mut FreeCache, basis: &mut Basis, extent: u64) -> Result<()> {
        self.free_dead_readers(pages, cache, basis, extent)?;
        if !pages.may_have_to_grow(extent) {
            return Ok(());
        }
        let latest = &basis.latest;
        if latest.log.pages == 0 || latest.superseded <= self.live.durable_meta().superseded {
            return Ok(());
        }
        if pages.grow_for(extent).is_ok() {
            return Ok(());
        }
        self.checkpoint_beside_writers(false)?;
        basis.live = self.live_states(basis.named.as_deref());
        cache.look_again(pages, basis, extent)
    }
}

/// The writer while a transaction begins. If this fails, or panics, it goes back, and forgets what
/// it has cached.
struct TakenWriter<'a> {
    env: &'a Env,
    /// `None` only when a transaction has it.
    writer: Option<Box<Writer>>,
}

impl TakenWriter<'_> {
    fn of(env: &Env) -> Result<TakenWriter<'_>> {
        match env.take_writer() {
            None => Err(Error::usage("the database was opened read-only; open it for writing")),
            writer => Ok(TakenWriter { env, writer }),
        }
    }

    fn writer_mut(&mut self) -> &mut Writer {
        match &mut self.writer {
            Some(writer) => writer,
            None => unreachable!("no transaction has it yet"),
        }
    }

    fn into_writer(mut self) -> Box<Writer> {
        match self.writer.take() {
            Some(writer) => writer,
            None => unreachable!("no transaction has it yet"),
        }
    }
}

impl Drop for TakenWriter<'_> {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            writer.forget();
            self.env.return_writer(writer);
        }
    }
}

impl RunningTxn {
    /// Begins on the latest state. The caller holds the writer lock. If this fails, it releases the
    /// lock.
    pub(crate) fn begin(env: Arc<Env>) -> Result<RunningTxn> {
        match RunningTxn::try_begin(&env) {
            Ok((writer, basis)) => Ok(RunningTxn {
                folios: FolioWatch::begin(writer.committed),
                window_id: env.mapping.window_id(),
                env,
                writer: Some(writer),
                catalog: basis.latest.catalog,
                snapshots: basis.latest.snapshots,
                next_tree: basis.latest.next_tree,
                basis,
                tables: TableSet::default(),
                absent: BTreeMap::new(),
                catalog_changed: false,
                broken: None,
                is_beyond_repair: false,
                marks: Vec::new(),
                durability: Durability::default(),
                makes_log: false,
            }),
            Err(e) => {
                env.release_writer();
                Err(e.with_path(env.path()))
            }
        }
    }

    fn try_begin(env: &Arc<Env>) -> Result<(Box<Writer>, Basis)> {
        env.check_process()?;
        env.check_poison()?;
        env.prove_cache()?;
        env.take_over()?;
        let latest = env.live.latest();
        env.check_poison()?;
        if latest.txn.0 >= MAX_U48 {
            // A page header has no room for the next number. No program has made so many commits.
            let what = "the transaction number is the largest there can be; compact to a new file, which begins again"
                .to_string();
            return Err(Error::Corrupt { path: None, page: None, table: None, what });
        }
        env.heed_cache_drops();
        env.mapping.follow().map_err(|e| Error::io("mapping the file", env.path(), e))?;
        env.make_writer()?;
        let mut taken = TakenWriter::of(env)?;
        let writer = taken.writer_mut();
        if writer.based_on != latest.txn {
            writer.forget();
            writer.based_on = latest.txn;
        }
        writer.pages.follow();
        writer.pages.begin(latest.txn.next(), latest.page_count);
        writer.record.begin(env.record_bytes_for(&latest));
        let basis = writer.basis_of(env, latest);
        let begun = writer.cache.begin(&mut writer.pages, &basis);
        writer.pages.check_fault(begun)?;
        Ok((taken.into_writer(), basis))
    }

    /// Returns an error if the transaction is broken, or inherited through `fork`.
    pub(crate) fn check_usable(&self) -> Result<()> {
        // A child after `fork` would store to pages of its parent (P22).
        self.env.check_process()?;
        self.broken.as_deref().map_or(Ok(()), cannot_go_on)
    }

    /// Like [`RunningTxn::check_usable`]. Also returns an error if something was begun with the
    /// table and not finished.
    pub(crate) fn check_table(&self, at: usize) -> Result<()> {
        self.check_usable()?;
        self.tables[at].unfinished().map_or(Ok(()), cannot_go_on)
    }

    /// Like [`RunningTxn::check_table`], for all tables.
    pub(crate) fn check_finished(&self) -> Result<()> {
        self.check_usable()?;
        self.tables.unfinished().map_or(Ok(()), cannot_go_on)
    }

    /// Breaks the transaction, unless it is broken.
    #[cold]
    pub(crate) fn break_off(&mut self, cause: &str) {
        self.broken.get_or_insert_with(|| cause.to_string());
    }

    /// Returns `result`. If it is an error that may have left a tree half-changed, marks the
    /// transaction as broken.
    #[inline]
    pub(crate) fn note<T>(&mut self, at: Option<usize>, result: Result<T>) -> Result<T> {
        match result {
            Ok(done) if self.pages().all_served() => Ok(done),
            other => self.note_error(at, other),
        }
    }

    #[cold]
    #[inline(never)]
    fn note_error<T>(&mut self, at: Option<usize>, result: Result<T>) -> Result<T> {
        self.pages().check_fault(result).map_err(|e| {
            let e = e.with_path(self.env.path());
            let e = match at.and_then(|at| self.tables.get(at)) {
                Some(table) => e.with_table(table.name()),
                None => e,
            };
            if matches!(&e, Error::Io { op, source, .. } if *op == WRITING && may_have_lost(source)) {
                // The kernel may report this error only once, so poison now (R9).
                self.env.set_poison(&e);
            }
            if !matches!(e.kind(), ErrorKind::Usage | ErrorKind::TooLarge) {
                self.broken.get_or_insert_with(|| e.to_string());
                self.is_beyond_repair |= !is_undone_by_going_back(&e);
            }
            e
        })
    }

    /// Makes enough pages usable for one operation that stores a key and a value. `bytes` is the
    /// length of the longer of the two.
    #[inline]
    pub(crate) fn ensure(&mut self, bytes: usize) -> Result<()> {
        if self.pages().owned_count() >= self.folios.next_pages {
            self.watch_folios()?;
        }
        let page_size = self.env.page_size;
        let extent = tree::extent_for(page_size, bytes);
        let Writer { pages, cache, .. } = writer_of(&mut self.writer);
        self.env.ensure(pages, cache, &mut self.basis, extent)
    }

    /// Ends a series of appends: stores the page of the append buffer to the mapping, and waits for
    /// the write queue.
    #[inline]
    pub(crate) fn end_filling(&mut self) -> Result<()> {
        let ended = writer_of(&mut self.writer).pages.end_filling();
        self.note(None, ended)
    }

    /// Writes the page in the append buffer to the mapping, so that a handle can lend it.
    #[cold]
    pub(crate) fn empty_append_buffer(&mut self) -> Result<()> {
        // A child after `fork` would write to a page of its parent (P22).
        self.env.check_process()?;
        let written = writer_of(&mut self.writer).pages.put_down();
        self.note(None, written)
    }

    /// Drops the page cache if another program has filled it with large folios, so that later
    /// stores dirty only their own pages. Dirty pages are flushed first, because the kernel does
    /// not drop them.
    #[cold]
    fn watch_folios(&mut self) -> Result<()> {
        let pages = self.pages();
        let count = pages.owned_count();
        let bytes = count * pages.page_size() as u64;
        let suspicious = self.folios.since.is_some_and(|since| since.is_suspicious_for(bytes));
        if suspicious && pages.are_in_large_folios() && writer_of(&mut self.writer).repairs.is_due() {
            self.env.flush_and_drop_cache()?;
        }
        let next_pages = count.max(1) * FolioWatch::FACTOR;
        self.folios = FolioWatch { since: Some(Dirtied::until_now()), next_pages };
        Ok(())
    }

    /// The last [`RunningTxn::watch_folios`] of the transaction.
    pub(super) fn end_watching_folios(&mut self) -> Result<()> {
        match self.folios.since {
            Some(_) => self.watch_folios(),
            None => Ok(()),
        }
    }

    /// Adds a put to the record of the transaction, if operations are recorded.
    #[inline]
    pub(super) fn record_put(&mut self, at: usize, key: &[u8], value: &[u8]) {
        if let Some((record, table)) = self.recorded(at) {
            record.put(table, key, value);
        }
    }

    #[inline]
    pub(super) fn record_delete(&mut self, at: usize, key: &[u8]) {
        if let Some((record, table)) = self.recorded(at) {
            record.delete(table, key);
        }
    }

    /// Returns the record of this transaction and a table's number in it, if operations are
    /// recorded.
    #[inline]
    pub(super) fn recorded(&mut self, at: usize) -> Option<(&mut TxnRecord, u32)> {
        let record = &mut writer_of(&mut self.writer).record;
        if !record.is_active() {
            return None;
        }
        let table = &mut self.tables[at];
        let number = match table.recorded {
            Some(number) => number,
            None => {
                let number = record.table(table.name(), &table.record);
                table.recorded = Some(number);
                number
            }
        };
        Some((record, number))
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn pages(&self) -> &TxnPages {
        match &self.writer {
            Some(writer) => &writer.pages,
            None => unreachable!("a transaction that has ended is not reachable by its user"),
        }
    }

    pub(crate) fn root(&self, at: usize) -> &TreeRoot {
        &self.tables[at].record.root
    }

    /// Stores an entry. Returns whether the key had one before; its value goes to `old`.
    pub(crate) fn put(&mut self, at: usize, key: &[u8], value: &[u8], old: Option<&mut Vec<u8>>) -> Result<bool> {
        self.check_table(at)?;
        let ensured = self.ensure(value.len().max(key.len()));
        self.note(None, ensured)?;
        self.end_filling()?;
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = TreeMut::new(pages, &mut table.record.root).put(key, value, &mut table.put_hint, old);
        table.append_hint = AppendHint::default();
        table.pop_hint = PopHint::default();
        table.changed |= !is_refusal(&done);
        if done.is_ok() {
            self.record_put(at, key, value);
        }
        self.note(Some(at), done)
    }

    /// Removes an entry. Returns whether the key had one; its value goes to `old`.
    pub(crate) fn delete(&mut self, at: usize, key: &[u8], old: Option<&mut Vec<u8>>) -> Result<bool> {
        self.check_table(at)?;
        let ensured = self.ensure(0);
        self.note(None, ensured)?;
        self.end_filling()?;
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = TreeMut::new(pages, &mut table.record.root).delete(key, old);
        if !matches!(done, Ok(false)) {
            table.note_change();
        }
        if matches!(done, Ok(true)) {
            self.record_delete(at, key);
        }
        self.note(Some(at), done)
    }

    /// Stores an entry whose key is greater than every other of the table.
    pub(crate) fn append(&mut self, at: usize, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_table(at)?;
        let ensured = self.ensure(value.len().max(key.len()));
        self.note(None, ensured)?;
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = TreeMut::new(pages, &mut table.record.root).append(key, value, &mut table.append_hint);
        table.put_hint = PutHint::default();
        table.pop_hint = PopHint::default();
        table.changed |= !is_refusal(&done);
        if done.is_ok() {
            self.record_put(at, key, value);
        }
        self.note(Some(at), done)
    }
}

impl fmt::Debug for RunningTxn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("WriteTxn");
        shown.field("path", &self.env.path).field("based_on", &self.basis.latest.txn.0);
        shown.field("open_tables", &self.tables.len()).field("failed", &self.broken).finish()
    }
}

impl Drop for RunningTxn {
    fn drop(&mut self) {
        self.finish(None);
    }
}

/// Returns the writer of a running transaction. A free function, so that other fields stay
/// borrowable.
#[inline]
pub(crate) fn writer_of(writer: &mut Option<Box<Writer>>) -> &mut Writer {
    match writer {
        Some(writer) => writer,
        None => unreachable!("a transaction that has ended is not reachable by its user"),
    }
}

/// Whether an operation was refused before it changed anything.
fn is_refusal<T>(result: &Result<T>) -> bool {
    matches!(result, Err(e) if matches!(e.kind(), ErrorKind::Usage | ErrorKind::TooLarge))
}
