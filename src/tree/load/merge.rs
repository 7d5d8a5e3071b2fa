//! Merges a sorted run of entries into a tree.
//!
//! Floor: tree. The branches of the lowest level divide the run. If the run has at least one entry
//! per leaf of a branch, the leaves of this branch are rebuilt, full, from their entries and those
//! of the run. If it has fewer, its entries are put one by one. Either way each leaf is visited
//! once, in order.
//!
//! Failure: an error leaves a tree that must be aborted with its transaction.

use crate::error::Result;
use crate::ids::PagePtr;
use crate::page::key::PageKey;
use crate::page::leaf::{self, Leaf, LeafValue};
use crate::pager::PageWrite;

use crate::tree::edit::plan::Pattern;
use crate::tree::edit::propagate::{build_branches, propagate_split};
use crate::tree::edit::put::count_after;
use crate::tree::load::bulk::Stage;
use crate::tree::load::sorted_run::SortedRun;
use crate::tree::long_key::{separator_extents, store_key, whole_copy};
use crate::tree::path::{branch_at, free_page, make_branches_dirty, Path};
use crate::tree::value::free_extent;
use crate::tree::{PutHint, TreeMut};

impl<P: PageWrite> TreeMut<'_, P> {
    /// Puts the remaining entries of a sorted run into the tree, which is not empty. Calls `ready`
    /// before it allocates pages, so that the caller can make free pages available.
    pub(crate) fn merge(mut self, run: &mut SortedRun, ready: &mut impl FnMut(&mut P) -> Result<()>) -> Result<()> {
        let mut hint = PutHint::default();
        while let Some((key, _)) = run.peek() {
            let mut path = Path::new();
            let bound = path.descend_to_branch(self.as_tree(), key)?;
            let leaves = leaves_of(self.pages, &path)?;
            let count = run.count_below(bound.as_deref());
            if count >= leaves.len() {
                ready(self.pages)?;
                make_branches_dirty(&mut self, &mut path)?;
                Rebuild::new(self.reborrow(), ready).build(&path, &leaves, bound.as_deref(), run)?;
                continue;
            }
            // At least one, whatever a damaged branch says.
            for _ in 0..count.max(1) {
                let Some((key, value)) = run.peek() else { break };
                ready(self.pages)?;
                self.reborrow().put_stored(key, |_, _| Ok(value), &mut hint, None)?;
                run.step();
            }
        }
        Ok(())
    }
}

/// The leaves below the lowest branch of a path, or the only leaf of a tree without branches.
fn leaves_of<P: PageWrite>(pages: &P, path: &Path) -> Result<Vec<PagePtr>> {
    if path.len() == 1 {
        return Ok(vec![path.leaf().ptr]);
    }
    let branch = branch_at(pages, path.frame(path.len() - 2).ptr, 1)?;
    (0..branch.count()).map(|at| Ok(branch.child(at)?)).collect()
}

/// Rebuilds the leaves of one branch from their entries and those of a run.
struct Rebuild<'m, 'p, P, F> {
    tree: TreeMut<'p, P>,
    /// Read once: every entry needs it.
    page_size: usize,
    ready: &'m mut F,
    stage: Stage,
}

impl<'m, 'p, P: PageWrite, F: FnMut(&mut P) -> Result<()>> Rebuild<'m, 'p, P, F> {
    fn new(tree: TreeMut<'p, P>, ready: &'m mut F) -> Self {
        Rebuild { page_size: tree.pages.page_size(), tree, ready, stage: Stage::default() }
    }

    /// Builds the leaves from their entries and those of the run below `bound`, and puts them in
    /// place of the old ones. All branches of the path are dirty.
    fn build(mut self, path: &Path, leaves: &[PagePtr], bound: Option<&[u8]>, run: &mut SortedRun) -> Result<()> {
        let (mut copy, mut added) = (Vec::new(), 0);
        for &ptr in leaves {
            copy.clear();
            copy.extend_from_slice(self.tree.pages.page(ptr)?);
            added += self.stage_leaf(&Leaf::parse(&copy, ptr.id)?, run)?;
        }
        added += self.stage_below(bound, run)?;
        let Rebuild { mut tree, mut stage, .. } = self;
        match path.len() > 1 && stage.built.is_empty() {
            // A branch has two children at least, even where one leaf would hold everything.
            true => stage.build_two_leaves(tree.pages, tree.root)?,
            false => stage.build_leaf(tree.pages, tree.root)?,
        }
        // Free all old leaves together, so that the next tree that allocates them gets neighbouring
        // pages.
        leaves.iter().try_for_each(|&ptr| free_page(tree.pages, ptr))?;
        if let Some(above) = (path.len() - 1).checked_sub(1) {
            let separators = separator_extents(tree.pages, &branch_at(tree.pages, path.frame(above).ptr, 1)?)?;
            separators.into_iter().for_each(|extent| extent.free(tree.pages));
        }
        tree.root.entries = count_after(tree.root, added)?;
        replace_children(&mut tree, path, stage)
    }

    /// Stages the entries of a leaf, and those of the run that come before them or replace them.
    /// Returns by how many entries the tree grows.
    fn stage_leaf(&mut self, leaf: &Leaf<'_>, run: &mut SortedRun) -> Result<u64> {
        let mut added = 0;
        for at in 0..leaf.count() {
            let (key, value) = leaf.entry(at)?;
            let whole = whole_copy(self.tree.pages, key)?;
            added += self.stage_below(Some(&whole), run)?;
            match run.peek() {
                Some((same, newer)) if same == &*whole => {
                    self.push(key, newer)?;
                    run.step();
                    if let LeafValue::Overflow(to) = value {
                        free_extent(self.tree.pages, to)?;
                    }
                }
                _ => self.push(key, value)?,
            }
        }
        Ok(added)
    }

    /// Stages the entries of the run below a bound. Returns how many.
    fn stage_below(&mut self, bound: Option<&[u8]>, run: &mut SortedRun) -> Result<u64> {
        let mut count = 0;
        while let Some((key, value)) = run.peek() {
            if bound.is_some_and(|bound| key >= bound) {
                break;
            }
            let key = store_key(self.tree.pages, self.tree.root.tree, key)?;
            self.push(key, value)?;
            run.step();
            count += 1;
        }
        Ok(count)
    }

    fn push(&mut self, key: PageKey<'_>, value: LeafValue<'_>) -> Result<()> {
        if self.stage.is_full_for(leaf::entry_size(key, value), self.page_size) {
            (self.ready)(self.tree.pages)?;
            self.stage.build_leaf(self.tree.pages, self.tree.root)?;
        }
        self.stage.add(key, value);
        Ok(())
    }
}

/// Replaces the children of the lowest branch of the path by the leaves that were built.
fn replace_children<P: PageWrite>(tree: &mut TreeMut<'_, P>, path: &Path, stage: Stage) -> Result<()> {
    let mut built = stage.built;
    let mut depth = path.len() - 1;
    match depth.checked_sub(1) {
        None => tree.root.ptr = built.remove(0).ptr,
        Some(above) => {
            depth = above;
            built = build_branches(tree, 1, Some(path.frame(above).ptr.id), built, None)?;
            built.remove(0);
        }
    }
    match built.is_empty() {
        true => Ok(()),
        false => propagate_split(tree, path, depth, built, Pattern::Random),
    }
}
