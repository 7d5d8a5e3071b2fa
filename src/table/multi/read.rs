//! Multimap handles of read transactions, and the methods that all handles share.
//!
//! Floor: table. A handle holds a clone of its transaction and has no lifetime. Items that it
//! returns borrow the handle, except for the owned forms.
//!
//! Failure: as in `table/read.rs`.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use crate::catalog::TableSpec;
use crate::error::{Error, Result};
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{KeyCodec, Leading, PrefixCodec};
use crate::table::multi::range::{OfPages, Source};
use crate::table::multi::{fixed_bytes, MultiRange, MultiTable, PairsOwned, Values, ValuesOwned};
use crate::table::{decode_entry, ReadTable};
use crate::tree::{self, Side, Tree};
use crate::txn::read::snapshot::ReadTxn;

impl ReadTxn {
    /// Opens a multimap table as this transaction sees it. A table that does not exist reads as
    /// empty. A table is given by value or by reference.
    ///
    /// # Errors
    /// `Usage` if the table is no multimap table, or was created with other codecs; `Corrupt` if
    /// the catalog cannot be read.
    pub fn multi_table<K: KeyCodec, V: KeyCodec>(
        &self,
        table: impl Borrow<MultiTable<K, V>>,
    ) -> Result<ReadMultiTable<K, V>> {
        let spec = TableSpec::types("", "").multi(fixed_bytes::<V>());
        ReadTable::open(self, table.borrow().name(), spec, true).map(|table| ReadMultiTable { table })
    }

    /// Opens any multimap table as bytes, whatever its codecs; for tools.
    ///
    /// # Errors
    /// `Usage` if the table is no multimap table, `Corrupt` if the catalog cannot be read.
    pub fn multi_bytes_table(&self, name: &str) -> Result<ReadMultiTable<&'static [u8], &'static [u8]>> {
        ReadTable::open(self, name, TableSpec::multi_bytes(), false).map(|table| ReadMultiTable { table })
    }
}

/// A multimap table as a read transaction sees it. Holds the transaction and has no lifetime. See
/// [`MultiTable`].
///
/// ```
/// # use mapleaf::{Db, MultiTable, Result};
/// # let db = Db::in_memory()?;
/// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
/// db.write(|txn| txn.multi_table(TAGS)?.insert_all([("red", 3), ("red", 7), ("blue", 1)]))?;
///
/// let tags = db.begin_read()?.multi_table(TAGS)?;
/// assert!(tags.contains("red", 7)? && !tags.contains("blue", 7)?);
/// assert_eq!(tags.values("red")?.rev().collect::<Result<Vec<_>>>()?, [7, 3]);
/// assert_eq!(tags.values_range("red", 4..)?.next().transpose()?, Some(7));
/// assert_eq!(tags.prefix("b")?.collect::<Result<Vec<_>>>()?, [("blue", 1)]);
/// assert_eq!(tags.last()?, Some(("red", 7)));
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct ReadMultiTable<K, V> {
    pub(in crate::table) table: ReadTable<K, V>,
}

/// The methods that read, for a handle that has `tree`, `check_process`, `check_fault`,
/// `values_in` and `pairs_in`.
macro_rules! reads {
    () => {
        /// The values of a key, in order. None if the table does not have the key.
        ///
        /// # Errors
        /// `Corrupt` if a page on the path is damaged. The iterator reports other damage.
        pub fn values<'k>(&self, key: K::Key<'k>) -> Result<Values<'_, V>> {
            self.values_in(&K::encode_key(&key)?, Bound::Unbounded, Bound::Unbounded)
        }

        /// The values of a key that lie in a range of values, in order.
        ///
        /// # Errors
        /// As [`values`](Self::values), and `Usage` for a bound that the codec cannot represent.
        pub fn values_range<'k, 'v>(
            &self,
            key: K::Key<'k>,
            range: impl RangeBounds<V::Key<'v>>,
        ) -> Result<Values<'_, V>> {
            let ByteBounds { low, high } = ByteBounds::of::<V>(&range)?;
            self.values_in(&K::encode_key(&key)?, low, high)
        }

        /// Number of values of a key; 0 if the table does not have the key. It is stored with the
        /// key.
        ///
        /// # Errors
        /// `Corrupt` if a page on the path is damaged.
        pub fn count<'k>(&self, key: K::Key<'k>) -> Result<u64> {
            self.check_process()?;
            let count = self.tree().value_count(&K::encode_key(&key)?);
            self.check_fault(count)
        }

        /// Whether a key has a value.
        ///
        /// # Errors
        /// As [`count`](Self::count).
        pub fn contains<'k, 'v>(&self, key: K::Key<'k>, value: V::Key<'v>) -> Result<bool> {
            self.check_process()?;
            let found = self.tree().has_value(&K::encode_key(&key)?, &V::encode_key(&value)?);
            self.check_fault(found)
        }

        /// Whether the table has a key.
        ///
        /// # Errors
        /// As [`count`](Self::count).
        pub fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool> {
            Ok(self.count(key)? > 0)
        }

        /// The pairs of a range of keys, in order.
        ///
        /// # Errors
        /// `Usage` for a bound that the codec cannot represent. The iterator reports damage.
        pub fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<MultiRange<'_, K, V>> {
            self.check_process()?;
            Ok(self.pairs_in(ByteBounds::of::<K>(&range)?))
        }

        /// All pairs, in order. The iterator reports damage and items that do not decode.
        pub fn iter(&self) -> MultiRange<'_, K, V> {
            self.pairs_in(ByteBounds::ALL)
        }

        /// The pairs whose keys begin with a prefix; see [`PrefixCodec`] for the prefixes of a
        /// type.
        ///
        /// # Errors
        /// As [`range`](Self::range).
        pub fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<MultiRange<'_, K, V>>
        where
            K: PrefixCodec,
        {
            self.check_process()?;
            Ok(self.pairs_in(ByteBounds::prefix(&K::encode_prefix(&prefix)?)))
        }

        /// The pairs whose keys begin with these components, as in
        /// [`ReadTable::starting_with`](crate::ReadTable::starting_with).
        ///
        /// # Errors
        /// As [`range`](Self::range).
        pub fn starting_with<P>(&self, components: P) -> Result<MultiRange<'_, K, V>>
        where
            K: Leading<P>,
        {
            self.check_process()?;
            Ok(self.pairs_in(ByteBounds::prefix(&K::encode_leading(&components)?)))
        }

        /// The pairs whose keys begin with a prefix that lies in a range of prefixes, as in
        /// [`ReadTable::prefix_range`](crate::ReadTable::prefix_range).
        ///
        /// # Errors
        /// As [`range`](Self::range).
        pub fn prefix_range<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<MultiRange<'_, K, V>>
        where
            K: PrefixCodec,
        {
            self.check_process()?;
            Ok(self.pairs_in(ByteBounds::of_prefixes::<K>(&range, crate::page::order::Order::Bytewise)?))
        }

        /// The least key with its least value.
        ///
        /// # Errors
        /// As [`count`](Self::count), and `Decode`.
        pub fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
            self.check_process()?;
            let pair = self.tree().outermost_pair(Side::First);
            self.check_fault(pair.and_then(|pair| pair.map(decode_entry::<K, V>).transpose()))
        }

        /// The greatest key with its greatest value.
        ///
        /// # Errors
        /// As [`first`](Self::first).
        pub fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
            self.check_process()?;
            let pair = self.tree().outermost_pair(Side::Last);
            self.check_fault(pair.and_then(|pair| pair.map(decode_entry::<K, V>).transpose()))
        }

        /// Number of pairs. It is stored with the table, so no page is read.
        pub fn len(&self) -> u64 {
            self.tree().root.pairs
        }

        /// Number of keys. It is stored with the table.
        pub fn key_count(&self) -> u64 {
            self.tree().root.entries
        }

        /// Whether there are no pairs.
        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }

        /// The table's name.
        pub fn name(&self) -> &str {
            self.table.name()
        }
    };
}

pub(super) use reads;

impl<K: KeyCodec, V: KeyCodec> ReadMultiTable<K, V> {
    reads!();

    /// The pairs of a range of keys, as items that own their bytes.
    ///
    /// # Errors
    /// As [`range`](ReadMultiTable::range).
    pub fn range_owned<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<PairsOwned<K, V>> {
        self.check_process()?;
        Ok(PairsOwned::new(self.clone(), ByteBounds::of::<K>(&range)?))
    }

    /// Like [`prefix`](ReadMultiTable::prefix), as items that own their bytes.
    ///
    /// # Errors
    /// As [`range`](ReadMultiTable::range).
    pub fn prefix_owned<'k>(&self, prefix: K::Prefix<'k>) -> Result<PairsOwned<K, V>>
    where
        K: PrefixCodec,
    {
        self.check_process()?;
        Ok(PairsOwned::new(self.clone(), ByteBounds::prefix(&K::encode_prefix(&prefix)?)))
    }

    /// The values of a key, as items that own their bytes and hold the transaction.
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable, Result};
    /// # let db = Db::in_memory()?;
    /// const WORDS: MultiTable<u32, &str> = MultiTable::new("words");
    /// db.write(|txn| txn.multi_table(WORDS)?.insert_all([(3, "elm"), (3, "oak"), (5, "maple")]))?;
    ///
    /// let words = db.begin_read()?.multi_table(WORDS)?.values_owned(3)?;
    /// assert_eq!(words.collect::<Result<Vec<String>>>()?, ["elm", "oak"]);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`values`](ReadMultiTable::values).
    pub fn values_owned<'k>(&self, key: K::Key<'k>) -> Result<ValuesOwned<K, V>> {
        self.check_process()?;
        let key = K::encode_key(&key)?.to_vec();
        let bounds = ByteBounds { low: Bound::Included(key.clone()), high: Bound::Included(key) };
        Ok(ValuesOwned::new(PairsOwned::new(self.clone(), bounds)))
    }

    /// The transaction that this handle holds.
    pub fn txn(&self) -> &ReadTxn {
        self.table.txn()
    }

    #[inline]
    fn tree(&self) -> Tree<'_, SnapshotPages> {
        Tree::new(self.table.pages(), self.table.root())
    }

    pub(super) fn check_process(&self) -> Result<()> {
        self.table.txn().check_process()
    }

    #[inline]
    pub(super) fn check_fault<T>(&self, found: Result<T>) -> Result<T> {
        self.table.check_fault(found)
    }

    pub(super) fn locate(&self, e: Error) -> Error {
        self.table.locate(e)
    }

    #[inline]
    fn values_in(&self, key: &[u8], low: Bound<Vec<u8>>, high: Bound<Vec<u8>>) -> Result<Values<'_, V>> {
        self.check_process()?;
        let (key, values) = self.check_fault(self.tree().values_of(key, low, high))?;
        let source = Source::new(OfPages::Snapshot(self.table.pages()), self.table.place());
        Ok(Values { values: OfPages::Snapshot(values), key, source, types: PhantomData })
    }

    fn pairs_in(&self, bounds: ByteBounds) -> MultiRange<'_, K, V> {
        let pairs = tree::Pairs::of(self.table.byte_range(bounds), self.table.root());
        MultiRange::of_snapshot(pairs, self.table.place())
    }

    /// The pairs of a range of keys that lie between two pairs.
    pub(super) fn pairs_between(
        &self,
        bounds: &ByteBounds,
        low: Option<&(Vec<u8>, Vec<u8>)>,
        high: Option<&(Vec<u8>, Vec<u8>)>,
    ) -> Result<tree::Pairs<'_, SnapshotPages>> {
        let after = |value: &Vec<u8>| Bound::Excluded(value.clone());
        let mut bounds = bounds.clone();
        let (mut front, mut back) = (None, None);
        if let Some((key, value)) = low {
            let below = match high {
                Some((last, value)) if last == key => after(value),
                _ => Bound::Unbounded,
            };
            front = Some(self.tree().values_of(key, after(value), below)?);
            bounds.low = after(key);
        }
        if let Some((key, value)) = high {
            if low.is_none_or(|(first, _)| first != key) {
                back = Some(self.tree().values_of(key, Bound::Unbounded, after(value))?);
            }
            bounds.high = after(key);
        }
        let range: tree::Range<'_, SnapshotPages> = self.table.byte_range(bounds);
        Ok(tree::Pairs::between(range, self.table.root(), front, back))
    }
}

impl<K, V> Clone for ReadMultiTable<K, V> {
    fn clone(&self) -> ReadMultiTable<K, V> {
        ReadMultiTable { table: self.table.clone() }
    }
}

impl<K, V> std::fmt::Debug for ReadMultiTable<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadMultiTable").finish_non_exhaustive()
    }
}
