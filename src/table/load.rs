//! Bulk load: many entries at once.
//!
//! Floor: table.
//!
//! Failure: a refused entry changes nothing. After any other error, or if a load is not finished,
//! the transaction can only be aborted, and its calls return an error that says so.

use std::marker::PhantomData;

use crate::error::Result;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::TableMut;
use crate::txn::write::load::Load;
use crate::txn::write::shared::TableChange;

/// Default memory for sorting: 256 MiB.
const MEMORY_BYTES: usize = 256 << 20;

impl<K: KeyCodec, V: Codec> TableMut<'_, K, V> {
    /// Stores many entries, in any order. This is the fastest way to fill a table, and leaves full
    /// pages. Of entries with the same key the last one is kept; it also replaces an entry of the
    /// table. Returns the number of entries that were given.
    ///
    /// Entries in ascending key order, after the last key of the table, take no memory. From the
    /// first entry out of order on, entries are sorted in memory, up to 256 MiB; [`Loader::memory`]
    /// changes that. Each time the memory is full, its entries are merged with the table in one
    /// pass, so more memory means fewer passes.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const SQUARES: Table<u64, u64> = Table::new("squares");
    ///
    /// let txn = db.begin_write()?;
    /// let mut squares = txn.table(SQUARES)?;
    /// assert_eq!(squares.load((0..1000).rev().map(|n| (n, n * n)))?, 1000);
    /// assert_eq!(squares.get(31)?, Some(961));
    /// txn.commit()?;
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `TooLarge` or `Usage` for an entry, as from [`insert`](TableMut::insert), `DiskFull`, `Io`,
    /// `Corrupt`: abort the transaction. To go on after a refused entry, use a [`Loader`].
    pub fn load<'k, 'v>(&mut self, entries: impl IntoIterator<Item = (K::Item<'k>, V::Item<'v>)>) -> Result<u64> {
        let mut loader = self.loader()?;
        for (key, value) in entries {
            loader.push(key, value)?;
        }
        loader.finish()
    }

    /// Like [`load`](TableMut::load), one entry at a time, for entries that an iterator cannot
    /// provide.
    ///
    /// # Errors
    /// `Usage` if the transaction can only be aborted after an earlier error.
    pub fn loader(&mut self) -> Result<Loader<'_, K, V>> {
        let mut table = self.change();
        let load = table.run(|running, at| running.begin_load(at, MEMORY_BYTES))?;
        Ok(Loader { table, load, types: PhantomData })
    }
}

/// A bulk load that takes entries one at a time; see [`TableMut::load`].
///
/// The entries are in the table after [`Loader::finish`] has returned. If a loader is dropped
/// before that, the transaction can only be aborted.
///
/// ```
/// # use mapleaf::{Db, Table};
/// # let db = Db::in_memory()?;
/// const WORDS: Table<&str, u32> = Table::new("words");
///
/// let txn = db.begin_write()?;
/// let mut words = txn.table(WORDS)?;
/// let mut loader = words.loader()?.memory(16 << 20);
/// for (line, word) in "the quick brown fox".split(' ').enumerate() {
///     loader.push(word, line as u32)?;
/// }
/// assert_eq!(loader.finish()?, 4);
/// assert_eq!(words.get("fox")?, Some(3));
/// txn.commit()?;
/// # Ok::<(), mapleaf::Error>(())
/// ```
#[must_use = "entries are in the table only after `finish` has returned"]
pub struct Loader<'t, K, V> {
    table: TableChange<'t>,
    load: Load,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyCodec, V: Codec> Loader<'_, K, V> {
    /// Sets how many bytes of memory sorting may take; it takes at least enough for one entry.
    /// Entries in order take none.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.load.set_memory(bytes);
        self
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `TooLarge` or `Usage` as [`insert`](TableMut::insert): this entry was not added, and the
    /// load can go on. `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    #[inline]
    pub fn push<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<()> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        self.table.run(|running, _| running.load(&mut self.load, &key, &value))
    }

    /// Stores all entries in the table and returns how many were added.
    ///
    /// # Errors
    /// `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn finish(mut self) -> Result<u64> {
        self.table.run(|running, _| running.end_load(&mut self.load))?;
        Ok(self.load.count())
    }
}

impl<K, V> Drop for Loader<'_, K, V> {
    fn drop(&mut self) {
        self.table.run(|running, _| running.leave_load(&self.load));
    }
}

impl<K, V> std::fmt::Debug for Loader<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("taken", &self.load.count()).finish_non_exhaustive()
    }
}
