//! Many pairs in ascending order, put after the last key of a multimap.
//!
//! Floor: tree. The values of one key are collected until the next key comes; then the entry is
//! pushed to the leaves that `load/bulk.rs` builds. Values that are too many for a value set go
//! into full leaves of a value tree as they come. Such a tree is sealed before its entry is pushed,
//! because the leaf that gets the entry may be written through.
//!
//! Failure: an error leaves a tree that must be aborted with its transaction.

use crate::error::{Error, Result};
use crate::limits::max_inline_value_bytes;
use crate::page::branch::Child;
use crate::page::header::PageStamp;
use crate::page::leaf::LeafValue;
use crate::page::packed::{capacity, PackedMut};
use crate::page::value_set::set_of;
use crate::pager::{PageRead, PageWrite};

use crate::tree::edit::plan::{self, Pattern};
use crate::tree::edit::propagate::propagate_split;
use crate::tree::edit::seal::seal;
use crate::tree::load::bulk::Bulk;
use crate::tree::path::{make_branches_dirty, Path, Side};
use crate::tree::values::insert::pairs_after;
use crate::tree::values::stored::{empty_root, stored_tree};
use crate::tree::{Tree, TreeMut, TreeRoot};

/// Packed leaves that are inserted into their parents at once.
const PROPAGATE_LEAVES: usize = 64;

/// Pairs that go after the last key of a multimap.
#[derive(Debug)]
pub(crate) struct PairsBulk {
    bulk: Bulk,
    /// The key whose values are being collected.
    key: Option<Vec<u8>>,
    /// Its values, one after the other, and where each ends.
    values: Vec<u8>,
    ends: Vec<usize>,
    /// Its value tree, if it has too many values for a set.
    tree: Option<TreeBuilder>,
    /// Pairs that the table does not count yet.
    pairs: u64,
}

impl PairsBulk {
    /// Begins after the last key of a table.
    pub(crate) fn begin<P: PageRead>(tree: Tree<'_, P>) -> Result<PairsBulk> {
        let bulk = Bulk::begin(tree)?;
        Ok(PairsBulk { bulk, key: None, values: Vec::new(), ends: Vec::new(), tree: None, pairs: 0 })
    }

    /// Whether a pair comes after all before.
    pub(crate) fn takes<P: PageRead>(&self, tree: Tree<'_, P>, key: &[u8], value: &[u8]) -> Result<bool> {
        match &self.key {
            Some(last) if last.as_slice() == key => Ok(self.last_value().is_none_or(|last| last < value)),
            Some(last) => Ok(last.as_slice() < key),
            None => self.bulk.is_after_all(tree, key),
        }
    }

    fn last_value(&self) -> Option<&[u8]> {
        let (last, before) = (self.ends.len().checked_sub(1)?, self.ends.len().checked_sub(2));
        self.values.get(before.map_or(0, |before| self.ends[before])..self.ends[last])
    }

    /// Adds a pair that it [takes](PairsBulk::takes), within the limits.
    pub(crate) fn push<P: PageWrite>(&mut self, mut tree: TreeMut<'_, P>, key: &[u8], value: &[u8]) -> Result<()> {
        if self.key.as_deref() != Some(key) {
            self.end_key(tree.reborrow())?;
            self.key = Some(key.to_vec());
        }
        let (shape, limit) = (tree.root.shape, max_inline_value_bytes(tree.pages.page_size()));
        let each = shape.bytes_in_set(0);
        let in_set = shape.set_header_bytes() + self.values.len() + value.len() + each * (self.ends.len() + 1);
        if let Some(builder) = &mut self.tree {
            builder.push(tree.pages, value)?;
            // Only the last one is compared.
            self.values.clear();
            self.ends.clear();
        } else if in_set > limit {
            let mut builder = TreeBuilder::new(tree.pages, empty_root(tree.root))?;
            for_each(&self.values, &self.ends, |value| builder.push(tree.pages, value))?;
            builder.push(tree.pages, value)?;
            self.tree = Some(builder);
            self.values.clear();
            self.ends.clear();
        }
        self.values.extend_from_slice(value);
        self.ends.push(self.values.len());
        self.pairs += 1;
        Ok(())
    }

    /// Stores the entry of the key whose values were collected.
    fn end_key<P: PageWrite>(&mut self, tree: TreeMut<'_, P>) -> Result<()> {
        let Some(key) = self.key.take() else { return Ok(()) };
        let shape = tree.root.shape;
        match self.tree.take() {
            Some(builder) => {
                let root = builder.finish(tree.pages)?;
                self.bulk.push(tree, &key, stored_tree(&root))?;
            }
            None => {
                let mut values = Vec::with_capacity(self.ends.len());
                for_each(&self.values, &self.ends, |value| {
                    values.push(value);
                    Ok(())
                })?;
                let set = set_of(shape, values.into_iter());
                self.bulk.push(tree, &key, LeafValue::Set(&set))?;
            }
        }
        self.values.clear();
        self.ends.clear();
        Ok(())
    }

    /// Puts all pairs into the table.
    pub(crate) fn finish<P: PageWrite>(&mut self, mut tree: TreeMut<'_, P>) -> Result<()> {
        let pairs = pairs_after(tree.root, std::mem::take(&mut self.pairs))?;
        self.end_key(tree.reborrow())?;
        self.bulk.finish(tree.reborrow())?;
        tree.root.pairs = pairs;
        Ok(())
    }
}

/// Calls `each` for every value.
fn for_each<'v>(values: &'v [u8], ends: &[usize], mut each: impl FnMut(&'v [u8]) -> Result<()>) -> Result<()> {
    let mut start = 0;
    for &end in ends {
        each(&values[start..end])?;
        start = end;
    }
    Ok(())
}

/// Builds a value tree from ascending values.
#[derive(Debug)]
struct TreeBuilder {
    root: TreeRoot,
    leaves: Leaves,
}

#[derive(Debug)]
enum Leaves {
    Keyed(Bulk),
    /// Values of the next leaf, the last value before them, and leaves that wait for their
    /// parents.
    Packed {
        width: usize,
        values: Vec<u8>,
        last: Vec<u8>,
        built: Vec<Child>,
    },
}

impl TreeBuilder {
    fn new<P: PageWrite>(pages: &P, root: TreeRoot) -> Result<TreeBuilder> {
        let leaves = match root.shape.width() {
            Some(width) => Leaves::Packed { width, values: Vec::new(), last: Vec::new(), built: Vec::new() },
            None => Leaves::Keyed(Bulk::begin(Tree::new(pages, &root))?),
        };
        Ok(TreeBuilder { root, leaves })
    }

    fn push<P: PageWrite>(&mut self, pages: &mut P, value: &[u8]) -> Result<()> {
        match &mut self.leaves {
            Leaves::Keyed(bulk) => bulk.push(TreeMut::new(pages, &mut self.root), value, LeafValue::Inline(b"")),
            Leaves::Packed { width, values, .. } => {
                let is_full = values.len() / *width >= capacity(pages.page_size(), *width);
                if is_full {
                    self.build_leaf(pages)?;
                }
                if let Leaves::Packed { values, .. } = &mut self.leaves {
                    values.extend_from_slice(value);
                }
                Ok(())
            }
        }
    }

    fn build_leaf<P: PageWrite>(&mut self, pages: &mut P) -> Result<()> {
        let Leaves::Packed { width, values, last, built } = &mut self.leaves else { return Ok(()) };
        let (tree, txn, width) = (self.root.tree, pages.txn(), *width);
        let ptr = pages.write_new(|page, id| {
            let fitted = PackedMut::init(page, PageStamp::new(id, tree, txn), width).insert(0, values)?;
            assert!(fitted, "as many values were collected as fit");
            Ok(())
        })?;
        let first = values.get(..width).unwrap_or(&[]);
        let sep = if self.root.entries == 0 { Vec::new() } else { plan::separator(last, first).to_vec() };
        built.push(Child { sep: sep.into(), ptr });
        self.root.entries += (values.len() / width) as u64;
        last.clear();
        last.extend_from_slice(&values[values.len() - width..]);
        values.clear();
        if built.len() >= PROPAGATE_LEAVES {
            self.propagate_built(pages)?;
        }
        Ok(())
    }

    /// Puts the built leaves after the last leaf of the tree.
    fn propagate_built<P: PageWrite>(&mut self, pages: &mut P) -> Result<()> {
        let Leaves::Packed { built, .. } = &mut self.leaves else { return Ok(()) };
        let mut built = std::mem::take(built);
        let mut tree = TreeMut::new(pages, &mut self.root);
        if tree.is_empty() && !built.is_empty() {
            (tree.root.ptr, tree.root.height) = (built.remove(0).ptr, 1);
        }
        if built.is_empty() {
            return Ok(());
        }
        let mut path = Path::new();
        path.descend_above_to(tree.as_tree(), Side::Last)?;
        make_branches_dirty(&mut tree, &mut path)?;
        propagate_split(&mut tree, &path, path.len() - 1, built, Pattern::Ascending)
    }

    /// Puts all values into the tree, and returns its root.
    fn finish<P: PageWrite>(mut self, pages: &mut P) -> Result<TreeRoot> {
        if let Leaves::Keyed(bulk) = &mut self.leaves {
            bulk.finish(TreeMut::new(pages, &mut self.root))?;
        } else {
            self.build_leaf(pages)?;
            self.propagate_built(pages)?;
        }
        if self.root.height == 0 {
            return Err(Error::corrupt(self.root.ptr.id, "a value tree was built without values"));
        }
        // The leaf of the table is sealed when it is built, with the checksum of this root in it.
        seal(pages, &mut self.root)?;
        Ok(self.root)
    }
}
