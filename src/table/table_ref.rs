//! Table handles of write transactions that read.
//!
//! Floor: table. A handle borrows its transaction, and values that it returns borrow the handle.
//! [`TableMut`](crate::TableMut) has one too, and reads by it.
//!
//! Failure: [`Error::Corrupt`] and [`Error::Decode`], with path and table, for a damaged page or an
//! entry that does not decode.

use std::marker::PhantomData;
use std::ops::RangeBounds;

use crate::error::{Error, Result};
use crate::pager::PageRead as _;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{Codec, KeyCodec, Leading, PrefixCodec};
use crate::table::range::ErrorContext;
use crate::table::{decode_entry, decode_value, values_of, EntriesOwned, Range};
use crate::tree;
use crate::txn::write::shared::TableAccess;

/// A table as a write transaction sees it, to read; from
/// [`WriteTxn::read_table`](crate::WriteTxn::read_table). While it lives, the table cannot be
/// opened for writing. [`TableMut`](crate::TableMut) has the same methods.
///
/// ```
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const AGES: Table<&str, u32> = Table::new("ages");
///
/// let txn = db.begin_write()?;
/// assert!(txn.read_table(AGES)?.is_empty());
/// assert!(txn.table_info("ages")?.is_none(), "reading does not make it");
/// txn.table(AGES)?.insert("ada", 36)?;
/// let ages = txn.read_table(AGES)?;
/// assert_eq!(ages.get("ada")?, Some(36));
/// assert_eq!(ages.last()?, Some(("ada", 36)));
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct TableRef<'t, K, V> {
    pub(super) access: TableAccess<'t>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<'t, K, V> TableRef<'t, K, V> {
    pub(super) fn new(access: TableAccess<'t>) -> TableRef<'t, K, V> {
        TableRef { access, types: PhantomData }
    }
}

impl<K: KeyCodec, V: Codec> TableRef<'_, K, V> {
    /// Returns the value of a key.
    ///
    /// # Errors
    /// `Corrupt` if a page on the path, or the value, is damaged; `Decode` if the value does not
    /// decode.
    pub fn get<'k>(&self, key: K::Key<'k>) -> Result<Option<V::Item<'_>>> {
        self.value_of(&K::encode_key(&key)?)
    }

    /// Returns the value of an encoded key.
    pub(super) fn value_of(&self, key: &[u8]) -> Result<Option<V::Item<'_>>> {
        let found = self.access.get(key);
        self.check_fault(found.and_then(|found| found.map(|value| decode_value::<V>(key, value)).transpose()))
    }

    /// Returns the values of many keys, in the order of the keys. A key may occur more than once.
    /// See [`ReadTable::multi_get`](crate::ReadTable::multi_get).
    ///
    /// # Errors
    /// The errors of [`get`](TableRef::get), for the first key that fails.
    pub fn multi_get<'k>(&self, keys: impl IntoIterator<Item = K::Key<'k>>) -> Result<Vec<Option<V::Item<'_>>>> {
        let keys: Vec<K::Key<'k>> = keys.into_iter().collect();
        self.check_fault(values_of::<K, V, _>(self.access.tree(), None, &keys))
    }

    /// Whether the table has a key.
    ///
    /// # Errors
    /// `Corrupt` if a page on the path is damaged.
    pub fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool> {
        let key = K::encode_key(&key)?;
        self.check_fault(self.access.get(&key).map(|found| found.is_some()))
    }

    /// Returns the entries of a range of keys, in order.
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent. The iterator reports damage.
    pub fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Range<'_, K, V>> {
        self.access.check_process()?;
        Ok(self.byte_range(ByteBounds::of::<K>(&range)?))
    }

    /// Returns the entries of a range of keys as owned items. Collect them to keep them while the
    /// table is changed.
    ///
    /// ```
    /// # use mapleaf::{Db, Result, Table};
    /// # let db = Db::in_memory()?;
    /// const AGES: Table<&str, u32> = Table::new("ages");
    ///
    /// let txn = db.begin_write()?;
    /// let mut ages = txn.table(AGES)?;
    /// ages.insert("ada", 36)?;
    /// for (name, age) in ages.range_owned("a".."b")?.collect::<Result<Vec<_>>>()? {
    ///     ages.insert(&name, age + 1)?;
    /// }
    /// assert_eq!(ages.get("ada")?, Some(37));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`range`](TableRef::range). The iterator goes on after an entry that does not decode.
    pub fn range_owned<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<EntriesOwned<'_, K, V>> {
        Ok(EntriesOwned::new(self.range(range)?))
    }

    /// Returns all entries, in order. The iterator reports damage and entries that do not decode.
    pub fn iter(&self) -> Range<'_, K, V> {
        self.byte_range(ByteBounds::ALL)
    }

    /// Returns the entries whose keys begin with a prefix; see [`PrefixCodec`] for the prefixes of
    /// a type.
    ///
    /// # Errors
    /// As [`range`](TableRef::range).
    pub fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<Range<'_, K, V>>
    where
        K: PrefixCodec,
    {
        self.access.check_process()?;
        Ok(self.byte_range(self.prefix_bounds(&K::encode_prefix(&prefix)?)?))
    }

    /// Returns the entries whose keys begin with these components: for keys of the type `(&str,
    /// u16, u64)`, a tuple such as `("t017",)` or `("t017", 5)`.
    ///
    /// # Errors
    /// As [`range`](TableRef::range).
    pub fn starting_with<P>(&self, components: P) -> Result<Range<'_, K, V>>
    where
        K: Leading<P>,
    {
        self.access.check_process()?;
        Ok(self.byte_range(self.prefix_bounds(&K::encode_leading(&components)?)?))
    }

    /// Like [`prefix`](TableRef::prefix), as owned items.
    ///
    /// # Errors
    /// As [`range`](TableRef::range).
    pub fn prefix_owned<'k>(&self, prefix: K::Prefix<'k>) -> Result<EntriesOwned<'_, K, V>>
    where
        K: PrefixCodec,
    {
        Ok(EntriesOwned::new(self.prefix(prefix)?))
    }

    /// Returns the entries whose keys begin with a prefix that lies in a range of prefixes, in
    /// order. See [`ReadTable::prefix_range`](crate::ReadTable::prefix_range).
    ///
    /// # Errors
    /// As [`range`](TableRef::range).
    pub fn prefix_range<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<Range<'_, K, V>>
    where
        K: PrefixCodec,
    {
        self.access.check_process()?;
        Ok(self.byte_range(ByteBounds::of_prefixes::<K>(&range, self.access.tree().root.order)?))
    }

    /// Like [`prefix_range`](TableRef::prefix_range), as owned items.
    ///
    /// # Errors
    /// As [`range`](TableRef::range).
    pub fn prefix_range_owned<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<EntriesOwned<'_, K, V>>
    where
        K: PrefixCodec,
    {
        Ok(EntriesOwned::new(self.prefix_range(range)?))
    }

    /// Returns the entry with the least key.
    ///
    /// # Errors
    /// As [`get`](TableRef::get).
    pub fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
        self.typed(self.access.tree().first())
    }

    /// Returns the entry with the greatest key.
    ///
    /// # Errors
    /// As [`get`](TableRef::get).
    pub fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
        self.typed(self.access.tree().last())
    }

    /// Number of entries. It is stored with the table, so no page is read.
    pub fn len(&self) -> u64 {
        self.access.root().entries
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        self.access.name()
    }

    fn prefix_bounds(&self, prefix: &[u8]) -> Result<ByteBounds> {
        ByteBounds::prefix_in(prefix, self.access.tree().root.order)
    }

    pub(super) fn byte_range(&self, bounds: ByteBounds) -> Range<'_, K, V> {
        let range = tree::Range::new(self.access.tree(), None, bounds.low, bounds.high);
        Range::of_txn(range, ErrorContext { path: self.access.path(), table: self.name() })
    }

    fn typed<'a>(&self, entry: Result<Option<tree::Entry<'a>>>) -> Result<Option<(K::Item<'a>, V::Item<'a>)>> {
        self.check_fault(entry.and_then(|entry| entry.map(decode_entry::<K, V>).transpose()))
    }

    /// Returns `found`, or the error of an access that the kernel could not serve.
    pub(super) fn check_fault<T>(&self, found: Result<T>) -> Result<T> {
        self.access.check_fault(found).map_err(|e| self.locate(e))
    }

    #[cold]
    fn locate(&self, e: Error) -> Error {
        e.with_path(self.access.path()).with_table(self.name())
    }
}

impl<K, V> std::fmt::Debug for TableRef<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableRef").field("name", &self.access.name()).finish()
    }
}
