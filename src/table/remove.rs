//! Removing many entries through a table handle: ranges, all entries, those that a predicate
//! rejects or matches.
//!
//! Floor: table.
//!
//! Failure: an entry that does not decode is an error of its place. Errors of the tree end the
//! transaction.

use std::iter::FusedIterator;
use std::ops::RangeBounds;

use crate::error::{best_effort, Error, Result};
use crate::pager::PageRead as _;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::{decode_entry, TableMut};
use crate::tree::{Sift, Sifted};

impl<'t, K: KeyCodec, V: Codec> TableMut<'t, K, V> {
    /// Removes all entries of a range of keys; returns how many there were. Whole branches are cut
    /// off: that costs a step for each leaf of the range, and a look at those that this process has
    /// not written, not a deletion of each entry.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const EVENTS: Table<u64, &str> = Table::new("events");
    ///
    /// let txn = db.begin_write()?;
    /// let mut events = txn.table(EVENTS)?;
    /// events.put_all((0..100).map(|n| (n, "event")))?;
    /// assert_eq!(events.remove_range(..90)?, 90);
    /// assert_eq!(events.len(), 10);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent: nothing was changed. `DiskFull`, `Io`,
    /// `Corrupt`: abort the transaction.
    pub fn remove_range<'k>(&mut self, range: impl RangeBounds<K::Key<'k>>) -> Result<u64> {
        let bounds = ByteBounds::of::<K>(&range)?.half_open_in(self.access().tree());
        let Some((low, high)) = self.access().check_fault(bounds)? else { return Ok(0) };
        self.change().run(|running, at| running.remove_range(at, low.as_deref(), high.as_deref()))
    }

    /// Removes all entries; returns how many there were. The table stays, with its codecs. Costs as
    /// much as [`remove_range`](TableMut::remove_range) of all keys.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const CACHE: Table<&str, u32> = Table::new("cache");
    ///
    /// let txn = db.begin_write()?;
    /// let mut cache = txn.table(CACHE)?;
    /// cache.put_all([("a", 1), ("b", 2)])?;
    /// assert_eq!(cache.clear()?, 2);
    /// assert!(cache.is_empty());
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn clear(&mut self) -> Result<u64> {
        self.change().run(|running, at| running.remove_range(at, None, None))
    }

    /// Removes the entries for which `keep` returns false; returns how many. Rewrites each leaf
    /// that loses entries once, so it is faster than to remove them by key.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const AGES: Table<&str, u32> = Table::new("ages");
    ///
    /// let txn = db.begin_write()?;
    /// let mut ages = txn.table(AGES)?;
    /// ages.put_all([("ada", 36), ("grace", 85), ("alan", 41)])?;
    /// assert_eq!(ages.retain(|_, age| age < 80)?, 1);
    /// assert!(!ages.contains_key("grace")?);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Decode` for an entry that does not decode: it stays, and entries before it may be removed;
    /// the transaction can go on. `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn retain(&mut self, keep: impl FnMut(K::Item<'_>, V::Item<'_>) -> bool) -> Result<u64> {
        self.retain_between(ByteBounds::ALL, keep)
    }

    /// Removes the entries of a range of keys for which `keep` returns false; returns how many. All
    /// other entries stay.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const EVENTS: Table<u64, u8> = Table::new("events");
    ///
    /// let txn = db.begin_write()?;
    /// let mut events = txn.table(EVENTS)?;
    /// events.put_all((0..100).map(|number| (number, (number % 3) as u8)))?;
    /// assert_eq!(events.retain_in(..50, |_, level| level == 2)?, 34);
    /// assert_eq!(events.len(), 66);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`retain`](TableMut::retain), and `Usage` for a bound that the codec cannot represent:
    /// nothing was changed.
    pub fn retain_in<'k>(
        &mut self,
        range: impl RangeBounds<K::Key<'k>>,
        keep: impl FnMut(K::Item<'_>, V::Item<'_>) -> bool,
    ) -> Result<u64> {
        self.retain_between(ByteBounds::of::<K>(&range)?, keep)
    }

    fn retain_between(
        &mut self,
        bounds: ByteBounds,
        mut keep: impl FnMut(K::Item<'_>, V::Item<'_>) -> bool,
    ) -> Result<u64> {
        let mut pass = Pass::new(self, bounds)?;
        let mut removed = 0;
        loop {
            let Pass { table, sift } = &mut pass;
            let judged = sift.judge_leaf(table.access().tree(), &mut |key, value| {
                let (key, value) = decode_entry::<K, V>((key, value))?;
                Ok(keep(key, value))
            });
            match table.access().check_fault(judged) {
                Ok(true) => removed += pass.take_leaf()?,
                Ok(false) => return Ok(removed + pass.finish()?),
                Err(e) => {
                    pass.finish()?;
                    return Err(pass.locate(e));
                }
            }
        }
    }

    /// Removes the entries for which `matches` returns true, one after the other, and returns them
    /// as the iterator goes on. Entries that it has not reached stay.
    ///
    /// ```
    /// # use mapleaf::{Db, Result, Table};
    /// # let db = Db::in_memory()?;
    /// const JOBS: Table<u64, &str> = Table::new("jobs");
    ///
    /// let txn = db.begin_write()?;
    /// let mut jobs = txn.table(JOBS)?;
    /// jobs.put_all([(1, "mail"), (2, "print"), (3, "mail"), (4, "mail")])?;
    /// let mails = jobs.extract_if(|_, job| job == "mail").take(2).collect::<Result<Vec<_>>>()?;
    /// assert_eq!(mails, [(1, "mail".to_string()), (3, "mail".to_string())]);
    /// assert_eq!(jobs.len(), 2);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// The iterator reports an entry that does not decode, leaves it, and goes on. After any other
    /// error it ends, and the transaction has to be aborted.
    pub fn extract_if<F>(&mut self, matches: F) -> ExtractIf<'_, 't, K, V, F>
    where
        F: FnMut(K::Item<'_>, V::Item<'_>) -> bool,
    {
        ExtractIf { pass: Pass { table: self, sift: Sift::new(None, None) }, matches, is_done: false }
    }

    /// Like [`extract_if`](TableMut::extract_if), for the entries of a range of keys.
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent. The iterator reports other errors.
    pub fn extract_if_in<'k, F>(
        &mut self,
        range: impl RangeBounds<K::Key<'k>>,
        matches: F,
    ) -> Result<ExtractIf<'_, 't, K, V, F>>
    where
        F: FnMut(K::Item<'_>, V::Item<'_>) -> bool,
    {
        let bounds = ByteBounds::of::<K>(&range)?;
        Ok(ExtractIf { pass: Pass::new(self, bounds)?, matches, is_done: false })
    }
}

/// A pass over a range of a table, whose entries are judged one after the other. It ends when it is
/// dropped, also by a panic of the predicate: what was rejected before is removed.
struct Pass<'h, 't, K, V> {
    table: &'h mut TableMut<'t, K, V>,
    sift: Sift,
}

impl<'h, 't, K, V> Pass<'h, 't, K, V> {
    fn new(table: &'h mut TableMut<'t, K, V>, bounds: ByteBounds) -> Result<Pass<'h, 't, K, V>> {
        let bounds = table.access().check_fault(bounds.half_open_in(table.access().tree()));
        let sift = match bounds? {
            Some((low, high)) => Sift::new(low.as_deref(), high.as_deref()),
            None => Sift::of_nothing(),
        };
        Ok(Pass { table, sift })
    }

    /// Deals with the leaf whose entries were judged. Returns how many entries are gone.
    fn take_leaf(&mut self) -> Result<u64> {
        self.table.change().run(|running, at| running.sift_out(at, &mut self.sift))
    }

    /// Removes what was rejected, and ends the pass. Returns how many entries are gone.
    fn finish(&mut self) -> Result<u64> {
        self.table.change().run(|running, at| running.finish_sift(at, &mut self.sift))
    }

    #[cold]
    fn locate(&self, e: Error) -> Error {
        e.with_path(self.table.access().path()).with_table(self.table.access().name())
    }
}

impl<K, V> Drop for Pass<'_, '_, K, V> {
    fn drop(&mut self) {
        if self.sift.has_changes() {
            // After an error the transaction is broken, and the next call returns it.
            best_effort(self.finish());
        }
    }
}

/// An iterator that removes entries, from [`TableMut::extract_if`].
///
/// The entries are removed at the latest when the iterator is dropped. If it never is
/// ([`std::mem::forget`]), the transaction may have to be aborted, or the last entries that it has
/// returned may stay in the table.
#[must_use = "the iterator removes an entry only when it reaches it"]
pub struct ExtractIf<'h, 't, K, V, F> {
    pass: Pass<'h, 't, K, V>,
    matches: F,
    is_done: bool,
}

/// What the iterator does after a look at the next entry.
enum Step<T> {
    Give(T),
    Skip,
    TakeLeaf,
    End,
}

impl<K: KeyCodec, V: Codec, F: FnMut(K::Item<'_>, V::Item<'_>) -> bool> ExtractIf<'_, '_, K, V, F> {
    fn step(&mut self) -> Result<Step<(K::Owned, V::Owned)>> {
        let Pass { table, sift } = &mut self.pass;
        let access = table.access();
        access.check_process()?;
        let sifted = sift.peek(access.tree());
        let entry = match access.check_fault(sifted)? {
            Sifted::Entry(entry) => entry,
            Sifted::LeafDone => return Ok(Step::TakeLeaf),
            Sifted::Done => return Ok(Step::End),
        };
        let decoded = decode_entry::<K, V>(entry).and_then(|(key, value)| match (self.matches)(key, value) {
            // The predicate has consumed the items.
            true => decode_entry::<K, V>(entry).map(Some),
            false => Ok(None),
        });
        let found = decoded.map(|found| found.map(|(key, value)| (K::to_owned(key), V::to_owned(value))));
        let found = access.check_fault(found);
        sift.judge(!matches!(found, Ok(Some(_))));
        Ok(found?.map_or(Step::Skip, Step::Give))
    }
}

impl<K: KeyCodec, V: Codec, F: FnMut(K::Item<'_>, V::Item<'_>) -> bool> Iterator for ExtractIf<'_, '_, K, V, F> {
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_done {
            let failed = match self.step() {
                Ok(Step::Give(entry)) => return Some(Ok(entry)),
                Ok(Step::Skip) => continue,
                Ok(Step::TakeLeaf) => match self.pass.take_leaf() {
                    Ok(_count) => continue,
                    Err(e) => Some(e),
                },
                Ok(Step::End) => self.pass.finish().err(),
                Err(e @ Error::Decode { .. }) => return Some(Err(self.pass.locate(e))),
                Err(e) => Some(self.pass.locate(e)),
            };
            self.is_done = true;
            return failed.map(Err);
        }
        None
    }
}

impl<K: KeyCodec, V: Codec, F: FnMut(K::Item<'_>, V::Item<'_>) -> bool> FusedIterator for ExtractIf<'_, '_, K, V, F> {}

impl<K, V, F> std::fmt::Debug for ExtractIf<'_, '_, K, V, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExtractIf").field("table", &self.pass.table.access().name()).finish_non_exhaustive()
    }
}
