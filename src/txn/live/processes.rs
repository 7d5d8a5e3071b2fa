//! Records that only several processes need: process slots, poison, marks, hints.
//!
//! Floor: txn. A lock of the file tells which process is alive (`processes::locks`). A process slot
//! says only what people and other processes want to know of it. Its words are hints, which a
//! process that dies leaves as they are.
//!
//! Invariants:
//!   PROC-1  a process changes only its own slot, and has its lock.
//!   PROC-2  poison is set once in a session, and never taken back.
//!   PROC-3  a mark is odd from before the first flush under its lock until all flushes under it
//!           have ended well and the records that they move are stored (P18).
//!
//! Failure: none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::layout::*;
use super::Live;
use crate::mapping::tagged;
use crate::sys::{clock, futex};

/// A flush has failed: the page cache may hold what the disk does not have.
const FLUSH_FAILED: u64 = 1;
/// Another cause, after which the page cache can be trusted.
const ABANDONED: u64 = 2;

/// Whether a word of poison says that a flush has failed. So does one that no process has stored.
pub(crate) fn says_failed_flush(poison: u64) -> bool {
    ![0, ABANDONED].map(|value| tagged(POISON, value)).contains(&poison)
}

/// Which flushes a mark counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlushMark {
    /// Those of leaders.
    Flush,
    /// Those of checkpoints.
    Checkpoint,
}

impl FlushMark {
    fn index(self) -> usize {
        match self {
            FlushMark::Flush => FLUSH_MARK,
            FlushMark::Checkpoint => CHECKPOINT_MARK,
        }
    }
}

/// What a process slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Process {
    pub(crate) index: usize,
    /// How many processes had the slot, this one included.
    pub(crate) generation: u64,
    /// The number of the process in its own namespace.
    pub(crate) id: u32,
    /// Whether it may write.
    pub(crate) writes: bool,
}

impl Process {
    /// How a reader page names its owner. Never 0.
    pub(crate) fn as_owner(&self) -> u64 {
        self.generation << 16 | (self.index as u64 + 1)
    }

    /// The slot and the generation of the owner of a reader page.
    pub(crate) fn of_owner(owner: u64) -> (usize, u64) {
        (((owner & 0xffff) as usize).wrapping_sub(1), owner >> 16)
    }
}

impl Live {
    /// The count of a mark.
    pub(crate) fn mark(&self, mark: FlushMark) -> u64 {
        self.load(mark.index())
    }

    /// Makes a mark odd before a flush. Its lock is held. Returns whether it was odd already: the
    /// process that had the lock before has died, and perhaps has seen an error of a flush.
    pub(crate) fn set_odd(&self, mark: FlushMark) -> bool {
        let count = self.mark(mark);
        if count.is_multiple_of(2) {
            self.store(mark.index(), count + 1);
        }
        !count.is_multiple_of(2)
    }

    /// Makes a mark even, after all flushes have ended well. Its lock is held.
    pub(crate) fn set_even(&self, mark: FlushMark) {
        let count = self.mark(mark);
        if !count.is_multiple_of(2) {
            self.store(mark.index(), count + 1);
        }
    }

    /// Whether any process has poisoned the database.
    #[inline]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.word(POISON).load(Ordering::Relaxed) != tagged(POISON, 0)
    }

    /// Poisons the database for all processes. Of several causes the first one stays. With
    /// `failed_flush`, the next session begins with a recovery from the disk (P20).
    pub(crate) fn set_poison(&self, cause: &str, failed_flush: bool) {
        let set = tagged(POISON, if failed_flush { FLUSH_FAILED } else { ABANDONED });
        let none = tagged(POISON, 0);
        let word = self.word(POISON);
        if word.load(Ordering::SeqCst) != none {
            if failed_flush {
                word.store(set, Ordering::SeqCst);
            }
            return;
        }
        let mut bytes = [0; 8 * CAUSE_WORDS];
        let len = cause.len().min(bytes.len());
        bytes[..len].copy_from_slice(&cause.as_bytes()[..len]);
        // Two processes at the same time may mix their texts. That is better than no text, if one
        // of them is killed here.
        for (into, from) in self.memory[CAUSE..CAUSE + CAUSE_WORDS].iter().zip(bytes.chunks_exact(8)) {
            into.store(u64::from_le_bytes(from.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
        word.store(set, Ordering::SeqCst);
    }

    /// The cause of the poison.
    pub(crate) fn poison_cause(&self) -> String {
        let words = self.memory[CAUSE..CAUSE + CAUSE_WORDS].iter().map(|word| word.load(Ordering::Relaxed));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }

    /// Number of chunks of reader pages that the lock file has.
    pub(crate) fn chunks(&self) -> usize {
        self.load(CHUNKS) as usize
    }

    /// Says that the lock file has so many chunks of reader pages.
    pub(crate) fn raise_chunks(&self, chunks: usize) {
        self.raise(CHUNKS, chunks as u64);
    }

    /// The words of a process slot. `None` in private memory, and for a number that is none of a
    /// slot.
    fn slot(&self, index: usize) -> Option<&[AtomicU64]> {
        let start = PROCESS_SLOTS + Some(index).filter(|&index| index < PROCESSES)? * PROCESS_WORDS;
        self.memory.get(start..start + PROCESS_WORDS)
    }

    /// Takes a process slot whose lock the caller has just got.
    pub(crate) fn enter(&self, index: usize, writes: bool) -> Process {
        let Some(slot) = self.slot(index) else { return Process::default() };
        let generation = slot[GENERATION].load(Ordering::SeqCst).wrapping_add(1) & ((1 << 47) - 1);
        slot[PROCESS_ID].store(u64::from(std::process::id()), Ordering::Relaxed);
        slot[WRITES].store(u64::from(writes), Ordering::Relaxed);
        slot[WAITS_SINCE].store(0, Ordering::Relaxed);
        slot[GENERATION].store(generation, Ordering::SeqCst);
        self.raise(SLOTS_IN_USE, index as u64 + 1);
        Process { index, generation, id: std::process::id(), writes }
    }

    /// What the process slots say, also those of processes that have ended.
    pub(crate) fn processes(&self) -> impl Iterator<Item = Process> + '_ {
        let in_use = (self.load(SLOTS_IN_USE) as usize).min(PROCESSES);
        (0..in_use).filter_map(|index| self.process(index))
    }

    /// What a process slot says.
    pub(crate) fn process(&self, index: usize) -> Option<Process> {
        let slot = self.slot(index)?;
        Some(Process {
            index,
            generation: slot[GENERATION].load(Ordering::SeqCst),
            id: slot[PROCESS_ID].load(Ordering::Relaxed) as u32,
            writes: slot[WRITES].load(Ordering::Relaxed) != 0,
        })
    }

    /// The random number of the session; 0 in private memory.
    pub(crate) fn session(&self) -> u64 {
        self.memory[SESSION].load(Ordering::Relaxed)
    }

    /// Notes that a process waits for the writer lock, or does not wait any more.
    pub(crate) fn note_waiting(&self, index: usize, waits: bool) {
        if let Some(slot) = self.slot(index) {
            let since = if waits { clock::coarse_millis().max(1) } else { 0 };
            slot[WAITS_SINCE].store(since, Ordering::Relaxed);
        }
    }

    /// Another process that has waited for the writer lock for some time.
    pub(crate) fn waiting_since(&self, own: usize, patience: Duration) -> Option<usize> {
        let in_use = (self.load(SLOTS_IN_USE) as usize).min(PROCESSES);
        (0..in_use).filter(|&index| index != own).find(|&index| {
            let since = self.slot(index).map_or(0, |slot| slot[WAITS_SINCE].load(Ordering::Relaxed));
            since != 0 && clock::coarse_millis().saturating_sub(since) >= patience.as_millis() as u64
        })
    }

    /// Forgets that another process, which has died, waits for the writer lock.
    pub(crate) fn forget_waiting(&self, index: usize) {
        if let Some(slot) = self.slot(index) {
            slot[WAITS_SINCE].store(0, Ordering::Relaxed);
        }
    }

    /// The process slot of the last writer, plus one.
    pub(crate) fn last_writer(&self) -> u64 {
        self.word(LAST_WRITER).load(Ordering::Relaxed)
    }

    pub(crate) fn set_last_writer(&self, index: usize) {
        self.word(LAST_WRITER).store(index as u64 + 1, Ordering::Relaxed);
    }

    /// Counts the caller as a thread that sleeps, before it looks a last time at the state that it
    /// waits for.
    pub(crate) fn sleeper(&self) -> Sleeper<'_> {
        self.word(SLEEPERS).fetch_add(1, Ordering::SeqCst);
        Sleeper { live: self, seen: self.word(WAKE).load(Ordering::SeqCst) }
    }

    /// Wakes the threads of other processes that wait for a flush.
    pub(crate) fn wake_processes(&self) {
        // A process that died while it slept stays counted: then this costs a system call.
        if self.word(SLEEPERS).load(Ordering::SeqCst) != 0 {
            self.word(WAKE).fetch_add(1, Ordering::SeqCst);
            futex::wake_all(self.word(WAKE));
        }
    }

    /// How often a process has asked all to unmap their pages.
    #[inline]
    pub(crate) fn cache_drops(&self) -> u64 {
        self.word(CACHE_DROPS).load(Ordering::Relaxed)
    }

    /// Asks all processes to unmap their pages.
    pub(crate) fn ask_for_cache_drop(&self) {
        self.word(CACHE_DROPS).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a thread of any process that waits for a checkpoint, or counts it no more.
    pub(crate) fn count_checkpoint_waiter(&self, waits: bool) {
        let word = self.word(CHECKPOINT_WAITERS);
        match waits {
            true => word.fetch_add(1, Ordering::Relaxed),
            false => word.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether a thread of any process waits for a checkpoint. A process that died while it waited
    /// stays counted, and then checkpoints make no pauses.
    pub(crate) fn is_checkpoint_awaited(&self) -> bool {
        self.word(CHECKPOINT_WAITERS).load(Ordering::Relaxed) != 0
    }
}

/// A thread that is about to sleep until another process wakes it.
#[derive(Debug)]
pub(crate) struct Sleeper<'l> {
    live: &'l Live,
    seen: u64,
}

impl Sleeper<'_> {
    /// Sleeps until another process wakes all, unless one has since this was made.
    pub(crate) fn sleep(&self, limit: Duration) {
        futex::wait(self.live.word(WAKE), self.seen, limit);
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.live.word(SLEEPERS).fetch_sub(1, Ordering::SeqCst);
    }
}
