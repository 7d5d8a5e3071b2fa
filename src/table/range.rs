//! The public iterators: typed entries of a range of keys, in both directions.
//!
//! Floor: table. This module encodes the bounds, decodes keys and values, and checks for faults; it
//! finds no page itself. [`tree::Range`] (`tree/scan/range.rs`) walks over the leaves and yields
//! the entries as bytes. [`Range`] borrows the table handle, and its items borrow the transaction.
//! [`RangeOwned`] holds the transaction itself and yields owned items.
//!
//! Failure: an entry that does not decode is an error in its place, and the entries after it
//! follow. The same holds in a [`Range`] for a value that cannot be read; in a [`RangeOwned`] such
//! a value ends the iteration. A damaged page or a failed access is one error, and ends the
//! iteration. An entry whose codec panics is skipped if the caller catches the panic, and the
//! entries after it follow.

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ops::Bound;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;

use crate::error::{Error, Result};
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::PageRead as _;
use crate::table::bounds::ByteBounds;
use crate::table::codec::{Codec, KeyCodec};
use crate::table::{decode_entry, ReadTable};
use crate::tree;
use crate::txn::write::shared::TableAccess;

/// The entries of a range of keys, in ascending order; [`rev`](Iterator::rev) for descending order.
///
/// From [`range`](crate::ReadTable::range), [`prefix`](crate::ReadTable::prefix) and
/// [`iter`](crate::ReadTable::iter).
pub struct Range<'a, K, V> {
    inner: Inner<'a>,
    place: ErrorContext<'a>,
    /// The kernel could not serve an access: the error was returned, and the iteration has ended.
    lost: bool,
    types: PhantomData<fn() -> (K, V)>,
}

enum Inner<'a> {
    Snapshot(tree::Range<'a, SnapshotPages>),
    Txn(tree::Range<'a, TableAccess<'a>>),
}

/// File and table, for the errors of a range.
#[derive(Clone, Copy)]
pub(crate) struct ErrorContext<'a> {
    pub(crate) path: &'a Path,
    pub(crate) table: &'a str,
}

/// A decoded entry.
type Typed<'a, K, V> = (<K as Codec>::Item<'a>, <V as Codec>::Item<'a>);

impl<'a, K: KeyCodec, V: Codec> Range<'a, K, V> {
    pub(crate) fn of_snapshot(range: tree::Range<'a, SnapshotPages>, place: ErrorContext<'a>) -> Range<'a, K, V> {
        Range { inner: Inner::Snapshot(range), place, lost: false, types: PhantomData }
    }

    pub(crate) fn of_txn(range: tree::Range<'a, TableAccess<'a>>, place: ErrorContext<'a>) -> Range<'a, K, V> {
        Range { inner: Inner::Txn(range), place, lost: false, types: PhantomData }
    }

    /// Whether pages that this range reads from the disk stay in memory. With `false` they are
    /// dropped soon after the range has passed them, so that a scan of more data than memory does
    /// not evict pages that others use. Pages that were in memory before stay. Has no effect in
    /// write transactions and for databases in memory. Default: true.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const EVENTS: Table<u64, &[u8]> = Table::new("events");
    /// let events = db.begin_read()?.table(EVENTS)?;
    /// for entry in events.iter().fill_cache(false) {
    ///     let (number, event) = entry?;
    /// }
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    #[must_use]
    pub fn fill_cache(mut self, fill: bool) -> Self {
        if let Inner::Snapshot(range) = &mut self.inner {
            range.fill_cache(fill);
        }
        self
    }

    /// Decodes an entry from the fast path.
    #[inline(always)]
    fn give(&mut self, (key, value): tree::Entry<'a>) -> Option<Result<Typed<'a, K, V>>> {
        // Decode first, then check for a fault: the check covers every byte that was read before
        // it.
        match (K::decode(key), V::decode(value)) {
            (Ok(key), Ok(value)) if self.all_served() => Some(Ok((key, value))),
            _ => self.check_fault(Some(Ok((key, value)))),
        }
    }

    #[inline(always)]
    fn all_served(&self) -> bool {
        match &self.inner {
            Inner::Snapshot(range) => range.pages().all_served(),
            Inner::Txn(range) => range.pages().all_served(),
        }
    }

    /// Decodes an entry, or returns the error of a failed access.
    #[inline(never)]
    fn check_fault(&mut self, entry: Option<Result<tree::Entry<'a>>>) -> Option<Result<Typed<'a, K, V>>> {
        let found = entry.map(typed::<K, V>);
        let all_served = self.all_served();
        match found {
            Some(Ok(_)) | None if all_served => found,
            found => self.failure(found, all_served),
        }
    }

    #[inline(never)]
    fn next_checked(&mut self) -> Option<Result<Typed<'a, K, V>>> {
        let entry = match &mut self.inner {
            Inner::Snapshot(range) => range.next(),
            Inner::Txn(range) => range.next(),
        };
        self.check_fault(entry)
    }

    #[inline(never)]
    fn next_back_checked(&mut self) -> Option<Result<Typed<'a, K, V>>> {
        let entry = match &mut self.inner {
            Inner::Snapshot(range) => range.next_back(),
            Inner::Txn(range) => range.next_back(),
        };
        self.check_fault(entry)
    }

    #[cold]
    fn failure(&mut self, found: Option<Result<Typed<'a, K, V>>>, all_served: bool) -> Option<Result<Typed<'a, K, V>>> {
        if self.lost {
            return None;
        }
        self.lost = !all_served;
        let e = match (&self.inner, found) {
            (_, Some(Err(e))) if all_served => e,
            (Inner::Snapshot(range), _) => range.pages().fault(),
            (Inner::Txn(range), _) => range.pages().fault(),
        };
        Some(Err(e.with_path(self.place.path).with_table(self.place.table)))
    }
}

#[inline]
fn typed<'a, K: KeyCodec, V: Codec>(entry: Result<tree::Entry<'a>>) -> Result<Typed<'a, K, V>> {
    decode_entry::<K, V>(entry?)
}

impl<'a, K: KeyCodec, V: Codec> Iterator for Range<'a, K, V> {
    type Item = Result<Typed<'a, K, V>>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = match &mut self.inner {
            Inner::Snapshot(range) => range.next_fast(),
            Inner::Txn(_) => None,
        };
        match entry {
            Some(entry) => self.give(entry),
            None => self.next_checked(),
        }
    }
}

impl<K: KeyCodec, V: Codec> DoubleEndedIterator for Range<'_, K, V> {
    #[inline(always)]
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = match &mut self.inner {
            Inner::Snapshot(range) => range.next_back_fast(),
            Inner::Txn(_) => None,
        };
        match entry {
            Some(entry) => self.give(entry),
            None => self.next_back_checked(),
        }
    }
}

impl<K: KeyCodec, V: Codec> FusedIterator for Range<'_, K, V> {}

impl<K, V> std::fmt::Debug for Range<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Range").finish_non_exhaustive()
    }
}

/// Owned entries of a table, copied one at a time; from
/// [`range_owned`](crate::TableRef::range_owned) in write transactions, and from
/// [`ReadableTable`](crate::ReadableTable).
#[derive(Debug)]
pub struct EntriesOwned<'a, K, V> {
    range: Range<'a, K, V>,
}

impl<'a, K: KeyCodec, V: Codec> EntriesOwned<'a, K, V> {
    pub(crate) fn new(range: Range<'a, K, V>) -> EntriesOwned<'a, K, V> {
        EntriesOwned { range }
    }

    /// Copies an entry, or returns the error of a failed access while copying.
    fn give(&mut self, entry: Option<Result<Typed<'a, K, V>>>) -> Option<Result<OwnedEntry<K, V>>> {
        let own = |(key, value)| (K::to_owned(key), V::to_owned(value));
        let owned = entry?.map(own);
        if owned.is_ok() && !self.range.all_served() {
            return Some(self.range.failure(None, false)?.map(own));
        }
        Some(owned)
    }
}

impl<K: KeyCodec, V: Codec> Iterator for EntriesOwned<'_, K, V> {
    type Item = Result<OwnedEntry<K, V>>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.range.next();
        self.give(entry)
    }
}

impl<K: KeyCodec, V: Codec> DoubleEndedIterator for EntriesOwned<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.range.next_back();
        self.give(entry)
    }
}

impl<K: KeyCodec, V: Codec> FusedIterator for EntriesOwned<'_, K, V> {}

/// Owned entries of a range, from [`range_owned`](crate::ReadTable::range_owned).
///
/// Holds the transaction and borrows nothing, so it can be stored in a struct or sent to another
/// thread. Copies entries in batches.
pub struct RangeOwned<K: KeyCodec, V: Codec> {
    table: ReadTable<K, V>,
    bounds: ByteBounds,
    /// Copied entries, with an error in the place of each that does not decode.
    front: VecDeque<Result<OwnedEntry<K, V>>>,
    back: VecDeque<Result<OwnedEntry<K, V>>>,
    /// The error that stopped the copying; returned after the entries copied before it.
    failed: Option<Error>,
    ended: bool,
}

/// Entries that are copied at a time.
const OWNED_BATCH: usize = 64;

/// An owned entry.
type OwnedEntry<K, V> = (<K as Codec>::Owned, <V as Codec>::Owned);

impl<K: KeyCodec, V: Codec> RangeOwned<K, V> {
    pub(crate) fn new(table: ReadTable<K, V>, bounds: ByteBounds) -> RangeOwned<K, V> {
        RangeOwned { table, bounds, front: Default::default(), back: Default::default(), failed: None, ended: false }
    }

    /// Copies a batch of entries from one end. The bound moves past every entry that was decoded,
    /// even if its codec panicked: that entry is skipped, and all others are yielded once.
    fn fill(&mut self, from_back: bool) {
        let (mut seen, mut count): (Option<&[u8]>, usize) = (None, 0);
        let (table, front, back) = (&self.table, &mut self.front, &mut self.back);
        let range = table.byte_range(self.bounds.clone());
        let copy = |entry: Result<_>| -> Result<()> {
            let (key, value) = entry?;
            seen = Some(key);
            let entry = owned::<K, V>(key, value).map_err(|e| table.locate(e));
            count += 1;
            match from_back {
                true => back.push_front(entry),
                false => front.push_back(entry),
            }
            Ok(())
        };
        let ran = catch_unwind(AssertUnwindSafe(|| match from_back {
            true => range.rev().take(OWNED_BATCH).try_for_each(copy),
            false => range.take(OWNED_BATCH).try_for_each(copy),
        }));
        match seen {
            Some(key) if from_back => self.bounds.high = Bound::Excluded(key.to_vec()),
            Some(key) => self.bounds.low = Bound::Excluded(key.to_vec()),
            None => {}
        }
        let (copied, panic) = match ran {
            Ok(copied) => (copied.map(|()| count < OWNED_BATCH), None),
            Err(panic) => (Ok(false), Some(panic)),
        };
        match self.check_fault(copied, from_back) {
            Ok(ended) => self.ended = ended,
            Err(e) => (self.ended, self.failed) = (true, Some(e)),
        }
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Returns the result of the copying. After a failed access the copied entries may be made of
    /// zeros, so they are dropped.
    fn check_fault(&mut self, copied: Result<bool>, from_back: bool) -> Result<bool> {
        if self.table.pages().all_served() {
            return copied;
        }
        match from_back {
            true => self.back.clear(),
            false => self.front.clear(),
        }
        Err(self.table.pages().fault())
    }

    /// In a child after `fork`, drops the copied entries too and ends the iteration with an error.
    fn check_process(&mut self) {
        if let Err(e) = self.table.txn().check_process() {
            let reported = std::mem::replace(&mut self.ended, true) && self.front.is_empty() && self.back.is_empty();
            self.front.clear();
            self.back.clear();
            self.failed = self.failed.take().or_else(|| (!reported).then_some(e));
        }
    }

    /// Returns the error that stopped the copying, if there is one, and ends the iteration.
    fn failure(&mut self) -> Option<Result<OwnedEntry<K, V>>> {
        let e = self.failed.take()?;
        self.front.clear();
        self.back.clear();
        Some(Err(self.table.locate(e)))
    }
}

fn owned<K: KeyCodec, V: Codec>(key: &[u8], value: &[u8]) -> Result<OwnedEntry<K, V>> {
    let (key, value) = decode_entry::<K, V>((key, value))?;
    Ok((K::to_owned(key), V::to_owned(value)))
}

impl<K: KeyCodec, V: Codec> Iterator for RangeOwned<K, V> {
    type Item = Result<OwnedEntry<K, V>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.check_process();
        if self.front.is_empty() && !self.ended {
            self.fill(false);
        }
        if let Some(entry) = self.front.pop_front() {
            return Some(entry);
        }
        // All entries between the two ends were yielded; those copied from the other end come last.
        self.failure().or_else(|| self.back.pop_front())
    }
}

impl<K: KeyCodec, V: Codec> DoubleEndedIterator for RangeOwned<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.check_process();
        if self.back.is_empty() && !self.ended {
            self.fill(true);
        }
        if let Some(entry) = self.back.pop_back() {
            return Some(entry);
        }
        self.failure().or_else(|| self.front.pop_back())
    }
}

impl<K: KeyCodec, V: Codec> FusedIterator for RangeOwned<K, V> {}

impl<K: KeyCodec, V: Codec> std::fmt::Debug for RangeOwned<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RangeOwned").finish_non_exhaustive()
    }
}
