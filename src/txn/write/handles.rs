//! The handles of one table of a write transaction: any number that read, or one that writes.
//!
//! Floor: txn. The compiler cannot see which table a handle opens, because its name is a value. So
//! the handles of each table are counted when the program runs. A [`HandleGuard`] counts as a
//! handle until it is dropped. It owns its part of the count and borrows nothing, so a handle that
//! the program does not use any more does not keep the transaction from being committed.
//!
//! Invariants:
//!   HANDLE-1  while a guard that writes exists, its table has no other guard.
//!
//! Failure: `Usage`, which names the table.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mapping::Lease;

/// In place of the number of reading handles: a handle writes.
const WRITING: u32 = u32::MAX;

/// What the handles of a table share.
#[derive(Debug)]
pub(crate) struct TableHandles {
    name: Box<str>,
    lease: Lease,
    /// The number of handles that read, or [`WRITING`].
    ///
    /// An atomic, because a handle that is no longer used may be dropped after the transaction has
    /// moved to another thread.
    open: AtomicU32,
}

impl TableHandles {
    pub(crate) fn new(name: &str, lease: Lease) -> Arc<TableHandles> {
        Arc::new(TableHandles { name: name.into(), lease, open: AtomicU32::new(0) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Counts the one handle that writes.
    pub(crate) fn begin_writing(self: &Arc<Self>) -> Result<HandleGuard> {
        match self.open.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(HandleGuard { table: Arc::clone(self), writes: true }),
            Err(open) => Err(self.is_open(open, "writing")),
        }
    }

    /// Counts one more handle that reads.
    pub(crate) fn begin_reading(self: &Arc<Self>) -> Result<HandleGuard> {
        let one_more = |open: u32| open.checked_add(1).filter(|&open| open != WRITING);
        match self.open.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(HandleGuard { table: Arc::clone(self), writes: false }),
            Err(open) => Err(self.is_open(open, "reading")),
        }
    }

    /// Returns an error if a handle is open.
    pub(crate) fn check_unused(&self) -> Result<()> {
        match self.open.load(Ordering::Acquire) {
            0 => Ok(()),
            open => Err(self.is_open(open, "writing")),
        }
    }

    #[cold]
    fn is_open(&self, open: u32, to: &str) -> Error {
        let (has, ways) =
            if open == WRITING { ("writing", "drop that handle first") } else { ("reading", "drop its handles first") };
        Error::usage(format!(
            "table '{}' is open for {has} in this transaction and cannot be opened for {to} at the same time; {ways}",
            self.name
        ))
    }
}

/// Counts as a handle of a table until it is dropped.
#[derive(Debug)]
pub(crate) struct HandleGuard {
    table: Arc<TableHandles>,
    writes: bool,
}

impl HandleGuard {
    pub(crate) fn name(&self) -> &str {
        &self.table.name
    }

    #[inline]
    pub(crate) fn lease(&self) -> &Lease {
        &self.table.lease
    }
}

impl Drop for HandleGuard {
    #[inline]
    fn drop(&mut self) {
        // Release: the next handle, perhaps in another thread, opens after this one was dropped.
        match self.writes {
            true => self.table.open.store(0, Ordering::Release),
            false => drop(self.table.open.fetch_sub(1, Ordering::Release)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_writing_handle_or_any_number_of_reading_ones() {
        let table = TableHandles::new("t", Lease::default());
        let text = |result: Result<HandleGuard>| result.expect_err("open").to_string();
        let writing = table.begin_writing().expect("unused");
        assert!(text(table.begin_writing()).contains("table 't' is open for writing"));
        assert!(text(table.begin_reading()).contains("table 't' is open for writing"));
        assert!(table.check_unused().is_err());
        drop(writing);
        let reading = [table.begin_reading().expect("unused"), table.begin_reading().expect("only read")];
        assert!(text(table.begin_writing()).contains("table 't' is open for reading"));
        let [first, second] = reading;
        drop(first);
        assert!(table.begin_writing().is_err(), "one handle reads");
        drop(second);
        assert!(table.check_unused().is_ok());
        assert!(table.begin_writing().is_ok());
    }
}
