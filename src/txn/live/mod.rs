//! Live records: words that readers, the writer, the leader and the checkpoint share while a
//! database is open.
//!
//! Floor: txn. One type with one block of atomic words: every record is some words at a fixed place
//! in it (`layout`). The block lies in private memory, or in the lock file that all processes map
//! which have the database open. Threads and processes share nothing else about states and the log,
//! so any of them can go on from the records after any step (R12).
//!
//! ```text
//! mod          the records of states, the log and checkpoints
//! layout       where the records lie, and how their words are stored
//! checkpoint   the checkpoint record
//! processes    process slots, poison, marks, hints: records that only processes need
//!
//! states      a ring of 64 states by txn                    changed by the writer, before `latest`
//! latest      newest state that a writer can build on       writer lock
//! durable     newest txn known to be durable                any thread, only forwards
//! published   newest txn that new readers see               any thread, only forwards
//! checkpoint  durable meta, pinned txn, meta in doubt       checkpoint lock
//! closed      no record of the log begins before it         flush lock, only grows
//! flushed     the log is durable before it                  flush lock, only grows
//! appending   txn whose record is being appended, or 0      writer lock
//! broken      newest epoch with an orphan record            writer lock, only grows
//! length      usable bytes of the file, and its sentinel    writer lock (`mapping::FileLength`)
//! ```
//!
//! Invariants:
//!   LIVE-1  one thread at a time fills a record: the holder of the lock that the table names.
//!   LIVE-2  published, durable, closed, flushed and broken only move forwards.
//!   LIVE-3  an entry of `states`, or a copy of `checkpoint`, is written whole before the word that
//!           selects it is stored. A reader uses its copy only if that word has not changed
//!           meanwhile (P5).
//!
//! Failure: a record that no process can have stored, and an access to the lock file that the
//! kernel cannot serve, are recorded ([`Live::is_damaged`]). The database then counts as poisoned,
//! and what was read is not used.

mod checkpoint;
pub(crate) mod layout;
mod processes;
#[cfg(test)]
mod tests;

use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::Arc;

use crate::hooks::{self, Moment, Mutant};
use crate::ids::TxnId;
use crate::mapping::{tagged, untagged, FileLength, RecordFaults, RecordMemory};
use crate::txn::state::{State, STATE_WORDS};
pub(crate) use checkpoint::{Checkpoint, DurableMeta};
pub(crate) use layout::STATES;
use layout::*;
pub(crate) use processes::{says_failed_flush, FlushMark, Process};

/// A writer whose txn is more than this ahead of `published` leads a flush before it appends (P5).
pub(crate) const UNPUBLISHED_MAX: u64 = 60;

/// All records of one open database. A clone is another handle to the same records.
#[derive(Clone)]
pub(crate) struct Live {
    memory: Arc<RecordMemory>,
    faults: RecordFaults,
    length: FileLength,
    /// Whether other processes, and so other programs, may store to the memory. Then longer records
    /// have checksums.
    is_shared: bool,
}

impl Live {
    /// Records in private memory, of a database that was just opened: one state is latest,
    /// published and durable.
    pub(crate) fn new(state: State, slot: usize) -> Live {
        Live::private().begin(state, slot)
    }

    /// Records in private memory, without a state yet.
    pub(crate) fn private() -> Live {
        let memory = Arc::new(RecordMemory::private(PRIVATE_WORDS));
        let live = Live { is_shared: false, ..Live::over(memory, RecordFaults::default()) };
        live.clear();
        live
    }

    /// Records in memory that processes share, as they are.
    pub(crate) fn over(memory: Arc<RecordMemory>, faults: RecordFaults) -> Live {
        let length = FileLength::new(&memory, LENGTH);
        Live { memory, faults, length, is_shared: true }
    }

    /// Makes all records those of a session that has no state yet. Entries of the ring and process
    /// slots stay: no record selects them.
    pub(crate) fn clear(&self) {
        self.memory[LATEST..RING].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let numbers = [LATEST, DURABLE, PUBLISHED, CLOSED, FLUSHED, APPENDING, BROKEN];
        let more = [POISON, FLUSH_MARK, CHECKPOINT_MARK, CHUNKS, SLOTS_IN_USE, CHECKPOINT];
        numbers.into_iter().chain(more).for_each(|index| self.store(index, 0));
        self.length.clear();
    }

    /// Begins with a state, that of the meta page in `slot`.
    pub(crate) fn begin(self, state: State, slot: usize) -> Live {
        self.restart(&state, &state, slot);
        self
    }

    /// Begins again with the state that a meta page in `slot` describes as the durable one, and a
    /// newer state that was read from the log as the latest. No other thread may have the records
    /// yet.
    pub(crate) fn restart(&self, meta: &State, latest: &State, slot: usize) {
        self.store_checkpoint(&Checkpoint { durable_meta: DurableMeta::of(meta, slot), pinned: None, in_doubt: None });
        self.add_state(latest);
        self.store_latest(latest.txn);
        self.store(DURABLE, latest.txn.0);
        self.store(PUBLISHED, latest.txn.0);
        self.store(CLOSED, latest.log.start);
        self.store(FLUSHED, latest.log.start);
    }

    /// The memory that the records lie in.
    pub(crate) fn memory(&self) -> &Arc<RecordMemory> {
        &self.memory
    }

    /// The record `length`.
    pub(crate) fn length(&self) -> &FileLength {
        &self.length
    }

    /// Whether a record was found that no process can have stored, or an access to the lock file
    /// has failed.
    #[inline]
    pub(crate) fn is_damaged(&self) -> bool {
        self.faults.is_set()
    }

    /// Records that a word was found that no process has stored.
    pub(crate) fn note_damage(&self) {
        self.faults.set(READER_PAGES);
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.memory[index]
    }

    /// The number in a record of one word.
    #[inline]
    fn load(&self, index: usize) -> u64 {
        let word = self.word(index).load(Ordering::SeqCst);
        untagged(index, word).unwrap_or_else(|| self.damaged(index, word))
    }

    #[cold]
    fn damaged(&self, index: usize, word: u64) -> u64 {
        self.faults.set(index);
        word >> 16
    }

    #[inline]
    fn store(&self, index: usize, value: u64) {
        self.word(index).store(tagged(index, value), Ordering::SeqCst);
    }

    /// Raises a number, only forwards. The number stands above its tag, so words compare as numbers
    /// do.
    fn raise(&self, index: usize, value: u64) {
        self.word(index).fetch_max(tagged(index, value), Ordering::SeqCst);
    }

    /// The checksum of a longer record. In private memory there is none.
    #[inline]
    fn checksum(&self, words: &[u64]) -> u64 {
        if self.is_shared {
            checksum(words)
        } else {
            0
        }
    }

    fn entry(&self, txn: TxnId) -> &[AtomicU64] {
        let start = RING + (txn.0 % STATES) as usize * ENTRY_WORDS;
        &self.memory[start..start + ENTRY_WORDS]
    }

    /// Puts a state into the ring. The caller holds the writer lock, and stores `latest` or
    /// `published` only afterwards.
    pub(crate) fn add_state(&self, state: &State) {
        let entry = self.entry(state.txn);
        entry[0].store(state.txn.0, Ordering::Relaxed);
        // Orders the stores below after that of the txn, for a reader that sees any of them.
        fence(Ordering::Release);
        let words = state.to_words();
        for (word, value) in entry[1..].iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        entry[1 + STATE_WORDS].store(self.checksum(&words), Ordering::Relaxed);
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
        let sum = entry[1 + STATE_WORDS].load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        // This word is loaded last, because a writer that refills the entry stores it first.
        let is_whole = entry[0].load(Ordering::Relaxed) == txn.0;
        (is_whole && sum == self.checksum(&words)).then(|| State::from_words(&words))
    }

    /// Returns the state whose txn a word holds. The word changes before the ring can lose that
    /// state. After damage ([`Live::is_damaged`]) it may be a state without tables.
    #[inline]
    fn state_of(&self, name: usize) -> State {
        loop {
            let txn = TxnId(self.load(name));
            if let Some(state) = self.state(txn) {
                return state;
            }
            if self.load(name) == txn.0 || self.is_damaged() {
                self.faults.set(name);
                return State { page_count: 2, ..State::default() };
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
        self.store(LATEST, txn.0);
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
        TxnId(self.load(PUBLISHED))
    }

    /// Whether this txn is that of the published state. Cheaper than
    /// [`published_txn`](Live::published_txn), and ordered like it.
    #[inline]
    pub(crate) fn is_published(&self, txn: TxnId) -> bool {
        self.word(PUBLISHED).load(Ordering::SeqCst) == tagged(PUBLISHED, txn.0)
    }

    /// Publishes a state, only forwards (LIVE-2).
    pub(crate) fn publish(&self, txn: TxnId) {
        self.raise(PUBLISHED, txn.0);
    }

    /// The newest txn known to be durable.
    pub(crate) fn durable_txn(&self) -> TxnId {
        TxnId(self.load(DURABLE))
    }

    /// Records that a txn and all before it are durable, only forwards (LIVE-2).
    pub(crate) fn set_durable(&self, txn: TxnId) {
        self.raise(DURABLE, txn.0);
    }

    /// The checkpoint record.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        loop {
            let counter = self.load(CHECKPOINT);
            let mut words = [0; CHECKPOINT_WORDS];
            let copy = self.copy(counter);
            for (value, word) in words.iter_mut().zip(copy) {
                *value = word.load(Ordering::Relaxed);
            }
            let sum = copy[CHECKPOINT_WORDS].load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if self.load(CHECKPOINT) == counter {
                if sum != self.checksum(&words) {
                    self.faults.set(CHECKPOINT);
                }
                return Checkpoint::from_words(&words);
            }
        }
    }

    /// Stores the checkpoint record. Under the checkpoint lock.
    pub(crate) fn store_checkpoint(&self, checkpoint: &Checkpoint) {
        let counter = self.load(CHECKPOINT);
        let name = || self.store(CHECKPOINT, counter + 1);
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
        fill(0..checkpoint::IN_DOUBT + 1);
        hooks::reach(Moment::Filling);
        fill(checkpoint::IN_DOUBT + 1..CHECKPOINT_WORDS);
        copy[CHECKPOINT_WORDS].store(self.checksum(&words), Ordering::Relaxed);
        name();
    }

    /// Whether a meta page may be in doubt; certain only while no thread changes the record.
    #[inline]
    pub(crate) fn may_be_in_doubt(&self) -> bool {
        self.copy(self.load(CHECKPOINT))[checkpoint::IN_DOUBT].load(Ordering::Relaxed) != 0
    }

    /// The copy of the checkpoint record that a counter selects.
    fn copy(&self, counter: u64) -> &[AtomicU64] {
        let start = CHECKPOINT + 1 + (counter as usize & 1) * COPY_WORDS;
        &self.memory[start..start + COPY_WORDS]
    }

    /// The durable meta page.
    pub(crate) fn durable_meta(&self) -> DurableMeta {
        self.checkpoint().durable_meta
    }

    /// Position in the log before which no record begins any more.
    pub(crate) fn closed(&self) -> u64 {
        self.load(CLOSED)
    }

    /// Raises `closed`. Under the flush lock.
    pub(crate) fn raise_closed(&self, position: u64) {
        self.raise(CLOSED, position);
    }

    /// Position before which the log is durable.
    pub(crate) fn flushed(&self) -> u64 {
        self.load(FLUSHED)
    }

    /// Raises `flushed`. Under the flush lock.
    pub(crate) fn raise_flushed(&self, position: u64) {
        self.raise(FLUSHED, position);
    }

    /// The txn whose record is being appended, or 0.
    pub(crate) fn appending(&self) -> TxnId {
        TxnId(self.load(APPENDING))
    }

    /// Stores the txn whose record is being appended, or 0. Under the writer lock.
    pub(crate) fn set_appending(&self, txn: TxnId) {
        self.store(APPENDING, txn.0);
    }

    /// The newest epoch with an orphan record. Nothing is appended to it any more (P9).
    pub(crate) fn broken(&self) -> u64 {
        self.load(BROKEN)
    }

    /// Records that an epoch has an orphan record. Under the writer lock.
    pub(crate) fn set_broken(&self, epoch: u64) {
        self.raise(BROKEN, epoch);
    }
}

#[cfg(feature = "testing")]
impl Live {
    /// Txn of the latest state.
    pub(crate) fn latest_txn(&self) -> TxnId {
        TxnId(self.load(LATEST))
    }

    /// All words of the states, the log and checkpoints.
    pub(crate) fn to_words(&self) -> Vec<u64> {
        self.memory[..PRIVATE_WORDS].iter().map(|word| word.load(Ordering::SeqCst)).collect()
    }

    /// Takes over all words of other records. Before any other thread has these records.
    pub(crate) fn take_words(&self, words: &[u64]) {
        self.memory.iter().zip(words).for_each(|(word, &value)| word.store(value, Ordering::SeqCst));
    }

    /// A hash of all records of states, the log and checkpoints.
    pub(crate) fn hash(&self) -> u64 {
        let mix = |hash: u64, word: u64| {
            let mixed = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ (mixed >> 31)
        };
        let words =
            |words: &[AtomicU64], hash| words.iter().fold(hash, |hash, word| mix(hash, word.load(Ordering::Relaxed)));
        let hash = self.checkpoint().to_words().into_iter().fold(0, mix);
        let hash = [FLUSH_MARK, CHECKPOINT_MARK].into_iter().fold(hash, |hash, mark| mix(hash, self.load(mark) & 1));
        words(&self.memory[RING..PRIVATE_WORDS], words(&self.memory[LATEST..LENGTH], hash))
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Live");
        shown.field("latest", &self.load(LATEST)).field("durable", &self.load(DURABLE));
        shown.field("published", &self.load(PUBLISHED)).finish_non_exhaustive()
    }
}
