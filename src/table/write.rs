//! Table handles of write transactions.
//!
//! Floor: table. A handle borrows its transaction mutably, and values that it returns borrow the
//! handle. So a value cannot be changed while it is borrowed.
//!
//! Failure: [`Error::TooLarge`] and usage errors change nothing. After any other error the
//! transaction can only be aborted, and its calls return an error that says so.

use std::marker::PhantomData;
use std::ops::RangeBounds;

use crate::catalog::Asked;
use crate::error::{Error, Result};
use crate::page::meta::TreeRoot;
use crate::pager::write::txn_pages::TxnPages;
use crate::pager::PageRead as _;
use crate::table::codec::{Codec, KeyCodec, PrefixCodec};
use crate::table::range::{ByteBounds, ErrorContext};
use crate::table::{decode_entry, decode_value, values_of, EntriesOwned, Range, Table, TableInfo};
use crate::tree::{self, Tree};
use crate::txn::write::put_all::Collected;
use crate::txn::write::txn::WriteTxn;

impl WriteTxn {
    /// Opens a table, or creates it if it does not exist. The handle borrows the transaction, so
    /// only one table is open at a time.
    ///
    /// # Errors
    /// `Usage` if the table was created with other codecs, `TooLarge` for its name, `Corrupt` if
    /// the catalog cannot be read.
    pub fn table<K: KeyCodec, V: Codec>(&mut self, table: Table<K, V>) -> Result<TableMut<'_, K, V>> {
        let at = self.open_table(table.name(), Asked::Types(&K::name(), &V::name()))?;
        Ok(TableMut { txn: self, at, types: PhantomData })
    }

    /// Opens any table as bytes, whatever its codecs; for tools. Writes are not checked against its
    /// codecs: see [`codec`](crate::codec#bytes-and-types). A table that does not exist is created
    /// without types.
    ///
    /// # Errors
    /// `TooLarge` for its name, `Corrupt` if the catalog cannot be read.
    pub fn bytes_table(&mut self, name: &str) -> Result<TableMut<'_, &'static [u8], &'static [u8]>> {
        let at = self.open_table(name, Asked::Bytes)?;
        Ok(TableMut { txn: self, at, types: PhantomData })
    }

    /// Creates a table with codecs of these names, for tools that know types only by name, and
    /// opens it as bytes like [`bytes_table`](WriteTxn::bytes_table). An empty name means no type.
    /// A table that exists with exactly these codecs is opened.
    ///
    /// ```
    /// # use mapleaf::codec::Codec;
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// let mut txn = db.begin_write()?;
    /// txn.create_table("born", "str", "u64")?.insert(b"ada", &u64::encode(&1815)?)?;
    ///
    /// const BORN: Table<&str, u64> = Table::new("born");
    /// assert_eq!(txn.table(BORN)?.get("ada")?, Some(1815));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` if the table has other codecs, or their names are too long; `TooLarge` for its name,
    /// `Corrupt` if the catalog cannot be read.
    pub fn create_table(
        &mut self,
        name: &str,
        key_codec: &str,
        value_codec: &str,
    ) -> Result<TableMut<'_, &'static [u8], &'static [u8]>> {
        let at = self.open_table(name, Asked::Made(key_codec, value_codec))?;
        Ok(TableMut { txn: self, at, types: PhantomData })
    }

    /// The catalog record of a table, as this transaction sees it; `None` if there is no
    /// such table. Does not create it.
    ///
    /// # Errors
    /// `TooLarge` or `Usage` for its name, `Corrupt` if the catalog cannot be read.
    pub fn table_info(&mut self, name: &str) -> Result<Option<TableInfo>> {
        Ok(self.record_of(name)?.map(|record| TableInfo::of(name.to_string(), record)))
    }

    /// All tables, in the order of their names, as this transaction sees them.
    ///
    /// # Errors
    /// `Corrupt` if the catalog cannot be read.
    pub fn tables(&mut self) -> Result<Vec<TableInfo>> {
        Ok(self.table_records()?.into_iter().map(|(name, record)| TableInfo::of(name, record)).collect())
    }
}

/// A table inside a write transaction.
///
/// ```
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const AGES: Table<&str, u32> = Table::new("ages");
///
/// let mut txn = db.begin_write()?;
/// let mut ages = txn.table(AGES)?;
/// assert_eq!(ages.insert("ada", 36)?, None);
/// assert_eq!(ages.insert("ada", 37)?, Some(36));
/// assert_eq!(ages.remove("ada")?, Some(37));
/// assert!(ages.is_empty());
/// txn.commit()?;
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct TableMut<'t, K, V> {
    pub(super) txn: &'t mut WriteTxn,
    pub(super) at: usize,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyCodec, V: Codec> TableMut<'_, K, V> {
    /// Stores an entry and returns the old value. An old value that does not decode is replaced
    /// too, but returned as `None`; [`put`](TableMut::put) tells whether the key existed.
    ///
    /// # Errors
    /// `TooLarge` for a key of more than a quarter page minus 24 bytes (1,000 bytes with pages of 4
    /// KiB) or a value of more than 2^40 bytes, `Usage` for an item that the codec cannot
    /// represent: nothing was changed. `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn insert<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<Option<V::Owned>> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        let mut old = Vec::new();
        let existed = self.txn.put(self.at, &key, &value, Some(&mut old))?;
        Ok(if existed { owned_value::<V>(&old) } else { None })
    }

    /// Stores an entry and returns whether the key existed. Does not read or copy the old value, so
    /// it is cheaper than [`insert`](TableMut::insert) for long values.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const PAGES: Table<&str, &[u8]> = Table::new("pages");
    ///
    /// let mut txn = db.begin_write()?;
    /// let mut pages = txn.table(PAGES)?;
    /// assert!(!pages.put("a", &[1; 100_000])?);
    /// assert!(pages.put("a", &[2; 100_000])?);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](TableMut::insert).
    pub fn put<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<bool> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        self.txn.put(self.at, &key, &value, None)
    }

    /// Stores many entries, in any order; returns how many of their keys were new. Of entries with
    /// the same key the last one stays. Faster than as many calls of [`put`](TableMut::put),
    /// because the entries are sorted first. To fill a table, [`load`](TableMut::load) is faster
    /// still.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const STOCK: Table<&str, u32> = Table::new("stock");
    ///
    /// let mut txn = db.begin_write()?;
    /// let mut stock = txn.table(STOCK)?;
    /// assert_eq!(stock.put_all([("pears", 3), ("apples", 5), ("pears", 4)])?, 2);
    /// assert_eq!(stock.get("pears")?, Some(4));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](TableMut::put): abort the transaction, because some entries may be stored. An
    /// entry that is refused with `TooLarge` or `Usage` leaves the transaction usable.
    pub fn put_all<'k, 'v>(&mut self, entries: impl IntoIterator<Item = (K::Item<'k>, V::Item<'v>)>) -> Result<u64> {
        let (mut collected, mut new) = (Collected::default(), 0);
        for (key, value) in entries {
            collected.push(&K::encode(&key)?, &V::encode(&value)?);
            if collected.is_full() {
                new += self.txn.put_collected_entries(self.at, &mut collected)?;
            }
        }
        Ok(new + self.txn.put_collected_entries(self.at, &mut collected)?)
    }

    /// Removes all entries of a range of keys; returns how many there were. Costs a look at each
    /// leaf of the range, not a deletion of each entry.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const EVENTS: Table<u64, &str> = Table::new("events");
    ///
    /// let mut txn = db.begin_write()?;
    /// let mut events = txn.table(EVENTS)?;
    /// events.put_all((0..100).map(|n| (n, "event")))?;
    /// assert_eq!(events.remove_range(..90)?, 90);
    /// assert_eq!(events.len(), 10);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent: nothing was changed. `DiskFull`, `Io`,
    /// `Corrupt`: abort the transaction.
    pub fn remove_range<'k>(&mut self, range: impl RangeBounds<K::Key<'k>>) -> Result<u64> {
        let (low, high) = ByteBounds::of::<K>(&range)?.into_half_open();
        self.txn.remove_range(self.at, low.as_deref(), high.as_deref())
    }

    /// Removes an entry and returns its value. A value that does not decode is removed too, but
    /// returned as `None`; [`delete`](TableMut::delete) tells whether the key existed.
    ///
    /// # Errors
    /// `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn remove<'k>(&mut self, key: K::Key<'k>) -> Result<Option<V::Owned>> {
        let key = K::encode_key(&key)?;
        let mut old = Vec::new();
        let existed = self.txn.delete(self.at, &key, Some(&mut old))?;
        Ok(if existed { owned_value::<V>(&old) } else { None })
    }

    /// Removes an entry and returns whether the key existed. Does not read or copy the value, which
    /// need not decode.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const AGES: Table<&str, u32> = Table::new("ages");
    ///
    /// let mut txn = db.begin_write()?;
    /// txn.create_table("ages", "str", "u32")?.insert(b"ada", b"old")?;
    /// let mut ages = txn.table(AGES)?;
    /// assert!(ages.get("ada").is_err());
    /// assert!(ages.delete("ada")?);
    /// assert!(!ages.delete("ada")?);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`remove`](TableMut::remove).
    pub fn delete<'k>(&mut self, key: K::Key<'k>) -> Result<bool> {
        self.txn.delete(self.at, &K::encode_key(&key)?, None)
    }

    /// Stores an entry whose key is greater than all others. This is the fastest way to store
    /// sorted entries, and leaves full pages.
    ///
    /// # Errors
    /// `Usage` if the key is not the greatest, `TooLarge` as [`insert`](TableMut::insert): nothing
    /// was changed. `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn append<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<()> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        self.txn.append(self.at, &key, &value)
    }

    /// Returns the value of a key.
    ///
    /// # Errors
    /// `Corrupt` if a page on the path, or the value, is damaged; `Decode` if the value does not
    /// decode.
    pub fn get<'k>(&self, key: K::Key<'k>) -> Result<Option<V::Item<'_>>> {
        let key = K::encode_key(&key)?;
        let found = self.tree().get(&key);
        self.check_fault(found.and_then(|found| found.map(|value| decode_value::<V>(&key, value)).transpose()))
    }

    /// Returns the values of many keys, in the order of the keys. A key may occur more than once.
    /// See [`ReadTable::multi_get`](crate::ReadTable::multi_get).
    ///
    /// # Errors
    /// The errors of [`get`](TableMut::get), for the first key that fails.
    pub fn multi_get<'k>(&self, keys: impl IntoIterator<Item = K::Key<'k>>) -> Result<Vec<Option<V::Item<'_>>>> {
        let keys: Vec<K::Key<'k>> = keys.into_iter().collect();
        self.check_fault(values_of::<K, V, _>(self.tree(), None, &keys))
    }

    /// Whether the table has a key.
    ///
    /// # Errors
    /// `Corrupt` if a page on the path is damaged.
    pub fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool> {
        let key = K::encode_key(&key)?;
        self.check_fault(self.tree().get(&key).map(|found| found.is_some()))
    }

    /// Returns the entries of a range of keys, in order.
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent. The iterator reports damage.
    pub fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Range<'_, K, V>> {
        self.txn.env().check_process()?;
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
    /// let mut txn = db.begin_write()?;
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
    /// As [`range`](TableMut::range). The iterator goes on after an entry that does not decode.
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
    /// As [`range`](TableMut::range).
    pub fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<Range<'_, K, V>>
    where
        K: PrefixCodec,
    {
        self.txn.env().check_process()?;
        Ok(self.byte_range(ByteBounds::prefix(&K::encode_prefix(&prefix)?)))
    }

    /// Returns the entry with the least key.
    ///
    /// # Errors
    /// As [`get`](TableMut::get).
    pub fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
        self.typed(self.tree().first())
    }

    /// Returns the entry with the greatest key.
    ///
    /// # Errors
    /// As [`get`](TableMut::get).
    pub fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
        self.typed(self.tree().last())
    }

    /// Number of entries. It is stored with the table, so no page is read.
    pub fn len(&self) -> u64 {
        self.root().entries
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        self.txn.table_name(self.at)
    }

    fn pages(&self) -> &TxnPages {
        self.txn.pages()
    }

    fn root(&self) -> &TreeRoot {
        self.txn.root(self.at)
    }

    fn tree(&self) -> Tree<'_, TxnPages> {
        Tree::new(self.pages(), self.root())
    }

    fn byte_range(&self, bounds: ByteBounds) -> Range<'_, K, V> {
        let range = tree::Range::new(self.tree(), None, bounds.low, bounds.high);
        Range::of_txn(range, ErrorContext { path: self.txn.env().path(), table: self.name() })
    }

    fn typed<'a>(&self, entry: Result<Option<tree::Entry<'a>>>) -> Result<Option<(K::Item<'a>, V::Item<'a>)>> {
        self.check_fault(entry.and_then(|entry| entry.map(decode_entry::<K, V>).transpose()))
    }

    /// Returns `found`, or the error of an access that the kernel could not serve.
    fn check_fault<T>(&self, found: Result<T>) -> Result<T> {
        self.pages().check_fault(found).map_err(|e| self.locate(e))
    }

    #[cold]
    fn locate(&self, e: Error) -> Error {
        e.with_path(self.txn.env().path()).with_table(self.name())
    }
}

/// The old value, if it decodes.
fn owned_value<V: Codec>(bytes: &[u8]) -> Option<V::Owned> {
    V::decode(bytes).ok().map(V::to_owned)
}

impl<K, V> std::fmt::Debug for TableMut<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableMut").field("name", &self.txn.table_name(self.at)).finish()
    }
}
