//! Lookups in a multimap: the values of a key, how many, and whether one of them is a given one.
//!
//! Floor: tree.
//!
//! Failure: damage on the path is `Error::Corrupt`.

use std::ops::Bound;

use crate::error::Result;
use crate::page::leaf::LeafValue;
use crate::page::value_set::ValueSet;
use crate::pager::PageRead;

use crate::tree::long_key::whole;
use crate::tree::path::{leaf_at, Path, Side};
use crate::tree::values::pairs::OfKey;
use crate::tree::values::range::ValueRange;
use crate::tree::values::stored::{count_of, root_of, single_value, ValueLeaf};
use crate::tree::{Tree, TreeRoot};

impl<'p, P: PageRead> Tree<'p, P> {
    /// What the entry of a key stores.
    pub(crate) fn stored_of(self, key: &[u8]) -> Result<Option<LeafValue<'p>>> {
        Ok(self.entry_of(key)?.map(|(_, stored)| stored))
    }

    /// The entry of a key.
    fn entry_of(self, key: &[u8]) -> Result<Option<(&'p [u8], LeafValue<'p>)>> {
        if self.is_empty() {
            return Ok(None);
        }
        let leaf = leaf_at(self.pages, self.leaf_of(key)?)?;
        match leaf.find_in(self.root.order, self.pages, key)? {
            Some(at) => {
                let (key, value) = leaf.entry(at)?;
                Ok(Some((whole(self.pages, key)?, value)))
            }
            None => Ok(None),
        }
    }

    /// The values of a key between two bounds, with the key as it lies in its page. Without values
    /// the key is empty.
    pub(crate) fn values_of(self, key: &[u8], low: Bound<Vec<u8>>, high: Bound<Vec<u8>>) -> Result<OfKey<'p, P>> {
        match self.entry_of(key)? {
            Some((key, stored)) => Ok((key, ValueRange::of(self.pages, self.root, stored, low, high)?)),
            None => Ok((&[], ValueRange::none())),
        }
    }

    /// Number of values of a key.
    pub(crate) fn value_count(self, key: &[u8]) -> Result<u64> {
        match self.stored_of(key)? {
            Some(stored) => count_of(self.root.shape, &stored),
            None => Ok(0),
        }
    }

    /// Whether a key has a value.
    pub(crate) fn has_value(self, key: &[u8], value: &[u8]) -> Result<bool> {
        match self.stored_of(key)? {
            Some(LeafValue::Set(bytes)) => Ok(ValueSet::new(bytes, self.root.shape).search(value).1),
            Some(LeafValue::Tree(to)) => tree_has(self.pages, &root_of(self.root, &to), value),
            Some(_) => Err(single_value(self.root.ptr.id)),
            None => Ok(false),
        }
    }

    /// The pair at one end.
    pub(crate) fn outermost_pair(self, side: Side) -> Result<Option<(&'p [u8], &'p [u8])>> {
        let mut pairs = crate::tree::Pairs::new(self, Bound::Unbounded, Bound::Unbounded);
        match side {
            Side::First => pairs.next(),
            Side::Last => pairs.next_back(),
        }
        .transpose()
    }
}

/// Whether a value tree has a value.
pub(crate) fn tree_has<P: PageRead>(pages: &P, root: &TreeRoot, value: &[u8]) -> Result<bool> {
    let ptr = Path::new().descend_above(Tree::new(pages, root), value)?;
    Ok(ValueLeaf::at(pages, ptr, root.shape)?.search(value)?.1)
}
