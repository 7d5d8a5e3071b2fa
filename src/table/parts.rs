//! Parts of a table for parallel scans, estimates of ranges, and random entries.
//!
//! Floor: table. The bounds of parts are bytes: a key that divides two leaves is as short as it can
//! be, so it need not be a key that the codec could decode.
//!
//! Failure: as [`ReadTable::get`]; a sample also meets entries that do not decode.

use std::ops::{Bound, RangeBounds};

use crate::error::Result;
use crate::sys::random;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::{Range, ReadTable, TableRef};
use crate::tree::{Random, Spread};

/// How many entries a range of keys has, as far as the branch pages of the table show; from
/// [`ReadTable::estimate_range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// The estimate, between the bounds.
    pub entries: u64,
    /// The range has at least so many entries.
    pub at_least: u64,
    /// The range has at most so many entries.
    pub at_most: u64,
}

impl Estimate {
    pub(super) fn of(spread: Spread) -> Estimate {
        Estimate { entries: spread.entries, at_least: spread.least, at_most: spread.most }
    }
}

/// A part of a table: the keys between two places in the order of the table; from
/// [`ReadTable::split_points`]. [`ReadTable::part`] returns its entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    low: Option<Vec<u8>>,
    high: Option<Vec<u8>>,
}

impl Part {
    /// The bytes at which the part begins: they are at most its first key, and above all keys
    /// before the part. `None`: the part begins with the table.
    pub fn low(&self) -> Option<&[u8]> {
        self.low.as_deref()
    }

    /// The bytes before which the part ends; `None`: it ends with the table.
    pub fn high(&self) -> Option<&[u8]> {
        self.high.as_deref()
    }

    pub(super) fn bounds(&self) -> ByteBounds {
        let low = self.low.clone().map_or(Bound::Unbounded, Bound::Included);
        let high = self.high.clone().map_or(Bound::Unbounded, Bound::Excluded);
        ByteBounds { low, high }
    }
}

/// Places that divide a table into parts of nearly the same size, from
/// [`ReadTable::split_points`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPoints {
    points: Vec<Vec<u8>>,
}

impl SplitPoints {
    pub(super) fn new(points: Vec<Vec<u8>>) -> SplitPoints {
        SplitPoints { points }
    }

    /// Number of points, one less than that of the parts.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there is only one part.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The points as bytes, in ascending order. A point is at most the first key after it, and
    /// above all keys before it. It is often shorter than a key, and need not be one.
    pub fn as_bytes(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.points.iter().map(Vec::as_slice)
    }

    /// The parts, in order. Each key of the table lies in exactly one of them, also keys that are
    /// stored later.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = Part> + '_ {
        (0..self.points.len() + 1).map(|at| Part {
            low: at.checked_sub(1).map(|before| self.points[before].clone()),
            high: self.points.get(at).cloned(),
        })
    }
}

/// A seed of the kernel's; any number if it gives none.
pub(super) fn new_seed() -> u64 {
    random::bytes().map_or(0x6d61_706c_6561_6600, u64::from_le_bytes)
}

impl<K: KeyCodec, V: Codec> ReadTable<K, V> {
    /// Divides the table into up to `parts` parts of nearly the same size, to scan them in
    /// parallel. Returns the points between them: `parts - 1`, or fewer if the table has too few
    /// leaf pages.
    ///
    /// Reads only branch pages, a few dozen for each part. The parts have the same number of leaf
    /// pages, or of subtrees that are about the same size. So their entries differ by as much as
    /// the entries of leaf pages do: up to two- or threefold if entries have the same size, more if
    /// some ranges of keys have much larger entries than others.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const EVENTS: Table<u64, u64> = Table::new("events");
    /// db.write(|txn| txn.table(EVENTS)?.put_all((0..10_000).map(|number| (number, number % 7))))?;
    ///
    /// let events = db.begin_read()?.table(EVENTS)?;
    /// let points = events.split_points(4)?;
    /// let sum: u64 = std::thread::scope(|scope| {
    ///     let sum_of = |part| events.part(&part).map(|entry| Ok(entry?.1)).sum::<mapleaf::Result<u64>>();
    ///     let threads: Vec<_> = points.parts().map(|part| scope.spawn(move || sum_of(part))).collect();
    ///     threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<mapleaf::Result<u64>>()
    /// })?;
    /// assert_eq!(sum, (0..10_000).map(|number| number % 7).sum::<u64>());
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt` if a branch page is damaged, `Fault` if the kernel could not read one.
    pub fn split_points(&self, parts: usize) -> Result<SplitPoints> {
        self.txn().check_process()?;
        self.check_fault(self.tree().separators(parts)).map(SplitPoints::new)
    }

    /// Returns the entries of a part, in order.
    pub fn part(&self, part: &Part) -> Range<'_, K, V> {
        self.typed_range(part.bounds())
    }

    /// Estimates how many entries a range of keys has; for progress and for choosing a plan.
    ///
    /// Reads only branch pages: two or three, and up to a few hundred in tables of millions of
    /// entries. They show how many leaf pages the range has, and [`len`](ReadTable::len) how many
    /// entries a leaf page has on average. So the estimate is off by as much as the range's leaf
    /// pages differ from the average, and by about one leaf page for its ends: a range that is
    /// smaller than a leaf page is taken for half of one. The bounds always hold.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const EVENTS: Table<u64, u64> = Table::new("events");
    /// db.write(|txn| txn.table(EVENTS)?.put_all((0..100_000).map(|number| (number, number))))?;
    ///
    /// let events = db.begin_read()?.table(EVENTS)?;
    /// let estimate = events.estimate_range(20_000..30_000)?;
    /// assert!(estimate.at_least <= 10_000 && 10_000 <= estimate.at_most);
    /// assert!((9_000..11_000).contains(&estimate.entries));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` for a bound that the codec cannot represent, `Corrupt` if a branch page is damaged,
    /// `Fault` if the kernel could not read one.
    pub fn estimate_range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Estimate> {
        self.txn().check_process()?;
        let bounds = ByteBounds::of::<K>(&range)?;
        self.check_fault(self.tree().estimate(bounds.low_ref(), bounds.high_ref())).map(Estimate::of)
    }

    /// Returns random entries, all different: `count` of them, or all if the table has fewer. They
    /// come in no particular order. Each call takes others.
    ///
    /// A sample of an eighth of the table or more reads the whole table, and each set of entries is
    /// equally likely. A smaller sample reads a few pages for each entry, and each entry is
    /// *nearly* equally likely: an entry in a page with fewer entries than the fullest pages is
    /// accepted rarely enough to make up for that, as far as the fullest pages are known from some
    /// 64 random ones, and up to 64 tries. Where few pages hold most of the entries (a page of a
    /// hundred short ones among hundreds of pages with one long entry each), entries of full pages
    /// come up too rarely.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const SIZES: Table<u64, u64> = Table::new("sizes");
    /// db.write(|txn| txn.table(SIZES)?.put_all((0..50_000).map(|number| (number, number % 100))))?;
    ///
    /// let sizes = db.begin_read()?.table(SIZES)?;
    /// let sample = sizes.sample(1_000)?;
    /// let mean = sample.iter().map(|(_, size)| size).sum::<u64>() / 1_000;
    /// assert!((40..60).contains(&mean));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](ReadTable::get), and `Decode` for an entry that does not decode.
    pub fn sample(&self, count: usize) -> Result<Vec<(K::Item<'_>, V::Item<'_>)>> {
        self.sample_seeded(count, new_seed())
    }

    /// Like [`sample`](ReadTable::sample), with the same entries for the same seed and the same
    /// pages, to repeat a run.
    ///
    /// # Errors
    /// As there.
    pub fn sample_seeded(&self, count: usize, seed: u64) -> Result<Vec<(K::Item<'_>, V::Item<'_>)>> {
        self.txn().check_process()?;
        let found = self.tree().sample(count, &mut Random::from_seed(seed));
        self.check_fault(found.and_then(super::decode_entries::<K, V>))
    }
}

impl<K: KeyCodec, V: Codec> TableRef<'_, K, V> {
    /// Divides the table into up to `parts` parts of nearly the same size. See
    /// [`ReadTable::split_points`].
    ///
    /// # Errors
    /// As there.
    pub fn split_points(&self, parts: usize) -> Result<SplitPoints> {
        self.access.check_process()?;
        self.check_fault(self.access.tree().separators(parts)).map(SplitPoints::new)
    }

    /// Returns the entries of a part, in order.
    pub fn part(&self, part: &Part) -> Range<'_, K, V> {
        self.byte_range(part.bounds())
    }

    /// Estimates how many entries a range of keys has. See [`ReadTable::estimate_range`].
    ///
    /// # Errors
    /// As there.
    pub fn estimate_range<'k>(&self, range: impl RangeBounds<K::Key<'k>>) -> Result<Estimate> {
        self.access.check_process()?;
        let bounds = ByteBounds::of::<K>(&range)?;
        self.check_fault(self.access.tree().estimate(bounds.low_ref(), bounds.high_ref())).map(Estimate::of)
    }

    /// Returns random entries, all different. See [`ReadTable::sample`].
    ///
    /// # Errors
    /// As there.
    pub fn sample(&self, count: usize) -> Result<Vec<(K::Item<'_>, V::Item<'_>)>> {
        self.sample_seeded(count, new_seed())
    }

    /// Like [`sample`](TableRef::sample), with the same entries for the same seed. See
    /// [`ReadTable::sample_seeded`].
    ///
    /// # Errors
    /// As there.
    pub fn sample_seeded(&self, count: usize, seed: u64) -> Result<Vec<(K::Item<'_>, V::Item<'_>)>> {
        self.access.check_process()?;
        let found = self.access.tree().sample(count, &mut Random::from_seed(seed));
        self.check_fault(found.and_then(super::decode_entries::<K, V>))
    }
}
