//! The database handle, its options, and what tools look at.
//!
//! Floor: db. Thin: everything that needs care is a floor below.
//!
//! ```text
//! options   how to open
//! stats     sizes and counts
//! check     every page accounted for and verified
//! compact   a new file with full pages
//! recover   going back to a whole state
//! salvage   copying what can be read
//! copy      the new file that compact and salvage fill
//! inspect   pages and meta pages as text and numbers, for tools
//! ```

pub(crate) mod check;
mod compact;
mod copy;
pub mod inspect;
mod options;
mod recover;
mod salvage;
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
use crate::txn::write::txn::WriteTxn;

pub use check::{CheckReport, Finding};
pub use compact::CompactReport;
pub use options::Options;
pub use recover::{RecoverReport, TableLoss};
pub use salvage::{SalvageReport, SalvagedTable};
pub use stats::Stats;

/// A database: a handle to a file, or to memory. Cheap to clone, `Send` and `Sync`.
///
/// ```
/// use mapleaf::{Db, Table};
///
/// const USERS: Table<&str, u64> = Table::new("users");
///
/// let dir = tempfile::tempdir()?;
/// let db = Db::open(dir.path().join("app.mapleaf"))?;
/// let mut txn = db.begin_write()?;
/// txn.table(USERS)?.insert("ada", 1)?;
/// txn.commit()?;
///
/// let txn = db.begin_read()?;
/// assert_eq!(txn.table(USERS)?.get("ada")?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The file is closed when the last handle and the last transaction are gone. Opening the same file
/// again in one process gives another handle to the same database. Among processes, one may have a
/// database open for writing, or any number read-only; the others get [`Error::Locked`] at
/// once.
///
/// A thread that uses a database needs a stack of 64 KiB, besides what codecs of your own take.
///
/// In a child after `fork`, every call through a handle or transaction that it inherited is an
/// [`Error::Inherited`], and dropping one frees nothing of the parent's.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    pool: ReadPool,
    read_only: bool,
}

impl Db {
    /// Opens the database at a path, or makes one where there is no file. A database that was
    /// closed in order is not changed before the first write transaction.
    ///
    /// # Errors
    /// `NotADatabase`, `NewerVersion`, `EmptyFile`, `Truncated` or `Corrupt` for files that cannot
    /// be used, `Locked` when another process has it open, `Permission`, `DiskFull` or `Io` from
    /// the kernel. A refused file is not changed.
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(path)
    }

    /// Opens a database that exists.
    ///
    /// # Errors
    /// As [`open`](Db::open), and `NotFound` where there is no file.
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().create(false).open(path)
    }

    /// Makes a database in memory. It behaves like one in a file and is gone with its last handle.
    ///
    /// # Errors
    /// `Io` when the kernel gives no memory.
    pub fn in_memory() -> Result<Db> {
        Options::new().in_memory()
    }

    pub(crate) fn of(env: Arc<Env>, read_only: bool) -> Db {
        Db { inner: Arc::new(Inner { pool: ReadPool::new(env), read_only }) }
    }

    /// Begins to read the newest committed state. Takes no lock and never waits.
    ///
    /// # Errors
    /// `Poisoned` after a failed flush, until all handles are closed; `Busy` with some four million
    /// read transactions.
    pub fn begin_read(&self) -> Result<ReadTxn> {
        self.inner.pool.begin()
    }

    /// Begins to write; waits until the transaction before has ended. Waiting callers are
    /// served in order.
    ///
    /// A thread that already has a write transaction of this database would wait for itself, for
    /// ever: end it first, or use [`try_begin_write`](Db::try_begin_write).
    ///
    /// # Errors
    /// `Usage` for a database that was opened read-only, `Poisoned` after a failed flush, `Corrupt`
    /// if the free space is damaged. The first one of a database brings what only writing needs: it
    /// flushes the file and makes it longer by a page, with `Io` where that fails, and `Fault` for
    /// a file that was cut since it was opened.
    pub fn begin_write(&self) -> Result<WriteTxn> {
        self.writable()?;
        self.env().writer_lock.acquire(None);
        WriteTxn::begin(Arc::clone(self.env()))
    }

    /// Begins to write if nobody else does; `None` otherwise.
    ///
    /// # Errors
    /// As [`begin_write`](Db::begin_write).
    pub fn try_begin_write(&self) -> Result<Option<WriteTxn>> {
        self.begin_write_timeout(Duration::ZERO)
    }

    /// Begins to write; waits for at most `limit`. `None` when that was not enough.
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

    /// Runs `write` in a write transaction, and commits if it returns `Ok`; otherwise nothing is
    /// changed.
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
    /// As [`begin_write`](Db::begin_write) and [`WriteTxn::commit`], and what `write` returns. For
    /// errors of your own see
    /// [`write_with_error`](Db::write_with_error).
    pub fn write<T>(&self, write: impl FnOnce(&mut WriteTxn) -> Result<T>) -> Result<T> {
        self.write_with_error(write)
    }

    /// Like [`write`](Db::write), for a `write` that returns errors of another type.
    ///
    /// # Errors
    /// As [`begin_write`](Db::begin_write) and [`WriteTxn::commit`], and what `write` returns.
    pub fn write_with_error<T, E: From<Error>>(
        &self,
        write: impl FnOnce(&mut WriteTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut txn = self.begin_write()?;
        let done = write(&mut txn)?;
        txn.commit()?;
        Ok(done)
    }

    /// The path that the database was opened with; `None` in memory.
    pub fn path(&self) -> Option<&Path> {
        self.env().lock.as_ref().map(|_| self.env().path())
    }

    /// Whether this handle can only read.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// Gives a file that you make from this database, such as an export, the mode of the database's
    /// file, and owner and group where the kernel permits. It never gets more rights than the
    /// database. Make the file with mode 0600, so that it has no more before the call either. For a
    /// database in memory, which has no mode, nothing is done.
    ///
    /// # Errors
    /// `Io` or `Permission` from the kernel, also where the file system of `file` keeps no modes
    /// and lets more users in.
    pub fn share_rights_with(&self, file: &File) -> Result<()> {
        self.env().check_process()?;
        let Some(lock) = &self.env().lock else { return Ok(()) };
        let given = lock.rights().and_then(|rights| rights.give_to(file));
        given.map_err(|e| Error::io("giving a file the mode of the database", self.env().path(), e))
    }

    /// Sizes and counts of the newest committed state.
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read), and `Corrupt` when the catalog or the free space cannot
    /// be read.
    pub fn stats(&self) -> Result<Stats> {
        stats::of(&self.begin_read()?)
    }

    /// What is noted of the meta pages, as in [`CheckReport::remarks`], without the walk of a
    /// check. During a commit the slot that is written may be noted.
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read).
    pub fn slot_remarks(&self) -> Result<Vec<Finding>> {
        Ok(Finding::of_flaws(&self.begin_read()?.env().meta_slots()))
    }

    /// Walks everything in the newest committed state: each page is reachable or free, none is
    /// both, and each that is reachable is in order and verifies against the checksums in itself
    /// and in the pointer to it.
    ///
    /// Damage is reported as findings and is no error of the call. Writers go on meanwhile.
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read).
    pub fn check(&self) -> Result<CheckReport> {
        self.check_with(|_, _| ())
    }

    /// Like [`check`](Db::check), and tells `progress` from time to time how many pages are done,
    /// and of how many.
    ///
    /// # Errors
    /// As [`check`](Db::check).
    pub fn check_with(&self, mut progress: impl FnMut(u64, u64)) -> Result<CheckReport> {
        let txn = self.begin_read()?;
        txn.check_fault(Ok(check::check(&txn, &mut progress)))
    }

    pub(crate) fn env(&self) -> &Arc<Env> {
        self.inner.pool.env()
    }

    fn writable(&self) -> Result<()> {
        // Before the writer lock, which a thread of the parent may hold for ever in a child's copy.
        self.env().check_process()?;
        if self.inner.read_only {
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
        shown.field("read_only", &self.inner.read_only).finish()
    }
}

/// Opens a file with what [`Options`] collected.
fn open_with(path: &Path, spec: &open::OpenSpec) -> Result<Db> {
    let env = open::open(path, spec)?;
    Ok(Db::of(env, spec.read_only))
}
