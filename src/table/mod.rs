//! Typed tables: how Rust values become the bytes that trees store, and the handles that users work
//! with.
//!
//! Floor: table, the highest of the crate. All floors below work on bytes.
//!
//! ```text
//! bounds     ranges of keys as bytes
//! codec      how keys and values become bytes; how to write a codec
//! read       handles of read transactions
//! table_ref  handles of write transactions that read
//! write      handles of write transactions that write
//! readable   the trait of all handles
//! cursor     cursors that write, and entries at the ends of a table
//! entry      the entry of a key: read, store, change or remove it
//! update     changes of one entry that depend on what the table has
//! load       bulk load
//! parts      parts for parallel scans, estimates, random entries
//! remove     removing many entries through a handle of a write transaction
//! multi/     multimap tables: several values for each key
//! place      values that the caller writes directly into pages of the file
//! range      iterators over entries
//! ```

mod bounds;
pub mod codec;
mod cursor;
mod entry;
mod load;
mod multi;
mod parts;
mod place;
mod range;
mod read;
mod readable;
mod remove;
mod table_ref;
mod update;
mod warm;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use crate::catalog::{TableOrder, TableRecord};
use crate::error::{Error, Result};
use crate::page::order::Order;
use crate::pager::PageRead;
use crate::tree::{FlatIndex, Tree};

use codec::{Codec, Encoded, KeyCodec};
pub use cursor::{CursorMut, Position};
pub use entry::{Entry, OccupiedEntry, VacantEntry};
pub use load::Loader;
pub use multi::{
    CopiedPairs, CopiedValues, MultiCursorMut, MultiExtractIf, MultiLoader, MultiPosition, MultiRange, MultiTable,
    MultiTableMut, MultiTableRef, PairsOwned, ReadMultiTable, ReadableMultiTable, Values, ValuesOwned,
};
pub use parts::{Estimate, Part, SplitPoints};
pub use place::Reserved;
pub use range::{EntriesOwned, Range, RangeOwned};
pub use read::{OwnedValue, ReadTable};
pub use readable::ReadableTable;
pub use remove::ExtractIf;
pub use table_ref::TableRef;
pub use write::TableMut;

/// The name of a table and the types of its keys and values.
///
/// ```
/// use mapleaf::Table;
///
/// const USERS: Table<&str, u64> = Table::new("users");
/// const EDGES: Table<(u64, u64), &[u8]> = Table::new("edges");
/// ```
///
/// A write transaction that first opens the table stores the names of its codecs. Every later open
/// compares them. See [`codec`] for the types of keys and values, and for an example of a codec of
/// your own.
pub struct Table<K, V> {
    name: Cow<'static, str>,
    order: TableOrder<'static>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyCodec, V: Codec> Table<K, V> {
    /// A table of this name, of up to 255 bytes.
    pub const fn new(name: &'static str) -> Table<K, V> {
        Table { name: Cow::Borrowed(name), order: TableOrder::Bytewise, types: PhantomData }
    }

    /// A table whose name is known only when the program runs.
    pub fn named(name: impl Into<String>) -> Table<K, V> {
        Table { name: Cow::Owned(name.into()), order: TableOrder::Bytewise, types: PhantomData }
    }

    /// The same table with its keys in descending order: the reverse of the order of their bytes.
    /// Scans, ranges, [`first`](ReadTable::first) and all else go by it. A range begins with its
    /// greatest key. [`Reverse`](std::cmp::Reverse) as a part of a key reverses that part only.
    ///
    /// Searches in such tables are slower than in others, by about a half: they compare whole keys,
    /// and pages hold keys without shortening them. Keys are limited to those that fit a page: a
    /// quarter of the page size less 24 bytes.
    ///
    /// ```
    /// # use mapleaf::{Db, Result, Table};
    /// # let db = Db::in_memory()?;
    /// const SCORES: Table<u64, &str> = Table::new("scores").descending();
    /// db.write(|txn| txn.table(SCORES)?.put_all([(3, "ada"), (7, "bob"), (5, "eve")]))?;
    ///
    /// let scores = db.begin_read()?.table(SCORES)?;
    /// assert_eq!(scores.first()?, Some((7, "bob")));
    /// assert_eq!(scores.range(6..)?.collect::<Result<Vec<_>>>()?, [(5, "eve"), (3, "ada")]);
    ///
    /// // The order is stored with the table, and compared when it is opened.
    /// assert!(db.begin_read()?.table(Table::<u64, &str>::new("scores")).is_err());
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub const fn descending(mut self) -> Table<K, V> {
        self.order = TableOrder::Descending;
        self
    }

    /// The same table with its keys in the order of a comparison, which the program registers under
    /// this name by [`Options::key_order`](crate::Options::key_order). Else as
    /// [`descending`](Table::descending); a scan by prefix is an error.
    pub const fn ordered_by(mut self, name: &'static str) -> Table<K, V> {
        self.order = TableOrder::Named(name);
        self
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The order of the keys of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyOrder {
    /// The order of the encoded bytes; see [`codec`].
    #[default]
    Bytewise,
    /// Its reverse: [`Table::descending`].
    Descending,
    /// A comparison with this name: [`Table::ordered_by`].
    Named(String),
}

impl KeyOrder {
    fn as_order(&self) -> TableOrder<'_> {
        match self {
            KeyOrder::Bytewise => TableOrder::Bytewise,
            KeyOrder::Descending => TableOrder::Descending,
            KeyOrder::Named(name) => TableOrder::Named(name),
        }
    }

    fn of(record: &TableRecord) -> KeyOrder {
        match record.root.order {
            Order::Bytewise => KeyOrder::Bytewise,
            Order::Descending => KeyOrder::Descending,
            Order::Named(_) | Order::Unknown => KeyOrder::Named(record.key_order.clone()),
        }
    }
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Table<K, V> {
        Table { name: self.name.clone(), order: self.order, types: PhantomData }
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}

/// The catalog record of a table, for tools.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its entries; in a multimap table, its pairs.
    pub entries: u64,
    /// Its keys: as many as entries, except in a multimap table.
    pub keys: u64,
    /// Whether it is a multimap table.
    pub is_multimap: bool,
    /// The size of each value of a multimap table, if all have the same.
    pub value_bytes: Option<usize>,
    /// The order of its keys.
    pub key_order: KeyOrder,
    /// Levels of its tree; 0 when it is empty.
    pub height: u8,
    /// Name of the codec of its keys. Empty if the table was created without types.
    pub key_codec: String,
    /// Name of the codec of its values. Empty if the table was created without types.
    pub value_codec: String,
    /// The id of its tree, which is in the header of each of its pages.
    pub tree_id: u32,
}

impl TableInfo {
    fn of(name: String, record: TableRecord) -> TableInfo {
        TableInfo {
            name,
            entries: record.entries(),
            keys: record.root.entries,
            is_multimap: record.root.shape.is_multi(),
            value_bytes: record.root.shape.width(),
            key_order: KeyOrder::of(&record),
            height: record.root.height,
            key_codec: record.key_codec,
            value_codec: record.value_codec,
            tree_id: record.root.tree.0,
        }
    }
}

/// Maximum number of bytes of a key to show in an error message.
const SHOWN_BYTES: usize = 40;

/// A key as text for messages, cut if it is long.
fn shown(key: &[u8]) -> String {
    let cut = &key[..key.len().min(SHOWN_BYTES)];
    format!("'{}{}'", cut.escape_ascii(), if cut.len() < key.len() { ".." } else { "" })
}

#[cold]
fn undecodable_key<K: Codec>(key: &[u8], e: &codec::CodecError) -> Error {
    let what = format!(
        "the key {} of {} bytes does not decode as {}: {e}; bytes_table shows the entry and removes it",
        shown(key),
        key.len(),
        K::name()
    );
    Error::Decode { path: None, table: None, what }
}

#[cold]
fn undecodable_value<V: Codec>(key: &[u8], value: &[u8], e: &codec::CodecError) -> Error {
    let what = format!(
        "the value of key {} has {} bytes that do not decode as {}: {e}; insert or put replaces it, bytes_table shows it",
        shown(key),
        value.len(),
        V::name()
    );
    Error::Decode { path: None, table: None, what }
}

#[inline]
fn decode_key<K: Codec>(key: &[u8]) -> Result<K::Item<'_>> {
    K::decode(key).map_err(|e| undecodable_key::<K>(key, &e))
}

/// Decodes the value of `key`.
#[inline]
fn decode_value<'a, V: Codec>(key: &[u8], value: &'a [u8]) -> Result<V::Item<'a>> {
    V::decode(value).map_err(|e| undecodable_value::<V>(key, value, &e))
}

/// Looks up many keys of a tree; the values are in the order of the keys.
fn values_of<'a, K: KeyCodec, V: Codec, P: PageRead>(
    tree: Tree<'a, P>,
    flat_index: Option<&FlatIndex>,
    keys: &[K::Key<'_>],
) -> Result<Vec<Option<V::Item<'a>>>> {
    let encoded: Vec<Encoded<'_>> = keys.iter().map(K::encode_key).collect::<Result<_>>()?;
    let keys: Vec<&[u8]> = encoded.iter().map(|key| &**key).collect();
    let mut values = Vec::with_capacity(keys.len());
    tree.get_many(flat_index, &keys, |found| {
        let key = keys[values.len()];
        values.push(found.map(|value| decode_value::<V>(key, value)).transpose()?);
        Ok(())
    })?;
    Ok(values)
}

/// Decodes a key and its value.
#[inline]
fn decode_entry<'a, K: Codec, V: Codec>((key, value): (&'a [u8], &'a [u8])) -> Result<(K::Item<'a>, V::Item<'a>)> {
    Ok((decode_key::<K>(key)?, decode_value::<V>(key, value)?))
}

/// Decodes several entries.
fn decode_entries<'a, K: Codec, V: Codec>(
    entries: Vec<(&'a [u8], &'a [u8])>,
) -> Result<Vec<(K::Item<'a>, V::Item<'a>)>> {
    entries.into_iter().map(decode_entry::<K, V>).collect()
}
