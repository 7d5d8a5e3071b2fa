//! The environment: one open database file in this process, shared by every handle and transaction.
//!
//! Floor: txn. Holds the core (mapping, live records, locks, poison), the reader slots, and the
//! writer with its writable mapping. Dropped when the last handle and the last transaction are
//! gone: then the log is given up, the file is cut back to the pages in use, and the file lock is
//! released.
//!
//! Invariants:
//!   ENV-1  the writer (writable mapping and free space) is made for the first write transaction.
//!          From then on `writer` holds it exactly while no write transaction runs.
//!
//! Failure: [`Error::Poisoned`] after a failed flush or a failed access to the mapping, until every
//! handle is closed.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{best_effort, Error, Result};
use crate::hooks::{self, FlushKind, Moment, Mutant};
use crate::ids::TxnId;
use crate::mapping::Mapping;
use crate::page::meta::{self, MetaPage, Slot};
use crate::pager::write::live_states::LiveStates;
use crate::pager::write::txn_pages::TxnPages;
use crate::sys::refused;
use crate::txn::core::Core;
use crate::txn::free::free_tree::FreeCache;
use crate::txn::live::{FlushMark, Live};
use crate::txn::log::operations::TxnRecord;
use crate::txn::named::{NamedCache, NamedStates};
use crate::txn::open::OpenSpec;
use crate::txn::processes::descriptor::Gate;
use crate::txn::processes::presence::{self, FileLock};
use crate::txn::read::flat_indexes::FlatIndexes;
use crate::txn::read::readers::Readers;
use crate::txn::read::snapshot::ReadTxn;
use crate::txn::write::background::Background;
use crate::txn::write::folios::FolioRepairs;

/// What a write transaction borrows from the environment while it runs.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) pages: TxnPages,
    pub(crate) cache: FreeCache,
    /// The record of the running transaction for the commit log.
    pub(crate) record: TxnRecord,
    /// Txn of the state that `pages.free` and `cache` belong to.
    pub(crate) based_on: TxnId,
    /// Transactions that were committed before the running one.
    pub(crate) committed: u64,
    pub(crate) repairs: FolioRepairs,
    /// The states of named snapshots.
    pub(crate) named: NamedCache,
}

impl Writer {
    /// Forgets the free space. The next transaction reads it again from the latest state.
    pub(crate) fn forget(&mut self) {
        self.pages.free = Default::default();
        self.cache = FreeCache::default();
        self.named = NamedCache::default();
        self.based_on = TxnId::default();
    }
}

/// One open database.
pub(crate) struct Env {
    core: Arc<Core>,
    /// The options of the first opening, which hold for all handles.
    pub(crate) opened: OpenSpec,
    pub(crate) readers: Arc<Readers>,
    /// Flat indexes that readers have built.
    pub(crate) flat_indexes: Arc<FlatIndexes>,
    writer: Mutex<Option<Box<Writer>>>,
    /// Whether the writer was made. Changed under the writer lock.
    has_writer: AtomicBool,
    /// The thread that makes checkpoints. It starts when there is a log.
    background: Mutex<Option<Background>>,
    /// The snapshot of the file on which a scratch environment stands (`open/scratch.rs`).
    base: Option<ReadTxn>,
}

impl Deref for Env {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        &self.core
    }
}

/// Arguments of [`Env::new`].
pub(crate) struct EnvParts {
    pub(crate) path: PathBuf,
    pub(crate) meta: MetaPage,
    /// The live records, which have a state.
    pub(crate) live: Live,
    pub(crate) read_only: bool,
    pub(crate) opened: OpenSpec,
    pub(crate) lock: Option<FileLock>,
}

impl Env {
    pub(crate) fn new(parts: EnvParts, mapping: Mapping) -> Env {
        let readers = Arc::new(Readers::new(&parts.live, parts.lock.as_ref()));
        let core = Core::new(
            parts.path,
            &parts.meta,
            (parts.read_only, parts.opened.held_pages),
            mapping,
            (parts.live, parts.lock),
        );
        let (core, flat_indexes) = (Arc::new(core), FlatIndexes::new(parts.opened.index_memory));
        flat_indexes.builder.serve(&core, &readers);
        Env {
            core,
            flat_indexes: Arc::new(flat_indexes),
            opened: parts.opened,
            readers,
            writer: Mutex::new(None),
            has_writer: AtomicBool::new(false),
            background: Mutex::new(None),
            base: None,
        }
    }

    /// A scratch environment on a snapshot of a file.
    pub(crate) fn over(base: ReadTxn, parts: EnvParts, mapping: Mapping) -> Env {
        let mut env = Env::new(parts, mapping);
        env.base = Some(base);
        env
    }

    /// The presence of this process in the file, also in that of a scratch environment.
    pub(crate) fn lock_of_file(&self) -> Option<&FileLock> {
        match &self.base {
            Some(base) => base.env().file_lock(),
            None => self.file_lock(),
        }
    }

    /// The snapshot of a scratch environment.
    pub(crate) fn base(&self) -> Option<&ReadTxn> {
        self.base.as_ref()
    }

    /// Returns the present contents of both meta pages.
    pub(crate) fn meta_slots(&self) -> [Slot; 2] {
        let bytes = self.mapping.read_meta_pages();
        meta::probe(|offset, len| {
            let start = usize::try_from(offset).ok()?;
            bytes.get(start..start.checked_add(len)?).map(<[u8]>::to_vec)
        })
        .slots
    }

    /// Starts the thread that makes checkpoints, if it does not run.
    pub(crate) fn start_background(&self) {
        if self.signal.has_thread() || hooks::is_scheduled() {
            return;
        }
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        if background.is_none() {
            *background = Background::start(&self.core);
        }
    }

    /// Makes the writer and the writable mapping before the first write transaction. The caller
    /// holds the writer lock.
    ///
    /// Flushes the file first: a process that was killed may have left the state that this process
    /// opened only in the page cache. Without the flush, a power loss could bring back an older
    /// state after its pages were reused (R7, R10).
    pub(crate) fn make_writer(&self) -> Result<()> {
        match self.read_only || self.has_writer.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.make_first_writer(),
        }
    }

    fn make_first_writer(&self) -> Result<()> {
        // Another process that has made the file ready has flushed it.
        if !self.mapping.is_ready_to_write() && !self.mapping.has_sentinel() {
            let used = self.live.latest().page_count * self.page_size as u64;
            let _checkpoint = self.lock_checkpoint();
            self.live.set_odd(FlushMark::Checkpoint);
            let flushed = self.mapping.flush(FlushKind::Tree, 0, used);
            if let Err(e) = flushed {
                // This process has stored nothing yet, so a flush that the kernel refused to begin
                // has lost nothing.
                let refused = refused::is(&e);
                let e = self.flush_error("flushing the file", e);
                match refused {
                    true => self.live.set_even(FlushMark::Checkpoint),
                    false => self.set_poison(&e),
                }
                return Err(e);
            }
            self.live.set_even(FlushMark::Checkpoint);
        }
        if !self.mapping.is_ready_to_write() {
            self.mapping.ready_to_write().map_err(|e| match self.mapping.fault() {
                Some(fault) => fault.with_path(self.path()),
                None => Error::io("mapping the file for writing", self.path(), e),
            })?;
        }
        // `write_map` returns `None` while another writer has the writable mapping.
        let write_map = self
            .mapping
            .write_map()
            .ok_or_else(|| Error::usage("another write transaction of this database has not ended; end it first"))?;
        let (mapping, path) = (Arc::clone(&self.mapping), Arc::clone(&self.path));
        let pages = TxnPages::new(mapping, write_map, path, self.page_size, Default::default());
        self.return_writer(Box::new(Writer {
            pages,
            cache: FreeCache::default(),
            record: TxnRecord::default(),
            based_on: TxnId::default(),
            committed: 0,
            repairs: FolioRepairs::default(),
            named: NamedCache::default(),
        }));
        self.has_writer.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the writer of a database that is open read-only, for a replay in memory.
    pub(crate) fn make_replayer(&self) -> Result<()> {
        self.make_first_writer()
    }

    /// Drops the writer of `make_replayer`: the replay has ended, and nothing is stored any more.
    pub(crate) fn drop_replayer(&self) -> Result<()> {
        drop(self.take_writer());
        self.has_writer.store(false, Ordering::Relaxed);
        self.mapping.watch_base().map_err(|e| Error::io("reading the end of the file", self.path(), e))
    }

    /// Takes the writer; the caller holds the writer lock.
    pub(crate) fn take_writer(&self) -> Option<Box<Writer>> {
        self.writer_slot().take()
    }

    /// Gives the writer back, before the writer lock is released.
    pub(crate) fn return_writer(&self, writer: Box<Writer>) {
        *self.writer_slot() = Some(writer);
    }

    fn writer_slot(&self) -> MutexGuard<'_, Option<Box<Writer>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the states whose pages a writer must not reuse (docs/concurrency.md, "Begin read,
    /// and reclaim"). `named` are those of the named snapshots of the state that it builds on.
    pub(crate) fn live_states(&self, named: Option<&NamedStates>) -> LiveStates {
        if hooks::is(Mutant::EarlyReclaim) {
            return LiveStates::new(self.readers.snapshots().0, self.live.latest().txn);
        }
        let published = match hooks::is(Mutant::UnpublishedReused) {
            true => self.live.latest().txn,
            false => self.live.published_txn(),
        };
        hooks::note(published.0);
        hooks::reach(Moment::Reclaiming);
        let (mut states, all_seen) = self.readers.snapshots();
        states.iter().for_each(|state| hooks::note(state.0));
        hooks::reach(Moment::SlotsRead);
        let checkpoint = self.live.checkpoint();
        states.push(checkpoint.durable_meta.txn);
        states.extend(checkpoint.pinned);
        states.extend(checkpoint.in_doubt.filter(|_| !hooks::is(Mutant::UnpinnedEarly)).map(|(_, state)| state.txn));
        states.iter().for_each(|state| hooks::note(state.0));
        let named = named.filter(|_| !hooks::is(Mutant::SnapshotsLeftOut));
        states.extend(named.iter().flat_map(|named| &named.txns));
        let mut live = LiveStates::new(states, published);
        if !all_seen || self.live.is_damaged() || named.is_some_and(|named| !named.are_all) {
            // What was read as an empty slot may be one that was lost. So no page is used again.
            live.keep_all();
        }
        live
    }
}

impl Env {
    /// Adds to the `{:?}` output of a public handle: path, state, sizes, and a failure. Costs a few
    /// loads, and waits for nothing.
    pub(crate) fn describe(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        let state = self.live.published();
        shown.field("path", &self.path).field("txn", &state.txn.0);
        shown.field("pages", &state.page_count).field("page_size", &self.page_size);
        if let Some(cause) = self.poison() {
            shown.field("failed", cause);
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Env");
        self.describe(&mut shown);
        shown.finish()
    }
}

impl Env {
    /// Closes the file. Returns the gate, which the caller holds until this process has left.
    fn close(&mut self) -> Option<Gate> {
        let Some(lock) = &self.lock else { return None };
        self.readers.give_up_pages();
        if lock.is_in_memory() {
            // The memory stays as it is for others that have it, or a descriptor of it.
            return None;
        }
        if lock.member().is_none() {
            self.close_cleanly();
            return None;
        }
        if self.is_last_writer() {
            // The others can only read, so nothing is left for them to do. If this fails, the next
            // opening replays more of the log.
            best_effort(self.checkpoint_beside_writers(false));
        }
        // Without the gate the file stays as it is.
        let gate = self.lock.as_ref()?.gate().ok()?;
        if self.lock.as_ref()?.is_last() {
            self.close_cleanly();
            presence::end_session(&self.live);
        }
        Some(gate)
    }

    /// Whether this process has written, others read, and no other can write.
    fn is_last_writer(&self) -> bool {
        if self.read_only || !self.mapping.is_ready_to_write() || self.check_poison().is_err() {
            return false;
        }
        let others = self.other_processes();
        !others.is_empty() && others.iter().all(|process| !process.writes)
    }

    /// Makes the file one without a log that has exactly the length of its newest state. No other
    /// process has it open.
    ///
    /// The next process to open such a file takes it for cleanly closed, and everything in it for
    /// durable. A file that was not written to has this length already and is left untouched.
    fn close_cleanly(&mut self) {
        if self.read_only || self.check_poison().is_err() || self.mapping.follow().is_err() {
            return;
        }
        let is_touched = self.mapping.is_ready_to_write() || self.mapping.is_written_to();
        if !is_touched || self.prove_cache().is_err() || self.take_over().is_err() {
            return;
        }
        if self.live.latest().log.pages > 0 && self.give_up_log().is_err() {
            // The log has the commits that the meta page lacks. The next opening replays them.
            return;
        }
        let checkpoint = self.live.checkpoint();
        if checkpoint.durable_meta.txn == self.live.latest().txn && checkpoint.in_doubt.is_none() {
            // Gives the space after the pages in use back to the file system. If this fails, the
            // file stays longer, and the next opening cuts it.
            let len = self.live.latest().page_count * self.page_size as u64;
            best_effort(self.mapping.shrink(len));
        }
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        if self.is_inherited() {
            // The parent still uses the file, so the child must not cut it. The child's registry
            // does not have this environment.
            return;
        }
        // Ends the threads first, so that only this one has the core.
        self.flat_indexes.builder.end();
        drop(self.background.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        let gate = self.close();
        let Some(core) = Arc::get_mut(&mut self.core) else { return };
        if let Some(lock) = core.lock.take() {
            lock.release(core.read_only);
        }
        drop(gate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot that was lost may have shown any state.
    #[test]
    fn no_page_is_used_again_after_the_live_records_were_damaged() {
        let env = crate::txn::open::in_memory(&OpenSpec::default()).expect("opened");
        let state = crate::txn::state::State { txn: TxnId(5), ..env.live.latest() };
        env.live.add_state(&state);
        env.live.store_latest(state.txn);
        env.live.publish(state.txn);
        let reach = || env.live_states(None).reach(TxnId(2), TxnId(4));
        assert!(!reach());
        env.live.note_damage();
        assert!(reach());
    }
}
