//! Moving entries of a full leaf to a neighbour with much room, so that no page is added.
//!
//! Floor: tree. With splits only, leaves that are filled at random are 69 % full; sharing with
//! neighbours that are hardly more than half full raises that a little for the price of a split
//! (the idea of B*-trees: Bayer, McCreight, "Organization and maintenance of large ordered
//! indices", 1972). Only dirty neighbours take part, so no more pages are written.
//!
//! Failure: as in `rebalance.rs`.

use crate::error::Result;
use crate::ids::PageId;
use crate::page::leaf::Leaf;
use crate::pager::PageWrite;

use crate::tree::edit::plan;
use crate::tree::edit::propagate::move_separator;
use crate::tree::edit::rebalance::choose_pair;
use crate::tree::edit::split::{build_leaf, entries_of, leaf_capacity, separator_at, sizes_of, Change};
use crate::tree::long_key::free_long;
use crate::tree::path::{leaf_at, Path};
use crate::tree::TreeMut;

/// Applies a change that found no room in the dirty leaf of the path: divides the entries of the
/// leaf and of a neighbour anew between the two. Returns the page and the index of the changed
/// entry; `None` if no neighbour has enough room. Afterwards the path may not lead to that entry.
pub(crate) fn redistribute<P: PageWrite>(
    tree: &mut TreeMut<'_, P>,
    path: &Path,
    change: &Change<'_>,
) -> Result<Option<(PageId, usize)>> {
    let Some(depth) = (path.len() - 1).checked_sub(1) else { return Ok(None) };
    let Some(pair) = choose_pair(tree.pages, path, depth + 1, |ptr| tree.pages.is_dirty(ptr.id))? else {
        return Ok(None);
    };
    let capacity = leaf_capacity(tree.pages.page_size());
    let neighbour = pair.neighbour();
    if !plan::has_room_to_share(leaf_at(tree.pages, neighbour)?.used_bytes(), capacity) {
        return Ok(None);
    }
    // Both pages are read from copies, because both are built anew from their entries.
    let (left, right) = (tree.pages.page(pair.left)?.to_vec(), tree.pages.page(pair.right)?.to_vec());
    let mut entries = entries_of(&Leaf::parse(&left, pair.left.id)?)?;
    let at = path.leaf().index() + if pair.own_is_left { 0 } else { entries.len() };
    entries.extend(entries_of(&Leaf::parse(&right, pair.right.id)?)?);
    change.apply(&mut entries, at);
    let Some(cut) = plan::leaf_cut(&sizes_of(&entries), capacity, None) else { return Ok(None) };
    build_leaf(tree, pair.left.id, &entries[..cut])?;
    build_leaf(tree, pair.right.id, &entries[cut..])?;
    let sep = separator_at(tree, &entries, cut)?;
    let old = move_separator(tree, path, depth, pair.left_at + 1, sep)?;
    free_long(tree.pages, old)?;
    Ok(Some(if at < cut { (pair.left.id, at) } else { (pair.right.id, at - cut) }))
}
