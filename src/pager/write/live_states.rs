//! Which states may still be needed, and so whether a freed page may be allocated again (rule R5).
//!
//! Floor: pager. `txn::env::Env::live_states` collects the states when a write transaction begins;
//! `txn::free::free_tree` asks for each pending extent.
//!
//! Failure: none.

use crate::ids::TxnId;

/// The states that may still be needed. They decide whether a freed page may be allocated again
/// (rule R5).
#[derive(Clone, Debug, Default)]
pub(crate) struct LiveStates {
    /// Sorted, distinct txn ids of the snapshots, the state of the durable meta page, the pinned
    /// state, the state of a meta page in doubt, and the published state.
    states: Vec<TxnId>,
    /// The same without the published state, unless it is also one of the other kinds.
    others: Vec<TxnId>,
    /// All states from the published one to the latest one are needed too, because a checkpoint may
    /// make any of them durable (P7).
    published: TxnId,
    /// It is not known which states are needed: every pending page counts as reached.
    keeps_all: bool,
}

impl LiveStates {
    /// `others` are the states of `states` without the published one.
    pub(crate) fn new(mut others: Vec<TxnId>, published: TxnId) -> LiveStates {
        others.sort_unstable();
        others.dedup();
        let mut states = others.clone();
        if let Err(index) = states.binary_search(&published) {
            states.insert(index, published);
        }
        LiveStates { states, others, published, keeps_all: false }
    }

    /// From now on counts every pending page as reached: some states that are needed are not known.
    pub(crate) fn keep_all(&mut self) {
        self.keeps_all = true;
    }

    /// Whether a state besides the published one reaches such a page. If none does, the page can
    /// be used again as soon as the transaction that freed it is published.
    pub(crate) fn stays_reached(&self, born: TxnId, freed: TxnId) -> bool {
        let first = self.others.partition_point(|&state| state < born);
        self.keeps_all || self.others.get(first).is_some_and(|&state| state < freed)
    }

    /// Whether a live state reaches a page that transaction `born` wrote and transaction `freed`
    /// freed: `born <= state < freed`. Also true if `freed` is after the published state (P7).
    pub(crate) fn reach(&self, born: TxnId, freed: TxnId) -> bool {
        let first = self.states.partition_point(|&state| state < born);
        let is_needed = self.states.get(first).is_some_and(|&state| state < freed);
        is_needed || freed > self.published || self.keeps_all
    }

    /// Whether `state` is live.
    pub(crate) fn contains(&self, state: TxnId) -> bool {
        self.states.binary_search(&state).is_ok()
    }

    /// The live states before `freed`, ascending. `None` if `freed` is after the published state:
    /// then new states before it may still become live (P7). `None` also if not all are known.
    pub(crate) fn all_before(&self, freed: TxnId) -> Option<&[TxnId]> {
        let before = self.states.partition_point(|&state| state < freed);
        (freed <= self.published && !self.keeps_all).then(|| &self.states[..before])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_from_the_birth_of_a_page_to_its_freeing_reach_it() {
        let live = LiveStates::new(vec![TxnId(30), TxnId(5), TxnId(20)], TxnId(30));
        assert!(live.reach(TxnId(3), TxnId(6)));
        assert!(!live.reach(TxnId(6), TxnId(20)));
        assert!(live.reach(TxnId(6), TxnId(21)));
        assert!(!live.reach(TxnId(21), TxnId(30)));
        assert_eq!(live.all_before(TxnId(20)), Some(&[TxnId(5)][..]));
        assert_eq!(live.all_before(TxnId(21)), Some(&[TxnId(5), TxnId(20)][..]));
        assert_eq!(live.all_before(TxnId(31)), None);
        assert!(live.contains(TxnId(20)) && !live.contains(TxnId(21)));
        // A checkpoint may be writing any state between the published and the latest one, so pages
        // that they reach stay pending.
        assert!(live.reach(TxnId(31), TxnId(32)));
    }

    #[test]
    fn every_pending_page_counts_as_reached_if_not_all_states_are_known() {
        let mut live = LiveStates::new(vec![TxnId(5)], TxnId(30));
        assert!(!live.reach(TxnId(6), TxnId(20)) && !live.stays_reached(TxnId(6), TxnId(20)));
        live.keep_all();
        assert!(live.reach(TxnId(6), TxnId(20)) && live.stays_reached(TxnId(6), TxnId(20)));
        assert_eq!(live.all_before(TxnId(20)), None);
    }
}
