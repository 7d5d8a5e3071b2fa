//! Cursors: a place in a tree that moves in both directions.
//!
//! Floor: tree. The current leaf is kept decoded, so a step within it is an index and the decoding of one entry; the
//! branches are looked at once per leaf.
//!
//! Invariants:
//!   C1  from leaf to leaf keys only ascend (or descend), and within a leaf the first is below the last. So a walk ends,
//!       whatever the file says: no leaf can be met twice.
//!   C2  `at` is an index into the leaf, or one off either end: `usize::MAX` before the first entry of the tree,
//!       `count` behind the last one.
//!
//! Failure: a damaged page is `Error::Corrupt` once; after that the cursor gives nothing until it is placed anew. An entry
//! that cannot be read is an error in its place, and the cursor can go on from it.

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::page::leaf::Leaf;
use crate::pager::PageRead;

use super::path::{leaf_at, Path, Side};
use super::search::entry_at;
use super::{Entry, TreeRoot};

/// Index before the first entry; the entry behind it is number 0.
const BEFORE: usize = usize::MAX;

/// A place in a tree. A new one is in no place: `next` gives the first entry and `prev` the last.
pub(crate) struct Cursor<'a, P> {
    pages: &'a P,
    root: TreeRoot,
    path: Path,
    leaf: Option<Leaf<'a>>,
    /// Entries of `leaf`; 0 while there is none.
    count: usize,
    at: usize,
    /// Set by damage, cleared by placing the cursor.
    lost: bool,
}

impl<'a, P: PageRead> Cursor<'a, P> {
    pub(crate) fn new(pages: &'a P, root: TreeRoot) -> Cursor<'a, P> {
        Cursor { pages, root, path: Path::new(), leaf: None, count: 0, at: BEFORE, lost: false }
    }

    /// Goes to the first entry.
    pub(crate) fn seek_first(&mut self) -> Result<Option<Entry<'a>>> {
        self.enter(Side::First)?;
        self.current()
    }

    /// Goes to the last entry.
    pub(crate) fn seek_last(&mut self) -> Result<Option<Entry<'a>>> {
        self.enter(Side::Last)?;
        self.current()
    }

    /// Goes to the first entry at or above the key.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<Option<Entry<'a>>> {
        self.place(key)?;
        if self.at < self.count {
            return self.current();
        }
        self.at = self.at.wrapping_sub(1);
        self.next()
    }

    /// Goes to the last entry below the key.
    pub(crate) fn seek_before(&mut self, key: &[u8]) -> Result<Option<Entry<'a>>> {
        self.place(key)?;
        self.prev()
    }

    /// The entry that the cursor is at.
    pub(crate) fn current(&self) -> Result<Option<Entry<'a>>> {
        match &self.leaf {
            Some(leaf) if self.at < self.count => entry_at(self.pages, leaf, self.at).map(Some),
            _ => Ok(None),
        }
    }

    /// Moves to the next entry. Behind the last one, stays there.
    #[inline]
    #[allow(clippy::should_implement_trait)]
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'a>>> {
        let next = self.at.wrapping_add(1);
        if let Some(entry) = self.leaf.as_ref().and_then(|leaf| leaf.inline_entry(next)) {
            self.at = next;
            return Ok(Some(entry));
        }
        self.move_to(next, Side::Last)
    }

    /// Moves to the previous entry. Before the first one, stays there.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<Option<Entry<'a>>> {
        let prev = self.at.wrapping_sub(1);
        if let Some(entry) = self.leaf.as_ref().and_then(|leaf| leaf.inline_entry(prev)) {
            self.at = prev;
            return Ok(Some(entry));
        }
        self.move_to(prev, Side::First)
    }

    /// A step that is not to an entry with an inline value in the same leaf.
    #[cold]
    #[inline(never)]
    fn move_to(&mut self, at: usize, towards: Side) -> Result<Option<Entry<'a>>> {
        if self.leaf.is_none() {
            return match (self.lost, towards) {
                (true, _) => Ok(None),
                (false, Side::Last) => self.seek_first(),
                (false, Side::First) => self.seek_last(),
            };
        }
        if at < self.count {
            self.at = at;
        } else if !self.step(towards)? {
            self.at = if towards == Side::Last { self.count } else { BEFORE };
        }
        self.current()
    }

    /// Puts the cursor at the first entry of its leaf at or above the key, or behind the leaf's last.
    pub(super) fn place_towards(&mut self, key: &[u8], towards: Side) -> Result<()> {
        self.place(key)?;
        self.path.look(self.pages, towards);
        Ok(())
    }

    fn place(&mut self, key: &[u8]) -> Result<()> {
        self.reset();
        if self.root.height == 0 {
            return Ok(());
        }
        self.lost = true;
        self.path.descend(self.pages, &self.root, key)?;
        let leaf = leaf_at(self.pages, self.path.leaf().ptr)?;
        self.take(leaf, self.path.leaf().index());
        Ok(())
    }

    /// Puts the cursor at one end of the tree.
    pub(super) fn enter(&mut self, side: Side) -> Result<()> {
        self.reset();
        if self.root.height == 0 {
            return Ok(());
        }
        self.lost = true;
        let leaf = self.path.descend_to(self.pages, &self.root, side)?;
        self.take(leaf, if side == Side::First { 0 } else { leaf.count().wrapping_sub(1) });
        Ok(())
    }

    /// Moves to the near end of the neighbouring leaf, if there is one; else stays.
    pub(super) fn step(&mut self, towards: Side) -> Result<bool> {
        let Some(leaf) = self.leaf else { return Ok(false) };
        let stepped = self.path.step(self.pages, towards).and_then(|next| {
            next.map_or(Ok(()), |next| check_order(&leaf, &next, towards))?;
            Ok(next)
        });
        match stepped {
            Ok(Some(next)) => {
                self.take(next, if towards == Side::Last { 0 } else { next.count().wrapping_sub(1) });
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(e) => {
                self.reset();
                self.lost = true;
                Err(e)
            }
        }
    }

    fn take(&mut self, leaf: Leaf<'a>, at: usize) {
        (self.count, self.at, self.lost) = (leaf.count(), at, false);
        self.leaf = Some(leaf);
    }

    fn reset(&mut self) {
        (self.leaf, self.count, self.at, self.lost) = (None, 0, BEFORE, false);
    }

    /// The current leaf, for ranges, which step within it themselves.
    #[inline]
    pub(super) fn leaf(&self) -> Option<&Leaf<'a>> {
        self.leaf.as_ref()
    }

    /// The leaf that the walk is about to come to, where that is known.
    pub(super) fn ahead(&self) -> PageId {
        self.path.ahead()
    }

    /// The way to the current leaf.
    #[inline]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The page that the current leaf is; none before the cursor is placed.
    pub(super) fn leaf_id(&self) -> PageId {
        self.leaf.map_or(PageId::NONE, |leaf| leaf.id())
    }

    #[inline]
    pub(super) fn pages(&self) -> &'a P {
        self.pages
    }
}

/// Refuses a neighbouring leaf whose keys do not all lie on its side (C1).
fn check_order(from: &Leaf<'_>, to: &Leaf<'_>, towards: Side) -> Result<()> {
    let (left, right) = if towards == Side::Last { (from, to) } else { (to, from) };
    let inside = to.count() == 1 || to.first_key()? < to.last_key()?;
    if !inside || left.last_key()? >= right.first_key()? {
        return Err(Error::corrupt(to.id(), "keys are not in ascending order"));
    }
    Ok(())
}
