//! Windows: reserved address space that a file is mapped into, and the read-only mappings that pin
//! it.
//!
//! Floor: mapping. A window reserves one range for the read-only mapping (read-only) and, when the
//! mapping is writable, one for the writable mapping; the file is mapped from the start of each.
//! Beside them lies a table of one byte per page, the verified bytes.
//!
//! The *sentinel* is a byte behind everything that is read, or the last byte of it, and is not
//! zero. Whoever cuts the file anywhere below takes the sentinel away too, and it stays away if the
//! file is made longer again. So a reader that looks at it after its own reads, and finds it served
//! and unchanged, has read nothing that was cut: also not the rest of a page that was cut in its
//! middle, which reads as zeros without any signal. (XFS clears that rest some time before it takes
//! the end away: see `docs/soundness.md`.)
//!
//! Invariants:
//!   WIN-1  `read_map[..mapped]`, and `write_map[..mapped]` from the moment when it can be stored
//!       to (`ready`), are shared mappings of the file from offset 0.
//!   WIN-2  A range is published in `mapped` after it was mapped, and stays mapped at its address
//!       as long as the window lives. `mapped` falls in `unpublish` alone, which is called when
//!       nothing above is used any more.
//!   WIN-3  Reservations are unmapped when the window is dropped, and every read-only mapping and
//!          writable mapping holds an `Arc` of it.
//!   WIN-4  The sentinel is a byte that can be read: in the mapped view behind or inside `mapped`,
//!          or one of the program.
//!
//! Failure: errors of the system; a window whose mapping failed half way stays valid for what was
//! published.
#![allow(unsafe_code, reason = "addresses of mappings")]

use crate::hooks::{self, Moment};
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{fence, AtomicPtr, AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;

pub(super) use super::bounds::{inside, page_range, round_up};
use super::budget::{self, Counted};
use super::reservation::{Reservation, Watch};
use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::mapping::read_ahead::Ahead;
use crate::mapping::sigbus::FAULTED;
use crate::sys::fork::OwnWord;
use crate::sys::os::{self, Rights};
use crate::sys::prefetch;

/// More than any system of today gives to a process; larger wishes would only fail.
const WINDOW_BYTES_MAX: u64 = 1 << 47;

static NEXT_WINDOW: AtomicU64 = AtomicU64::new(1);

/// The table of verified bytes, a byte for each page that the window has room for: private zero
/// memory, of which a page costs something only when it is touched. Its address does not matter.
struct VerifiedBitmap {
    base: NonNull<u8>,
    len: u64,
    _counted: Counted,
}

impl VerifiedBitmap {
    fn new(pages: u64, watch: &Watch) -> io::Result<VerifiedBitmap> {
        let len = round_up(pages.max(1), os::page_bytes())?;
        let counted = Counted::new(len, &watch.reserved);
        Ok(VerifiedBitmap { base: os::zeroed(len)?, len, _counted: counted })
    }

    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for VerifiedBitmap {
    fn drop(&mut self) {
        // SAFETY: ours, and each user of it holds an `Arc` of the window (WIN-3), which is dropped.
        unsafe { os::unmap(self.base, self.len) }
    }
}

/// Stands for the sentinel of a window that has none.
static NO_SENTINEL: u8 = 0;
/// In `Window::expected`: all bits of the sentinel are compared.
const ALL_BITS: u32 = 0xff00;
/// In `Window::expected`: the window is one of this process. A child after `fork` finds 0 (P22).
const OWN: u32 = 1 << 17;
const _: () = assert!(OWN & (FAULTED | ALL_BITS | 0xff) == 0);
/// What is stored where the sentinel of a file that is open for writing lies. Not zero, as a hole
/// reads as that: a file that was cut and made longer again has lost it.
pub(super) const SENTINEL: u8 = 0x5e;

/// Where the sentinel lies behind `used` bytes of a file: no byte of the same page of the system is
/// used.
pub(super) fn sentinel_offset(used: u64) -> u64 {
    used.next_multiple_of(os::page_bytes())
}

/// One reserved window and what is mapped in it. On cache lines of its own, apart from the counters
/// of its `Arc`.
#[repr(align(128))]
pub(super) struct Window {
    /// Bytes of the file that may be used, a multiple of the database's page size. Written by
    /// growth alone.
    mapped: AtomicU64,
    /// The byte whose loss shows that the file was cut (WIN-4).
    sentinel: AtomicPtr<u8>,
    watch: Watch,
    /// Bytes behind the usable ones that are mapped as well, for the sentinel.
    spare: u64,
    id: u64,
    page_shift: u32,
    read_map: Reservation,
    write_map: Option<Reservation>,
    verified_bytes: VerifiedBitmap,
    /// What the sentinel has to be: its value in the lowest byte, the bits of it that are compared
    /// in the next. None are where there was no room for a sentinel of its own: being served is all
    /// that can be asked then. [`FAULTED`] and [`OWN`] lie above: no sentinel is what it has to be
    /// after an access through this window has failed, or in a child after `fork`. Dropped after
    /// both reservations, whose entries in the table of the handler name it.
    expected: OwnWord,
}

// SAFETY: the pointers name address space that the window owns alone. The verified bitmap is
// reached through atomics; read-only mappings give out shared slices, and the one writable mapping
// is the only way to a mutable one. All other state is atomic, and changed only by growth, which
// its mapping serialises.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Makes a window for `wanted` usable bytes, or with half the room beyond `least`, and so on
    /// down to `least`, and maps the file in it with `map`. What the kernel says when it refuses
    /// does not matter: a smaller window takes less of whatever there is a limit on.
    pub(super) fn reserve(
        (wanted, least): (u64, u64),
        page_size: usize,
        writable: bool,
        watch: &Watch,
        map: impl Fn(&Window) -> io::Result<()>,
    ) -> io::Result<Window> {
        let system = os::page_bytes();
        let least = round_up(least.max(1), system)?;
        let mut len = round_up(wanted.min(WINDOW_BYTES_MAX).max(least), system)?;
        loop {
            let made = Window::reserve_exactly(len, page_size, writable, watch);
            match made.and_then(|window| map(&window).map(|()| window)) {
                Err(_) if len > least => len = least + (((len - least) / 2) & !(system - 1)),
                made => return made.map_err(|e| budget::explain(e, len)),
            }
        }
    }

    fn reserve_exactly(len: u64, page_size: usize, writable: bool, watch: &Watch) -> io::Result<Window> {
        let pages = len.div_ceil(page_size as u64);
        let spare = if writable { os::page_bytes() } else { 0 };
        let write_map = || Reservation::new(len + spare, Rights::ReadWrite, watch);
        Ok(Window {
            mapped: AtomicU64::new(0),
            sentinel: AtomicPtr::new(std::ptr::from_ref(&NO_SENTINEL).cast_mut()),
            expected: OwnWord::new(OWN),
            watch: watch.clone(),
            spare,
            id: NEXT_WINDOW.fetch_add(1, Ordering::Relaxed),
            page_shift: page_size.trailing_zeros(),
            read_map: Reservation::new(len + spare, Rights::Read, watch)?,
            write_map: if writable { Some(write_map()?) } else { None },
            verified_bytes: VerifiedBitmap::new(pages, watch)?,
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Bytes of the file that can be used through this window.
    #[inline]
    pub(super) fn mapped(&self) -> u64 {
        // Acquire: whoever sees the length sees the mapping that was made before it.
        self.mapped.load(Ordering::Acquire)
    }

    /// Bytes up to which the file can be mapped here.
    pub(super) fn room(&self) -> u64 {
        let len =
            self.write_map.as_ref().map_or(self.read_map.len(), |write_map| write_map.len().min(self.read_map.len()));
        len.saturating_sub(self.spare)
    }

    /// Maps the file up to `len` in the read-only mapping alone, which is what reading needs, and
    /// flushing.
    pub(super) fn extend_read_map(&self, file: &File, len: u64) -> io::Result<()> {
        self.read_map.extend(file, round_up(len, os::page_bytes())?, Rights::Read)
    }

    /// Maps the file up to `len`, in both reservations; publishes nothing. The caller is the only
    /// one to do so.
    pub(super) fn extend(&self, file: &File, len: u64) -> io::Result<()> {
        self.extend_read_map(file, len)?;
        let to = round_up(len, os::page_bytes())?;
        match &self.write_map {
            Some(write_map) if self.watch.strict => write_map.extend(file, to, Rights::Read),
            Some(write_map) => write_map.extend(file, to, Rights::ReadWrite),
            None => Ok(()),
        }
    }

    /// In a strict writable mapping, lets a range be stored to, or forbids it.
    #[inline]
    pub(super) fn set_open(&self, offset: u64, len: u64, open: bool) {
        if let (Some(write_map), true) = (&self.write_map, self.watch.strict) {
            let rights = if open { Rights::ReadWrite } else { Rights::Read };
            // SAFETY: inside what is mapped of the writable mapping; whoever stores to what is not
            // open is to get a signal.
            unsafe { os::protect(write_map.at(offset), len, rights) }
                .expect("the rights of the writable mapping change");
        }
        let _ = (offset, len, open);
    }

    /// Makes `len` bytes usable. They are mapped (WIN-2). The sentinel is the byte behind them that
    /// was marked, or else the last of them, of which only is asked that it is there.
    pub(super) fn publish(&self, len: u64, verified: bool) {
        debug_assert!(len <= self.read_map.covered());
        match (verified, len.checked_sub(1)) {
            (true, _) => self.watch_byte(sentinel_offset(len), SENTINEL),
            (false, Some(last)) => self.sentinel.store(self.read_map.at(last).as_ptr(), Ordering::Release),
            (false, None) => {}
        }
        self.mapped.store(len, Ordering::Release);
    }

    /// Makes a byte the sentinel that is not zero, and is not changed while it is the sentinel.
    pub(super) fn watch_byte(&self, offset: u64, byte: u8) {
        debug_assert!(offset < self.read_map.covered() && byte != 0);
        // The place first: whoever compares the old place with what the new one has to be finds
        // that it moved.
        self.sentinel.store(self.read_map.at(offset).as_ptr(), Ordering::Release);
        hooks::reach(Moment::SentinelMoving);
        self.expect(ALL_BITS | u32::from(byte));
        // And the place before anything that is stored to the old one, which the writer may use
        // from now on.
        fence(Ordering::SeqCst);
    }

    /// The file goes on in another window, and the writer may use the page of this one's sentinel:
    /// from now on it only has to be there.
    pub(super) fn retire(&self) {
        self.expect(0);
        // Whoever sees what is stored to the page later sees this too.
        fence(Ordering::SeqCst);
    }

    /// Whether everything that was read before this call could be served: no access failed, the
    /// file was not cut, and this is the process that opened it.
    #[inline]
    pub(super) fn all_served(&self) -> bool {
        // What the caller has read was read before the sentinel is, and the sentinel before the
        // flag beside what it has to be: a file that is cut loses its end first.
        fence(Ordering::Acquire);
        // Acquire, as the byte was written before its place was stored.
        let sentinel = self.sentinel.load(Ordering::Acquire);
        // SAFETY: bounds and lifetime: a byte that can be read (WIN-4). Aliasing: an atomic load,
        // as in `is_there`.
        let byte = unsafe { AtomicU8::from_ptr(sentinel) }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        // The one state that is common: all bits of the sentinel are compared, and nothing has
        // failed. Acquire, as `look_again` has to find the place that was stored before this: with
        // an older one, a file that is whole would look cut.
        self.expected.load(Ordering::Acquire) == OWN | ALL_BITS | u32::from(byte) || self.look_closely(sentinel)
    }

    /// [`Window::all_served`] where it is not obvious.
    #[cold]
    #[inline(never)]
    fn look_closely(&self, sentinel: *mut u8) -> bool {
        !self.is_inherited() && (self.is_there(sentinel) || self.look_again(sentinel))
    }

    /// Whether this is a copy that a child got by `fork`.
    pub(super) fn is_inherited(&self) -> bool {
        self.expected.load(Ordering::Relaxed) & OWN == 0
    }

    /// Changes what the sentinel has to be. That an access has failed stays, and whose the window
    /// is.
    fn expect(&self, sentinel: u32) {
        self.expected.fetch_and(FAULTED | OWN, Ordering::AcqRel);
        self.expected.fetch_or(sentinel, Ordering::AcqRel);
    }

    /// Whether a sentinel is what it has to be, and no access has failed.
    fn is_there(&self, sentinel: *mut u8) -> bool {
        // SAFETY: bounds and lifetime: a byte that can be read (WIN-4). Aliasing: an atomic load,
        // which may meet the stores of the writer after it has published more and taken this page;
        // it does not store, so read-only memory will do.
        let byte = unsafe { AtomicU8::from_ptr(sentinel) }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let expected = self.expected.load(Ordering::Acquire);
        (u32::from(byte) ^ expected) & (expected >> 8) & 0xff | expected & FAULTED == 0
    }

    /// Whether the sentinel has only moved, and the writer uses its old place. Records it if it is
    /// lost.
    fn look_again(&self, mut seen: *mut u8) -> bool {
        while !self.watch.record.is_set() {
            let now = self.sentinel.load(Ordering::Acquire);
            if now == seen {
                self.watch.record.set(now as u64 - self.read_map.base.as_ptr() as u64);
            } else if self.is_there(now) {
                return true;
            }
            seen = now;
        }
        false
    }

    /// From now on faults through this window are seen by those who ask it. For a window at its
    /// last address.
    pub(super) fn arm(&self) {
        std::iter::once(&self.read_map).chain(&self.write_map).for_each(|range| range.set_flag(&self.expected));
    }

    /// Faults in `offset..offset + len` of the read-only mapping or the writable mapping for
    /// reading: [`Error::Fault`] here, where an access would bring a signal. Where the kernel does
    /// not do that for a mapping, plain reads say the same of the file.
    pub(super) fn probe(&self, offset: u64, len: u64, write_map: bool) -> Result<()> {
        let range = self.write_map.as_ref().filter(|_| write_map).unwrap_or(&self.read_map);
        let system = os::page_bytes();
        let start = offset & !(system - 1);
        let end = (offset.saturating_add(len).saturating_add(system - 1) & !(system - 1)).min(range.covered());
        if start >= end {
            return Ok(());
        }
        // SAFETY: inside what is mapped of the range, which `self` keeps.
        let prefaulted = unsafe { os::prefault_read(range.at(start), end - start) };
        match prefaulted {
            Ok(true) => Ok(()),
            Ok(false) => self.watch.read_through(start..end).map_or(Ok(()), Err),
            Err(e) => Err(self.watch.read_through(start..end).unwrap_or_else(|| self.watch.error_at(offset, Some(&e)))),
        }
    }

    /// Makes everything from `len` on unusable and forgets all marks. Nothing above `len` is used
    /// any more.
    pub(super) fn unpublish(&self, len: u64) {
        self.expect(0);
        self.sentinel.store(std::ptr::from_ref(&NO_SENTINEL).cast_mut(), Ordering::Release);
        if len < self.mapped() {
            self.mapped.store(len, Ordering::Release);
            // SAFETY: the marks are private anonymous memory, reached through atomics alone.
            if unsafe { os::zero_again(self.verified_bytes.base(), self.verified_bytes.len()) }.is_err() {
                let cell = |page| self.verified_cell(PageId(page));
                (0..self.verified_bytes.len())
                    .filter_map(cell)
                    .for_each(|verified_byte| verified_byte.store(0, Ordering::Relaxed));
            }
        }
    }

    /// The writable mapping range, for the writable mapping handle and for flushing.
    pub(super) fn write_base(&self) -> Option<NonNull<u8>> {
        self.write_map.as_ref().map(|write_map| write_map.base)
    }

    pub(super) fn read_map(&self) -> &Reservation {
        &self.read_map
    }

    pub(super) fn read_base(&self) -> NonNull<u8> {
        self.read_map.base
    }

    pub(super) fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// Faults in `offset..offset + len` of the writable mapping for writing. `Ok(false)`: this
    /// kernel cannot, or refuses to.
    pub(super) fn prefault(&self, offset: u64, len: u64) -> io::Result<bool> {
        let Some(write_map) = &self.write_map else { return Ok(true) };
        let system = os::page_bytes();
        let start = offset & !(system - 1);
        let end = round_up(offset.saturating_add(len), system)?.min(write_map.covered());
        if start >= end {
            return Ok(true);
        }
        // SAFETY: inside what is mapped of the writable mapping.
        unsafe { os::prefault_write(write_map.at(start), end - start) }
    }

    /// Lets go of all pages that are mapped here, so that the page cache can drop them.
    pub(super) fn let_go(&self) -> io::Result<()> {
        for range in std::iter::once(&self.read_map).chain(&self.write_map) {
            let covered = range.covered();
            if covered > 0 {
                // SAFETY: a shared mapping of the file, which `self` keeps.
                unsafe { os::let_go(range.base, covered) }?;
            }
        }
        Ok(())
    }

    /// Flushes `offset..offset + len` of a file that is open for writing, whoever stored there:
    /// both mappings come from the same description of the file, and what is flushed is the file.
    pub(super) fn sync(&self, offset: u64, len: u64, file: &File) -> io::Result<()> {
        let system = os::page_bytes();
        let start = offset & !(system - 1);
        let end = round_up(offset.saturating_add(len), system)?;
        if len == 0 {
            return Ok(());
        }
        if end > self.read_map.covered() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "flush beyond the mapped part of the file"));
        }
        // SAFETY: inside what is mapped of the read-only mapping, which `self` keeps.
        unsafe { os::sync_range(self.read_map.at(start), end - start, file) }
    }

    /// Copies mapped bytes out, word by word, so that meta pages may be read while they are stored.
    /// `false`: not all of the range is mapped, and nothing was copied. Pages are not read through
    /// here, as their stores are no atomics (the hooks does so in tests, between stores).
    pub(super) fn copy_out(&self, offset: u64, into: &mut [u8]) -> bool {
        if !inside(self.mapped(), offset, into.len()) {
            return false;
        }
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let skip = (at % 8) as usize;
            let take = rest.len().min(8 - skip);
            // SAFETY: bounds: the word that holds byte `at` lies in the mapped view (whole pages
            // are mapped, WIN-1), aligned since the base is page-aligned. Lifetime: `self` keeps
            // the mapping. Initialised: file pages always are. Aliasing: atomics may meet the
            // atomic stores of `copy_in` and of other processes, and nobody has a reference to a
            // meta page (WMAP-2). A relaxed load of a word does not store, so read-only memory will
            // do.
            let word = unsafe { AtomicU64::from_ptr(self.read_map.at(at - skip as u64).as_ptr().cast()) };
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(&bytes[skip..skip + take]);
            rest = later;
            at += take as u64;
        }
        true
    }

    /// Copies whole words into the writable mapping at an offset that is a multiple of 8. `false`:
    /// not mapped, or read-only.
    pub(super) fn copy_in(&self, offset: u64, from: &[u8]) -> bool {
        assert!(
            offset.is_multiple_of(8) && from.len().is_multiple_of(8),
            "copies into the writable mapping are whole words"
        );
        let Some(write_map) = &self.write_map else { return false };
        // The writable mapping is mapped later than the read-only mapping.
        if !inside(self.mapped().min(write_map.covered()), offset, from.len()) {
            return false;
        }
        self.set_open(offset, from.len() as u64, true);
        for (at, word) in (offset..).step_by(8).zip(from.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            // SAFETY: bounds: inside the mapped writable mapping (WIN-1), aligned. Lifetime: `self`
            // keeps the mapping. Aliasing: the bytes are those of a meta page, to which nobody has
            // a reference: no pointer to pages 0 and 1 is followed.
            let target = unsafe { AtomicU64::from_ptr(write_map.at(at).as_ptr().cast()) };
            target.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        self.set_open(offset, from.len() as u64, false);
        true
    }

    fn verified_cell(&self, page: PageId) -> Option<&AtomicU8> {
        // SAFETY: the table is the window's, as long as said, and lives as long as the borrow.
        unsafe { verified_cell(self.verified_bytes.base(), self.verified_bytes.len(), page) }
    }
}

/// The mark of a page in a table of `len` bytes; `None` for a page outside.
///
/// # Safety
/// `table` is mapped memory of `len` bytes, reached through atomics alone, for the lifetime that
/// the caller picks.
#[inline]
unsafe fn verified_cell<'a>(table: NonNull<u8>, len: u64, page: PageId) -> Option<&'a AtomicU8> {
    // SAFETY: inside the table, by the test, and bytes are always aligned and, being mapped,
    // initialised.
    (page.0 < len).then(|| unsafe { AtomicU8::from_ptr(table.as_ptr().add(page.0 as usize)) })
}

/// Keeps a window alive for the read-only mappings that were cloned from one call of
/// `Mapping::read_map`.
struct Pin {
    window: Arc<Window>,
}

/// A cheap pin of the window that was current when it was made: what it gives out stays mapped
/// while it lives.
///
/// A clone counts in the pin of its origin and nowhere else, so that readers with read-only
/// mappings of their own share no cache line that is written.
///
/// What may be borrowed through it: pages that no writer changes while the borrow lasts. The pager
/// sees to that (a page that a snapshot reaches is not claimed before the snapshot ends); meta
/// pages are copied out instead.
#[derive(Clone)]
pub(crate) struct ReadMap {
    pub(super) base: NonNull<u8>,
    /// The window that `pin` keeps.
    window: NonNull<Window>,
    /// The verified bitmap of that window, and its length.
    pub(super) verified_bytes: NonNull<u8>,
    pub(super) verified_len: u64,
    pin: Arc<Pin>,
}

// SAFETY: the pointers lead to the window that `pin` keeps alive, which is `Sync`, and into it: to
// read-only mapped memory and to marks that are reached through atomics alone.
unsafe impl Send for ReadMap {}
// SAFETY: as above.
unsafe impl Sync for ReadMap {}

impl ReadMap {
    pub(super) fn new(window: Arc<Window>) -> ReadMap {
        let (base, kept) = (window.read_base(), NonNull::from(&*window));
        let (verified_bytes, verified_len) = (window.verified_bytes.base(), window.verified_bytes.len());
        ReadMap { base, window: kept, verified_bytes, verified_len, pin: Arc::new(Pin { window }) }
    }

    /// The bytes `offset..offset + len` of the file, if all of them are mapped.
    #[inline]
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        if !inside(self.len_bytes(), offset, len) {
            return None;
        }
        // SAFETY: bounds: below `mapped`, so mapped and readable (WIN-1), and inside one
        // reservation. Lifetime: the borrow of `self` holds the pin, which holds the window
        // (WIN-3). Initialised: file pages always are. Aliasing: nobody stores to a page that a
        // reader may reach (see the type).
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset as usize), len) })
    }

    /// Asks the processor to bring bytes into its cache. Pages that are not in memory stay where
    /// they are.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64, len: usize) {
        if let Some(bytes) = self.bytes(offset, len) {
            prefetch::lines(bytes);
        }
    }

    /// Bytes of the file that are mapped now; grows while the window is current.
    #[inline]
    pub(crate) fn len_bytes(&self) -> u64 {
        self.window().mapped()
    }

    #[inline]
    pub(super) fn window(&self) -> &Window {
        // SAFETY: the pin keeps the window, at its address, and all changes of it are atomic.
        unsafe { self.window.as_ref() }
    }

    /// Whether everything that was read through this read-only mapping before this call could be
    /// served. If not, what was read may be zeros, and nothing more is to be believed of the
    /// mapping.
    #[inline]
    pub(crate) fn all_served(&self) -> bool {
        self.window().all_served()
    }

    /// The error of what could not be served, after [`ReadMap::all_served`] has said no.
    #[cold]
    pub(crate) fn fault(&self) -> Error {
        if self.window().is_inherited() {
            return Error::Inherited { path: None };
        }
        let watch = &self.window().watch;
        watch.error().unwrap_or_else(|| watch.error_at(self.len_bytes(), None))
    }

    /// Brings a range into memory: [`Error::Fault`] here, where an access would bring a signal.
    pub(crate) fn probe(&self, offset: u64, len: usize) -> Result<()> {
        self.window().probe(offset, len as u64, false)
    }

    /// Whether this is a copy that a child got by `fork`.
    pub(crate) fn is_inherited(&self) -> bool {
        self.window().is_inherited()
    }

    /// Whether an access that cannot be served ends in an error, and not in the process's death.
    #[inline]
    pub(crate) fn has_fault_guard(&self) -> bool {
        self.window().watch.fault_guard
    }

    /// What is read ahead of the file.
    #[inline]
    pub(crate) fn ahead(&self) -> &Ahead {
        &self.window().watch.ahead
    }

    /// Names the window; differs from [`super::Mapping::window_id`] once the mapping has moved on.
    pub(crate) fn window_id(&self) -> u64 {
        self.pin.window.id()
    }

    /// The verified byte of a page: 0 until somebody stores one, and for a page outside the window.
    #[inline]
    pub(crate) fn verified_byte(&self, page: PageId) -> u8 {
        self.verified_cell(page).map_or(0, |verified_byte| verified_byte.load(Ordering::Relaxed))
    }

    /// Stores the verified byte of a page. Relaxed: a mark that is not seen costs a second
    /// verification.
    #[inline]
    pub(crate) fn set_verified(&self, page: PageId, value: u8) {
        if let Some(verified_byte) = self.verified_cell(page) {
            verified_byte.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn verified_cell(&self, page: PageId) -> Option<&AtomicU8> {
        // SAFETY: the table of the window that the pin keeps, which lives as long as the borrow of
        // `self`.
        unsafe { verified_cell(self.verified_bytes, self.verified_len, page) }
    }
}

impl std::fmt::Debug for ReadMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl hooks::Mapped for Window {
    fn file_len(&self) -> io::Result<u64> {
        crate::sys::file_calls::end_of(&self.watch.file)
    }

    fn mapped_len(&self) -> u64 {
        self.mapped()
    }

    fn copy_out(&self, offset: u64, into: &mut [u8]) -> bool {
        Window::copy_out(self, offset, into)
    }
}
