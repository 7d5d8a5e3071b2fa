//! The flat tops of trees that the readers of one open database have made.
//!
//! Floor: txn. Each reader slot keeps its tables for itself, but a top may take megabytes, and what is in the cache for one
//! thread is there for the others: so whoever wants one looks here first. Here nothing is held: a top goes with the last
//! table that uses it.
//!
//! Invariants:
//!   T1  one thread makes a top at a time. The others go on without meanwhile, and ask again.
//!   T2  a top that is given was made of the same root in the same state.
//!
//! Failure: none. A child after `fork` may find the lock taken for ever, and does without tops.

use std::sync::{Arc, Mutex, TryLockError, Weak};

use crate::ids::TxnId;
use crate::page::meta::TreeRoot;
use crate::tree::Top;

/// A top that was made, and of what.
#[derive(Debug)]
struct Made {
    txn: TxnId,
    root: TreeRoot,
    pages_max: usize,
    top: Weak<Top>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tops(Mutex<Vec<Made>>);

impl Tops {
    /// The top of at most `pages_max` pages of a tree in the state `txn`, made by `make` if nobody has. `None`: somebody is
    /// making one. `Some(None)`: it is not worth making.
    pub(crate) fn get(
        &self,
        txn: TxnId,
        root: &TreeRoot,
        pages_max: usize,
        make: impl FnOnce() -> Option<Top>,
    ) -> Option<Option<Arc<Top>>> {
        let mut all = match self.0.try_lock() {
            Ok(all) => all,
            Err(TryLockError::Poisoned(left)) => left.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        all.retain(|made| made.top.strong_count() > 0);
        let wanted = |made: &&Made| made.txn == txn && made.root == *root && made.pages_max == pages_max;
        if let Some(found) = all.iter().find(wanted).and_then(|made| made.top.upgrade()) {
            return Some(Some(found));
        }
        let top = make().map(Arc::new);
        if let Some(top) = &top {
            all.push(Made { txn, root: *root, pages_max, top: Arc::downgrade(top) });
        }
        Some(top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_top_is_made_once_for_a_state_and_by_one_thread_at_a_time() {
        let (tops, root) = (Tops::default(), TreeRoot::default());
        let other = TreeRoot { height: 2, ..root };
        let first = tops.get(TxnId(7), &root, 10, || Some(Top::default())).unwrap().unwrap();
        let again = tops.get(TxnId(7), &root, 10, || panic!("it is there")).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        for (txn, root, pages_max) in [(8, &root, 10), (7, &other, 10), (7, &root, 11)] {
            let made = tops.get(TxnId(txn), root, pages_max, || Some(Top::default())).unwrap().unwrap();
            assert!(!Arc::ptr_eq(&first, &made));
        }
        tops.get(TxnId(9), &root, 10, || {
            assert!(tops.get(TxnId(7), &root, 10, || panic!("one at a time")).is_none());
            None
        });
        drop((first, again));
        let mut made = false;
        tops.get(TxnId(7), &root, 10, || {
            made = true;
            None
        });
        assert!(made, "it went with those who used it");
    }
}
