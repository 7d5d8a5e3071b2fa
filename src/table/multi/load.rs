//! Bulk load of pairs.
//!
//! Floor: table.
//!
//! Failure: a refused pair changes nothing. After any other error, or if a load is not finished,
//! the transaction can only be aborted, and its calls return an error that says so.

use std::marker::PhantomData;

use crate::error::Result;
use crate::table::codec::KeyCodec;
use crate::table::multi::MultiTableMut;
use crate::txn::write::multi::PairsLoad;
use crate::txn::write::shared::TableChange;

impl<K: KeyCodec, V: KeyCodec> MultiTableMut<'_, K, V> {
    /// Adds many pairs, in any order; returns how many are new. This is the fastest way to fill a
    /// multimap table. Pairs in ascending order, whose keys lie after the last key of the table,
    /// leave full pages and take no memory. From the first pair out of order on, pairs are
    /// collected in memory, up to 4 MiB at a time, and sorted.
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable};
    /// # let db = Db::in_memory()?;
    /// const DIVISORS: MultiTable<u64, u64> = MultiTable::new("divisors");
    ///
    /// let txn = db.begin_write()?;
    /// let mut divisors = txn.multi_table(DIVISORS)?;
    /// let pairs = (1..1000).flat_map(|n| (1..=n).filter(move |d| n % d == 0).map(move |d| (n, d)));
    /// assert_eq!(divisors.load(pairs)?, divisors.len());
    /// assert_eq!(divisors.count(28)?, 6);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `TooLarge` or `Usage` for a pair, as from [`insert`](MultiTableMut::insert), `DiskFull`,
    /// `Io`, `Corrupt`: abort the transaction. To go on after a refused pair, use a
    /// [`MultiLoader`].
    pub fn load<'k, 'v>(&mut self, pairs: impl IntoIterator<Item = (K::Item<'k>, V::Item<'v>)>) -> Result<u64> {
        let mut loader = self.loader()?;
        for (key, value) in pairs {
            loader.push(key, value)?;
        }
        loader.finish()
    }

    /// Like [`load`](MultiTableMut::load), one pair at a time.
    ///
    /// # Errors
    /// `Usage` if the transaction can only be aborted after an earlier error, `Corrupt` if the last
    /// key cannot be read.
    pub fn loader(&mut self) -> Result<MultiLoader<'_, K, V>> {
        let mut table = self.change();
        let load = table.run(|running, at| running.begin_pairs(at))?;
        Ok(MultiLoader { table, load, types: PhantomData })
    }
}

/// A bulk load that takes pairs one at a time; see [`MultiTableMut::load`].
///
/// The pairs are in the table after [`MultiLoader::finish`] has returned. If a loader is dropped
/// before that, the transaction can only be aborted.
#[must_use = "pairs are in the table only after `finish` has returned"]
pub struct MultiLoader<'t, K, V> {
    table: TableChange<'t>,
    load: PairsLoad,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyCodec, V: KeyCodec> MultiLoader<'_, K, V> {
    /// Adds a pair.
    ///
    /// # Errors
    /// `TooLarge` or `Usage` as [`insert`](MultiTableMut::insert): this pair was not added, and the
    /// load can go on. `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    #[inline]
    pub fn push<'k, 'v>(&mut self, key: K::Item<'k>, value: V::Item<'v>) -> Result<()> {
        let (key, value) = (K::encode(&key)?, V::encode(&value)?);
        self.table.run(|running, _| running.load_pair(&mut self.load, &key, &value))
    }

    /// Stores all pairs in the table and returns how many are new.
    ///
    /// # Errors
    /// `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn finish(mut self) -> Result<u64> {
        self.table.run(|running, _| running.end_pairs(&mut self.load))
    }
}

impl<K, V> Drop for MultiLoader<'_, K, V> {
    fn drop(&mut self) {
        self.table.run(|running, _| running.leave_pairs(&self.load));
    }
}

impl<K, V> std::fmt::Debug for MultiLoader<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiLoader").field("taken", &self.load.count()).finish_non_exhaustive()
    }
}
