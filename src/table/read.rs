//! Table handles of read transactions.
//!
//! Floor: table. A handle holds a clone of its transaction and carries no lifetime; what it returns borrows the handle,
//! except for the owned forms.
//!
//! Failure: [`Error::Corrupt`](crate::Error::Corrupt) and [`Error::Decode`](crate::Error::Decode), with path and table, when
//! pages or items cannot be read.

use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::catalog::Asked;
use crate::error::{Error, Result};
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::PageRead as _;
use crate::table::codec::{Codec, KeyCodec, PrefixCodec};
use crate::table::range::{ByteBounds, Place};
use crate::table::{decode_entry, decode_value, values_of, Range, RangeOwned, Table, TableInfo};
use crate::tree::{self, FlatIndex};
use crate::txn::read::open_table::OpenTable;
use crate::txn::read::snapshot::ReadTxn;

impl ReadTxn {
    /// A handle to a table as this transaction sees it. A table that does not exist reads as empty.
    ///
    /// # Errors
    /// `Usage` if the table was made with other codecs, `Corrupt` if the catalog cannot be read.
    pub fn table<K: KeyCodec, V: Codec>(&self, table: Table<K, V>) -> Result<ReadTable<K, V>> {
        let open = self.open_table(table.name())?;
        open.check_codecs(K::name, V::name)?;
        Ok(ReadTable { txn: self.clone(), open, types: PhantomData })
    }

    /// A handle to any table as bytes, whatever its codecs; for tools.
    ///
    /// # Errors
    /// `Corrupt` if the catalog cannot be read.
    pub fn bytes_table(&self, name: &str) -> Result<ReadTable<&'static [u8], &'static [u8]>> {
        Ok(ReadTable { txn: self.clone(), open: self.open_table(name)?, types: PhantomData })
    }

    /// The value of a key in a table, if that needs nothing from the disk; else an error of kind
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock). As [`ReadTable::try_get_resident`], the record of the table included.
    ///
    /// # Errors
    /// As [`table`](ReadTxn::table) and [`ReadTable::try_get_resident`].
    pub fn try_get_resident<'k, K: KeyCodec, V: Codec>(
        &self,
        table: Table<K, V>,
        key: K::Key<'k>,
    ) -> Result<Option<V::Item<'_>>> {
        let Some(record) = self.find_table_nonblocking(table.name())? else { return Ok(None) };
        record.check_codecs(table.name(), Asked::Types(&K::name(), &V::name()))?;
        let key = K::encode_key(&key)?;
        let found = tree::get_nonblocking(self.pages(), &record.root, &key);
        let found = found.and_then(|found| found.map(|value| decode_value::<V>(&key, value)).transpose());
        self.check_fault(found).map_err(|e| e.with_table(table.name()))
    }

    /// What the catalog says of one table; `None` if there is no such table.
    ///
    /// # Errors
    /// `TooLarge` or `Usage` for its name, `Corrupt` if the catalog cannot be read.
    pub fn table_info(&self, name: &str) -> Result<Option<TableInfo>> {
        Ok(self.find_table(name)?.map(|record| TableInfo::of(name.to_string(), record)))
    }

    /// All tables, in the order of their names.
    ///
    /// # Errors
    /// `Corrupt` if the catalog cannot be read.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        Ok(self.table_records()?.into_iter().map(|(name, record)| TableInfo::of(name, record)).collect())
    }
}

/// A table as a read transaction sees it. Holds the transaction; carries no lifetime.
///
/// ```
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const AGES: Table<&str, u32> = Table::new("ages");
/// db.write(|txn| {
///     let mut ages = txn.table(AGES)?;
///     ages.insert("ada", 36)?;
///     ages.insert("alan", 41)?;
///     ages.insert("bob", 7)?;
///     Ok::<_, mapleaf::Error>(())
/// })?;
///
/// let ages = db.begin_read()?.table(AGES)?;
/// assert_eq!(ages.get("ada")?, Some(36));
/// assert_eq!(ages.len(), 3);
/// let names: Vec<&str> = ages.prefix("a")?.map(|entry| Ok(entry?.0)).collect::<mapleaf::Result<_>>()?;
/// assert_eq!(names, ["ada", "alan"]);
/// assert_eq!(ages.range("ada".."bob")?.rev().next().transpose()?, Some(("alan", 41)));
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct ReadTable<K, V> {
    txn: ReadTxn,
    open: Arc<OpenTable>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyCodec, V: Codec> ReadTable<K, V> {
    /// The value of a key. It borrows this handle; see [`get_owned`](ReadTable::get_owned).
    ///
    /// # Errors
    /// `Corrupt` if a page on the way, or the value, is damaged; `Fault` if the system could not serve one; `Decode` if the
    /// bytes of the value are no item of its codec. A key over the limit is simply not there.
    #[inline(always)]
    pub fn get<'k>(&self, key: K::Key<'k>) -> Result<Option<V::Item<'_>>> {
        let encoded = K::encode_key(&key)?;
        let key: &[u8] = &encoded;
        // Without the copies that an error on the way would bring.
        let pages = self.pages();
        if let Some(answer) = tree::get_at_once(pages, &self.open.root, self.open.flat_index(pages, 1), key) {
            // The value is read by decoding it, and nothing is believed that was read after the question.
            let value = answer.value().map(V::decode);
            if pages.all_served() {
                match value {
                    None => return Ok(None),
                    Some(Ok(value)) => return Ok(Some(value)),
                    Some(Err(_)) => {}
                }
            }
        }
        self.get_slowly(key)
    }

    #[cold]
    #[inline(never)]
    fn get_slowly(&self, key: &[u8]) -> Result<Option<V::Item<'_>>> {
        let found = tree::get_slowly(self.pages(), &self.open.root, key);
        self.check_fault(found.and_then(|found| found.map(|value| decode_value::<V>(key, value)).transpose()))
    }

    /// The value of a key, if that needs nothing from the disk: an error of kind
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) where [`get`](ReadTable::get) would wait for a page, or for the value.
    ///
    /// For programs that serve many on few threads, as asynchronous ones do. What was missing has been asked for, and comes
    /// without anybody waiting: who tries again later gets further by a page at least, of three or four on the way. Or
    /// who gets the error calls `get` on a thread that may wait. The system is asked about each page on the way, about a
    /// microsecond each, so a `get` of what is in memory is faster. The answer may be outdated by the time that the page is
    /// read: under great need of memory a call may wait all the same. So it does for a database that this process could not
    /// write to, as the system then does not say what is in memory.
    ///
    /// # Errors
    /// `WouldBlock`, and as [`get`](ReadTable::get).
    ///
    /// ```
    /// # use mapleaf::{Db, ErrorKind, ReadTable, Table};
    /// # let db = Db::in_memory()?;
    /// const AGES: Table<&str, u32> = Table::new("ages");
    /// # db.write(|txn| txn.table(AGES)?.insert("ada", 36))?;
    /// let ages = db.begin_read()?.table(AGES)?;
    /// let age = match ages.try_get_resident("ada") {
    ///     Err(e) if e.kind() == ErrorKind::WouldBlock => {
    ///         let ages = ages.clone();
    ///         std::thread::spawn(move || ages.get("ada")).join().expect("no panic")?
    ///     }
    ///     found => found?,
    /// };
    /// assert_eq!(age, Some(36));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn try_get_resident<'k>(&self, key: K::Key<'k>) -> Result<Option<V::Item<'_>>> {
        let key = K::encode_key(&key)?;
        let found = tree::get_nonblocking(self.pages(), &self.open.root, &key);
        self.check_fault(found.and_then(|found| found.map(|value| decode_value::<V>(&key, value)).transpose()))
    }

    /// The values of many keys, in the order of the keys; the same keys may come more than once.
    ///
    /// The lookups go down the tree together, so that their waits for memory overlap: with many keys at once (a hundred,
    /// say) a lookup takes a fraction of what [`get`](ReadTable::get) takes. Sorting the keys gains nothing.
    ///
    /// # Errors
    /// As [`get`](ReadTable::get), for the first key that meets one.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const AGES: Table<&str, u32> = Table::new("ages");
    /// db.write(|txn| txn.table(AGES)?.insert("ada", 36))?;
    ///
    /// let ages = db.begin_read()?.table(AGES)?;
    /// assert_eq!(ages.multi_get(["bob", "ada"])?, [None, Some(36)]);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn multi_get<'k>(&self, keys: impl IntoIterator<Item = K::Key<'k>>) -> Result<Vec<Option<V::Item<'_>>>> {
        let keys: Vec<K::Key<'k>> = keys.into_iter().collect();
        let flat_index = self.flat_index(u32::try_from(keys.len()).unwrap_or(u32::MAX));
        self.check_fault(values_of::<K, V, _>(self.pages(), &self.open.root, flat_index, &keys))
    }

    /// The value of a key, holding the transaction alive: it may outlive this handle and be sent to other threads.
    ///
    /// # Errors
    /// As [`get`](ReadTable::get).
    pub fn get_owned<'k>(&self, key: K::Key<'k>) -> Result<Option<OwnedValue<K, V>>> {
        let bytes = K::encode_key(&key)?.to_vec();
        // Looked up once here, so that getting it later cannot find it missing.
        Ok(self.get(key)?.is_some().then(|| OwnedValue { table: self.clone(), key: bytes }))
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// `Corrupt` if a page on the way is damaged.
    pub fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool> {
        let key = K::encode_key(&key)?;
        match tree::get_at_once(self.pages(), &self.open.root, self.flat_index(1), &key) {
            Some(answer) if self.pages().all_served() => Ok(answer.value().is_some()),
            _ => self.check_fault(tree::get_slowly(self.pages(), &self.open.root, &key).map(|found| found.is_some())),
        }
    }

    /// The entries of a range of keys, in order.
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent; damage is reported by the iterator.
    pub fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Range<'_, K, V>> {
        self.txn.check_process()?;
        Ok(Range::of_snapshot(self.byte_range(ByteBounds::of::<K>(&range)?), self.place()))
    }

    /// The entries of a range of keys, as items that own what they are.
    ///
    /// # Errors
    /// As [`range`](ReadTable::range).
    pub fn range_owned<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<RangeOwned<K, V>> {
        self.txn.check_process()?;
        Ok(RangeOwned::new(self.clone(), ByteBounds::of::<K>(&range)?))
    }

    /// All entries, in order. Damage is reported by the iterator, and so are entries that do not decode.
    pub fn iter(&self) -> Range<'_, K, V> {
        Range::of_snapshot(self.byte_range(ByteBounds::ALL), self.place())
    }

    /// The entries whose keys begin alike; see [`PrefixCodec`] for what a prefix is.
    ///
    /// # Errors
    /// As [`range`](ReadTable::range).
    pub fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<Range<'_, K, V>>
    where
        K: PrefixCodec,
    {
        self.txn.check_process()?;
        let bounds = ByteBounds::prefix(&K::encode_prefix(&prefix)?);
        Ok(Range::of_snapshot(self.byte_range(bounds), self.place()))
    }

    /// The entry with the least key.
    ///
    /// # Errors
    /// As [`get`](ReadTable::get).
    pub fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
        self.typed(tree::first(self.pages(), &self.open.root))
    }

    /// The entry with the greatest key.
    ///
    /// # Errors
    /// As [`get`](ReadTable::get).
    pub fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
        self.typed(tree::last(self.pages(), &self.open.root))
    }

    /// Number of entries; stored with the table, so this costs nothing.
    pub fn len(&self) -> u64 {
        self.open.root.entries
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.open.root.entries == 0
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        self.open.name()
    }

    /// The transaction that this handle holds.
    pub fn txn(&self) -> &ReadTxn {
        &self.txn
    }

    #[inline]
    pub(crate) fn pages(&self) -> &SnapshotPages {
        self.txn.pages()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn root(&self) -> &crate::page::meta::TreeRoot {
        &self.open.root
    }

    /// The top of the tree, if it was worth making. `keys` are about to be looked up.
    #[inline(always)]
    fn flat_index(&self, keys: u32) -> Option<&FlatIndex> {
        self.open.flat_index(self.pages(), keys)
    }

    fn place(&self) -> Place<'_> {
        Place { path: self.txn.env().path(), table: self.open.name() }
    }

    /// Gives on what was found, unless something on the way to it could not be served.
    #[inline]
    fn check_fault<T>(&self, found: Result<T>) -> Result<T> {
        match self.pages().all_served() {
            true if found.is_ok() => found,
            all_served => self.failure(found, all_served),
        }
    }

    #[cold]
    fn failure<T>(&self, found: Result<T>, all_served: bool) -> Result<T> {
        let found = if all_served { found } else { Err(self.pages().fault()) };
        found.map_err(|e| self.locate(e))
    }

    pub(crate) fn byte_range(&self, bounds: ByteBounds) -> tree::Range<'_, SnapshotPages> {
        tree::Range::new(self.pages(), self.open.root, self.flat_index(1), bounds.low, bounds.high)
    }

    fn typed<'a>(&self, entry: Result<Option<tree::Entry<'a>>>) -> Result<Option<(K::Item<'a>, V::Item<'a>)>> {
        self.check_fault(entry.and_then(|entry| entry.map(decode_entry::<K, V>).transpose()))
    }

    /// Says in which file and table an error happened.
    #[cold]
    pub(crate) fn locate(&self, e: Error) -> Error {
        self.txn.locate(e).with_table(self.open.name())
    }
}

impl<K, V> Clone for ReadTable<K, V> {
    fn clone(&self) -> ReadTable<K, V> {
        ReadTable { txn: self.txn.clone(), open: Arc::clone(&self.open), types: PhantomData }
    }
}

impl<K, V> std::fmt::Debug for ReadTable<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadTable").field("name", &self.open.name()).field("entries", &self.open.root.entries).finish()
    }
}

/// A value that holds its transaction alive, from [`get_owned`](ReadTable::get_owned).
pub struct OwnedValue<K, V> {
    table: ReadTable<K, V>,
    key: Vec<u8>,
}

impl<K: KeyCodec, V: Codec> OwnedValue<K, V> {
    /// The value; it borrows this.
    ///
    /// # Errors
    /// `Corrupt` if the file was damaged meanwhile.
    pub fn get(&self) -> Result<V::Item<'_>> {
        let gone = || Error::corrupt(self.table.open.root.ptr.id, "a value is gone");
        let found = tree::get(self.table.pages(), &self.table.open.root, &self.key);
        self.table.check_fault(found.and_then(|found| decode_value::<V>(&self.key, found.ok_or_else(gone)?)))
    }
}

impl<K, V> std::fmt::Debug for OwnedValue<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnedValue").finish_non_exhaustive()
    }
}
