//! Table handles of write transactions.
//!
//! Floor: table. A handle borrows its transaction, and values that it returns borrow the handle. A
//! change borrows the handle exclusively. So a value cannot be changed while it is borrowed. The
//! methods that read are those of [`TableRef`].
//!
//! Failure: [`Error::TooLarge`] and usage errors change nothing. After any other error the
//! transaction can only be aborted, and its calls return an error that says so.

use std::borrow::Borrow;
use std::ops::Deref;

use crate::catalog::TableSpec;
use crate::error::Result;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::{KeyOrder, Table, TableInfo, TableRef};
use crate::txn::write::put_all::Collected;
use crate::txn::write::shared::{TableAccess, TableChange, WriteTxn};

impl WriteTxn {
    /// Opens a table for reading and writing, or creates it if it does not exist. Several tables
    /// can be open at the same time, each by one handle. A table is given by value or by reference.
    ///
    /// # Errors
    /// `Usage` if the table is open already in this transaction, until that handle is dropped, or
    /// if the table was created with other codecs; `TooLarge` for its name, `Corrupt` if the
    /// catalog cannot be read.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const STOCK: Table<&str, u32> = Table::new("stock");
    ///
    /// let txn = db.begin_write()?;
    /// let mut stock = txn.table(STOCK)?;
    /// let mut sold = txn.table(&Table::<&str, u32>::named("sold"))?;
    /// stock.insert("pears", 5)?;
    /// sold.insert("pears", 1)?;
    /// assert!(txn.table(STOCK).is_err(), "it is open");
    /// drop(stock);
    /// assert_eq!(txn.table(STOCK)?.get("pears")?, Some(5));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn table<K: KeyCodec, V: Codec>(&self, table: impl Borrow<Table<K, V>>) -> Result<TableMut<'_, K, V>> {
        let table = table.borrow();
        self.table_mut(table.name(), TableSpec::types(&K::name(), &V::name()).in_order(table.order))
    }

    fn table_mut<K, V>(&self, name: &str, spec: TableSpec<'_>) -> Result<TableMut<'_, K, V>> {
        let (access, at) = self.open_to_write(name, spec)?;
        Ok(TableMut { table: TableRef::new(access), at })
    }

    /// Opens a table for reading, as this transaction sees it now, with its own changes. Does not
    /// create it: a table that does not exist reads as empty. Any number of such handles of a table
    /// can be open, and none beside a [`TableMut`] of it, which reads too.
    ///
    /// # Errors
    /// `Usage` if the table is open for writing in this transaction, until that handle is dropped,
    /// or if the table was created with other codecs; `Corrupt` if the catalog cannot be read.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const PRICES: Table<&str, u32> = Table::new("prices");
    /// const TOTALS: Table<&str, u32> = Table::new("totals");
    ///
    /// let txn = db.begin_write()?;
    /// txn.table(PRICES)?.insert("pears", 3)?;
    /// let prices = txn.read_table(PRICES)?;
    /// let mut totals = txn.table(TOTALS)?;
    /// for entry in prices.iter() {
    ///     let (name, price) = entry?;
    ///     totals.insert(name, 5 * price)?;
    /// }
    /// assert!(txn.table(PRICES).is_err(), "it is being read");
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn read_table<K: KeyCodec, V: Codec>(&self, table: impl Borrow<Table<K, V>>) -> Result<TableRef<'_, K, V>> {
        let (key, value, table) = (K::name(), V::name(), table.borrow());
        self.open_to_read(table.name(), TableSpec::types(&key, &value).in_order(table.order)).map(TableRef::new)
    }

    /// Opens any table for reading as bytes, whatever its codecs; for tools. Does not create it.
    ///
    /// # Errors
    /// `Usage` if the table is open for writing in this transaction, `Corrupt` if the catalog
    /// cannot be read.
    pub fn read_bytes_table(&self, name: &str) -> Result<TableRef<'_, &'static [u8], &'static [u8]>> {
        self.open_to_read(name, TableSpec::bytes()).map(TableRef::new)
    }

    /// Opens any table as bytes, whatever its codecs; for tools. Writes are not checked against its
    /// codecs: see [`codec`](crate::codec#bytes-and-types). A table that does not exist is created
    /// without types.
    ///
    /// # Errors
    /// `Usage` if the table is open already in this transaction, `TooLarge` for its name, `Corrupt`
    /// if the catalog cannot be read.
    pub fn bytes_table(&self, name: &str) -> Result<TableMut<'_, &'static [u8], &'static [u8]>> {
        self.table_mut(name, TableSpec::bytes())
    }

    /// Creates a table with codecs of these names, for tools that know types only by name, and
    /// opens it as bytes like [`bytes_table`](WriteTxn::bytes_table). An empty name means no type.
    /// A table that exists with exactly these codecs is opened.
    ///
    /// ```
    /// # use mapleaf::codec::Codec;
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// let txn = db.begin_write()?;
    /// txn.create_table("born", "str", "u64")?.insert(b"ada", &u64::encode(&1815)?)?;
    ///
    /// const BORN: Table<&str, u64> = Table::new("born");
    /// assert_eq!(txn.table(BORN)?.get("ada")?, Some(1815));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` if the table has other codecs, or their names are too long, or it is open already in
    /// this transaction; `TooLarge` for its name, `Corrupt` if the catalog cannot be read.
    pub fn create_table(
        &self,
        name: &str,
        key_codec: &str,
        value_codec: &str,
    ) -> Result<TableMut<'_, &'static [u8], &'static [u8]>> {
        self.create_table_in_order(name, key_codec, value_codec, &KeyOrder::Bytewise)
    }

    /// Like [`create_table`](WriteTxn::create_table), with keys in this order. A table that exists
    /// with exactly these codecs and this order is opened.
    ///
    /// # Errors
    /// As there; `Usage` if the table has another order, or the program has not registered the
    /// order ([`Options::key_order`](crate::Options::key_order)).
    pub fn create_table_in_order(
        &self,
        name: &str,
        key_codec: &str,
        value_codec: &str,
        order: &KeyOrder,
    ) -> Result<TableMut<'_, &'static [u8], &'static [u8]>> {
        self.table_mut(name, TableSpec::made(key_codec, value_codec).in_order(order.as_order()))
    }

    /// The catalog record of a table, as this transaction sees it; `None` if there is no
    /// such table. Does not create it.
    ///
    /// # Errors
    /// `TooLarge` or `Usage` for its name, `Corrupt` if the catalog cannot be read.
    pub fn table_info(&self, name: &str) -> Result<Option<TableInfo>> {
        Ok(self.record_of(name)?.map(|record| TableInfo::of(name.to_string(), record)))
    }

    /// All tables, in the order of their names, as this transaction sees them.
    ///
    /// # Errors
    /// `Corrupt` if the catalog cannot be read.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        Ok(self.table_records()?.into_iter().map(|(name, record)| TableInfo::of(name, record)).collect())
    }
}

/// A table inside a write transaction, to read and write. The methods that read are those of
/// [`TableRef`].
///
/// ```
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const AGES: Table<&str, u32> = Table::new("ages");
///
/// let txn = db.begin_write()?;
/// let mut ages = txn.table(AGES)?;
/// assert_eq!(ages.insert("ada", 36)?, None);
/// assert_eq!(ages.insert("ada", 37)?, Some(36));
/// assert_eq!(ages.remove("ada")?, Some(37));
/// assert!(ages.is_empty());
/// txn.commit()?;
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct TableMut<'t, K, V> {
    pub(super) table: TableRef<'t, K, V>,
    /// The number of the table in the transaction.
    at: usize,
}

impl<'t, K, V> Deref for TableMut<'t, K, V> {
    type Target = TableRef<'t, K, V>;

    #[inline]
    fn deref(&self) -> &TableRef<'t, K, V> {
        &self.table
    }
}

impl<K, V> TableMut<'_, K, V> {
    #[inline]
    pub(super) fn access(&self) -> &TableAccess<'_> {
        &self.table.access
    }

    #[inline]
    pub(super) fn change(&mut self) -> TableChange<'_> {
        self.table.access.change(self.at)
    }
}

impl<K: KeyCodec, V: Codec> TableMut<'_, K, V> {
    /// Stores an entry and returns the old value. An old value that does not decode is replaced
    /// too, but returned as `None`; [`put`](TableMut::put) tells whether the key existed.
    ///
    /// # Errors
    /// `TooLarge` for a key of more than 65,536 bytes or a value of more than 2^40 bytes, `Usage`
    /// for an item that the codec cannot represent: nothing was changed. `DiskFull`, `Io`,
    /// `Corrupt`: abort the transaction.
    pub fn insert<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<Option<V::Owned>> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        let mut old = Vec::new();
        let existed = self.change().run(|running, at| running.put(at, &key, &value, Some(&mut old)))?;
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
    /// let txn = db.begin_write()?;
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
        self.change().run(|running, at| running.put(at, &key, &value, None))
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
    /// let txn = db.begin_write()?;
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
                new += self.change().run(|running, at| running.put_collected_entries(at, &mut collected))?;
            }
        }
        Ok(new + self.change().run(|running, at| running.put_collected_entries(at, &mut collected))?)
    }

    /// Removes an entry and returns its value. A value that does not decode is removed too, but
    /// returned as `None`; [`delete`](TableMut::delete) tells whether the key existed.
    ///
    /// # Errors
    /// `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn remove<'k>(&mut self, key: K::Key<'k>) -> Result<Option<V::Owned>> {
        let key = K::encode_key(&key)?;
        let mut old = Vec::new();
        let existed = self.change().run(|running, at| running.delete(at, &key, Some(&mut old)))?;
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
    /// let txn = db.begin_write()?;
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
        let key = K::encode_key(&key)?;
        self.change().run(|running, at| running.delete(at, &key, None))
    }

    /// Stores an entry whose key is greater than all others. This is the fastest way to store
    /// sorted entries, and leaves full pages.
    ///
    /// # Errors
    /// `Usage` if the key is not the greatest, `TooLarge` as [`insert`](TableMut::insert): nothing
    /// was changed. `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn append<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<()> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        self.change().run(|running, at| running.append(at, &key, &value))
    }
}

/// The old value, if it decodes.
pub(super) fn owned_value<V: Codec>(bytes: &[u8]) -> Option<V::Owned> {
    V::decode(bytes).ok().map(V::to_owned)
}

impl<K, V> std::fmt::Debug for TableMut<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableMut").field("name", &self.table.access.name()).finish()
    }
}
