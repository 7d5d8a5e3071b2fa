//! Read-ahead: reads pages from the disk before a reader has to wait for them.
//!
//! Floor: mapping. The mappings and descriptors of a file are advised to be read at random, for two
//! reasons: its page cache stays in single pages (a store to a larger folio would write back all of
//! it), and the kernel reads nothing ahead by itself. Read-ahead is done here instead, by advice
//! (`POSIX_FADV_WILLNEED`). The kernel starts such reads at once, many at a time, waits for none,
//! and caches single pages. On a disk where one page takes 60 us, a hundred that are requested
//! together take 1.3 ms, and a file that is requested in order is read at the disk's full speed.
//!
//! **Around cold pages.** The first touch of a page shows whether it is cold. The file is examined
//! in *chunks* of 64 KiB, each once. If a chunk is not all in memory, and the whole file would fit
//! in memory, more than the page is requested: at first the chunk, then, as more cold chunks are
//! found, larger blocks around it, up to 2 MiB. So a reader of a few keys reads little, and for a
//! reader of many keys the disk is soon read at full speed. If the file does not fit in memory, a
//! page that is read ahead would evict a page in use; then only pages that a reader needs are read.
//!
//! **Loading chunks.** Before the first touch of a page, a system call brings it into memory, so
//! that an unreadable page is an error and not a signal. That call costs more than verifying the
//! page. So after many touches, one call loads a whole chunk, and its other pages need no call as
//! long as the file fits in memory.
//!
//! Invariants:
//!   AHEAD-1  nothing past the end of a snapshot's state is requested, however long the file is.
//!   AHEAD-2  a chunk is read ahead at most once, until Mapleaf itself drops the file from memory.
//!            Pages that the kernel evicts are read one by one.
//!
//! Failure: none. If the kernel ignores the advice, reads only take longer. An unreadable page is
//! an error of its reader.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Instant;

use crate::sys::{available_memory, call, page_cache};

/// Whether lookups and scans read pages before they are needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ReadAhead {
    /// Scans read the next leaves ahead. As long as the whole file fits in memory (next to other
    /// programs, and within the limits of the process's control groups), lookups also read the
    /// surroundings of a page that was not in memory: 64 KiB at first, up to 2 MiB after many such
    /// pages.
    #[default]
    Auto,
    /// Lookups of one key and scans read each page when it is needed.
    /// [`multi_get`](crate::ReadTable::multi_get) still requests the pages of its keys together,
    /// and a range with [`fill_cache(false)`](crate::Range::fill_cache) its next leaves.
    Off,
}

/// The unit that is examined and read ahead.
pub(crate) const CHUNK_BYTES: u64 = 64 << 10;
/// The largest block that is read around a page.
const BLOCK_BYTES_MAX: u64 = 2 << 20;
/// The block around a cold page grows by one chunk after this many cold chunks.
const MISSES_PER_CHUNK: u64 = 8;
/// When one page in this many of the file was requested at random, reading the rest sequentially is
/// better. A random page takes as long as 3.4 sequential ones (12.6 us and 3.7 us, virtual disk),
/// so reading everything is faster from a quarter of the pages on; and a reader that has requested
/// half of the pages probably wants the rest.
const SCAN_ONE_OF: u64 = 2;
/// Bytes per request. The kernel shortens longer requests to its own read-ahead size, by default
/// 128 KiB.
const CALL_BYTES: u64 = 128 << 10;
/// Number of bits for chunks: twice the chunks of the file, within these bounds (256 MiB and 64 GiB
/// of file). Chunks beyond them share bits with others.
const CHUNKS_MIN: u64 = 1 << 12;
const CHUNKS_MAX: u64 = 1 << 20;
/// First touches of pages before whole chunks are loaded.
const TOUCHES_BEFORE_CHUNKS: u64 = 1024;
/// How long the amount of available memory is cached.
const REFRESH_MILLIS: u64 = 1000;

/// The read-ahead of one file, shared by all its windows.
pub(crate) struct Ahead {
    file: Arc<File>,
    /// Whether the file is on a disk, not in memory.
    has_disk: bool,
    reads: AtomicBool,
    /// Chunks that were examined: they were in memory, or were requested.
    examined: Box<[AtomicU64]>,
    /// Chunks of which every page was read without an error.
    loaded: Box<[AtomicU64]>,
    /// First touches at which a chunk could have been loaded.
    touches: AtomicU64,
    misses: AtomicU64,
    /// Pages that were requested in batches at random.
    random_requests: AtomicU64,
    pub(super) room: Room,
}

/// The memory available for the page cache, refreshed from time to time.
pub(super) struct Room {
    since: Instant,
    /// When to read it again, in milliseconds after `since`.
    pub(super) until: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Room {
    /// Whether a file of `bytes` fits in three quarters of the available memory.
    fn has(&self, bytes: u64) -> bool {
        let now = self.since.elapsed().as_millis() as u64;
        if now >= self.until.load(Ordering::Relaxed) {
            self.until.store(now + REFRESH_MILLIS, Ordering::Relaxed);
            self.bytes.store(available_memory::available_bytes().unwrap_or(0), Ordering::Relaxed);
        }
        self.had(bytes)
    }

    /// Like `has`, with the cached amount.
    fn had(&self, bytes: u64) -> bool {
        bytes <= self.bytes.load(Ordering::Relaxed) / 4 * 3
    }

    /// Whether the cached amount is fresh and a file of `bytes` does not fit.
    fn known_to_lack(&self, bytes: u64) -> bool {
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
            examined: bits(),
            loaded: bits(),
            touches: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            random_requests: AtomicU64::new(0),
            room: Room { since: Instant::now(), until: AtomicU64::new(0), bytes: AtomicU64::new(0) },
        }
    }

    pub(super) fn set(&self, read_ahead: ReadAhead) {
        self.reads.store(self.has_disk && read_ahead != ReadAhead::Off, Ordering::Relaxed);
    }

    /// Whether lookups and scans read pages before they are needed.
    pub(crate) fn reads(&self) -> bool {
        self.reads.load(Ordering::Relaxed)
    }

    /// Whether pages around a requested one are read too: the whole file, of which `end` bytes are
    /// in use, fits in memory.
    pub(crate) fn reads_around(&self, end: u64) -> bool {
        self.reads() && self.room.has(end)
    }

    pub(super) fn has_disk(&self) -> bool {
        self.has_disk
    }

    /// Counts `more` pages that are requested at random. Returns whether so many of `page_count`
    /// pages were requested that reading the rest sequentially is better.
    pub(crate) fn counts_as_scan(&self, more: u64, page_count: u64) -> bool {
        let asked = self.random_requests.fetch_add(more, Ordering::Relaxed);
        asked.saturating_mul(SCAN_ONE_OF) > page_count
    }

    /// Whether the chunk at this offset was in memory or requested at some time.
    pub(crate) fn was_examined(&self, offset: u64) -> bool {
        self.is_examined(offset / CHUNK_BYTES)
    }

    /// Whether a range is in memory or being read. True if the kernel cannot tell.
    pub(crate) fn is_resident(&self, offset: u64, len: u64) -> bool {
        let system = call::page_bytes();
        let pages = offset.saturating_add(len).div_ceil(system) - offset / system;
        !self.has_disk || page_cache::cached_pages(&self.file, offset, len).map_or(true, |cached| cached >= pages)
    }

    /// Called before a page at this offset is touched for the first time, in a state that ends at
    /// `end`. If the page is cold and the file fits in memory, requests its chunk and a block
    /// around it. Returns whether the page was in memory or requested at some time; it may have
    /// been evicted since.
    ///
    /// Reading the amount of available memory opens some twenty files of the kernel, so this is not
    /// done for a page in memory.
    pub(crate) fn touch(&self, offset: u64, end: u64) -> bool {
        if !self.reads() || self.room.known_to_lack(end) {
            return false;
        }
        self.is_examined(offset / CHUNK_BYTES) || self.examine(offset, end)
    }

    /// Whether the page at this offset was loaded with its whole chunk and the file fits in memory,
    /// so that the page was probably not evicted since.
    pub(crate) fn was_loaded(&self, offset: u64, end: u64) -> bool {
        let loaded = self.loaded_bit(offset / CHUNK_BYTES);
        loaded.is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0) && self.room.has(end)
    }

    /// The start of the chunk of a page, if the chunk is worth loading as a whole: many pages were
    /// touched, and the chunk is in memory or requested.
    pub(crate) fn chunk_to_load(&self, offset: u64, end: u64) -> Option<u64> {
        let touches = self.touches.load(Ordering::Relaxed);
        self.touches.store(touches.saturating_add(1), Ordering::Relaxed);
        let chunk = offset / CHUNK_BYTES;
        let worth = touches >= TOUCHES_BEFORE_CHUNKS && self.loaded_bit(chunk).is_some();
        // Not for the chunk in which the state ends: in the next state it has more pages.
        let whole = chunk * CHUNK_BYTES + CHUNK_BYTES <= end;
        (worth && whole && self.is_examined(chunk) && self.room.has(end)).then_some(chunk * CHUNK_BYTES)
    }

    /// Records whether loading the chunk at this offset read all of its pages. If a page could not
    /// be read, pages are read one by one for a while; otherwise each page of the chunk would try
    /// to load the whole chunk again.
    pub(crate) fn note_loaded(&self, offset: u64, all: bool) {
        match self.loaded_bit(offset / CHUNK_BYTES) {
            Some((word, bit)) if all => {
                word.fetch_or(bit, Ordering::Relaxed);
            }
            _ => self.touches.store(0, Ordering::Relaxed),
        }
    }

    /// Forgets which chunks were loaded: their pages are about to leave memory.
    fn forget_loaded(&self) {
        self.loaded.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Forgets which chunks were examined: the whole file was dropped from memory.
    pub(super) fn forget_examined(&self) {
        self.examined.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    #[cfg(test)]
    pub(super) fn mark_all_examined(&self) {
        self.examined.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    }

    /// The bit of a chunk in `loaded`, if no earlier chunk has the same bit.
    fn loaded_bit(&self, chunk: u64) -> Option<(&AtomicU64, u64)> {
        (chunk < self.loaded.len() as u64 * 64).then(|| cell(&self.loaded, chunk))
    }

    /// Whether a chunk was examined, or another one with the same bit.
    fn is_examined(&self, chunk: u64) -> bool {
        let (word, bit) = cell(&self.examined, chunk);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// Marks a chunk as examined. Returns whether it was not before.
    fn mark_examined(&self, chunk: u64) -> bool {
        let (word, bit) = cell(&self.examined, chunk);
        word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// [`Ahead::touch`] of a page in a chunk that was not examined.
    fn examine(&self, offset: u64, end: u64) -> bool {
        let chunk = offset / CHUNK_BYTES;
        let from = chunk * CHUNK_BYTES;
        let to = (from + CHUNK_BYTES).min(end);
        if self.is_resident(from, to.saturating_sub(from)) {
            self.mark_examined(chunk);
            return true;
        }
        // The page may have been requested without the rest of its chunk.
        if self.is_resident(offset, 1) {
            return true;
        }
        if !self.room.has(end) {
            return false;
        }
        if !self.mark_examined(chunk) {
            return true;
        }
        let misses = self.misses.fetch_add(1, Ordering::Relaxed);
        // The chunk first, so that the reader waits only for this request.
        self.request(from, to - from);
        self.request_block(chunk, misses, end);
        true
    }

    /// Requests a block around a chunk, without the chunks in it that were examined. The more
    /// chunks were cold (`misses`), the larger is the block.
    fn request_block(&self, chunk: u64, misses: u64, end: u64) {
        let block_chunks = (1 + misses / MISSES_PER_CHUNK).min(BLOCK_BYTES_MAX / CHUNK_BYTES);
        let block_chunks = 1 << block_chunks.ilog2();
        let first = chunk / block_chunks * block_chunks;
        let block_end = (first + block_chunks).min(end.div_ceil(CHUNK_BYTES));
        let mut chunks = first..first;
        for chunk in first..block_end {
            if self.mark_examined(chunk) {
                chunks.end = chunk + 1;
            } else {
                self.request_chunks(chunks, end);
                chunks = chunk + 1..chunk + 1;
            }
        }
        self.request_chunks(chunks, end);
    }

    fn request_chunks(&self, chunks: Range<u64>, end: u64) {
        let (from, to) = (chunks.start * CHUNK_BYTES, (chunks.end * CHUNK_BYTES).min(end));
        self.request(from, to.saturating_sub(from));
    }

    /// Drops the clean pages of a range from the page cache, unless a program has them mapped.
    pub(super) fn drop_cache(&self, offset: u64, len: u64) -> io::Result<()> {
        self.forget_loaded();
        page_cache::drop_cache(&self.file, offset, len)
    }

    /// Requests a range of the file, all of which a reader will soon need. Does not wait.
    pub(crate) fn request(&self, offset: u64, len: u64) {
        if self.has_disk {
            for from in (offset..offset.saturating_add(len)).step_by(CALL_BYTES as usize) {
                page_cache::will_need(&self.file, from, CALL_BYTES.min(offset + len - from));
            }
        }
    }
}

/// The word and the bit of a chunk. Chunks may share a bit.
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

    /// A file with no page in memory, read ahead as if `room` bytes fitted; `None` if files have no
    /// disk.
    fn cold(len: u64, room: u64) -> Option<(Ahead, Arc<File>)> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        page_cache::advise_random(&file);
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
    fn chunks_around_a_cold_page_are_requested_up_to_the_end_of_the_state() {
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
        // Evicted pages are not requested again, and offsets past the end are ignored. Wait first
        // for reads in progress.
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut vec![0; end as usize], 0).unwrap();
        assert!(direct_io::forget_cache(&file).unwrap());
        ahead.touch(0, end);
        ahead.touch(1 << 60, end);
        ahead.request(1 << 62, 1 << 20);
        assert_eq!(cached(0, 4 * MIB), 0);
    }

    #[test]
    fn blocks_grow_with_the_number_of_cold_chunks() {
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
    fn nothing_is_read_ahead_if_it_does_not_fit_or_is_off() {
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
        assert_eq!(cached() * call::page_bytes(), CHUNK_BYTES);
    }

    #[test]
    fn whole_chunks_are_loaded_after_many_touches_if_the_file_fits() {
        let Some((ahead, _file)) = cold(4 * MIB, 100 * MIB) else { return };
        let end = MIB + 3 * 4096;
        for _ in 0..TOUCHES_BEFORE_CHUNKS {
            assert_eq!(ahead.chunk_to_load(0, end), None);
        }
        assert_eq!(ahead.chunk_to_load(0, end), None, "it was not examined");
        ahead.touch(5000, end);
        ahead.touch(MIB, end);
        assert_eq!(ahead.chunk_to_load(5000, end), Some(0));
        assert!(!ahead.was_loaded(5000, end));
        ahead.note_loaded(5000, true);
        assert!(ahead.was_loaded(4096, end) && !ahead.was_loaded(CHUNK_BYTES, end));
        ahead.set_room(MIB);
        assert!(!ahead.was_loaded(5000, end), "it may have gone");
        assert_eq!(ahead.chunk_to_load(5000, end), None);
        ahead.set_room(100 * MIB);
        ahead.drop_cache(0, MIB).unwrap();
        assert!(!ahead.was_loaded(5000, end), "it has gone");
        ahead.note_loaded(5000, false);
        assert_eq!(ahead.chunk_to_load(5000, end), None, "a page that cannot be read is not tried again at once");
    }

    #[test]
    fn a_chunk_in_which_the_state_ends_is_not_loaded_as_a_whole() {
        let Some((ahead, _file)) = cold(4 * MIB, 100 * MIB) else { return };
        let end = MIB + 3 * 4096;
        ahead.touch(MIB, end);
        (0..TOUCHES_BEFORE_CHUNKS).for_each(|_| assert_eq!(ahead.chunk_to_load(MIB, end), None));
        assert_eq!(ahead.chunk_to_load(MIB, end), None);
    }

    #[test]
    fn chunks_with_the_same_bit_are_not_confused() {
        let Some((ahead, _file)) = cold(4 * MIB, 1 << 40) else { return };
        ahead.note_loaded(0, true);
        let far = CHUNKS_MIN * CHUNK_BYTES;
        assert!(ahead.was_loaded(0, far) && !ahead.was_loaded(far, far + CHUNK_BYTES));
    }
}
