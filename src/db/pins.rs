//! Counts the pending pages that each state keeps from being used again.
//!
//! Floor: db. A page that transaction `born` wrote and transaction `freed` freed is reached by the
//! states from `born` on and before `freed` (rule R5). The costs of a page do not depend on the
//! number of states.
//!
//! Failure: none. An extent whose `freed` is not after its `born` counts as reached by no state.

use crate::ids::TxnId;
use crate::page::free_list::FreeItem;

/// Counts pending pages for each of some states.
pub(crate) struct PinCount {
    /// Ascending, and distinct.
    states: Vec<TxnId>,
    /// At the index of a state: pages whose first state it is, and pages that no state from it on
    /// reaches any more.
    begin: Vec<u64>,
    end: Vec<u64>,
    only: Vec<u64>,
    unpinned: u64,
}

/// Pending pages by the states that reach them.
pub(crate) struct Pinned {
    states: Vec<TxnId>,
    reached: Vec<u64>,
    only: Vec<u64>,
    /// Pages that none of the states reaches.
    pub(crate) unpinned: u64,
}

impl PinCount {
    /// Counts for these states.
    pub(crate) fn new(mut states: Vec<TxnId>) -> PinCount {
        states.sort_unstable();
        states.dedup();
        let none = vec![0; states.len() + 1];
        PinCount { states, begin: none.clone(), end: none.clone(), only: none, unpinned: 0 }
    }

    /// Counts an extent.
    pub(crate) fn add(&mut self, item: &FreeItem) {
        let first = self.states.partition_point(|&state| state < item.born);
        let end = self.states.partition_point(|&state| state < item.freed);
        if first >= end {
            self.unpinned += item.pages;
            return;
        }
        self.begin[first] += item.pages;
        self.end[end] += item.pages;
        if end - first == 1 {
            self.only[first] += item.pages;
        }
    }

    /// The counts of all extents that were added.
    pub(crate) fn finish(self) -> Pinned {
        let change = self.begin.iter().zip(&self.end);
        let reached = change.scan(0, |now: &mut u64, (begin, end)| {
            *now = *now + begin - end;
            Some(*now)
        });
        Pinned { reached: reached.collect(), states: self.states, only: self.only, unpinned: self.unpinned }
    }
}

impl Pinned {
    /// Pages that a state reaches, and those of them that no other state reaches.
    pub(crate) fn of(&self, state: TxnId) -> (u64, u64) {
        let index = self.states.binary_search(&state);
        index.map_or((0, 0), |index| (self.reached[index], self.only[index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PageId;

    fn item(born: u64, freed: u64, pages: u64) -> FreeItem {
        FreeItem { start: PageId(9), pages, born: TxnId(born), freed: TxnId(freed) }
    }

    #[test]
    fn each_state_pins_the_pages_born_up_to_it_and_freed_after_it() {
        let items = [item(0, 3, 1), item(2, 5, 10), item(3, 9, 100), item(6, 8, 1000), item(9, 9, 10_000)];
        let states = [5, 2, 5, 7, 20];
        let mut count = PinCount::new(states.map(TxnId).to_vec());
        items.iter().for_each(|item| count.add(item));
        let pinned = count.finish();
        for state in states {
            let reached = |item: &&FreeItem, state| item.born <= TxnId(state) && TxnId(state) < item.freed;
            let pages = |only: bool| -> u64 {
                let is_only =
                    |item: &&FreeItem| !only || states.iter().all(|&other| other == state || !reached(item, other));
                items.iter().filter(|item| reached(item, state)).filter(is_only).map(|item| item.pages).sum()
            };
            assert_eq!(pinned.of(TxnId(state)), (pages(false), pages(true)), "state {state}");
        }
        assert_eq!((pinned.of(TxnId(2)), pinned.of(TxnId(6))), ((11, 11), (0, 0)));
        assert_eq!(pinned.unpinned, 10_000);
    }

    #[test]
    fn without_states_no_page_is_pinned() {
        let mut count = PinCount::new(Vec::new());
        count.add(&item(1, 2, 3));
        let pinned = count.finish();
        assert_eq!((pinned.of(TxnId(1)), pinned.unpinned), ((0, 0), 3));
    }
}
