//! Live records: the state between readers and the writer while a database is open.
//!
//! Floor: txn. The records of the protocol, in private memory: latest state, published, durable
//! meta page, in doubt. Each is kept twice with a counter that only grows; its parity selects the
//! copy that holds. The filler writes the other copy, then steps the counter; a reader copies and
//! takes the copy only if the counter has not moved (P5). So a reader never waits for a filler, and
//! a filler that dies half-way does no harm.
//!
//! Invariants:
//!   LIVE-1  a record has one filler at a time (the holder of the lock that the protocol names for
//!           it).
//!   LIVE-2  published and durable only move forwards.
//!
//! Failure: none.

use std::sync::atomic::{fence, AtomicU64, Ordering};

use crate::ids::TxnId;
use crate::txn::state::{State, STATE_WORDS};

/// A record of `N` words that is read without a lock.
#[derive(Debug)]
pub(crate) struct Record<const N: usize> {
    counter: AtomicU64,
    copies: [[AtomicU64; N]; 2],
}

impl<const N: usize> Record<N> {
    pub(crate) fn new() -> Record<N> {
        Record {
            counter: AtomicU64::new(0),
            copies: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
        }
    }

    /// Stores new content. Only the holder of the record's lock calls this (LIVE-1).
    pub(crate) fn store(&self, words: &[u64; N]) {
        let counter = self.counter.load(Ordering::Relaxed);
        let copy = &self.copies[(counter as usize + 1) & 1];
        // Orders the stores below after the counter step of the previous fill, for a reader that
        // sees any of them.
        fence(Ordering::Release);
        for (slot, &word) in copy.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
        self.counter.store(counter + 1, Ordering::Release);
    }

    /// Copies the first `M` words out.
    #[inline]
    pub(crate) fn load_first<const M: usize>(&self) -> [u64; M] {
        loop {
            // Sequentially consistent for a reader that has just taken its slot: either the writer
            // sees that slot, or this sees what it published (SLOT-2, CELL-2).
            let counter = self.counter.load(Ordering::SeqCst);
            let copy = &self.copies[counter as usize & 1];
            let mut words = [0; M];
            for (word, slot) in words.iter_mut().zip(copy) {
                *word = slot.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if self.counter.load(Ordering::Relaxed) == counter {
                return words;
            }
        }
    }
}

/// The durable meta page: which slot holds it, and the state it describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurableMeta {
    pub(crate) slot: usize,
    pub(crate) txn: TxnId,
}

/// All records of one open database.
#[derive(Debug)]
pub(crate) struct Live {
    latest: Record<STATE_WORDS>,
    published: Record<STATE_WORDS>,
    durable: Record<2>,
    /// Txn of a meta page that is being written, plus one; 0 for none.
    in_doubt: AtomicU64,
}

impl Live {
    /// Records of a database that was just opened: one state is latest state, published and
    /// durable.
    pub(crate) fn new(state: State, slot: usize) -> Live {
        let live = Live {
            latest: Record::new(),
            published: Record::new(),
            durable: Record::new(),
            in_doubt: AtomicU64::new(0),
        };
        live.latest.store(&state.to_words());
        live.published.store(&state.to_words());
        live.durable.store(&[slot as u64, state.txn.0]);
        live
    }

    /// The newest state that a writer built on. Changed under the writer lock.
    pub(crate) fn latest(&self) -> State {
        State::from_words(&self.latest.load_first())
    }

    pub(crate) fn store_latest(&self, state: &State) {
        self.latest.store(&state.to_words());
    }

    /// The newest state that new readers see.
    #[inline]
    pub(crate) fn published(&self) -> State {
        State::from_words(&self.published.load_first())
    }

    /// Txn of the published state; what a reader writes into its slot.
    #[inline]
    pub(crate) fn published_txn(&self) -> TxnId {
        let [txn] = self.published.load_first();
        TxnId(txn)
    }

    /// Publishes a state, only forwards (LIVE-2). The caller holds the checkpoint lock.
    pub(crate) fn publish(&self, state: &State) {
        if state.txn > self.published_txn() {
            self.published.store(&state.to_words());
        }
    }

    pub(crate) fn durable(&self) -> DurableMeta {
        let [slot, txn] = self.durable.load_first();
        DurableMeta { slot: slot as usize & 1, txn: TxnId(txn) }
    }

    pub(crate) fn store_durable(&self, durable: DurableMeta) {
        self.durable.store(&[durable.slot as u64, durable.txn.0]);
    }

    pub(crate) fn in_doubt(&self) -> Option<TxnId> {
        self.in_doubt.load(Ordering::Acquire).checked_sub(1).map(TxnId)
    }

    pub(crate) fn set_in_doubt(&self, txn: Option<TxnId>) {
        self.in_doubt.store(txn.map_or(0, |txn| txn.0 + 1), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn readers_never_see_a_torn_record() {
        let record = Record::<8>::new();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..200_000u64 {
                    record.store(&[n; 8]);
                }
                stop.store(true, Ordering::Release);
            });
            let mut last = 0;
            while !stop.load(Ordering::Acquire) {
                let words: [u64; 8] = record.load_first();
                assert!(words.iter().all(|&word| word == words[0]), "{words:?}");
                assert!(words[0] >= last);
                last = words[0];
            }
        });
    }

    #[test]
    fn published_only_moves_forwards() {
        let state = |txn| State { txn: TxnId(txn), ..State::default() };
        let live = Live::new(state(5), 1);
        live.publish(&state(4));
        assert_eq!(live.published_txn(), TxnId(5));
        live.publish(&state(6));
        assert_eq!(live.published_txn(), TxnId(6));
        assert_eq!(live.durable(), DurableMeta { slot: 1, txn: TxnId(5) });
    }

    #[test]
    fn the_state_in_doubt_is_the_one_that_was_named() {
        let live = Live::new(State { txn: TxnId(5), ..State::default() }, 0);
        assert_eq!(live.in_doubt(), None);
        for txn in [TxnId(0), TxnId(6), TxnId(u64::MAX - 1)] {
            live.set_in_doubt(Some(txn));
            assert_eq!(live.in_doubt(), Some(txn));
        }
        live.set_in_doubt(None);
        assert_eq!(live.in_doubt(), None);
    }
}
