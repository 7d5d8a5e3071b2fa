//! Read-ahead: pages that are read from the disk before a reader waits for them.
//!
//! Floor: mapping. The mappings of a file and its descriptors are advised to be read at random, so
//! that its page cache stays in single pages (a store to a larger folio would be written back
//! whole), and the kernel reads nothing ahead by itself. What it is asked for by advice
//! (`POSIX_FADV_WILLNEED`), it starts to read at once, many requests at a time, waits for none, and
//! keeps in single pages. On a disk where one page takes 60 us, a hundred asked for together take
//! 1.3 ms, and a file in its order comes as fast as the disk gives.
//!
//! The first touch of a page is where it can be noticed that the page is cold. The file is looked
//! at in *chunks* of 64 KiB, each once. If a chunk is not all in memory, and the whole file would
//! fit, more than the page is asked for: at first the chunk, then, the more often that happens,
//! larger blocks around it, up to 2 MiB. So who looks up a few keys reads little, and who reads
//! many soon has the disk read at full speed. Where the file does not fit, a page that is read
//! ahead drives out one that is used: there nothing is read that nobody asked for.
//!
//! To ask the kernel for each page, so that one which cannot be read is an error and no signal,
//! costs more than to verify it. So who touches many pages has whole chunks brought in, and nothing
//! is asked for the other pages of such a chunk, as long as the file fits in memory.
//!
//! Invariants:
//!   AHEAD-1  nothing after the end of a snapshot is asked for, however long the file is.
//!   AHEAD-2  a chunk is read ahead once at most; pages of it that went again are read one by one.
//!
//! Failure: none. Advice that the kernel does not take costs time; a page that cannot be read is an
//! error of its reader.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Instant;

use crate::sys::page_cache;
use crate::sys::{memory, os};

/// Whether pages are read before they are needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ReadAhead {
    /// Scans read the leaves that come next; and as long as the whole file fits in memory (beside
    /// other programs, within the limits of the process's control groups), lookups read what is
    /// around a page that was not in memory: 64 KiB at first, up to 2 MiB when many pages were not.
    #[default]
    Auto,
    /// Each page is read when it is needed.
    Off,
}

/// What is looked at, and read ahead, at least.
pub(crate) const CHUNK_BYTES: u64 = 64 << 10;
/// The largest block that is read around a page.
const BLOCK_BYTES_MAX: u64 = 2 << 20;
/// Pieces found cold for each further chunk in a block.
const MISSES_PER_CHUNK: u64 = 8;
/// The part of a file's pages that is asked for here and there before what is around them is asked
/// for too. One such page of many takes as long as 3.4 pages in order (12.6 us and 3.7 us, virtual
/// disk): so a quarter is worth it always, and who has asked for half of the pages will most likely
/// want the rest.
const HERE_AND_THERE_ONE_OF: u64 = 2;
/// What is asked for in one call. The kernel cuts longer wishes to what it reads ahead by itself,
/// 128 KiB if nobody changed it.
const CALL_BYTES: u64 = 128 << 10;
/// Bits for chunks: twice as many as the file has, within these bounds (256 MiB and 64 GiB of
/// file). Pieces further on share bits with these.
const CHUNKS_MIN: u64 = 1 << 12;
const CHUNKS_MAX: u64 = 1 << 20;
/// First touches before it is worth asking how much memory there is.
const TOUCHES_BEFORE_CHUNKS: u64 = 1024;
/// How long a look at the memory that is left is believed.
const LOOK_MILLIS: u64 = 1000;

/// What is known of a file for reading ahead; shared by all its windows.
pub(crate) struct Ahead {
    file: Arc<File>,
    /// Whether the file lies on a disk at all.
    has_disk: bool,
    reads: AtomicBool,
    /// Pieces that were looked at: they were in memory, or were asked for.
    looked_at: Box<[AtomicU64]>,
    /// Pieces of which every page could be read.
    brought: Box<[AtomicU64]>,
    /// First touches that came to where a chunk could have been brought in.
    touches: AtomicU64,
    misses: AtomicU64,
    /// Pages that were asked for in batches, one here and one there.
    here_and_there: AtomicU64,
    pub(super) room: Room,
}

/// The memory that a page cache can take, looked at from time to time.
pub(super) struct Room {
    since: Instant,
    /// When to look again, in milliseconds.
    pub(super) until: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Room {
    /// Whether a file of so many bytes fits in memory and leaves some.
    fn has(&self, bytes: u64) -> bool {
        let now = self.since.elapsed().as_millis() as u64;
        if now >= self.until.load(Ordering::Relaxed) {
            self.until.store(now + LOOK_MILLIS, Ordering::Relaxed);
            self.bytes.store(memory::available_bytes().unwrap_or(0), Ordering::Relaxed);
        }
        self.had(bytes)
    }

    /// What `has` would have said when it last looked.
    fn had(&self, bytes: u64) -> bool {
        bytes <= self.bytes.load(Ordering::Relaxed) / 4 * 3
    }

    /// Whether it is known, without a look, that a file of so many bytes does not fit.
    fn lately_lacked(&self, bytes: u64) -> bool {
        let now = self.since.elapsed().as_millis() as u64;
        now < self.until.load(Ordering::Relaxed) && !self.had(bytes)
    }
}

impl Ahead {
    /// For a file of `len` bytes, on a disk or not.
    pub(super) fn new(file: &Arc<File>, len: u64, has_disk: bool) -> Ahead {
        let chunks = (len / CHUNK_BYTES * 2).next_power_of_two().clamp(CHUNKS_MIN, CHUNKS_MAX);
        let bits = || (0..chunks / 64).map(|_| AtomicU64::new(0)).collect();
        Ahead {
            file: Arc::clone(file),
            has_disk,
            reads: AtomicBool::new(has_disk),
            looked_at: bits(),
            brought: bits(),
            touches: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            here_and_there: AtomicU64::new(0),
            room: Room { since: Instant::now(), until: AtomicU64::new(0), bytes: AtomicU64::new(0) },
        }
    }

    pub(super) fn set(&self, read_ahead: ReadAhead) {
        self.reads.store(self.has_disk && read_ahead != ReadAhead::Off, Ordering::Relaxed);
    }

    /// Whether pages are read before they are needed.
    pub(crate) fn reads(&self) -> bool {
        self.reads.load(Ordering::Relaxed)
    }

    /// Whether what is around a page is read too: the whole file, of which `end` bytes are in use,
    /// fits in memory.
    pub(crate) fn reads_around(&self, end: u64) -> bool {
        self.reads() && self.room.has(end)
    }

    pub(super) fn has_disk(&self) -> bool {
        self.has_disk
    }

    /// Counts pages that are asked for here and there; whether they were so many of `page_count`
    /// that the rest is better read in order.
    pub(crate) fn is_read_here_and_there(&self, more: u64, page_count: u64) -> bool {
        let asked = self.here_and_there.fetch_add(more, Ordering::Relaxed);
        asked.saturating_mul(HERE_AND_THERE_ONE_OF) > page_count
    }

    /// Whether the chunk at this offset was found in memory or asked for.
    pub(crate) fn was_looked_at(&self, offset: u64) -> bool {
        self.is_looked_at(offset / CHUNK_BYTES)
    }

    /// Whether a range is in memory or on its way there; where the kernel cannot say, it is.
    pub(crate) fn is_resident(&self, offset: u64, len: u64) -> bool {
        let system = os::page_bytes();
        let pages = offset.saturating_add(len).div_ceil(system) - offset / system;
        !self.has_disk || page_cache::cached_pages(&self.file, offset, len).map_or(true, |cached| cached >= pages)
    }

    /// A page at this offset is about to be touched for the first time; the state that it belongs
    /// to ends at `end`. If it is cold, asks for it, and for what is around it if there is room.
    /// Whether it is there now, or on its way; it may also have been, and gone again.
    ///
    /// How much room there is takes reading some twenty files of the kernel, so it is not asked for
    /// the sake of a page that is there.
    pub(crate) fn touch(&self, offset: u64, end: u64) -> bool {
        if !self.reads() || self.room.lately_lacked(end) {
            return false;
        }
        self.is_looked_at(offset / CHUNK_BYTES) || self.look_at(offset, end)
    }

    /// Whether the page at this offset was read with all of its chunk, and has hardly left memory
    /// since.
    pub(crate) fn was_brought(&self, offset: u64, end: u64) -> bool {
        let brought = self.brought_bit(offset / CHUNK_BYTES);
        brought.is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0) && self.room.has(end)
    }

    /// Where the chunk of a page begins, all of which is in memory or on its way there, if it is
    /// worth to have it brought in.
    pub(crate) fn chunk_to_bring(&self, offset: u64, end: u64) -> Option<u64> {
        let touches = self.touches.load(Ordering::Relaxed);
        self.touches.store(touches.saturating_add(1), Ordering::Relaxed);
        let chunk = offset / CHUNK_BYTES;
        let worth = touches >= TOUCHES_BEFORE_CHUNKS && self.brought_bit(chunk).is_some();
        // One that the state ends in would be another one in the next state.
        let whole = chunk * CHUNK_BYTES + CHUNK_BYTES <= end;
        (worth && whole && self.is_looked_at(chunk) && self.room.has(end)).then_some(chunk * CHUNK_BYTES)
    }

    /// Every page of the chunk at this offset was read, or one of them cannot be. Then others are
    /// brought in one by one for a while, or all of the chunk would be tried again for each of its
    /// pages.
    pub(crate) fn note_brought(&self, offset: u64, all: bool) {
        match self.brought_bit(offset / CHUNK_BYTES) {
            Some((word, bit)) if all => {
                word.fetch_or(bit, Ordering::Relaxed);
            }
            _ => self.touches.store(0, Ordering::Relaxed),
        }
    }

    /// Pages leave memory.
    fn forget_brought(&self) {
        self.brought.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// The bit of a chunk, if it has one for itself: chunks far in the file share the others with
    /// these.
    fn brought_bit(&self, chunk: u64) -> Option<(&AtomicU64, u64)> {
        (chunk < self.brought.len() as u64 * 64).then(|| cell(&self.brought, chunk))
    }

    fn is_looked_at(&self, chunk: u64) -> bool {
        let (word, bit) = cell(&self.looked_at, chunk);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// Whether this is the first look at a chunk.
    fn take(&self, chunk: u64) -> bool {
        let (word, bit) = cell(&self.looked_at, chunk);
        word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn look_at(&self, offset: u64, end: u64) -> bool {
        let chunk = offset / CHUNK_BYTES;
        let from = chunk * CHUNK_BYTES;
        let to = (from + CHUNK_BYTES).min(end);
        if self.is_resident(from, to.saturating_sub(from)) {
            self.take(chunk);
            return true;
        }
        // The page may have been asked for, and its neighbours not.
        if self.is_resident(offset, 1) {
            return true;
        }
        if !self.room.has(end) {
            return false;
        }
        if !self.take(chunk) {
            return true;
        }
        let misses = self.misses.fetch_add(1, Ordering::Relaxed);
        // A reader that waits for the page waits only for its chunk.
        self.request(from, to - from);
        let block_chunks = (1 + misses / MISSES_PER_CHUNK).min(BLOCK_BYTES_MAX / CHUNK_BYTES);
        let block_chunks = 1 << block_chunks.ilog2();
        let first = chunk / block_chunks * block_chunks;
        let behind = (first + block_chunks).min(end.div_ceil(CHUNK_BYTES));
        let mut extent = first..first;
        for chunk in first..behind {
            if self.take(chunk) {
                extent.end = chunk + 1;
            } else {
                self.request_chunks(extent, end);
                extent = chunk + 1..chunk + 1;
            }
        }
        self.request_chunks(extent, end);
        true
    }

    fn request_chunks(&self, chunks: std::ops::Range<u64>, end: u64) {
        let (from, to) = (chunks.start * CHUNK_BYTES, (chunks.end * CHUNK_BYTES).min(end));
        self.request(from, to.saturating_sub(from));
    }

    /// Drops clean pages of a range that nobody has mapped.
    pub(super) fn drop_cache(&self, offset: u64, len: u64) -> io::Result<()> {
        self.forget_brought();
        page_cache::drop_cache(&self.file, offset, len)
    }

    /// Asks for a range of the file, of which a reader will soon need all, and waits for nothing.
    pub(crate) fn request(&self, offset: u64, len: u64) {
        if self.has_disk {
            for from in (offset..offset.saturating_add(len)).step_by(CALL_BYTES as usize) {
                page_cache::will_need(&self.file, from, CALL_BYTES.min(offset + len - from));
            }
        }
    }
}

/// The bit of a chunk.
fn cell(bits: &[AtomicU64], chunk: u64) -> (&AtomicU64, u64) {
    let bit = chunk % (bits.len() as u64 * 64);
    (&bits[(bit / 64) as usize], 1 << (bit % 64))
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("reads", &self.reads()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::direct_io;
    use crate::sys::file_calls;

    const MIB: u64 = 1 << 20;

    /// A file of which nothing is in memory, read ahead as if so many bytes fitted; `None` where
    /// files live in memory.
    fn cold(len: u64, room: u64) -> Option<(Ahead, Arc<File>)> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        os::advise_random(&file);
        std::io::Write::write_all(&mut &*file, &vec![7; len as usize]).unwrap();
        file.sync_all().unwrap();
        if file_calls::lives_in_memory(&file) || !direct_io::forget_cache(&file).unwrap() {
            return None;
        }
        let ahead = Ahead::new(&file, len, true);
        ahead.set_room(room);
        Some((ahead, file))
    }

    #[test]
    fn what_is_around_a_cold_page_is_asked_for_up_to_the_end_of_the_state() {
        let Some((ahead, file)) = cold(4 * MIB, 100 * MIB) else { return };
        let cached = |from, len| page_cache::cached_pages(&file, from, len).unwrap();
        let end = MIB + 3 * 4096;
        ahead.touch(MIB + 4096, end);
        assert_eq!((cached(MIB, 3 * 4096), cached(0, 4 * MIB)), (3, 3), "a chunk, cut at the end of the state");
        for page in 0..end / 4096 {
            ahead.touch(page * 4096, end);
        }
        assert_eq!(
            (cached(0, end), cached(0, 4 * MIB)),
            (end / 4096, end / 4096),
            "all of the state, and nothing else"
        );
        // Nothing more is asked for when pages go, and offsets after everything are no matter.
        // Reading waits for what is on its way.
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut vec![0; end as usize], 0).unwrap();
        assert!(direct_io::forget_cache(&file).unwrap());
        ahead.touch(0, end);
        ahead.touch(1 << 60, end);
        ahead.request(1 << 62, 1 << 20);
        assert_eq!(cached(0, 4 * MIB), 0);
    }

    #[test]
    fn blocks_grow_with_the_pages_that_were_cold() {
        let Some((ahead, file)) = cold(64 * MIB, 100 * MIB) else { return };
        let mut last = 0;
        for n in 0..64 {
            ahead.touch(n * MIB, 64 * MIB);
            let cached = page_cache::cached_pages(&file, n * MIB, MIB).unwrap() * 4096;
            assert!(cached >= last && cached >= CHUNK_BYTES, "{n}: {cached} after {last}");
            last = cached;
        }
        assert!(last >= 8 * CHUNK_BYTES, "{last}");
    }

    #[test]
    fn nothing_is_read_ahead_where_it_does_not_fit_or_is_not_wanted() {
        let Some((ahead, file)) = cold(4 * MIB, 4 * MIB) else { return };
        let cached = || page_cache::cached_pages(&file, 0, 4 * MIB).unwrap();
        ahead.touch(0, 4 * MIB);
        assert_eq!(cached(), 0, "three quarters of the room are less than the file");
        ahead.set_room(100 * MIB);
        ahead.set(ReadAhead::Off);
        ahead.touch(0, 4 * MIB);
        assert_eq!(cached(), 0);
        ahead.set(ReadAhead::Auto);
        ahead.touch(0, 4 * MIB);
        assert_eq!(cached() * os::page_bytes(), CHUNK_BYTES);
    }

    #[test]
    fn whole_chunks_are_read_after_many_touches_and_where_the_file_fits() {
        let Some((ahead, _file)) = cold(4 * MIB, 100 * MIB) else { return };
        let end = MIB + 3 * 4096;
        for _ in 0..TOUCHES_BEFORE_CHUNKS {
            assert_eq!(ahead.chunk_to_bring(0, end), None);
        }
        assert_eq!(ahead.chunk_to_bring(0, end), None, "nobody has looked at it");
        ahead.touch(5000, end);
        ahead.touch(MIB, end);
        assert_eq!(ahead.chunk_to_bring(5000, end), Some(0));
        assert!(!ahead.was_brought(5000, end));
        ahead.note_brought(5000, true);
        assert!(ahead.was_brought(4096, end) && !ahead.was_brought(CHUNK_BYTES, end));
        ahead.set_room(MIB);
        assert!(!ahead.was_brought(5000, end), "it may have gone");
        assert_eq!(ahead.chunk_to_bring(5000, end), None);
        ahead.set_room(100 * MIB);
        ahead.drop_cache(0, MIB).unwrap();
        assert!(!ahead.was_brought(5000, end), "it has gone");
        ahead.note_brought(5000, false);
        assert_eq!(ahead.chunk_to_bring(5000, end), None, "a page that cannot be read is not tried again at once");
    }

    #[test]
    fn a_chunk_that_the_state_ends_in_is_not_read_as_a_whole() {
        let Some((ahead, _file)) = cold(4 * MIB, 100 * MIB) else { return };
        let end = MIB + 3 * 4096;
        ahead.touch(MIB, end);
        (0..TOUCHES_BEFORE_CHUNKS).for_each(|_| assert_eq!(ahead.chunk_to_bring(MIB, end), None));
        assert_eq!(ahead.chunk_to_bring(MIB, end), None);
    }

    #[test]
    fn chunks_that_share_bits_are_not_taken_for_each_other() {
        let Some((ahead, _file)) = cold(4 * MIB, 1 << 40) else { return };
        ahead.note_brought(0, true);
        let far = CHUNKS_MIN * CHUNK_BYTES;
        assert!(ahead.was_brought(0, far) && !ahead.was_brought(far, far + CHUNK_BYTES));
    }
}
