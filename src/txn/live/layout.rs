//! Where the live records lie, and how their words are stored.
//!
//! Floor: txn. The records begin a lock file, or a block of private memory. Each record that
//! several processes change often has a line of its own.
//!
//! ```text
//! word  0       header: magic, layout, device and inode of the data file, session,
//!               whether a flush had failed before
//!      16       latest
//!      32       durable
//!      48       published
//!      64       closed, flushed, appending, broken
//!      80       length, poison, flush mark, checkpoint mark, chunks of reader pages, process slots in use,
//!               requests to drop the page cache
//!      96       hints: wake counter, sleepers, last writer, waiters for a checkpoint
//!     112       cause of the poison, as text
//!     144       checkpoint record: counter, two copies
//!               ring of states
//!               process slots
//!               chunks of reader pages
//! ```
//!
//! A record of one word holds a number below 2^48 with a tag of 16 bits after it, and each longer
//! one has a checksum. So a word that no process has stored is found, for example in a lock file
//! that another program overwrote.
//!
//! Failure: `None` for a word without its tag.

use crate::mapping::LINE_WORDS;
use crate::txn::state::STATE_WORDS;

/// In the first word of a lock file: `mapleafL`.
pub(crate) const MAGIC_VALUE: u64 = u64::from_le_bytes(*b"mapleafL");
/// The layout that this release reads and writes.
pub(crate) const LAYOUT_VALUE: u64 = 2;

pub(crate) const MAGIC: usize = 0;
pub(crate) const LAYOUT: usize = 1;
pub(crate) const DEVICE: usize = 2;
pub(crate) const INODE: usize = 3;
pub(crate) const SESSION: usize = 4;
/// Not 0: a flush failed in an earlier session, from which no process has recovered yet (P20).
pub(crate) const FAILED_BEFORE: usize = 5;
pub(super) const LATEST: usize = LINE_WORDS;
pub(super) const DURABLE: usize = 2 * LINE_WORDS;
pub(super) const PUBLISHED: usize = 3 * LINE_WORDS;
pub(super) const CLOSED: usize = 4 * LINE_WORDS;
pub(super) const FLUSHED: usize = CLOSED + 1;
pub(super) const APPENDING: usize = CLOSED + 2;
pub(super) const BROKEN: usize = CLOSED + 3;
pub(super) const LENGTH: usize = 5 * LINE_WORDS;
pub(crate) const POISON: usize = LENGTH + 1;
pub(super) const FLUSH_MARK: usize = LENGTH + 2;
pub(super) const CHECKPOINT_MARK: usize = LENGTH + 3;
pub(super) const CHUNKS: usize = LENGTH + 4;
pub(super) const SLOTS_IN_USE: usize = LENGTH + 5;
/// Beside the poison, because each transaction reads both.
pub(super) const CACHE_DROPS: usize = LENGTH + 6;
pub(super) const WAKE: usize = 6 * LINE_WORDS;
pub(super) const SLEEPERS: usize = WAKE + 1;
pub(super) const LAST_WRITER: usize = WAKE + 2;
pub(super) const CHECKPOINT_WAITERS: usize = WAKE + 3;
pub(super) const CAUSE: usize = 7 * LINE_WORDS;
pub(super) const CAUSE_WORDS: usize = 2 * LINE_WORDS;
pub(super) const CHECKPOINT: usize = CAUSE + CAUSE_WORDS;
/// A copy of the checkpoint record: its words and their checksum.
pub(super) const COPY_WORDS: usize = CHECKPOINT_WORDS + 1;
pub(super) const CHECKPOINT_WORDS: usize = 4 + 1 + 1 + STATE_WORDS;
pub(super) const RING: usize = (CHECKPOINT + 1 + 2 * COPY_WORDS).next_multiple_of(LINE_WORDS);
/// An entry of the ring: its txn, the words of its state, their checksum, and its txn again.
pub(super) const ENTRY_WORDS: usize = STATE_WORDS + 3;
/// States that the ring holds.
pub(crate) const STATES: u64 = 64;
/// Words of all records before the process slots. Records in private memory end here.
pub(super) const PRIVATE_WORDS: usize = (RING + STATES as usize * ENTRY_WORDS).next_multiple_of(LINE_WORDS);

/// Processes that may have a file open at a time.
pub(crate) const PROCESSES: usize = 1024;
/// Words of a process slot: a cache line.
pub(super) const PROCESS_WORDS: usize = 8;
pub(super) const PROCESS_SLOTS: usize = PRIVATE_WORDS;
pub(super) const GENERATION: usize = 0;
pub(super) const PROCESS_ID: usize = 1;
pub(super) const WRITES: usize = 2;
/// Since when the process waits for the writer lock; 0: it does not.
pub(super) const WAITS_SINCE: usize = 3;
/// Words of the records and the process slots.
const SHARED_WORDS: usize = PROCESS_SLOTS + PROCESSES * PROCESS_WORDS;

/// Words of a reader page: a line for its owner, then a line for each slot.
pub(crate) const READER_PAGE_WORDS: usize = 512;
pub(crate) const READER_PAGE_BYTES: u64 = READER_PAGE_WORDS as u64 * 8;
/// The first word of the reader pages in a lock file, on a kernel page.
pub(crate) const READER_PAGES: usize = SHARED_WORDS.next_multiple_of(READER_PAGE_WORDS);

/// Words of a lock file that a process maps when it opens it: the records, and the first reader
/// page.
pub(crate) const MAPPED_WORDS: usize = READER_PAGES + READER_PAGE_WORDS;

/// The checksum of the words of a longer record.
pub(super) fn checksum(words: &[u64]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = [0; 8 * (CHECKPOINT_WORDS + 1)];
    for (into, word) in bytes.chunks_exact_mut(8).zip(words) {
        into.copy_from_slice(&word.to_le_bytes());
    }
    hasher.update(&bytes[..8 * words.len()]);
    u64::from(hasher.finalize()) | 1 << 32
}
