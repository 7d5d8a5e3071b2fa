//! Live records: words that readers, the writer, the leader and the checkpoint share while a
//! database is open.
//!
//! Floor: txn. One type with one block of atomic words: every record is some words at a fixed place
//! in it. These threads share nothing else about states and the log, so any of them can go on from
//! the records after any step (R12).
//!
//! ```text
//! states      a ring of 64 states by txn                    changed by the writer, before `latest`
//! latest      newest state that a writer can build on       writer lock
//! durable     newest txn known to be durable                any thread, only forwards
//! published   newest txn that new readers see               any thread, only forwards
//! checkpoint  durable meta, pinned txn, meta in doubt       checkpoint lock
//! closed      no record of the log begins before it         flush lock, only grows
//! flushed     the log is durable before it                  flush lock, only grows
//! appending   txn whose record is being appended, or 0      writer lock
//! broken      newest epoch with an orphan record            writer lock, only grows
//! ```
//!
//! Invariants:
//!   LIVE-1  one thread at a time fills a record: the holder of the lock that the table names.
//!   LIVE-2  published, durable, closed, flushed and broken only move forwards.
//!   LIVE-3  an entry of `states`, or a copy of `checkpoint`, is written whole before the word that
//!           selects it is stored. A reader uses its copy only if that word has not changed
//!           meanwhile (P5).
//!
//! Failure: none.

use std::sync::atomic::{fence, AtomicU64, Ordering};

use crate::hooks::{self, Moment, Mutant};
use crate::ids::TxnId;
use crate::txn::state::{State, STATE_WORDS};

/// States that the ring holds.
pub(crate) const STATES: u64 = 64;
/// A writer whose txn is more than this ahead of `published` leads a flush before it appends (P5).
pub(crate) const UNPUBLISHED_MAX: u64 = 60;

const LINE_WORDS: usize = 16;
const LATEST: usize = 0;
const DURABLE: usize = LINE_WORDS;
const PUBLISHED: usize = 2 * LINE_WORDS;
const CLOSED: usize = 3 * LINE_WORDS;
const FLUSHED: usize = CLOSED + 1;
const APPENDING: usize = CLOSED + 2;
const BROKEN: usize = CLOSED + 3;
const CHECKPOINT: usize = 4 * LINE_WORDS;
const RING: usize = (CHECKPOINT + 1 + 2 * CHECKPOINT_WORDS).next_multiple_of(LINE_WORDS);
/// An entry of the ring: its txn, the words of its state, and its txn again.
const ENTRY_WORDS: usize = STATE_WORDS + 2;
const WORDS: usize = RING + STATES as usize * ENTRY_WORDS;

/// The durable meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct DurableMeta {
    /// The slot that holds it.
    pub(crate) slot: usize,
    pub(crate) txn: TxnId,
    /// Position in the log where replay from this meta page starts.
    pub(crate) log_start: u64,
    /// Pages that its state and all states before it have superseded.
    pub(crate) superseded: u64,
}

impl DurableMeta {
    /// Describes the meta page of a state, in a slot.
    pub(crate) fn of(state: &State, slot: usize) -> DurableMeta {
        DurableMeta { slot, txn: state.txn, log_start: state.log.start, superseded: state.superseded }
    }
}

const CHECKPOINT_WORDS: usize = 4 + 1 + 1 + STATE_WORDS;
/// The word that says whether a meta page is in doubt.
const IN_DOUBT: usize = 5;

/// The checkpoint record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    pub(crate) durable_meta: DurableMeta,
    /// The state that a checkpoint is making durable.
    pub(crate) pinned: Option<TxnId>,
    /// The slot and state of a meta page that is being written.
    pub(crate) in_doubt: Option<(usize, State)>,
}

impl Checkpoint {
    fn to_words(self) -> [u64; CHECKPOINT_WORDS] {
        let mut words = [0; CHECKPOINT_WORDS];
        let meta = self.durable_meta;
        words[..4].copy_from_slice(&[meta.slot as u64, meta.txn.0, meta.log_start, meta.superseded]);
        words[4] = self.pinned.map_or(0, |txn| txn.0 + 1);
        if let Some((slot, state)) = self.in_doubt {
            words[IN_DOUBT] = slot as u64 + 1;
            words[6..].copy_from_slice(&state.to_words());
        }
        words
    }

    fn from_words(words: &[u64; CHECKPOINT_WORDS]) -> Checkpoint {
        let mut state = [0; STATE_WORDS];
        state.copy_from_slice(&words[6..]);
        Checkpoint {
            durable_meta: DurableMeta {
                slot: words[0] as usize & 1,
                txn: TxnId(words[1]),
                log_start: words[2],
                superseded: words[3],
            },
            pinned: words[4].checked_sub(1).map(TxnId),
            in_doubt: words[IN_DOUBT].checked_sub(1).map(|slot| (slot as usize & 1, State::from_words(&state))),
        }
    }
}

/// All records of one open database.
pub(crate) struct Live {
    words: Box<[AtomicU64]>,
}

impl Live {
    /// Records of a database that was just opened: one state is latest, published and durable.
    pub(crate) fn new(state: State, slot: usize) -> Live {
        let live = Live { words: (0..WORDS).map(|_| AtomicU64::new(0)).collect() };
        live.restart(&state, &state, slot);
        live
    }

    /// Begins again with the state that a meta page in `slot` describes as the durable one, and a
    /// newer state that was read from the log as the latest. No other thread may have the records
    /// yet.
    pub(crate) fn restart(&self, meta: &State, latest: &State, slot: usize) {
        self.store_checkpoint(&Checkpoint { durable_meta: DurableMeta::of(meta, slot), pinned: None, in_doubt: None });
        self.add_state(latest);
        self.store_latest(latest.txn);
        self.word(DURABLE).store(latest.txn.0, Ordering::SeqCst);
        self.word(PUBLISHED).store(latest.txn.0, Ordering::SeqCst);
        self.word(CLOSED).store(latest.log.start, Ordering::SeqCst);
        self.word(FLUSHED).store(latest.log.start, Ordering::SeqCst);
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.words[index]
    }

    fn entry(&self, txn: TxnId) -> &[AtomicU64] {
        let start = RING + (txn.0 % STATES) as usize * ENTRY_WORDS;
        &self.words[start..start + ENTRY_WORDS]
    }

    /// Puts a state into the ring. The caller holds the writer lock, and stores `latest` or
    /// `published` only afterwards.
    pub(crate) fn add_state(&self, state: &State) {
        let entry = self.entry(state.txn);
        entry[0].store(state.txn.0, Ordering::Relaxed);
        // Orders the stores below after that of the txn, for a reader that sees any of them.
        fence(Ordering::Release);
        for (word, value) in entry[1..].iter().zip(state.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        entry[ENTRY_WORDS - 1].store(state.txn.0, Ordering::Release);
    }

    /// The state of a txn, if the ring still has it.
    #[inline]
    pub(crate) fn state(&self, txn: TxnId) -> Option<State> {
        let entry = self.entry(txn);
        if entry[ENTRY_WORDS - 1].load(Ordering::Acquire) != txn.0 {
            return None;
        }
        let mut words = [0; STATE_WORDS];
        for (value, word) in words.iter_mut().zip(&entry[1..]) {
            *value = word.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        // This word is loaded last, because a writer that refills the entry stores it first.
        (entry[0].load(Ordering::Relaxed) == txn.0).then(|| State::from_words(&words))
    }

    /// Returns the state whose txn a word holds. The word changes before the ring can lose that
    /// state.
    #[inline]
    fn state_of(&self, name: usize) -> State {
        loop {
            let txn = TxnId(self.word(name).load(Ordering::SeqCst));
            if let Some(state) = self.state(txn) {
                return state;
            }
            std::hint::spin_loop();
        }
    }

    /// The newest state that a writer can build on.
    pub(crate) fn latest(&self) -> State {
        self.state_of(LATEST)
    }

    /// Stores the txn of the latest state, which is in the ring. The caller holds the writer lock.
    pub(crate) fn store_latest(&self, txn: TxnId) {
        self.word(LATEST).store(txn.0, Ordering::SeqCst);
    }

    /// The newest state that new readers see.
    #[inline]
    pub(crate) fn published(&self) -> State {
        self.state_of(PUBLISHED)
    }

    /// Txn of the published state. A reader stores it in its slot.
    #[inline]
    pub(crate) fn published_txn(&self) -> TxnId {
        // Sequentially consistent for a reader that has just taken its slot: either the writer sees
        // that slot, or this load sees what was published (SLOT-2, CELL-2).
        TxnId(self.word(PUBLISHED).load(Ordering::SeqCst))
    }

    /// Publishes a state, only forwards (LIVE-2).
    pub(crate) fn publish(&self, txn: TxnId) {
        self.word(PUBLISHED).fetch_max(txn.0, Ordering::SeqCst);
    }

    /// The newest txn known to be durable.
    pub(crate) fn durable_txn(&self) -> TxnId {
        TxnId(self.word(DURABLE).load(Ordering::SeqCst))
    }

    /// Records that a txn and all before it are durable, only forwards (LIVE-2).
    pub(crate) fn set_durable(&self, txn: TxnId) {
        self.word(DURABLE).fetch_max(txn.0, Ordering::SeqCst);
    }

    /// The checkpoint record.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        loop {
            let counter = self.word(CHECKPOINT).load(Ordering::SeqCst);
            let mut words = [0; CHECKPOINT_WORDS];
            for (value, word) in words.iter_mut().zip(self.copy(counter)) {
                *value = word.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if self.word(CHECKPOINT).load(Ordering::Relaxed) == counter {
                return Checkpoint::from_words(&words);
            }
        }
    }

    /// Stores the checkpoint record. Under the checkpoint lock.
    pub(crate) fn store_checkpoint(&self, checkpoint: &Checkpoint) {
        let counter = self.word(CHECKPOINT).load(Ordering::Relaxed);
        let name = || self.word(CHECKPOINT).store(counter + 1, Ordering::SeqCst);
        if hooks::is(Mutant::NamedBeforeWhole) {
            name();
        }
        // Orders the stores below after the counter step of the previous fill, for a reader that
        // sees any of them.
        fence(Ordering::Release);
        let (copy, words) = (self.copy(counter + 1), checkpoint.to_words());
        let fill = |range: std::ops::Range<usize>| {
            range.for_each(|at| copy[at].store(words[at], Ordering::Relaxed));
        };
        fill(0..IN_DOUBT + 1);
        hooks::reach(Moment::Filling);
        fill(IN_DOUBT + 1..CHECKPOINT_WORDS);
        name();
    }

    /// Whether a meta page may be in doubt; certain only while no thread changes the record.
    #[inline]
    pub(crate) fn may_be_in_doubt(&self) -> bool {
        self.copy(self.word(CHECKPOINT).load(Ordering::SeqCst))[IN_DOUBT].load(Ordering::Relaxed) != 0
    }

    /// The copy of the checkpoint record that a counter selects.
    fn copy(&self, counter: u64) -> &[AtomicU64] {
        let start = CHECKPOINT + 1 + (counter as usize & 1) * CHECKPOINT_WORDS;
        &self.words[start..start + CHECKPOINT_WORDS]
    }

    /// The durable meta page.
    pub(crate) fn durable_meta(&self) -> DurableMeta {
        self.checkpoint().durable_meta
    }

    /// Position in the log before which no record begins any more.
    pub(crate) fn closed(&self) -> u64 {
        self.word(CLOSED).load(Ordering::SeqCst)
    }

    /// Raises `closed`. Under the flush lock.
    pub(crate) fn raise_closed(&self, position: u64) {
        self.word(CLOSED).fetch_max(position, Ordering::SeqCst);
    }

    /// Position before which the log is durable.
    pub(crate) fn flushed(&self) -> u64 {
        self.word(FLUSHED).load(Ordering::SeqCst)
    }

    /// Raises `flushed`. Under the flush lock.
    pub(crate) fn raise_flushed(&self, position: u64) {
        self.word(FLUSHED).fetch_max(position, Ordering::SeqCst);
    }

    /// The txn whose record is being appended, or 0.
    pub(crate) fn appending(&self) -> TxnId {
        TxnId(self.word(APPENDING).load(Ordering::SeqCst))
    }

    /// Stores the txn whose record is being appended, or 0. Under the writer lock.
    pub(crate) fn set_appending(&self, txn: TxnId) {
        self.word(APPENDING).store(txn.0, Ordering::SeqCst);
    }

    /// The newest epoch with an orphan record. Nothing is appended to it any more (P9).
    pub(crate) fn broken(&self) -> u64 {
        self.word(BROKEN).load(Ordering::SeqCst)
    }

    /// Records that an epoch has an orphan record. Under the writer lock.
    pub(crate) fn set_broken(&self, epoch: u64) {
        self.word(BROKEN).fetch_max(epoch, Ordering::SeqCst);
    }
}

#[cfg(feature = "testing")]
impl Live {
    /// Txn of the latest state.
    pub(crate) fn latest_txn(&self) -> TxnId {
        TxnId(self.word(LATEST).load(Ordering::SeqCst))
    }

    /// All words.
    pub(crate) fn to_words(&self) -> Vec<u64> {
        self.words.iter().map(|word| word.load(Ordering::SeqCst)).collect()
    }

    /// Takes over all words of other records. Before any other thread has these records.
    pub(crate) fn take_words(&self, words: &[u64]) {
        self.words.iter().zip(words).for_each(|(word, &value)| word.store(value, Ordering::SeqCst));
    }

    /// A hash of all records.
    pub(crate) fn hash(&self) -> u64 {
        let mix = |hash: u64, word: u64| {
            let mixed = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ (mixed >> 31)
        };
        let words =
            |words: &[AtomicU64], hash| words.iter().fold(hash, |hash, word| mix(hash, word.load(Ordering::Relaxed)));
        let hash = self.checkpoint().to_words().into_iter().fold(0, mix);
        words(&self.words[RING..], words(&self.words[..CHECKPOINT], hash))
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Live");
        shown.field("latest", &self.word(LATEST)).field("durable", &self.word(DURABLE));
        shown.field("published", &self.word(PUBLISHED)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TreeId;
    use crate::page::meta::TreeRoot;
    use std::sync::atomic::AtomicBool;

    fn state(txn: u64) -> State {
        let free_space = TreeRoot::empty(TreeId::FREE_SPACE);
        State { txn: TxnId(txn), page_count: txn + 1, superseded: txn + 2, free_space, ..State::default() }
    }

    #[test]
    fn readers_never_see_a_torn_state() {
        let live = Live::new(state(1), 0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for txn in 2..300_000 {
                    live.add_state(&state(txn));
                    live.store_latest(TxnId(txn));
                    live.publish(TxnId(txn));
                }
                stop.store(true, Ordering::Release);
            });
            let mut last = TxnId(0);
            while !stop.load(Ordering::Acquire) {
                let found = live.published();
                assert_eq!(found, state(found.txn.0));
                assert!(found.txn >= last);
                last = found.txn;
            }
        });
    }

    #[test]
    fn readers_never_see_a_torn_checkpoint() {
        let checkpoint = |txn: u64| Checkpoint {
            durable_meta: DurableMeta { slot: txn as usize & 1, txn: TxnId(txn), log_start: txn, superseded: txn },
            pinned: Some(TxnId(txn)),
            in_doubt: Some((txn as usize & 1, state(txn))),
        };
        let live = Live::new(state(1), 1);
        live.store_checkpoint(&checkpoint(1));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (2..200_000).for_each(|txn| live.store_checkpoint(&checkpoint(txn)));
                stop.store(true, Ordering::Release);
            });
            while !stop.load(Ordering::Acquire) {
                let found = live.checkpoint();
                assert_eq!(found, checkpoint(found.durable_meta.txn.0));
            }
        });
    }

    #[test]
    fn published_only_moves_forwards() {
        let live = Live::new(state(5), 1);
        live.publish(TxnId(4));
        assert_eq!(live.published_txn(), TxnId(5));
        live.add_state(&state(6));
        live.publish(TxnId(6));
        assert_eq!(live.published(), state(6));
        assert_eq!(live.durable_meta(), DurableMeta { slot: 1, txn: TxnId(5), log_start: 0, superseded: 7 });
    }

    #[test]
    fn the_ring_gives_a_state_until_it_is_overwritten() {
        let live = Live::new(state(5), 1);
        (6..70).for_each(|txn| live.add_state(&state(txn)));
        assert_eq!(live.state(TxnId(5)), None);
        assert_eq!(live.state(TxnId(6)), Some(state(6)));
    }

    #[test]
    fn the_checkpoint_record_reads_back_as_stored() {
        let live = Live::new(state(5), 0);
        for txn in [0, 6, u64::MAX >> 16] {
            let checkpoint = Checkpoint {
                durable_meta: DurableMeta { slot: 1, txn: TxnId(4), log_start: 3, superseded: 2 },
                pinned: Some(TxnId(txn)),
                in_doubt: Some((0, state(txn))),
            };
            live.store_checkpoint(&checkpoint);
            assert_eq!(live.checkpoint(), checkpoint);
        }
        live.store_checkpoint(&Checkpoint::default());
        assert_eq!(live.checkpoint(), Checkpoint::default(), "what was in doubt is gone");
    }
}
