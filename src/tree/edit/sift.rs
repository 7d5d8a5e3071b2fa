//! Removing the entries of a range that a caller rejects, branch by branch.
//!
//! Floor: tree. A [`Sift`] lets its caller judge the entries of one leaf after the other. The
//! entries that stay are packed into new leaves as soon as a leaf loses an entry, each entry is
//! copied once, and a branch of the lowest level is rewritten when its leaves are judged. Leaves
//! without rejected entries stay as they are. Then a branch that is too empty is joined with a
//! neighbour, as after a delete. A sift borrows no page between its steps; in between, only its own
//! steps change the tree.
//!
//! Invariants:
//!   SIFT-1  while [`Sift::is_unfinished`], new leaves exist that no branch leads to. The tree is
//!       as before the branch was begun; [`Sift::finish`] ends this.
//!
//! Failure: an error while entries are judged changes nothing. An error of [`Sift::apply`] or
//! [`Sift::finish`] can leave the tree of this transaction half changed, so the transaction must be
//! aborted.

use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::page::branch::Child;
use crate::page::key::{PageKey, PageKeyBuf};
use crate::page::leaf::{self, Leaf, LeafValue};
use crate::pager::{PageRead, PageWrite};

use crate::tree::edit::drop::free_extents;
use crate::tree::edit::plan::{self, Pattern};
use crate::tree::edit::propagate::{build_branches, children_of, propagate_split};
use crate::tree::edit::rebalance::{after_cut, after_shrink};
use crate::tree::edit::split::leaf_capacity;
use crate::tree::load::bulk::Stage;
use crate::tree::long_key::whole;
use crate::tree::lookup::search::entry_at;
use crate::tree::path::{branch_at, fetch_front, free_page, leaf_at, make_branches_dirty, Path, Side};
use crate::tree::value::OverflowExtent;
use crate::tree::{Entry, Tree, TreeMut, TreeRoot};

/// Says whether an entry stays, by its key and its value.
pub(crate) type Judge<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool> + 'a;

/// The next step of a sift.
pub(crate) enum Sifted<'a> {
    /// The caller judges this entry.
    Entry(Entry<'a>),
    /// The entries of the leaf are judged: the caller calls [`Sift::apply`].
    LeafDone,
    /// No entry of the range is left.
    Done,
}

/// A pass over the entries from a low key on and below a high key.
pub(crate) struct Sift {
    high: Option<Vec<u8>>,
    /// The key from which on entries are still to be judged; after it if `after` is set. `None`:
    /// all.
    from: Option<Vec<u8>>,
    after: bool,
    /// The way to the current leaf, if `is_placed`.
    path: Box<Path>,
    is_placed: bool,
    /// Indexes of the next entry to judge, and of the end of the range in this leaf.
    next: usize,
    end: usize,
    /// The range ends in this leaf.
    is_last: bool,
    is_done: bool,
    /// Indexes of the rejected entries of this leaf.
    rejected: Vec<usize>,
    rewritten_leaves: u64,
    branch: Option<NewBranch>,
}

/// A branch of the lowest level that is being rewritten, or the only leaf of a tree.
struct NewBranch {
    /// The children that it has in the tree.
    old: Vec<Child>,
    /// The children that it will have, up to `stage`.
    new: Vec<Child>,
    /// How many of the old children are dealt with.
    next: usize,
    /// Entries on their way into new leaves, and the leaves built of them.
    stage: Stage,
    /// The separator before the first of them.
    staged_sep: PageKeyBuf,
    /// Old leaves, and overflow extents of values, keys and separators, that nothing will lead to.
    gone: Vec<OverflowExtent>,
    /// The rejected keys: their bytes, and the end of each.
    keys: Vec<u8>,
    key_ends: Vec<usize>,
}

impl Sift {
    /// A pass over the entries from `low` on, or from the first one, and below `high`.
    pub(crate) fn new(low: Option<&[u8]>, high: Option<&[u8]>) -> Sift {
        Sift {
            high: high.map(<[u8]>::to_vec),
            from: low.map(<[u8]>::to_vec),
            after: false,
            path: Box::new(Path::new()),
            is_placed: false,
            next: 0,
            end: 0,
            is_last: false,
            is_done: false,
            rejected: Vec::new(),
            rewritten_leaves: 0,
            branch: None,
        }
    }

    /// A pass over no entries.
    pub(crate) fn of_nothing() -> Sift {
        Sift { is_done: true, ..Sift::new(None, None) }
    }

    /// Whether [`Sift::apply`] will change pages.
    pub(crate) fn has_changes(&self) -> bool {
        !self.rejected.is_empty() || self.branch.is_some()
    }

    /// Whether leaves were built that no branch leads to yet (SIFT-1).
    pub(crate) fn is_unfinished(&self) -> bool {
        self.branch.is_some()
    }

    /// Leaves that were rewritten so far.
    pub(crate) fn rewritten_leaves(&self) -> u64 {
        self.rewritten_leaves
    }

    /// The next entry to judge by [`Sift::judge`].
    pub(crate) fn peek<'a, P: PageRead>(&mut self, tree: Tree<'a, P>) -> Result<Sifted<'a>> {
        let Some(leaf) = self.place(tree)? else { return Ok(Sifted::Done) };
        match self.next < self.end {
            true => entry_at(tree.pages, &leaf, self.next).map(Sifted::Entry),
            false => Ok(Sifted::LeafDone),
        }
    }

    /// Judges the entry that [`Sift::peek`] has returned.
    pub(crate) fn judge(&mut self, keep: bool) {
        if !keep {
            self.rejected.push(self.next);
        }
        self.next += 1;
    }

    /// Judges all entries of the next leaf: `keep` says of each whether it stays. Returns false if
    /// no entry of the range is left.
    pub(crate) fn judge_leaf<P: PageRead>(&mut self, tree: Tree<'_, P>, keep: &mut Judge<'_>) -> Result<bool> {
        let Some(leaf) = self.place(tree)? else { return Ok(false) };
        while self.next < self.end {
            let (key, value) = entry_at(tree.pages, &leaf, self.next)?;
            let keep = keep(key, value)?;
            self.judge(keep);
        }
        Ok(true)
    }

    /// Deals with the current leaf, whose entries are judged, and goes on to the next one. At the
    /// end of a branch calls `removed` with each key that is gone, and returns how many.
    pub(crate) fn apply<P: PageWrite>(
        &mut self,
        mut tree: TreeMut<'_, P>,
        removed: &mut dyn FnMut(&[u8]),
    ) -> Result<u64> {
        let judged = leaf_at(tree.pages, self.path.leaf().ptr)?;
        let last = whole(tree.pages, judged.key(self.next.wrapping_sub(1))?)?;
        let from = self.from.get_or_insert_default();
        from.clear();
        from.extend_from_slice(last);
        self.after = true;
        self.take_leaf(tree.pages, tree.root)?;
        let bottom = self.path.len() - 1;
        let is_last_child = match bottom.checked_sub(1) {
            None => true,
            Some(above) => {
                let frame = self.path.frame(above);
                frame.index() + 1 == branch_at(tree.pages, frame.ptr, 1)?.count()
            }
        };
        let mut count = 0;
        if let Some(branch) = self.branch.take_if(|_| self.is_last || is_last_child) {
            count = self.replace_branch(&mut tree, branch, removed)?;
        }
        self.is_done |= self.is_last;
        if !self.is_done && self.is_placed {
            self.is_done = !self.step(tree.as_tree())?;
        }
        Ok(count)
    }

    /// Removes what was rejected so far, so that the tree is whole. Calls `removed` with each key,
    /// and returns how many. Ends the pass.
    pub(crate) fn finish<P: PageWrite>(
        &mut self,
        mut tree: TreeMut<'_, P>,
        removed: &mut dyn FnMut(&[u8]),
    ) -> Result<u64> {
        if self.is_placed && !self.rejected.is_empty() {
            self.take_leaf(tree.pages, tree.root)?;
        }
        self.is_done = true;
        match self.branch.take() {
            Some(branch) => self.replace_branch(&mut tree, branch, removed),
            None => Ok(0),
        }
    }

    /// Goes to the leaf of the next entry to judge. `None` if there is none in the range.
    fn place<'a, P: PageRead>(&mut self, tree: Tree<'a, P>) -> Result<Option<Leaf<'a>>> {
        if !self.is_placed && !self.is_done {
            if tree.is_empty() {
                self.is_done = true;
                return Ok(None);
            }
            let found = match &self.from {
                Some(from) => self.path.descend(tree, from)?,
                None => self.path.descend_to(tree, Side::First).map(|_| false)?,
            };
            self.path.look(tree.pages, Side::Last);
            let first = self.path.leaf().index() + usize::from(found && self.after);
            self.enter(tree, &leaf_at(tree.pages, self.path.leaf().ptr)?, first)?;
            if self.next >= self.end {
                self.is_done = self.is_last || !self.step(tree)?;
            }
        }
        match self.is_done {
            true => Ok(None),
            false => leaf_at(tree.pages, self.path.leaf().ptr).map(Some),
        }
    }

    /// Goes to the next leaf. Returns whether it has entries of the range. Its keys must lie above
    /// those of this leaf, so that the pass ends in a damaged tree too.
    fn step<P: PageRead>(&mut self, tree: Tree<'_, P>) -> Result<bool> {
        let Tree { pages, root } = tree;
        let before = leaf_at(pages, self.path.leaf().ptr)?;
        let last_key = before.last_key()?;
        let Some(leaf) = self.path.step(pages, Side::Last)? else { return Ok(false) };
        let (first, last) = (leaf.first_key()?, leaf.last_key()?);
        let is_after = root.order.compare_both(pages, first, last_key)?.is_gt();
        if !is_after || (leaf.count() > 1 && root.order.compare_both(pages, first, last)?.is_ge()) {
            return Err(Error::corrupt(leaf.id(), "keys are not in ascending order"));
        }
        self.enter(tree, &leaf, 0)?;
        let ahead = self.path.ahead();
        if !ahead.id.is_none() {
            fetch_front(pages, ahead);
            pages.prefetch(ahead.id, 0, pages.page_size());
        }
        Ok(self.next < self.end)
    }

    /// Begins with a leaf of the path, at an index.
    fn enter<P: PageRead>(&mut self, tree: Tree<'_, P>, leaf: &Leaf<'_>, next: usize) -> Result<()> {
        let (Tree { pages, root }, count) = (tree, leaf.count());
        (self.end, self.is_last) = match &self.high {
            Some(high) if count > 0 && root.order.compare_stored(pages, leaf.last_key()?, high)?.is_ge() => {
                (leaf.lower_bound_in(root.order, pages, high)?.0, true)
            }
            _ => (count, false),
        };
        (self.next, self.is_placed) = (next, true);
        Ok(())
    }

    /// Takes the entries of the current leaf that stay, if it has rejected ones. Begins to rewrite
    /// its branch then.
    fn take_leaf<P: PageWrite>(&mut self, pages: &mut P, tree: &TreeRoot) -> Result<()> {
        let above = (self.path.len() - 1).checked_sub(1);
        let index = above.map_or(0, |above| self.path.frame(above).index());
        let leaf_ptr = self.path.leaf().ptr;
        if self.branch.is_none() && !self.rejected.is_empty() {
            let old = match above {
                None => vec![Child { sep: PageKeyBuf::default(), ptr: leaf_ptr }],
                Some(above) => children_of(&branch_at(pages, self.path.frame(above).ptr, 1)?)?,
            };
            self.branch = Some(NewBranch::begin(old, index));
        }
        let Some(branch) = &mut self.branch else { return Ok(()) };
        if self.rejected.is_empty() && !branch.stage_is_underfull(pages.page_size()) {
            return branch.keep_child(pages, tree, index);
        }
        self.rewritten_leaves += 1;
        branch.stage_leaf(pages, tree, index, &self.rejected)?;
        self.rejected.clear();
        Ok(())
    }

    /// Puts the children that a branch will have in place of those that it has. Calls `removed`
    /// with each key that is gone, and returns how many.
    fn replace_branch<P: PageWrite>(
        &mut self,
        tree: &mut TreeMut<'_, P>,
        mut branch: NewBranch,
        removed: &mut dyn FnMut(&[u8]),
    ) -> Result<u64> {
        branch.flush(tree.pages, tree.root)?;
        branch.new.extend(branch.old.drain(branch.next..));
        if let Some(first) = branch.new.first_mut() {
            branch.gone.extend(OverflowExtent::of_long(tree.pages, first.sep.long)?);
            first.sep.clear();
        }
        self.is_placed = false;
        let count = branch.key_ends.len() as u64;
        let entries = tree.root.entries.checked_sub(count).ok_or_else(|| {
            let what = format!("entry count of the tree is {}, expected at least {count}", tree.root.entries);
            Error::corrupt(tree.root.ptr.id, what)
        })?;
        make_branches_dirty(tree, &mut self.path)?;
        free_extents(tree.pages, &mut branch.gone)?;
        match ((self.path.len() - 1).checked_sub(1), branch.new.is_empty()) {
            (None, true) => after_cut(tree, &self.path, 0)?,
            (None, false) => tree.root.ptr = branch.new.remove(0).ptr,
            (Some(above), true) => {
                let ptr = self.path.frame(above).ptr;
                free_page(tree.pages, ptr)?;
                after_cut(tree, &self.path, above)?;
            }
            (Some(above), false) => {
                let id = self.path.frame(above).ptr.id;
                let mut fresh = build_branches(tree, 1, Some(id), branch.new, None)?;
                fresh.remove(0);
                match fresh.is_empty() {
                    true => after_shrink(tree, &self.path, above)?,
                    false => propagate_split(tree, &self.path, above, fresh, Pattern::Random)?,
                }
            }
        }
        tree.root.entries = entries;
        let mut start = 0;
        for end in branch.key_ends {
            removed(&branch.keys[start..end]);
            start = end;
        }
        Ok(count)
    }
}

impl NewBranch {
    /// Begins at a child, whose entries are the first to go.
    fn begin(old: Vec<Child>, index: usize) -> NewBranch {
        let copied = |child: &Child| Child { sep: child.sep.clone(), ptr: child.ptr };
        NewBranch {
            new: old[..index.min(old.len())].iter().map(copied).collect(),
            old,
            next: index,
            stage: Stage::default(),
            staged_sep: PageKeyBuf::default(),
            gone: Vec::new(),
            keys: Vec::new(),
            key_ends: Vec::new(),
        }
    }

    /// Whether the staged entries would make a leaf that is too empty.
    fn stage_is_underfull(&self, page_size: usize) -> bool {
        let used = self.stage.used_bytes();
        used > 0 && plan::underfull(used, leaf_capacity(page_size))
    }

    /// Keeps an old child as it is.
    fn keep_child<P: PageWrite>(&mut self, pages: &mut P, tree: &TreeRoot, index: usize) -> Result<()> {
        self.flush(pages, tree)?;
        let child = self.child(index)?;
        self.new.push(child);
        Ok(())
    }

    /// Takes the next child, which must be that with this index.
    fn child(&mut self, index: usize) -> Result<Child> {
        match self.old.get_mut(index) {
            Some(child) if index == self.next => {
                self.next += 1;
                Ok(Child { sep: std::mem::take(&mut child.sep), ptr: child.ptr })
            }
            _ => Err(Error::corrupt(PageId::NONE, "a branch changed while its leaves were rewritten")),
        }
    }

    /// Stages the entries of an old child but the rejected ones.
    fn stage_leaf<P: PageWrite>(
        &mut self,
        pages: &mut P,
        tree: &TreeRoot,
        index: usize,
        rejected: &[usize],
    ) -> Result<()> {
        let mut child = self.child(index)?;
        let page_size = pages.page_size();
        let mut rejected = rejected.iter().peekable();
        let mut at = 0;
        loop {
            let leaf = leaf_at(pages, child.ptr)?;
            // Stage as many entries as fit into one leaf, then build it.
            while at < leaf.count() {
                let (key, value) = leaf.entry(at)?;
                if rejected.next_if(|&&gone| gone == at).is_some() {
                    self.note_gone(pages, key, value)?;
                } else if self.stage.is_full_for(leaf::entry_size(key, value), page_size) {
                    break;
                } else {
                    if self.stage.used_bytes() == 0 && self.stage.built.is_empty() {
                        // It lies between the entries before those of this child and its own.
                        self.staged_sep = std::mem::take(&mut child.sep);
                    }
                    self.stage.add(key, value);
                }
                at += 1;
            }
            if at == leaf.count() {
                self.gone.push(OverflowExtent { id: child.ptr.id, pages: 1, born: leaf.born() });
                self.gone.extend(OverflowExtent::of_long(pages, child.sep.long)?);
                return Ok(());
            }
            self.stage.build_leaf(pages, tree)?;
        }
    }

    fn note_gone<P: PageWrite>(&mut self, pages: &P, key: PageKey<'_>, value: LeafValue<'_>) -> Result<()> {
        self.keys.extend_from_slice(whole(pages, key)?);
        self.key_ends.push(self.keys.len());
        self.gone.extend(OverflowExtent::of_entry(pages, key, value)?.into_iter().flatten());
        Ok(())
    }

    /// Builds a leaf of the staged entries, and takes the built leaves as children.
    fn flush<P: PageWrite>(&mut self, pages: &mut P, tree: &TreeRoot) -> Result<()> {
        self.stage.build_leaf(pages, tree)?;
        let mut built = std::mem::take(&mut self.stage.built);
        if let Some(first) = built.first_mut() {
            let unused = std::mem::replace(&mut first.sep, std::mem::take(&mut self.staged_sep));
            self.gone.extend(OverflowExtent::of_long(pages, unused.long)?);
        }
        self.new.append(&mut built);
        Ok(())
    }
}
