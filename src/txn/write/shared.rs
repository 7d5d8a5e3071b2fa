//! A write transaction, shared by the handles of its tables.
//!
//! Floor: txn. A [`WriteTxn`] gives out handles of several tables at once. Each borrows the
//! transaction, and each operation of a handle borrows the [`RunningTxn`] in it, by a flag that is
//! no lock. No operation runs code of the user (codecs, iterators, readers), so none begins inside
//! another.
//!
//! Bytes that a handle returns borrow the handle and not the [`RunningTxn`]: other tables change
//! meanwhile. This is sound by the leases of the mapping (`mapping/lease.rs`). The part of this
//! file in that argument:
//!   ACCESS-1  all pages of a table are reached through its handles. One handle writes, or any
//!             number read (`handles.rs`). [`TableAccess`] lends bytes as long as it is borrowed. A
//!             [`TableChange`] borrows the handle exclusively, so none of its bytes are borrowed.
//!   ACCESS-2  an operation that failed or panicked half-way breaks the transaction: no later one
//!             changes a page, so a tree that was left half-changed cannot reach pages that change.
//!             After a failure, going back to a savepoint ends that: it borrows the transaction
//!             exclusively, and afterwards no tree is half-changed. After a panic nothing does.
//!   ACCESS-3  a change of the transaction as a whole (drop and rename of a table, going back to a
//!             savepoint, commit) borrows it exclusively, so no handle is in use.
//!
//! Failure: the errors of the operations; `Usage` for a table that is open already.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

use crate::catalog::{TableRecord, TableSpec};
use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::page::meta::TreeRoot;
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::{PageRead, Residency};
use crate::tree::Tree;
use crate::txn::env::Env;
use crate::txn::write::commit::{Durability, PendingCommit};
use crate::txn::write::handles::HandleGuard;
use crate::txn::write::txn::RunningTxn;

/// The error of a transaction in which an operation panicked.
const PANICKED: &str = "an operation panicked";

/// A write transaction. There is one at a time. Readers go on meanwhile, and see its changes only
/// after [`commit`](WriteTxn::commit). Dropping it aborts. `Send`: it may move to another thread.
///
/// Several tables are open at the same time. A value of one table stays borrowed while another
/// table changes:
///
/// ```
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const USERS: Table<u64, &str> = Table::new("users");
/// const IDS: Table<&str, u64> = Table::new("ids");
///
/// let txn = db.begin_write()?;
/// let (mut users, mut ids) = (txn.table(USERS)?, txn.table(IDS)?);
/// users.insert(1, "ada")?;
/// users.insert(2, "grace")?;
/// for entry in users.iter() {
///     let (id, name) = entry?;
///     ids.insert(name, id)?;
/// }
/// txn.commit()?;
/// # Ok::<(), mapleaf::Error>(())
/// ```
///
/// A value ends before its own table changes:
///
/// ```compile_fail,E0502
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const USERS: Table<u64, &str> = Table::new("users");
///
/// let txn = db.begin_write()?;
/// let mut users = txn.table(USERS)?;
/// let name = users.get(1)?;
/// users.insert(1, "ada")?;
/// assert_eq!(name, None);
/// # Ok::<(), mapleaf::Error>(())
/// ```
///
/// and before its transaction ends:
///
/// ```compile_fail,E0505
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const USERS: Table<u64, &str> = Table::new("users");
///
/// let txn = db.begin_write()?;
/// let users = txn.table(USERS)?;
/// let name = users.get(1)?;
/// txn.commit()?;
/// assert_eq!(name, None);
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct WriteTxn {
    env: Arc<Env>,
    running: RefCell<RunningTxn>,
}

// An operation that panics breaks the transaction (ACCESS-2), so a caught panic shows no half-made
// change.
impl UnwindSafe for WriteTxn {}
impl RefUnwindSafe for WriteTxn {}

impl WriteTxn {
    /// Makes everything that this transaction changed durable and visible, or nothing of it.
    ///
    /// Returns when it survives a power loss, or at the level that
    /// [`set_durability`](WriteTxn::set_durability) has set. Transactions that commit at the same
    /// time share their flushes.
    ///
    /// # Errors
    /// `DiskFull`, or `Io` from growing the file: the transaction is aborted, and the database
    /// stays usable. `Fault`: the file was cut or an access failed; nothing was committed; close
    /// the database and open it again. `Poisoned`, or `Io` from a flush: whether the commit
    /// survives is known only after the database was opened again; until then no later commit is
    /// acknowledged.
    pub fn commit(self) -> Result<()> {
        self.running.into_inner().commit()
    }

    /// Commits, and does not wait until the transaction is durable: the handle that is returned
    /// waits. Other transactions can begin meanwhile.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const USERS: Table<&str, u64> = Table::new("users");
    ///
    /// let mut commits = Vec::new();
    /// for (id, name) in (0..).zip(["ada", "grace", "barbara"]) {
    ///     let txn = db.begin_write()?;
    ///     txn.table(USERS)?.insert(name, id)?;
    ///     commits.push(txn.commit_async()?);
    /// }
    /// for commit in commits {
    ///     commit.wait()?;
    /// }
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`commit`](WriteTxn::commit), but for those of the flush that the handle waits for.
    pub fn commit_async(self) -> Result<PendingCommit> {
        self.running.into_inner().commit_async()
    }

    /// Sets what the transaction survives when [`commit`](WriteTxn::commit) returns. Default:
    /// [`Durability::Immediate`].
    ///
    /// ```
    /// # use mapleaf::{Db, Durability, Table};
    /// # let db = Db::in_memory()?;
    /// const HITS: Table<&str, u64> = Table::new("hits");
    ///
    /// let mut txn = db.begin_write()?;
    /// txn.set_durability(Durability::Eventual);
    /// txn.table(HITS)?.insert("/index", 1)?;
    /// txn.commit()?;
    /// db.sync()?;
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn set_durability(&mut self, durability: Durability) {
        self.running.get_mut().durability = durability;
    }

    /// Ends the transaction without a trace. Dropping it does the same.
    pub fn abort(self) {}

    /// The number that this transaction's state will have.
    pub fn txn_id(&self) -> u64 {
        self.running.borrow().basis.latest.txn.next().0
    }

    /// Removes a table with all its entries. Returns whether there was such a table. Its handles
    /// must not be used any more.
    ///
    /// # Errors
    /// `Corrupt`, `DiskFull` or `Io`; the transaction then has to be aborted.
    pub fn drop_table(&mut self, name: &str) -> Result<bool> {
        self.change(|running| running.drop_table(name))
    }

    /// Renames a table. Its handles must not be used any more. A table that has the new name
    /// already stays as it is.
    ///
    /// # Errors
    /// `Usage` if there is no such table, or another one has the new name.
    pub fn rename_table(&mut self, from: &str, to: &str) -> Result<()> {
        self.change(|running| running.rename_table(from, to))
    }

    /// Begins on the latest state. The caller holds the writer lock. If this fails, it releases the
    /// lock.
    pub(crate) fn begin(env: Arc<Env>) -> Result<WriteTxn> {
        let running = RunningTxn::begin(Arc::clone(&env))?;
        Ok(WriteTxn { env, running: RefCell::new(running) })
    }

    /// The transaction without handles, for work inside the crate.
    pub(crate) fn into_running(self) -> RunningTxn {
        self.running.into_inner()
    }

    /// Opens a table for writing, and makes it if it does not exist. Returns its number too.
    pub(crate) fn open_to_write(&self, name: &str, spec: TableSpec<'_>) -> Result<(TableAccess<'_>, usize)> {
        let mut running = self.running.borrow_mut();
        let at = running.open_table(name, spec)?;
        let table = &running.tables[at];
        let (guard, root) = (table.handles.begin_writing()?, table.record.root);
        Ok((TableAccess { txn: self, guard, root }, at))
    }

    /// Opens a table for reading. Does not make it.
    pub(crate) fn open_to_read(&self, name: &str, spec: TableSpec<'_>) -> Result<TableAccess<'_>> {
        let (guard, root) = self.running.borrow_mut().open_to_read(name, spec)?;
        Ok(TableAccess { txn: self, guard, root })
    }

    /// The table record of a table as this transaction sees it.
    pub(crate) fn record_of(&self, name: &str) -> Result<Option<TableRecord>> {
        self.running.borrow_mut().record_of(name)
    }

    /// Names and table records of all tables as this transaction sees them.
    pub(crate) fn table_records(&self) -> Result<Vec<(String, TableRecord)>> {
        self.running.borrow_mut().table_records()
    }

    /// The transaction, for what cannot panic half-way.
    pub(super) fn running_mut(&mut self) -> &mut RunningTxn {
        self.running.get_mut()
    }

    /// Changes the transaction as a whole (ACCESS-3).
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut RunningTxn) -> Result<T>) -> Result<T> {
        let mut operation = Operation { running: self.running.borrow_mut(), table: None, ended: false };
        let done = change(&mut operation.running);
        operation.ended = true;
        done
    }
}

impl fmt::Debug for WriteTxn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.running.try_borrow() {
            Ok(running) => running.fmt(f),
            Err(_) => f.debug_struct("WriteTxn").finish_non_exhaustive(),
        }
    }
}

/// A running operation. It breaks the transaction if it is dropped before it has ended, by a panic
/// (ACCESS-2).
struct Operation<'r> {
    running: RefMut<'r, RunningTxn>,
    /// The table that changes, and where its handle has the root.
    table: Option<(usize, &'r mut TreeRoot)>,
    ended: bool,
}

impl Drop for Operation<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((at, root)) = &mut self.table {
            **root = *self.running.root(*at);
        }
        if !self.ended {
            self.running.break_for_good(PANICKED);
        }
    }
}

/// What every handle of a table has: it reads the table.
pub(crate) struct TableAccess<'t> {
    txn: &'t WriteTxn,
    guard: HandleGuard,
    root: TreeRoot,
}

impl<'t> TableAccess<'t> {
    /// Changes the table with this number, which is the one of this access.
    #[inline]
    pub(crate) fn change(&mut self, at: usize) -> TableChange<'_> {
        TableChange { txn: self.txn, at, root: &mut self.root }
    }

    pub(crate) fn name(&self) -> &str {
        self.guard.name()
    }

    pub(crate) fn path(&self) -> &Path {
        self.txn.env.path()
    }

    pub(crate) fn root(&self) -> &TreeRoot {
        &self.root
    }

    /// Returns an error if this process inherited the transaction through `fork`.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.txn.env.check_process()
    }

    #[inline]
    pub(crate) fn tree<'h>(&'h self) -> Tree<'h, TableAccess<'h>> {
        Tree::new(self, &self.root)
    }

    /// Returns the value of a key.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        match self.get_in_mapping(key) {
            Ok(None) => Ok(self.tree().get(key)?),
            Ok(Some(found)) => Ok(found),
            Err(e) => Err(e),
        }
    }

    /// Like [`TableAccess::get`], with one borrow for the whole lookup. `None` if the value is not
    /// in the mapping.
    #[inline]
    fn get_in_mapping(&self, key: &[u8]) -> Result<Option<Option<&[u8]>>> {
        let running = self.txn.running.borrow();
        let pages = running.pages();
        match Tree::new(pages, &self.root).get(key)? {
            None => Ok(Some(None)),
            Some(value) => Ok(pages.lend(self.guard.lease(), value).map(Some)),
        }
    }

    /// Reads bytes of pages and lends them.
    #[inline]
    fn lend(&self, read: impl for<'p> Fn(&'p TxnPages) -> Result<&'p [u8]>) -> Result<&[u8]> {
        let lend = || {
            let running = self.txn.running.borrow();
            let pages = running.pages();
            Ok::<_, Error>(pages.lend(self.guard.lease(), read(pages)?))
        };
        if let Some(bytes) = lend()? {
            return Ok(bytes);
        }
        self.txn.running.borrow_mut().empty_append_buffer()?;
        lend()?.ok_or_else(|| Error::corrupt(PageId::NONE, "a page is neither in the mapping nor in the append buffer"))
    }
}

impl Residency for TableAccess<'_> {}

impl PageRead for TableAccess<'_> {
    #[inline]
    fn page_size(&self) -> usize {
        self.txn.env.page_size
    }

    #[inline]
    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        self.lend(|pages| pages.page(ptr))
    }

    fn extent(&self, ptr: PagePtr, count: u64) -> Result<&[u8]> {
        self.lend(|pages| pages.extent(ptr, count))
    }

    #[inline]
    fn prefetch(&self, id: PageId, from: usize, bytes: usize) {
        self.txn.running.borrow().pages().prefetch(id, from, bytes);
    }

    #[inline]
    fn all_served(&self) -> bool {
        self.txn.running.borrow().pages().all_served()
    }

    #[cold]
    fn fault(&self) -> Error {
        self.txn.running.borrow().pages().fault()
    }
}

/// The right to change one table.
pub(crate) struct TableChange<'h> {
    txn: &'h WriteTxn,
    at: usize,
    root: &'h mut TreeRoot,
}

impl TableChange<'_> {
    /// Runs an operation, which gets the number of the table.
    #[inline]
    pub(crate) fn run<T>(&mut self, change: impl FnOnce(&mut RunningTxn, usize) -> T) -> T {
        let table = Some((self.at, &mut *self.root));
        let mut operation = Operation { running: self.txn.running.borrow_mut(), table, ended: false };
        let done = change(&mut operation.running, self.at);
        operation.ended = true;
        done
    }

    pub(crate) fn env(&self) -> &Env {
        &self.txn.env
    }
}
