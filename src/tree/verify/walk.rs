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

use std::collections::HashSet;

use crate::error::{best_effort, Error, Result};
use crate::ids::{PageId, PagePtr};
use crate::page::branch::Branch;
use crate::page::header::{Header, PageKind};
use crate::page::key::{LongKey, PageKey, PageKeyBuf};
use crate::page::leaf::{Leaf, LeafValue, OverflowPtr};
use crate::page::overflow;
use crate::page::packed::Packed;
use crate::page::value_set::ValueSet;
use crate::pager::read::file_pages::FilePages;

use super::finding::{expect_first_time, expect_level, expect_tree, outer_separators, text_of, Bounds, Finding};
use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::long_key::long_key_pages;
use crate::tree::path::height_of;
use crate::tree::value::{overflow_pages, several_values};
use crate::tree::values::stored::{root_of, single_value, ValueLeaf};
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
    /// extent is empty. Of a multimap each pair, in order.
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

/// What a walk handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Walked {
    pub(crate) entries: u64,
    /// Of a multimap: values of these entries.
    pub(crate) pairs: u64,
}

/// Walks a sealed tree.
pub(crate) fn walk(
    pages: &FilePages<'_>,
    root: &TreeRoot,
    values: Values,
    visitor: &mut dyn Visitor,
) -> Result<Walked> {
    walk_values_of(pages, root, values, visitor, None)
}

/// Walks a tree, or the value tree of a key.
fn walk_values_of(
    pages: &FilePages<'_>,
    root: &TreeRoot,
    values: Values,
    visitor: &mut dyn Visitor,
    of_key: Option<&[u8]>,
) -> Result<Walked> {
    let mut walk =
        FileWalk { pages, root: *root, of_key, values, visitor, walked: Walked::default(), buffer: Vec::new() };
    match height_of(root) {
        Err(e) if root.height > 0 => walk.lost(root.ptr.id, Bounds::default(), e)?,
        _ => walk_depth_first(&mut walk, root)?,
    }
    Ok(walk.walked)
}

/// Adds the values that an entry of a multimap stores to `found`, as far as they can be read. The
/// entry lies on a page that may be older than those of its value tree.
pub(crate) fn values_in_file(
    pages: &FilePages<'_>,
    table: &TreeRoot,
    stored: &LeafValue<'_>,
    found: &mut Vec<Vec<u8>>,
) {
    match stored {
        LeafValue::Set(bytes) if table.shape.is_multi() => {
            let set = ValueSet::new(bytes, table.shape);
            if set.verify().is_ok() {
                found.extend((0..set.count()).filter_map(|at| set.get(at)).map(<[u8]>::to_vec));
            }
        }
        LeafValue::Tree(to) if table.shape.is_multi() => {
            let mut readable = Readable { seen: HashSet::new(), found };
            // A `Readable` returns no error.
            best_effort(walk_values_of(pages, &root_of(table, to), Values::Read, &mut readable, Some(&[])));
        }
        _ => {}
    }
}

/// Collects the values of a tree that can be read.
struct Readable<'r> {
    seen: HashSet<PageId>,
    found: &'r mut Vec<Vec<u8>>,
}

impl Visitor for Readable<'_> {
    fn enter(&mut self, id: PageId, _pages: u64) -> bool {
        self.seen.insert(id)
    }

    fn entry(&mut self, _key: &[u8], value: &[u8]) -> Result<()> {
        self.found.push(value.to_vec());
        Ok(())
    }

    fn lost(&mut self, _finding: Finding) -> Result<()> {
        Ok(())
    }
}

struct FileWalk<'w, 'f> {
    pages: &'w FilePages<'f>,
    root: TreeRoot,
    /// The key whose value tree is walked.
    of_key: Option<&'w [u8]>,
    values: Values,
    visitor: &'w mut dyn Visitor,
    walked: Walked,
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
            None => Bounds::none(self.root.order),
        };
        if self.of_key.is_none() && !self.visitor.wants(bounds.low.as_deref(), bounds.high.as_deref()) {
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
        match self.of_key {
            Some(key) => {
                let what = format!("in the values of a key: {}", text_of(e));
                self.visitor.lost(Finding::new(page, Bounds::of_key(key), what))
            }
            None => self.visitor.lost(Finding::new(page, bounds, text_of(e))),
        }
    }

    /// Checks that a page has the kind, level and tree that its parent implies, that it is
    /// well-formed, and that its keys lie within its bounds.
    fn verify(&self, page: &[u8], id: PageId, level: usize, bounds: &Bounds) -> Result<()> {
        let header = Header::read(page, id)?;
        expect_level(&header, level, self.root.shape)?;
        expect_tree(&header, self.root.tree)?;
        let keys = if let (0, Some(width)) = (level, self.root.packed_width()) {
            outer_values(&Packed::parse(page, id, width)?)?
        } else if level == 0 {
            self.outer_keys(&Leaf::parse(page, id)?)?
        } else {
            let branch = Branch::parse(page, id)?;
            branch.verify_in(self.root.order)?;
            outer_separators(&branch, &|long| read_long(self.pages, long)).unwrap_or(None)
        };
        if keys.iter().flatten().all(|key| bounds.hold(key)) {
            return Ok(());
        }
        Err(Error::corrupt(id, "its keys lie outside the separators above it"))
    }

    fn leaf(&mut self, page: &[u8], id: PageId) -> Result<()> {
        if let Some(key) = self.of_key {
            let leaf = match self.root.packed_width() {
                Some(width) => ValueLeaf::Packed(Packed::parse(page, id, width)?),
                None => ValueLeaf::Keyed(Leaf::parse(page, id)?),
            };
            self.walked.entries += leaf.count() as u64;
            return (0..leaf.count()).try_for_each(|index| self.visitor.entry(key, leaf.get(index)?));
        }
        let leaf = Leaf::parse(page, id)?;
        if self.root.shape.is_multi() {
            return (0..leaf.count()).try_for_each(|index| self.values(&leaf, index));
        }
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
                LeafValue::Set(_) | LeafValue::Tree(_) => Err((id, several_values())),
            };
            match value {
                Ok(value) => {
                    self.visitor.entry(key, value)?;
                    self.walked.entries += 1;
                }
                Err((extent, e)) => self.lost(extent, Bounds::of_key(key), e)?,
            }
        }
        Ok(())
    }

    /// Hands out the values of an entry of a multimap.
    fn values(&mut self, leaf: &Leaf<'_>, index: usize) -> Result<()> {
        let (key, value) = leaf.entry(index)?;
        let mut key_extent = Vec::new();
        let key = match self.key(&key, &mut key_extent) {
            Ok(whole) => whole,
            Err(e) => {
                let page = key.long.map_or(leaf.id(), |long| long.ptr().id);
                return self.lost(page, Bounds::of_beginning(key.bytes), e);
            }
        };
        self.walked.entries += 1;
        match value {
            LeafValue::Set(bytes) => {
                let set = ValueSet::new(bytes, self.root.shape);
                if let Err(what) = set.verify() {
                    return self.lost(leaf.id(), Bounds::of_key(key), Error::corrupt(leaf.id(), what));
                }
                self.walked.pairs += set.count() as u64;
                (0..set.count()).filter_map(|at| set.get(at)).try_for_each(|value| self.visitor.entry(key, value))
            }
            LeafValue::Tree(to) => {
                let root = root_of(&self.root, &to);
                let found = walk_values_of(self.pages, &root, self.values, self.visitor, Some(key))?.entries;
                self.walked.pairs += found;
                Ok(())
            }
            LeafValue::Inline(_) | LeafValue::Overflow(_) => {
                self.lost(leaf.id(), Bounds::of_key(key), single_value(leaf.id()))
            }
        }
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
                let bounds = Bounds {
                    low: Some(separator.bytes.clone()),
                    high: Some(separator.bytes),
                    ..Bounds::none(self.root.order)
                };
                self.lost(long.ptr().id, bounds, e)?;
            }
        }
        Ok(())
    }

    /// The first and last key of a leaf that is well-formed; `None` if it is empty, or if one of
    /// them cannot be read.
    fn outer_keys(&self, leaf: &Leaf<'_>) -> Result<Option<[Vec<u8>; 2]>> {
        leaf.verify_in(self.root.order)?;
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

/// The first and last value of a packed leaf that is well-formed; `None` if it is empty.
fn outer_values(leaf: &Packed<'_>) -> Result<Option<[Vec<u8>; 2]>> {
    leaf.verify()?;
    match leaf.count() {
        0 => Ok(None),
        count => Ok(Some([leaf.get(0)?.to_vec(), leaf.get(count - 1)?.to_vec()])),
    }
}

/// Reads a long key or separator as a whole.
pub(crate) fn read_long(pages: &FilePages<'_>, long: LongKey) -> Result<Vec<u8>> {
    let mut extent = Vec::new();
    let key = read_value(pages, &OverflowPtr { ptr: long.ptr(), len: long.len() as u64 }, &mut extent)?;
    Ok(key.to_vec())
}
