//! The values of one key between two bounds, from both ends.
//!
//! Floor: tree. The values of a set are read by their indexes. In a value tree each end has a path
//! to its leaf, and knows which values of the leaf lie inside the bounds; a step within the leaf
//! compares nothing. The values of a packed leaf are handed out like those of a set.
//!
//! Invariants:
//!   VRANGE-1  all of `ready` of an end lies inside the bounds, and neither end has yielded any of
//!             it.
//!   VRANGE-2  when both ends are in the same leaf, their `ready` parts are equal.
//!   VRANGE-3  `lent` names the end of a value tree whose `ready` part is in `here` meanwhile. Both
//!             ends are in different leaves then. It goes back before the tree takes a step.
//!   VRANGE-4  values ascend from leaf to leaf; so a walk ends even in a damaged tree.
//!
//! Failure: a damaged page yields one `Err` and ends the range.

use std::ops::{Bound, Range as Indexes};

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::page::leaf::LeafValue;
use crate::page::value_set::ValueSet;
use crate::pager::PageRead;

use crate::tree::path::{Path, Side};
use crate::tree::values::stored::{root_of, single_value, ValueLeaf};
use crate::tree::{Tree, TreeRoot};

/// The values of one key in ascending order, and from the other end in descending order.
pub(crate) struct ValueRange<'a, P> {
    /// Values that lie side by side, and the indexes of those that were not yielded: of a set, or
    /// of the packed leaf at one end of a value tree.
    here: ValueSet<'a>,
    indexes: Indexes<usize>,
    tree: Option<Box<TreeValues<'a, P>>>,
    /// The ends from which `indexes` may be yielded: both of a set, one of a value tree.
    front: bool,
    back: bool,
}

/// The values of a value tree.
pub(crate) struct TreeValues<'a, P> {
    pages: &'a P,
    root: TreeRoot,
    front: End<'a>,
    back: End<'a>,
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
    /// Both ends are in the same leaf.
    met: bool,
    done: bool,
}

/// One end of a range.
struct End<'a> {
    path: Path,
    leaf: Option<ValueLeaf<'a>>,
    /// Indexes of the values of the leaf that this end can still yield.
    ready: Indexes<usize>,
    /// No leaf after this one has values of the range.
    is_last: bool,
}

impl End<'_> {
    fn new() -> Self {
        End { path: Path::new(), leaf: None, ready: 0..0, is_last: false }
    }
}

impl<'a, P: PageRead> ValueRange<'a, P> {
    /// No values.
    pub(crate) fn none() -> ValueRange<'a, P> {
        ValueRange::of_set(ValueSet::new(&[], Default::default()), 0..0)
    }

    /// The values that an entry of a table stores, between two bounds.
    pub(crate) fn of(
        pages: &'a P,
        table: &TreeRoot,
        stored: LeafValue<'a>,
        low: Bound<Vec<u8>>,
        high: Bound<Vec<u8>>,
    ) -> Result<ValueRange<'a, P>> {
        match stored {
            LeafValue::Set(bytes) => {
                let set = ValueSet::new(bytes, table.shape);
                let start = start_in(&low, |value| Ok(set.search(value)))?;
                let stop = stop_in(&high, set.count(), |value| Ok(set.search(value)))?;
                Ok(ValueRange::of_set(set, start..stop.max(start)))
            }
            LeafValue::Tree(to) => {
                let root = root_of(table, &to);
                let (front, back) = (End::new(), End::new());
                let values = TreeValues { pages, root, front, back, low, high, met: false, done: false };
                let nothing = ValueSet::new(&[], Default::default());
                let tree = Some(Box::new(values));
                Ok(ValueRange { here: nothing, indexes: 0..0, tree, front: false, back: false })
            }
            LeafValue::Inline(_) | LeafValue::Overflow(_) => Err(single_value(table.ptr.id)),
        }
    }

    fn of_set(here: ValueSet<'a>, indexes: Indexes<usize>) -> ValueRange<'a, P> {
        ValueRange { here, indexes, tree: None, front: true, back: true }
    }

    /// The next value from one end of a value tree, or of what is left of a set.
    #[inline(never)]
    fn step(&mut self, side: Side) -> Option<Result<&'a [u8]>> {
        let Some(tree) = &mut self.tree else {
            let at = if side == Side::First { self.indexes.next()? } else { self.indexes.next_back()? };
            return Some(self.here.get(at).ok_or_else(damaged_set));
        };
        if self.front || self.back {
            let lent = if self.front { &mut tree.front } else { &mut tree.back };
            lent.ready = std::mem::replace(&mut self.indexes, 0..0);
            (self.front, self.back) = (false, false);
        }
        let value = tree.next(side);
        // Both ends in one leaf take turns, step by step (VRANGE-2).
        let lent = if tree.met { None } else { tree.lend(side) };
        (self.front, self.back) = (lent.is_some() && side == Side::First, lent.is_some() && side == Side::Last);
        if let Some((values, indexes)) = lent {
            (self.here, self.indexes) = (values, indexes);
        }
        value
    }
}

impl<'a, P> ValueRange<'a, P> {
    /// The next value, if it can be read without another page. Else returns `None` and changes
    /// nothing.
    #[inline(always)]
    pub(crate) fn next_fast(&mut self) -> Option<&'a [u8]> {
        let at = self.indexes.start;
        if at >= self.indexes.end || !self.front {
            return None;
        }
        let value = self.here.get(at)?;
        self.indexes.start = at + 1;
        Some(value)
    }

    /// Like [`ValueRange::next_fast`], from the other end.
    #[inline(always)]
    pub(crate) fn next_back_fast(&mut self) -> Option<&'a [u8]> {
        if self.indexes.start >= self.indexes.end || !self.back {
            return None;
        }
        let value = self.here.get(self.indexes.end - 1)?;
        self.indexes.end -= 1;
        Some(value)
    }
}

/// Index of the first of some values that is not below a bound.
fn start_in(low: &Bound<Vec<u8>>, search: impl FnOnce(&[u8]) -> Result<(usize, bool)>) -> Result<usize> {
    Ok(match low {
        Bound::Unbounded => 0,
        Bound::Included(value) => search(value)?.0,
        Bound::Excluded(value) => {
            let (at, found) = search(value)?;
            at + usize::from(found)
        }
    })
}

/// Index of the first of `count` values that is above a bound.
fn stop_in(high: &Bound<Vec<u8>>, count: usize, search: impl FnOnce(&[u8]) -> Result<(usize, bool)>) -> Result<usize> {
    Ok(match high {
        Bound::Unbounded => count,
        Bound::Excluded(value) => search(value)?.0,
        Bound::Included(value) => {
            let (at, found) = search(value)?;
            at + usize::from(found)
        }
    })
}

#[cold]
pub(crate) fn damaged_set() -> Error {
    Error::corrupt(PageId::NONE, "a value of a key leaves its place")
}

impl<'a, P: PageRead> Iterator for ValueRange<'a, P> {
    type Item = Result<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.next_fast() {
            Some(value) => Some(Ok(value)),
            None => self.step(Side::First),
        }
    }
}

impl<P: PageRead> DoubleEndedIterator for ValueRange<'_, P> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        match self.next_back_fast() {
            Some(value) => Some(Ok(value)),
            None => self.step(Side::Last),
        }
    }
}

impl<P: PageRead> ValueRange<'_, P> {
    /// Whether no value is left. May read a page; after an error none is left.
    pub(crate) fn is_used_up(&mut self) -> Result<bool> {
        if self.indexes.start < self.indexes.end {
            return Ok(false);
        }
        let Some(tree) = &mut self.tree else { return Ok(true) };
        // An end that has lent its last value has none ready.
        (self.indexes, self.front, self.back) = (0..0, false, false);
        tree.make_ready(Side::First)?;
        Ok(tree.front.ready.is_empty())
    }
}

impl<'a, P: PageRead> TreeValues<'a, P> {
    /// Moves one end to its next values, unless it has some ready. An error ends the range.
    fn make_ready(&mut self, side: Side) -> Result<()> {
        if self.end(side).ready.is_empty() {
            if let Err(e) = self.refill(side) {
                (self.front.ready, self.back.ready, self.done) = (0..0, 0..0, true);
                return Err(e);
            }
        }
        Ok(())
    }

    /// The next value from one end.
    fn next(&mut self, side: Side) -> Option<Result<&'a [u8]>> {
        if let Err(e) = self.make_ready(side) {
            return Some(Err(e));
        }
        let end = if side == Side::First { &mut self.front } else { &mut self.back };
        let at = if side == Side::First { end.ready.next()? } else { end.ready.next_back()? };
        let value = end.leaf.as_ref()?.get(at);
        if self.met {
            match side {
                Side::First => self.back.ready.start = at + 1,
                Side::Last => self.front.ready.end = at,
            }
        }
        Some(value)
    }

    /// Hands out the rest of the packed leaf at one end.
    fn lend(&mut self, side: Side) -> Option<(ValueSet<'a>, Indexes<usize>)> {
        let shape = self.root.shape;
        let end = if side == Side::First { &mut self.front } else { &mut self.back };
        match end.leaf {
            Some(ValueLeaf::Packed(leaf)) => {
                Some((ValueSet::new(leaf.values(), shape), std::mem::replace(&mut end.ready, 0..0)))
            }
            _ => None,
        }
    }

    fn end(&self, side: Side) -> &End<'a> {
        match side {
            Side::First => &self.front,
            Side::Last => &self.back,
        }
    }

    /// Moves one end to its next leaf, until it has values ready.
    #[cold]
    fn refill(&mut self, side: Side) -> Result<()> {
        while !self.done && self.end(side).ready.is_empty() {
            let Some(leaf) = self.next_leaf(side)? else {
                self.done = true;
                break;
            };
            let (end, other) = match side {
                Side::First => (&mut self.front, &mut self.back),
                Side::Last => (&mut self.back, &mut self.front),
            };
            end.leaf = Some(leaf);
            if other.leaf.is_some_and(|other| other.id() == leaf.id()) {
                end.ready = other.ready.clone();
                (end.is_last, other.is_last, self.met) = (true, true, true);
                continue;
            }
            let start = start_in(&self.low, |value| leaf.search(value))?;
            let stop = stop_in(&self.high, leaf.count(), |value| leaf.search(value))?;
            end.ready = start..stop.max(start);
            end.is_last = if side == Side::First { stop < leaf.count() } else { start > 0 };
        }
        Ok(())
    }

    /// The next leaf of an end: at first the one of its bound.
    fn next_leaf(&mut self, side: Side) -> Result<Option<ValueLeaf<'a>>> {
        let shape = self.root.shape;
        let (end, bound) = match side {
            Side::First => (&mut self.front, &self.low),
            Side::Last => (&mut self.back, &self.high),
        };
        let tree = Tree::new(self.pages, &self.root);
        let Some(before) = end.leaf else {
            let ptr = match bound {
                Bound::Unbounded => end.path.descend_above_to(tree, side)?,
                Bound::Included(value) | Bound::Excluded(value) => end.path.descend_above(tree, value)?,
            };
            return ValueLeaf::at(self.pages, ptr, shape).map(Some);
        };
        if end.is_last {
            return Ok(None);
        }
        let towards = if side == Side::First { Side::Last } else { Side::First };
        let Some((ptr, _)) = end.path.skip(self.pages, towards)? else { return Ok(None) };
        let leaf = ValueLeaf::at(self.pages, ptr, shape)?;
        let (left, right) = if side == Side::First { (&before, &leaf) } else { (&leaf, &before) };
        if left.get(left.count().wrapping_sub(1))? >= right.get(0)? {
            return Err(Error::corrupt(ptr.id, "values are not in ascending order"));
        }
        end.path.look(self.pages, towards);
        let ahead = end.path.ahead();
        if !ahead.id.is_none() {
            self.pages.prefetch(ahead.id, 0, self.pages.page_size());
        }
        Ok(Some(leaf))
    }
}
