//! A table of any kind as bytes: plain ones and multimaps.
//!
//! An entry of a multimap is a pair of it. To put a pair adds the value to the key, and to delete a
//! key removes all its values.

use std::ops::{Bound, ControlFlow};

use mapleaf::{KeyOrder, MultiTableMut, ReadMultiTable, ReadTable, ReadTxn, Result, TableMut, WriteTxn};

use crate::exit::Failure;

type Bytes = &'static [u8];

/// Entries of a table, from both ends.
pub(crate) type Entries<'a> = Box<dyn DoubleEndedIterator<Item = Result<(&'a [u8], &'a [u8])>> + 'a>;

/// A table to read.
pub(crate) enum AnyTable {
    Plain(ReadTable<Bytes, Bytes>),
    /// A plain table with keys in descending order.
    Descending(ReadTable<Bytes, Bytes>),
    Multi(ReadMultiTable<Bytes, Bytes>),
}

impl AnyTable {
    pub(crate) fn open(txn: &ReadTxn, name: &str) -> Result<AnyTable> {
        match txn.table_info(name)? {
            Some(info) if info.is_multimap => txn.multi_bytes_table(name).map(AnyTable::Multi),
            Some(info) if info.key_order == KeyOrder::Descending => txn.bytes_table(name).map(AnyTable::Descending),
            _ => txn.bytes_table(name).map(AnyTable::Plain),
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> u64 {
        match self {
            AnyTable::Plain(table) | AnyTable::Descending(table) => table.len(),
            AnyTable::Multi(table) => table.len(),
        }
    }

    /// The entries whose keys lie in a range, in the order of the table.
    pub(crate) fn range<'a>(&'a self, bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>)) -> Result<Entries<'a>> {
        Ok(match self {
            AnyTable::Plain(table) => Box::new(table.range(bounds)?),
            AnyTable::Descending(table) => Box::new(table.range((bounds.1, bounds.0))?),
            AnyTable::Multi(table) => Box::new(table.range(bounds)?),
        })
    }

    /// Reads all pages of a range of keys into memory; returns their number.
    pub(crate) fn warm(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<u64> {
        match self {
            AnyTable::Plain(table) => table.warm_with(bounds, progress),
            AnyTable::Descending(table) => table.warm_with((bounds.1, bounds.0), progress),
            AnyTable::Multi(table) => table.warm_with(bounds, progress),
        }
    }

    /// The values of a key: at most one, except in a multimap.
    pub(crate) fn values(&self, key: &[u8]) -> Result<Vec<&[u8]>> {
        match self {
            AnyTable::Plain(table) | AnyTable::Descending(table) => Ok(table.get(key)?.into_iter().collect()),
            AnyTable::Multi(table) => table.values(key)?.collect(),
        }
    }
}

/// Opens a plain table to change it by a verb that needs one value for each key, or makes one.
pub(crate) fn plain_to_write<'t>(
    txn: &'t WriteTxn,
    name: &str,
    verb: &str,
) -> std::result::Result<TableMut<'t, Bytes, Bytes>, Failure> {
    if txn.table_info(name)?.is_some_and(|info| info.is_multimap) {
        return Err(Failure::usage(format!(
            "table '{name}' is a multimap table, whose keys have several values, and {verb} needs a table with one value \
             for each key; to change a value here, 'kvctl txn' can check for a pair, del it and put another"
        )));
    }
    Ok(txn.bytes_table(name)?)
}

/// A table to change.
pub(crate) enum AnyTableMut<'t> {
    Plain(TableMut<'t, Bytes, Bytes>),
    /// A plain table with keys in descending order.
    Descending(TableMut<'t, Bytes, Bytes>),
    Multi(MultiTableMut<'t, Bytes, Bytes>),
}

impl AnyTableMut<'_> {
    /// Opens a table, or makes a plain one.
    pub(crate) fn open<'t>(txn: &'t WriteTxn, name: &str) -> Result<AnyTableMut<'t>> {
        match txn.table_info(name)? {
            Some(info) if info.is_multimap => txn.multi_bytes_table(name).map(AnyTableMut::Multi),
            Some(info) if info.key_order == KeyOrder::Descending => txn.bytes_table(name).map(AnyTableMut::Descending),
            _ => txn.bytes_table(name).map(AnyTableMut::Plain),
        }
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match self {
            AnyTableMut::Plain(table) | AnyTableMut::Descending(table) => table.put(key, value).map(drop),
            AnyTableMut::Multi(table) => table.insert(key, value).map(drop),
        }
    }

    pub(crate) fn is_multimap(&self) -> bool {
        matches!(self, AnyTableMut::Multi(_))
    }

    /// Whether a key has a value; without one, whether the table has the key.
    pub(crate) fn has(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        match (self, value) {
            (AnyTableMut::Plain(table) | AnyTableMut::Descending(table), Some(value)) => {
                Ok(table.get(key)? == Some(value))
            }
            (AnyTableMut::Plain(table) | AnyTableMut::Descending(table), None) => table.contains_key(key),
            (AnyTableMut::Multi(table), Some(value)) => table.contains(key, value),
            (AnyTableMut::Multi(table), None) => table.contains_key(key),
        }
    }

    /// Deletes a key. Returns the number of entries that it had.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<u64> {
        match self {
            AnyTableMut::Plain(table) | AnyTableMut::Descending(table) => table.delete(key).map(u64::from),
            AnyTableMut::Multi(table) => table.remove_all(key),
        }
    }

    /// Deletes one value of a key of a multimap. `None` for other tables, which have one value.
    pub(crate) fn delete_value(&mut self, key: &[u8], value: &[u8]) -> Result<Option<bool>> {
        match self {
            AnyTableMut::Plain(_) | AnyTableMut::Descending(_) => Ok(None),
            AnyTableMut::Multi(table) => table.remove(key, value).map(Some),
        }
    }

    /// Deletes the keys of a range. Returns the number of entries that they had.
    pub(crate) fn delete_range(&mut self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> Result<u64> {
        match self {
            AnyTableMut::Plain(table) => table.remove_range(bounds),
            AnyTableMut::Descending(table) => table.remove_range((bounds.1, bounds.0)),
            AnyTableMut::Multi(table) => table.remove_range(bounds),
        }
    }
}
