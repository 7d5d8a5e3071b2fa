//! The database handle, its options, and functions for tools.
//!
//! Floor: db. Thin: the floors below do the work.
//!
//! ```text
//! options   options for opening
//! stats     sizes and counts
//! share     databases in memory that several processes use
//! readers   the live read transactions
//! pins      which states keep how many pages
//! space     pages by table and kind, and the page cache
//! snapshots states that stay readable under a name
//! check     verifies every page, and that each is in use or free
//! compact   copies a state to a new file with full pages
//! recover   goes back to a whole state
//! salvage   copies all readable entries of a damaged file
//! copy      the new file that `compact` and `salvage` fill
//! inspect   decoded meta pages and page headers, for tools
//! ```

pub(crate) mod check;
mod compact;
mod copy;
pub mod inspect;
mod options;
mod pins;
mod readers;
mod recover;
mod salvage;
mod share;
mod snapshots;
mod space;
mod stats;

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::txn::env::Env;
use crate::txn::open;
use crate::txn::read::snapshot::{ReadPool, ReadTxn};
use crate::txn::write::shared::WriteTxn;

pub use check::{CheckReport, Finding};
pub use compact::CompactReport;
pub use options::Options;
pub use readers::ReaderInfo;
pub use recover::{RecoverReport, TableLoss};
pub use salvage::{SalvageReport, SalvagedTable};
pub use share::SharedMemory;
pub use snapshots::SnapshotInfo;
pub use space::{PageCache, Space, TreeSpace};
pub use stats::{MemberInfo, Pin, PinnedBy, Presence, Stats};

/// A database: a handle to a file, or to memory. Cheap to clone, `Send` and `Sync`.
///
/// ```
/// use mapleaf::{Db, Table};
///
/// const USERS: Table<&str, u64> = Table::new("users");
///
/// let dir = tempfile::tempdir()?;
/// let db = Db::open(dir.path().join("app.mapleaf"))?;
/// let txn = db.begin_write()?;
/// txn.table(USERS)?.insert("ada", 1)?;
/// txn.commit()?;
///
/// let txn = db.begin_read()?;
/// assert_eq!(txn.table(USERS)?.get("ada")?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The file is closed when the last handle and the last transaction are dropped. Opening the same
/// file again in one process gives another handle to the same database. Any number of processes may
/// have a database open. They read beside each other, take turns at writing, and share flushes. For
/// that they use a small file beside it, `<name>-lock`; see
/// [`Options::exclusive`](crate::Options::exclusive) for a process that keeps others out.
///
/// A thread that uses a database needs 64 KiB of stack, besides what your own codecs use.
///
/// In a child process after `fork`, every call through an inherited handle or transaction is an
/// [`Error::Inherited`], and dropping one does not affect the parent.
#[derive(Clone)]
pub struct Db {
    pool: Arc<ReadPool>,
    read_only: bool,
}

impl Db {
    /// Opens the database at a path, or creates one if the file does not exist. A file that was
    /// closed cleanly is not changed before the first write transaction.
    ///
    /// # Errors
    /// `NotADatabase`, `NewerVersion`, `EmptyFile`, `Truncated` or `Corrupt` for files that cannot
    /// be used, `Locked` if another process has it open and cannot share it, `Permission`,
    /// `DiskFull` or `Io` from the kernel. A refused file is not changed.
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(path)
    }

    /// Opens an existing database.
    ///
    /// # Errors
    /// As [`open`](Db::open), and `NotFound` if the file does not exist.
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().create(false).open(path)
    }

    /// Creates a database in memory. It behaves like one in a file, and is lost with its last
    /// handle. [`Options::shared_memory`] makes one that several processes use.
    ///
    /// # Errors
    /// `Io` if the kernel refuses memory.
    pub fn in_memory() -> Result<Db> {
        Options::new().in_memory()
    }

    pub(crate) fn of(env: Arc<Env>, read_only: bool) -> Db {
        Db { pool: Arc::new(ReadPool::new(env)), read_only }
    }

    /// Begins a read transaction on the newest committed state. Takes no lock and never waits.
    ///
    /// # Errors
    /// `Poisoned` after a failed flush, until all handles are closed; `Busy` if there are some
    /// eight million read transactions.
    pub fn begin_read(&self) -> Result<ReadTxn> {
        self.pool.begin()
    }

    /// Begins a write transaction. Waits until the previous one has ended. Waiting threads form a
    /// queue. A thread that calls just when the lock is free may pass the queue, unless its first
    /// thread has waited for a millisecond.
    ///
    /// A thread that already has a write transaction on this database would wait for itself
    /// forever: end that transaction first, or use [`try_begin_write`](Db::try_begin_write).
    ///
    /// # Errors
    /// `Usage` for a database that was opened read-only, `Poisoned` after a failed flush, `Corrupt`
    /// if the free space is damaged. The first write transaction prepares the file for writing: it
    /// flushes the file and extends it by a page, which can fail with `Io`, or with `Fault` if the
    /// file was truncated since it was opened.
    pub fn begin_write(&self) -> Result<WriteTxn> {
        self.writable()?;
        self.env().writer_lock.acquire(None);
        WriteTxn::begin(Arc::clone(self.env()))
    }

    /// Begins a write transaction if no other is running; otherwise returns `None`.
    ///
    /// # Errors
    /// As [`begin_write`](Db::begin_write).
    pub fn try_begin_write(&self) -> Result<Option<WriteTxn>> {
        self.begin_write_timeout(Duration::ZERO)
    }

    /// Begins a write transaction; waits for at most `limit` and then returns `None`.
    ///
    /// # Errors
    /// As [`begin_write`](Db::begin_write).
    pub fn begin_write_timeout(&self, limit: Duration) -> Result<Option<WriteTxn>> {
        self.writable()?;
        if !self.env().writer_lock.acquire(Some(limit)) {
            return Ok(None);
        }
        WriteTxn::begin(Arc::clone(self.env())).map(Some)
    }

    /// Runs `read` in a read transaction.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const USERS: Table<&str, u64> = Table::new("users");
    /// assert_eq!(db.read(|txn| Ok(txn.table(USERS)?.len()))?, 0);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read), and what `read` returns. For errors of your own see
    /// [`read_with_error`](Db::read_with_error).
    pub fn read<T>(&self, read: impl FnOnce(&ReadTxn) -> Result<T>) -> Result<T> {
        self.read_with_error(read)
    }

    /// Like [`read`](Db::read), for a `read` that returns errors of another type.
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read), and what `read` returns.
    pub fn read_with_error<T, E: From<Error>>(&self, read: impl FnOnce(&ReadTxn) -> Result<T, E>) -> Result<T, E> {
        read(&self.begin_read()?)
    }

    /// Runs `write` in a write transaction and commits if it returns `Ok`; otherwise changes
    /// nothing.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const USERS: Table<&str, u64> = Table::new("users");
    /// db.write(|txn| {
    ///     let mut users = txn.table(USERS)?;
    ///     users.insert("ada", 1)?;
    ///     users.insert("grace", 2)?;
    ///     Ok(())
    /// })?;
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`begin_write`](Db::begin_write) and of [`WriteTxn::commit`], and the error
    /// that the closure returns: then the transaction is aborted. For an error type of your own see
    /// [`write_with_error`](Db::write_with_error).
    pub fn write<T>(&self, write: impl FnOnce(&mut WriteTxn) -> Result<T>) -> Result<T> {
        self.write_with_error(write)
    }

    /// Like [`write`](Db::write), for a closure that returns errors of another type.
    ///
    /// # Errors
    /// The errors of [`begin_write`](Db::begin_write) and of [`WriteTxn::commit`], and the error
    /// that the closure returns: then the transaction is aborted.
    pub fn write_with_error<T, E: From<Error>>(
        &self,
        write: impl FnOnce(&mut WriteTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut txn = self.begin_write()?;
        let done = write(&mut txn)?;
        txn.commit()?;
        Ok(done)
    }

    /// Returns when every commit that has returned is durable, `Eventual` ones included.
    ///
    /// # Errors
    /// `Poisoned` or `Io` when a flush has failed.
    pub fn sync(&self) -> Result<()> {
        self.env().sync()
    }

    /// Makes the newest visible state durable as a whole, beside writers, so that opening after a
    /// crash has nothing to replay. The database does so by itself: when three quarters of the
    /// commit log are in use, when too many pages are held for the last checkpoint, and when it is
    /// closed.
    ///
    /// # Errors
    /// `Usage` for a database that was opened read-only; `Poisoned` or `Io` when a flush has
    /// failed.
    pub fn checkpoint(&self) -> Result<()> {
        self.writable()?;
        match self.env().file_lock() {
            Some(_) => {
                let made = self.env().checkpoint_beside_writers(false);
                self.env().waiters.wake_tasks();
                made
            }
            None => Ok(()),
        }
    }

    /// The path that the database was opened with; `None` in memory.
    pub fn path(&self) -> Option<&Path> {
        let has_file = self.env().file_lock().is_some() || self.is_scratch();
        has_file.then(|| self.env().path())
    }

    /// Whether nothing that is changed through this handle reaches the file
    /// ([`Options::scratch`]).
    pub fn is_scratch(&self) -> bool {
        self.env().base().is_some()
    }

    /// Whether this handle can only read.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Sets the mode of a file that you make from this database, such as an export, to that of the
    /// database file, and owner and group too if the kernel permits it. The file never gets more
    /// rights than the database. Create it with mode 0600, so that it has no more rights before the
    /// call either. Does nothing for a database in memory.
    ///
    /// # Errors
    /// `Io` or `Permission` from the kernel, also if the file system of `file` has no modes and
    /// gives access to more users.
    pub fn share_rights_with(&self, file: &File) -> Result<()> {
        self.env().check_process()?;
        let Some(lock) = self.env().lock_of_file() else { return Ok(()) };
        let given = lock.rights().and_then(|rights| rights.give_to(file));
        given.map_err(|e| Error::io("giving a file the mode of the database", self.env().path(), e))
    }

    /// Sizes and counts of the newest committed state.
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read), and `Corrupt` if the catalog or the free space cannot be
    /// read.
    pub fn stats(&self) -> Result<Stats> {
        stats::of(&self.begin_read()?)
    }

    /// Counts the pages of the newest committed state, by table and kind, and how full they are.
    ///
    /// Reads each branch and leaf, but no overflow extent: in a file that is not in memory, this
    /// takes about as long as a scan of all tables. [`stats`](Db::stats) reads far less.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const NAMES: Table<u64, &str> = Table::new("names");
    /// db.write(|txn| txn.table(NAMES)?.insert(1, "ada"))?;
    ///
    /// let space = db.space()?;
    /// let names = &space.tables[0];
    /// assert_eq!((names.name.as_str(), names.entries, names.leaf_pages), ("names", 1, 1));
    /// assert!(names.fill(space.page_size) < 0.02);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read), and `Corrupt` for a damaged page; [`check`](Db::check)
    /// then lists all damage.
    pub fn space(&self) -> Result<Space> {
        space::of(&self.begin_read()?)
    }

    /// How much of the file the kernel has in memory, for all processes. The kernel counts its page
    /// cache, so this takes longer the more of the file is in memory.
    ///
    /// # Errors
    /// `Poisoned` after a failed flush, and `Io` from the kernel.
    pub fn page_cache(&self) -> Result<PageCache> {
        space::page_cache(self.env())
    }

    /// The live read transactions of all processes, oldest state first: process, age, state, label,
    /// and how much of the file each keeps from being used again.
    ///
    /// # Errors
    /// As [`stats`](Db::stats).
    pub fn readers(&self) -> Result<Vec<ReaderInfo>> {
        let txn = self.begin_read()?;
        txn.set_label(readers::LISTING);
        readers::of(&txn)
    }

    /// Remarks about the meta pages, as in [`CheckReport::remarks`], without a whole check. During
    /// a commit there may be one about the slot that is being written.
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read).
    pub fn slot_remarks(&self) -> Result<Vec<Finding>> {
        Ok(Finding::of_flaws(&self.begin_read()?.env().meta_slots()))
    }

    /// Verifies the newest committed state: each page is either reachable or free, and each
    /// reachable page is well-formed and matches the checksums in its header and in the pointer to
    /// it.
    ///
    /// Damage is reported as findings, not as an error of the call. Writers are not blocked.
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read).
    pub fn check(&self) -> Result<CheckReport> {
        self.check_with(|_, _| ())
    }

    /// Like [`check`](Db::check), and from time to time calls `progress` with the number of pages
    /// checked and of all pages.
    ///
    /// # Errors
    /// As [`check`](Db::check).
    pub fn check_with(&self, mut progress: impl FnMut(u64, u64)) -> Result<CheckReport> {
        let txn = self.begin_read()?;
        txn.check_fault(Ok(check::check(&txn, &mut progress)))
    }

    pub(crate) fn env(&self) -> &Arc<Env> {
        self.pool.env()
    }

    fn writable(&self) -> Result<()> {
        // Checked before the writer lock: in a child after `fork`, the lock may be held forever by
        // a thread that exists only in the parent.
        self.env().check_process()?;
        if self.read_only {
            return Err(Error::usage(format!(
                "{}: opened read-only; open it for writing to change it",
                self.env().path().display()
            )));
        }
        Ok(())
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Db");
        self.env().describe(&mut shown);
        shown.field("read_only", &self.read_only).finish()
    }
}

/// Opens a file with these options.
fn open_with(path: &Path, spec: &open::OpenSpec) -> Result<Db> {
    let env = open::open(path, spec)?;
    Ok(Db::of(env, spec.read_only))
}
