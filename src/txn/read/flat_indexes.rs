//! Flat indexes that the readers of one open database share.
//!
//! Floor: txn. Each reader slot caches its own tables, but a flat index may take megabytes, and
//! threads that use the same one share it in the processor's cache. So a reader that needs a flat
//! index looks here before it builds one. The references here are weak: a flat index is freed with
//! the last table that uses it. Only the newest one of the leaves of a table is kept, for some
//! tables: readers of the next state renew it, which takes far less time than building one.
//!
//! All flat indexes together take no more memory than [`FlatIndexes::limit`], but for those of
//! older states that readers still use.
//!
//! Small flat indexes are built by the reader that needs them, large ones by a thread of their own
//! (`index_builder`).
//!
//! Invariants:
//!   SHARE-1  one thread builds at a time. The other readers search without a flat index meanwhile,
//!            and ask again later.
//!   SHARE-2  a shared flat index was built from the root of the caller, in the state of the
//!            caller.
//!
//! Failure: none. In a child after `fork` the lock may stay taken for ever. The child then searches
//! without flat indexes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use crate::hooks;
use crate::ids::{TreeId, TxnId};
use crate::page::meta::TreeRoot;
use crate::tree::{FlatIndex, BYTES_PER_PAGE};
use crate::txn::read::index_builder::IndexBuilder;

/// A flat index is built from the state of this txn, this root, and at most so many pages.
pub(super) type Source = (TxnId, TreeRoot, usize);

/// The flat indexes that were built, some of which may have been freed since.
#[derive(Debug, Default)]
pub(super) struct BuiltIndexes {
    /// `None`: the tree gains nothing by a flat index.
    by_source: HashMap<Source, Option<Weak<FlatIndex>>>,
    /// The newest flat index of the leaves of some tables, the one used last at the end.
    newest: Vec<Newest>,
    /// `remove_freed` does nothing before the map has so many items.
    remove_at: usize,
}

/// The flat index of the leaves of a table, in the state of this txn.
#[derive(Debug)]
struct Newest {
    tree: TreeId,
    txn: TxnId,
    flat_index: Arc<FlatIndex>,
}

/// Tables of which the newest flat index is kept.
const NEWEST_MAX: usize = 8;

impl BuiltIndexes {
    /// The newest flat index of the leaves of a table, with the txn of its state.
    pub(super) fn newest(&self, tree: TreeId) -> Option<(TxnId, Arc<FlatIndex>)> {
        let newest = self.newest.iter().find(|newest| newest.tree == tree)?;
        Some((newest.txn, Arc::clone(&newest.flat_index)))
    }

    /// Keeps a flat index of the leaves of a table, unless there is one of a later state.
    fn keep(&mut self, tree: TreeId, txn: TxnId, flat_index: &Arc<FlatIndex>) {
        if flat_index.level() > 0 || self.newest.iter().any(|newest| newest.tree == tree && newest.txn > txn) {
            return;
        }
        self.newest.retain(|newest| newest.tree != tree);
        if self.newest.len() == NEWEST_MAX {
            self.newest.remove(0);
        }
        self.newest.push(Newest { tree, txn, flat_index: Arc::clone(flat_index) });
    }

    /// What is known of the flat index of this source, as [`FlatIndexes::get`] returns it.
    fn find(&self, source: &Source) -> Option<Option<Arc<FlatIndex>>> {
        match self.by_source.get(source)? {
            Some(flat_index) => flat_index.upgrade().map(Some),
            None => Some(None),
        }
    }

    /// Removes freed flat indexes whenever the map has doubled. So each insertion pays for a
    /// constant number of removals.
    fn remove_freed(&mut self) {
        if self.by_source.len() < self.remove_at {
            return;
        }
        self.by_source.retain(|_, flat_index| {
            hooks::count_step();
            flat_index.as_ref().is_some_and(|flat_index| flat_index.strong_count() > 0)
        });
        self.remove_at = (2 * self.by_source.len()).max(REMOVE_AT_MIN);
    }
}

/// Fewer items than this are not searched for freed flat indexes.
const REMOVE_AT_MIN: usize = 32;

/// The shared flat indexes of one open database.
#[derive(Debug, Default)]
pub(crate) struct FlatIndexes {
    built: Mutex<BuiltIndexes>,
    /// Bytes that all of them take.
    used: Arc<AtomicUsize>,
    /// The option, if it was given.
    limit: Option<u64>,
    pub(crate) builder: IndexBuilder,
}

/// The part of a file that flat indexes may take by default, and the least.
const LIMIT_ONE_OF: u64 = 200;
const LIMIT_MIN: u64 = 1 << 20;

impl FlatIndexes {
    /// Flat indexes that take so many bytes together; `None`: a part of the file.
    pub(crate) fn new(limit: Option<u64>) -> FlatIndexes {
        FlatIndexes { limit, ..FlatIndexes::default() }
    }

    /// The bytes that flat indexes may take in a file of so many bytes.
    fn limit(&self, file_bytes: u64) -> u64 {
        self.limit.unwrap_or((file_bytes / LIMIT_ONE_OF).max(LIMIT_MIN))
    }

    /// The bytes that all flat indexes take now.
    pub(crate) fn bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many pages another flat index may have, if `replaced` bytes will be freed.
    pub(crate) fn pages_left(&self, file_bytes: u64, replaced: usize) -> usize {
        let used = self.bytes().saturating_sub(replaced) as u64;
        (self.limit(file_bytes).saturating_sub(used) / BYTES_PER_PAGE as u64) as usize
    }

    /// The lock, unless another thread builds.
    fn try_built(&self) -> Option<MutexGuard<'_, BuiltIndexes>> {
        match self.built.try_lock() {
            Ok(built) => Some(built),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The lock, after other threads have built.
    pub(super) fn lock(&self) -> MutexGuard<'_, BuiltIndexes> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest flat index of the leaves of a table, with the txn of its state. `None` also while
    /// another thread builds.
    pub(crate) fn newest(&self, tree: TreeId) -> Option<(TxnId, Arc<FlatIndex>)> {
        self.try_built()?.newest(tree)
    }

    /// The flat index of a tree in the state of `txn`, of at most `pages_max` pages, if it was
    /// built; `Some(None)` if the tree gains nothing by one. `None` also while another thread
    /// builds.
    pub(crate) fn find(&self, txn: TxnId, root: &TreeRoot, pages_max: usize) -> Option<Option<Arc<FlatIndex>>> {
        self.try_built()?.find(&(txn, *root, pages_max))
    }

    /// As [`FlatIndexes::find`]. If no thread has built the flat index, `build` does. `build`
    /// returns `None` if another attempt may succeed.
    pub(crate) fn get(
        &self,
        txn: TxnId,
        root: &TreeRoot,
        pages_max: usize,
        build: impl FnOnce() -> Option<Option<FlatIndex>>,
    ) -> Option<Option<Arc<FlatIndex>>> {
        let mut built = self.try_built()?;
        self.get_locked(&mut built, (txn, *root, pages_max), build)
    }

    /// [`FlatIndexes::get`] under the lock.
    pub(super) fn get_locked(
        &self,
        built: &mut BuiltIndexes,
        source: Source,
        build: impl FnOnce() -> Option<Option<FlatIndex>>,
    ) -> Option<Option<Arc<FlatIndex>>> {
        hooks::count_step();
        if let Some(shared) = built.find(&source) {
            return Some(shared);
        }
        let flat_index = build()?.map(|mut flat_index| {
            flat_index.charge(&self.used);
            Arc::new(flat_index)
        });
        built.remove_freed();
        built.by_source.insert(source, flat_index.as_ref().map(Arc::downgrade));
        if let Some(flat_index) = &flat_index {
            built.keep(source.1.tree, source.0, flat_index);
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
        let first = flat_indexes.get(TxnId(7), &root, 10, || Some(Some(FlatIndex::default()))).unwrap().unwrap();
        let again = flat_indexes.get(TxnId(7), &root, 10, || panic!("it was built before")).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        for (txn, root, pages_max) in [(8, &root, 10), (7, &other, 10), (7, &root, 11)] {
            let made =
                flat_indexes.get(TxnId(txn), root, pages_max, || Some(Some(FlatIndex::default()))).unwrap().unwrap();
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
                    Some(Some(FlatIndex::default()))
                })
            };
            let held: Vec<_> = (0..count).chain(0..count).map(get).collect();
            drop(held);
            (0..count).for_each(|tree| drop(get(tree)));
            assert!(
                flat_indexes.built.lock().unwrap().by_source.len() as u64 <= count,
                "freed flat indexes are removed"
            );
            (hooks::steps() - before) as f64 / count as f64
        };
        let (few, many) = (steps_each(1000), steps_each(20_000));
        assert!(many < 1.5 * few, "{few} steps each among few, {many} among many");
    }
}
