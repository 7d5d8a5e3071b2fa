//! Savepoints and nested transactions: going back inside a write transaction.
//!
//! Floor: txn. Both are a *mark*: the roots, and how far the lists were that grow with the
//! transaction (allocated and freed pages, changed tables, the record for the commit log). To set
//! one copies nothing that grows. What the transaction has written before a mark is frozen, see
//! `pager/write/txn_pages/savepoints.rs`; tables are saved before their first change after it, see
//! `table_set.rs`.
//!
//! A nested transaction is a mark that its guard holds. While it runs, its parent is borrowed. To
//! commit it gives up the mark, to abort it goes back and gives up the mark.
//!
//! Invariants:
//!   NEST-1  `marks` is a stack. To go back to a mark, or to give it up, gives up all after it. A
//!           nested transaction only touches marks after its own.
//!   NEST-2  numbers of marks are unique in the process, so a mark of another transaction is not
//!           mistaken for one of this.
//!   NEST-3  after going back, the tables, their entries, the catalog and the record are those of
//!           the mark. Tree ids and the length of the file may be larger: pages of a tree id that
//!           was given out twice could not be told apart by a salvage.
//!
//! Failure: a transaction that an error of allocating has broken, or an unfinished load or value,
//! can go back to a savepoint and is usable then. Damage, failed accesses and failed writes stay.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::page::meta::TreeRoot;
use crate::pager::write::txn_pages::{is_of_allocating, PageMark};
use crate::txn::env::Writer;
use crate::txn::log::operations::RecordMark;
use crate::txn::write::commit::Durability;
use crate::txn::write::shared::WriteTxn;
use crate::txn::write::table_set::TablesMark;
use crate::txn::write::txn::{writer_of, RunningTxn};

/// A point of a write transaction to which it can go back.
#[derive(Debug)]
pub(super) struct SavedPoint {
    number: u64,
    /// A nested transaction begins here.
    is_nested: bool,
    pages: PageMark,
    record: RecordMark,
    tables: TablesMark,
    catalog: TreeRoot,
    catalog_changed: bool,
    durability: Durability,
}

/// The number of the next mark.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// Whether going back to a savepoint undoes what this error has broken: it came before anything was
/// lost.
pub(super) fn is_undone_by_going_back(e: &Error) -> bool {
    is_of_allocating(e)
}

/// A point of a write transaction, to which [`WriteTxn::rollback_to`] goes back.
///
/// It belongs to its transaction and ends with it. It borrows nothing, and may be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Savepoint {
    number: u64,
}

impl WriteTxn {
    /// Remembers the transaction as it is now. [`rollback_to`](WriteTxn::rollback_to) goes back to
    /// that, any number of times. There may be any number of savepoints, one after the other.
    ///
    /// A savepoint takes about a microsecond, whatever the transaction has changed before. While
    /// there is one, the first change of each page after it copies the page, so give up a savepoint
    /// that is no longer needed ([`release`](WriteTxn::release)). To set one, to go back and to
    /// give one up borrows the transaction exclusively, so table handles and values end before.
    ///
    /// These are the savepoints of SQL. Those of redb also go back to the state of an earlier
    /// transaction; these end with theirs.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const STOCK: Table<&str, u32> = Table::new("stock");
    ///
    /// let mut txn = db.begin_write()?;
    /// txn.table(STOCK)?.insert("pears", 3)?;
    /// let before = txn.savepoint()?;
    /// txn.table(STOCK)?.insert("pears", 0)?;
    /// txn.drop_table("other")?;
    /// txn.rollback_to(&before)?;
    /// assert_eq!(txn.table(STOCK)?.get("pears")?, Some(3));
    /// txn.commit()?;
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` if the transaction is broken by an earlier error; `DiskFull` or `Io` of writing: the
    /// transaction is broken then.
    pub fn savepoint(&mut self) -> Result<Savepoint> {
        self.change(|running| running.push_mark(false)).map(|number| Savepoint { number })
    }

    /// Takes back everything since a savepoint: entries, new, dropped and renamed tables, and the
    /// durability. Their pages are free for what follows. The savepoint stays; those after it are
    /// given up.
    ///
    /// A transaction that a full disk, a refused growth of the file, or a value or load that was
    /// not finished has broken since the savepoint is usable again. After damage (`Corrupt`), a
    /// failed access (`Fault`) or a failed write it is not.
    ///
    /// # Errors
    /// `Usage` for a savepoint of another transaction, for one that was given up, and in a nested
    /// transaction for one from before it: nothing was changed. The first error again if the
    /// transaction stays broken.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        self.change(|running| {
            running.env.check_process()?;
            let at = running.savepoint_at(savepoint)?;
            running.go_back(at)
        })
    }

    /// Gives up a savepoint and those after it, and keeps all changes since. Changes are as fast as
    /// before it afterwards. A commit gives up all savepoints.
    ///
    /// # Errors
    /// `Usage` as for [`rollback_to`](WriteTxn::rollback_to), and if the transaction is broken by
    /// an earlier error.
    pub fn release(&mut self, savepoint: Savepoint) -> Result<()> {
        self.change(|running| {
            running.check_usable()?;
            let at = running.savepoint_at(&savepoint)?;
            running.give_up(at);
            Ok(())
        })
    }

    /// Begins a transaction inside this one, to any depth. [`NestedTxn::commit`] makes its changes
    /// part of this transaction; dropping it takes them back. Nothing becomes durable or visible to
    /// readers before this transaction commits, and no other transaction runs meanwhile. LMDB and
    /// heed (`nested_write_txn`) have the same. Whether this transaction goes on after an error
    /// inside depends on the error: see [`rollback_to`](WriteTxn::rollback_to).
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const STOCK: Table<&str, u32> = Table::new("stock");
    ///
    /// let mut txn = db.begin_write()?;
    /// txn.table(STOCK)?.insert("pears", 3)?;
    /// let mut order = txn.begin_nested()?;
    /// order.table(STOCK)?.insert("pears", 1)?;
    /// let mut gift = order.begin_nested()?;
    /// gift.table(STOCK)?.insert("ribbon", 0)?;
    /// drop(gift);
    /// order.commit()?;
    /// assert_eq!(txn.table(STOCK)?.get("pears")?, Some(1));
    /// assert_eq!(txn.table(STOCK)?.get("ribbon")?, None);
    /// txn.commit()?;
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// The parent cannot be used while a nested transaction runs:
    ///
    /// ```compile_fail,E0499
    /// # let db = mapleaf::Db::in_memory()?;
    /// let mut txn = db.begin_write()?;
    /// let nested = txn.begin_nested()?;
    /// txn.drop_table("stock")?;
    /// nested.commit()?;
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`savepoint`](WriteTxn::savepoint).
    pub fn begin_nested(&mut self) -> Result<NestedTxn<'_>> {
        let number = self.change(|running| running.push_mark(true))?;
        Ok(NestedTxn { txn: self, number })
    }

    /// Runs a closure in a nested transaction, and commits that if the closure returns `Ok`. The
    /// error of the closure takes its changes back, and this transaction goes on.
    ///
    /// ```
    /// # use mapleaf::{Db, Error, Table};
    /// # let db = Db::in_memory()?;
    /// # #[derive(Debug)] enum Refused { SoldOut, Store(Error) }
    /// # impl From<Error> for Refused { fn from(e: Error) -> Refused { Refused::Store(e) } }
    /// const STOCK: Table<&str, u32> = Table::new("stock");
    ///
    /// let mut txn = db.begin_write()?;
    /// let sold = txn.nested(|txn| {
    ///     let mut stock = txn.table(STOCK)?;
    ///     stock.insert("pears", 0)?;
    ///     Err::<(), Refused>(Refused::SoldOut)
    /// });
    /// assert!(matches!(sold, Err(Refused::SoldOut)));
    /// assert!(txn.table(STOCK)?.is_empty());
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin_nested`](WriteTxn::begin_nested) and [`NestedTxn::commit`], and the error
    /// of the closure.
    pub fn nested<T, E: From<Error>>(&mut self, work: impl FnOnce(&mut NestedTxn<'_>) -> Result<T, E>) -> Result<T, E> {
        let mut nested = self.begin_nested()?;
        let done = work(&mut nested)?;
        nested.commit()?;
        Ok(done)
    }
}

impl RunningTxn {
    /// Breaks the transaction, unless it is broken, and for good: no savepoint helps.
    #[cold]
    pub(super) fn break_for_good(&mut self, cause: &str) {
        self.is_beyond_repair = true;
        self.break_off(cause);
    }

    /// Before a commit: gives up all savepoints.
    pub(super) fn end_savepoints(&mut self) -> Result<()> {
        if self.marks.iter().any(|mark| mark.is_nested) {
            return Err(Error::usage(
                "a nested transaction of this transaction was neither committed nor dropped; drop it first",
            ));
        }
        if !self.marks.is_empty() {
            self.give_up(0);
        }
        Ok(())
    }

    fn push_mark(&mut self, is_nested: bool) -> Result<u64> {
        self.check_usable()?;
        let saved = writer_of(&mut self.writer).pages.mark();
        let pages = self.note(None, saved)?;
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        self.marks.push(SavedPoint {
            number,
            is_nested,
            pages,
            record: writer_of(&mut self.writer).record.mark(),
            tables: self.tables.mark(),
            catalog: self.catalog,
            catalog_changed: self.catalog_changed,
            durability: self.durability,
        });
        Ok(number)
    }

    /// The place of a savepoint among the marks, if it may be used.
    fn savepoint_at(&self, savepoint: &Savepoint) -> Result<usize> {
        let at = self.marks.iter().rposition(|mark| mark.number == savepoint.number).ok_or_else(|| {
            Error::usage(
                "the savepoint is not one of this transaction: it was released, or lies after one that was gone back \
                 to, or belongs to another transaction",
            )
        })?;
        match self.marks[at..].iter().any(|mark| mark.is_nested) {
            true => Err(Error::usage(
                "the savepoint was set before this nested transaction began; end the nested transaction first",
            )),
            false => Ok(at),
        }
    }

    /// Goes back to a mark, which stays.
    fn go_back(&mut self, at: usize) -> Result<()> {
        if self.is_beyond_repair {
            return self.check_usable();
        }
        let SavedPoint { pages, record, tables, catalog, catalog_changed, durability, .. } = self.marks[at];
        self.marks.truncate(at + 1);
        let writer = writer_of(&mut self.writer);
        let gone_back = writer.pages.roll_back(&pages);
        writer.record.roll_back(&record);
        self.tables.roll_back(&tables);
        (self.catalog, self.catalog_changed, self.durability) = (catalog, catalog_changed, durability);
        self.is_beyond_repair |= gone_back.is_err() || self.pages().has_lost_writes();
        self.note(None, gone_back)?;
        match self.is_beyond_repair {
            true => self.check_usable(),
            false => {
                self.broken = None;
                Ok(())
            }
        }
    }

    /// The place of the beginning of a nested transaction among the marks.
    fn nested_at(&self, number: u64) -> Option<usize> {
        self.marks.iter().rposition(|mark| mark.number == number)
    }

    /// Gives up a mark and all after it.
    fn give_up(&mut self, at: usize) {
        let before = at.checked_sub(1).map(|before| &self.marks[before]);
        let mark = &self.marks[at];
        let Writer { pages, record, .. } = writer_of(&mut self.writer);
        pages.release_mark(&mark.pages, before.map(|before| &before.pages));
        record.release(&mark.record);
        self.tables.release(&mark.tables, before.map(|before| &before.tables));
        self.marks.truncate(at);
    }
}

/// A write transaction inside another one. [`WriteTxn::begin_nested`] begins it.
///
/// It has all methods of [`WriteTxn`], for tables, savepoints and further nested transactions.
/// [`commit`](NestedTxn::commit) makes its changes part of the parent; dropping it takes them back.
pub struct NestedTxn<'p> {
    txn: &'p mut WriteTxn,
    number: u64,
}

impl NestedTxn<'_> {
    /// Makes the changes part of the parent, whose commit makes them durable and visible.
    ///
    /// # Errors
    /// `Usage` if an earlier error has broken the transaction: its changes are taken back.
    pub fn commit(self) -> Result<()> {
        let number = self.number;
        self.txn.change(|running| {
            running.check_usable()?;
            let at = running.nested_at(number).ok_or_else(|| {
                Error::usage("the nested transaction was replaced by another transaction; use each where it was begun")
            })?;
            if running.marks[at + 1..].iter().any(|mark| mark.is_nested) {
                return Err(Error::usage(
                    "a nested transaction of this nested transaction was neither committed nor dropped; drop it first",
                ));
            }
            running.give_up(at);
            Ok(())
        })
    }

    /// Takes the changes back. Dropping does the same.
    pub fn abort(self) {}
}

impl Drop for NestedTxn<'_> {
    fn drop(&mut self) {
        let running = self.txn.running_mut();
        // After its commit there is no mark.
        let Some(at) = running.nested_at(self.number) else { return };
        if running.env.is_inherited() {
            // In a child after `fork`, the pages belong to the parent process (P22).
            return;
        }
        if let Err(e) = running.go_back(at) {
            // The parent is broken, and its calls name the cause.
            running.break_for_good(&e.to_string());
        }
        running.give_up(at);
    }
}

impl Deref for NestedTxn<'_> {
    type Target = WriteTxn;

    fn deref(&self) -> &WriteTxn {
        self.txn
    }
}

impl DerefMut for NestedTxn<'_> {
    fn deref_mut(&mut self) -> &mut WriteTxn {
        self.txn
    }
}

impl fmt::Debug for NestedTxn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NestedTxn").field("txn", &self.txn).finish()
    }
}
