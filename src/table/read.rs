//! Table handles of read transactions.
//!
//! Floor: table. A handle holds a clone of its transaction and has no lifetime. Values that it
//! returns borrow the handle, except for the owned forms.
//!
//! Failure: [`Error::Corrupt`] and [`Error::Decode`], with path and table, for a damaged page or an
//! entry that does not decode.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::catalog::TableSpec;
use crate::error::{Error, Result};
use crate::page::meta::TreeRoot;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::PageRead as _;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{Codec, KeyCodec, Leading, PrefixCodec};
use crate::table::range::ErrorContext;
use crate::table::{decode_entry, decode_value, values_of, Range, RangeOwned, Table, TableInfo};
use crate::tree::{self, FlatIndex, Tree};
use crate::txn::read::open_table::OpenTable;
use crate::txn::read::snapshot::ReadTxn;

impl ReadTxn {
    /// Opens a table as this transaction sees it. A table that does not exist reads as empty. A
    /// table is given by value or by reference.
    ///
    /// # Errors
    /// `Usage` if the table was created with other codecs, `Corrupt` if the catalog cannot be read.
    pub fn table<K: KeyCodec, V: Codec>(&self, table: impl Borrow<Table<K, V>>) -> Result<ReadTable<K, V>> {
        let table = table.borrow();
        let open = self.open_table(table.name())?;
        open.check_kind(TableSpec::types("", "").in_order(table.order))?;
        open.check_codecs(K::name, V::name)?;
        Ok(ReadTable { txn: self.clone(), open, types: PhantomData })
    }

    /// Opens any table as bytes, whatever its codecs; for tools.
    ///
    /// # Errors
    /// `Corrupt` if the catalog cannot be read.
    pub fn bytes_table(&self, name: &str) -> Result<ReadTable<&'static [u8], &'static [u8]>> {
        let open = self.open_table(name)?;
        open.check_kind(TableSpec::bytes())?;
        Ok(ReadTable { txn: self.clone(), open, types: PhantomData })
    }

    /// Returns the value of a key without waiting for the disk, or an error of kind
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock). Like [`ReadTable::try_get_resident`], and also
    /// for the table's record in the catalog.
    ///
    /// # Errors
    /// As [`table`](ReadTxn::table) and [`ReadTable::try_get_resident`].
    pub fn try_get_resident<'k, K: KeyCodec, V: Codec>(
        &self,
        table: impl Borrow<Table<K, V>>,
        key: K::Key<'k>,
    ) -> Result<Option<V::Item<'_>>> {
        let table = table.borrow();
        let Some(record) = self.find_table_nonblocking(table.name())? else { return Ok(None) };
        record.check_spec(table.name(), TableSpec::types(&K::name(), &V::name()).in_order(table.order))?;
        let key = K::encode_key(&key)?;
        let found = tree::get_nonblocking(self.pages(), &record.root, &key);
        let found = found.and_then(|found| found.map(|value| decode_value::<V>(&key, value)).transpose());
        self.check_fault(found).map_err(|e| e.with_table(table.name()))
    }

    /// The catalog record of a table; `None` if there is no such table.
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

/// A table as a read transaction sees it. Holds the transaction and has no lifetime.
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
    /// Opens a table of this kind; compares its codecs too if `is_typed`.
    pub(super) fn open(txn: &ReadTxn, name: &str, spec: TableSpec<'_>, is_typed: bool) -> Result<ReadTable<K, V>> {
        let open = txn.open_table(name)?;
        open.check_kind(spec)?;
        if is_typed {
            open.check_codecs(K::name, V::name)?;
        }
        Ok(ReadTable { txn: txn.clone(), open, types: PhantomData })
    }

    /// Returns the value of a key. The value borrows this handle; see
    /// [`get_owned`](ReadTable::get_owned).
    ///
    /// # Errors
    /// `Corrupt` if a page on the path, or the value, is damaged; `Fault` if the kernel could not
    /// read one; `Decode` if the bytes of the value do not decode. A key that is longer than the
    /// limit is not in the table, so the result is `None`.
    #[inline(always)]
    pub fn get<'k>(&self, key: K::Key<'k>) -> Result<Option<V::Item<'_>>> {
        let encoded = K::encode_key(&key)?;
        let key: &[u8] = &encoded;
        // The fast path returns no `Result`, so errors are not copied on the way up.
        let pages = self.pages();
        if let Some(answer) = Tree::new(pages, &self.open.root).get_fast(self.open.flat_index(pages, 1), key) {
            // Decode first, then check for a fault: the check covers every byte that was read
            // before it.
            let value = answer.value().map(V::decode);
            if pages.all_served() {
                match value {
                    None => return Ok(None),
                    Some(Ok(value)) => return Ok(Some(value)),
                    Some(Err(_)) => {}
                }
            }
        }
        self.get_checked(key)
    }

    #[cold]
    #[inline(never)]
    fn get_checked(&self, key: &[u8]) -> Result<Option<V::Item<'_>>> {
        let found = self.tree().get_checked(key);
        self.check_fault(found.and_then(|found| found.map(|value| decode_value::<V>(key, value)).transpose()))
    }

    /// Returns the value of a key without waiting for the disk. If [`get`](ReadTable::get) would
    /// have to wait for a page or for the value, the error has the kind
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock).
    ///
    /// For programs that serve many clients on few threads, as asynchronous programs do. Before it
    /// returns `WouldBlock`, this call requests the missing page from the disk. Each retry gets at
    /// least one page further, and a lookup reads three or four pages. Or call `get` on a thread
    /// that may wait.
    ///
    /// The call asks the kernel about each page on the path, about a microsecond each, so `get` is
    /// faster for pages in memory. The kernel's answer may be outdated when the page is read: if
    /// memory is very short, the call may wait nevertheless. It may also wait for a database that
    /// this process cannot write to, because the kernel then does not tell which pages are in
    /// memory.
    ///
    /// # Errors
    /// `WouldBlock`, and the errors of [`get`](ReadTable::get).
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

    /// Returns the values of many keys, in the order of the keys. A key may occur more than once.
    ///
    /// The lookups descend the tree together, so that their waits for memory overlap. With a
    /// hundred keys, say, a lookup takes a fraction of the time of [`get`](ReadTable::get). Sorting
    /// the keys first gains nothing.
    ///
    /// # Errors
    /// The errors of [`get`](ReadTable::get), for the first key that fails.
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
        self.check_fault(values_of::<K, V, _>(self.tree(), flat_index, &keys))
    }

    /// Returns the value of a key, with its transaction: it may outlive this handle and move to
    /// other threads.
    ///
    /// # Errors
    /// As [`get`](ReadTable::get).
    pub fn get_owned<'k>(&self, key: K::Key<'k>) -> Result<Option<OwnedValue<K, V>>> {
        let bytes = K::encode_key(&key)?.to_vec();
        // This lookup makes sure that `OwnedValue::get` finds the key.
        Ok(self.get(key)?.is_some().then(|| OwnedValue { table: self.clone(), key: bytes }))
    }

    /// Whether the table has a key.
    ///
    /// # Errors
    /// `Corrupt` if a page on the path is damaged.
    pub fn contains_key<'k>(&self, key: K::Key<'k>) -> Result<bool> {
        let key = K::encode_key(&key)?;
        match self.tree().get_fast(self.flat_index(1), &key) {
            Some(answer) if self.pages().all_served() => Ok(answer.value().is_some()),
            _ => self.check_fault(self.tree().get_checked(&key).map(|found| found.is_some())),
        }
    }

    /// Returns the entries of a range of keys, in order.
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent. The iterator reports damage.
    pub fn range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Range<'_, K, V>> {
        self.txn.check_process()?;
        Ok(Range::of_snapshot(self.byte_range(ByteBounds::of::<K>(&range)?), self.place()))
    }

    /// Returns the entries of a range of keys, as items that own their bytes.
    ///
    /// # Errors
    /// As [`range`](ReadTable::range).
    pub fn range_owned<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<RangeOwned<K, V>> {
        self.txn.check_process()?;
        Ok(RangeOwned::new(self.clone(), ByteBounds::of::<K>(&range)?))
    }

    /// Returns all entries, in order. The iterator reports damage and entries that do not decode.
    pub fn iter(&self) -> Range<'_, K, V> {
        self.typed_range(ByteBounds::ALL)
    }

    pub(super) fn typed_range(&self, bounds: ByteBounds) -> Range<'_, K, V> {
        Range::of_snapshot(self.byte_range(bounds), self.place())
    }

    /// Returns the entries whose keys begin with a prefix; see [`PrefixCodec`] for the prefixes of
    /// a type.
    ///
    /// # Errors
    /// As [`range`](ReadTable::range).
    pub fn prefix<'k>(&self, prefix: K::Prefix<'k>) -> Result<Range<'_, K, V>>
    where
        K: PrefixCodec,
    {
        self.txn.check_process()?;
        let bounds = self.prefix_bounds(&K::encode_prefix(&prefix)?)?;
        Ok(Range::of_snapshot(self.byte_range(bounds), self.place()))
    }

    /// Returns the entries whose keys begin with these components: for keys of the type `(&str,
    /// u16, u64)`, a tuple such as `("t017",)` or `("t017", 5)`.
    ///
    /// # Errors
    /// As [`range`](ReadTable::range).
    pub fn starting_with<P>(&self, components: P) -> Result<Range<'_, K, V>>
    where
        K: Leading<P>,
    {
        self.txn.check_process()?;
        let bounds = self.prefix_bounds(&K::encode_leading(&components)?)?;
        Ok(Range::of_snapshot(self.byte_range(bounds), self.place()))
    }

    /// Like [`prefix`](ReadTable::prefix), as items that own their bytes.
    ///
    /// # Errors
    /// As [`range`](ReadTable::range).
    pub fn prefix_owned<'k>(&self, prefix: K::Prefix<'k>) -> Result<RangeOwned<K, V>>
    where
        K: PrefixCodec,
    {
        self.txn.check_process()?;
        Ok(RangeOwned::new(self.clone(), self.prefix_bounds(&K::encode_prefix(&prefix)?)?))
    }

    /// Returns the entries whose keys begin with a prefix that lies in a range of prefixes, in
    /// order. For a tuple this bounds the leading component: an excluded lower bound begins after
    /// all keys that have this component, an included upper bound ends after them.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # use std::ops::Bound;
    /// # let db = Db::in_memory()?;
    /// const ITEMS: Table<(&str, u64), u64> = Table::new("items");
    /// db.write(|txn| {
    ///     let mut items = txn.table(ITEMS)?;
    ///     items.put_all(["ann", "bob", "eve"].map(|name| ((name, 1), 10))).map(drop)
    /// })?;
    /// let items = db.begin_read()?.table(ITEMS)?;
    /// assert_eq!(items.prefix_range("ann"..="bob")?.count(), 2);
    /// let after_ann = (Bound::Excluded("ann"), Bound::Unbounded);
    /// assert_eq!(items.prefix_range(after_ann)?.next().transpose()?, Some((("bob", 1), 10)));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`range`](ReadTable::range).
    pub fn prefix_range<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<Range<'_, K, V>>
    where
        K: PrefixCodec,
    {
        self.txn.check_process()?;
        Ok(Range::of_snapshot(
            self.byte_range(ByteBounds::of_prefixes::<K>(&range, self.open.root.order)?),
            self.place(),
        ))
    }

    /// Like [`prefix_range`](ReadTable::prefix_range), as items that own their bytes.
    ///
    /// # Errors
    /// As [`range`](ReadTable::range).
    pub fn prefix_range_owned<'k>(&self, range: impl RangeBounds<K::Prefix<'k>>) -> Result<RangeOwned<K, V>>
    where
        K: PrefixCodec,
    {
        self.txn.check_process()?;
        Ok(RangeOwned::new(self.clone(), ByteBounds::of_prefixes::<K>(&range, self.open.root.order)?))
    }

    /// Returns the entry with the least key.
    ///
    /// # Errors
    /// As [`get`](ReadTable::get).
    pub fn first(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
        self.typed(self.tree().first())
    }

    /// Returns the entry with the greatest key.
    ///
    /// # Errors
    /// As [`get`](ReadTable::get).
    pub fn last(&self) -> Result<Option<(K::Item<'_>, V::Item<'_>)>> {
        self.typed(self.tree().last())
    }

    /// Number of entries. It is stored with the table, so no page is read.
    pub fn len(&self) -> u64 {
        self.root().entries
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.root().entries == 0
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

    #[inline]
    pub(crate) fn root(&self) -> &TreeRoot {
        &self.open.root
    }

    #[inline]
    pub(super) fn tree(&self) -> Tree<'_, SnapshotPages> {
        Tree::new(self.pages(), self.root())
    }

    /// The flat index of the tree, if it has paid to build one. `keys` lookups are about to follow.
    #[inline(always)]
    fn flat_index(&self, keys: u32) -> Option<&FlatIndex> {
        self.open.flat_index(self.pages(), keys)
    }

    pub(super) fn place(&self) -> ErrorContext<'_> {
        ErrorContext { path: self.txn.env().path(), table: self.open.name() }
    }

    /// Returns `found`, or the error of an access that the kernel could not serve.
    #[inline]
    pub(super) fn check_fault<T>(&self, found: Result<T>) -> Result<T> {
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

    fn prefix_bounds(&self, prefix: &[u8]) -> Result<ByteBounds> {
        ByteBounds::prefix_in(prefix, self.open.root.order).map_err(|e| e.with_table(self.open.name()))
    }

    pub(crate) fn byte_range(&self, bounds: ByteBounds) -> tree::Range<'_, SnapshotPages> {
        tree::Range::new(self.tree(), self.flat_index(1), bounds.low, bounds.high)
    }

    fn typed<'a>(&self, entry: Result<Option<tree::Entry<'a>>>) -> Result<Option<(K::Item<'a>, V::Item<'a>)>> {
        self.check_fault(entry.and_then(|entry| entry.map(decode_entry::<K, V>).transpose()))
    }

    /// Adds the file and the table to an error.
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

/// A value that holds its transaction, from [`get_owned`](ReadTable::get_owned).
pub struct OwnedValue<K, V> {
    table: ReadTable<K, V>,
    key: Vec<u8>,
}

impl<K: KeyCodec, V: Codec> OwnedValue<K, V> {
    /// The value; it borrows this `OwnedValue`.
    ///
    /// # Errors
    /// `Corrupt` if the file was damaged meanwhile.
    pub fn get(&self) -> Result<V::Item<'_>> {
        let gone = || Error::corrupt(self.table.open.root.ptr.id, "the value was found before and is missing now");
        let found = self.table.tree().get(&self.key);
        self.table.check_fault(found.and_then(|found| decode_value::<V>(&self.key, found.ok_or_else(gone)?)))
    }
}

impl<K, V> std::fmt::Debug for OwnedValue<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnedValue").finish_non_exhaustive()
    }
}
