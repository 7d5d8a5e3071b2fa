//! Walks over the leaves between two bounds, from both ends, and yields entries as bytes. The
//! public iterators (`table/range.rs`) decode them.
//!
//! Floor: tree. Each end has a cursor. `Range::place` puts it into the leaf of the bound, by
//! `Cursor::place_towards`, when the first entry is taken from that end; so a range that is only
//! read forwards never touches the pages of its other end. A range compares its bounds once per
//! leaf. This gives the part of the leaf that is inside, and a step within that part compares
//! nothing.
//!
//! Invariants:
//!   RANGE-1  all of `ready` of an end lies inside the bounds, and neither end has yielded any of
//!            it.
//!   RANGE-2  when both ends are in the same leaf, their `ready` parts are equal: that is where
//!            they meet.
//!
//! Failure: a damaged page yields one `Err` and ends the range; a value that cannot be read yields
//! an `Err` in its place, and the entries after it follow.

use std::ops::{Bound, Range as Indexes};

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::page::leaf::{Leaf, LeafValue};
use crate::pager::PageRead;
use crate::sys::prefetch::LINE_BYTES;

use crate::tree::long_key::{compare_at, long_key_pages, whole};
use crate::tree::lookup::flat_index::FlatIndex;
use crate::tree::lookup::search::entry_at;
use crate::tree::path::{fetch_front, Side, NOWHERE};
use crate::tree::scan::cursor::Cursor;
use crate::tree::scan::read_ahead::Sweep;
use crate::tree::value::overflow_pages;
use crate::tree::{Entry, Tree};

/// How many entries ahead to prefetch; more if entries are short, so that equally many cache lines
/// are in flight.
const DISTANCE: usize = 4;
const DISTANCE_OF_SHORT: usize = 8;
/// Maximum number of bytes to prefetch of an entry. The processor itself prefetches the lines after
/// a few consecutive ones.
const ENTRY_BYTES_MAX: usize = 512;

/// One end of a range.
struct End<'a, P> {
    cursor: Cursor<'a, P>,
    /// Indexes of the entries of the cursor's leaf that this end can still yield.
    ready: Indexes<usize>,
    placed: bool,
    /// The cursor is still in the leaf where the bound of this end placed it. So `ready` already
    /// excludes the entries outside that bound.
    cut: bool,
    /// No leaf after this one has entries of the range.
    last_leaf: bool,
    /// The cursor stepped here from a neighbouring leaf.
    stepped: bool,
    ahead: Ahead<'a>,
    sweep: Sweep,
}

/// Prefetches entries into the processor's cache before the range yields them. Entries lie anywhere
/// in their leaf, so the processor cannot predict their addresses. At first the next entries are
/// prefetched one by one, also those of the next leaf. A walk that goes on to another leaf
/// prefetches the whole next leaf, some lines with each entry that it yields.
struct Ahead<'a> {
    /// The next leaf, whose first lines are being prefetched.
    next: PagePtr,
    /// The next leaf, parsed when its first entries are to be prefetched.
    leaf: Option<Leaf<'a>>,
    /// All of this leaf was prefetched from the leaf before it.
    prefetched: bool,
    /// Bytes to prefetch of each entry of this leaf.
    entry_bytes: usize,
    /// The next leaf, in a walk that prefetches it whole; none once all of it was prefetched.
    lines_of: PageId,
    /// The offset from which on it was not prefetched yet, and how many bytes to prefetch with each
    /// entry that the range yields.
    lines_from: usize,
    lines_bytes: usize,
}

impl Default for Ahead<'_> {
    fn default() -> Self {
        let (next, lines_of) = (NOWHERE, PageId::NONE);
        Ahead { next, leaf: None, prefetched: false, entry_bytes: 0, lines_of, lines_from: 0, lines_bytes: 0 }
    }
}

impl<'a> Ahead<'a> {
    /// Called for each entry that the range yields; `ready` are the entries after it. Prefetches
    /// what the range will read some entries later.
    #[inline(always)]
    fn fetch<P: PageRead>(&mut self, pages: &'a P, leaf: &Leaf<'_>, ready: &Indexes<usize>, towards: Side) {
        if !self.lines_of.is_none() {
            let left = pages.page_size().saturating_sub(self.lines_from);
            pages.prefetch(self.lines_of, self.lines_from, self.lines_bytes.min(left));
            self.lines_from += self.lines_bytes;
            if left <= self.lines_bytes {
                self.lines_of = PageId::NONE;
            }
        }
        if !self.prefetched {
            self.fetch_entries(pages, leaf, ready, towards);
        }
    }

    #[inline(always)]
    fn fetch_entries<P: PageRead>(&mut self, pages: &'a P, leaf: &Leaf<'_>, ready: &Indexes<usize>, towards: Side) {
        let (left, distance) = (ready.len(), distance(self.entry_bytes));
        if left < distance {
            return self.fetch_next(pages, distance - 1 - left, towards);
        }
        let at = if towards == Side::Last { ready.start + distance - 1 } else { ready.end - distance };
        leaf.fetch_entry(at, self.entry_bytes);
    }

    /// Prefetches an entry of the next leaf, if the next leaf is known.
    #[inline(never)]
    fn fetch_next<P: PageRead>(&mut self, pages: &'a P, nth: usize, towards: Side) {
        if self.leaf.is_none() && !self.next.id.is_none() {
            let page = pages.page_fast(self.next);
            self.leaf = page.and_then(|page| Leaf::parse(page, self.next.id).ok());
            self.next = NOWHERE;
        }
        let Some(leaf) = &self.leaf else { return };
        if nth < leaf.count() {
            let at = if towards == Side::Last { nth } else { leaf.count() - 1 - nth };
            leaf.fetch_entry(at, entry_bytes(leaf));
        }
    }
}

/// Prefetches the first entries that a walk from index `at` on yields: `at` and the entries after
/// it, or the entries before `at`.
pub(crate) fn fetch_entries_from(leaf: &Leaf<'_>, at: usize, towards: Side) {
    let entry_bytes = entry_bytes(leaf);
    let distance = distance(entry_bytes);
    let entries = match towards {
        Side::Last => at..(at + distance).min(leaf.count()),
        Side::First => at.saturating_sub(distance)..at.min(leaf.count()),
    };
    entries.for_each(|at| leaf.fetch_entry(at, entry_bytes));
}

/// How many entries ahead to prefetch if each has this many bytes.
#[inline]
fn distance(entry_bytes: usize) -> usize {
    if entry_bytes <= LINE_BYTES {
        DISTANCE_OF_SHORT
    } else {
        DISTANCE
    }
}

/// Bytes to prefetch of each entry of a leaf: the mean size of its entries, up to
/// [`ENTRY_BYTES_MAX`].
fn entry_bytes(leaf: &Leaf<'_>) -> usize {
    leaf.mean_entry_bytes().min(ENTRY_BYTES_MAX)
}

impl<'a, P: PageRead> End<'a, P> {
    fn new(tree: Tree<'a, P>, flat_index: Option<&'a FlatIndex>) -> End<'a, P> {
        End {
            cursor: Cursor::with_flat_index(tree, flat_index),
            ready: 0..0,
            placed: false,
            cut: false,
            last_leaf: false,
            ahead: Ahead::default(),
            stepped: false,
            sweep: Sweep::default(),
        }
    }

    /// Called when the end has come to a leaf. Prefetches its first entries, unless the leaf before
    /// has done so, and requests the leaves after it from the disk.
    fn look_ahead(&mut self, towards: Side) {
        let pages = self.cursor.pages();
        if let Some(path) = self.cursor.path() {
            self.sweep.arrived(pages, path, towards);
        }
        let Some(leaf) = self.cursor.leaf() else { return };
        let prefetched = self.ahead.lines_bytes > 0;
        if !prefetched && self.ahead.leaf.is_none() {
            let at = if towards == Side::Last { self.ready.start } else { self.ready.end };
            fetch_entries_from(leaf, at, towards);
        }
        let next = if self.last_leaf { NOWHERE } else { self.cursor.ahead(towards) };
        fetch_front(pages, next);
        self.ahead = Ahead { next, prefetched, entry_bytes: entry_bytes(leaf), ..Ahead::default() };
        if self.stepped && !next.id.is_none() && !self.ready.is_empty() {
            let each = (pages.page_size() / self.ready.len()).next_multiple_of(LINE_BYTES).max(LINE_BYTES);
            (self.ahead.lines_of, self.ahead.lines_bytes) = (next.id, each);
        }
    }

    #[inline(always)]
    fn fetch_ahead(&mut self, towards: Side) {
        if let Some(leaf) = self.cursor.leaf() {
            self.ahead.fetch(self.cursor.pages(), leaf, &self.ready, towards);
        }
    }

    /// The slow path of a step: an entry with an overflow extent, or a damaged entry.
    #[cold]
    #[inline(never)]
    fn other_entry(&mut self, at: usize) -> Option<Result<Entry<'a>>> {
        let leaf = self.cursor.leaf()?;
        for (id, pages) in extents_of(self.cursor.pages(), leaf, at).into_iter().flatten() {
            self.sweep.reads_extent(id, pages);
        }
        Some(entry_at(self.cursor.pages(), leaf, at))
    }
}

/// The overflow extents of key and value at an index of a leaf.
fn extents_of<P: PageRead>(pages: &P, leaf: &Leaf<'_>, at: usize) -> [Option<(PageId, u64)>; 2] {
    let Ok((key, value)) = leaf.entry(at) else { return [None; 2] };
    let of_key = key.long.map(|long| (long.ptr().id, long_key_pages(pages.page_size(), long)));
    let of_value = match value {
        LeafValue::Overflow(pointer) => {
            overflow_pages(pages.page_size(), &pointer).ok().map(|pages| (pointer.ptr.id, pages))
        }
        LeafValue::Inline(_) | LeafValue::Set(_) | LeafValue::Tree(_) => None,
    };
    [of_key, of_value]
}

/// The entries between two bounds in ascending order, and from the other end in descending order.
pub(crate) struct Range<'a, P> {
    front: End<'a, P>,
    back: End<'a, P>,
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
    /// Both ends are in the same leaf.
    met: bool,
    done: bool,
}

impl<'a, P: PageRead> Range<'a, P> {
    /// The entries between two keys; `flat_index`, if there is one, was made of the same tree.
    pub(crate) fn new(
        tree: Tree<'a, P>,
        flat_index: Option<&'a FlatIndex>,
        low: Bound<Vec<u8>>,
        high: Bound<Vec<u8>>,
    ) -> Range<'a, P> {
        let (front, back) = (End::new(tree, flat_index), End::new(tree, flat_index));
        Range { front, back, low, high, met: false, done: tree.is_empty() }
    }

    /// All entries.
    pub(crate) fn all(tree: Tree<'a, P>) -> Range<'a, P> {
        Range::new(tree, None, Bound::Unbounded, Bound::Unbounded)
    }

    /// The pages that the range reads.
    #[inline]
    pub(crate) fn pages(&self) -> &'a P {
        self.front.cursor.pages()
    }

    /// Whether pages that the range brings into memory stay there after it has passed.
    pub(crate) fn fill_cache(&mut self, fill: bool) {
        for end in [&mut self.front, &mut self.back] {
            end.sweep.fill_cache(end.cursor.pages(), fill);
            // A range that releases pages needs the branches to find them.
            end.cursor.forget_flat_index();
        }
    }

    /// The fast path of [`next`](Iterator::next): returns the next entry if it is ready in the
    /// current leaf and has an inline value. Else returns `None` and changes nothing.
    #[inline(always)]
    pub(crate) fn next_fast(&mut self) -> Option<Entry<'a>> {
        let at = self.front.ready.start;
        if at >= self.front.ready.end {
            return None;
        }
        let entry = self.front.cursor.leaf()?.inline_entry(at)?;
        self.front.ready.start = at + 1;
        if self.met {
            self.back.ready.start = at + 1;
        }
        self.front.fetch_ahead(Side::Last);
        Some(entry)
    }

    /// Like `next_fast`, for [`next_back`](DoubleEndedIterator::next_back).
    #[inline(always)]
    pub(crate) fn next_back_fast(&mut self) -> Option<Entry<'a>> {
        let end = self.back.ready.end;
        if end <= self.back.ready.start {
            return None;
        }
        let entry = self.back.cursor.leaf()?.inline_entry(end - 1)?;
        self.back.ready.end = end - 1;
        if self.met {
            self.front.ready.end = end - 1;
        }
        self.back.fetch_ahead(Side::First);
        Some(entry)
    }

    /// Like [`next`](Iterator::next), with the value as its entry stores it.
    pub(crate) fn next_stored(&mut self) -> Option<Result<(&'a [u8], LeafValue<'a>)>> {
        if self.front.ready.is_empty() {
            if let Err(e) = self.refill(Side::First) {
                return Some(Err(self.end_with(e)));
            }
        }
        let at = self.front.ready.next()?;
        if self.met {
            self.back.ready.start = at + 1;
        }
        self.front.fetch_ahead(Side::Last);
        let leaf = self.front.cursor.leaf()?;
        Some(stored_at(self.front.cursor.pages(), leaf, at))
    }

    /// Like `next_stored`, for [`next_back`](DoubleEndedIterator::next_back).
    pub(crate) fn next_back_stored(&mut self) -> Option<Result<(&'a [u8], LeafValue<'a>)>> {
        if self.back.ready.is_empty() {
            if let Err(e) = self.refill(Side::Last) {
                return Some(Err(self.end_with(e)));
            }
        }
        let at = self.back.ready.next_back()?;
        if self.met {
            self.front.ready.end = at;
        }
        self.back.fetch_ahead(Side::First);
        let leaf = self.back.cursor.leaf()?;
        Some(stored_at(self.back.cursor.pages(), leaf, at))
    }

    /// Moves one end to its next leaf, until it has entries ready. Ends the range if no leaf has
    /// any.
    #[cold]
    fn refill(&mut self, side: Side) -> Result<()> {
        while !self.done {
            let end = if side == Side::First { &mut self.front } else { &mut self.back };
            if end.placed {
                (end.cut, end.stepped) = (false, true);
                self.done = end.last_leaf || !end.cursor.step(side.inward())?;
            } else {
                self.place(side)?;
            }
            if self.done {
                break;
            }
            self.prepare(side)?;
            let end = if side == Side::First { &self.front } else { &self.back };
            if !end.ready.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Ends the range from both sides.
    fn end_with(&mut self, e: Error) -> Error {
        (self.front.ready, self.back.ready, self.done) = (0..0, 0..0, true);
        e
    }

    /// Puts the cursor of an end into the leaf of its bound.
    fn place(&mut self, side: Side) -> Result<()> {
        let (end, bound) = match side {
            Side::First => (&mut self.front, &self.low),
            Side::Last => (&mut self.back, &self.high),
        };
        (end.placed, end.cut) = (true, true);
        // Whether an entry with the key of the bound lies before the cut.
        let before = match (bound, side) {
            (Bound::Unbounded, _) => {
                end.cursor.enter(side)?;
                end.ready = 0..end.cursor.leaf().map_or(0, Leaf::count);
                return Ok(());
            }
            (Bound::Included(_), Side::First) | (Bound::Excluded(_), Side::Last) => false,
            (Bound::Excluded(_), Side::First) | (Bound::Included(_), Side::Last) => true,
        };
        let (Bound::Included(key) | Bound::Excluded(key)) = bound else { return Ok(()) };
        let found = end.cursor.place_towards(key, side.inward())?;
        let cut = end.cursor.at() + usize::from(found && before);
        end.ready = match side {
            Side::First => cut..end.cursor.leaf().map_or(cut, Leaf::count),
            Side::Last => 0..cut,
        };
        Ok(())
    }

    /// Computes which entries of the new leaf of an end are inside the range.
    fn prepare(&mut self, side: Side) -> Result<()> {
        let (end, other) = match side {
            Side::First => (&mut self.front, &mut self.back),
            Side::Last => (&mut self.back, &mut self.front),
        };
        let Some(leaf) = end.cursor.leaf() else {
            self.done = true;
            return Ok(());
        };
        if other.placed && other.cursor.leaf_id() == end.cursor.leaf_id() {
            // The entries that the other end has not yielded are inside both bounds, and this end
            // has not yielded them either.
            end.ready = other.ready.clone();
            (end.last_leaf, other.last_leaf, self.met) = (true, true, true);
            end.ahead = Ahead::default();
            return Ok(());
        }
        // Only one bound has to be compared: placing the end has applied the other one, or the end
        // has left its leaf, and keys ascend from leaf to leaf.
        let (start, stop) = match (side, end.cut) {
            (Side::First, true) => (end.ready.start, end_inside(end.cursor.tree(), leaf, &self.high)?),
            (Side::First, false) => (0, end_inside(end.cursor.tree(), leaf, &self.high)?),
            (Side::Last, true) => (first_inside(end.cursor.tree(), leaf, &self.low)?, end.ready.end),
            (Side::Last, false) => (first_inside(end.cursor.tree(), leaf, &self.low)?, leaf.count()),
        };
        end.last_leaf = match side {
            Side::First => stop < leaf.count(),
            Side::Last => start > 0,
        };
        end.ready = start..stop.max(start);
        end.look_ahead(side.inward());
        Ok(())
    }
}

/// The entry at an index of a leaf, its key as a whole, its value as the leaf stores it.
pub(crate) fn stored_at<'a, P: PageRead>(
    pages: &'a P,
    leaf: &Leaf<'a>,
    at: usize,
) -> Result<(&'a [u8], LeafValue<'a>)> {
    let (key, value) = leaf.entry(at)?;
    Ok((whole(pages, key)?, value))
}

/// Index of the first entry of a leaf that is not below the range.
fn first_inside<P: PageRead>(tree: Tree<'_, P>, leaf: &Leaf<'_>, low: &Bound<Vec<u8>>) -> Result<usize> {
    let (Bound::Included(key) | Bound::Excluded(key)) = low else { return Ok(0) };
    if leaf.count() == 0 || compare_at(tree, leaf, 0, key)?.is_gt() {
        return Ok(0);
    }
    let (at, found) = leaf.lower_bound_in(tree.root.order, tree.pages, key)?;
    Ok(at + usize::from(found && matches!(low, Bound::Excluded(_))))
}

/// Index of the first entry of a leaf that is above the range.
fn end_inside<P: PageRead>(tree: Tree<'_, P>, leaf: &Leaf<'_>, high: &Bound<Vec<u8>>) -> Result<usize> {
    let (Bound::Included(key) | Bound::Excluded(key)) = high else { return Ok(leaf.count()) };
    if leaf.count() == 0 || compare_at(tree, leaf, leaf.count() - 1, key)?.is_lt() {
        return Ok(leaf.count());
    }
    let (at, found) = leaf.lower_bound_in(tree.root.order, tree.pages, key)?;
    Ok(at + usize::from(found && matches!(high, Bound::Included(_))))
}

impl<'a, P: PageRead> Iterator for Range<'a, P> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.front.ready.is_empty() {
            if let Err(e) = self.refill(Side::First) {
                return Some(Err(self.end_with(e)));
            }
        }
        if let Some(entry) = self.next_fast() {
            return Some(Ok(entry));
        }
        let at = self.front.ready.next()?;
        if self.met {
            self.back.ready.start = at + 1;
        }
        self.front.other_entry(at)
    }
}

impl<P: PageRead> DoubleEndedIterator for Range<'_, P> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.ready.is_empty() {
            if let Err(e) = self.refill(Side::Last) {
                return Some(Err(self.end_with(e)));
            }
        }
        if let Some(entry) = self.next_back_fast() {
            return Some(Ok(entry));
        }
        let at = self.back.ready.next_back()?;
        if self.met {
            self.front.ready.end = at;
        }
        self.back.other_entry(at)
    }
}
