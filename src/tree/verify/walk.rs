//! Walks a tree of a file that may be damaged or cut, and hands out its entries.
//!
//! Floor: tree. A depth-first walk like `check`, but over a file that is not mapped. It reads one
//! page at a time and keeps a copy of each branch on the path: memory is one page per level, and
//! one value if the caller reads values. The walk uses a page only if its checksum is that of its
//! pointer, its kind, level and tree are those that its parent implies, it is well-formed, and its
//! keys lie within the separators above it.
//!
//! Failure: the walk tells the [`Visitor`] about damage and the keys that it concerns, and goes on
//! with the next page. An error of the visitor ends the walk.

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId};
use crate::page::branch::Branch;
use crate::page::header::{Header, PageKind};
use crate::page::key::{LongKey, PageKey, PageKeyBuf};
use crate::page::leaf::{Leaf, LeafValue, OverflowPtr};
use crate::page::overflow;
use crate::pager::read::file_pages::FilePages;

use super::finding::{expect_first_time, expect_level, expect_tree, outer_separators, text_of, Bounds, Finding};
use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::long_key::long_key_pages;
use crate::tree::path::height_of;
use crate::tree::value::overflow_pages;
use crate::tree::TreeRoot;

/// Receives the entries of a walk, and the damage.
pub(crate) trait Visitor {
    /// Whether the visitor wants keys from `low` on and below `high`. The walk skips pages that
    /// hold no such keys.
    fn wants(&mut self, _low: Option<&[u8]>, _high: Option<&[u8]>) -> bool {
        true
    }

    /// The walk has reached a page or extent and will read it. Returns whether this is the first
    /// time.
    fn enter(&mut self, id: PageId, pages: u64) -> bool;

    /// An entry, in ascending order of keys. With [`Values::Verify`] the value of an overflow
    /// extent is empty.
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// A page or extent that cannot be used, and the keys that it should hold.
    fn lost(&mut self, finding: Finding) -> Result<()>;
}

/// How to treat values in overflow extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Values {
    /// Read each as a whole.
    Read,
    /// Verify them chunk by chunk.
    Verify,
}

/// Walks a sealed tree and returns how many entries it handed out.
pub(crate) fn walk(pages: &FilePages<'_>, root: &TreeRoot, values: Values, visitor: &mut dyn Visitor) -> Result<u64> {
    let mut walk = FileWalk { pages, tree: root.tree, values, visitor, entries: 0, buffer: Vec::new() };
    match height_of(root) {
        Err(e) if root.height > 0 => walk.lost(root.ptr.id, Bounds::default(), e)?,
        _ => walk_depth_first(&mut walk, root)?,
    }
    Ok(walk.entries)
}

struct FileWalk<'w, 'f> {
    pages: &'w FilePages<'f>,
    tree: TreeId,
    values: Values,
    visitor: &'w mut dyn Visitor,
    entries: u64,
    /// Reused for leaves.
    buffer: Vec<u8>,
}

/// A copy of a branch that was verified.
struct BranchCopy {
    page: Vec<u8>,
    bounds: Bounds,
}

impl DepthFirst<BranchCopy> for FileWalk<'_, '_> {
    fn enter(&mut self, ptr: PagePtr, level: usize, parent: Option<&Parent<BranchCopy>>) -> Result<Option<BranchCopy>> {
        let bounds = match parent {
            Some(parent) => {
                let BranchCopy { page, bounds } = &parent.branch;
                // The damage of a long separator was reported with its branch. Then the child has
                // the bounds of the branch.
                let read = |long| read_long(self.pages, long);
                let below = bounds.of_child(&Branch::parse(page, parent.ptr.id)?, parent.index(), &read);
                below.unwrap_or_else(|_| bounds.clone())
            }
            None => Bounds::default(),
        };
        if !self.visitor.wants(bounds.low.as_deref(), bounds.high.as_deref()) {
            return Ok(None);
        }
        let first = self.visitor.enter(ptr.id, 1);
        let mut page = std::mem::take(&mut self.buffer);
        let verified = expect_first_time(first, ptr.id, "page")
            .and_then(|()| self.pages.page(ptr, &mut page))
            .and_then(|()| self.verify(&page, ptr.id, level, &bounds));
        match verified {
            Err(e) => self.lost(ptr.id, bounds, e)?,
            Ok(()) if level > 0 => {
                self.long_separators(&page, ptr.id)?;
                return Ok(Some(BranchCopy { page, bounds }));
            }
            Ok(()) => self.leaf(&page, ptr.id)?,
        }
        self.buffer = page;
        Ok(None)
    }

    fn next_child(&mut self, parent: &mut Parent<BranchCopy>) -> Result<Option<PagePtr>> {
        let branch = Branch::parse(&parent.branch.page, parent.ptr.id)?;
        Ok(next_child(&branch, &mut parent.next)?)
    }
}

impl FileWalk<'_, '_> {
    fn lost(&mut self, page: PageId, bounds: Bounds, e: Error) -> Result<()> {
        self.visitor.lost(Finding::new(page, bounds, text_of(e)))
    }

    /// Checks that a page has the kind, level and tree that its parent implies, that it is
    /// well-formed, and that its keys lie within its bounds.
    fn verify(&self, page: &[u8], id: PageId, level: usize, bounds: &Bounds) -> Result<()> {
        let header = Header::read(page, id)?;
        expect_level(&header, level)?;
        expect_tree(&header, self.tree)?;
        let keys = if level == 0 {
            self.outer_keys(&Leaf::parse(page, id)?)?
        } else {
            let branch = Branch::parse(page, id)?;
            branch.verify()?;
            outer_separators(&branch, &|long| read_long(self.pages, long)).unwrap_or(None)
        };
        if keys.iter().flatten().all(|key| bounds.hold(key)) {
            return Ok(());
        }
        Err(Error::corrupt(id, "its keys lie outside the separators above it"))
    }

    fn leaf(&mut self, page: &[u8], id: PageId) -> Result<()> {
        let leaf = Leaf::parse(page, id)?;
        let (mut extent, mut key_extent) = (Vec::new(), Vec::new());
        for index in 0..leaf.count() {
            let (key, value) = leaf.entry(index)?;
            let key = match self.key(&key, &mut key_extent) {
                Ok(whole) => whole,
                Err(e) => {
                    let page = key.long.map_or(id, |long| long.ptr().id);
                    self.lost(page, Bounds::of_beginning(key.bytes), e)?;
                    continue;
                }
            };
            let value = match value {
                LeafValue::Inline(value) => Ok(value),
                LeafValue::Overflow(pointer) => self.value(&pointer, &mut extent).map_err(|e| (pointer.ptr.id, e)),
            };
            match value {
                Ok(value) => {
                    self.visitor.entry(key, value)?;
                    self.entries += 1;
                }
                Err((extent, e)) => self.lost(extent, Bounds::of_key(key), e)?,
            }
        }
        Ok(())
    }

    /// Reads a key as a whole.
    fn key<'e>(&mut self, key: &PageKey<'e>, extent: &'e mut Vec<u8>) -> Result<&'e [u8]> {
        let Some(long) = key.long else { return Ok(key.bytes) };
        let pages = long_key_pages(self.pages.page_size(), long);
        expect_first_time(self.visitor.enter(long.ptr().id, pages), long.ptr().id, "overflow extent")?;
        read_value(self.pages, &OverflowPtr { ptr: long.ptr(), len: long.len() as u64 }, extent)
    }

    /// Reads the long separators of a branch. Reports damage with an empty range of keys: the
    /// branch leads to its children without the separator.
    fn long_separators(&mut self, page: &[u8], id: PageId) -> Result<()> {
        let branch = Branch::parse(page, id)?;
        let mut extent = Vec::new();
        for index in (1..branch.count()).filter(|_| branch.has_long_separators()) {
            let mut separator = PageKeyBuf::default();
            branch.separator_into(index, &mut separator)?;
            let read = self.key(&separator.as_key(), &mut extent).map(|_| ());
            if let (Err(e), Some(long)) = (read, separator.long) {
                let bounds = Bounds { low: Some(separator.bytes.clone()), high: Some(separator.bytes) };
                self.lost(long.ptr().id, bounds, e)?;
            }
        }
        Ok(())
    }

    /// The first and last key of a leaf that is well-formed; `None` if it is empty, or if one of
    /// them cannot be read.
    fn outer_keys(&self, leaf: &Leaf<'_>) -> Result<Option<[Vec<u8>; 2]>> {
        leaf.verify()?;
        if leaf.count() == 0 {
            return Ok(None);
        }
        let whole = |key: PageKey<'_>| match key.long {
            None => Some(key.bytes.to_vec()),
            Some(long) => read_long(self.pages, long).ok(),
        };
        let (first, last) = (whole(leaf.first_key()?), whole(leaf.last_key()?));
        Ok(first.zip(last).map(|(first, last)| [first, last]))
    }

    /// Reads or verifies a value in an overflow extent. A value that is only verified is empty.
    fn value<'e>(&mut self, pointer: &OverflowPtr, extent: &'e mut Vec<u8>) -> Result<&'e [u8]> {
        let id = pointer.ptr.id;
        let pages = overflow_pages(self.pages.page_size(), pointer)?;
        expect_first_time(self.visitor.enter(id, pages), id, "overflow extent")?;
        if self.values == Values::Read {
            return read_value(self.pages, pointer, extent);
        }
        let header = self.pages.verify_extent(pointer.ptr, pages)?;
        if header.kind == PageKind::Overflow && header.extent_pages() == pages {
            return Ok(&[]);
        }
        Err(Error::corrupt(id, "is not the overflow extent that its pointer describes"))
    }
}

/// Reads an overflow extent, checks that it is what its pointer says, and returns its value.
pub(crate) fn read_value<'e>(
    pages: &FilePages<'_>,
    pointer: &OverflowPtr,
    extent: &'e mut Vec<u8>,
) -> Result<&'e [u8]> {
    pages.extent(pointer.ptr, overflow_pages(pages.page_size(), pointer)?, extent)?;
    Ok(overflow::value(extent, pointer.ptr.id, pointer.len)?)
}

/// Reads a long key or separator as a whole.
pub(crate) fn read_long(pages: &FilePages<'_>, long: LongKey) -> Result<Vec<u8>> {
    let mut extent = Vec::new();
    let key = read_value(pages, &OverflowPtr { ptr: long.ptr(), len: long.len() as u64 }, &mut extent)?;
    Ok(key.to_vec())
}
