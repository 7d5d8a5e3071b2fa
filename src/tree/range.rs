//! Ranges: the entries between two bounds, from both ends.
//!
//! Floor: tree. Each end has a cursor that is placed when the first entry is taken from that end, so a range that is read
//! forwards never touches the pages of its end. The bound is compared once per leaf: it gives the part of the leaf that
//! is inside, and within that part a step compares nothing.
//!
//! Invariants:
//!   G1  all of `ready` of an end lies inside the bounds and has not been given by either end.
//!   G2  when both ends are in the same leaf, their `ready` parts are equal: that is where they meet.
//!
//! Failure: a damaged page is given as one `Err`, and then the range is over; a value that cannot be read is an `Err` in
//! its place, and the entries behind it follow.

use std::ops::{Bound, Range as Indexes};

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::page::leaf::{Leaf, LeafValue};
use crate::pager::PageRead;

use super::ahead::Sweep;
use super::cursor::Cursor;
use super::path::Side;
use super::search::entry_at;
use super::value::run_pages;
use super::{Entry, TreeRoot};

/// What a processor fetches at a time.
const CACHE_LINE_BYTES: usize = 64;

/// What is asked for at once where a range begins: as much as a core can have in flight.
const FIRST_BYTES: usize = 1024;

/// The side towards which the end of a side moves.
#[inline]
fn inward(side: Side) -> Side {
    match side {
        Side::First => Side::Last,
        Side::Last => Side::First,
    }
}

/// One end of a range.
struct End<'a, P> {
    cursor: Cursor<'a, P>,
    /// Entries of the cursor's leaf that can be given.
    ready: Indexes<usize>,
    placed: bool,
    /// No leaf beyond this one has anything for the range.
    last_leaf: bool,
    ahead: Ahead,
    sweep: Sweep,
}

/// The leaf that comes next, brought into the processor's cache while the entries of this one are given: a share of it
/// with each entry, because all of it at once is more than a processor fetches at a time.
#[derive(Default)]
struct Ahead {
    leaf: PageId,
    /// Bytes asked for so far, from the side that is read first.
    done: usize,
    /// Bytes to ask for with each entry.
    share: usize,
}

impl Ahead {
    #[inline]
    fn fetch<P: PageRead>(&mut self, pages: &P, side: Side) {
        let page_size = pages.page_size();
        if self.done + self.share <= page_size {
            let from = if side == Side::First { self.done } else { page_size - self.done - self.share };
            pages.prefetch(self.leaf, from, self.share);
            self.done += self.share;
        }
    }
}

impl<'a, P: PageRead> End<'a, P> {
    fn new(pages: &'a P, root: TreeRoot) -> End<'a, P> {
        let (ahead, sweep) = (Ahead::default(), Sweep::default());
        End { cursor: Cursor::new(pages, root), ready: 0..0, placed: false, last_leaf: false, ahead, sweep }
    }

    /// Spreads the fetching of the next leaf over the entries of this one, and sees to it that those behind it are in memory.
    fn look_ahead(&mut self, towards: Side) {
        self.sweep.arrived(self.cursor.pages(), self.cursor.path(), towards);
        let page_size = self.cursor.pages().page_size();
        let leaf = self.cursor.ahead();
        let share = (page_size / self.ready.len().max(1)).next_multiple_of(CACHE_LINE_BYTES).min(page_size);
        self.ahead = Ahead { leaf, done: if leaf.is_none() { page_size } else { 0 }, share };
    }

    /// Asks for the first entries that will be given: nothing before them told the processor where they lie.
    fn fetch_first(&self, side: Side) {
        let (Some(leaf), false) = (self.cursor.leaf(), self.ready.is_empty()) else { return };
        let from = match side {
            Side::First => leaf.entry_offset(self.ready.start),
            // Entries ascend in address.
            Side::Last => leaf.entry_offset(self.ready.end - 1).saturating_sub(FIRST_BYTES / 2),
        };
        let page_size = self.cursor.pages().page_size();
        self.cursor.pages().prefetch(leaf.id(), from, FIRST_BYTES.min(page_size.saturating_sub(from)));
    }

    #[inline]
    fn entry(&mut self, at: usize) -> Option<Result<Entry<'a>>> {
        match self.cursor.leaf()?.inline_entry(at) {
            Some(entry) => Some(Ok(entry)),
            None => self.other_entry(at),
        }
    }

    /// Values in runs, and damage.
    #[cold]
    #[inline(never)]
    fn other_entry(&mut self, at: usize) -> Option<Result<Entry<'a>>> {
        let leaf = self.cursor.leaf()?;
        if let Some((id, pages)) = run_of(self.cursor.pages(), leaf, at) {
            self.sweep.reads_run(id, pages);
        }
        Some(entry_at(self.cursor.pages(), leaf, at))
    }
}

/// The run of the value at an index of a leaf, if it has one.
fn run_of<P: PageRead>(pages: &P, leaf: &Leaf<'_>, at: usize) -> Option<(PageId, u64)> {
    match leaf.value(at) {
        Ok(LeafValue::Overflow(pointer)) => {
            run_pages(pages.page_size(), &pointer).ok().map(|pages| (pointer.ptr.id, pages))
        }
        _ => None,
    }
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
    pub(crate) fn new(pages: &'a P, root: TreeRoot, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Range<'a, P> {
        Range {
            front: End::new(pages, root),
            back: End::new(pages, root),
            low: low.map(<[u8]>::to_vec),
            high: high.map(<[u8]>::to_vec),
            met: false,
            done: root.height == 0,
        }
    }

    /// The pages that the range reads.
    #[inline]
    pub(crate) fn pages(&self) -> &'a P {
        self.front.cursor.pages()
    }

    /// Whether pages that the range brings into memory stay there, behind it.
    pub(crate) fn fill_cache(&mut self, fill: bool) {
        let pages = self.front.cursor.pages();
        self.front.sweep.fill_cache(pages, fill);
        self.back.sweep.fill_cache(pages, fill);
    }

    /// Moves the end of that side to its next leaf until it has entries ready; ends the range if there are none.
    #[cold]
    fn refill(&mut self, side: Side) -> Result<()> {
        let mut first = false;
        while !self.done {
            let end = if side == Side::First { &mut self.front } else { &mut self.back };
            if end.placed {
                self.done = end.last_leaf || !end.cursor.step(inward(side))?;
            } else {
                self.place(side)?;
                first = true;
            }
            if self.done {
                break;
            }
            self.prepare(side)?;
            if first {
                let end = if side == Side::First { &self.front } else { &self.back };
                end.fetch_first(side);
            }
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
        end.placed = true;
        match bound {
            Bound::Unbounded => end.cursor.enter(side),
            Bound::Included(key) | Bound::Excluded(key) => end.cursor.place_towards(key, inward(side)),
        }
    }

    /// Works out which entries of the leaf that an end has come to are inside the range.
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
            // What the other end has left is inside both bounds, and nothing of it was given.
            end.ready = other.ready.clone();
            (end.last_leaf, other.last_leaf, self.met) = (true, true, true);
            return Ok(());
        }
        let (start, stop) = (first_inside(leaf, &self.low)?, end_inside(leaf, &self.high)?);
        end.last_leaf = match side {
            Side::First => stop < leaf.count(),
            Side::Last => start > 0,
        };
        end.ready = start..stop.max(start);
        end.look_ahead(inward(side));
        Ok(())
    }
}

/// Index of the first entry of a leaf that is not below the range.
fn first_inside(leaf: &Leaf<'_>, low: &Bound<Vec<u8>>) -> Result<usize> {
    match low {
        Bound::Included(key) if leaf.count() > 0 && leaf.first_key()? < key.as_slice() => Ok(leaf.lower_bound(key)?.0),
        Bound::Excluded(key) if leaf.count() > 0 && leaf.first_key()? <= key.as_slice() => behind(leaf, key),
        _ => Ok(0),
    }
}

/// Index of the first entry of a leaf that is above the range.
fn end_inside(leaf: &Leaf<'_>, high: &Bound<Vec<u8>>) -> Result<usize> {
    match high {
        Bound::Included(key) if leaf.count() > 0 && leaf.last_key()? > key.as_slice() => behind(leaf, key),
        Bound::Excluded(key) if leaf.count() > 0 && leaf.last_key()? >= key.as_slice() => Ok(leaf.lower_bound(key)?.0),
        _ => Ok(leaf.count()),
    }
}

/// Index of the first entry above the key.
fn behind(leaf: &Leaf<'_>, key: &[u8]) -> Result<usize> {
    let (at, found) = leaf.lower_bound(key)?;
    Ok(at + usize::from(found))
}

impl<'a, P: PageRead> Iterator for Range<'a, P> {
    type Item = Result<Entry<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.front.ready.is_empty() {
            if let Err(e) = self.refill(Side::First) {
                return Some(Err(self.end_with(e)));
            }
        }
        let at = self.front.ready.next()?;
        if self.met {
            self.back.ready.start = at + 1;
        }
        self.front.ahead.fetch(self.front.cursor.pages(), Side::First);
        self.front.entry(at)
    }
}

impl<P: PageRead> DoubleEndedIterator for Range<'_, P> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.ready.is_empty() {
            if let Err(e) = self.refill(Side::Last) {
                return Some(Err(self.end_with(e)));
            }
        }
        let at = self.back.ready.next_back()?;
        if self.met {
            self.front.ready.end = at;
        }
        self.back.ahead.fetch(self.back.cursor.pages(), Side::Last);
        self.back.entry(at)
    }
}
