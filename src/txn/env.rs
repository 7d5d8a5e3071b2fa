//! The environment: one open database file in this process, shared by every handle and transaction.
//!
//! Floor: txn. Holds the mapping, the live records, the reader slots, the writer with its writable
//! mapping, and the file lock. Dropped when the last handle and the last transaction are gone: then
//! the file is cut back to the pages in use and the lock is released.
//!
//! Invariants:
//!   ENV-1  the writer (writable mapping and free space) is made for the first write transaction,
//!       and from then on inside `writer` exactly while none runs.
//!   ENV-2  once poisoned, nothing is committed or acknowledged (rule R9).
//!
//! Failure: [`Error::Poisoned`] after a failed flush or a failed access to the mapping, until every
//! handle is closed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{best_effort, Error, Result};
use crate::hooks::{self, FlushKind, Moment, Mutant};
use crate::ids::TxnId;
use crate::mapping::Mapping;
use crate::page::meta::{self, MetaPage, Slot};
use crate::pager::write::free_space::LiveStates;
use crate::pager::write::txn_pages::TxnPages;
use crate::sys::{fork, refused};
use crate::txn::free::free_tree::FreeCache;
use crate::txn::live::Live;
use crate::txn::open::file_lock::FileLock;
use crate::txn::open::OpenSpec;
use crate::txn::read::flat_indexes::FlatIndexes;
use crate::txn::read::readers::Readers;
use crate::txn::state::State;
use crate::txn::write::writer_lock::WriterLock;

/// What a write transaction borrows from the environment while it runs.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) pages: TxnPages,
    pub(crate) cache: FreeCache,
    /// The latest state that pages' free space and `cache` belong to.
    pub(crate) based_on: TxnId,
}

impl Writer {
    /// Forgets what is known of the free space; it is read again from the latest state.
    pub(crate) fn forget(&mut self) {
        self.pages.free = Default::default();
        self.cache = FreeCache::default();
        self.based_on = TxnId::default();
    }
}

/// One open database.
pub(crate) struct Env {
    pub(crate) path: Arc<PathBuf>,
    pub(crate) page_size: usize,
    pub(crate) uuid: [u8; 16],
    pub(crate) required_features: u64,
    pub(crate) optional_features: u64,
    pub(crate) read_only: bool,
    /// The options of the first opening, which hold for all handles.
    pub(crate) opened: OpenSpec,
    /// The process that opened it: a child after `fork` has a copy that it must not use.
    process: u32,
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) live: Live,
    pub(crate) readers: Readers,
    /// Flat indexes that readers have built.
    pub(crate) flat_indexes: Arc<FlatIndexes>,
    pub(crate) writer_lock: WriterLock,
    writer: Mutex<Option<Box<Writer>>>,
    /// The writer was made. Changed under the writer lock.
    has_writer: AtomicBool,
    pub(crate) checkpoint_lock: Mutex<()>,
    poison: OnceLock<String>,
    /// The lock on the file; `None` in memory.
    pub(crate) lock: Option<FileLock>,
}

/// What [`Env::new`] needs.
pub(crate) struct EnvParts {
    pub(crate) path: PathBuf,
    pub(crate) meta: MetaPage,
    pub(crate) slot: usize,
    pub(crate) read_only: bool,
    pub(crate) opened: OpenSpec,
    pub(crate) mapping: Mapping,
    pub(crate) lock: Option<FileLock>,
}

impl Env {
    pub(crate) fn new(parts: EnvParts) -> Env {
        let page_size = parts.meta.page_size as usize;
        let path = Arc::new(parts.path);
        let mapping = Arc::new(parts.mapping);
        Env {
            path,
            page_size,
            uuid: parts.meta.uuid,
            required_features: parts.meta.required,
            optional_features: parts.meta.optional,
            read_only: parts.read_only,
            opened: parts.opened,
            process: fork::id(),
            mapping,
            live: Live::new(State::from_meta(&parts.meta), parts.slot),
            readers: Readers::new(),
            flat_indexes: Arc::default(),
            writer_lock: WriterLock::default(),
            writer: Mutex::new(None),
            has_writer: AtomicBool::new(false),
            checkpoint_lock: Mutex::new(()),
            poison: OnceLock::new(),
            lock: parts.lock,
        }
    }

    /// The meta page that describes a state of this database.
    pub(crate) fn meta_page_of(&self, state: &State) -> MetaPage {
        MetaPage {
            page_size: self.page_size as u32,
            required: self.required_features,
            optional: self.optional_features,
            uuid: self.uuid,
            txn: state.txn,
            page_count: state.page_count,
            catalog: state.catalog,
            free_space: state.free_space,
            free_list: state.free_list,
            next_tree: state.next_tree,
            log: state.log,
        }
    }

    /// What the meta pages hold now.
    pub(crate) fn meta_slots(&self) -> [Slot; 2] {
        let bytes = self.mapping.read_meta_pages();
        meta::probe(|offset, len| {
            let start = usize::try_from(offset).ok()?;
            bytes.get(start..start.checked_add(len)?).map(<[u8]>::to_vec)
        })
        .slots
    }

    /// Makes the writer, and what only writing needs, before the first write transaction; the
    /// caller holds the writer lock.
    ///
    /// A process that was killed may have left the state that this process opens only in the page
    /// cache. It is durable before anything is built on it (R7, R10), or a power loss could bring
    /// an older state back after its pages were reused.
    pub(crate) fn make_writer(&self) -> Result<()> {
        if self.read_only || self.has_writer.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.mapping.is_ready_to_write() {
            let used = self.live.latest().page_count * self.page_size as u64;
            let flushed = self.mapping.flush(FlushKind::Tree, 0, used);
            if let Err(e) = flushed {
                // Nothing was stored yet: a flush that the kernel refuses to begin has lost
                // nothing.
                let refused = refused::is(&e);
                let e = self.flush_error("flushing the file", e);
                if !refused {
                    self.set_poison(&e);
                }
                return Err(e);
            }
            self.mapping.ready_to_write().map_err(|e| match self.mapping.fault() {
                Some(fault) => fault.with_path(self.path()),
                None => Error::io("mapping the file for writing", self.path(), e),
            })?;
        }
        // The writable mapping is out only as long as a writer has it.
        let write_map = self
            .mapping
            .write_map()
            .ok_or_else(|| Error::usage("another write transaction of this database has not ended; end it first"))?;
        let (mapping, path) = (Arc::clone(&self.mapping), Arc::clone(&self.path));
        let pages = TxnPages::new(mapping, write_map, path, self.page_size, Default::default());
        self.return_writer(Box::new(Writer { pages, cache: FreeCache::default(), based_on: TxnId::default() }));
        self.has_writer.store(true, Ordering::Relaxed);
        Ok(())
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

    /// Takes the checkpoint lock.
    pub(crate) fn lock_checkpoint(&self) -> MutexGuard<'_, ()> {
        self.checkpoint_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes further commits impossible (R9). The first cause stays. That a flush has failed is
    /// remembered for the next opening.
    pub(crate) fn set_poison(&self, cause: &Error) {
        best_effort(self.poison.set(cause.to_string()));
        // The kernel keeps the pages of a flush that it refused to begin: only this handle cannot
        // make them durable.
        if let (Some(lock), Error::Io { source, .. }) = (&self.lock, cause) {
            if !refused::is(source) {
                lock.remember_failed_flush();
            }
        }
    }

    /// An error if a flush has failed, or an access to the mapping.
    #[inline]
    pub(crate) fn check_poison(&self) -> Result<()> {
        if self.poison.get().is_none() && !self.mapping.is_faulted() {
            return Ok(());
        }
        Err(self.poisoned())
    }

    #[cold]
    fn poisoned(&self) -> Error {
        let fault = || self.mapping.fault().map(|fault| fault.to_string()).unwrap_or_default();
        let cause = self.poison.get().cloned().unwrap_or_else(fault);
        Error::Poisoned { path: self.path.to_path_buf(), cause }
    }

    /// Whether this is a copy that a child got by `fork` (P22). Its parent goes on with the file
    /// and the lock.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.process != fork::id()
    }

    /// An error in a child that got the database by `fork`.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        match self.is_inherited() {
            false => Ok(()),
            true => Err(self.inherited()),
        }
    }

    #[cold]
    fn inherited(&self) -> Error {
        Error::Inherited { path: Some(self.path.to_path_buf()) }
    }

    /// An error if the file has lost a part of a state, or an access to the mapping has failed.
    pub(crate) fn check_whole(&self, state: &State) -> Result<()> {
        let needed = state.page_count * self.page_size as u64;
        match self.mapping.has_whole(needed) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.fault_or("the file was cut while it was open")),
            Err(e) => Err(Error::io("reading the length", self.path(), e)),
        }
    }

    /// The error of the access that failed.
    #[cold]
    fn fault_or(&self, what: &str) -> Error {
        let unknown = || Error::Fault { path: None, offset: 0, cause: what.to_string() };
        self.mapping.fault().unwrap_or_else(unknown).with_path(self.path())
    }

    /// The states whose pages a writer must not reuse (P7).
    pub(crate) fn live_states(&self) -> LiveStates {
        if hooks::is(Mutant::EarlyReclaim) {
            return LiveStates::new(self.readers.snapshots(), self.live.latest().txn);
        }
        let published = self.live.published_txn();
        hooks::reach(Moment::Reclaiming);
        let mut states = self.readers.snapshots();
        states.push(self.live.durable().txn);
        states.extend(self.live.in_doubt());
        LiveStates::new(states, published)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Env {
    /// What `{:?}` of a public handle shows: path, state, sizes, and a failure. A few loads, which
    /// wait for nothing.
    pub(crate) fn describe(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        let state = self.live.published();
        shown.field("path", &self.path).field("txn", &state.txn.0);
        shown.field("pages", &state.page_count).field("page_size", &self.page_size);
        if let Some(cause) = self.poison.get() {
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

impl Drop for Env {
    fn drop(&mut self) {
        if self.is_inherited() {
            // Cutting would cut the file under the parent, and the registry is that of the child.
            return;
        }
        // The next process to open the file takes one with nothing after its newest state for
        // closed in order: whatever was stored is durable. It has nothing there as long as nobody
        // wrote, and is not touched then.
        let durable = self.live.durable().txn == self.live.latest().txn && self.live.in_doubt().is_none();
        let cut = durable && self.mapping.is_ready_to_write() && self.lock.is_some() && self.check_poison().is_ok();
        if cut {
            // Space beyond the pages in use goes back to the file system. Failing leaves a longer
            // file, nothing worse.
            let len = self.live.latest().page_count * self.page_size as u64;
            best_effort(self.mapping.shrink(len));
        }
        if let Some(lock) = self.lock.take() {
            lock.release();
        }
    }
}
