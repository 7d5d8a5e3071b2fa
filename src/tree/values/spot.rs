//! A place among the pairs of a multimap that outlives changes: the base of cursors that write.
//!
//! Floor: tree. A [`PairSpot`] borrows no page. It is a spot among the keys
//! (`tree/scan/spot.rs`), and a place among the values of the key there: a value, with the way to
//! it as long as nothing has changed. So it stands at a pair, or where that would be; or before all
//! values of a key, whether the table has the key or not.
//!
//! Invariants:
//!   PSPOT-1  while `is_placed`, `index` is that of the first value at or above `value` in the set
//!       of the key, or in the leaf of its value tree that `path` leads to, or it is the end of
//!       either; `is_on` says whether that value is `value`.
//!   PSPOT-2  each step forwards leads to a greater pair, each step back to a lower one. So a walk
//!       ends even in a damaged tree.
//!
//! Failure: `Error::Corrupt` for damage. The spot stays where it was, or stands before the values
//! of the key that it has reached and whose values cannot be read.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::page::leaf::LeafValue;
use crate::page::value_set::ValueSet;
use crate::pager::PageRead;

use crate::tree::path::{last_index, Path, Side};
use crate::tree::scan::spot::{Spot, Stored};
use crate::tree::values::range::damaged_set;
use crate::tree::values::stored::{count_of, root_of, single_value, ValueLeaf};
use crate::tree::{Entry, Tree};

/// A place among the pairs of a multimap.
#[derive(Clone)]
pub(crate) struct PairSpot {
    key: Spot,
    /// The spot is at `within`, not before all values of the key.
    is_inside: bool,
    within: Within,
}

/// A place among the values of one key.
#[derive(Clone)]
struct Within {
    value: Vec<u8>,
    /// The way to the leaf of a value tree.
    path: Box<Path>,
    index: usize,
    is_placed: bool,
    is_on: bool,
}

impl PairSpot {
    /// Before the first pair.
    pub(crate) fn start() -> PairSpot {
        PairSpot { key: Spot::start(), is_inside: false, within: Within::new() }
    }

    /// Goes before the first pair (`First`), or after the last one.
    pub(crate) fn leave(&mut self, side: Side) {
        self.key.leave(side);
        self.is_inside = false;
    }

    /// Goes before all values of a key, whether the table has it or not.
    pub(crate) fn go_to_key(&mut self, key: &[u8]) {
        self.key.go_to(key);
        self.is_inside = false;
    }

    /// Goes to a pair, whether the table has it or not.
    pub(crate) fn go_to(&mut self, key: &[u8], value: &[u8]) {
        self.key.go_to(key);
        self.is_inside = true;
        self.within.go_to(value);
    }

    /// Forgets the way: the table has changed.
    pub(crate) fn note_change(&mut self) {
        self.key.note_change();
        self.within.is_placed = false;
    }

    /// The key, unless the spot is before the first or after the last pair.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.key.key()
    }

    /// Key and value, if the spot is at a pair, or where one would be.
    pub(crate) fn pair(&self) -> Option<Entry<'_>> {
        self.key().filter(|_| self.is_inside).map(|key| (key, self.within.value.as_slice()))
    }

    /// The pair at the spot.
    pub(crate) fn current<'a, P: PageRead>(&mut self, tree: Tree<'a, P>) -> Result<Option<Entry<'a>>> {
        if !self.is_inside {
            return Ok(None);
        }
        let Some((key, stored)) = self.key.current_stored(tree)? else { return Ok(None) };
        Ok(self.within.current(tree, &stored)?.map(|value| (key, value)))
    }

    /// Number of values of the key at the spot.
    pub(crate) fn count<P: PageRead>(&mut self, tree: Tree<'_, P>) -> Result<u64> {
        match self.key.current_stored(tree)? {
            Some((_, stored)) => count_of(tree.root.shape, &stored),
            None => Ok(0),
        }
    }

    /// Goes to the first (`First`) or the last value of the key, if the table has the key.
    pub(crate) fn enter<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, side: Side) -> Result<Option<Entry<'a>>> {
        match self.key.current_stored(tree)? {
            Some(found) => self.enter_key(tree, found, side).map(Some),
            None => Ok(None),
        }
    }

    /// Moves to the next pair on that side (`Last`: the next greater one). If there is none, moves
    /// past the outermost pair.
    pub(crate) fn step<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, towards: Side) -> Result<Option<Entry<'a>>> {
        if let Some((key, stored)) = self.key.current_stored(tree)? {
            let value = match (self.is_inside, towards) {
                (true, _) => self.within.step(tree, &stored, towards)?,
                (false, Side::Last) => Some(self.enter_key(tree, (key, stored), Side::First)?.1),
                (false, Side::First) => None,
            };
            if let Some(value) = value {
                return Ok(Some((key, value)));
            }
        }
        self.step_key(tree, towards)
    }

    /// Moves to the next key on that side: to the first value of the next greater one, or to the
    /// last value of the next lower one. If there is none, moves past the outermost pair.
    pub(crate) fn step_key<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, towards: Side) -> Result<Option<Entry<'a>>> {
        match self.key.step_stored(tree, towards)? {
            Some(found) => self.enter_key(tree, found, towards.inward()).map(Some),
            None => {
                self.is_inside = false;
                Ok(None)
            }
        }
    }

    /// Goes to the outermost value of the key that the spot has reached.
    fn enter_key<'a, P: PageRead>(
        &mut self,
        tree: Tree<'a, P>,
        (key, stored): Stored<'a>,
        side: Side,
    ) -> Result<Entry<'a>> {
        self.is_inside = false;
        let value = self.within.enter(tree, &stored, side)?;
        self.is_inside = true;
        Ok((key, value))
    }
}

impl Within {
    fn new() -> Within {
        Within { value: Vec::new(), path: Box::new(Path::new()), index: 0, is_placed: false, is_on: false }
    }

    fn go_to(&mut self, value: &[u8]) {
        self.value.clear();
        self.value.extend_from_slice(value);
        self.is_placed = false;
    }

    /// Stands at the value with this index, to which the path leads.
    fn stand_at(&mut self, index: usize, value: &[u8]) {
        self.go_to(value);
        (self.index, self.is_placed, self.is_on) = (index, true, true);
    }

    fn place<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, stored: &LeafValue<'a>) -> Result<()> {
        if self.is_placed {
            return Ok(());
        }
        (self.index, self.is_on) = match stored {
            LeafValue::Set(bytes) => ValueSet::new(bytes, tree.root.shape).search(&self.value),
            LeafValue::Tree(to) => {
                let root = root_of(tree.root, to);
                let ptr = self.path.descend_above(Tree::new(tree.pages, &root), &self.value)?;
                ValueLeaf::at(tree.pages, ptr, root.shape)?.search(&self.value)?
            }
            LeafValue::Inline(_) | LeafValue::Overflow(_) => return Err(single_value(tree.root.ptr.id)),
        };
        self.is_placed = true;
        Ok(())
    }

    /// The value that the place is at.
    fn current<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, stored: &LeafValue<'a>) -> Result<Option<&'a [u8]>> {
        self.place(tree, stored)?;
        if !self.is_on {
            return Ok(None);
        }
        self.values_here(tree, stored)?.get(self.index).map(Some)
    }

    /// Moves to the next value on that side, if the key has one more.
    fn step<'a, P: PageRead>(
        &mut self,
        tree: Tree<'a, P>,
        stored: &LeafValue<'a>,
        towards: Side,
    ) -> Result<Option<&'a [u8]>> {
        self.place(tree, stored)?;
        let mut here = self.values_here(tree, stored)?;
        let next = match towards {
            Side::Last => Some(self.index + usize::from(self.is_on)).filter(|&next| next < here.count()),
            Side::First => self.index.checked_sub(1),
        };
        // Until the new value is known, the path and the value do not belong together.
        self.is_placed = false;
        let index = match (next, stored) {
            (Some(next), _) => next,
            (None, LeafValue::Tree(to)) => {
                let Some((ptr, _)) = self.path.skip(tree.pages, towards)? else { return Ok(None) };
                here = Here::Leaf(ValueLeaf::at(tree.pages, ptr, root_of(tree.root, to).shape)?);
                if towards == Side::Last {
                    0
                } else {
                    last_index(here.count(), ptr)?
                }
            }
            (None, _) => return Ok(None),
        };
        let value = here.get(index)?;
        let expected = if towards == Side::Last { Ordering::Less } else { Ordering::Greater };
        if self.value.as_slice().cmp(value) != expected {
            return Err(Error::corrupt(here.page(tree), "values are not in ascending order"));
        }
        self.stand_at(index, value);
        Ok(Some(value))
    }

    /// Goes to the first or the last value of a key.
    fn enter<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, stored: &LeafValue<'a>, side: Side) -> Result<&'a [u8]> {
        self.is_placed = false;
        if let LeafValue::Tree(to) = stored {
            self.path.descend_above_to(Tree::new(tree.pages, &root_of(tree.root, to)), side)?;
        }
        let here = self.values_here(tree, stored)?;
        let index = match side {
            Side::First => 0,
            Side::Last => here.count().saturating_sub(1),
        };
        let value = here.get(index)?;
        self.stand_at(index, value);
        Ok(value)
    }

    /// The values of the set, or of the leaf that the path leads to.
    fn values_here<'a, P: PageRead>(&self, tree: Tree<'a, P>, stored: &LeafValue<'a>) -> Result<Here<'a>> {
        match stored {
            LeafValue::Set(bytes) => Ok(Here::Set(ValueSet::new(bytes, tree.root.shape))),
            LeafValue::Tree(to) => {
                let shape = root_of(tree.root, to).shape;
                ValueLeaf::at(tree.pages, self.path.leaf().ptr, shape).map(Here::Leaf)
            }
            LeafValue::Inline(_) | LeafValue::Overflow(_) => Err(single_value(tree.root.ptr.id)),
        }
    }
}

/// Values that lie side by side.
enum Here<'a> {
    Set(ValueSet<'a>),
    Leaf(ValueLeaf<'a>),
}

impl<'a> Here<'a> {
    fn count(&self) -> usize {
        match self {
            Here::Set(set) => set.count(),
            Here::Leaf(leaf) => leaf.count(),
        }
    }

    fn get(&self, index: usize) -> Result<&'a [u8]> {
        match self {
            Here::Set(set) => set.get(index).ok_or_else(damaged_set),
            Here::Leaf(leaf) => leaf.get(index),
        }
    }

    /// The page to name in an error.
    fn page<P>(&self, tree: Tree<'_, P>) -> crate::ids::PageId {
        match self {
            Here::Set(_) => tree.root.ptr.id,
            Here::Leaf(leaf) => leaf.id(),
        }
    }
}

impl std::fmt::Debug for PairSpot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.is_inside.then_some(&self.within.value);
        f.debug_struct("PairSpot").field("key", &self.key).field("value", &value).finish()
    }
}
