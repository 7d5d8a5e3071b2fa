//! The flat indexes of trees that the readers of one open database have made.
//!
//! Floor: txn. Each reader slot keeps its tables for itself, but a top may take megabytes, and what
//! is in the cache for one thread is there for the others: so a transaction that wants one looks
//! here first. Here nothing is held: a top goes with the last table that uses it.
//!
//! Invariants:
//!   SHARE-1  one thread makes a top at a time. The others go on without meanwhile, and ask again.
//!   SHARE-2  a top that is given was made of the same root in the same state.
//!
//! Failure: none. A child after `fork` may find the lock taken for ever, and does without tops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, TryLockError, Weak};

use crate::hooks;
use crate::ids::TxnId;
use crate::page::meta::TreeRoot;
use crate::tree::FlatIndex;

/// What a top was made of: state, root, and pages at most.
type Of = (TxnId, TreeRoot, usize);

/// Tops that were made.
#[derive(Debug, Default)]
struct Made {
    flat_indexes: HashMap<Of, Weak<FlatIndex>>,
    /// Those that are gone are forgotten when there are so many.
    forget_at: usize,
}

impl Made {
    /// Forgets the tops that are gone, when that costs no more than making those has.
    fn forget_gone(&mut self) {
        if self.flat_indexes.len() < self.forget_at {
            return;
        }
        self.flat_indexes.retain(|_, flat_index| {
            hooks::count_step();
            flat_index.strong_count() > 0
        });
        self.forget_at = (2 * self.flat_indexes.len()).max(FORGET_FROM);
    }
}

/// Tops of which some may be gone at least.
const FORGET_FROM: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct FlatIndexes(Mutex<Made>);

impl FlatIndexes {
    /// The top of at most `pages_max` pages of a tree in the state `txn`, made by `make` if nobody
    /// has. `None`: another thread is making one. `Some(None)`: it is not worth making.
    pub(crate) fn get(
        &self,
        txn: TxnId,
        root: &TreeRoot,
        pages_max: usize,
        make: impl FnOnce() -> Option<FlatIndex>,
    ) -> Option<Option<Arc<FlatIndex>>> {
        let mut all = match self.0.try_lock() {
            Ok(all) => all,
            Err(TryLockError::Poisoned(left)) => left.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        hooks::count_step();
        let of = (txn, *root, pages_max);
        if let Some(found) = all.flat_indexes.get(&of).and_then(Weak::upgrade) {
            return Some(Some(found));
        }
        let flat_index = make().map(Arc::new);
        if let Some(flat_index) = &flat_index {
            all.forget_gone();
            all.flat_indexes.insert(of, Arc::downgrade(flat_index));
        }
        Some(flat_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_index_is_made_once_for_a_state_and_by_one_thread_at_a_time() {
        let (flat_indexes, root) = (FlatIndexes::default(), TreeRoot::default());
        let other = TreeRoot { height: 2, ..root };
        let first = flat_indexes.get(TxnId(7), &root, 10, || Some(FlatIndex::default())).unwrap().unwrap();
        let again = flat_indexes.get(TxnId(7), &root, 10, || panic!("it is there")).unwrap().unwrap();
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
        let mut made = false;
        flat_indexes.get(TxnId(7), &root, 10, || {
            made = true;
            None
        });
        assert!(made, "it went with those who used it");
    }

    #[test]
    fn a_flat_index_is_found_in_as_many_steps_among_many_as_among_few() {
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
            assert!(
                flat_indexes.0.lock().unwrap().flat_indexes.len() as u64 <= count,
                "those that are gone are forgotten"
            );
            (hooks::steps() - before) as f64 / count as f64
        };
        let (few, many) = (steps_each(1000), steps_each(20_000));
        assert!(many < 1.5 * few, "{few} steps each among few, {many} among many");
    }
}
