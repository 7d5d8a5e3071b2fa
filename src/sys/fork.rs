//! Which process this is, to tell a child after `fork`, which has copies of all that its parent had
//! (P22).
//!
//! Floor: mapping. A child goes on with copies of the parent's memory, with the parent's shared
//! mappings, and with descriptors that share the parent's locks, but without the parent's threads.
//! It must not use any of that. To find that out costs a load and no system call: the number of the
//! process, and a word of each window, stand in memory that is zeros in every child. The kernel
//! clears it (`MADV_WIPEONFORK`), and so does a handler of `pthread_atfork`, for kernels and
//! sandboxes that refuse. The handler also takes the locks of the parent from the child (P1): a
//! lock lives as long as a descriptor of its open file does, and a child would hold it after its
//! parent died.
//!
//! Invariants:
//!   FORK-1  a process has one number, and none of its ancestors had it: what was made under
//!           another number was inherited.
//!   FORK-2  the handler calls what a child may call: `open`, `dup3`, `close`, and stores to
//!           memory.
//!   FORK-3  a place of the list that a child inherited is emptied only by the copy of its owner.
//!
//! Failure: none.
#![allow(unsafe_code, reason = "memory that children find cleared")]

use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsRawFd as _;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::Arc;

use memmap2::MmapRaw;

use crate::sys::{descriptor, os};

/// A word that is 0 in every child.
pub(crate) struct OwnWord {
    word: NonNull<AtomicU32>,
    // Declared before the places: from the list first.
    _listed: Listed,
    /// A page of its own, which the kernel clears; or, where there is none, memory that only the
    /// handler clears.
    _place: (Option<MmapRaw>, Option<Arc<AtomicU32>>),
}

// SAFETY: the pointer leads to an atomic in the place that is kept.
unsafe impl Send for OwnWord {}
// SAFETY: as above.
unsafe impl Sync for OwnWord {}

impl OwnWord {
    pub(crate) fn new(value: u32) -> OwnWord {
        let (word, place) = match os::cleared_in_children() {
            Ok(page) => (page.as_mut_ptr().cast::<AtomicU32>(), (Some(page), None)),
            Err(_) => {
                let word = Arc::new(AtomicU32::new(0));
                (Arc::as_ptr(&word).cast_mut(), (None, Some(word)))
            }
        };
        let word = NonNull::new(word).unwrap_or_else(|| unreachable!("memory at address zero"));
        let own = OwnWord { word, _listed: Listed::new(word.as_ptr() as usize), _place: place };
        own.store(value, Ordering::Release);
        own
    }
}

impl Deref for OwnWord {
    type Target = AtomicU32;

    #[inline]
    fn deref(&self) -> &AtomicU32 {
        // SAFETY: bounds: the start of a page, so aligned and large enough, or an atomic. Lifetime:
        // `_place` keeps it. Initialised: anonymous memory is zeros. Aliasing: it is reached
        // through this atomic only, and by the kernel and the handler in a child that has no other
        // thread yet.
        unsafe { self.word.as_ref() }
    }
}

/// The number of this process; null before the first question.
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

/// Takes a number: nobody has asked in this process.
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
        // SAFETY: just made, and nobody else's: another thread was first.
        drop(unsafe { Box::from_raw(made) });
    }
    id()
}

/// A value of its own for each process: a child begins with a new one, and waits for no lock that a
/// thread of its parent held.
pub(crate) struct PerProcess<T>(AtomicPtr<Numbered<T>>);

struct Numbered<T> {
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
            // What the parent had is not freed: a lock in it may be held.
            let made = Box::into_raw(Box::new(Numbered { process, value: T::default() }));
            if self.0.compare_exchange(found, made, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: just made, and nobody else's.
                drop(unsafe { Box::from_raw(made) });
            }
        }
    }
}

const CHUNK_PLACES: usize = 128;

/// What the handler takes from a child: the address of a word to clear, or twice a descriptor and
/// one; 0: free. Chunks are added and never removed, so that the handler walks them without a lock.
struct Chunk {
    places: [AtomicUsize; CHUNK_PLACES],
    next: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn new() -> Chunk {
        Chunk { places: [const { AtomicUsize::new(0) }; CHUNK_PLACES], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Chunk> {
        // SAFETY: null, or a chunk that was leaked on purpose.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    /// The chunk after this one, made where there is none.
    fn next_or_new(&self) -> &'static Chunk {
        if let Some(next) = self.next() {
            return next;
        }
        let made = Box::into_raw(Box::new(Chunk::new()));
        if self.next.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: just made, and nobody else's.
            drop(unsafe { Box::from_raw(made) });
        }
        // SAFETY: not null any more, and leaked on purpose.
        unsafe { &*self.next.load(Ordering::Acquire) }
    }
}

static FIRST_CHUNK: Chunk = Chunk::new();

/// Something that children lose, until this is dropped.
#[derive(Debug)]
pub(crate) struct Listed(&'static AtomicUsize);

impl Listed {
    /// Lists a descriptor with locks: in a child it leads to `/dev/null`.
    pub(crate) fn descriptor(file: &File) -> Listed {
        Listed::new(file.as_raw_fd() as usize * 2 + 1)
    }

    fn new(what: usize) -> Listed {
        install();
        let mut chunk = &FIRST_CHUNK;
        loop {
            let take = |place: &&AtomicUsize| {
                place.load(Ordering::Relaxed) == 0
                    && place.compare_exchange(0, what, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            };
            match chunk.places.iter().find(take) {
                Some(place) => return Listed(place),
                None => chunk = chunk.next_or_new(),
            }
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Installs the handler, once; children inherit it.
fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.swap(true, Ordering::AcqRel) {
        // SAFETY: the handler lives as long as the program, and calls what a child may call
        // (FORK-2). If there is no memory for it, the kernel's clearing is left.
        unsafe { libc::pthread_atfork(None, None, Some(lose_all)) };
    }
}

/// In a child, before `fork` returns: clears the words, and puts `/dev/null` over descriptors with
/// locks, so that their numbers stay taken and the locks are those of the parent only.
unsafe extern "C" fn lose_all() {
    let null = descriptor::null(libc::O_CLOEXEC);
    for chunk in std::iter::successors(Some(&FIRST_CHUNK), |chunk| chunk.next()) {
        for place in &chunk.places {
            match place.load(Ordering::Acquire) {
                0 => {}
                // SAFETY: the address of a word that is mapped as long as it is listed.
                word if word.is_multiple_of(2) => unsafe {
                    (*ptr::with_exposed_provenance::<AtomicU32>(word)).store(0, Ordering::Release);
                },
                descriptor => {
                    let descriptor = (descriptor / 2) as libc::c_int;
                    // SAFETY: a descriptor that the owner of the place keeps open and that no copy
                    // of the owner closes.
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
    fn a_process_keeps_its_number() {
        let first = id();
        assert_ne!(first, 0);
        let others: Vec<_> = (0..4).map(|_| std::thread::spawn(id)).collect();
        assert!(others.into_iter().all(|other| other.join().unwrap() == first));
    }

    #[test]
    fn what_is_listed_has_a_place_of_its_own() {
        let files: Vec<File> = (0..300).map(|_| tempfile::tempfile().unwrap()).collect();
        let listed: Vec<Listed> = files.iter().map(Listed::descriptor).collect();
        for (file, listed) in files.iter().zip(&listed) {
            assert_eq!(listed.0.load(Ordering::Relaxed), file.as_raw_fd() as usize * 2 + 1);
        }
    }

    #[test]
    fn each_process_has_its_own_value() {
        static VALUE: PerProcess<AtomicU32> = PerProcess::new();
        VALUE.get().store(5, Ordering::Relaxed);
        assert_eq!(VALUE.get().load(Ordering::Relaxed), 5);
    }
}
