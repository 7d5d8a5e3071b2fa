//! Operations on one entry that depend on what the table has: change a value, or exchange it.
//!
//! Floor: table. Each is a lookup and then a put or a delete by the same encoded key.
//!
//! Failure: an entry that does not decode stays, and the error says so. Everything is encoded
//! before anything changes.

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::{TableMut, TableRef};

impl<K: KeyCodec, V: Codec> TableMut<'_, K, V> {
    /// Stores what `change` makes of the value of a key: it gets the value, or `None` if the key
    /// has no entry, and returns the new value, or `None` to have no entry. Returns whether the key
    /// existed.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const HITS: Table<&str, u64> = Table::new("hits");
    ///
    /// let txn = db.begin_write()?;
    /// let mut hits = txn.table(HITS)?;
    /// assert!(!hits.update("/", |hits| Some(hits.unwrap_or(0) + 1))?);
    /// assert!(hits.update("/", |hits| Some(hits.unwrap_or(0) + 1))?);
    /// assert_eq!(hits.get("/")?, Some(2));
    /// assert!(hits.update("/", |hits| hits.filter(|&hits| hits > 2))?);
    /// assert!(hits.is_empty());
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Decode` if the value does not decode, `TooLarge` or `Usage` as
    /// [`insert`](TableMut::insert): nothing was changed. `DiskFull`, `Io`, `Corrupt`: abort the
    /// transaction.
    pub fn update<'k, 'v>(
        &mut self,
        key: K::Item<'k>,
        change: impl FnOnce(Option<V::Owned>) -> Option<V::Item<'v>>,
    ) -> Result<bool> {
        let key = K::encode(&key)?;
        let before = self.table.owned_value_of(&key)?;
        let existed = before.is_some();
        match change(before) {
            None if !existed => Ok(false),
            new => self.set(&key, new.as_ref().map(V::encode).transpose()?.as_deref()),
        }
    }

    /// Returns the value of a key. If the key has no entry, stores what `make` returns and returns
    /// that.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const IDS: Table<&str, u64> = Table::new("ids");
    ///
    /// let txn = db.begin_write()?;
    /// let mut ids = txn.table(IDS)?;
    /// for (name, id) in [("ada", 0), ("grace", 1), ("ada", 0)] {
    ///     let next = ids.len();
    ///     assert_eq!(ids.get_or_insert_with(name, || next)?, id);
    /// }
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`update`](TableMut::update).
    pub fn get_or_insert_with<'k, 'v>(
        &mut self,
        key: K::Item<'k>,
        make: impl FnOnce() -> V::Item<'v>,
    ) -> Result<V::Item<'_>> {
        let key = K::encode(&key)?;
        if self.table.value_of(&key)?.is_none() {
            self.set(&key, Some(&V::encode(&make())?))?;
        }
        self.table.value_of(&key)?.ok_or_else(|| Error::corrupt(PageId::NONE, "an entry is gone that was just stored"))
    }

    /// Replaces the value of a key if it is `expected`. `None` means no entry: as `expected`, that
    /// the key must have none; as `new`, that the entry is removed. Returns whether the value was
    /// as expected and the change was made. Values are compared as bytes.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const OWNERS: Table<u64, &str> = Table::new("owners");
    ///
    /// let txn = db.begin_write()?;
    /// let mut owners = txn.table(OWNERS)?;
    /// assert!(owners.compare_exchange(7, None, Some("ada"))?);
    /// assert!(!owners.compare_exchange(7, None, Some("bob"))?);
    /// assert!(owners.compare_exchange(7, Some("ada"), Some("bob"))?);
    /// assert!(owners.compare_exchange(7, Some("bob"), None)?);
    /// assert!(owners.is_empty());
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](TableMut::insert).
    pub fn compare_exchange<'k, 'e, 'v>(
        &mut self,
        key: K::Item<'k>,
        expected: Option<V::Item<'e>>,
        new: Option<V::Item<'v>>,
    ) -> Result<bool> {
        let key = K::encode(&key)?;
        let expected = expected.as_ref().map(V::encode).transpose()?;
        let new = new.as_ref().map(V::encode).transpose()?;
        let found = self.table.bytes_of(&key)?;
        if found != expected.as_deref() {
            return Ok(false);
        }
        if found.is_some() || new.is_some() {
            self.set(&key, new.as_deref())?;
        }
        Ok(true)
    }

    /// Puts or deletes an entry by its bytes. Returns whether the key existed.
    fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        self.change().run(|running, at| match value {
            Some(value) => running.put(at, key, value, None),
            None => running.delete(at, key, None),
        })
    }
}

impl<K: KeyCodec, V: Codec> TableRef<'_, K, V> {
    /// Bytes of the value of an encoded key.
    fn bytes_of(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        self.check_fault(self.access.get(key))
    }

    fn owned_value_of(&self, key: &[u8]) -> Result<Option<V::Owned>> {
        let value = self.value_of(key)?.map(V::to_owned);
        self.check_fault(Ok(value))
    }
}

/// Stores many entries by [`put_all`](TableMut::put_all). The trait returns no error: after one,
/// the transaction can only be aborted, and its calls, [`commit`](crate::WriteTxn::commit) among
/// them, return an error that names the first.
///
/// ```
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const STOCK: Table<&str, u32> = Table::new("stock");
///
/// let txn = db.begin_write()?;
/// let mut stock = txn.table(STOCK)?;
/// stock.extend([("pears", 3), ("apples", 5)]);
/// assert_eq!(stock.len(), 2);
/// stock.extend([("x".repeat(70_000).as_str(), 1)]);
/// assert!(txn.commit().unwrap_err().to_string().contains("over the limit of 65536 bytes"));
/// # Ok::<(), mapleaf::Error>(())
/// ```
impl<'a, K: KeyCodec, V: Codec> Extend<(K::Item<'a>, V::Item<'a>)> for TableMut<'_, K, V> {
    fn extend<I: IntoIterator<Item = (K::Item<'a>, V::Item<'a>)>>(&mut self, entries: I) {
        if let Err(e) = self.put_all(entries) {
            self.change().run(|running, _| running.break_off(&e.to_string()));
        }
    }
}
