//! Counts the pages of a tree, and the bytes in use in them.
//!
//! Floor: tree. A depth-first walk over branches and leaves. Of an overflow extent it reads only
//! the pointer. The pages of value trees are counted with the others. Before it reads the children
//! of a branch above leaves, it requests those that are not in memory.
//!
//! Failure: the first damage ends the walk with `Error::Corrupt`. The walk ends because `visit`
//! lets no page be entered twice.

use crate::error::Result;
use crate::ids::{PageId, PagePtr};
use crate::page::branch::Branch;
use crate::page::header::Header;
use crate::page::key::LongKey;
use crate::page::leaf::{Leaf, LeafValue, OverflowPtr};
use crate::page::packed::Packed;
use crate::pager::{Around, PageRead};

use super::check::TreeStats;
use super::finding::{expect_first_time, expect_level, expect_tree};
use crate::tree::depth_first::{next_child, walk_depth_first, DepthFirst, Parent};
use crate::tree::value::overflow_pages;
use crate::tree::values::stored::{count_of, root_of};
use crate::tree::TreeRoot;

/// Counts the parts of a sealed tree. For each page and extent it calls `visit`, which returns
/// whether the walk comes to it for the first time.
pub(crate) fn measure<P: PageRead>(
    pages: &P,
    root: &TreeRoot,
    visit: &mut dyn FnMut(PageId, u64) -> bool,
) -> Result<TreeStats> {
    let stats = TreeStats { depth: root.height, ..TreeStats::default() };
    let mut walk = MeasureWalk { pages, root: *root, visit, stats, wanted: Vec::new() };
    walk_depth_first(&mut walk, root)?;
    Ok(walk.stats)
}

struct MeasureWalk<'a, 'c, P> {
    pages: &'a P,
    root: TreeRoot,
    visit: &'c mut dyn FnMut(PageId, u64) -> bool,
    stats: TreeStats,
    /// Reused for the leaves of a branch.
    wanted: Vec<PageId>,
}

impl<'a, P: PageRead> DepthFirst<Branch<'a>> for MeasureWalk<'a, '_, P> {
    fn enter(&mut self, ptr: PagePtr, level: usize, _: Option<&Parent<Branch<'a>>>) -> Result<Option<Branch<'a>>> {
        expect_first_time((self.visit)(ptr.id, 1), ptr.id, "page")?;
        let page = self.pages.page(ptr)?;
        let header = Header::read(page, ptr.id)?;
        expect_level(&header, level, self.root.shape)?;
        expect_tree(&header, self.root.tree)?;
        if let (0, Some(width)) = (level, self.root.packed_width()) {
            self.stats.add_packed(&Packed::parse(page, ptr.id, width)?);
            return Ok(None);
        }
        if level == 0 {
            return self.leaf(&Leaf::parse(page, ptr.id)?).map(|()| None);
        }
        let branch = Branch::parse(page, ptr.id)?;
        self.stats.add_branch(&branch);
        self.separators(&branch)?;
        if level == 1 {
            self.request_children(&branch)?;
        }
        Ok(Some(branch))
    }

    fn next_child(&mut self, parent: &mut Parent<Branch<'a>>) -> Result<Option<PagePtr>> {
        Ok(next_child(&parent.branch, &mut parent.next)?)
    }
}

impl<P: PageRead> MeasureWalk<'_, '_, P> {
    fn leaf(&mut self, leaf: &Leaf<'_>) -> Result<()> {
        self.stats.add_leaf(leaf);
        for index in 0..leaf.count() {
            let (key, value) = leaf.entry(index)?;
            self.long(key.long)?;
            if self.root.shape.is_multi() {
                self.stats.pairs += count_of(self.root.shape, &value)?;
            }
            match value {
                LeafValue::Overflow(pointer) => self.extent(&pointer)?,
                LeafValue::Tree(to) => {
                    let of_tree = measure(self.pages, &root_of(&self.root, &to), self.visit)?;
                    self.stats.add_values(&of_tree);
                }
                LeafValue::Inline(_) | LeafValue::Set(_) => {}
            }
        }
        Ok(())
    }

    fn separators(&mut self, branch: &Branch<'_>) -> Result<()> {
        for index in (1..branch.count()).filter(|_| branch.has_long_separators()) {
            self.long(branch.long_separator(index)?)?;
        }
        Ok(())
    }

    fn long(&mut self, long: Option<LongKey>) -> Result<()> {
        match long {
            Some(long) => self.extent(&OverflowPtr { ptr: long.ptr(), len: long.len() as u64 }),
            None => Ok(()),
        }
    }

    fn extent(&mut self, pointer: &OverflowPtr) -> Result<()> {
        let pages = overflow_pages(self.pages.page_size(), pointer)?;
        expect_first_time((self.visit)(pointer.ptr.id, pages), pointer.ptr.id, "overflow extent")?;
        self.stats.add_extent(pages, pointer.len);
        Ok(())
    }

    fn request_children(&mut self, branch: &Branch<'_>) -> Result<()> {
        if !self.pages.reads_ahead() {
            return Ok(());
        }
        self.wanted.clear();
        for index in 0..branch.count() {
            self.wanted.push(branch.child(index)?.id);
        }
        self.wanted.retain(|&id| !self.pages.is_known(id));
        if !self.wanted.is_empty() {
            self.pages.request(&mut self.wanted, Around::None);
        }
        Ok(())
    }
}
