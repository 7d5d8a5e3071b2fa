//! A place in a tree that outlives changes of the tree: the base of cursors that write.
//!
//! Floor: tree. A [`Spot`] borrows no page. It keeps a key, and the way to it as long as its owner
//! says that the tree has not changed; afterwards it searches for the key again. So no split, merge
//! or removal can lead it astray: it stands at the entry with its key, or where that would be.
//!
//! Invariants:
//!   SPOT-1  while `is_placed`, the path leads to the first entry at or above `key` in its leaf, or
//!       to the end of that leaf; `is_on` says whether that entry has the key.
//!   SPOT-2  each step forwards leads to a greater key, each step back to a lower one. So a walk
//!       ends even in a damaged tree.
//!
//! Failure: `Error::Corrupt` for damage; the spot stays where it was.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::page::leaf::{Leaf, LeafValue};
use crate::pager::PageRead;

use crate::tree::lookup::search::entry_at;
use crate::tree::path::{leaf_at, Path, Side};
use crate::tree::scan::range::stored_at;
use crate::tree::{Entry, Tree};

/// A key, and what its entry stores.
pub(crate) type Stored<'a> = (&'a [u8], LeafValue<'a>);

/// Where a spot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Before the first entry.
    Start,
    /// At the entry with the key, or between the entries around it.
    Key,
    /// After the last entry.
    End,
}

/// A place in a tree.
#[derive(Clone)]
pub(crate) struct Spot {
    at: At,
    key: Vec<u8>,
    path: Box<Path>,
    is_placed: bool,
    is_on: bool,
}

impl Spot {
    /// Before the first entry.
    pub(crate) fn start() -> Spot {
        Spot { at: At::Start, key: Vec::new(), path: Box::new(Path::new()), is_placed: false, is_on: false }
    }

    /// Goes before the first entry (`First`), or after the last one.
    pub(crate) fn leave(&mut self, side: Side) {
        self.at = if side == Side::First { At::Start } else { At::End };
        self.is_placed = false;
    }

    /// Goes to a key, whether the tree has it or not.
    pub(crate) fn go_to(&mut self, key: &[u8]) {
        self.at = At::Key;
        self.key.clear();
        self.key.extend_from_slice(key);
        self.is_placed = false;
    }

    /// Forgets the way: the tree has changed.
    pub(crate) fn note_change(&mut self) {
        self.is_placed = false;
    }

    /// The key, unless the spot is before the first or after the last entry.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        (self.at == At::Key).then_some(&self.key)
    }

    /// The entry at the spot.
    pub(crate) fn current<'a, P: PageRead>(&mut self, tree: Tree<'a, P>) -> Result<Option<Entry<'a>>> {
        self.current_by(tree, entry_at)
    }

    /// Like [`Spot::current`], with what the entry stores.
    pub(crate) fn current_stored<'a, P: PageRead>(&mut self, tree: Tree<'a, P>) -> Result<Option<Stored<'a>>> {
        self.current_by(tree, stored_at)
    }

    fn current_by<'a, P: PageRead, T>(
        &mut self,
        tree: Tree<'a, P>,
        read: impl FnOnce(&'a P, &Leaf<'a>, usize) -> Result<T>,
    ) -> Result<Option<T>> {
        if self.at != At::Key || tree.is_empty() {
            return Ok(None);
        }
        self.place(tree)?;
        match self.is_on {
            true => {
                let frame = self.path.leaf();
                read(tree.pages, &leaf_at(tree.pages, frame.ptr)?, frame.index()).map(Some)
            }
            false => Ok(None),
        }
    }

    /// Moves to the next entry on that side (`Last`: the next greater one). If there is none, moves
    /// past the outermost entry.
    pub(crate) fn step<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, towards: Side) -> Result<Option<Entry<'a>>> {
        self.step_by(tree, towards, entry_at)
    }

    /// Like [`Spot::step`], with what the entry stores.
    pub(crate) fn step_stored<'a, P: PageRead>(
        &mut self,
        tree: Tree<'a, P>,
        towards: Side,
    ) -> Result<Option<Stored<'a>>> {
        self.step_by(tree, towards, stored_at)
    }

    fn step_by<'a, P: PageRead, T>(
        &mut self,
        tree: Tree<'a, P>,
        towards: Side,
        read: impl FnOnce(&'a P, &Leaf<'a>, usize) -> Result<(&'a [u8], T)>,
    ) -> Result<Option<(&'a [u8], T)>> {
        let outside = if towards == Side::Last { At::End } else { At::Start };
        if tree.is_empty() || self.at == outside {
            self.leave(towards);
            return Ok(None);
        }
        let found = match self.at {
            At::Key => self.neighbour(tree, towards)?,
            _ => {
                let enter = if towards == Side::Last { Side::First } else { Side::Last };
                let leaf = self.path.descend_to(tree, enter)?;
                (leaf.count() > 0).then_some(leaf)
            }
        };
        let Some(leaf) = found else {
            self.leave(towards);
            return Ok(None);
        };
        let (key, value) = read(tree.pages, &leaf, self.path.leaf().index()).inspect_err(|_| self.is_placed = false)?;
        let expected = if towards == Side::Last { Ordering::Less } else { Ordering::Greater };
        if self.at == At::Key && tree.root.order.compare(&self.key, key) != expected {
            self.is_placed = false;
            return Err(Error::corrupt(leaf.id(), "keys are not in ascending order"));
        }
        self.go_to(key);
        (self.is_placed, self.is_on) = (true, true);
        Ok(Some((key, value)))
    }

    /// Moves the path to the neighbouring entry. Returns its leaf.
    fn neighbour<'a, P: PageRead>(&mut self, tree: Tree<'a, P>, towards: Side) -> Result<Option<Leaf<'a>>> {
        self.place(tree)?;
        // Until the key of the new entry is known, the path and the key do not belong together.
        self.is_placed = false;
        let leaf = leaf_at(tree.pages, self.path.leaf().ptr)?;
        let index = self.path.leaf().index();
        let next = match towards {
            Side::Last => Some(index + usize::from(self.is_on)).filter(|&next| next < leaf.count()),
            Side::First => index.checked_sub(1),
        };
        match next {
            Some(next) => {
                self.path.set_leaf_index(next);
                Ok(Some(leaf))
            }
            None => self.path.step(tree.pages, towards),
        }
    }

    fn place<P: PageRead>(&mut self, tree: Tree<'_, P>) -> Result<()> {
        if !self.is_placed {
            self.is_on = self.path.descend(tree, &self.key)?;
            self.is_placed = true;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spot").field("at", &self.at).field("key", &self.key).finish_non_exhaustive()
    }
}
