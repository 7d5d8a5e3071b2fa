//! Reader pages: where reader slots lie, and which process owns them.
//!
//! Floor: txn.
//!
//! ```text
//! chunk        reader pages, added on demand and never removed; in the lock file or in private memory
//! reader page  a line for its owner, a process, and a line for each of its slots
//! slot         a word in its line, and in private memory what its last transaction has cached
//! ```
//!
//! The private part of a slot is made when a transaction first takes the slot: most processes use
//! few of the slots of their first page.
//!
//! A process uses only slots of pages that it owns. It keeps these pages to its end, so a reader
//! finds its slot without a lock.
//!
//! Invariants:
//!   RPAGE-1  a page changes its owner by one compare-and-swap: from none, or from a process that
//!            has died. The slots of a page without an owner do not count. A new owner frees them
//!            all before it uses one.
//!
//! Failure: `io::Error` if the lock file cannot get longer, or its pages cannot be mapped.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::mapping::owned_cell;
use crate::mapping::{RecordLine, RecordMemory, LINE_WORDS};
use crate::sys::locks;
use crate::txn::live::layout::{PROCESSES, READER_PAGES, READER_PAGE_WORDS};
use crate::txn::live::{Live, Process};
use crate::txn::processes::descriptor::{LockDescriptor, ProcessLock};
use crate::txn::processes::lock_file::LockFile;
use crate::txn::processes::presence::FileLock;
use crate::txn::read::slot::{ReaderSlot, SlotCache};

/// Slots of a reader page.
pub(super) const PAGE_SLOTS: usize = READER_PAGE_WORDS / LINE_WORDS - 1;
/// Slots of the first chunk, which is one page. Each further chunk has twice as many slots as the
/// one before it.
pub(super) const FIRST_CHUNK: usize = PAGE_SLOTS;
pub(crate) const CHUNKS: usize = 18;
/// The owner of a page that no process owns. Not 0: a lock file that was cut reads as zeros.
pub(crate) const NO_OWNER: u64 = u64::MAX;
/// The owner of all pages in private memory.
const ALONE: u64 = 1;
/// Some reader pages, and what this process has cached in their slots.
#[derive(Debug)]
struct Chunk {
    memory: Arc<RecordMemory>,
    /// The first word of its first page.
    start: usize,
    slots: Box<[OnceLock<Arc<ReaderSlot>>]>,
    /// For each page, whether this process owns it.
    owned: Box<[AtomicBool]>,
}

impl Chunk {
    /// The chunk of so many pages that begins at a word of `memory`.
    fn new((memory, start): (Arc<RecordMemory>, usize), pages: usize) -> Chunk {
        let slots = (0..pages * PAGE_SLOTS).map(|_| OnceLock::new()).collect();
        let owned = (0..pages).map(|_| AtomicBool::new(false)).collect();
        Chunk { memory, start, slots, owned }
    }

    fn pages(&self) -> usize {
        self.owned.len()
    }

    /// The process that owns a page, or [`NO_OWNER`].
    fn owner(&self, page: usize) -> u64 {
        self.memory[self.start + page * READER_PAGE_WORDS].load(Ordering::SeqCst)
    }

    /// Changes the owner of a page, if it still is `from`.
    fn change_owner(&self, page: usize, from: u64, to: u64) -> bool {
        let word = &self.memory[self.start + page * READER_PAGE_WORDS];
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The first word of a slot.
    fn line_of(&self, index: usize) -> usize {
        let (page, offset) = (index / PAGE_SLOTS, index % PAGE_SLOTS);
        self.start + page * READER_PAGE_WORDS + (1 + offset) * LINE_WORDS
    }

    /// The words of the slots of a page.
    fn words_of(&self, page: usize) -> impl Iterator<Item = SlotWords<'_>> {
        (page * PAGE_SLOTS..(page + 1) * PAGE_SLOTS).map(|index| {
            let line = self.line_of(index);
            SlotWords(&self.memory[line..line + LINE_WORDS])
        })
    }

    /// A slot, which is made on first use.
    fn slot(&self, index: usize) -> &Arc<ReaderSlot> {
        self.slots[index].get_or_init(|| {
            let line = RecordLine::of(&self.memory, self.line_of(index));
            Arc::new(ReaderSlot::new(SlotCache::default(), line))
        })
    }

    /// The slots of a page that were made.
    fn made_slots_of(&self, page: usize) -> impl Iterator<Item = &Arc<ReaderSlot>> {
        self.slots[page * PAGE_SLOTS..(page + 1) * PAGE_SLOTS].iter().filter_map(OnceLock::get)
    }
}

/// The words of a slot, of this process or another one.
pub(super) struct SlotWords<'a>(&'a [AtomicU64]);

impl SlotWords<'_> {
    /// The word that the owner of the slot shows, or [`FREE`](owned_cell::FREE).
    pub(super) fn word(&self) -> u64 {
        self.0[0].load(Ordering::Acquire)
    }

    /// The words that the owner has stored beside it.
    pub(super) fn notes(&self) -> [u64; LINE_WORDS - 1] {
        std::array::from_fn(|index| self.0[1 + index].load(Ordering::Relaxed))
    }

    /// Frees the slot. Before any owner takes it.
    fn reset(&self) {
        self.0[0].store(owned_cell::FREE, Ordering::SeqCst);
    }
}

/// Where the reader pages of a member lie.
#[derive(Debug)]
struct SharedPages {
    lock_file: Arc<LockFile>,
    descriptor: Arc<LockDescriptor>,
    own: Process,
    /// Held by a thread that makes the lock file longer.
    lengthening: Mutex<()>,
}

/// The reader pages of one open database.
pub(super) struct ReaderPages {
    pub(super) live: Live,
    /// `None`: the pages are private.
    shared: Option<SharedPages>,
    chunks: [OnceLock<Chunk>; CHUNKS],
}

impl ReaderPages {
    pub(super) fn new(live: &Live, lock: Option<&FileLock>) -> ReaderPages {
        let shared = lock.and_then(|lock| {
            let (own, lock_file) = lock.member()?;
            let (lock_file, descriptor) = (Arc::clone(lock_file), Arc::clone(lock.descriptor()));
            Some(SharedPages { lock_file, descriptor, own, lengthening: Mutex::new(()) })
        });
        ReaderPages { live: live.clone(), shared, chunks: std::array::from_fn(|_| OnceLock::new()) }
    }

    fn own_name(&self) -> u64 {
        self.shared.as_ref().map_or(ALONE, |shared| shared.own.as_owner())
    }

    /// The process that owns a page, if processes share the pages.
    pub(super) fn process(&self, owner: u64) -> Option<Process> {
        self.shared.as_ref().and_then(|_| self.live.process(Process::of_owner(owner).0))
    }

    /// Slots of the chunks that this process uses.
    pub(super) fn count(&self) -> usize {
        first_of(self.chunks.iter().take_while(|chunk| chunk.get().is_some()).count())
    }

    /// Claims pages without an owner, or whose owner has died: as many as this process has, so that
    /// a search for free slots finds many each time. Only when there are none, makes another chunk,
    /// as large as all others together. Returns the first slot of each page.
    pub(super) fn claim_more(&self) -> Vec<usize> {
        let is_own = |chunk: &&Chunk| chunk.owned.iter().filter(|owned| owned.load(Ordering::Relaxed)).count();
        let wanted = self.chunks.iter().filter_map(OnceLock::get).map(|chunk| is_own(&chunk)).sum::<usize>().max(1);
        let mut claimed = Vec::new();
        for number in 0..CHUNKS {
            let Some(chunk) = self.chunk(number) else { break };
            let slot = |page: usize| first_of(number) + page * PAGE_SLOTS;
            let pages = (0..chunk.pages()).filter(|&page| self.claim(chunk, page)).map(slot);
            claimed.extend(pages.take(wanted - claimed.len()));
            if !claimed.is_empty()
                && (claimed.len() == wanted || self.chunks[number + 1..].iter().all(|next| next.get().is_none()))
            {
                break;
            }
        }
        claimed
    }

    /// Claims the first page of this process, if processes share the pages. Beginning to read then
    /// needs no room on the disk.
    pub(super) fn claim_first(&self) -> io::Result<()> {
        match self.shared.is_some() && self.claim_more().is_empty() {
            true => Err(self.why_no_more().unwrap_or_else(|| io::ErrorKind::OutOfMemory.into())),
            false => Ok(()),
        }
    }

    /// Why the next chunk cannot be made. `None`: there are as many as there can be.
    pub(super) fn why_no_more(&self) -> Option<io::Error> {
        let next = (0..CHUNKS).find(|&number| self.chunks[number].get().is_none())?;
        self.make_chunk(next).err()
    }

    /// Makes this process the owner of a page, if no living process owns it (RPAGE-1).
    fn claim(&self, chunk: &Chunk, page: usize) -> bool {
        let owner = self.owner(chunk, page);
        if owner != NO_OWNER && !self.is_dead(owner) || !chunk.change_owner(page, owner, self.own_name()) {
            return false;
        }
        chunk.words_of(page).for_each(|words| words.reset());
        chunk.owned[page].store(true, Ordering::Release);
        true
    }

    /// The owner of a page. 0 is damage of the lock file.
    fn owner(&self, chunk: &Chunk, page: usize) -> u64 {
        let owner = chunk.owner(page);
        if owner == 0 {
            self.live.note_damage();
        }
        owner
    }

    /// Whether a process that owns a page has died.
    fn is_dead(&self, owner: u64) -> bool {
        let Some(SharedPages { descriptor, own, .. }) = &self.shared else { return false };
        let (index, generation) = Process::of_owner(owner);
        if index >= PROCESSES {
            // Another program has overwritten it. The page is not used again in this session.
            return false;
        }
        if index == own.index {
            return generation != own.generation;
        }
        !descriptor.is_alive(index) || self.live.process(index).is_some_and(|now| now.generation != generation)
    }

    /// Frees the slots of processes that have died. Returns whether there were any.
    pub(super) fn free_dead(&self) -> bool {
        let Some(SharedPages { own, .. }) = &self.shared else { return false };
        let mut freed = false;
        for chunk in (0..self.live.chunks().min(CHUNKS)).filter_map(|number| self.chunk(number)) {
            for page in 0..chunk.pages() {
                let owner = self.owner(chunk, page);
                if owner != NO_OWNER && owner != own.as_owner() && self.is_dead(owner) {
                    freed |= chunk.change_owner(page, owner, NO_OWNER);
                }
            }
        }
        freed
    }

    /// Gives up the pages of this process, when no transaction uses them any more.
    pub(super) fn give_up_pages(&self) {
        let own = self.own_name();
        for chunk in self.chunks.iter().filter_map(|chunk| chunk.get()) {
            (0..chunk.pages()).for_each(|page| {
                chunk.change_owner(page, own, NO_OWNER);
            });
        }
    }

    /// A slot that `take` was called for.
    pub(crate) fn slot(&self, index: usize) -> &Arc<ReaderSlot> {
        let (number, offset) = chunk_of(index);
        match self.chunks[number].get() {
            Some(chunk) => chunk.slot(offset),
            None => unreachable!("the slot {index} is in no chunk"),
        }
    }

    /// How many slots a chunk has.
    pub(crate) fn slots_of_chunk(&self, number: usize) -> usize {
        self.chunks[number].get().map_or(0, |chunk| chunk.slots.len())
    }

    /// A chunk, which is made on first use. `None` if it cannot be made.
    fn chunk(&self, number: usize) -> Option<&Chunk> {
        self.chunks[number].get().or_else(|| self.make_chunk(number).ok())
    }

    #[cold]
    fn make_chunk(&self, number: usize) -> io::Result<&Chunk> {
        let pages = 1 << number;
        let memory = match &self.shared {
            None => {
                let memory = RecordMemory::private(pages * READER_PAGE_WORDS);
                (0..pages).for_each(|page| memory[page * READER_PAGE_WORDS].store(NO_OWNER, Ordering::SeqCst));
                (Arc::new(memory), 0)
            }
            // The first chunk is mapped with the records.
            Some(_) if number == 0 => (Arc::clone(self.live.memory()), READER_PAGES),
            Some(shared) => (Arc::new(self.map_chunk(shared, number, pages)?), 0),
        };
        Ok(self.chunks[number].get_or_init(|| Chunk::new(memory, pages)))
    }

    /// Maps a chunk of the lock file, which gets longer if no process has made the chunk yet.
    fn map_chunk(&self, shared: &SharedPages, number: usize, pages: usize) -> io::Result<RecordMemory> {
        let first = pages - 1;
        let _lengthening = shared.lengthening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.live.chunks() > number {
            return shared.lock_file.map_reader_pages(first, pages);
        }
        let lock = ProcessLock::new(&shared.descriptor, locks::LENGTHENING);
        lock.lock();
        let is_new = self.live.chunks() <= number;
        let made = match is_new {
            true => shared.lock_file.lengthen_to(first + pages),
            false => Ok(()),
        };
        let mapped = made.and_then(|()| shared.lock_file.map_reader_pages(first, pages));
        if let (Ok(memory), true) = (&mapped, is_new) {
            // An earlier session may have left owners there.
            (0..pages).for_each(|page| memory[page * READER_PAGE_WORDS].store(NO_OWNER, Ordering::SeqCst));
            self.live.raise_chunks(number + 1);
        }
        lock.unlock();
        mapped
    }

    /// Whether a slot lies in a page of this process.
    #[inline]
    pub(super) fn is_own(&self, index: usize) -> bool {
        let (number, offset) = chunk_of(index);
        let chunk = self.chunks.get(number).and_then(OnceLock::get);
        chunk.and_then(|chunk| chunk.owned.get(offset / PAGE_SLOTS)).is_some_and(|owned| owned.load(Ordering::Acquire))
    }

    /// The slots of this process that a transaction has used.
    pub(super) fn own_slots(&self) -> impl Iterator<Item = &Arc<ReaderSlot>> {
        let chunks = self.chunks.iter().map_while(|chunk| chunk.get());
        chunks.flat_map(|chunk| {
            let own = (0..chunk.pages()).filter(|&page| chunk.owned[page].load(Ordering::Acquire));
            own.flat_map(|page| chunk.made_slots_of(page))
        })
    }

    /// Calls `see` with the words of each slot of a page that has an owner, and this owner. False
    /// if not all pages can be seen.
    pub(super) fn see_all(&self, mut see: impl FnMut(u64, &SlotWords<'_>)) -> bool {
        let known = || self.chunks.iter().take_while(|chunk| chunk.get().is_some()).count();
        let count = if self.shared.is_some() { self.live.chunks().min(CHUNKS) } else { known() };
        (0..count).all(|number| {
            let Some(chunk) = self.chunk(number) else { return false };
            for page in 0..chunk.pages() {
                let owner = self.owner(chunk, page);
                if owner == 0 {
                    return false;
                }
                if owner != NO_OWNER {
                    chunk.words_of(page).for_each(|words| see(owner, &words));
                }
            }
            true
        })
    }
}

/// Index of the first slot of a chunk.
pub(super) fn first_of(number: usize) -> usize {
    FIRST_CHUNK * ((1 << number) - 1)
}

/// The chunk of a slot, and the offset of the slot in it.
#[inline]
pub(crate) fn chunk_of(index: usize) -> (usize, usize) {
    let number = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (number, index - first_of(number))
}
