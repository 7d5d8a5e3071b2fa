//! What a walk asks of a leaf whose entries it does not search.
//!
//! Floor: page.
//!
//! Failure: none; bytes outside the page count as an entry with an overflow extent.

use super::{Leaf, INLINE, TREE};
use crate::ids::TxnId;
use crate::page::header;
use crate::page::layout::{get_u16, HEAD_BYTES, KEY_BYTES_BITS, LEAF_HEADS, SLOT_BYTES, VALUE_KIND_BIT};
use crate::sys::prefetch;

impl<'a> Leaf<'a> {
    /// The transaction that wrote the page.
    pub(crate) fn born(&self) -> TxnId {
        header::page_txn(self.page)
    }

    /// The slots of all entries.
    fn slots(&self) -> impl Iterator<Item = usize> + 'a {
        let start = LEAF_HEADS + HEAD_BYTES * self.count;
        let slots = self.page.get(start..start + SLOT_BYTES * self.count).unwrap_or(&[]);
        slots.chunks_exact(SLOT_BYTES).map(|slot| usize::from(get_u16(slot, 0)))
    }

    /// Prefetches the header of every entry into the CPU cache.
    #[inline]
    pub(crate) fn fetch_entry_headers(&self) {
        self.slots().filter_map(|slot| self.page.get(slot)).for_each(prefetch::value);
    }

    /// Whether every entry has a short key, and a value of the kind that lies in the leaf: no entry
    /// has an overflow extent. Reads only the slots and the first word of each entry. An entry
    /// outside the page counts as another kind.
    pub(crate) fn has_no_extents(&self) -> bool {
        let word = |slot: usize| self.page.get(slot..).and_then(|entry| entry.first_chunk::<2>());
        let kinds = |word: Option<&[u8; 2]>| word.map_or(u16::MAX, |word| u16::from_le_bytes(*word)) >> KEY_BYTES_BITS;
        self.slots().fold(0, |all, slot| all | kinds(word(slot))) == INLINE
    }

    /// Whether an entry has a value tree. Reads only the slots and the first word of each entry.
    pub(crate) fn has_value_trees(&self) -> bool {
        let word = |slot: usize| self.page.get(slot..).and_then(|entry| entry.first_chunk::<2>());
        let is_tree = |word: &[u8; 2]| u16::from_le_bytes(*word) >> VALUE_KIND_BIT == TREE;
        self.slots().any(|slot| word(slot).is_some_and(is_tree))
    }
}
