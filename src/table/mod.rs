//! Typed tables: what lies between Rust values and the bytes that trees hold.
//!
//! Floor: table, the highest of the crate. Everything below works on bytes; here they get their types.
//!
//! ```text
//! codec   how keys and values become bytes
//! read    handles of read transactions
//! write   handles of write transactions
//! load    many entries at once
//! place   values that are written where they will lie
//! range   iterators over entries
//! ```

pub mod codec;
mod load;
mod place;
mod range;
mod read;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use crate::catalog::TableRecord;
use crate::error::{Error, Result};

use codec::{Codec, KeyCodec};
pub use load::Loader;
pub use place::Reserved;
pub use range::{Range, RangeOwned};
pub use read::{OwnedValue, ReadTable};
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
/// The names of the codecs are stored with the table when a write transaction first opens it, and compared whenever it
/// is opened later. See [`codec`] for what keys and values may be.
pub struct Table<K, V> {
    name: Cow<'static, str>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyCodec, V: Codec> Table<K, V> {
    /// A table of this name, of up to 255 bytes.
    pub const fn new(name: &'static str) -> Table<K, V> {
        Table { name: Cow::Borrowed(name), types: PhantomData }
    }

    /// A table whose name is known only when the program runs.
    pub fn named(name: impl Into<String>) -> Table<K, V> {
        Table { name: Cow::Owned(name.into()), types: PhantomData }
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Table<K, V> {
        Table { name: self.name.clone(), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}

/// What the catalog says of a table, for tools.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its entries.
    pub entries: u64,
    /// Levels of its tree; 0 when it is empty.
    pub height: u8,
    /// Name of the codec of its keys. Empty if the table was made without types.
    pub key_codec: String,
    /// Name of the codec of its values. Empty if the table was made without types.
    pub value_codec: String,
    /// The number of its tree, which its pages carry.
    pub tree_id: u32,
}

impl TableInfo {
    fn of(name: String, record: TableRecord) -> TableInfo {
        TableInfo {
            name,
            entries: record.root.entries,
            height: record.root.height,
            key_codec: record.key_codec,
            value_codec: record.value_codec,
            tree_id: record.root.tree.0,
        }
    }
}

/// Bytes of the file that are no item of the table's codec. They were written by another program, or are damaged.
#[cold]
fn undecodable(what: &'static str, e: &codec::CodecError) -> Error {
    Error::Corrupt { path: None, page: None, table: None, what: format!("a {what} does not decode: {e}") }
}

#[inline]
fn decode_key<K: Codec>(bytes: &[u8]) -> Result<K::Item<'_>> {
    K::decode(bytes).map_err(|e| undecodable("key", &e))
}

#[inline]
fn decode_value<V: Codec>(bytes: &[u8]) -> Result<V::Item<'_>> {
    V::decode(bytes).map_err(|e| undecodable("value", &e))
}
