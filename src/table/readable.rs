//! The trait that all table handles have: what read transactions and write transactions can both
//! read.
//!
//! Floor: table. The methods are those of the handles, under the same names.
//!
//! Failure: as the methods of the handles.

use std::ops::RangeBounds;

use crate::error::Result;
use crate::table::codec::{Codec, KeyCodec, Leading, PrefixCodec};
use crate::table::parts::new_seed;
use crate::table::{EntriesOwned, Estimate, Part, Range, ReadTable, SplitPoints, TableMut, TableRef};

/// A table that can be read, in a read transaction or in a write transaction: [`ReadTable`],
/// [`TableRef`] and [`TableMut`]. For functions that take either.
///
/// ```
/// use mapleaf::{Db, ReadableTable, Result, Table};
///
/// const STOCK: Table<&str, u64> = Table::new("stock");
///
/// fn total(stock: &impl ReadableTable<&'static str, u64>) -> Result<u64> {
///     stock.iter().map(|entry| Ok(entry?.1)).sum()
/// }
///
/// let db = Db::in_memory()?;
/// let txn = db.begin_write()?;
/// let mut stock = txn.table(STOCK)?;
/// stock.put_all([("pears", 3), ("plums", 4)])?;
/// assert_eq!(total(&stock)?, 7);
/// drop(stock);
/// assert_eq!(total(&txn.read_table(STOCK)?)?, 7);
/// txn.commit()?;
/// assert_eq!(total(&db.begin_read()?.table(STOCK)?)?, 7);
/// # Ok::<(), mapleaf::Error>(())
/// ```
///
/// No other type can implement it.
pub trait ReadableTable<K: KeyCodec, V: Codec>: sealed::Handle {
    /// As [`ReadTable::get`].
    ///
    /// # Errors
    /// As there.
    fn get<'k>(&self, key: K::Key<'k>) -> Result<Option<V::Item<'_>>>;

    /// As [`ReadTable::multi_get`].
    ///
    /// # Errors
    /// As there.
    fn multi_get<'k>(&self, keys: impl IntoIterator<Item = K::Key<'k>>) -> Result<Vec<Option<V::Item<'_>>>>;

    /// As [`ReadTable::contains_key`].
    ///
    /// # Errors
    /// As there.
    fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool>;

    /// As [`ReadTable::range`].
    ///
    /// # Errors
    /// As there.
    fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Range<'_, K, V>>;

    /// As [`ReadTable::prefix`].
    ///
    /// # Errors
    /// As there.
    fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<Range<'_, K, V>>
    where
        K: PrefixCodec;

    /// As [`ReadTable::prefix_range`].
    ///
    /// # Errors
    /// As there.
    fn prefix_range<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<Range<'_, K, V>>
    where
        K: PrefixCodec;

    /// As [`ReadTable::starting_with`].
    ///
    /// # Errors
    /// As there.
    fn starting_with<P>(&self, components: P) -> Result<Range<'_, K, V>>
    where
        K: Leading<P>;

    /// As [`ReadTable::iter`].
    fn iter(&self) -> Range<'_, K, V>;

    /// As [`ReadTable::first`].
    ///
    /// # Errors
    /// As there.
    fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>>;

    /// As [`ReadTable::last`].
    ///
    /// # Errors
    /// As there.
    fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>>;

    /// As [`ReadTable::split_points`].
    ///
    /// # Errors
    /// As there.
    fn split_points(&self, parts: usize) -> Result<SplitPoints>;

    /// As [`ReadTable::part`].
    fn part(&self, part: &Part) -> Range<'_, K, V>;

    /// As [`ReadTable::estimate_range`].
    ///
    /// # Errors
    /// As there.
    fn estimate_range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Estimate>;

    /// As [`ReadTable::sample_seeded`].
    ///
    /// # Errors
    /// As there.
    fn sample_seeded(&self, count: usize, seed: u64) -> Result<Vec<(K::Item<'_>, V::Item<'_>)>>;

    /// As [`ReadTable::sample`].
    ///
    /// # Errors
    /// As there.
    fn sample(&self, count: usize) -> Result<Vec<(K::Item<'_>, V::Item<'_>)>> {
        self.sample_seeded(count, new_seed())
    }

    /// As [`ReadTable::len`].
    fn len(&self) -> u64;

    /// As [`ReadTable::name`].
    fn name(&self) -> &str;

    /// As [`ReadTable::is_empty`].
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries of [`range`](ReadableTable::range) as owned items.
    ///
    /// # Errors
    /// As there.
    fn range_owned<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<EntriesOwned<'_, K, V>> {
        Ok(EntriesOwned::new(self.range(range)?))
    }

    /// The entries of [`prefix`](ReadableTable::prefix) as owned items.
    ///
    /// # Errors
    /// As there.
    fn prefix_owned<'k>(&self, prefix: K::Prefix<'k>) -> Result<EntriesOwned<'_, K, V>>
    where
        K: PrefixCodec,
    {
        Ok(EntriesOwned::new(self.prefix(prefix)?))
    }

    /// The entries of [`prefix_range`](ReadableTable::prefix_range) as owned items.
    ///
    /// # Errors
    /// As there.
    fn prefix_range_owned<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<EntriesOwned<'_, K, V>>
    where
        K: PrefixCodec,
    {
        Ok(EntriesOwned::new(self.prefix_range(range)?))
    }
}

mod sealed {
    /// A table handle of this crate.
    pub trait Handle {}
}

/// Implements the trait by the methods of a type that the handle is or leads to.
macro_rules! readable {
    ($handle:ty, $methods:ident) => {
        impl<K, V> sealed::Handle for $handle {}

        impl<K: KeyCodec, V: Codec> ReadableTable<K, V> for $handle {
            fn get<'k>(&self, key: K::Key<'k>) -> Result<Option<V::Item<'_>>> {
                $methods::get(self, key)
            }

            fn multi_get<'k>(&self, keys: impl IntoIterator<Item = K::Key<'k>>) -> Result<Vec<Option<V::Item<'_>>>> {
                $methods::multi_get(self, keys)
            }

            fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool> {
                $methods::contains_key(self, key)
            }

            fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Range<'_, K, V>> {
                $methods::range(self, range)
            }

            fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<Range<'_, K, V>>
            where
                K: PrefixCodec,
            {
                $methods::prefix(self, prefix)
            }

            fn prefix_range<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<Range<'_, K, V>>
            where
                K: PrefixCodec,
            {
                $methods::prefix_range(self, range)
            }

            fn starting_with<P>(&self, components: P) -> Result<Range<'_, K, V>>
            where
                K: Leading<P>,
            {
                $methods::starting_with(self, components)
            }

            fn iter(&self) -> Range<'_, K, V> {
                $methods::iter(self)
            }

            fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
                $methods::first(self)
            }

            fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
                $methods::last(self)
            }

            fn split_points(&self, parts: usize) -> Result<SplitPoints> {
                $methods::split_points(self, parts)
            }

            fn part(&self, part: &Part) -> Range<'_, K, V> {
                $methods::part(self, part)
            }

            fn estimate_range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Estimate> {
                $methods::estimate_range(self, range)
            }

            fn sample_seeded(&self, count: usize, seed: u64) -> Result<Vec<(K::Item<'_>, V::Item<'_>)>> {
                $methods::sample_seeded(self, count, seed)
            }

            fn len(&self) -> u64 {
                $methods::len(self)
            }

            fn name(&self) -> &str {
                $methods::name(self)
            }
        }
    };
}

readable!(ReadTable<K, V>, ReadTable);
readable!(TableRef<'_, K, V>, TableRef);
readable!(TableMut<'_, K, V>, TableRef);
