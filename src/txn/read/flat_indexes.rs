//! Flat indexes that the readers of one open database share.
//!
//! Floor: txn. Each reader slot caches its own tables, but a flat index may take megabytes, and
//! threads that use the same one share it in the processor's cache. So a reader that needs a flat
//! index looks here before it builds one. The references here are weak: a flat index is freed with
//! the last table that uses it.
//!
//! Invariants:
//!   SHARE-1  one thread builds at a time. The other threads search without a flat index meanwhile,
//!            and ask again later.
//!   SHARE-2  a shared flat index was built from the root of the caller, in the state of the
//!            caller.
//!
//! Failure: none. In a child after `fork` the lock may stay taken for ever. The child then searches
//! without flat indexes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, TryLockError, Weak};

use crate::hooks;
use crate::ids::TxnId;
use crate::page::meta::TreeRoot;
use crate::tree::FlatIndex;

/// A flat index is built from the state of this txn, this root, and at most so many pages.
type Source = (TxnId, TreeRoot, usize);

/// The flat indexes that were built, some of which may have been freed since.
#[derive(Debug, Default)]
struct BuiltIndexes {
    by_source: HashMap<Source, Weak<FlatIndex>>,
    /// `remove_freed` does nothing before the map has so many items.
    remove_at: usize,
}

impl BuiltIndexes {
    /// Removes freed flat indexes whenever the map has doubled. So each insertion pays for a
    /// constant number of removals.
    fn remove_freed(&mut self) {
        if self.by_source.len() < self.remove_at {
            return;
        }
        self.by_source.retain(|_, flat_index| {
            hooks::count_step();
            flat_index.strong_count() > 0
        });
        self.remove_at = (2 * self.by_source.len()).max(REMOVE_AT_MIN);
    }
}

/// Fewer items than this are not searched for freed flat indexes.
const REMOVE_AT_MIN: usize = 32;

/// The shared flat indexes of one open database.
#[derive(Debug, Default)]
pub(crate) struct FlatIndexes(Mutex<BuiltIndexes>);

impl FlatIndexes {
    /// Returns the flat index of a tree in the state of `txn`, of at most `pages_max` pages. If no
    /// thread has built it, `build` does. Returns `None` while another thread builds one, and
    /// `Some(None)` if the tree gains nothing by a flat index.
    pub(crate) fn get(
        &self,
        txn: TxnId,
        root: &TreeRoot,
        pages_max: usize,
        build: impl FnOnce() -> Option<FlatIndex>,
    ) -> Option<Option<Arc<FlatIndex>>> {
        let mut built = match self.0.try_lock() {
            Ok(built) => built,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        hooks::count_step();
        let source = (txn, *root, pages_max);
        if let Some(shared) = built.by_source.get(&source).and_then(Weak::upgrade) {
            return Some(Some(shared));
        }
        let flat_index = build().map(Arc::new);
        if let Some(flat_index) = &flat_index {
            built.remove_freed();
            built.by_source.insert(source, Arc::downgrade(flat_index));
        }
        Some(flat_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_index_is_built_once_for_a_state_and_by_one_thread_at_a_time() {
        let (flat_indexes, root) = (FlatIndexes::default(), TreeRoot::default());
        let other = TreeRoot { height: 2, ..root };
        let first = flat_indexes.get(TxnId(7), &root, 10, || Some(FlatIndex::default())).unwrap().unwrap();
        let again = flat_indexes.get(TxnId(7), &root, 10, || panic!("it was built before")).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        for (txn, root, pages_max) in [(8, &root, 10), (7, &other, 10), (7, &root, 11)] {
            let made = flat_indexes.get(TxnId(txn), root, pages_max, || Some(FlatIndex::default())).unwrap().unwrap();
            assert!(!Arc::ptr_eq(&first, &made));
        }
        flat_indexes.get(TxnId(9), &root, 10, || {
            assert!(flat_indexes.get(TxnId(7), &root, 10, || panic!("one at a time")).is_none());
            None
        });
        drop((first, again));
        let mut built = false;
        flat_indexes.get(TxnId(7), &root, 10, || {
            built = true;
            None
        });
        assert!(built, "it was freed with its last user");
    }

    #[test]
    fn the_steps_to_find_a_flat_index_do_not_grow_with_their_number() {
        let steps_each = |count: u64| {
            let (flat_indexes, before) = (FlatIndexes::default(), hooks::steps());
            let get = |tree| {
                flat_indexes.get(TxnId(tree % 7), &TreeRoot { entries: tree, ..TreeRoot::default() }, 10, || {
                    Some(FlatIndex::default())
                })
            };
            let held: Vec<_> = (0..count).chain(0..count).map(get).collect();
            drop(held);
            (0..count).for_each(|tree| drop(get(tree)));
            assert!(flat_indexes.0.lock().unwrap().by_source.len() as u64 <= count, "freed flat indexes are removed");
            (hooks::steps() - before) as f64 / count as f64
        };
        let (few, many) = (steps_each(1000), steps_each(20_000));
        assert!(many < 1.5 * few, "{few} steps each among few, {many} among many");
    }
}
