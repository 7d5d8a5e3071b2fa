//! Cursors: a place in a tree that moves in both directions.
//!
//! Floor: tree. A cursor keeps its leaf decoded, so a step within the leaf decodes one entry; the
//! cursor reads the branches once per leaf. If the tree has a flat index of its leaves (see
//! `flat_index`), the cursor finds its leaf there, and reads the branches only after it has walked
//! over a few leaves.
//!
//! Ranges place a cursor by [`Cursor::place_towards`] or [`Cursor::enter`] and step within the leaf
//! themselves; they never call [`Cursor::seek`], `next` or `prev`. Those serve internal callers
//! that read a few entries, such as the free space.
//!
//! Invariants:
//!   CURSOR-1  from leaf to leaf keys only ascend (or descend), and within a leaf the first key is
//!       below the last. So a walk ends even in a damaged tree: it cannot meet a leaf twice. The
//!       cursor checks the order within a leaf when it leaves the leaf.
//!   CURSOR-2  `at` is an index into the leaf, or one off either end: `usize::MAX` before the first
//!       entry of the tree, `count` after the last one.
//!
//! Failure: a damaged page is `Error::Corrupt` once; after that the cursor yields nothing until it
//! is placed again. An entry that cannot be read is an error in its place, and the cursor can go
//! on from it.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::page::heads::{self, Vectors};
use crate::page::leaf::Leaf;
use crate::page::lookup;
use crate::pager::PageRead;

use crate::tree::long_key::whole;
use crate::tree::lookup::flat_index::FlatIndex;
use crate::tree::lookup::search::entry_at;
use crate::tree::path::{fetch_front, leaf_at, Path, Side, NOWHERE};
use crate::tree::scan::range::fetch_entries_from;
use crate::tree::{Entry, Tree};

/// Index before the first entry; the entry after it is number 0.
const BEFORE: usize = usize::MAX;

/// A position in a tree. A new cursor has none: `next` then goes to the first entry, and `prev` to
/// the last.
pub(crate) struct Cursor<'a, P> {
    tree: Tree<'a, P>,
    /// The path to the leaf, unless the flat index found the leaf.
    path: Option<Box<Path>>,
    flat: Option<Flat<'a>>,
    leaf: Option<Leaf<'a>>,
    /// The cursor came to `leaf` from a neighbour.
    stepped: bool,
    /// Entries of `leaf`; 0 while there is none.
    count: usize,
    at: usize,
    /// Set by damage, cleared by placing the cursor.
    lost: bool,
}

/// Leaves that a cursor walks over by the flat index. Then it reads the branches, which the
/// read-ahead of a scan needs.
const FLAT_STEPS: usize = 3;

/// The position of a cursor in the flat index.
struct Flat<'a> {
    flat_index: &'a FlatIndex,
    number: usize,
    steps: usize,
    /// The cursor is at this leaf.
    here: bool,
}

impl<'a> Flat<'a> {
    fn leaf<P: PageRead>(&self, pages: &'a P, number: usize) -> Option<Leaf<'a>> {
        let ptr = self.flat_index.page(number)?;
        Leaf::parse(pages.page_fast(ptr)?, ptr.id).ok()
    }

    /// The number of the leaf that holds `key`, or would hold it.
    fn find(&self, key: &[u8]) -> Option<usize> {
        heads::with_vectors(Find { flat_index: self.flat_index, key })
    }

    fn neighbour(&self, towards: Side) -> usize {
        match towards {
            Side::Last => self.number + 1,
            Side::First => self.number.wrapping_sub(1),
        }
    }
}

struct Find<'a> {
    flat_index: &'a FlatIndex,
    key: &'a [u8],
}

impl heads::Search for Find<'_> {
    type Answer = Option<usize>;

    #[inline(always)]
    fn with<V: Vectors>(self, vectors: V) -> Option<usize> {
        self.flat_index.find(vectors, self.key, lookup::first_word(self.key)?)
    }
}

impl<'a, P: PageRead> Cursor<'a, P> {
    pub(crate) fn new(tree: Tree<'a, P>) -> Cursor<'a, P> {
        Cursor::with_flat_index(tree, None)
    }

    /// Finds leaves by a flat index, which was made from the same tree.
    pub(crate) fn with_flat_index(tree: Tree<'a, P>, flat_index: Option<&'a FlatIndex>) -> Cursor<'a, P> {
        let flat = flat_index.filter(|flat_index| flat_index.level() == 0);
        let flat = flat.map(|flat_index| Flat { flat_index, number: 0, steps: 0, here: false });
        Cursor { tree, path: None, flat, leaf: None, stepped: false, count: 0, at: BEFORE, lost: false }
    }

    /// Stops using the flat index. In a leaf found by it, the next step finds the path.
    pub(crate) fn forget_flat_index(&mut self) {
        match &mut self.flat {
            Some(flat) if flat.here => flat.steps = FLAT_STEPS,
            flat => *flat = None,
        }
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

    /// Goes to the first entry at or above the key, in the next leaf if necessary. Ranges use
    /// [`Cursor::place_towards`].
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
            Some(leaf) if self.at < self.count => entry_at(self.tree.pages, leaf, self.at).map(Some),
            _ => Ok(None),
        }
    }

    /// Moves to the next entry. After the last one, stays there.
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

    /// The slow path of a step: to another leaf, or to an entry with an overflow extent.
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

    /// Puts the cursor into the leaf of the key: at the first entry at or above the key, or after
    /// the leaf's last entry. Returns whether the key was found. The caller, a range, will walk
    /// `towards` that side, so this also fetches the entries and the leaf that come next.
    pub(crate) fn place_towards(&mut self, key: &[u8], towards: Side) -> Result<bool> {
        let found = self.place_in(key, Some(towards))?;
        if !self.flat.as_ref().is_some_and(|flat| flat.here) {
            if let Some(path) = &mut self.path {
                path.look(self.tree.pages, towards);
            }
        }
        Ok(found)
    }

    fn place(&mut self, key: &[u8]) -> Result<bool> {
        self.place_in(key, None)
    }

    /// Puts the cursor at the first entry of its leaf at or above the key, from where it will walk
    /// `towards` that side.
    fn place_in(&mut self, key: &[u8], towards: Option<Side>) -> Result<bool> {
        self.reset();
        if self.tree.is_empty() {
            return Ok(false);
        }
        self.lost = true;
        if let Some(leaf) = self.find_flat(key, towards) {
            let (at, found) = leaf.lower_bound_telling(self.tree.pages, key, |at| {
                if let Some(towards) = towards {
                    fetch_entries_from(&leaf, at, towards);
                }
            })?;
            self.take(leaf, at);
            return Ok(found);
        }
        let path = self.path.get_or_insert_with(|| Box::new(Path::new()));
        let found = path.descend(self.tree, key)?;
        let frame = path.leaf();
        let leaf = leaf_at(self.tree.pages, frame.ptr)?;
        self.take(leaf, frame.index());
        Ok(found)
    }

    /// The leaf that holds `key` or would hold it, if the flat index knows it and its page was
    /// verified before.
    fn find_flat(&mut self, key: &[u8], towards: Option<Side>) -> Option<Leaf<'a>> {
        let flat = self.flat.as_mut()?;
        flat.number = flat.find(key)?;
        if let Some(leaf) = flat.flat_index.page(flat.number) {
            self.tree.pages.prefetch(leaf.id, 0, flat.flat_index.leaf_front_bytes());
        }
        if let Some(next) = towards.and_then(|towards| flat.flat_index.page(flat.neighbour(towards))) {
            // Prefetch it before the leaf itself is needed, so that the two waits overlap.
            fetch_front(self.tree.pages, next);
        }
        let leaf = flat.leaf(self.tree.pages, flat.number)?;
        (flat.steps, flat.here) = (0, true);
        Some(leaf)
    }

    /// Puts the cursor at one end of the tree.
    pub(crate) fn enter(&mut self, side: Side) -> Result<()> {
        self.reset();
        if self.tree.is_empty() {
            return Ok(());
        }
        self.lost = true;
        let path = self.path.get_or_insert_with(|| Box::new(Path::new()));
        let leaf = path.descend_to(self.tree, side)?;
        self.take(leaf, if side == Side::First { 0 } else { leaf.count().wrapping_sub(1) });
        Ok(())
    }

    /// Moves to the near end of the neighbouring leaf. Returns false, and stays, if there is none.
    pub(crate) fn step(&mut self, towards: Side) -> Result<bool> {
        let Some(leaf) = self.leaf else { return Ok(false) };
        let stepped = self.neighbour(&leaf, towards).and_then(|next| {
            next.map_or(Ok(()), |next| check_order(self.tree, (&leaf, self.stepped), &next, towards))?;
            Ok(next)
        });
        match stepped {
            Ok(Some(next)) => {
                self.take(next, if towards == Side::Last { 0 } else { next.count().wrapping_sub(1) });
                self.stepped = true;
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

    /// The neighbour of the current leaf.
    fn neighbour(&mut self, leaf: &Leaf<'a>, towards: Side) -> Result<Option<Leaf<'a>>> {
        if let Some(flat) = self.flat.as_mut().filter(|flat| flat.here) {
            let number = flat.neighbour(towards);
            if let Some(next) = flat.leaf(self.tree.pages, number).filter(|_| flat.steps < FLAT_STEPS) {
                (flat.number, flat.steps) = (number, flat.steps + 1);
                return Ok(Some(next));
            }
            self.find_path(leaf)?;
        }
        match &mut self.path {
            Some(path) => path.step(self.tree.pages, towards),
            None => Ok(None),
        }
    }

    /// Finds the path to the current leaf, which the flat index has found.
    fn find_path(&mut self, leaf: &Leaf<'a>) -> Result<()> {
        let path = self.path.get_or_insert_with(|| Box::new(Path::new()));
        path.descend(self.tree, whole(self.tree.pages, leaf.first_key()?)?)?;
        if path.leaf().ptr.id != leaf.id() {
            return Err(Error::corrupt(leaf.id(), "the keys of a leaf belong to another one"));
        }
        if let Some(flat) = &mut self.flat {
            flat.here = false;
        }
        Ok(())
    }

    fn take(&mut self, leaf: Leaf<'a>, at: usize) {
        (self.count, self.at, self.lost) = (leaf.count(), at, false);
        self.leaf = Some(leaf);
    }

    fn reset(&mut self) {
        (self.leaf, self.count, self.at, self.lost) = (None, 0, BEFORE, false);
        self.stepped = false;
        if let Some(flat) = &mut self.flat {
            flat.here = false;
        }
    }

    /// The current leaf, for ranges, which step within it themselves.
    #[inline]
    pub(crate) fn leaf(&self) -> Option<&Leaf<'a>> {
        self.leaf.as_ref()
    }

    /// The leaf of the next step in this direction, if known.
    pub(crate) fn ahead(&self, towards: Side) -> PagePtr {
        match (&self.flat, &self.path) {
            (Some(flat), _) if flat.here => flat.flat_index.page(flat.neighbour(towards)).unwrap_or(NOWHERE),
            (_, Some(path)) => path.ahead(),
            _ => NOWHERE,
        }
    }

    /// The way to the current leaf, if it was found through the branches.
    #[inline]
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.flat {
            Some(flat) if flat.here => None,
            _ => self.path.as_deref(),
        }
    }

    /// Index of the entry that the cursor was placed at.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The page that the current leaf is; none before the cursor is placed.
    pub(crate) fn leaf_id(&self) -> PageId {
        self.leaf.map_or(PageId::NONE, |leaf| leaf.id())
    }

    #[inline]
    pub(crate) fn tree(&self) -> Tree<'a, P> {
        self.tree
    }

    #[inline]
    pub(crate) fn pages(&self) -> &'a P {
        self.tree.pages
    }
}

/// Refuses a neighbouring leaf whose keys do not all lie on its side (CURSOR-1). The leaf before
/// has to be in order itself, if the walk has `stepped` to it.
fn check_order<P: PageRead>(
    tree: Tree<'_, P>,
    (from, stepped): (&Leaf<'_>, bool),
    to: &Leaf<'_>,
    towards: Side,
) -> Result<()> {
    if stepped && from.count() > 1 && !is_below(tree, (from, 0), (from, from.count() - 1))? {
        return Err(out_of_order(from.id()));
    }
    let (left, right) = if towards == Side::Last { (from, to) } else { (to, from) };
    if !is_below(tree, (left, left.count().wrapping_sub(1)), (right, 0))? {
        return Err(out_of_order(to.id()));
    }
    Ok(())
}

/// Whether the key of one entry is below that of another.
#[inline]
fn is_below<P: PageRead>(tree: Tree<'_, P>, low: (&Leaf<'_>, usize), high: (&Leaf<'_>, usize)) -> Result<bool> {
    if low.0.has_long_keys() || high.0.has_long_keys() || !tree.root.order.is_bytewise() {
        let (low, high) = (low.0.key(low.1)?, high.0.key(high.1)?);
        return Ok(tree.root.order.compare_both(tree.pages, low, high)?.is_lt());
    }
    Ok(low.0.inline_key(low.1)? < high.0.inline_key(high.1)?)
}

#[cold]
fn out_of_order(leaf: PageId) -> Error {
    Error::corrupt(leaf, "keys are not in ascending order")
}
