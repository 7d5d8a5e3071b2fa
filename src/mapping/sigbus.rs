//! The SIGBUS handler: an access that the kernel cannot serve reads zeros and is recorded, instead
//! of killing the process.
//!
//! Floor: mapping. A load or store in a shared mapping raises SIGBUS when the file was cut below
//! the address, when the disk cannot read the page, or when a store hits a full disk.
//!
//! ```text
//! access -> SIGBUS -> on_bus_error
//!     address in a registered range: record the offset, set the fault flag of the window,
//!         map a page of zeros there, return; the access reads zeros
//!     any other address or signal: call the handler that was installed before
//! ```
//!
//! The reader checks the fault flag after its reads and before it uses them
//! (`ReadMap::all_served`). Because other signals are passed on, Rust's report of a stack overflow
//! and the handlers of the application still work.
//!
//! Invariants:
//!   SIGBUS-1  the record and the flag of the window are written before any thread can see the
//!             zeros.
//!   SIGBUS-2  a range is registered only while it is reserved: it never contains memory of another
//!             owner.
//!   SIGBUS-3  the handler calls only what a signal handler may call: atomics, `mmap`, `sigaction`,
//!       `raise`.
//!
//! Failure: if not even a page of zeros can be mapped, the signal goes to the previous handler,
//! which ends the process.
#![allow(unsafe_code, reason = "a signal handler")]

use std::cell::UnsafeCell;
use std::io;
use std::ptr;
use std::sync::atomic::{fence, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::best_effort;
use crate::sys::fork::PerProcess;
use crate::sys::{call, refused};

/// The first access that failed in the mappings of one file.
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

    /// Records that an access failed. The first record stays.
    pub(super) fn set(&self, offset: u64) {
        // If this fails, an earlier access is recorded.
        best_effort(self.first.compare_exchange(0, offset.saturating_add(1), Ordering::AcqRel, Ordering::Acquire));
    }
}

/// The bit of a fault flag: an access to its range has failed.
pub(super) const FAULTED: u32 = 1 << 16;

/// A registered range. A reader of the fields uses them only if `version` was even before and is
/// unchanged after (a sequence lock).
#[derive(Debug)]
struct RangeEntry {
    version: AtomicU64,
    start: AtomicUsize,
    /// 0: the entry is free.
    end: AtomicUsize,
    writable: AtomicBool,
    record: AtomicPtr<FaultRecord>,
    /// The fault flag of the window; null until readers may use the range.
    flag: AtomicPtr<AtomicU32>,
}

const SEGMENT_ENTRIES: usize = 64;

/// A part of the table of ranges, and a pointer to the next part. Segments are added and never
/// removed, so that the handler walks them without a lock.
struct Segment {
    entries: [RangeEntry; SEGMENT_ENTRIES],
    next: AtomicPtr<Segment>,
}

impl Segment {
    const fn new() -> Segment {
        Segment { entries: [const { RangeEntry::free() }; SEGMENT_ENTRIES], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Segment> {
        // SAFETY: null, or a segment that was leaked on purpose.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

static FIRST_SEGMENT: Segment = Segment::new();
/// Held by a thread that changes entries. The handler never takes it. A child after `fork` has its
/// own, because a thread of its parent may hold the parent's.
static CHANGING: PerProcess<Mutex<()>> = PerProcess::new();

fn changing() -> MutexGuard<'static, ()> {
    CHANGING.get().lock().unwrap_or_else(PoisonError::into_inner)
}

fn segments() -> impl Iterator<Item = &'static Segment> {
    std::iter::successors(Some(&FIRST_SEGMENT), |segment| segment.next())
}

/// A consistent copy of the fields of an entry.
struct RangeFields {
    start: usize,
    end: usize,
    writable: bool,
    record: *mut FaultRecord,
    flag: *mut AtomicU32,
}

impl RangeEntry {
    const fn free() -> RangeEntry {
        RangeEntry {
            version: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            record: AtomicPtr::new(ptr::null_mut()),
            flag: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Changes the fields, so that the handler sees all changes or none. Under the lock `CHANGING`.
    fn change(&self, change: impl FnOnce(&RangeEntry)) {
        // Already odd in a child if a thread of its parent was changing the entry during the fork.
        let odd = self.version.load(Ordering::Relaxed) | 1;
        self.version.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        change(self);
        self.version.store(odd + 1, Ordering::Release);
    }

    /// The fields of the entry, if its range contains the address. An entry that is being changed
    /// has no range in use (SIGBUS-2).
    fn holding(&self, address: usize) -> Option<RangeFields> {
        let version = self.version.load(Ordering::Acquire);
        let held = RangeFields {
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

/// A range that is registered with the SIGBUS handler until this is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    entry: &'static RangeEntry,
    /// The entry points to it.
    _record: Arc<FaultRecord>,
}

impl Registration {
    /// Registers `len` bytes from `start` on, which are reserved for a mapping of a file from its
    /// offset 0. Installs the handler of the process if it is not installed.
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

    /// From now on a fault in the range also sets [`FAULTED`] in `flag`, which outlives the
    /// registration.
    pub(super) fn set_flag(&self, flag: &AtomicU32) {
        self.entry.flag.store(ptr::from_ref(flag).cast_mut(), Ordering::Release);
    }

    /// Shortens the range to `len` bytes: the rest belongs to another owner.
    pub(super) fn cut(&self, len: usize) {
        let _changing = changing();
        let start = self.entry.start.load(Ordering::Relaxed);
        // Only one field changes, so `version` stays: a reader may be using the range right now.
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

/// A free entry. Under the lock `CHANGING`.
fn free_entry() -> &'static RangeEntry {
    let mut last = &FIRST_SEGMENT;
    for segment in segments() {
        if let Some(entry) = segment.entries.iter().find(|entry| entry.end.load(Ordering::Relaxed) == 0) {
            return entry;
        }
        last = segment;
    }
    let added: &'static Segment = Box::leak(Box::new(Segment::new()));
    last.next.store(ptr::from_ref(added).cast_mut(), Ordering::Release);
    &added.entries[0]
}

/// The action for SIGBUS that was installed before ours.
struct Previous(UnsafeCell<Option<libc::sigaction>>);

// SAFETY: written once, before our handler is installed (`install`), and only read by the handler
// afterwards.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new(None));
/// The previous handler is gone, and the default action is in its place. Either it removed itself,
/// as that of Rust's runtime does at the first signal that is not a stack overflow, or it asked to
/// be called once.
static PREVIOUS_GONE: AtomicBool = AtomicBool::new(false);
static SYSTEM_PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

/// Installs the handler, once for the process. Under the lock `CHANGING`.
fn install() -> io::Result<()> {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if !INSTALLED.load(Ordering::Relaxed) {
        SYSTEM_PAGE_BYTES.store(call::page_bytes() as usize, Ordering::Relaxed);
        install_handler().map_err(|error| {
            let what = "the handler for SIGBUS cannot be installed; Options::fault_guard(false) works without it";
            io::Error::new(error.kind(), format!("{what}: {}", refused::by("rt_sigaction")(error)))
        })?;
        INSTALLED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

fn install_handler() -> io::Result<()> {
    let before = installed()?;
    if before.sa_sigaction == on_bus_error as *const () as usize {
        // A child, in which a thread of the parent had installed it but not yet set `INSTALLED`.
        return Ok(());
    }
    // SAFETY: the handler that reads it is not installed yet, and the lock admits one thread here.
    unsafe { *PREVIOUS.0.get() = Some(before) };
    install_with_mask_of(&before)
}

/// The present action for SIGBUS.
fn installed() -> io::Result<libc::sigaction> {
    // SAFETY: `sigaction` is integers, pointers and a bit set, for all of which zero is a value.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a query that fills `found`.
    match unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut found) } {
        0 => Ok(found),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Installs our handler with the signal mask of the previous one: the kernel blocks these signals
/// while either runs. Also called in the handler.
fn install_with_mask_of(before: &libc::sigaction) -> io::Result<()> {
    let has_handler = !matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
    let flags = if has_handler { before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART) } else { libc::SA_RESTART };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    let ours = libc::sigaction {
        sa_sigaction: handler as usize,
        sa_flags: libc::SA_SIGINFO | libc::SA_ONSTACK | flags,
        ..*before
    };
    // SAFETY: `ours` names a handler of the form that `SA_SIGINFO` requires, which lives as long as
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
    // SAFETY: the `errno` of this thread, which the interrupted code expects unchanged.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel gives a valid record to a handler with `SA_SIGINFO`.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Codes of 0 and below are signals that a process sent. The code of a memory error found
    // elsewhere says nothing about this thread.
    let is_access = code == libc::BUS_ADRERR || code == BUS_MCEERR_AR;
    if !is_access || !patch(address) {
        // SAFETY: the arguments are those of this handler.
        unsafe { pass_on(signal, info, context, !is_access && code != libc::BUS_ADRALN) };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Records the fault and maps zeros at the address. `false`: no registered range contains it, or
/// zeros could not be mapped.
fn patch(address: usize) -> bool {
    let found = segments().flat_map(|segment| &segment.entries).find_map(|entry| entry.holding(address));
    let Some(RangeFields { start, end, writable, record, flag }) = found else { return false };
    // SAFETY: this thread is inside an access to the range, so the range is registered, and its
    // `Registration` keeps the record.
    unsafe { &*record }.set((address - start) as u64);
    // SAFETY: null, or a flag that lives as long as the range is registered.
    if let Some(flag) = unsafe { flag.as_ref() } {
        flag.fetch_or(FAULTED, Ordering::AcqRel);
    }
    let page_bytes = SYSTEM_PAGE_BYTES.load(Ordering::Relaxed);
    let page = address & !(page_bytes - 1);
    // Replace only the page. If the process has too many memory areas for that, replace the whole
    // range, which takes fewer.
    zeros_over(page, page_bytes, writable) || zeros_over(start, end - start, writable)
}

fn zeros_over(start: usize, len: usize, writable: bool) -> bool {
    let rights = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: inside a range that is reserved for a mapping of ours (SIGBUS-2). The range stays
    // mapped, with zeros. No reader uses what it reads there, because the fault was recorded first
    // (SIGBUS-1).
    let at = unsafe { libc::mmap(ptr::without_provenance_mut(start), len, rights, flags, -1, 0) };
    at != libc::MAP_FAILED
}

/// Does what would happen without our handler: calls the previous one, or takes the default action.
///
/// # Safety
/// Called only in the handler, with its arguments.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, sent: bool) {
    // SAFETY: written before the handler was installed, and never again.
    let Some(before) = (unsafe { &*PREVIOUS.0.get() }) else { return };
    // If it asked to be called once (`SA_RESETHAND`), the default action takes its place before it
    // runs.
    let once = before.sa_flags & libc::SA_RESETHAND != 0;
    let gone = if once { PREVIOUS_GONE.swap(true, Ordering::Relaxed) } else { PREVIOUS_GONE.load(Ordering::Relaxed) };
    match if gone { libc::SIG_DFL } else { before.sa_sigaction } {
        libc::SIG_IGN if sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: zero is a valid `sigaction`: `SIG_DFL` without flags. When the handler
            // returns, the processor repeats the access that failed, which ends the process. A
            // signal that was sent must be sent again.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &default, ptr::null_mut());
                if sent {
                    libc::raise(signal);
                }
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the program that installed it declared this signature by `SA_SIGINFO`.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute::<usize, _>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: a handler without `SA_SIGINFO` has this signature.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute::<usize, _>(handler) };
            handler(signal);
        }
    }
    if sent {
        stay_installed(once && !gone);
    }
}

/// Installs our handler again after a signal that was sent, if the previous handler removed itself
/// and so also ours. (After a fault it must stay removed: the processor repeats the access, and the
/// default action ends the process.)
fn stay_installed(called_once: bool) {
    let Ok(now) = installed() else { return };
    if now.sa_sigaction == libc::SIG_DFL && (!PREVIOUS_GONE.swap(true, Ordering::Relaxed) || called_once) {
        // If this fails, our handler stays removed, and a fault ends the process.
        best_effort(install_with_mask_of(&now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_ranges_are_found_until_they_are_dropped() {
        let record = Arc::new(FaultRecord::default());
        let base = 1 << 60;
        let watched: Vec<Registration> =
            (0..200).map(|n| Registration::new(base + n * 100, 50, n % 2 == 0, &record).unwrap()).collect();
        let holding =
            |address| segments().flat_map(|segment| &segment.entries).find_map(|entry| entry.holding(address));
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
    fn a_fault_record_keeps_the_first_fault() {
        let record = FaultRecord::default();
        assert!(!record.is_set() && record.offset().is_none());
        record.set(0);
        record.set(7);
        assert_eq!((record.is_set(), record.offset()), (true, Some(0)));
    }
}
