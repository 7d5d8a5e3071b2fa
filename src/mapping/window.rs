//! Windows: reserved address space that a file is mapped into.
//!
//! Floor: mapping. A window reserves one range of addresses for readers, and a second one for the
//! writer if the file is open for writing. The file is mapped from the start of each.
//!
//! ```text
//! read range    | file, read-only ........ mapped | sentinel |  reserved, no access        |
//! write range   | file, read-write ....... mapped | sentinel |  reserved, no access        |
//! bitmap        | one verified byte for each page that fits the window                     |
//! ```
//!
//! Growth maps more of the file after `mapped` and then raises `mapped`. Nothing moves.
//!
//! Invariants:
//!   WIN-1  `read_range[..mapped]` is a shared mapping of the file from offset 0. So is
//!       `write_range[..mapped]` once the mapping is ready for stores (`ready`).
//!   WIN-2  a range is published in `mapped` after it was mapped, and stays mapped at its address
//!       as long as the window lives. Only `unpublish` lowers `mapped`, when nothing above is used
//!       any more.
//!   WIN-3  the ranges are unmapped when the window is dropped, and every handle (`ReadMap`,
//!       `WriteMap`) holds an `Arc` of the window.
//!   WIN-4  the sentinel is a byte that can be read: one that is mapped in `read_range`, or a
//!          constant.
//!
//! Failure: errors of the kernel. A window in which mapping failed half way stays valid for the
//! bytes that were published.
#![allow(unsafe_code, reason = "addresses of mappings")]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bounds::round_up;
use super::budget;
use super::reservation::Reservation;
use super::sentinel::Sentinel;
use super::shared::Shared;
use super::verified_bitmap::VerifiedBitmap;
use crate::error::Result;
use crate::hooks;
use crate::sys::memory_calls::{self, Access};
use crate::sys::{call, file_calls, page_cache};

/// No process has more address space than this, so a larger reservation would only fail.
const WINDOW_BYTES_MAX: u64 = 1 << 47;

static NEXT_WINDOW: AtomicU64 = AtomicU64::new(1);

/// A window: reserved address space, and the file that is mapped in it. Aligned to its own cache
/// lines, apart from the counters of its `Arc`.
#[repr(align(128))]
pub(super) struct Window {
    /// Bytes of the file that may be used, a multiple of the database's page size. Only growth
    /// raises it.
    mapped: AtomicU64,
    shared: Shared,
    /// Bytes after `mapped` that are mapped as well, for the sentinel.
    sentinel_bytes: u64,
    id: u64,
    page_shift: u32,
    read_range: Reservation,
    write_range: Option<Reservation>,
    verified_bitmap: VerifiedBitmap,
    /// Dropped after both ranges, because their registrations with the SIGBUS handler point to it.
    pub(super) sentinel: Sentinel,
}

// SAFETY: the pointers name address space that only the window owns. The verified bitmap is
// accessed through atomics. `ReadMap` gives out shared slices, and the one `WriteMap` is the only
// way to a mutable one. All other state is atomic, and changed only by growth, which the mapping
// serialises.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Makes a window that has room for `wanted` bytes, and maps the file in it with `map`. If that
    /// fails, tries again with half the room beyond `least`, and so on down to `least`. It tries
    /// again after any error: a smaller window takes less of every limited resource.
    pub(super) fn reserve(
        (wanted, least): (u64, u64),
        page_size: usize,
        writable: bool,
        shared: &Shared,
        map: impl Fn(&Window) -> io::Result<()>,
    ) -> io::Result<Window> {
        let system = call::page_bytes();
        let least = round_up(least.max(1), system)?;
        let mut len = round_up(wanted.min(WINDOW_BYTES_MAX).max(least), system)?;
        loop {
            let reserved = Window::reserve_exactly(len, page_size, writable, shared);
            match reserved.and_then(|window| map(&window).map(|()| window)) {
                Err(_) if len > least => len = least + (((len - least) / 2) & !(system - 1)),
                result => return result.map_err(|e| budget::explain(e, len)),
            }
        }
    }

    fn reserve_exactly(len: u64, page_size: usize, writable: bool, shared: &Shared) -> io::Result<Window> {
        let pages = len.div_ceil(page_size as u64);
        let sentinel_bytes = if writable || shared.follows { call::page_bytes() } else { 0 };
        let reserve = |access| Reservation::new(len + sentinel_bytes, access, shared);
        Ok(Window {
            mapped: AtomicU64::new(0),
            sentinel: Sentinel::none(),
            shared: shared.clone(),
            sentinel_bytes,
            id: NEXT_WINDOW.fetch_add(1, Ordering::Relaxed),
            page_shift: page_size.trailing_zeros(),
            read_range: reserve(Access::Read)?,
            write_range: if writable { Some(reserve(Access::ReadWrite)?) } else { None },
            verified_bitmap: VerifiedBitmap::new(pages, shared)?,
        })
    }

    /// Identifies the window in this process.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Bytes of the file that can be used through this window.
    #[inline]
    pub(super) fn mapped(&self) -> u64 {
        // Acquire: a thread that sees the length also sees the mapping that was made before it.
        self.mapped.load(Ordering::Acquire)
    }

    /// Bytes up to which the file can be mapped here.
    pub(super) fn capacity(&self) -> u64 {
        let len = self.ranges().map(Reservation::len).min().unwrap_or(0);
        len.saturating_sub(self.sentinel_bytes)
    }

    /// The range for readers and, if there is one, that for the writer.
    fn ranges(&self) -> impl Iterator<Item = &Reservation> {
        std::iter::once(&self.read_range).chain(&self.write_range)
    }

    /// Whether bytes lie in what one of the ranges has mapped.
    #[inline]
    pub(super) fn contains(&self, bytes: &[u8]) -> bool {
        let mapped = self.mapped();
        self.ranges().any(|range| {
            let offset = bytes.as_ptr().addr().wrapping_sub(range.base.as_ptr().addr());
            (offset as u64).checked_add(bytes.len() as u64).is_some_and(|end| end <= mapped)
        })
    }

    /// Maps the file up to `len` for readers. This is also enough for flushing.
    pub(super) fn extend_read_range(&self, file: &File, len: u64) -> io::Result<()> {
        self.extend_range(&self.read_range, file, round_up(len, call::page_bytes())?, Access::Read)
    }

    /// Maps the file over a range up to `to`, and before it the base that it has, read-only.
    fn extend_range(&self, range: &Reservation, file: &File, to: u64, access: Access) -> io::Result<()> {
        if let Some((base, len)) = &self.shared.base {
            range.extend(base, to.min(*len), Access::Read)?;
        }
        range.extend(file, to, access)
    }

    /// Maps the file up to `len` in both ranges; publishes nothing. One caller at a time.
    pub(super) fn extend(&self, file: &File, len: u64) -> io::Result<()> {
        self.extend_read_range(file, len)?;
        let to = round_up(len, call::page_bytes())?;
        match &self.write_range {
            Some(write_range) if self.shared.strict => self.extend_range(write_range, file, to, Access::Read),
            Some(write_range) => self.extend_range(write_range, file, to, Access::ReadWrite),
            None => Ok(()),
        }
    }

    /// Whether the writer may store only to claimed pages, for tests.
    pub(super) fn is_strict(&self) -> bool {
        self.shared.strict
    }

    /// In a strict mapping, allows or forbids the writer to store to a range.
    #[inline]
    pub(super) fn allow_stores(&self, offset: u64, len: u64, allowed: bool) {
        if let (Some(write_range), true) = (&self.write_range, self.shared.strict) {
            let access = if allowed { Access::ReadWrite } else { Access::Read };
            // SAFETY: bounds: the range is mapped in `write_range`. A store to pages that are not
            // allowed is a bug, and is meant to get a signal.
            unsafe { memory_calls::protect(write_range.at(offset), len, access) }
                .expect("the rights of the writable mapping change");
        }
    }

    /// Raises `mapped` to `len`. These bytes are mapped (WIN-2), and the sentinel after them is
    /// watched.
    pub(super) fn publish(&self, len: u64) {
        debug_assert!(len <= self.read_range.covered(), "published before it is mapped");
        self.mapped.store(len, Ordering::Release);
    }

    /// Lowers `mapped` to `len` and clears the verified bytes. No thread uses pages above `len` any
    /// more.
    pub(super) fn unpublish(&self, len: u64) {
        self.sentinel.remove();
        if len < self.mapped() {
            self.mapped.store(len, Ordering::Release);
            self.verified_bitmap.clear();
        }
    }

    /// Makes the SIGBUS handler set the fault flag of this window from now on. Called when the
    /// window has its final address.
    pub(super) fn register_fault_flag(&self) {
        self.ranges().for_each(|range| range.set_flag(self.sentinel.fault_flag()));
    }

    /// Whether this process inherited the window from its parent through `fork`.
    pub(super) fn is_inherited(&self) -> bool {
        self.sentinel.is_inherited()
    }

    /// Brings `offset..offset + len` of the read-only mapping into memory. An access that the
    /// kernel cannot serve is [`Error::Fault`](crate::error::Error::Fault) here instead of a
    /// signal. If the kernel cannot do this for mappings, the file is read instead, which fails in
    /// the same places.
    pub(super) fn probe(&self, offset: u64, len: u64) -> Result<()> {
        let range = &self.read_range;
        let system = call::page_bytes();
        let start = offset & !(system - 1);
        let end = (offset.saturating_add(len).saturating_add(system - 1) & !(system - 1)).min(range.covered());
        if start >= end {
            return Ok(());
        }
        // SAFETY: bounds: inside the mapped part of the range, which `self` keeps.
        let prefaulted = unsafe { memory_calls::prefault_read(range.at(start), end - start) };
        let shared = &self.shared;
        match prefaulted {
            Ok(true) => Ok(()),
            Ok(false) => shared.read_through(start..end).map_or(Ok(()), Err),
            Err(e) => Err(shared.read_through(start..end).unwrap_or_else(|| shared.error_at(offset, Some(&e)))),
        }
    }

    /// The start of the writer's range, if the file is open for writing.
    pub(super) fn write_base(&self) -> Option<NonNull<u8>> {
        self.write_range.as_ref().map(|write_range| write_range.base)
    }

    pub(super) fn write_range(&self) -> Option<&Reservation> {
        self.write_range.as_ref()
    }

    pub(super) fn read_range(&self) -> &Reservation {
        &self.read_range
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn verified_bitmap(&self) -> &VerifiedBitmap {
        &self.verified_bitmap
    }

    pub(super) fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// Faults in `offset..offset + len` of the writable mapping for writing. `Ok(false)`: the
    /// kernel does not support or permit that.
    pub(super) fn prefault(&self, offset: u64, len: u64) -> io::Result<bool> {
        let Some(write_range) = &self.write_range else { return Ok(true) };
        let system = call::page_bytes();
        let start = offset & !(system - 1);
        let end = round_up(offset.saturating_add(len), system)?.min(write_range.covered());
        if start >= end {
            return Ok(true);
        }
        // SAFETY: bounds: inside the mapped part of the writable mapping, which `self` keeps.
        unsafe { memory_calls::prefault_write(write_range.at(start), end - start) }
    }

    /// Removes all pages of the file from the page tables of this window, so that the kernel can
    /// drop them from the page cache. The next access brings a page back.
    pub(super) fn release_pages(&self) -> io::Result<()> {
        for range in self.ranges() {
            let covered = range.covered();
            if covered > 0 {
                // SAFETY: bounds: a shared mapping of the file, which `self` keeps.
                unsafe { page_cache::release_pages(range.base, covered) }?;
            }
        }
        Ok(())
    }

    /// Removes a range from the page tables of the writable mapping. The next access brings a page
    /// back.
    pub(super) fn release_writable(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some(write_range) = &self.write_range else { return Ok(()) };
        let system = call::page_bytes();
        let start = offset & !(system - 1);
        let end = round_up(offset.saturating_add(len), system)?.min(write_range.covered());
        if start >= end {
            return Ok(());
        }
        // SAFETY: bounds: inside the mapped part of a shared mapping of the file, which `self`
        // keeps.
        unsafe { page_cache::release_pages(write_range.at(start), end - start) }
    }

    /// Flushes `offset..offset + len` of a file that is open for writing. It does not matter
    /// whether stores or `pwrite` wrote there: the kernel flushes the file, not a mapping.
    pub(super) fn sync(&self, offset: u64, len: u64, file: &File) -> io::Result<()> {
        let system = call::page_bytes();
        let start = offset & !(system - 1);
        let end = round_up(offset.saturating_add(len), system)?;
        if len == 0 {
            return Ok(());
        }
        if end > self.read_range.covered() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "flush beyond the mapped part of the file"));
        }
        // SAFETY: bounds: inside the mapped part of the read-only mapping, which `self` keeps.
        unsafe { memory_calls::sync_range(self.read_range.at(start), end - start, file) }
    }
}

impl hooks::Mapped for Window {
    fn file_len(&self) -> io::Result<u64> {
        file_calls::end_of(&self.shared.file)
    }

    fn mapped_len(&self) -> u64 {
        self.mapped()
    }

    fn copy_out(&self, offset: u64, into: &mut [u8]) -> bool {
        Window::copy_out(self, offset, into)
    }
}
