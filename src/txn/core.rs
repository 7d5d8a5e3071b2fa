//! The core of an environment: the fields that a flush or a checkpoint needs.
//!
//! Floor: txn. The environment and its thread share the core, so that the thread does not keep the
//! environment open. Holds the mapping, the live records, the locks, the log file and the poison.
//!
//! Invariants:
//!   CORE-1  once poisoned, nothing is committed or acknowledged (rule R9).
//!
//! Failure: [`Error::Poisoned`] after a failed flush or a failed access to the mapping, until every
//! handle is closed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::error::{best_effort, Error, Result};
use crate::hooks::{self, Mutant};
use crate::ids::TxnId;
use crate::mapping::{LogFile, Mapping};
use crate::page::meta::{LogDescriptor, MetaPage};
use crate::sys::{fork, locks, refused};
use crate::txn::live::{Live, Process};
use crate::txn::locks::{new_env_id, LockName, NamedLock};
use crate::txn::log::lead::Waiters;
use crate::txn::processes::presence::{self, FileLock};
use crate::txn::processes::proof::JoinedMarks;
use crate::txn::state::State;
use crate::txn::write::background::Signal;
use crate::txn::write::held_pages::HeldPages;
use crate::txn::write::writer_lock::WriterLock;

/// The fields of an environment that flushes and checkpoints need.
pub(crate) struct Core {
    pub(crate) path: Arc<PathBuf>,
    pub(crate) page_size: usize,
    pub(crate) uuid: [u8; 16],
    pub(crate) optional_features: u64,
    pub(crate) read_only: bool,
    /// The process that opened the database. A child after `fork` has a copy that it must not use.
    process: u32,
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) live: Live,
    pub(crate) writer_lock: WriterLock,
    pub(crate) checkpoint_lock: NamedLock,
    pub(crate) flush_lock: NamedLock,
    pub(crate) waiters: Waiters,
    /// The log extent that was last used.
    log_file: Mutex<Option<Arc<LogFile>>>,
    /// Requests to the environment's thread.
    pub(crate) signal: Signal,
    /// When a checkpoint is due.
    pub(crate) held_pages: HeldPages,
    /// Nanoseconds that writers have waited for a checkpoint.
    pub(crate) waited_nanos: AtomicU64,
    /// Checkpoints that were made beside writers.
    pub(crate) checkpoints: AtomicU64,
    /// Commits of this environment.
    pub(crate) commits: AtomicU64,
    /// After a log could not be made: no attempt before `commits` has reached this number.
    pub(crate) retry_at: AtomicU64,
    poison: OnceLock<String>,
    /// The requests to drop the page cache that this process has carried out.
    cache_drops: AtomicU64,
    /// Flushes that had not ended when this process joined.
    pub(crate) joined_marks: JoinedMarks,
    /// The presence of this process. `None` for a database in memory of its own.
    pub(crate) lock: Option<FileLock>,
}

impl Core {
    pub(crate) fn new(
        path: PathBuf,
        meta: &MetaPage,
        (read_only, held_pages): (bool, Option<u64>),
        mapping: Mapping,
        (live, lock): (Live, Option<FileLock>),
    ) -> Core {
        let id = new_env_id();
        let between = |byte| lock.as_ref().and_then(|lock| lock.process_lock(byte));
        let own = lock.as_ref().and_then(|lock| lock.member()).map(|(process, _)| process);
        Core {
            path: Arc::new(path),
            page_size: meta.page_size as usize,
            uuid: meta.uuid,
            optional_features: meta.optional,
            read_only,
            process: fork::id(),
            mapping: Arc::new(mapping),
            writer_lock: WriterLock::new(
                id,
                between(locks::WRITER).zip(own).map(|(lock, own)| (lock, live.clone(), own)),
            ),
            checkpoint_lock: NamedLock::new(id, LockName::Checkpoint, between(locks::CHECKPOINT)),
            flush_lock: NamedLock::new(id, LockName::Flush, between(locks::FLUSH)),
            live,
            waiters: Waiters::default(),
            log_file: Mutex::new(None),
            signal: Signal::default(),
            held_pages: HeldPages::new(held_pages),
            waited_nanos: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            retry_at: AtomicU64::new(0),
            poison: OnceLock::new(),
            cache_drops: AtomicU64::new(0),
            joined_marks: JoinedMarks::default(),
            lock,
        }
    }

    /// The meta page that describes a state of this database.
    pub(crate) fn meta_page_of(&self, state: &State) -> MetaPage {
        MetaPage {
            page_size: self.page_size as u32,
            required: state.features,
            optional: self.optional_features,
            uuid: self.uuid,
            txn: state.txn,
            page_count: state.page_count,
            catalog: state.catalog,
            free_space: state.free_space,
            free_list: state.free_list,
            next_tree: state.next_tree,
            log: state.log,
            snapshots: state.snapshots,
        }
    }

    /// Returns the file of a log. Keeps it open for the next call.
    pub(crate) fn log_file(&self, log: &LogDescriptor) -> io::Result<Arc<LogFile>> {
        let page_size = self.page_size as u64;
        let (offset, len) = (log.first.0 * page_size, log.pages * page_size);
        let mut slot = self.log_file.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(file) if file.is_at(offset, len) => Ok(Arc::clone(file)),
            _ => {
                let file = Arc::new(LogFile::of(&self.mapping, offset, len)?);
                *slot = Some(Arc::clone(&file));
                Ok(file)
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes further commits impossible (R9), and remembers for the next opening that a flush has
    /// failed. Of several causes the first one is kept.
    pub(crate) fn set_poison(&self, cause: &Error) {
        if hooks::is(Mutant::PoisonForgotten) {
            return;
        }
        // The kernel keeps the pages of a flush that it refused to begin: only this handle cannot
        // make them durable.
        let failed_flush = matches!(cause, Error::Io { source, .. } if !refused::is(source));
        self.poison_by(cause, failed_flush);
    }

    /// Makes further commits impossible. With `failed_flush`, remembers for the next opening that
    /// the page cache may hold what the disk does not have.
    pub(crate) fn poison_by(&self, cause: &Error, failed_flush: bool) {
        best_effort(self.poison.set(cause.to_string()));
        if let Some(lock) = self.lock.as_ref().filter(|_| failed_flush) {
            lock.remember_failed_flush();
        }
        // After the attribute, so that no process sees this, closes, and leaves a file without it.
        self.live.set_poison(&cause.to_string(), failed_flush);
        self.waiters.wake(TxnId(u64::MAX));
        self.live.wake_processes();
    }

    /// Releases the writer lock, then wakes the tasks that became due while it was held.
    pub(crate) fn release_writer(&self) {
        self.writer_lock.release();
        self.waiters.wake_tasks();
    }

    /// Makes commits impossible, without saying that a flush has failed.
    pub(crate) fn abandon(&self, cause: &Error) {
        best_effort(self.poison.set(cause.to_string()));
    }

    /// The error that poisoned the database, if one has.
    pub(crate) fn poison(&self) -> Option<&String> {
        self.poison.get()
    }

    /// Unmaps all pages, if another process has asked for it since the last call: it wants to drop
    /// large folios from the page cache, which no process may have mapped.
    #[inline]
    pub(crate) fn heed_cache_drops(&self) {
        let asked = self.live.cache_drops();
        if asked != self.cache_drops.load(Ordering::Relaxed) {
            self.cache_drops.store(asked, Ordering::Relaxed);
            self.mapping.release_all();
        }
    }

    /// Drops the page cache, and asks the other processes to unmap their pages before the next
    /// attempt.
    pub(crate) fn drop_cache(&self) {
        self.mapping.drop_cache();
        self.live.ask_for_cache_drop();
    }

    /// The presence of this process in a file. `None` for a database in memory.
    pub(crate) fn file_lock(&self) -> Option<&FileLock> {
        self.lock.as_ref().filter(|lock| !lock.is_in_memory())
    }

    /// Whether this process shares the database with others, or may.
    pub(crate) fn is_member(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.member().is_some())
    }

    /// The other members that are alive.
    pub(crate) fn other_processes(&self) -> Vec<Process> {
        let Some(lock) = &self.lock else { return Vec::new() };
        let Some((own, _)) = lock.member() else { return Vec::new() };
        let is_other = |process: &Process| process.index != own.index && lock.descriptor().is_alive(process.index);
        self.live.processes().filter(is_other).collect()
    }

    /// Returns an error if a flush or an access to the mapping has failed.
    #[inline]
    pub(crate) fn check_poison(&self) -> Result<()> {
        let shared = self.live.is_poisoned() || self.live.is_damaged();
        if self.poison.get().is_none() && !self.mapping.is_faulted() && !shared {
            return Ok(());
        }
        Err(self.poisoned())
    }

    #[cold]
    fn poisoned(&self) -> Error {
        let fault = || self.mapping.fault().map(|fault| fault.to_string()).unwrap_or_default();
        let mut cause = match self.poison.get() {
            Some(cause) => cause.clone(),
            None if self.mapping.is_faulted() => fault(),
            None if self.live.is_damaged() => {
                "the live records were overwritten, or the lock file was cut, while the database was open".into()
            }
            None => self.live.poison_cause(),
        };
        if let (others, Some(lock)) = (self.other_processes(), &self.lock) {
            if !others.is_empty() {
                cause = format!("{cause}; {}", presence::describe_others(&others, lock.id()));
            }
        }
        Error::Poisoned { path: self.path.to_path_buf(), cause }
    }

    /// Whether this process is a child that got the database by `fork` (P22). Its parent goes on
    /// using the file and the lock.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.process != fork::id()
    }

    /// Returns an error in a child that got the database by `fork`.
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

    /// Returns an error if the file has lost a part of a state, or an access to the mapping has
    /// failed.
    pub(crate) fn check_whole(&self, state: &State) -> Result<()> {
        let needed = state.page_count * self.page_size as u64;
        match self.mapping.has_whole(needed) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.fault_or("the file was cut while it was open")),
            Err(e) => Err(Error::io("reading the length", self.path(), e)),
        }
    }

    /// Returns the error of the access that failed; without one, an error with this cause.
    #[cold]
    fn fault_or(&self, what: &str) -> Error {
        let unknown = || Error::Fault { path: None, offset: 0, cause: what.to_string() };
        self.mapping.fault().unwrap_or_else(unknown).with_path(self.path())
    }

    /// Returns the error of a failed flush. It is always `Io`: `DiskFull` would say that the
    /// transaction was aborted and the database goes on (R9).
    pub(crate) fn flush_error(&self, op: &'static str, source: io::Error) -> Error {
        Error::Io { op, path: self.path.to_path_buf(), source }
    }

    /// Returns the error of a commit that may or may not be found when the file is opened again.
    pub(crate) fn not_known(&self, cause: &Error) -> Error {
        Error::Poisoned { path: self.path.to_path_buf(), cause: cause.to_string() }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("path", &self.path).field("live", &self.live).finish_non_exhaustive()
    }
}
