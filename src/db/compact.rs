//! Compaction: writes one state of a database to a new file with full pages.
//!
//! Floor: db. Reads a snapshot in key order and loads a new database (`Copy`), so pages are
//! filled one after the other and are in key order. Only the list of tables is held in memory:
//! values are copied from one mapping to the other, and write-back starts after each batch. One
//! transaction writes everything, so that no free page is left.
//!
//! Invariants:
//!   COMPACT-1  the new file gets its name only if all tables have as many entries as their records
//!       say, and if the kernel served every read.
//!   COMPACT-2  errors of reading name the database, errors of writing the new file.
//!
//! Failure: damage in the source ends it with `Corrupt`. No file is left after any error.

use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use crate::catalog::TableRecord;
use crate::db::copy::{Copy, Target};
use crate::db::{Db, Options};
use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::mapping::file;
use crate::tree::{self, Tree};
use crate::txn::read::snapshot::ReadTxn;

/// Bytes copied between two calls of the progress callback.
const PROGRESS_BYTES: usize = 1 << 20;
/// Bytes that an entry counts in addition to key and value.
const ENTRY_BYTES: usize = 64;

/// The result of [`Db::compact_to`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactReport {
    /// Bytes per page, of both files.
    pub page_size: u32,
    /// Transaction whose state was copied.
    pub txn: u64,
    /// Tables.
    pub tables: u64,
    /// Entries of all tables.
    pub entries: u64,
    /// Bytes of the state that was copied, free pages included: the length that the file has when
    /// closed.
    pub bytes_before: u64,
    /// Bytes of the new file.
    pub bytes_after: u64,
}

impl Db {
    /// Writes the newest committed state to a new database at `out`, with full pages in key order
    /// and no free pages, so that it is not larger than this one. The file appears complete and
    /// durable, or not at all. Page size, tables, codecs and flags are kept; the new database has
    /// a UUID of its own. The new file gets the mode of this one's, and owner and group too if the
    /// kernel permits it; it never has more rights.
    ///
    /// Compaction uses one read transaction. Writers are not blocked; what they commit meanwhile is
    /// not in the new file, and pages that they free stay pending until it is done. Memory use does
    /// not depend on the size of the database. All values are read, and all checksums verified, as
    /// by any other reader.
    ///
    /// ```
    /// use mapleaf::{Db, Table};
    ///
    /// const NUMBERS: Table<u32, &str> = Table::new("numbers");
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let db = Db::open(dir.path().join("app.mapleaf"))?;
    /// db.write(|txn| {
    ///     let mut numbers = txn.table(NUMBERS)?;
    ///     (0..10_000).rev().try_for_each(|n| numbers.insert(n, "a number").map(drop))
    /// })?;
    ///
    /// let report = db.compact_to(dir.path().join("small.mapleaf"))?;
    /// assert_eq!(report.entries, 10_000);
    /// assert!(report.bytes_after <= report.bytes_before);
    /// let small = Db::open_existing(dir.path().join("small.mapleaf"))?;
    /// assert_eq!(small.begin_read()?.table(NUMBERS)?.len(), 10_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Named snapshots are not copied: to copy the state of one, restore the database to it first.
    ///
    /// # Errors
    /// `Usage` if `out` exists or a table is of a kind that this release does not know, `Corrupt`
    /// for damage, `Fault` if the kernel could not serve an access, `DiskFull`, `Io`, `Permission`
    /// or `NotFound` of writing `out`. No file is left after an error.
    pub fn compact_to(&self, out: impl AsRef<Path>) -> Result<CompactReport> {
        self.compact_to_with(out, |_, _| ControlFlow::Continue(()))
    }

    /// Like [`compact_to`](Db::compact_to), and from time to time calls `progress` with the number
    /// of entries done and of all entries. If it returns `Break`, compaction stops and leaves no
    /// file.
    ///
    /// # Errors
    /// As [`compact_to`](Db::compact_to); `Io` with a source of kind `Interrupted` if `progress`
    /// stopped it.
    pub fn compact_to_with(
        &self,
        out: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<CompactReport> {
        let out = out.as_ref();
        Copy::refuse_existing(self.path(), out)?;
        compact(&self.begin_read()?, out, &mut progress)
    }
}

/// Callback with the number of entries done and of all entries; decides whether to go on.
type Progress<'p> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'p;

fn compact(txn: &ReadTxn, out: &Path, progress: &mut Progress<'_>) -> Result<CompactReport> {
    let page_size = txn.env().page_size;
    let tables = txn.table_records()?;
    // Check all tables before the first one is copied, so that the copy never silently lacks a
    // table.
    tables.iter().try_for_each(|(name, record)| record.known_flags(name).and_then(|()| record.check_order(name)))?;
    let entries = tables.iter().fold(0u64, |sum, (_, record)| sum.saturating_add(record.entries()));
    // A program that opens the source without the SIGBUS handler has a handler of its own, so the
    // copy goes without it too. A database in memory that is not shared never uses the handler.
    let guard = txn.env().mapping.has_fault_guard() || txn.env().lock.is_none();
    let options =
        Options::new().page_size(page_size as u32).fault_guard(guard).key_orders(&txn.env().opened.key_orders);
    let lock = txn.env().lock_of_file();
    let rights = lock.map(|lock| lock.rights().map_err(|e| Error::io("reading the mode", txn.env().path(), e)));
    let copy = Copy::begin(out, options, rights.transpose()?).map_err(|e| e.of_file(out))?;
    let mut compaction = Compaction { txn, out, copy, progress, done: 0, all: entries, untold_bytes: 0 };
    compaction.tell()?;
    for (name, record) in &tables {
        compaction.table(name, record)?;
    }
    compaction.tell()?;
    // The last values were copied after the last call of `check_fault`.
    txn.check_fault(Ok(()))?;
    compaction.copy.finish().map_err(|e| e.of_file(out))?;
    let bytes_after = file::open(out, false)
        .and_then(|new| file::length(&new))
        .map_err(|e| Error::io("reading the length", out, e))?;
    Ok(CompactReport {
        page_size: page_size as u32,
        txn: txn.txn_id(),
        tables: tables.len() as u64,
        entries,
        bytes_before: txn.state().page_count * page_size as u64,
        bytes_after,
    })
}

/// A running compaction.
struct Compaction<'c> {
    txn: &'c ReadTxn,
    out: &'c Path,
    copy: Copy,
    progress: &'c mut Progress<'c>,
    done: u64,
    all: u64,
    /// Bytes copied since the last call of the progress callback.
    untold_bytes: usize,
}

impl Compaction<'_> {
    fn table(&mut self, name: &str, record: &TableRecord) -> Result<()> {
        // An access that the kernel could not serve reads zeros, which look like damage: report the
        // fault instead.
        let damaged = |e: Error| self.txn.check_fault(Err(e)).map_err(|e| e.with_table(name));
        let target = Target::of(name, record);
        self.copy.make_table(&target).map_err(|e| e.of_file(self.out))?;
        let tree = Tree::new(self.txn.pages(), &record.root);
        let copied = match record.root.shape.is_multi() {
            true => self.entries(name, &target, tree::Pairs::new(tree, Bound::Unbounded, Bound::Unbounded))?,
            false => self.entries(name, &target, tree::Range::all(tree))?,
        };
        let expected = record.entries();
        if copied != expected {
            let what = format!("the table has {copied} entries, but its record says {expected}");
            return damaged(Error::corrupt(record.root.ptr.id, what));
        }
        Ok(())
    }

    /// Copies the entries of a table, or the pairs of a multimap. Returns their number.
    fn entries<'a>(
        &mut self,
        name: &str,
        target: &Target,
        entries: impl Iterator<Item = Result<tree::Entry<'a>>>,
    ) -> Result<u64> {
        let txn = self.txn;
        let damaged = |e: Error| txn.check_fault(Err(e)).map_err(|e| e.with_table(name));
        let mut copied = 0u64;
        for entry in entries {
            let (key, value) = txn.check_fault(entry).map_err(|e| e.with_table(name))?;
            match self.copy.append(target, key, value) {
                Ok(true) => {}
                Ok(false) => return damaged(Error::corrupt(PageId::NONE, "an entry is larger than the limit")),
                // Keys out of order are the only `Usage` error that can occur here.
                Err(Error::Usage { .. }) => {
                    return damaged(Error::corrupt(PageId::NONE, "keys are not in ascending order"));
                }
                Err(e) => return Err(e.of_file(self.out)),
            }
            copied += 1;
            self.done += 1;
            self.untold_bytes += ENTRY_BYTES + key.len() + value.len();
            if self.untold_bytes >= PROGRESS_BYTES {
                self.tell()?;
            }
        }
        Ok(copied)
    }

    fn tell(&mut self) -> Result<()> {
        self.untold_bytes = 0;
        match (self.progress)(self.done.min(self.all), self.all) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                let source = io::Error::new(io::ErrorKind::Interrupted, "stopped by the caller");
                Err(Error::Io { op: "compaction", path: self.out.to_path_buf(), source })
            }
        }
    }
}
