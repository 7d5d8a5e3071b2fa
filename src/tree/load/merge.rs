//! Putting a sorted run of entries among those of a tree.
//!
//! Floor: tree. The run is divided by the branches of the lowest level. Where it has at least one
//! entry for each leaf of a branch, these leaves are built anew, full, from both; where it has
//! fewer, its entries are put one by one. Either way a leaf is met once, in order.
//!
//! Failure: an error leaves a tree that must be aborted with its transaction.

use crate::error::Result;
use crate::ids::PagePtr;
use crate::page::leaf::{self, Leaf, LeafValue};
use crate::pager::PageWrite;

use crate::tree::edit::plan::Pattern;
use crate::tree::edit::propagate::{build_branches, propagate_split};
use crate::tree::edit::put::{count_after, put_stored};
use crate::tree::load::bulk::Stage;
use crate::tree::load::sorted_run::SortedRun;
use crate::tree::path::{branch_at, free_page, make_branches_dirty, Path};
use crate::tree::value::free_extent;
use crate::tree::{PutHint, Tree, TreeRoot};

/// Puts all that is left of a sorted run into a tree that is not empty. Before pages are taken,
/// `ready` sees that free ones are at hand.
pub(crate) fn merge<P: PageWrite>(
    pages: &mut P,
    root: &mut TreeRoot,
    run: &mut SortedRun,
    ready: &mut impl FnMut(&mut P) -> Result<()>,
) -> Result<()> {
    let mut hint = PutHint::default();
    while let Some((key, _)) = run.peek() {
        let mut path = Path::new();
        let bound = path.descend_to_branch(Tree::new(pages, root), key)?;
        let leaves = leaves_of(pages, &path)?;
        let count = run.count_below(bound.as_deref());
        if count >= leaves.len() {
            rebuild(pages, root, &mut path, &leaves, bound.as_deref(), run, ready)?;
            continue;
        }
        // At least one, whatever a damaged branch says.
        for _ in 0..count.max(1) {
            let Some((key, value)) = run.peek() else { break };
            ready(pages)?;
            put_stored(pages, root, key, |_, _| Ok(value), &mut hint, None)?;
            run.step();
        }
    }
    Ok(())
}

/// The leaves below the lowest branch of a path, or the one that is the tree.
fn leaves_of<P: PageWrite>(pages: &P, path: &Path) -> Result<Vec<PagePtr>> {
    if path.len() == 1 {
        return Ok(vec![path.leaf().ptr]);
    }
    let branch = branch_at(pages, path.frame(path.len() - 2).ptr, 1)?;
    (0..branch.count()).map(|at| Ok(branch.child(at)?)).collect()
}

/// Builds the leaves of one branch anew, from their entries and those of the run below `bound`.
fn rebuild<P: PageWrite>(
    pages: &mut P,
    root: &mut TreeRoot,
    path: &mut Path,
    leaves: &[PagePtr],
    bound: Option<&[u8]>,
    run: &mut SortedRun,
    ready: &mut impl FnMut(&mut P) -> Result<()>,
) -> Result<()> {
    ready(pages)?;
    make_branches_dirty(pages, root, path)?;
    let mut stage = Stage::default();
    let (mut copy, mut added) = (Vec::new(), 0);
    for &ptr in leaves {
        copy.clear();
        copy.extend_from_slice(pages.page(ptr)?);
        let leaf = Leaf::parse(&copy, ptr.id)?;
        for at in 0..leaf.count() {
            let (key, value) = leaf.entry(at)?;
            added += stage_below(&mut stage, pages, root, Some(key), run, ready)?;
            match run.peek() {
                Some((same, newer)) if same == key => {
                    push(&mut stage, pages, root, same, newer, ready)?;
                    run.step();
                    if let LeafValue::Overflow(to) = value {
                        free_extent(pages, to)?;
                    }
                }
                _ => push(&mut stage, pages, root, key, value, ready)?,
            }
        }
    }
    added += stage_below(&mut stage, pages, root, bound, run, ready)?;
    match path.len() > 1 && stage.built.is_empty() {
        // A branch has two children at least, even where one leaf would hold everything.
        true => stage.build_two_leaves(pages, root.tree)?,
        false => stage.build_leaf(pages, root.tree)?,
    }
    // All at once, so that the tree that gets them next has neighbouring pages.
    leaves.iter().try_for_each(|&ptr| free_page(pages, ptr))?;
    root.entries = count_after(root, added)?;
    replace_children(pages, root, path, stage)
}

/// Stages the entries of the run below a bound; says how many.
fn stage_below<P: PageWrite>(
    stage: &mut Stage,
    pages: &mut P,
    root: &TreeRoot,
    bound: Option<&[u8]>,
    run: &mut SortedRun,
    ready: &mut impl FnMut(&mut P) -> Result<()>,
) -> Result<u64> {
    let mut count = 0;
    while let Some((key, value)) = run.peek() {
        if bound.is_some_and(|bound| key >= bound) {
            break;
        }
        push(stage, pages, root, key, value, ready)?;
        run.step();
        count += 1;
    }
    Ok(count)
}

fn push<P: PageWrite>(
    stage: &mut Stage,
    pages: &mut P,
    root: &TreeRoot,
    key: &[u8],
    value: LeafValue<'_>,
    ready: &mut impl FnMut(&mut P) -> Result<()>,
) -> Result<()> {
    if stage.is_full_for(leaf::entry_size(key.len(), value), pages.page_size()) {
        ready(pages)?;
        stage.build_leaf(pages, root.tree)?;
    }
    stage.add(key, value);
    Ok(())
}

/// Lets the tree have the leaves that were built in place of those of the lowest branch of the
/// path.
fn replace_children<P: PageWrite>(pages: &mut P, root: &mut TreeRoot, path: &Path, stage: Stage) -> Result<()> {
    let mut built = stage.built;
    let mut depth = path.len() - 1;
    match depth.checked_sub(1) {
        None => root.ptr = built.remove(0).ptr,
        Some(above) => {
            depth = above;
            built = build_branches(pages, root.tree, 1, Some(path.frame(above).ptr.id), built, None)?;
            built.remove(0);
        }
    }
    match built.is_empty() {
        true => Ok(()),
        false => propagate_split(pages, root, path, depth, built, Pattern::Random),
    }
}
