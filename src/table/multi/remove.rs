//! Removing the pairs of a multimap that a predicate rejects or matches.
//!
//! Floor: table. A pass steps from pair to pair and keeps the values of one key that have to go. It
//! removes them together, before it judges the next key.
//!
//! Failure: a pair that does not decode is an error of its place. Errors of the tree end the
//! transaction.

use std::iter::FusedIterator;
use std::ops::RangeBounds;

use crate::error::{best_effort, Error, Result};
use crate::pager::PageRead as _;
use crate::table::bounds::ByteBounds;
use crate::table::codec::KeyCodec;
use crate::table::decode_entry;
use crate::table::multi::MultiTableMut;
use crate::tree::{Entry, PairSpot, Side};

/// Bytes of values that are collected before they are removed.
const BATCH_BYTES: usize = 64 << 10;

impl<'t, K: KeyCodec, V: KeyCodec> MultiTableMut<'t, K, V> {
    /// Removes the pairs for which `keep` returns false; returns how many. The values of a key that
    /// go are removed together.
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable};
    /// # let db = Db::in_memory()?;
    /// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
    ///
    /// let txn = db.begin_write()?;
    /// let mut tags = txn.multi_table(TAGS)?;
    /// tags.insert_all([("blue", 1), ("red", 3), ("red", 8)])?;
    /// assert_eq!(tags.retain(|_, id| id >= 3)?, 1);
    /// assert_eq!((tags.len(), tags.key_count()), (2, 1));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Decode` for a pair that does not decode: it stays, and pairs before it may be removed; the
    /// transaction can go on. `DiskFull`, `Io`, `Corrupt`: abort the transaction.
    pub fn retain(&mut self, keep: impl FnMut(K::Item<'_>, V::Item<'_>) -> bool) -> Result<u64> {
        self.retain_between(ByteBounds::ALL, keep)
    }

    /// Removes the pairs of a range of keys for which `keep` returns false; returns how many. All
    /// other pairs stay.
    ///
    /// # Errors
    /// As [`retain`](MultiTableMut::retain), and `Usage` for a bound that the codec cannot
    /// represent: nothing was changed.
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
        let mut pass = Pass::new(self, bounds);
        let before = pass.table.len();
        let mut judge = |pair: Entry<'_>| {
            let (key, value) = decode_entry::<K, V>(pair)?;
            Ok((!keep(key, value)).then_some(()))
        };
        loop {
            match pass.step(&mut judge) {
                Ok(Step::Give(()) | Step::Skip) => {}
                Ok(Step::End) => {
                    pass.finish()?;
                    return Ok(before - pass.table.len());
                }
                Err(e) => {
                    pass.finish()?;
                    return Err(e);
                }
            }
        }
    }

    /// Removes the pairs for which `matches` returns true, one after the other, and returns them as
    /// the iterator goes on. Pairs that it has not reached stay.
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable, Result};
    /// # let db = Db::in_memory()?;
    /// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
    ///
    /// let txn = db.begin_write()?;
    /// let mut tags = txn.multi_table(TAGS)?;
    /// tags.insert_all([("blue", 1), ("red", 3), ("red", 7), ("red", 8)])?;
    /// let odd = tags.extract_if(|_, id| id % 2 == 1).take(2).collect::<Result<Vec<_>>>()?;
    /// assert_eq!(odd, [("blue".to_string(), 1), ("red".to_string(), 3)]);
    /// assert_eq!(tags.len(), 2);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// The iterator reports a pair that does not decode, leaves it, and goes on. After any other
    /// error it ends, and the transaction has to be aborted.
    pub fn extract_if<F>(&mut self, matches: F) -> MultiExtractIf<'_, 't, K, V, F>
    where
        F: FnMut(K::Item<'_>, V::Item<'_>) -> bool,
    {
        MultiExtractIf { pass: Pass::new(self, ByteBounds::ALL), matches, is_done: false }
    }

    /// Like [`extract_if`](MultiTableMut::extract_if), for the pairs of a range of keys.
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent. The iterator reports other errors.
    pub fn extract_if_in<'k, F>(
        &mut self,
        range: impl RangeBounds<K::Key<'k>>,
        matches: F,
    ) -> Result<MultiExtractIf<'_, 't, K, V, F>>
    where
        F: FnMut(K::Item<'_>, V::Item<'_>) -> bool,
    {
        let bounds = ByteBounds::of::<K>(&range)?;
        Ok(MultiExtractIf { pass: Pass::new(self, bounds), matches, is_done: false })
    }
}

/// Values of one key, in ascending order.
#[derive(Default)]
struct OfOneKey {
    key: Vec<u8>,
    values: Vec<u8>,
    ends: Vec<usize>,
}

impl OfOneKey {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        if self.ends.is_empty() {
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        self.values.extend_from_slice(value);
        self.ends.push(self.values.len());
    }

    /// Whether the values have to be removed before one more, of this key, is judged.
    fn is_due(&self, key: &[u8]) -> bool {
        !self.ends.is_empty() && (self.values.len() >= BATCH_BYTES || self.key != key)
    }

    fn values(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.values[start..end]).collect()
    }

    fn clear(&mut self) {
        self.values.clear();
        self.ends.clear();
    }
}

/// A pass over a range of a table, whose pairs are judged one after the other. It ends when it is
/// dropped, also by a panic of the predicate: what was rejected before is removed.
struct Pass<'h, 't, K, V> {
    table: &'h mut MultiTableMut<'t, K, V>,
    spot: PairSpot,
    /// The first key after the range.
    high: Option<Vec<u8>>,
    rejected: OfOneKey,
}

/// What a step has met.
enum Step<T> {
    /// A pair that goes.
    Give(T),
    /// A pair that stays.
    Skip,
    End,
}

impl<'h, 't, K: KeyCodec, V: KeyCodec> Pass<'h, 't, K, V> {
    fn new(table: &'h mut MultiTableMut<'t, K, V>, bounds: ByteBounds) -> Self {
        let (low, high) = bounds.into_half_open();
        let mut spot = PairSpot::start();
        if let Some(low) = low {
            spot.go_to_key(&low);
        }
        Pass { table, spot, high, rejected: OfOneKey::default() }
    }

    /// Judges the next pair: `judge` returns something for a pair that goes.
    fn step<T>(&mut self, judge: &mut dyn FnMut(Entry<'_>) -> Result<Option<T>>) -> Result<Step<T>> {
        self.table.access().check_process()?;
        let mut is_moved = false;
        loop {
            let Pass { table, spot, high, rejected } = self;
            let access = table.access();
            let found = match is_moved {
                false => spot.step(access.tree(), Side::Last),
                true => spot.current(access.tree()),
            };
            let Some((key, value)) = table.locate_fault(found)? else { return Ok(Step::End) };
            if high.as_deref().is_some_and(|high| key >= high) {
                return Ok(Step::End);
            }
            if rejected.is_due(key) {
                self.remove_rejected()?;
                is_moved = true;
                continue;
            }
            // Check for a fault before the judgement counts: it covers every byte that was read.
            let judged = access.check_fault(judge((key, value)));
            return match judged.map_err(|e| table.locate(e))? {
                Some(given) => {
                    rejected.push(key, value);
                    Ok(Step::Give(given))
                }
                None => Ok(Step::Skip),
            };
        }
    }

    /// Removes what was rejected, so that the table is as judged so far.
    fn finish(&mut self) -> Result<()> {
        self.remove_rejected()
    }
}

impl<K, V> Pass<'_, '_, K, V> {
    fn remove_rejected(&mut self) -> Result<()> {
        let Pass { table, spot, rejected, .. } = self;
        if rejected.ends.is_empty() {
            return Ok(());
        }
        spot.note_change();
        let removed = table.change().run(|running, at| running.remove_some(at, &rejected.key, &rejected.values()));
        rejected.clear();
        removed.map(drop)
    }
}

impl<K, V> Drop for Pass<'_, '_, K, V> {
    fn drop(&mut self) {
        // After an error the transaction is broken, and the next call returns it.
        best_effort(self.remove_rejected());
    }
}

/// An iterator that removes pairs, from [`MultiTableMut::extract_if`].
///
/// The pairs are removed at the latest when the iterator is dropped. If it never is
/// ([`std::mem::forget`]), the last pairs that it has returned may stay in the table.
#[must_use = "the iterator removes a pair only when it reaches it"]
pub struct MultiExtractIf<'h, 't, K, V, F> {
    pass: Pass<'h, 't, K, V>,
    matches: F,
    is_done: bool,
}

impl<K: KeyCodec, V: KeyCodec, F: FnMut(K::Item<'_>, V::Item<'_>) -> bool> Iterator
    for MultiExtractIf<'_, '_, K, V, F>
{
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        let matches = &mut self.matches;
        let mut judge = |pair: Entry<'_>| {
            let (key, value) = decode_entry::<K, V>(pair)?;
            if !matches(key, value) {
                return Ok(None);
            }
            // The predicate has consumed the items.
            let (key, value) = decode_entry::<K, V>(pair)?;
            Ok(Some((K::to_owned(key), V::to_owned(value))))
        };
        while !self.is_done {
            let failed = match self.pass.step(&mut judge) {
                Ok(Step::Give(pair)) => return Some(Ok(pair)),
                Ok(Step::Skip) => continue,
                Ok(Step::End) => self.pass.finish().err(),
                Err(e @ Error::Decode { .. }) => return Some(Err(e)),
                Err(e) => Some(e),
            };
            self.is_done = true;
            return failed.map(Err);
        }
        None
    }
}

impl<K: KeyCodec, V: KeyCodec, F: FnMut(K::Item<'_>, V::Item<'_>) -> bool> FusedIterator
    for MultiExtractIf<'_, '_, K, V, F>
{
}

impl<K, V, F> std::fmt::Debug for MultiExtractIf<'_, '_, K, V, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiExtractIf").field("table", &self.pass.table.access().name()).finish_non_exhaustive()
    }
}
