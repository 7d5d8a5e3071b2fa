//! The iterators over the values of a key, and over the pairs of a multimap.
//!
//! Floor: table. This module decodes, and checks for faults; it finds no page itself.
//!
//! Failure: an item that does not decode is an error in its place, and the others follow. A damaged
//! page of the table, or a failed access, is one error and ends the iteration; a damaged value tree
//! ends the values of its key.

use std::iter::FusedIterator;
use std::marker::PhantomData;

use crate::error::{Error, Result};
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::PageRead;
use crate::table::codec::Codec;
use crate::table::range::ErrorContext;
use crate::table::{decode_entry, decode_value};
use crate::tree::{self, ValueRange};
use crate::txn::write::shared::TableAccess;

/// Bytes from one of the two kinds of pages.
pub(super) enum OfPages<S, T> {
    Snapshot(S),
    Txn(T),
}

/// Pages, and the place for errors.
pub(super) struct Source<'a> {
    pub(super) pages: OfPages<&'a SnapshotPages, &'a TableAccess<'a>>,
    pub(super) place: ErrorContext<'a>,
    /// The kernel could not serve an access: the error was returned, and the iteration has ended.
    lost: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(pages: OfPages<&'a SnapshotPages, &'a TableAccess<'a>>, place: ErrorContext<'a>) -> Source<'a> {
        Source { pages, place, lost: false }
    }

    #[inline]
    pub(super) fn all_served(&self) -> bool {
        match self.pages {
            OfPages::Snapshot(pages) => pages.all_served(),
            OfPages::Txn(pages) => pages.all_served(),
        }
    }

    /// Returns an item that was decoded, or the error of a failed access.
    #[inline]
    pub(super) fn check<T>(&mut self, found: Option<Result<T>>) -> Option<Result<T>> {
        match found {
            Some(Ok(_)) | None if self.all_served() => found,
            found => self.failure(found),
        }
    }

    #[cold]
    fn failure<T>(&mut self, found: Option<Result<T>>) -> Option<Result<T>> {
        if self.lost {
            return None;
        }
        let all_served = self.all_served();
        self.lost = !all_served;
        let e = match (found, &self.pages) {
            (Some(Err(e)), _) if all_served => e,
            (_, OfPages::Snapshot(pages)) => pages.fault(),
            (_, OfPages::Txn(pages)) => pages.fault(),
        };
        Some(Err(self.locate(e)))
    }

    pub(super) fn locate(&self, e: Error) -> Error {
        e.with_path(self.place.path).with_table(self.place.table)
    }
}

/// The values of one key of a multimap table, in ascending order; [`rev`](Iterator::rev) for
/// descending order. From [`values`](crate::ReadMultiTable::values).
pub struct Values<'a, V> {
    pub(super) values: OfPages<ValueRange<'a, SnapshotPages>, ValueRange<'a, TableAccess<'a>>>,
    pub(super) key: &'a [u8],
    pub(super) source: Source<'a>,
    pub(super) types: PhantomData<fn() -> V>,
}

impl<'a, V: Codec> Values<'a, V> {
    /// Decodes a value, or returns the error of a failed access.
    #[inline(never)]
    fn give(&mut self, value: Option<Result<&'a [u8]>>) -> Option<Result<V::Item<'a>>> {
        let found = value.map(|value| decode_value::<V>(self.key, value?));
        self.source.check(found)
    }

    #[inline(never)]
    fn next_checked(&mut self) -> Option<Result<V::Item<'a>>> {
        let value = match &mut self.values {
            OfPages::Snapshot(values) => values.next(),
            OfPages::Txn(values) => values.next(),
        };
        self.give(value)
    }

    #[inline(never)]
    fn next_back_checked(&mut self) -> Option<Result<V::Item<'a>>> {
        let value = match &mut self.values {
            OfPages::Snapshot(values) => values.next_back(),
            OfPages::Txn(values) => values.next_back(),
        };
        self.give(value)
    }
}

impl<'a, V: Codec> Iterator for Values<'a, V> {
    type Item = Result<V::Item<'a>>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let value = match &mut self.values {
            OfPages::Snapshot(values) => values.next_fast(),
            OfPages::Txn(_) => None,
        };
        // Decode first, then check for a fault: the check covers every byte that was read before
        // it.
        match value {
            Some(value) => match V::decode(value) {
                Ok(item) if self.source.all_served() => Some(Ok(item)),
                _ => self.give(Some(Ok(value))),
            },
            None => self.next_checked(),
        }
    }
}

impl<V: Codec> DoubleEndedIterator for Values<'_, V> {
    #[inline(always)]
    fn next_back(&mut self) -> Option<Self::Item> {
        let value = match &mut self.values {
            OfPages::Snapshot(values) => values.next_back_fast(),
            OfPages::Txn(_) => None,
        };
        match value {
            Some(value) => match V::decode(value) {
                Ok(item) if self.source.all_served() => Some(Ok(item)),
                _ => self.give(Some(Ok(value))),
            },
            None => self.next_back_checked(),
        }
    }
}

impl<V: Codec> FusedIterator for Values<'_, V> {}

impl<V> std::fmt::Debug for Values<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

/// The pairs of a range of keys of a multimap table: each key with each of its values, in ascending
/// order; [`rev`](Iterator::rev) for descending order. From
/// [`range`](crate::ReadMultiTable::range), [`prefix`](crate::ReadMultiTable::prefix) and
/// [`iter`](crate::ReadMultiTable::iter).
pub struct MultiRange<'a, K, V> {
    pub(super) pairs: OfPages<tree::Pairs<'a, SnapshotPages>, tree::Pairs<'a, TableAccess<'a>>>,
    pub(super) source: Source<'a>,
    pub(super) types: PhantomData<fn() -> (K, V)>,
}

impl<'a, K, V> MultiRange<'a, K, V> {
    pub(super) fn of_snapshot(pairs: tree::Pairs<'a, SnapshotPages>, place: ErrorContext<'a>) -> Self {
        let source = Source::new(OfPages::Snapshot(pairs.pages()), place);
        MultiRange { pairs: OfPages::Snapshot(pairs), source, types: PhantomData }
    }

    pub(super) fn of_txn(pairs: tree::Pairs<'a, TableAccess<'a>>, place: ErrorContext<'a>) -> Self {
        let source = Source::new(OfPages::Txn(pairs.pages()), place);
        MultiRange { pairs: OfPages::Txn(pairs), source, types: PhantomData }
    }
}

impl<'a, K: Codec, V: Codec> MultiRange<'a, K, V> {
    /// Decodes a pair, or returns the error of a failed access.
    #[inline(never)]
    fn give(&mut self, pair: Option<Result<tree::Entry<'a>>>) -> Option<Result<(K::Item<'a>, V::Item<'a>)>> {
        let found = pair.map(|pair| decode_entry::<K, V>(pair?));
        self.source.check(found)
    }

    #[inline(never)]
    fn next_checked(&mut self) -> Option<Result<(K::Item<'a>, V::Item<'a>)>> {
        let pair = match &mut self.pairs {
            OfPages::Snapshot(pairs) => pairs.next(),
            OfPages::Txn(pairs) => pairs.next(),
        };
        self.give(pair)
    }

    /// The next key, with an iterator over its values: those that [`next_back`] has left, if it has
    /// begun with this key. Skips the other pairs of the key of the last pair.
    ///
    /// [`next_back`]: DoubleEndedIterator::next_back
    ///
    /// ```
    /// # use mapleaf::{Db, MultiTable};
    /// # let db = Db::in_memory()?;
    /// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
    /// db.write(|txn| txn.multi_table(TAGS)?.insert_all([("red", 3), ("red", 7), ("blue", 1)]))?;
    ///
    /// let tags = db.begin_read()?.multi_table(TAGS)?;
    /// let (mut range, mut sums) = (tags.iter(), Vec::new());
    /// while let Some((tag, ids)) = range.next_key().transpose()? {
    ///     sums.push((tag, ids.sum::<mapleaf::Result<u64>>()?));
    /// }
    /// assert_eq!(sums, [("blue", 1), ("red", 10)]);
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    pub fn next_key(&mut self) -> Option<Result<(K::Item<'a>, Values<'a, V>)>> {
        let place = self.source.place;
        let found = match &mut self.pairs {
            OfPages::Snapshot(pairs) => {
                let pages = OfPages::Snapshot(pairs.pages());
                pairs.next_key().map(|found| found.map(|(key, values)| (key, OfPages::Snapshot(values), pages)))
            }
            OfPages::Txn(pairs) => {
                let pages = OfPages::Txn(pairs.pages());
                pairs.next_key().map(|found| found.map(|(key, values)| (key, OfPages::Txn(values), pages)))
            }
        };
        let found = found.map(|found| {
            let (key, values, pages) = found?;
            let values = Values { values, key, source: Source::new(pages, place), types: PhantomData };
            Ok((crate::table::decode_key::<K>(key)?, values))
        });
        self.source.check(found)
    }
}

impl<'a, K: Codec, V: Codec> Iterator for MultiRange<'a, K, V> {
    type Item = Result<(K::Item<'a>, V::Item<'a>)>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let pair = match &mut self.pairs {
            OfPages::Snapshot(pairs) => pairs.next_fast(),
            OfPages::Txn(_) => None,
        };
        match pair {
            Some((key, value)) => match (K::decode(key), V::decode(value)) {
                (Ok(key), Ok(value)) if self.source.all_served() => Some(Ok((key, value))),
                _ => self.give(Some(Ok((key, value)))),
            },
            None => self.next_checked(),
        }
    }
}

impl<K: Codec, V: Codec> DoubleEndedIterator for MultiRange<'_, K, V> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let pair = match &mut self.pairs {
            OfPages::Snapshot(pairs) => pairs.next_back(),
            OfPages::Txn(pairs) => pairs.next_back(),
        };
        let found = pair.map(|pair| decode_entry::<K, V>(pair?));
        self.source.check(found)
    }
}

impl<K: Codec, V: Codec> FusedIterator for MultiRange<'_, K, V> {}

impl<K, V> std::fmt::Debug for MultiRange<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiRange").finish_non_exhaustive()
    }
}
