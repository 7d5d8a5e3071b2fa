//! Checks everything about a tree that can be checked.
//!
//! Floor: tree. Depth first with an explicit stack. What is checked: every page is reached once,
//! has the kind, level, id and tree that its place asks for; pointer, header and computed checksum
//! agree; the page is well-formed inside (`Leaf::verify`, `Branch::verify`); keys and separators
//! lie within the separators above; overflow extents are what their pointers say; the entry count
//! is the root's.
//!
//! The tree must be sealed. Nothing that is read is trusted, and a finding never ends the check:
//! below a branch that is not well-formed, the bounds of the branch itself hold for its children.
//!
//! Failure: none. Findings are reported, not returned. The walk ends because no page is entered
//! twice, which `visit` decides.

use crate::error::{DecodeError, Error};
use crate::ids::{PageId, PagePtr, TreeId};
use crate::limits::{max_key_bytes, DEPTH_MAX};
use crate::page::branch::Branch;
use crate::page::header::{Header, PageKind};
use crate::page::leaf::{Leaf, LeafValue, OverflowPtr};
use crate::page::{checksum, overflow};
use crate::pager::PageRead;

use crate::tree::value::overflow_pages;
use crate::tree::TreeRoot;

/// Something wrong with a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) page: PageId,
    /// The table whose tree it is; filled in by those who know tables.
    pub(crate) table: Option<String>,
    /// Keys that the page is responsible for: from `low`, if known, up to and without `high`.
    pub(crate) low: Option<Vec<u8>>,
    pub(crate) high: Option<Vec<u8>>,
    pub(crate) what: String,
}

/// What a tree consists of.
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
    /// Bytes of the values in overflow extents.
    pub(crate) overflow_bytes: u64,
}

/// The keys that a page is responsible for.
#[derive(Clone, Default)]
struct Bounds {
    low: Option<Vec<u8>>,
    high: Option<Vec<u8>>,
}

/// A branch that is being walked.
struct Open<'a> {
    branch: Branch<'a>,
    level: usize,
    next: usize,
    bounds: Bounds,
    /// Whether its separators can be used as bounds.
    sound: bool,
}

struct Check<'a, 'c, P> {
    pages: &'a P,
    tree: TreeId,
    visit: &'c mut dyn FnMut(PageId, u64) -> bool,
    report: &'c mut dyn FnMut(Finding),
    stats: TreeStats,
}

/// Checks a sealed tree. `visit` is told each page or extent that is reached, before it is looked
/// at and whether or not it lies inside the file, and says whether this is the first time.
pub(crate) fn check<P: PageRead>(
    pages: &P,
    root: &TreeRoot,
    visit: &mut dyn FnMut(PageId, u64) -> bool,
    report: &mut dyn FnMut(Finding),
) -> TreeStats {
    let stats = TreeStats { depth: root.height, ..TreeStats::default() };
    let mut check = Check { pages, tree: root.tree, visit, report, stats };
    if usize::from(root.height) > DEPTH_MAX {
        let what = format!("tree height is {}, expected at most {DEPTH_MAX}", root.height);
        check.find(root.ptr.id, &Bounds::default(), what);
        return check.stats;
    }
    if root.height > 0 {
        check.walk(root);
    }
    if check.stats.entries != root.entries {
        let what = format!("entry count of the tree is {}, found {}", root.entries, check.stats.entries);
        check.find(root.ptr.id, &Bounds::default(), what);
    }
    check.stats
}

impl<'a, P: PageRead> Check<'a, '_, P> {
    fn find(&mut self, page: PageId, bounds: &Bounds, what: impl Into<String>) {
        let Bounds { low, high } = bounds.clone();
        (self.report)(Finding { page, table: None, low, high, what: what.into() });
    }

    fn find_error(&mut self, page: PageId, bounds: &Bounds, e: Error) {
        let what = match e {
            Error::Corrupt { what, .. } => what,
            other => other.to_string(),
        };
        self.find(page, bounds, what);
    }

    fn find_decode(&mut self, page: PageId, bounds: &Bounds, e: DecodeError) {
        self.find_error(page, bounds, e.into());
    }

    fn walk(&mut self, root: &TreeRoot) {
        let mut stack = Vec::new();
        stack.extend(self.enter(root.ptr, usize::from(root.height) - 1, Bounds::default()));
        while let Some(open) = stack.last_mut() {
            if open.next == open.branch.count() {
                stack.pop();
                continue;
            }
            let at = open.next;
            open.next += 1;
            let (child, bounds, level) = (open.branch.child(at), child_bounds(open, at), open.level - 1);
            match child {
                Ok(ptr) => stack.extend(self.enter(ptr, level, bounds)),
                Err(e) => self.find_decode(e.page, &bounds, e),
            }
        }
    }

    /// Checks one page; gives it back if it is a branch whose children are to be walked.
    fn enter(&mut self, ptr: PagePtr, level: usize, bounds: Bounds) -> Option<Open<'a>> {
        if !(self.visit)(ptr.id, 1) {
            self.find(ptr.id, &bounds, "page is reached a second time");
            return None;
        }
        let page = match self.pages.page(ptr) {
            Ok(page) => page,
            Err(e) => {
                self.find_error(ptr.id, &bounds, e);
                return None;
            }
        };
        if !self.header(page, ptr, level, &bounds) {
            return None;
        }
        if level > 0 {
            return self.branch(page, ptr, level, bounds);
        }
        self.leaf(page, ptr, &bounds);
        None
    }

    /// Checks checksum and header; says whether the page is of the kind and level that its place
    /// asks for.
    fn header(&mut self, page: &[u8], ptr: PagePtr, level: usize, bounds: &Bounds) -> bool {
        if !checksum::matches(page, ptr.crc) {
            let (stored, computed) = (checksum::stored(page), checksum::compute(page));
            let what = format!("checksum: pointer {:#x}, header {stored:#x}, computed {computed:#x}", ptr.crc);
            self.find(ptr.id, bounds, what);
        }
        let header = match Header::read(page, ptr.id) {
            Ok(header) => header,
            Err(e) => {
                self.find_decode(ptr.id, bounds, e);
                return false;
            }
        };
        self.owner(&header, bounds);
        let kind = if level == 0 { PageKind::Leaf } else { PageKind::Branch };
        if header.kind != kind || usize::from(header.level) != level {
            let what = format!("is {:?} of level {}, expected {kind:?} of level {level}", header.kind, header.level);
            self.find(ptr.id, bounds, what);
            return false;
        }
        true
    }

    fn owner(&mut self, header: &Header, bounds: &Bounds) {
        if header.tree != self.tree {
            self.find(header.id, bounds, format!("belongs to tree {}, expected tree {}", header.tree, self.tree));
        }
    }

    fn branch(&mut self, page: &'a [u8], ptr: PagePtr, level: usize, bounds: Bounds) -> Option<Open<'a>> {
        let branch = match Branch::parse(page, ptr.id) {
            Ok(branch) => branch,
            Err(e) => {
                self.find_decode(ptr.id, &bounds, e);
                return None;
            }
        };
        self.stats.branch_pages += 1;
        self.stats.branch_bytes += branch.used_bytes() as u64;
        let mut sound = true;
        if let Err(e) = branch.verify() {
            self.find_decode(ptr.id, &bounds, e);
            sound = false;
        }
        if sound && branch.count() > 1 {
            let (first, last) = (separator(&branch, 1), separator(&branch, branch.count() - 1));
            let above_low = bounds.low.is_none() || first > bounds.low;
            let below_high = bounds.high.is_none() || last < bounds.high;
            if !above_low || !below_high {
                self.find(ptr.id, &bounds, "separators lie outside those of the parent");
                sound = false;
            }
        }
        Some(Open { branch, level, next: 0, bounds, sound })
    }

    fn leaf(&mut self, page: &'a [u8], ptr: PagePtr, bounds: &Bounds) {
        let leaf = match Leaf::parse(page, ptr.id) {
            Ok(leaf) => leaf,
            Err(e) => return self.find_decode(ptr.id, bounds, e),
        };
        self.stats.leaf_pages += 1;
        self.stats.leaf_bytes += leaf.used_bytes() as u64;
        self.stats.entries += leaf.count() as u64;
        if leaf.count() == 0 {
            self.find(ptr.id, bounds, "leaf without entries");
        }
        if let Err(e) = leaf.verify() {
            self.find_decode(ptr.id, bounds, e);
        }
        for at in 0..leaf.count() {
            match leaf.entry(at) {
                Ok((key, value)) => self.entry(ptr.id, key, value, bounds),
                Err(e) => self.find_decode(ptr.id, bounds, e),
            }
        }
    }

    fn entry(&mut self, page: PageId, key: &[u8], value: LeafValue<'_>, bounds: &Bounds) {
        let above_low = bounds.low.as_ref().is_none_or(|low| low.as_slice() <= key);
        let below_high = bounds.high.as_ref().is_none_or(|high| key < high.as_slice());
        if !above_low || !below_high {
            self.find(page, bounds, "a key lies outside the separators of its leaf");
        }
        let limit = max_key_bytes(self.pages.page_size());
        if key.len() > limit {
            self.find(page, bounds, format!("key length is {}, expected at most {limit}", key.len()));
        }
        if let LeafValue::Overflow(pointer) = value {
            // The key range of a run is the one key that it belongs to.
            let next = [key, &[0]].concat();
            self.extent(&pointer, &Bounds { low: Some(key.to_vec()), high: Some(next) });
        }
    }

    fn extent(&mut self, pointer: &OverflowPtr, bounds: &Bounds) {
        let id = pointer.ptr.id;
        let pages = match overflow_pages(self.pages.page_size(), pointer) {
            Ok(pages) => pages,
            Err(e) => return self.find_error(id, bounds, e),
        };
        if !(self.visit)(id, pages) {
            return self.find(id, bounds, "overflow extent is reached a second time");
        }
        let extent = match self.pages.extent(pointer.ptr, pages) {
            Ok(extent) => extent,
            Err(e) => return self.find_error(id, bounds, e),
        };
        self.stats.overflow_pages += pages;
        self.stats.overflow_bytes += pointer.len;
        if !checksum::matches(extent, pointer.ptr.crc) {
            self.find(id, bounds, "checksum of the overflow extent does not match its pointer");
        }
        if let Err(e) = overflow::value(extent, id, pointer.len) {
            return self.find_decode(id, bounds, e);
        }
        match Header::read(extent, id) {
            Ok(header) => self.owner(&header, bounds),
            Err(e) => self.find_decode(id, bounds, e),
        }
    }
}

/// The keys that child `at` is responsible for.
fn child_bounds(open: &Open<'_>, at: usize) -> Bounds {
    let mut bounds = open.bounds.clone();
    if open.sound {
        if at > 0 {
            bounds.low = separator(&open.branch, at);
        }
        if at + 1 < open.branch.count() {
            bounds.high = separator(&open.branch, at + 1);
        }
    }
    bounds
}

/// A whole separator of a branch that is known to be well-formed.
fn separator(branch: &Branch<'_>, at: usize) -> Option<Vec<u8>> {
    let mut separator = Vec::new();
    branch.separator_into(at, &mut separator).ok().map(|()| separator)
}
