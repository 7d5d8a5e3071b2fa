//! Detects a child after `fork`, which has copies of everything that its parent had (P22).
//!
//! Floor: sys. A child has copies of the parent's memory, shares the parent's shared mappings, and
//! has descriptors that share the parent's locks, but it has none of the parent's threads. It must
//! not use any of these. Detection costs a load and no system call: the number of the process, and
//! a word of each window, are in memory that is zeros in every child.
//!
//! ```text
//! words in a child are cleared by    the kernel (MADV_WIPEONFORK), and
//!                                    the handler of pthread_atfork, for kernels that refuse
//! locks of the parent are dropped by the same handler: /dev/null replaces their descriptors (P1)
//! ```
//!
//! A lock lives as long as a descriptor of its open file. Without the handler, a child would still
//! hold it after its parent died.
//!
//! Invariants:
//!   FORK-1  a process has one number, and none of its ancestors had it. So anything that was made
//!       under another number was inherited.
//!   FORK-2  the handler calls only what a child may call: `open`, `dup3`, `close`, and stores to
//!           memory.
//!   FORK-3  only the copy of its owner empties an entry of the list that a child inherited.
//!
//! Failure: none.
#![allow(unsafe_code, reason = "memory that children find cleared")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd as _;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use memmap2::MmapRaw;

use crate::sys::{descriptor, memory_calls};

/// A word that is 0 in every child.
pub(crate) struct OwnWord {
    word: NonNull<AtomicU32>,
    // Declared before the memory, so that the handler forgets the word first.
    _entry: ForkEntry,
    _memory: WordMemory,
}

/// What keeps a word.
enum WordMemory {
    /// A line of a page that the kernel clears.
    Line { _line: WordLine },
    /// Memory that only the handler clears, if the kernel has no page to give.
    Heap { _word: Arc<AtomicU32> },
}

/// Lines of a page of words. Each word has a line of its own, so that no store slows readers of
/// another word.
const PAGE_LINES: usize = 64;
const WORD_LINE_BYTES: usize = 64;

/// A page that the kernel clears in children. Pages are added and never removed, so that words are
/// taken and given back without a lock.
struct WordPage {
    memory: MmapRaw,
    /// A bit for each line that has an owner.
    taken: AtomicU64,
    next: AtomicPtr<WordPage>,
}

static FIRST_WORD_PAGE: AtomicPtr<WordPage> = AtomicPtr::new(ptr::null_mut());

/// A line of a page of words, which this owns.
struct WordLine {
    page: &'static WordPage,
    line: usize,
}

impl WordLine {
    /// Takes a line of the first page of a list that has a free one, or of a new page.
    fn take(pages: &'static AtomicPtr<WordPage>) -> io::Result<WordLine> {
        let mut link = pages;
        loop {
            // SAFETY: null, or a page that was leaked on purpose.
            let Some(page) = (unsafe { link.load(Ordering::Acquire).as_ref() }) else {
                let (memory, taken, next) =
                    (memory_calls::cleared_in_children()?, AtomicU64::new(0), AtomicPtr::default());
                let made = Box::into_raw(Box::new(WordPage { memory, taken, next }));
                if link.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    // SAFETY: this thread has just made it, and no other thread got it.
                    drop(unsafe { Box::from_raw(made) });
                }
                continue;
            };
            let free = |taken: u64| (taken != u64::MAX).then(|| taken | taken.wrapping_add(1));
            match page.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, free) {
                Ok(before) => return Ok(WordLine { page, line: before.trailing_ones() as usize }),
                Err(_) => link = &page.next,
            }
        }
    }

    fn word(&self) -> *mut AtomicU32 {
        debug_assert!(self.line < PAGE_LINES);
        // SAFETY: bounds: a page has so many lines.
        unsafe { self.page.memory.as_mut_ptr().add(self.line * WORD_LINE_BYTES) }.cast()
    }
}

impl Drop for WordLine {
    fn drop(&mut self) {
        self.page.taken.fetch_and(!(1 << self.line), Ordering::AcqRel);
    }
}

// SAFETY: the pointer leads to an atomic in the memory that `_memory` keeps.
unsafe impl Send for OwnWord {}
// SAFETY: as above.
unsafe impl Sync for OwnWord {}

impl OwnWord {
    pub(crate) fn new(value: u32) -> OwnWord {
        let (word, memory) = match WordLine::take(&FIRST_WORD_PAGE) {
            Ok(line) => (line.word(), WordMemory::Line { _line: line }),
            Err(_) => {
                let word = Arc::new(AtomicU32::new(0));
                (Arc::as_ptr(&word).cast_mut(), WordMemory::Heap { _word: word })
            }
        };
        let word = NonNull::new(word).unwrap_or_else(|| unreachable!("memory at address zero"));
        let own = OwnWord { word, _entry: ForkEntry::new(word.as_ptr() as usize), _memory: memory };
        own.store(value, Ordering::Release);
        own
    }
}

impl Deref for OwnWord {
    type Target = AtomicU32;

    #[inline]
    fn deref(&self) -> &AtomicU32 {
        // SAFETY: bounds: the start of a line, so aligned and large enough, or an atomic. Lifetime:
        // `_memory` keeps it. Initialised: anonymous memory is zeros. Aliasing: it is accessed only
        // through this atomic, and by the kernel and the handler in a child that has no other
        // thread yet.
        unsafe { self.word.as_ref() }
    }
}

/// The number of this process; null before the first call of [`id`].
static NUMBER: AtomicPtr<OwnWord> = AtomicPtr::new(ptr::null_mut());
/// The last number that this process or an ancestor of it took. A child has a copy of it.
static LAST: AtomicU32 = AtomicU32::new(0);

/// The number of this process (FORK-1).
#[inline]
pub(crate) fn id() -> u32 {
    // SAFETY: null, or a word that was leaked on purpose.
    match unsafe { NUMBER.load(Ordering::Acquire).as_ref() } {
        Some(number) => match number.load(Ordering::Relaxed) {
            0 => take_number(number),
            id => id,
        },
        None => first_id(),
    }
}

/// Draws a new number for this process, in the first call that needs it.
#[cold]
fn take_number(number: &AtomicU32) -> u32 {
    let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match number.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(first) => first,
    }
}

#[cold]
fn first_id() -> u32 {
    let made = Box::into_raw(Box::new(OwnWord::new(0)));
    if NUMBER.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: this thread has just made it, and no other thread got it: another thread was
        // first.
        drop(unsafe { Box::from_raw(made) });
    }
    id()
}

/// A value that each process has of its own: a child begins with a new one. So a child waits for no
/// lock that a thread of its parent held.
pub(crate) struct PerProcess<T>(AtomicPtr<PerProcessValue<T>>);

struct PerProcessValue<T> {
    process: u32,
    value: T,
}

impl<T: Default + Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value of this process.
    pub(crate) fn get(&'static self) -> &'static T {
        let process = id();
        loop {
            let found = self.0.load(Ordering::Acquire);
            // SAFETY: null, or a value that was leaked on purpose.
            match unsafe { found.as_ref() } {
                Some(found) if found.process == process => return &found.value,
                _ => {}
            }
            // The value of the parent is not freed: a lock in it may be held.
            let made = Box::into_raw(Box::new(PerProcessValue { process, value: T::default() }));
            if self.0.compare_exchange(found, made, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: this thread has just made it, and no other thread got it.
                drop(unsafe { Box::from_raw(made) });
            }
        }
    }
}

const SEGMENT_ENTRIES: usize = 128;

/// A part of the list of words and descriptors that the handler takes from a child, and a pointer
/// to the next part. An entry is 0 if it is free, the address of a word to clear (even), or twice a
/// descriptor plus one (odd). Segments are added and never removed, so that the handler walks them
/// without a lock.
struct Segment {
    entries: [AtomicUsize; SEGMENT_ENTRIES],
    next: AtomicPtr<Segment>,
}

impl Segment {
    const fn new() -> Segment {
        Segment { entries: [const { AtomicUsize::new(0) }; SEGMENT_ENTRIES], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Segment> {
        // SAFETY: null, or a segment that was leaked on purpose.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    /// The segment after this one, which is made if there is none.
    fn next_or_new(&self) -> &'static Segment {
        if let Some(next) = self.next() {
            return next;
        }
        let made = Box::into_raw(Box::new(Segment::new()));
        if self.next.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: this thread has just made it, and no other thread got it.
            drop(unsafe { Box::from_raw(made) });
        }
        // SAFETY: not null any more, and leaked on purpose.
        unsafe { &*self.next.load(Ordering::Acquire) }
    }
}

static FIRST_SEGMENT: Segment = Segment::new();

/// An entry of the list: something that the handler takes from every child, until this is dropped.
#[derive(Debug)]
pub(crate) struct ForkEntry(&'static AtomicUsize);

impl ForkEntry {
    /// Adds a descriptor with locks: in a child it leads to `/dev/null`.
    pub(crate) fn descriptor(file: &File) -> ForkEntry {
        ForkEntry::new(file.as_raw_fd() as usize * 2 + 1)
    }

    fn new(what: usize) -> ForkEntry {
        install();
        let mut segment = &FIRST_SEGMENT;
        loop {
            let take = |entry: &&AtomicUsize| {
                entry.load(Ordering::Relaxed) == 0
                    && entry.compare_exchange(0, what, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            };
            match segment.entries.iter().find(take) {
                Some(entry) => return ForkEntry(entry),
                None => segment = segment.next_or_new(),
            }
        }
    }
}

impl Drop for ForkEntry {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Installs the handler, once; children inherit it.
fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.swap(true, Ordering::AcqRel) {
        // SAFETY: the handler lives as long as the program, and calls only what a child may call
        // (FORK-2). If there is no memory to register it, the kernel still clears the words.
        unsafe { libc::pthread_atfork(None, None, Some(lose_all)) };
    }
}

/// Runs in a child before `fork` returns. Clears the words, and puts `/dev/null` over descriptors
/// with locks, so that their numbers stay taken and only the parent has the locks.
unsafe extern "C" fn lose_all() {
    let null = descriptor::null(libc::O_CLOEXEC);
    for segment in std::iter::successors(Some(&FIRST_SEGMENT), |segment| segment.next()) {
        for entry in &segment.entries {
            match entry.load(Ordering::Acquire) {
                0 => {}
                // SAFETY: the address of a word that is mapped as long as it is in the list.
                word if word.is_multiple_of(2) => unsafe {
                    (*ptr::with_exposed_provenance::<AtomicU32>(word)).store(0, Ordering::Release);
                },
                descriptor => {
                    let descriptor = (descriptor / 2) as libc::c_int;
                    // SAFETY: the owner of the entry keeps the descriptor open, and no copy of the
                    // owner closes it.
                    unsafe {
                        match null >= 0 {
                            true => libc::dup3(null, descriptor, libc::O_CLOEXEC),
                            false => libc::close(descriptor),
                        }
                    };
                }
            }
        }
    }
    if null >= 0 {
        // SAFETY: opened above.
        unsafe { libc::close(null) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_see_one_process_id() {
        let first = id();
        assert_ne!(first, 0);
        let others: Vec<_> = (0..4).map(|_| std::thread::spawn(id)).collect();
        assert!(others.into_iter().all(|other| other.join().unwrap() == first));
    }

    #[test]
    fn each_word_has_a_line_of_its_own_until_it_is_dropped() {
        static PAGES: AtomicPtr<WordPage> = AtomicPtr::new(ptr::null_mut());
        let taken = || -> Vec<WordLine> { (0..200).map(|_| WordLine::take(&PAGES).unwrap()).collect() };
        let addresses = |lines: &[WordLine]| -> std::collections::BTreeSet<usize> {
            lines.iter().map(|line| line.word() as usize / WORD_LINE_BYTES).collect()
        };
        let mut lines = taken();
        let first = addresses(&lines);
        assert_eq!(first.len(), 200);
        let freed = lines.swap_remove(70).word();
        assert_eq!(WordLine::take(&PAGES).unwrap().word(), freed);
        drop(lines);
        assert_eq!(addresses(&taken()), first);
    }

    #[test]
    fn each_descriptor_to_close_in_children_has_an_entry() {
        let files: Vec<File> = (0..300).map(|_| tempfile::tempfile().unwrap()).collect();
        let listed: Vec<ForkEntry> = files.iter().map(ForkEntry::descriptor).collect();
        for (file, listed) in files.iter().zip(&listed) {
            assert_eq!(listed.0.load(Ordering::Relaxed), file.as_raw_fd() as usize * 2 + 1);
        }
    }

    #[test]
    fn a_value_of_this_process_keeps_what_was_stored() {
        static VALUE: PerProcess<AtomicU32> = PerProcess::new();
        VALUE.get().store(5, Ordering::Relaxed);
        assert_eq!(VALUE.get().load(Ordering::Relaxed), 5);
    }
}
