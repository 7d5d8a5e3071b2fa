//! Warming: brings the pages of a range of keys into memory before anybody needs them.
//!
//! Floor: tree. The pages to read are kept in lists, one for each level. Branches are read in
//! portions, the lowest ones first, so that the lists stay short. Leaves are collected from many
//! branches and read in their order in the file: so the disk is read nearly as fast if the entries
//! were put in random order as if they lie in order. The overflow extents of keys and values follow
//! their leaves, and the value trees of a multimap are further trees to read.
//!
//! Invariants:
//!   WARM-1  the lists hold at most [`LEAVES_MAX`] leaves and the children of [`BRANCHES`] branches
//!       of each level more, however large the tree is.
//!   WARM-2  each page is verified, so damage is found, and later lookups need not verify it.
//!
//! Failure: the first page that is damaged or cannot be read ends the walk. Pages that were read
//! stay in memory.

use std::ops::{Bound, ControlFlow};

use crate::error::Result;
use crate::ids::{PageId, PagePtr};
use crate::page::header::{self, PageKind};
use crate::page::leaf::{Leaf, LeafValue};
use crate::page::order::Order;
use crate::pager::{Around, PageRead};

use crate::tree::long_key::long_key_pages;
use crate::tree::path::{branch_at, height_of};
use crate::tree::value::overflow_pages;
use crate::tree::Tree;

/// Leaves that are read together, in their order in the file: 2 GiB of 4 KiB pages, 8 MiB of
/// pointers.
const LEAVES_MAX: usize = 1 << 19;
/// Branches that are read together.
const BRANCHES: usize = 1024;
/// Pages of overflow extents that are requested together.
const EXTENT_PAGES_MAX: u64 = 8192;
/// Pages between two calls of the progress callback.
const TOLD_PAGES: u64 = 1024;

/// Takes the number of pages that were read and of those that are known to be wanted; decides
/// whether to go on.
pub(crate) type Progress<'p> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'p;

impl<P: PageRead> Tree<'_, P> {
    /// Reads all pages for the keys between two bounds. Returns their number; `None` if `progress`
    /// ended it.
    pub(crate) fn warm(
        self,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
        progress: &mut Progress<'_>,
    ) -> Result<Option<u64>> {
        let mut warm = Warm {
            pages: self.pages,
            order: self.root.order,
            low: key_of(low),
            high: key_of(high),
            has_high: matches!(high, Bound::Included(_)),
            branches: Vec::new(),
            leaves: Vec::new(),
            ends: [PageId::NONE; 2],
            extents: Vec::new(),
            extent_pages: 0,
            progress,
            done: 0,
            all: 0,
        };
        if !self.is_empty() {
            let root = Wanted { ptr: self.root.ptr, is_first: true, is_last: true };
            warm.add(height_of(self.root)? - 1, root);
        }
        let ended = warm.run()?;
        Ok(ended.is_continue().then_some(warm.done))
    }
}

fn key_of(bound: Bound<&[u8]>) -> Option<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

/// A branch to read.
#[derive(Clone, Copy)]
struct Wanted {
    ptr: PagePtr,
    /// The lower bound lies below this branch, or the upper one.
    is_first: bool,
    is_last: bool,
}

struct Warm<'a, 'p, P> {
    pages: &'a P,
    order: Order,
    low: Option<&'a [u8]>,
    high: Option<&'a [u8]>,
    /// Whether the upper bound is a key of the range.
    has_high: bool,
    /// Branches to read; index 0 holds those of level 1.
    branches: Vec<Vec<Wanted>>,
    leaves: Vec<PagePtr>,
    /// The leaves in which the bounds lie.
    ends: [PageId; 2],
    /// Overflow extents to read, with their pages.
    extents: Vec<(PagePtr, u64)>,
    extent_pages: u64,
    progress: &'a mut Progress<'p>,
    done: u64,
    all: u64,
}

impl<P: PageRead> Warm<'_, '_, P> {
    /// `Break` if the callback ended it.
    fn run(&mut self) -> Result<ControlFlow<()>> {
        loop {
            let lowest = self.branches.iter().position(|wanted| !wanted.is_empty());
            let ended = match lowest {
                Some(at) if self.leaves.len() < LEAVES_MAX => self.read_branches(at + 1)?,
                _ if !self.leaves.is_empty() => self.read_leaves()?,
                _ => return Ok(self.tell()),
            };
            if ended.is_break() {
                return Ok(ended);
            }
        }
    }

    /// Adds a page of this level to those to read.
    fn add(&mut self, level: usize, page: Wanted) {
        self.all += 1;
        match level.checked_sub(1) {
            None => {
                self.leaves.push(page.ptr);
                for (end, is_end) in self.ends.iter_mut().zip([page.is_first, page.is_last]) {
                    if is_end {
                        *end = page.ptr.id;
                    }
                }
            }
            Some(at) => {
                if self.branches.len() <= at {
                    self.branches.resize_with(at + 1, Vec::new);
                }
                self.branches[at].push(page);
            }
        }
    }

    /// Reads some branches of a level, and adds their children.
    fn read_branches(&mut self, level: usize) -> Result<ControlFlow<()>> {
        let wanted = &mut self.branches[level - 1];
        let wanted: Vec<Wanted> = wanted.drain(..wanted.len().min(BRANCHES)).collect();
        let ended = self.load(wanted.iter().map(|page| page.ptr).collect(), |_, _| Ok(()))?;
        if ended.is_continue() {
            wanted.into_iter().try_for_each(|page| self.add_children(level, page))?;
        }
        Ok(ended)
    }

    fn add_children(&mut self, level: usize, page: Wanted) -> Result<()> {
        let branch = branch_at(self.pages, page.ptr, level)?;
        let low =
            self.low.filter(|_| page.is_first).map(|key| branch.find_in(self.order, self.pages, key)).transpose()?;
        let high =
            self.high.filter(|_| page.is_last).map(|key| branch.find_in(self.order, self.pages, key)).transpose()?;
        let (from, to) = (low.unwrap_or(0), high.unwrap_or(branch.count().saturating_sub(1)));
        for at in from..=to {
            let (is_first, is_last) = (page.is_first && at == from, page.is_last && at == to);
            self.add(level - 1, Wanted { ptr: branch.child(at)?, is_first, is_last });
        }
        Ok(())
    }

    /// Reads the leaves that were collected, and what belongs to their entries.
    fn read_leaves(&mut self) -> Result<ControlFlow<()>> {
        let leaves = std::mem::take(&mut self.leaves);
        let ended = self.load(leaves, Warm::see_leaf)?;
        self.read_extents()?;
        Ok(ended)
    }

    /// Finds the extents and the value trees of the entries of a leaf that lie within the bounds.
    /// The leaves of some value trees are packed, and have none.
    fn see_leaf(&mut self, ptr: PagePtr) -> Result<()> {
        let pages = self.pages;
        let page = pages.page(ptr)?;
        if header::page_kind(page, ptr.id)? == PageKind::Packed {
            return Ok(());
        }
        let leaf = Leaf::parse(page, ptr.id)?;
        let low = self
            .low
            .filter(|_| ptr.id == self.ends[0])
            .map(|key| leaf.lower_bound_in(self.order, pages, key))
            .transpose()?;
        let high = self
            .high
            .filter(|_| ptr.id == self.ends[1])
            .map(|key| leaf.lower_bound_in(self.order, pages, key))
            .transpose()?;
        let from = low.map_or(0, |(at, _)| at);
        let to = high.map_or(leaf.count(), |(at, found)| at + usize::from(found && self.has_high));
        for index in from..to {
            let (key, value) = leaf.entry(index)?;
            if let Some(long) = key.long {
                self.add_extent(long.ptr(), long_key_pages(pages.page_size(), long))?;
            }
            match value {
                LeafValue::Overflow(to) => self.add_extent(to.ptr, overflow_pages(pages.page_size(), &to)?)?,
                LeafValue::Tree(to) => {
                    let level = usize::from(to.height).saturating_sub(1).min(crate::limits::DEPTH_MAX);
                    self.add(level, Wanted { ptr: to.ptr, is_first: false, is_last: false });
                }
                LeafValue::Inline(_) | LeafValue::Set(_) => {}
            }
        }
        Ok(())
    }

    fn add_extent(&mut self, ptr: PagePtr, pages: u64) -> Result<()> {
        self.all = self.all.saturating_add(pages);
        self.extents.push((ptr, pages));
        self.extent_pages = self.extent_pages.saturating_add(pages);
        match self.extent_pages >= EXTENT_PAGES_MAX {
            true => self.read_extents(),
            false => Ok(()),
        }
    }

    fn read_extents(&mut self) -> Result<()> {
        let mut extents = std::mem::take(&mut self.extents);
        self.extent_pages = 0;
        extents.sort_unstable_by_key(|(ptr, _)| ptr.id);
        // A long extent is requested as a whole when it is read.
        let short = extents.iter().filter(|(_, pages)| *pages < EXTENT_PAGES_MAX);
        let mut ids: Vec<PageId> =
            short.flat_map(|(ptr, pages)| (ptr.id.0..ptr.id.0.saturating_add(*pages)).map(PageId)).collect();
        self.pages.request(&mut ids, Around::None);
        for (ptr, pages) in extents {
            self.pages.extent(ptr, pages)?;
            self.done += pages;
        }
        Ok(())
    }

    /// Reads pages in their order in the file. Calls `see` for each when it has arrived.
    fn load(
        &mut self,
        mut ptrs: Vec<PagePtr>,
        see: impl Fn(&mut Self, PagePtr) -> Result<()>,
    ) -> Result<ControlFlow<()>> {
        let (pages, mut seen) = (self.pages, Ok(()));
        let mut ended = ControlFlow::Continue(());
        pages.load(&mut ptrs, Around::Between, &mut |ptr| {
            seen = pages.page(ptr).and_then(|_| see(self, ptr));
            self.done += 1;
            if self.done.is_multiple_of(TOLD_PAGES) {
                ended = self.tell();
            }
            match seen {
                Ok(()) => ended,
                Err(_) => ControlFlow::Break(()),
            }
        });
        seen.map(|()| ended)
    }

    fn tell(&mut self) -> ControlFlow<()> {
        (self.progress)(self.done, self.all)
    }
}
