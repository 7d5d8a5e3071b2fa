//! Multimap handles of write transactions that read.
//!
//! Floor: table. A handle borrows its transaction, and items that it returns borrow the handle.
//! [`MultiTableMut`](crate::MultiTableMut) has one too, and reads by it.
//!
//! Failure: as in `table/table_ref.rs`.

use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use crate::error::Result;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{KeyCodec, Leading, PrefixCodec};
use crate::table::multi::range::{OfPages, Source};
use crate::table::multi::read::reads;
use crate::table::multi::{CopiedPairs, CopiedValues, MultiRange, Values};
use crate::table::range::ErrorContext;
use crate::table::{decode_entry, TableRef};
use crate::tree::{self, Side, Tree};
use crate::txn::write::shared::TableAccess;

/// A multimap table as a write transaction sees it, to read; from
/// [`WriteTxn::read_multi_table`](crate::WriteTxn::read_multi_table). While it lives, the table
/// cannot be opened for writing. [`MultiTableMut`](crate::MultiTableMut) has the same methods.
pub struct MultiTableRef<'t, K, V> {
    pub(super) table: TableRef<'t, K, V>,
}

impl<K: KeyCodec, V: KeyCodec> MultiTableRef<'_, K, V> {
    reads!();

    /// The pairs of a range of keys as owned items. Collect them to keep them while the table is
    /// changed.
    ///
    /// # Errors
    /// As [`range`](MultiTableRef::range).
    pub fn range_owned<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<CopiedPairs<'_, K, V>> {
        self.range(range).map(CopiedPairs)
    }

    /// Like [`prefix`](MultiTableRef::prefix), as owned items.
    ///
    /// # Errors
    /// As [`range`](MultiTableRef::range).
    pub fn prefix_owned<'k>(&self, prefix: K::Prefix<'k>) -> Result<CopiedPairs<'_, K, V>>
    where
        K: PrefixCodec,
    {
        self.prefix(prefix).map(CopiedPairs)
    }

    /// The values of a key as owned items.
    ///
    /// # Errors
    /// As [`values`](MultiTableRef::values).
    pub fn values_owned<'k>(&self, key: K::Key<'k>) -> Result<CopiedValues<'_, V>> {
        self.values(key).map(CopiedValues)
    }

    fn tree(&self) -> Tree<'_, TableAccess<'_>> {
        self.table.access.tree()
    }

    fn check_process(&self) -> Result<()> {
        self.table.access.check_process()
    }

    fn check_fault<T>(&self, found: Result<T>) -> Result<T> {
        self.table.check_fault(found)
    }

    fn place(&self) -> ErrorContext<'_> {
        ErrorContext { path: self.table.access.path(), table: self.table.access.name() }
    }

    fn values_in(&self, key: &[u8], low: Bound<Vec<u8>>, high: Bound<Vec<u8>>) -> Result<Values<'_, V>> {
        self.check_process()?;
        let (key, values) = self.check_fault(self.tree().values_of(key, low, high))?;
        let source = Source::new(OfPages::Txn(&self.table.access), self.place());
        Ok(Values { values: OfPages::Txn(values), key, source, types: PhantomData })
    }

    fn pairs_in(&self, bounds: ByteBounds) -> MultiRange<'_, K, V> {
        MultiRange::of_txn(tree::Pairs::new(self.tree(), bounds.low, bounds.high), self.place())
    }
}

impl<K, V> std::fmt::Debug for MultiTableRef<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiTableRef").finish_non_exhaustive()
    }
}
