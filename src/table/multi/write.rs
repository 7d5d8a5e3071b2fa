//! Multimap handles of write transactions that write.
//!
//! Floor: table. A change borrows the handle exclusively. The methods that read are those of
//! [`MultiTableRef`].
//!
//! Failure: [`Error::TooLarge`](crate::Error) and usage errors change nothing. After any other
//! error the transaction can only be aborted, and its calls return an error that says so.

use std::borrow::Borrow;
use std::ops::{Deref, RangeBounds};

use crate::catalog::TableSpec;
use crate::error::{Error, Result};
use crate::pager::PageRead as _;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{Encoded, KeyCodec};
use crate::table::multi::{fixed_bytes, MultiTable, MultiTableRef};
use crate::table::TableRef;
use crate::tree::Side;
use crate::txn::write::put_all::Collected;
use crate::txn::write::shared::{TableAccess, TableChange, WriteTxn};

impl WriteTxn {
    /// Opens a multimap table for reading and writing, or creates it if it does not exist. Like
    /// [`table`](WriteTxn::table).
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable, Table};
    /// # let db = Db::in_memory()?;
    /// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
    ///
    /// let txn = db.begin_write()?;
    /// txn.multi_table(TAGS)?.insert("red", 7)?;
    /// let error = txn.table(Table::<&str, u64>::new("tags")).unwrap_err().to_string();
    /// assert!(error.contains("'tags' is a multimap table of values of 8 bytes"));
    /// assert!(error.contains("open it with multi_table"));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` if the table is no multimap table, or is open already in this transaction, or was
    /// created with other codecs; `TooLarge` for its name or the fixed size of its values,
    /// `Corrupt` if the catalog cannot be read.
    pub fn multi_table<K: KeyCodec, V: KeyCodec>(
        &self,
        table: impl Borrow<MultiTable<K, V>>,
    ) -> Result<MultiTableMut<'_, K, V>> {
        let (key, value) = (K::name(), V::name());
        self.multi_table_mut(table.borrow().name(), TableSpec::types(&key, &value).multi(fixed_bytes::<V>()))
    }

    fn multi_table_mut<K, V>(&self, name: &str, spec: TableSpec<'_>) -> Result<MultiTableMut<'_, K, V>> {
        let (access, at) = self.open_to_write(name, spec)?;
        Ok(MultiTableMut { table: MultiTableRef { table: TableRef::new(access) }, at })
    }

    /// Opens a multimap table for reading, as this transaction sees it now. Does not create it.
    /// Like [`read_table`](WriteTxn::read_table).
    ///
    /// # Errors
    /// `Usage` if the table is no multimap table, or is open for writing in this transaction, or
    /// was created with other codecs; `Corrupt` if the catalog cannot be read.
    pub fn read_multi_table<K: KeyCodec, V: KeyCodec>(
        &self,
        table: impl Borrow<MultiTable<K, V>>,
    ) -> Result<MultiTableRef<'_, K, V>> {
        let (key, value) = (K::name(), V::name());
        let spec = TableSpec::types(&key, &value).multi(fixed_bytes::<V>());
        let access = self.open_to_read(table.borrow().name(), spec)?;
        Ok(MultiTableRef { table: TableRef::new(access) })
    }

    /// Opens any multimap table as bytes, whatever its codecs; for tools. A table that does not
    /// exist is created without types, with values of any size.
    ///
    /// # Errors
    /// As [`bytes_table`](WriteTxn::bytes_table), and `Usage` if the table is no multimap table.
    pub fn multi_bytes_table(&self, name: &str) -> Result<MultiTableMut<'_, &'static [u8], &'static [u8]>> {
        self.multi_table_mut(name, TableSpec::multi_bytes())
    }

    /// Creates a multimap table with codecs of these names, for tools that know types only by name,
    /// and opens it as bytes. `fixed_bytes` is the size of each value, if all have the same. A
    /// multimap table that exists with exactly these codecs and this size is opened.
    ///
    /// # Errors
    /// As [`create_table`](WriteTxn::create_table); `TooLarge` for a size over the limit of keys,
    /// and `Usage` for a size of 0.
    pub fn create_multi_table(
        &self,
        name: &str,
        key_codec: &str,
        value_codec: &str,
        fixed_bytes: Option<usize>,
    ) -> Result<MultiTableMut<'_, &'static [u8], &'static [u8]>> {
        if fixed_bytes == Some(0) {
            return Err(Error::usage("values of 0 bytes have no fixed size; give none"));
        }
        let fixed_bytes = fixed_bytes.map(|bytes| u16::try_from(bytes).unwrap_or(u16::MAX));
        self.multi_table_mut(name, TableSpec::made(key_codec, value_codec).multi(fixed_bytes))
    }
}

/// A multimap table inside a write transaction, to read and write. The methods that read are those
/// of [`MultiTableRef`]. See [`MultiTable`].
///
/// ```
/// # use mapleaf::{Db, MultiTable};
/// # let db = Db::in_memory()?;
/// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
///
/// let txn = db.begin_write()?;
/// let mut tags = txn.multi_table(TAGS)?;
/// assert!(tags.insert("red", 7)?);
/// assert!(tags.insert("red", 3)?);
/// assert!(tags.remove("red", 7)?);
/// assert!(!tags.remove("red", 7)?);
/// assert_eq!(tags.count("red")?, 1);
/// assert_eq!(tags.remove_all("red")?, 1);
/// assert!(tags.is_empty());
/// txn.commit()?;
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct MultiTableMut<'t, K, V> {
    table: MultiTableRef<'t, K, V>,
    /// The number of the table in the transaction.
    at: usize,
}

impl<'t, K, V> Deref for MultiTableMut<'t, K, V> {
    type Target = MultiTableRef<'t, K, V>;

    #[inline]
    fn deref(&self) -> &MultiTableRef<'t, K, V> {
        &self.table
    }
}

impl<K, V> MultiTableMut<'_, K, V> {
    #[inline]
    pub(super) fn change(&mut self) -> TableChange<'_> {
        self.table.table.access.change(self.at)
    }

    pub(super) fn access(&self) -> &TableAccess<'_> {
        &self.table.table.access
    }

    /// Returns `found`, or the error of an access that the kernel could not serve, with its place.
    pub(super) fn locate_fault<T>(&self, found: Result<T>) -> Result<T> {
        self.access().check_fault(found).map_err(|e| self.locate(e))
    }

    #[cold]
    pub(super) fn locate(&self, e: Error) -> Error {
        e.with_path(self.access().path()).with_table(self.access().name())
    }
}

impl<K: KeyCodec, V: KeyCodec> MultiTableMut<'_, K, V> {
    /// Adds a value to a key. Returns whether the key did not have it. Pairs in ascending order are
    /// the fastest.
    ///
    /// # Errors
    /// `TooLarge` for a key of more than 65,536 bytes, or a value of more than a quarter page minus
    /// 24 bytes (1,000 bytes with pages of 4 KiB); `Usage` for an item that the codec cannot
    /// represent: nothing was changed.
    /// `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn insert<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<bool> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        self.change().run(|running, at| running.insert_value(at, &key, &value))
    }

    /// Adds many pairs, in any order; returns how many are new. Sorts them first.
    ///
    /// # Errors
    /// As [`insert`](MultiTableMut::insert): abort the transaction, because some pairs may be
    /// stored.
    pub fn insert_all<'k, 'v>(&mut self, pairs: impl IntoIterator<Item = (K::Item<'k>, V::Item<'v>)>) -> Result<u64> {
        let (mut collected, mut new) = (Collected::default(), 0);
        for (key, value) in pairs {
            collected.push(&K::encode(&key)?, &V::encode(&value)?);
            if collected.is_full() {
                new += self.change().run(|running, at| running.insert_collected(at, &mut collected))?;
            }
        }
        Ok(new + self.change().run(|running, at| running.insert_collected(at, &mut collected))?)
    }

    /// Adds a pair that is greater than all others: its key is greater than the last key, or it is
    /// the last key and the value is greater than its last value.
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable};
    /// # let db = Db::in_memory()?;
    /// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
    ///
    /// let txn = db.begin_write()?;
    /// let mut tags = txn.multi_table(TAGS)?;
    /// tags.append("blue", 9)?;
    /// tags.append("red", 3)?;
    /// tags.append("red", 7)?;
    /// assert!(tags.append("red", 7).is_err());
    /// assert!(tags.append("blue", 10).is_err());
    /// assert_eq!(tags.len(), 3);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` if the pair is not the greatest, and as [`insert`](MultiTableMut::insert).
    pub fn append<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<()> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        self.check_is_greatest(&key, &value)?;
        self.change().run(|running, at| running.insert_value(at, &key, &value)).map(drop)
    }

    fn check_is_greatest(&self, key: &Encoded<'_>, value: &Encoded<'_>) -> Result<()> {
        let last = self.table.table.access.tree().outermost_pair(Side::Last);
        match self.table.table.check_fault(last)? {
            Some(last) if last >= (&**key, &**value) => Err(Error::usage(
                "append needs pairs in ascending order, and this one is not above the last one; insert it instead",
            )),
            _ => Ok(()),
        }
    }

    /// Removes a value of a key. Returns whether the key had it. A key without values is gone.
    ///
    /// # Errors
    /// `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn remove<'k, 'v>(&mut self, key: K::Key<'k>, value: V::Key<'v>) -> Result<bool> {
        let (key, value) = (K::encode_key(&key)?, V::encode_key(&value)?);
        self.change().run(|running, at| running.remove_value(at, &key, &value))
    }

    /// Removes a key with all its values. Returns how many it had.
    ///
    /// # Errors
    /// As [`remove`](MultiTableMut::remove).
    pub fn remove_all<'k>(&mut self, key: K::Key<'k>) -> Result<u64> {
        let key = K::encode_key(&key)?;
        self.change().run(|running, at| running.remove_values(at, &key))
    }

    /// Removes all keys of a range with all their values; returns how many pairs there were. Whole
    /// branches are cut off, as by [`TableMut::remove_range`](crate::TableMut::remove_range).
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent: nothing was changed. Others as
    /// [`remove`](MultiTableMut::remove).
    pub fn remove_range<'k>(&mut self, range: impl RangeBounds<K::Key<'k>>) -> Result<u64> {
        let (low, high) = ByteBounds::of::<K>(&range)?.into_half_open();
        self.change().run(|running, at| running.remove_pairs(at, low.as_deref(), high.as_deref()))
    }

    /// Removes all pairs; returns how many there were. The table stays, with its codecs.
    ///
    /// # Errors
    /// As [`remove`](MultiTableMut::remove).
    pub fn clear(&mut self) -> Result<u64> {
        self.change().run(|running, at| running.remove_pairs(at, None, None))
    }
}

impl<K, V> std::fmt::Debug for MultiTableMut<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiTableMut").finish_non_exhaustive()
    }
}
