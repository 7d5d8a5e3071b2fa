//! Makes the flat index of a state from that of another state of the same tree.
//!
//! Floor: tree. Two states share all branches that no transaction between them changed. The
//! children of a shared branch, and their heads, are copied; other branches are read. Which state
//! is the later one makes no difference. Reading takes time in proportion to the changes; copying
//! takes some nanoseconds for each page of the level.
//!
//! Invariants:
//!   RENEW-1  a branch is shared only if its pointer and the transaction that wrote it are the
//!       same: the page may have been freed and used again.
//!   RENEW-2  the first child of a branch begins at the separator of the branch in its parent,
//!       which may differ although the branch is shared. So this separator is always read.
//!
//! Failure: `None` if a separator does not fit the columns, or there are too many pages: the caller
//! builds from nothing. An error for damaged pages.

use super::columns::COLUMNS_MAX;
use super::{children, packed, FlatIndex, Parts, Source, WORDS};
use crate::error::Result;
use crate::page::branch::Branch;
use crate::page::layout::CHILD_BYTES;
use crate::pager::PageRead;
use crate::tree::path::{branch_at, height_of};
use crate::tree::Tree;

/// A flat index that is being made.
struct Renewal<'a> {
    old: &'a FlatIndex,
    /// The first source of `old` that may still be shared.
    next: usize,
    exact: bool,
    heads: Vec<u64>,
    children: Vec<[u8; CHILD_BYTES]>,
    sources: Vec<Source>,
    separator: Vec<u8>,
}

impl FlatIndex {
    /// Makes the flat index of another state of the tree, of at most `pages_max` pages.
    pub(crate) fn renew<P: PageRead>(&self, tree: Tree<'_, P>, pages_max: usize) -> Result<Option<FlatIndex>> {
        let Tree { pages, root } = tree;
        let above = self.level + 1;
        if tree.is_empty() || self.sources.is_empty() || !root.order.is_bytewise() {
            return Ok(None);
        }
        let height = height_of(root)?;
        if height <= above {
            return Ok(None);
        }
        let mut branches = Parts::default();
        branches.push(root.ptr);
        for level in (above + 1..height).rev() {
            let Some((below, _)) = children(pages, &branches, level, pages_max)? else { return Ok(None) };
            branches = below;
        }
        let mut renewal = Renewal::of(self, branches.pages.len());
        for (at, ptr) in branches.pages.iter().enumerate() {
            let branch = branch_at(pages, *ptr, above)?;
            let source = Source { ptr: *ptr, born: branch.born(), start: renewal.children.len() };
            let fits = renewal.children.len() + branch.count() <= pages_max;
            if !fits || !renewal.add(source, branches.separator(at), &branch)? {
                return Ok(None);
            }
        }
        let Renewal { exact, heads, children, sources, .. } = renewal;
        if children.len() < 2 {
            return Ok(None);
        }
        let columns = self.columns.with_exact(exact);
        Ok(FlatIndex::assemble(root, self.level, columns, &heads, &children, sources))
    }

    /// The head of a page by its number.
    fn head_of(&self, at: usize) -> u64 {
        self.pages[at / WORDS].heads.0[at % WORDS]
    }
}

impl<'a> Renewal<'a> {
    fn of(old: &'a FlatIndex, branches: usize) -> Renewal<'a> {
        let room = old.page_count + old.page_count / 16;
        Renewal {
            old,
            next: 0,
            exact: old.columns.exact,
            heads: Vec::with_capacity(room),
            children: Vec::with_capacity(room),
            sources: Vec::with_capacity(branches),
            separator: Vec::new(),
        }
    }

    /// Adds the children of a branch that begins at a separator. False if one does not fit the
    /// columns.
    fn add(&mut self, source: Source, separator: &[u8], branch: &Branch<'_>) -> Result<bool> {
        let Some(head) = self.head(separator) else { return Ok(false) };
        let shared = self.shared(&source, head);
        self.sources.push(source);
        self.heads.push(head);
        if let Some((start, end)) = shared {
            self.heads.extend((start + 1..end).map(|at| self.old.head_of(at)));
            self.children.extend((start..end).map(|at| self.old.pages[at / WORDS].children[at % WORDS]));
            return Ok(true);
        }
        self.children.push(packed(branch.child(0)?));
        let mut separator = std::mem::take(&mut self.separator);
        for at in 1..branch.count() {
            separator.clear();
            branch.append_separator(at, &mut separator)?;
            // One byte more than is compared shows that the separator is longer.
            separator.truncate(COLUMNS_MAX + 1);
            let Some(head) = self.head(&separator) else { return Ok(false) };
            self.heads.push(head);
            self.children.push(packed(branch.child(at)?));
        }
        self.separator = separator;
        Ok(true)
    }

    /// The children that the old flat index has of a branch that begins at `head`.
    fn shared(&mut self, source: &Source, head: u64) -> Option<(usize, usize)> {
        let sources = &self.old.sources;
        let is_same = |other: &Source| other.ptr == source.ptr && other.born == source.born;
        while let Some(other) = sources.get(self.next) {
            if is_same(other) {
                let end = sources.get(self.next + 1).map_or(self.old.page_count, |next| next.start);
                self.next += 1;
                return Some((other.start, end));
            }
            if self.old.head_of(other.start) >= head {
                return None;
            }
            self.next += 1;
        }
        None
    }

    /// The head of a separator. `None` if it differs in a byte that keys are not compared by.
    fn head(&mut self, separator: &[u8]) -> Option<u64> {
        let columns = &self.old.columns;
        self.exact &= separator.len() <= columns.end;
        columns.admit(separator).then(|| columns.head(separator))
    }
}
