//! Checks everything that can be checked in a tree of an open database.
//!
//! Floor: tree. A depth-first walk that checks:
//!
//! ```text
//! pages        each is reached once and has the kind, level, id and tree that its parent implies
//! checksums    pointer, header and content agree
//! structure    each page is well-formed (`Leaf::verify`, `Branch::verify`)
//! keys         keys and separators lie within the separators above them
//! overflow     each extent is what its pointer says, and a long key begins with what its page holds
//! entry count  the root has the right one
//! values       in a multimap: sets are well-formed, value trees are checked like other trees, and the root counts all
//! ```
//!
//! The tree must be sealed. The check trusts no byte, and no finding ends it. The separators of a
//! damaged branch are not used: its children get the bounds of the branch itself.
//!
//! Of a part of the tree that another check has covered, only the pointer to it is checked.
//!
//! Failure: none. Findings are reported, not returned. The walk ends because `visit` lets no page
//! be entered twice.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::hooks::{self, Mutant};
use crate::ids::{PageId, PagePtr};
use crate::limits::max_inline_key_bytes;
use crate::page::branch::Branch;
use crate::page::header::Header;
use crate::page::key::{LongKey, PageKey, PageKeyBuf, WholeKeys as _};
use crate::page::leaf::{Leaf, LeafValue, OverflowPtr};
use crate::page::packed::Packed;
use crate::page::value_set::{Shape, ValueSet};
use crate::page::{checksum, overflow};
use crate::pager::PageRead;

use super::finding::{expect_first_time, expect_level, expect_tree, outer_separators, text_of};
use super::finding::{Bounds, Finding, ReadLong};
use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::value::overflow_pages;
use crate::tree::values::stored::root_of;
use crate::tree::TreeRoot;

/// The parts of a tree, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TreeStats {
    pub(crate) entries: u64,
    pub(crate) leaf_pages: u64,
    pub(crate) branch_pages: u64,
    pub(crate) overflow_pages: u64,
    /// Levels from root to leaf; 0 for an empty tree.
    pub(crate) depth: u8,
    /// Bytes in use in leaves, without their headers.
    pub(crate) leaf_bytes: u64,
    /// Bytes in use in branches, without their headers.
    pub(crate) branch_bytes: u64,
    /// Bytes of the values, long keys and long separators in overflow extents.
    pub(crate) overflow_bytes: u64,
    /// Values of all keys, in a multimap. Its other counts include the pages of value trees.
    pub(crate) pairs: u64,
}

impl TreeStats {
    pub(super) fn add_branch(&mut self, branch: &Branch<'_>) {
        self.branch_pages += 1;
        self.branch_bytes += branch.used_bytes() as u64;
    }

    pub(super) fn add_leaf(&mut self, leaf: &Leaf<'_>) {
        self.leaf_pages += 1;
        self.leaf_bytes += leaf.used_bytes() as u64;
        self.entries += leaf.count() as u64;
    }

    pub(super) fn add_packed(&mut self, leaf: &Packed<'_>) {
        self.leaf_pages += 1;
        self.leaf_bytes += leaf.used_bytes() as u64;
        self.entries += leaf.count() as u64;
    }

    /// Adds the pages of a value tree.
    pub(super) fn add_values(&mut self, of_tree: &TreeStats) {
        self.leaf_pages += of_tree.leaf_pages;
        self.leaf_bytes += of_tree.leaf_bytes;
        self.branch_pages += of_tree.branch_pages;
        self.branch_bytes += of_tree.branch_bytes;
    }

    pub(super) fn add_extent(&mut self, pages: u64, bytes: u64) {
        self.overflow_pages += pages;
        self.overflow_bytes += bytes;
    }
}

/// How a check comes to a page or extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Visit {
    /// For the first time.
    First,
    /// Not for the first time, although only one pointer may lead there.
    Again,
    /// For the first time, but another check has covered it with everything below it.
    Covered,
}

/// Checks a sealed tree. Before it reads a page or extent, inside the file or not, it calls
/// `visit`, which says how the check comes to this page or extent.
pub(crate) fn check<P: PageRead>(
    pages: &P,
    root: &TreeRoot,
    visit: &mut dyn FnMut(PageId, u64) -> Visit,
    report: &mut dyn FnMut(Finding),
) -> TreeStats {
    let stats = TreeStats { depth: root.height, ..TreeStats::default() };
    let mut check = CheckWalk { pages, root: *root, visit, report, stats, is_partial: false };
    let walked = walk_depth_first(&mut check, root);
    let ended = check.accept(root.ptr.id, &Bounds::default(), walked).is_some();
    if ended && !check.is_partial && check.stats.entries != root.entries {
        let what = format!("entry count of the tree is {}, found {}", root.entries, check.stats.entries);
        check.find(root.ptr.id, &Bounds::default(), what);
    }
    if ended && !check.is_partial && check.stats.pairs != root.pairs {
        let what = format!("number of values of the table is {}, found {}", root.pairs, check.stats.pairs);
        check.find(root.ptr.id, &Bounds::default(), what);
    }
    check.stats
}

struct CheckWalk<'a, 'c, P> {
    pages: &'a P,
    root: TreeRoot,
    visit: &'c mut dyn FnMut(PageId, u64) -> Visit,
    report: &'c mut dyn FnMut(Finding),
    stats: TreeStats,
    /// Another check has covered a part of the tree, so that entries are not all counted.
    is_partial: bool,
}

/// A branch that was checked.
struct Checked<'a> {
    branch: Branch<'a>,
    bounds: Bounds,
    /// Whether its separators can be used as bounds.
    sound: bool,
}

/// Reads a long key or separator.
fn read_long<P: PageRead>(pages: &P, long: LongKey) -> Result<Vec<u8>> {
    pages.whole_key(long).map(<[u8]>::to_vec)
}

/// The bounds of the child that is being visited.
fn bounds_below(parent: &Parent<Checked<'_>>, read: ReadLong<'_>) -> Bounds {
    let Checked { branch, bounds, sound } = &parent.branch;
    match bounds.of_child(branch, parent.index(), read) {
        Ok(below) if *sound => below,
        _ => bounds.clone(),
    }
}

impl<'a, P: PageRead> DepthFirst<Checked<'a>> for CheckWalk<'a, '_, P> {
    fn enter(
        &mut self,
        ptr: PagePtr,
        level: usize,
        parent: Option<&Parent<Checked<'a>>>,
    ) -> Result<Option<Checked<'a>>> {
        let bounds = parent.map(|parent| bounds_below(parent, &|long| read_long(self.pages, long)));
        Ok(self.page(ptr, level, bounds.unwrap_or(Bounds::none(self.root.order))))
    }

    fn next_child(&mut self, parent: &mut Parent<Checked<'a>>) -> Result<Option<PagePtr>> {
        loop {
            match next_child(&parent.branch.branch, &mut parent.next) {
                Ok(child) => return Ok(child),
                Err(e) => {
                    let bounds = bounds_below(parent, &|long| read_long(self.pages, long));
                    self.find(parent.ptr.id, &bounds, text_of(e.into()));
                }
            }
        }
    }
}

impl<'a, P: PageRead> CheckWalk<'a, '_, P> {
    fn find(&mut self, page: PageId, bounds: &Bounds, what: impl Into<String>) {
        (self.report)(Finding::new(page, bounds.clone(), what.into()));
    }

    /// The value of a result; reports an error as a finding.
    fn accept<T>(&mut self, page: PageId, bounds: &Bounds, result: Result<T, impl Into<Error>>) -> Option<T> {
        result.map_err(|e| self.find(page, bounds, text_of(e.into()))).ok()
    }

    /// Checks one page. Returns a branch whose children can be checked.
    fn page(&mut self, ptr: PagePtr, level: usize, bounds: Bounds) -> Option<Checked<'a>> {
        let visit = (self.visit)(ptr.id, 1);
        self.accept(ptr.id, &bounds, expect_first_time(visit != Visit::Again, ptr.id, "page"))?;
        let page = self.accept(ptr.id, &bounds, self.pages.page(ptr))?;
        if visit == Visit::Covered {
            self.is_partial = true;
            return None;
        }
        self.header(page, ptr, level, &bounds)?;
        if level > 0 {
            return self.branch(page, ptr.id, bounds);
        }
        self.leaf(page, ptr.id, &bounds);
        None
    }

    /// Checks checksum and header. Returns `None` if the rest of the page cannot be checked.
    fn header(&mut self, page: &[u8], ptr: PagePtr, level: usize, bounds: &Bounds) -> Option<()> {
        if !checksum::matches(page, ptr.crc) {
            let (stored, computed) = (checksum::stored(page), checksum::compute(page));
            let what = format!("checksum: pointer {:#x}, header {stored:#x}, computed {computed:#x}", ptr.crc);
            self.find(ptr.id, bounds, what);
        }
        let header = self.accept(ptr.id, bounds, Header::read(page, ptr.id))?;
        self.accept(ptr.id, bounds, expect_tree(&header, self.root.tree));
        self.accept(ptr.id, bounds, expect_level(&header, level, self.root.shape))
    }

    fn branch(&mut self, page: &'a [u8], id: PageId, bounds: Bounds) -> Option<Checked<'a>> {
        let branch = self.accept(id, &bounds, Branch::parse(page, id))?;
        self.stats.add_branch(&branch);
        let pages = self.pages;
        let well_formed = self.accept(id, &bounds, branch.verify_in(self.root.order)).is_some();
        let mut sound = well_formed && self.long_separators(id, &branch, &bounds);
        let outer = || outer_separators(&branch, &|long| read_long(pages, long));
        let separators = if sound { self.accept(id, &bounds, outer()) } else { None };
        // A separator at the lower bound would leave no keys to the child before it.
        let inside = |key: &Vec<u8>| bounds.hold(key) && bounds.low.as_ref() != Some(key);
        if !separators.flatten().iter().flatten().all(inside) {
            self.find(id, &bounds, "separators lie outside those of the parent");
            sound = false;
        }
        Some(Checked { branch, bounds, sound })
    }

    fn leaf(&mut self, page: &'a [u8], id: PageId, bounds: &Bounds) {
        if let Shape::Packed(width) = self.root.shape {
            self.packed(page, id, usize::from(width), bounds);
            return;
        }
        let Some(leaf) = self.accept(id, bounds, Leaf::parse(page, id)) else { return };
        self.stats.add_leaf(&leaf);
        if leaf.count() == 0 {
            self.find(id, bounds, "leaf without entries");
        }
        self.accept(id, bounds, leaf.verify_in(self.root.order));
        let mut last: Option<PageKey<'_>> = None;
        for index in 0..leaf.count() {
            let Some((key, value)) = self.accept(id, bounds, leaf.entry(index)) else { continue };
            let whole = self.whole(id, key, bounds);
            if let (Some(last), Some(_)) = (last, whole) {
                self.in_order(id, last, key, bounds);
            }
            self.entry(id, (key, whole), value, bounds);
            last = whole.map(|_| key);
        }
    }

    /// The whole key, if it can be read. Checks the extent of a long one.
    fn whole(&mut self, page: PageId, key: PageKey<'a>, bounds: &Bounds) -> Option<&'a [u8]> {
        let Some(long) = key.long else { return Some(key.bytes) };
        let bounds = Bounds { low: Bounds::of_beginning(key.bytes).low, ..bounds.clone() };
        let whole = self.extent(&OverflowPtr { ptr: long.ptr(), len: long.len() as u64 }, &bounds)?;
        if !whole.starts_with(key.bytes) {
            self.find(page, &bounds, format!("a long key does not begin as its extent {}", long.ptr().id));
        }
        Some(whole)
    }

    /// Checks the order of neighbours which only their long keys decide. Returns whether they
    /// ascend.
    fn in_order(&mut self, page: PageId, left: PageKey<'_>, right: PageKey<'_>, bounds: &Bounds) -> bool {
        if !self.root.order.is_bytewise() || left.compare(&right).is_some() {
            return true;
        }
        let order = self.accept(page, bounds, self.pages.compare_stored(left, right));
        if order.is_some_and(Ordering::is_ge) {
            self.find(page, bounds, "order of long keys");
        }
        order.is_some_and(Ordering::is_lt)
    }

    /// Checks the long separators of a branch that is well-formed otherwise. Returns whether they
    /// are sound.
    fn long_separators(&mut self, id: PageId, branch: &Branch<'_>, bounds: &Bounds) -> bool {
        let (mut sound, mut last) = (true, PageKeyBuf::default());
        for index in (1..branch.count()).filter(|_| branch.has_long_separators()) {
            let mut separator = PageKeyBuf::default();
            if self.accept(id, bounds, branch.separator_into(index, &mut separator)).is_none() {
                return false;
            }
            if let Some(long) = separator.long {
                let whole = self.extent(&OverflowPtr { ptr: long.ptr(), len: long.len() as u64 }, bounds);
                if whole.is_some_and(|whole| !whole.starts_with(&separator.bytes)) {
                    self.find(id, bounds, format!("a long separator does not begin as its extent {}", long.ptr().id));
                }
                sound &= whole.is_some_and(|whole| whole.starts_with(&separator.bytes));
            }
            sound = sound && self.in_order(id, last.as_key(), separator.as_key(), bounds);
            last = separator;
        }
        sound
    }

    /// Checks an entry, whose key is `whole` if it can be read.
    fn entry(
        &mut self,
        page: PageId,
        (key, whole): (PageKey<'_>, Option<&[u8]>),
        value: LeafValue<'_>,
        bounds: &Bounds,
    ) {
        if whole.is_some_and(|whole| !bounds.hold(whole)) {
            self.find(page, bounds, "a key lies outside the separators of its leaf");
        }
        let limit = max_inline_key_bytes(self.pages.page_size());
        if key.bytes.len() > limit {
            let what = format!("length of the key in the page is {}, expected at most {limit}", key.bytes.len());
            self.find(page, bounds, what);
        }
        let of_key = whole.map_or_else(|| bounds.clone(), Bounds::of_key);
        if self.root.shape.is_multi() {
            self.values(page, &of_key, value, bounds);
            return;
        }
        match value {
            LeafValue::Overflow(pointer) => drop(self.extent(&pointer, &of_key)),
            LeafValue::Inline(value) if value.is_empty() || !self.root.tree.is_of_values() => {}
            LeafValue::Inline(_) => self.find(page, &of_key, "an entry of a value tree has a value"),
            LeafValue::Set(_) | LeafValue::Tree(_) => {
                self.find(page, &of_key, "an entry has several values, and its table is no multimap");
            }
        }
    }

    /// Checks an overflow extent, up to the first finding that makes the rest meaningless. Returns
    /// the bytes in it.
    fn extent(&mut self, pointer: &OverflowPtr, bounds: &Bounds) -> Option<&'a [u8]> {
        let id = pointer.ptr.id;
        let pages = self.accept(id, bounds, overflow_pages(self.pages.page_size(), pointer))?;
        let visit = (self.visit)(id, pages);
        self.accept(id, bounds, expect_first_time(visit != Visit::Again, id, "overflow extent"))?;
        let extent = self.accept(id, bounds, self.pages.extent(pointer.ptr, pages))?;
        self.stats.add_extent(pages, pointer.len);
        if !checksum::matches(extent, pointer.ptr.crc) {
            self.find(id, bounds, "checksum of the overflow extent does not match its pointer");
        }
        let bytes = self.accept(id, bounds, overflow::value(extent, id, pointer.len))?;
        let header = self.accept(id, bounds, Header::read(extent, id))?;
        self.accept(id, bounds, expect_tree(&header, self.root.tree)).map(|()| bytes)
    }

    /// Checks a packed leaf of a value tree.
    fn packed(&mut self, page: &[u8], id: PageId, width: usize, bounds: &Bounds) -> Option<()> {
        let leaf = self.accept(id, bounds, Packed::parse(page, id, width))?;
        self.stats.add_packed(&leaf);
        if leaf.count() == 0 {
            self.find(id, bounds, "leaf without values");
            return None;
        }
        self.accept(id, bounds, leaf.verify())?;
        let (first, last) = (leaf.get(0).ok()?, leaf.get(leaf.count() - 1).ok()?);
        if !bounds.hold(first) || !bounds.hold(last) {
            self.find(id, bounds, "a value lies outside the separators of its leaf");
        }
        None
    }

    /// Checks what the entry of a key stores, in a multimap.
    fn values(&mut self, page: PageId, of_key: &Bounds, value: LeafValue<'_>, bounds: &Bounds) -> Option<()> {
        let (shape, limit) = (self.root.shape, max_inline_key_bytes(self.pages.page_size()));
        match value {
            LeafValue::Set(bytes) => {
                let set = ValueSet::new(bytes, shape);
                self.stats.pairs += set.count() as u64;
                self.accept(page, bounds, set.verify().map_err(|what| Error::corrupt(page, what)))?;
                if (0..set.count()).any(|index| set.get(index).is_none_or(|value| value.len() > limit)) {
                    self.find(page, of_key, "a value is longer than the limit");
                }
            }
            LeafValue::Tree(to) => {
                self.stats.pairs += to.count;
                if hooks::is(Mutant::ValueTreeUnchecked) {
                    return None;
                }
                let mut found = Vec::new();
                let root = root_of(&self.root, &to);
                let of_tree = check(self.pages, &root, self.visit, &mut |finding| found.push(finding));
                self.stats.add_values(&of_tree);
                for finding in found {
                    self.find(finding.page, of_key, format!("in the values of a key: {}", finding.what));
                }
            }
            LeafValue::Inline(_) | LeafValue::Overflow(_) => {
                self.find(page, of_key, "an entry of a multimap has a single value");
            }
        }
        None
    }
}
