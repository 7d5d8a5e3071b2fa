//! The sentinel: a byte at the end of an open file that reveals that another program cut the file.
//!
//! Floor: mapping. The sentinel is not zero and does not change. A program that cuts the file
//! anywhere below the sentinel removes it. It stays lost when the file is made longer again,
//! because a hole reads as zeros. So a reader does its own reads first and loads the sentinel
//! afterwards. If the sentinel is there, the reader has read nothing that was cut. This also covers
//! the rest of a page that was cut in its middle, which reads as zeros without a signal. (XFS
//! clears that rest some time before it moves the end of the file: see `docs/soundness.md`.)
//!
//! ```text
//! not ready for stores           | bytes in use ......... x 0 0 0 |
//!                                                         ^ the last byte that is not zero
//! ready for stores               | bytes in use ..................... | 5e 0 0 0 .. |
//!                                                                       ^ in a page of its own
//! no room for that page          | bytes in use ......... x 0 0 0 |
//!                                                         ^ must be served, may change
//! last MiB of the file is zeros  | bytes in use ......... 0 0 0 0 |
//!                                                               ^ must be served, may change
//! ```
//!
//! Growth writes the next sentinel before it moves this one. The writer then uses the old place for
//! a page. A reader that still looks there finds that the sentinel has moved, and looks again. If
//! another process has grown the file, the record `length` says where the sentinel lies now (P17).
//!
//! Invariants:
//!   SENT-1  a move stores the address first and the expected value afterwards. So a reader that
//!       compares the byte at the old address with the new value finds, when it looks again, that
//!       the address has changed, and does not report a cut.
//!   SENT-2  no store reaches the old place of the sentinel before the move is complete.
//!
//! Failure: errors of the kernel. A lost sentinel is recorded as a fault of the mapping.
#![allow(unsafe_code, reason = "an atomic load of a mapped byte")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::{fence, AtomicBool, AtomicPtr, AtomicU32, AtomicU8, Ordering};
use std::sync::TryLockError;

use super::bounds::round_up;
use super::record_memory::FileEnd;
use super::sigbus::FAULTED;
use super::window::Window;
use crate::hooks::{self, Moment};
use crate::sys::fork::OwnWord;
use crate::sys::{call, file_calls, refused};

/// The sentinel that Mapleaf writes after the bytes in use. Not zero, since a hole reads as zeros.
pub(super) const VALUE: u8 = 0x5e;

/// In `Sentinel::expected`: all bits of the byte are compared.
const ALL_BITS: u32 = 0xff00;
/// In `Sentinel::expected`: the window belongs to this process. A child after `fork` finds 0 (P22).
const OWN: u32 = 1 << 17;
const _: () = assert!(OWN & (FAULTED | ALL_BITS | 0xff) == 0);

/// Stands for the sentinel of a window that has none.
static NO_SENTINEL: u8 = 0;

/// The sentinel of one window: where it is and what it must be.
pub(super) struct Sentinel {
    /// The byte to load (WIN-4).
    address: AtomicPtr<u8>,
    /// The expected value that a reader compares with the sentinel, and the fault flag, in one
    /// word:
    ///
    /// ```text
    /// bit  17   OWN       this process made the window
    /// bit  16   FAULTED   an access through the window has failed (set by the SIGBUS handler)
    /// bits 8-15 mask      which bits of the byte are compared; 0 without a sentinel of known value
    /// bits 0-7  value     the byte that the reader must find
    /// ```
    ///
    /// Without a mask, `check_fault` detects only failed accesses.
    expected: OwnWord,
    /// Whether the place is that of a written sentinel, or of the last byte of a file that changes.
    is_settled: AtomicBool,
}

impl Sentinel {
    /// The sentinel of a window that has none yet.
    pub(super) fn none() -> Sentinel {
        Sentinel {
            address: AtomicPtr::new(no_sentinel()),
            expected: OwnWord::new(OWN),
            is_settled: AtomicBool::new(false),
        }
    }

    /// The word in which the SIGBUS handler sets [`FAULTED`].
    pub(super) fn fault_flag(&self) -> &AtomicU32 {
        &self.expected
    }

    /// Moves the sentinel to a byte that is not zero, and that does not change while it is the
    /// sentinel.
    fn watch(&self, address: NonNull<u8>, value: u8) {
        debug_assert!(value != 0, "a hole reads as zeros");
        self.address.store(address.as_ptr(), Ordering::Release);
        hooks::reach(Moment::SentinelMoving);
        // After the address (SENT-1).
        self.expect(ALL_BITS | u32::from(value));
        // Before any store of the writer to the old place, which it may use from now on (SENT-2).
        fence(Ordering::SeqCst);
    }

    /// Moves the sentinel to a byte that must be served, whatever its value is.
    fn watch_presence(&self, address: NonNull<u8>) {
        self.address.store(address.as_ptr(), Ordering::Release);
    }

    /// Accepts any value at the place of the sentinel from now on: the file goes on in another
    /// window, and the writer may store to this place.
    pub(super) fn retire(&self) {
        self.expect(0);
        // A reader that sees a later store to the place also sees this one.
        fence(Ordering::SeqCst);
    }

    /// Ends the watch: the file is about to be cut by this process.
    pub(super) fn remove(&self) {
        self.expect(0);
        self.address.store(no_sentinel(), Ordering::Release);
    }

    /// Changes the mask and the value. `FAULTED` and `OWN` stay.
    fn expect(&self, mask_and_value: u32) {
        self.expected.fetch_and(FAULTED | OWN, Ordering::AcqRel);
        self.expected.fetch_or(mask_and_value, Ordering::AcqRel);
    }

    /// Whether the byte at `address` is as expected, and no access has failed.
    fn is_there(&self, address: *mut u8) -> bool {
        // SAFETY: bounds and lifetime: `address` is readable while the window lives (WIN-4).
        // Aliasing: the load is atomic. It may meet stores of the writer, which uses this page
        // after growth. It does not store, so read-only memory is enough.
        let byte = unsafe { AtomicU8::from_ptr(address) }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let expected = self.expected.load(Ordering::Acquire);
        (u32::from(byte) ^ expected) & (expected >> 8) & 0xff | expected & FAULTED == 0
    }

    /// Whether this process inherited the window from its parent through `fork`.
    pub(super) fn is_inherited(&self) -> bool {
        self.expected.load(Ordering::Relaxed) & OWN == 0
    }
}

fn no_sentinel() -> *mut u8 {
    std::ptr::from_ref(&NO_SENTINEL).cast_mut()
}

impl Window {
    /// Checks from now on what follows `used` bytes of a file that some process may write to.
    pub(super) fn watch_end(&self, used: u64, end: FileEnd) {
        match end {
            FileEnd::Sentinel => self.sentinel.watch(self.mapped_address(offset_after(used)), VALUE),
            FileEnd::Untouched | FileEnd::Changing => {
                self.sentinel.retire();
                if let Some(last) = used.checked_sub(1) {
                    self.sentinel.watch_presence(self.mapped_address(last));
                }
            }
        }
        self.sentinel.is_settled.store(end != FileEnd::Untouched, Ordering::Release);
    }

    /// Whether another process has changed the file so that this window shows less of it, or looks
    /// for the sentinel at an old place.
    pub(super) fn is_behind(&self, len: u64, end: FileEnd) -> bool {
        let mapped = self.mapped();
        len > mapped || len == mapped && end != FileEnd::Untouched && !self.sentinel.is_settled.load(Ordering::Acquire)
    }

    /// Makes the last byte that is not zero the sentinel of a file that is only read so far. A cut
    /// after this byte loses only zeros: they still read as zeros, or the access fails. Looks
    /// through the last MiB. If that is all zeros, the last byte must only be served.
    pub(super) fn watch_last_byte(&self, file: &File, used: u64) -> io::Result<()> {
        if let Some(last) = used.checked_sub(1) {
            self.sentinel.watch_presence(self.mapped_address(last));
        }
        if let Some((offset, byte)) = last_byte_not_zero(file, used)? {
            self.sentinel.watch(self.mapped_address(offset), byte);
        }
        Ok(())
    }

    /// The address of a byte that is mapped for readers.
    fn mapped_address(&self, offset: u64) -> NonNull<u8> {
        debug_assert!(offset < self.read_range().covered(), "the sentinel can be read");
        self.read_range().at(offset)
    }

    /// Whether everything that was read before this call was served: no access failed, no program
    /// cut the file, and this process opened the file.
    #[inline]
    pub(super) fn all_served(&self) -> bool {
        let sentinel = &self.sentinel;
        // The order of loads is: the bytes that the caller has read, the sentinel, the flag
        // FAULTED. A file that is cut loses its end first.
        fence(Ordering::Acquire);
        // Acquire, because the byte was written before its address was stored.
        let address = sentinel.address.load(Ordering::Acquire);
        // SAFETY: bounds and lifetime: `address` is readable while the window lives (WIN-4).
        // Aliasing: as in `is_there`.
        let byte = unsafe { AtomicU8::from_ptr(address) }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        // The common case in one comparison: all bits of the byte are compared, and nothing has
        // failed. Acquire, because `look_again` must find the address that was stored before this
        // word. With an older address, a whole file would seem to be cut.
        sentinel.expected.load(Ordering::Acquire) == OWN | ALL_BITS | u32::from(byte) || self.look_closely(address)
    }

    /// [`Window::all_served`] in all cases but the common one.
    #[cold]
    #[inline(never)]
    fn look_closely(&self, address: *mut u8) -> bool {
        !self.sentinel.is_inherited() && (self.sentinel.is_there(address) || self.look_again(address))
    }

    /// Whether the sentinel has only moved, and the writer uses its old place. Records a fault if
    /// the sentinel is lost.
    fn look_again(&self, mut seen: *mut u8) -> bool {
        let record = &self.shared().record;
        while !record.is_set() {
            let address = self.sentinel.address.load(Ordering::Acquire);
            if address != seen && self.sentinel.is_there(address) {
                return true;
            }
            match self.follow() {
                Followed::Elsewhere(true) => return true,
                Followed::Moved => {}
                Followed::NotMoved | Followed::Elsewhere(false) => {
                    // Otherwise another thread has moved it meanwhile.
                    if self.sentinel.address.load(Ordering::Acquire) == address {
                        record.set(address as u64 - self.read_range().base.as_ptr() as u64);
                    }
                }
            }
            seen = address;
        }
        false
    }
}

/// What a window finds whose sentinel is not at its place.
enum Followed {
    /// No other process has moved it.
    NotMoved,
    /// It has moved, and the window looks at the new place now, or has to look again.
    Moved,
    /// It has moved to a place that this window does not show. Whether it is there.
    Elsewhere(bool),
}

impl Window {
    /// Looks in the record `length` whether another process has moved the sentinel (P17).
    fn follow(&self) -> Followed {
        let shared = self.shared();
        let Some((len, end)) = shared.length.load().filter(|_| shared.follows) else { return Followed::NotMoved };
        if !self.is_behind(len, end) {
            return Followed::NotMoved;
        }
        let resizing = match shared.resizing.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
            Ok(held) => Some(held),
        };
        let fits = resizing.is_some() && len <= self.capacity();
        match file_len_for(len) {
            Ok(mapped_to) if fits && self.extend(&shared.file, mapped_to).is_ok() => {
                if self.is_behind(len, end) {
                    self.watch_end(len, end);
                    self.publish(len);
                }
                Followed::Moved
            }
            _ => match end_is_there(&shared.file, len, end) {
                false if shared.length.load() != Some((len, end)) => Followed::Moved,
                is_there => Followed::Elsewhere(is_there),
            },
        }
    }
}

/// Whether a file has its end, by a look at the file and not at the mapping.
fn end_is_there(file: &File, len: u64, end: FileEnd) -> bool {
    let mut byte = [0];
    match end {
        FileEnd::Sentinel => file.read_exact_at(&mut byte, offset_after(len)).is_ok() && byte == [VALUE],
        FileEnd::Untouched | FileEnd::Changing => file_calls::end_of(file).is_ok_and(|found| found >= len),
    }
}

/// The offset of the sentinel that follows `used` bytes: the next kernel page, which holds no byte
/// in use.
pub(super) fn offset_after(used: u64) -> u64 {
    used.next_multiple_of(call::page_bytes())
}

/// The length of a file of which `used` bytes are in use, with a page for the sentinel.
pub(super) fn file_len_for(used: u64) -> io::Result<u64> {
    let page_bytes = call::page_bytes();
    round_up(used, page_bytes)?.checked_add(page_bytes).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

/// Writes the sentinel after the bytes in use of a file that is long enough.
pub(super) fn write(file: &File, used: u64) -> io::Result<()> {
    file_calls::write_at(file, &[VALUE], offset_after(used))
}

/// Extends a file for the sentinel and writes it. `false` if the disk or the size limit has no
/// room: the file is then used without a sentinel. Even then the file is extended if possible,
/// which takes no block, so that the next open sees that the file was not closed cleanly.
pub(super) fn lengthen_and_write(file: &File, used: u64) -> io::Result<bool> {
    hooks::reach(Moment::Lengthening);
    let (len, wanted) = (file_calls::end_of(file)?, file_len_for(used)?);
    if file_calls::within_size_limit(wanted).is_err() {
        return Ok(false);
    }
    let backed = file_calls::reserve_blocks(file, used, wanted - used).is_ok();
    let lengthened = if len < wanted { file_calls::set_len(file, wanted) } else { Ok(()) };
    if !backed {
        return Ok(false);
    }
    lengthened?;
    Ok(write(file, used).is_ok())
}

/// How many bytes at the end of a file are searched for the last byte that is not zero.
const ZEROS_MAX_BYTES: u64 = 1 << 20;

/// The last byte that is not zero, with its offset, in the last MiB of the bytes in use.
fn last_byte_not_zero(file: &File, used: u64) -> io::Result<Option<(u64, u8)>> {
    let mut end = used;
    let least = used.saturating_sub(ZEROS_MAX_BYTES);
    while end > least {
        let start = (end - 1) & !(call::page_bytes() - 1);
        let mut bytes = vec![0; (end - start) as usize];
        match file.read_exact_at(&mut bytes, start) {
            Err(error) if refused::is(&error) => return Err(refused::by("pread")(error)),
            // The disk cannot read this page. Readers that need the page get the error.
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            return Ok(Some((start + last as u64, bytes[last])));
        }
        end = start;
    }
    Ok(None)
}
