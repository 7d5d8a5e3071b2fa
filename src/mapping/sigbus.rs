//! The fault guard: an access to a mapping that the kernel cannot serve is recorded, and the
//! process lives.
//!
//! Floor: mapping. A shared mapping brings the signal SIGBUS when its file was cut below the
//! address, when the disk cannot be read, or when a store meets a full disk. One handler for the
//! process looks whether the address lies in a range that is registered here. If so, it notes the
//! offset in the record of that mapping, puts a page of zeros under the address, and returns: the
//! access goes on and finds zeros, and the reader that made it looks at the flag of the window
//! before believing them. Every other fault goes to the handler that was there before, so that
//! Rust's report of a stack overflow and the handlers of the application go on working.
//!
//! Invariants:
//!   SIGBUS-1  the record and the flag of the window are written before the zeros can be seen, by
//!             any thread.
//!   SIGBUS-2  a range is registered while it is reserved and no longer: it never names memory of
//!             another owner.
//!   SIGBUS-3  the handler calls what a signal handler may call: atomics, `mmap`, `sigaction`,
//!             `raise`.
//!
//! Failure: when not even a page of zeros can be mapped, the signal goes to the handler before,
//! which ends the process.

#![allow(unsafe_code, reason = "a signal handler")]

use std::cell::UnsafeCell;
use std::io;
use std::ptr;
use std::sync::atomic::{fence, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::best_effort;
use crate::sys::fork::PerProcess;
use crate::sys::{os, refused};

/// What could not be served in the mappings of one file.
#[derive(Debug, Default)]
pub(super) struct FaultRecord {
    /// Offset in the file of the first access that failed, plus one; 0 while none has.
    first: AtomicU64,
}

impl FaultRecord {
    /// Whether any access has failed.
    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.first.load(Ordering::Relaxed) != 0
    }

    /// Offset of the first access that failed.
    pub(super) fn offset(&self) -> Option<u64> {
        self.first.load(Ordering::Acquire).checked_sub(1)
    }

    /// Notes that an access failed; the first one stays.
    pub(super) fn set(&self, offset: u64) {
        // Whether or not this is the first one: the record stands when the call returns.
        let _earlier = self.first.compare_exchange(0, offset.saturating_add(1), Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The bit of a flag that says that an access to its range has failed.
pub(super) const FAULTED: u32 = 1 << 16;

/// A registered range. The fields hold while `version` is even and unchanged.
struct Entry {
    version: AtomicU64,
    start: AtomicUsize,
    /// 0: the entry is free.
    end: AtomicUsize,
    writable: AtomicBool,
    record: AtomicPtr<FaultRecord>,
    /// Where readers of the range look; null until the range may be read.
    flag: AtomicPtr<AtomicU32>,
}

const CHUNK_ENTRIES: usize = 64;

/// Entries, and where there are more. Chunks are added and never removed, so that the handler walks
/// them without a lock.
struct Chunk {
    entries: [Entry; CHUNK_ENTRIES],
    next: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn new() -> Chunk {
        Chunk { entries: [const { Entry::free() }; CHUNK_ENTRIES], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Chunk> {
        // SAFETY: null, or a chunk that was leaked on purpose.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

static FIRST_CHUNK: Chunk = Chunk::new();
/// Held by those who change entries; the handler never takes it. A child has its own: a thread of
/// its parent may hold the other.
static CHANGING: PerProcess<Mutex<()>> = PerProcess::new();

fn changing() -> MutexGuard<'static, ()> {
    CHANGING.get().lock().unwrap_or_else(PoisonError::into_inner)
}

fn chunks() -> impl Iterator<Item = &'static Chunk> {
    std::iter::successors(Some(&FIRST_CHUNK), |chunk| chunk.next())
}

/// The fields of an entry, as the handler needs them.
struct Held {
    start: usize,
    end: usize,
    writable: bool,
    record: *mut FaultRecord,
    flag: *mut AtomicU32,
}

impl Entry {
    const fn free() -> Entry {
        Entry {
            version: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            record: AtomicPtr::new(ptr::null_mut()),
            flag: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Changes the fields, so that the handler takes all of them or none. Under the lock
    /// `CHANGING`.
    fn change(&self, change: impl FnOnce(&Entry)) {
        // Odd already in a child whose parent was changing it in another thread.
        let odd = self.version.load(Ordering::Relaxed) | 1;
        self.version.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        change(self);
        self.version.store(odd + 1, Ordering::Release);
    }

    /// What the entry says of the range, if it holds the address. An entry that is being changed
    /// holds no range in use (SIGBUS-2).
    fn holding(&self, address: usize) -> Option<Held> {
        let version = self.version.load(Ordering::Acquire);
        let held = Held {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            writable: self.writable.load(Ordering::Relaxed),
            record: self.record.load(Ordering::Relaxed),
            flag: self.flag.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let whole = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        (whole && (held.start..held.end).contains(&address)).then_some(held)
    }
}

/// A range of a mapping that is watched; not any more when this is dropped.
pub(super) struct Registration {
    entry: &'static Entry,
    /// What the entry points at.
    _record: Arc<FaultRecord>,
}

impl Registration {
    /// Watches `len` bytes from `start` on, which are reserved for a mapping of a file from its
    /// offset 0. Installs the handler of the process if nobody has.
    pub(super) fn new(start: usize, len: usize, writable: bool, record: &Arc<FaultRecord>) -> io::Result<Registration> {
        let _changing = changing();
        install()?;
        let entry = free_entry();
        entry.change(|entry| {
            entry.start.store(start, Ordering::Relaxed);
            entry.end.store(start.saturating_add(len), Ordering::Relaxed);
            entry.writable.store(writable, Ordering::Relaxed);
            entry.record.store(Arc::as_ptr(record).cast_mut(), Ordering::Relaxed);
            entry.flag.store(ptr::null_mut(), Ordering::Relaxed);
        });
        Ok(Registration { entry, _record: Arc::clone(record) })
    }

    /// From now on a fault in the range also sets [`FAULTED`] in `flag`, which lives as long as
    /// this.
    pub(super) fn set_flag(&self, flag: &AtomicU32) {
        self.entry.flag.store(ptr::from_ref(flag).cast_mut(), Ordering::Release);
    }

    /// The range now ends `len` bytes after its start: the rest is not part of it any more.
    pub(super) fn cut(&self, len: usize) {
        let _changing = changing();
        let start = self.entry.start.load(Ordering::Relaxed);
        // One field, and no change of the version: a reader may be using the rest of the range
        // just now.
        self.entry.end.store(start.saturating_add(len), Ordering::Release);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _changing = changing();
        self.entry.change(|entry| {
            entry.start.store(0, Ordering::Relaxed);
            entry.end.store(0, Ordering::Relaxed);
            entry.record.store(ptr::null_mut(), Ordering::Relaxed);
        });
    }
}

/// An entry that nobody has. Under the lock `CHANGING`.
fn free_entry() -> &'static Entry {
    let mut last = &FIRST_CHUNK;
    for chunk in chunks() {
        if let Some(entry) = chunk.entries.iter().find(|entry| entry.end.load(Ordering::Relaxed) == 0) {
            return entry;
        }
        last = chunk;
    }
    let added: &'static Chunk = Box::leak(Box::new(Chunk::new()));
    last.next.store(ptr::from_ref(added).cast_mut(), Ordering::Release);
    &added.entries[0]
}

/// The action for SIGBUS that was there before ours.
struct Previous(UnsafeCell<Option<libc::sigaction>>);

// SAFETY: written once, before our handler is installed (`install`), and only read by the handler
// afterwards.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new(None));
/// The handler before ours has taken itself away, as that of Rust's runtime does with the first
/// signal that is no stack overflow, or asked to be called once: from then on the default action
/// stands in its place.
static PREVIOUS_GONE: AtomicBool = AtomicBool::new(false);
static SYSTEM_PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

/// Installs the handler, once for the process. Under the lock `CHANGING`.
fn install() -> io::Result<()> {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.load(Ordering::Relaxed) {
        SYSTEM_PAGE_BYTES.store(os::page_bytes() as usize, Ordering::Relaxed);
        install_handler().map_err(|error| {
            let what = "SIGBUS cannot be handled, and Options::fault_guard(false) does without";
            io::Error::new(error.kind(), format!("{what}: {}", refused::by("rt_sigaction")(error)))
        })?;
        INSTALLED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

fn install_handler() -> io::Result<()> {
    let before = installed()?;
    if before.sa_sigaction == on_bus_error as *const () as usize {
        // In a child whose parent was just here in another thread.
        return Ok(());
    }
    // SAFETY: the handler that reads it is not installed yet, and the lock lets one thread in here.
    unsafe { *PREVIOUS.0.get() = Some(before) };
    set_ours(&before)
}

/// The action for SIGBUS that stands.
fn installed() -> io::Result<libc::sigaction> {
    // SAFETY: `sigaction` is integers, pointers and a bit set, for all of which zero is a value.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a query that fills `found`.
    match unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut found) } {
        0 => Ok(found),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes our handler the one of the process, with the mask that the one before asked for: the
/// kernel blocks these signals while either runs. Also called in the handler.
fn set_ours(before: &libc::sigaction) -> io::Result<()> {
    let has_handler = !matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
    let flags = if has_handler { before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART) } else { libc::SA_RESTART };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    let ours = libc::sigaction {
        sa_sigaction: handler as usize,
        sa_flags: libc::SA_SIGINFO | libc::SA_ONSTACK | flags,
        ..*before
    };
    // SAFETY: `ours` names a handler of the form that `SA_SIGINFO` asks for, which lives as long as
    // the program.
    match unsafe { libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The code of an access to memory that the hardware has lost.
const BUS_MCEERR_AR: libc::c_int = 4;

/// The handler. Runs in the thread whose access failed, in the middle of that access (SIGBUS-3).
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the calling thread's own `errno`, kept over the handler for the code that was
    // interrupted.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel gives a valid record to a handler with `SA_SIGINFO`.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Of other codes, those of 0 and below are signals that a process sent, and that of a memory
    // error found elsewhere says nothing about this thread.
    let is_access = code == libc::BUS_ADRERR || code == BUS_MCEERR_AR;
    if !is_access || !patch(address) {
        // SAFETY: the arguments are those that this handler got.
        unsafe { pass_on(signal, info, context, !is_access && code != libc::BUS_ADRALN) };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Records the fault and puts zeros under the address, if it lies in a range of ours.
fn patch(address: usize) -> bool {
    let found = chunks().flat_map(|chunk| &chunk.entries).find_map(|entry| entry.holding(address));
    let Some(Held { start, end, writable, record, flag }) = found else { return false };
    // SAFETY: the range is in use by this very thread, so it is registered, and its `Registration`
    // keeps the record.
    unsafe { &*record }.set((address - start) as u64);
    // SAFETY: null, or a flag that lives as long as the range is registered.
    if let Some(flag) = unsafe { flag.as_ref() } {
        flag.fetch_or(FAULTED, Ordering::AcqRel);
    }
    let page_bytes = SYSTEM_PAGE_BYTES.load(Ordering::Relaxed);
    let page = address & !(page_bytes - 1);
    // Only the page; and when the process has too many areas for that, the whole range, which
    // leaves fewer.
    zeros_over(page, page_bytes, writable) || zeros_over(start, end - start, writable)
}

fn zeros_over(start: usize, len: usize, writable: bool) -> bool {
    let rights = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: inside a range that is reserved for a mapping of ours (SIGBUS-2), which goes on being
    // mapped, with zeros: what is read there from now on is not believed, because the record stands
    // (SIGBUS-1).
    let at = unsafe { libc::mmap(ptr::without_provenance_mut(start), len, rights, flags, -1, 0) };
    at != libc::MAP_FAILED
}

/// Does what would have happened without our handler.
///
/// # Safety
/// Called in the handler with its arguments.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, sent: bool) {
    // SAFETY: written before the handler was installed, and never again.
    let Some(before) = (unsafe { &*PREVIOUS.0.get() }) else { return };
    // It asked to be called once (`SA_RESETHAND`): the default action takes its place before it
    // runs.
    let once = before.sa_flags & libc::SA_RESETHAND != 0;
    let gone = if once { PREVIOUS_GONE.swap(true, Ordering::Relaxed) } else { PREVIOUS_GONE.load(Ordering::Relaxed) };
    match if gone { libc::SIG_DFL } else { before.sa_sigaction } {
        libc::SIG_IGN if sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: zero is a value of `sigaction`, and `SIG_DFL` with no flags is one too. The
            // access that failed is tried again when the handler returns, and ends the process; a
            // signal that was sent has to be sent again.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &default, ptr::null_mut());
                if sent {
                    libc::raise(signal);
                }
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the program that installed it declared by `SA_SIGINFO` that it is a handler
            // of this form.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute::<usize, _>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: a handler without `SA_SIGINFO` is of this form.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute::<usize, _>(handler) };
            handler(signal);
        }
    }
    if sent {
        stay_installed(once && !gone);
    }
}

/// After a signal that was sent: a handler before ours that took itself away took ours away, which
/// goes back. (After a fault it must not: the access is tried again, and the default action is what
/// ends the process.)
fn stay_installed(called_once: bool) {
    let Ok(now) = installed() else { return };
    if now.sa_sigaction == libc::SIG_DFL && (!PREVIOUS_GONE.swap(true, Ordering::Relaxed) || called_once) {
        // If it fails, the SIGBUS handler is gone, and a fault ends the process.
        best_effort(set_ours(&now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_while_they_are_watched() {
        let record = Arc::new(FaultRecord::default());
        let base = 1 << 60;
        let watched: Vec<Registration> =
            (0..200).map(|n| Registration::new(base + n * 100, 50, n % 2 == 0, &record).unwrap()).collect();
        let holding = |address| chunks().flat_map(|chunk| &chunk.entries).find_map(|entry| entry.holding(address));
        for n in [0, 63, 64, 199] {
            let start = base + n * 100;
            let held = holding(start + 49).unwrap();
            assert_eq!((held.start, held.end, held.writable), (start, start + 50, n % 2 == 0));
            assert_eq!(held.record.cast_const(), Arc::as_ptr(&record));
            assert!(holding(start + 50).is_none());
        }
        watched[7].cut(10);
        assert!(holding(base + 709).is_some() && holding(base + 710).is_none());
        drop(watched);
        assert!(holding(base).is_none());
        assert_eq!(Arc::strong_count(&record), 1);
    }

    #[test]
    fn the_first_fault_stays() {
        let record = FaultRecord::default();
        assert!(!record.is_set() && record.offset().is_none());
        record.set(0);
        record.set(7);
        assert_eq!((record.is_set(), record.offset()), (true, Some(0)));
    }
}
