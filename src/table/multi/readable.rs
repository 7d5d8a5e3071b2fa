//! The trait that all multimap handles have: what read transactions and write transactions can both
//! read.
//!
//! Floor: table. The methods are those of the handles, under the same names.
//!
//! Failure: as the methods of the handles.

use std::ops::RangeBounds;

use crate::error::Result;
use crate::table::codec::{KeyCodec, Leading, PrefixCodec};
use crate::table::multi::{
    CopiedPairs, CopiedValues, MultiRange, MultiTableMut, MultiTableRef, ReadMultiTable, Values,
};

/// A multimap table that can be read, in a read transaction or in a write transaction:
/// [`ReadMultiTable`], [`MultiTableRef`] and [`MultiTableMut`]. For functions that take either.
///
/// ```
/// use mapleaf::{Db, MultiTable, ReadableMultiTable, Result};
///
/// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
///
/// fn total(tags: &impl ReadableMultiTable<&'static str, u64>, tag: &str) -> Result<u64> {
///     tags.values(tag)?.sum()
/// }
///
/// let db = Db::in_memory()?;
/// let txn = db.begin_write()?;
/// txn.multi_table(TAGS)?.insert_all([("red", 3), ("red", 4)])?;
/// assert_eq!(total(&txn.read_multi_table(TAGS)?, "red")?, 7);
/// txn.commit()?;
/// assert_eq!(total(&db.begin_read()?.multi_table(TAGS)?, "red")?, 7);
/// # Ok::<(), mapleaf::Error>(())
/// ```
///
/// No other type can implement it.
pub trait ReadableMultiTable<K: KeyCodec, V: KeyCodec>: sealed::Handle {
    /// As [`ReadMultiTable::values`].
    ///
    /// # Errors
    /// As there.
    fn values<'k>(&self, key: K::Key<'k>) -> Result<Values<'_, V>>;

    /// As [`ReadMultiTable::values_range`].
    ///
    /// # Errors
    /// As there.
    fn values_range<'k, 'v>(&self, key: K::Key<'k>, range: impl RangeBounds<V::Key<'v>>) -> Result<Values<'_, V>>;

    /// As [`ReadMultiTable::count`].
    ///
    /// # Errors
    /// As there.
    fn count<'k>(&self, key: K::Key<'k>) -> Result<u64>;

    /// As [`ReadMultiTable::contains`].
    ///
    /// # Errors
    /// As there.
    fn contains<'k, 'v>(&self, key: K::Key<'k>, value: V::Key<'v>) -> Result<bool>;

    /// As [`ReadMultiTable::contains_key`].
    ///
    /// # Errors
    /// As there.
    fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool>;

    /// As [`ReadMultiTable::range`].
    ///
    /// # Errors
    /// As there.
    fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<MultiRange<'_, K, V>>;

    /// As [`ReadMultiTable::prefix`].
    ///
    /// # Errors
    /// As there.
    fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<MultiRange<'_, K, V>>
    where
        K: PrefixCodec;

    /// As [`ReadMultiTable::prefix_range`].
    ///
    /// # Errors
    /// As there.
    fn prefix_range<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<MultiRange<'_, K, V>>
    where
        K: PrefixCodec;

    /// As [`ReadMultiTable::starting_with`].
    ///
    /// # Errors
    /// As there.
    fn starting_with<P>(&self, components: P) -> Result<MultiRange<'_, K, V>>
    where
        K: Leading<P>;

    /// As [`ReadMultiTable::iter`].
    fn iter(&self) -> MultiRange<'_, K, V>;

    /// As [`ReadMultiTable::first`].
    ///
    /// # Errors
    /// As there.
    fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>>;

    /// As [`ReadMultiTable::last`].
    ///
    /// # Errors
    /// As there.
    fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>>;

    /// As [`ReadMultiTable::len`].
    fn len(&self) -> u64;

    /// As [`ReadMultiTable::key_count`].
    fn key_count(&self) -> u64;

    /// As [`ReadMultiTable::name`].
    fn name(&self) -> &str;

    /// As [`ReadMultiTable::is_empty`].
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pairs of [`range`](ReadableMultiTable::range) as owned items.
    ///
    /// # Errors
    /// As there.
    fn range_owned<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<CopiedPairs<'_, K, V>> {
        self.range(range).map(CopiedPairs)
    }

    /// The pairs of [`prefix`](ReadableMultiTable::prefix) as owned items.
    ///
    /// # Errors
    /// As there.
    fn prefix_owned<'k>(&self, prefix: K::Prefix<'k>) -> Result<CopiedPairs<'_, K, V>>
    where
        K: PrefixCodec,
    {
        self.prefix(prefix).map(CopiedPairs)
    }

    /// The values of [`values`](ReadableMultiTable::values) as owned items.
    ///
    /// # Errors
    /// As there.
    fn values_owned<'k>(&self, key: K::Key<'k>) -> Result<CopiedValues<'_, V>> {
        self.values(key).map(CopiedValues)
    }
}

mod sealed {
    /// A multimap handle of this crate.
    pub trait Handle {}
}

/// Implements the trait by the methods of a type that the handle is or leads to.
macro_rules! readable {
    ($handle:ty, $methods:ident) => {
        impl<K, V> sealed::Handle for $handle {}

        impl<K: KeyCodec, V: KeyCodec> ReadableMultiTable<K, V> for $handle {
            fn values<'k>(&self, key: K::Key<'k>) -> Result<Values<'_, V>> {
                $methods::values(self, key)
            }

            fn values_range<'k, 'v>(
                &self,
                key: K::Key<'k>,
                range: impl RangeBounds<V::Key<'v>>,
            ) -> Result<Values<'_, V>> {
                $methods::values_range(self, key, range)
            }

            fn count<'k>(&self, key: K::Key<'k>) -> Result<u64> {
                $methods::count(self, key)
            }

            fn contains<'k, 'v>(&self, key: K::Key<'k>, value: V::Key<'v>) -> Result<bool> {
                $methods::contains(self, key, value)
            }

            fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool> {
                $methods::contains_key(self, key)
            }

            fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<MultiRange<'_, K, V>> {
                $methods::range(self, range)
            }

            fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<MultiRange<'_, K, V>>
            where
                K: PrefixCodec,
            {
                $methods::prefix(self, prefix)
            }

            fn prefix_range<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<MultiRange<'_, K, V>>
            where
                K: PrefixCodec,
            {
                $methods::prefix_range(self, range)
            }

            fn starting_with<P>(&self, components: P) -> Result<MultiRange<'_, K, V>>
            where
                K: Leading<P>,
            {
                $methods::starting_with(self, components)
            }

            fn iter(&self) -> MultiRange<'_, K, V> {
                $methods::iter(self)
            }

            fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
                $methods::first(self)
            }

            fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
                $methods::last(self)
            }

            fn len(&self) -> u64 {
                $methods::len(self)
            }

            fn key_count(&self) -> u64 {
                $methods::key_count(self)
            }

            fn name(&self) -> &str {
                $methods::name(self)
            }
        }
    };
}

readable!(ReadMultiTable<K, V>, ReadMultiTable);
readable!(MultiTableRef<'_, K, V>, MultiTableRef);
readable!(MultiTableMut<'_, K, V>, MultiTableRef);
