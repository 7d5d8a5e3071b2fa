//! System calls on memory: reserve, map, move, protect, advise, flush, unmap.
//!
//! Floor: sys. Each is a thin function with an `io::Result`. Nothing here knows of pages or
//! windows. The comment of an unsafe function says what makes its call harmless, and the caller
//! argues that it holds.
//!
//! Failure: the error of the call, which names the call if the kernel refused it (`refused`).
//! `EINTR` is retried. `EFAULT` of prefaulting becomes [`io::ErrorKind::StorageFull`].
#![allow(unsafe_code, reason = "raw system calls")]

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr::{self, NonNull};

use crate::hooks;
use crate::sys::call::{offset, page_bytes, retry, size};
use crate::sys::{descriptor, refused};

/// The accesses that a mapping permits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// Maps `len` bytes, at least a kernel page, at an address that the kernel chooses. The range is
/// neither locked nor read in, even in a program that locks everything it maps (`mlockall`): it is
/// mapped without access, which the kernel cannot read in, then unlocked, and only then gets its
/// access. If the limit on locked memory or a sandbox forbids that, the range grows from one page.
fn map_unlocked(
    len: u64,
    prot: libc::c_int,
    flags: libc::c_int,
    file: Option<(&File, u64)>,
) -> io::Result<NonNull<u8>> {
    // SAFETY: no range is given.
    match unsafe { map_without_access(None, len, flags, file) } {
        Ok(base) if prot == libc::PROT_NONE => Ok(base),
        // SAFETY: the range that was just mapped.
        Ok(base) => match unsafe { permit(base, len, prot) } {
            Ok(()) => Ok(base),
            Err(error) => {
                // SAFETY: as above; it is not used yet.
                unsafe { unmap(base, len) };
                if refused::is(&error) {
                    map_from_one_page(len, prot, flags, file)
                } else {
                    Err(error)
                }
            }
        },
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => map_from_one_page(len, prot, flags, file),
        Err(error) => Err(error),
    }
}

/// Maps a range without access, at an address that the kernel chooses or over a given range, and
/// unlocks it.
///
/// # Safety
/// The caller owns the range `over`, if it gives one, and no thread uses it during the call.
unsafe fn map_without_access(
    over: Option<NonNull<u8>>,
    len: u64,
    flags: libc::c_int,
    file: Option<(&File, u64)>,
) -> io::Result<NonNull<u8>> {
    let len = size(len)?;
    let (fd, at) = raw(file)?;
    let (to, flags) = match over {
        Some(to) => (to.as_ptr().cast(), flags | libc::MAP_FIXED),
        None => (ptr::null_mut(), flags),
    };
    // SAFETY: the caller owns the range that is replaced. Otherwise a new mapping replaces no
    // memory.
    let base = mapped("mmap", unsafe { libc::mmap(to, len, libc::PROT_NONE, flags, fd, at) })?;
    // SAFETY: the range that was just mapped; its contents stay. If the call fails, the range
    // stays locked, which only costs memory.
    unsafe { libc::munlock(base.as_ptr().cast(), len) };
    Ok(base)
}

/// Maps and unlocks one page, and extends it to the whole range, which inherits that. If the kernel
/// refuses `mremap`, the whole range is mapped and then unlocked.
fn map_from_one_page(
    len: u64,
    prot: libc::c_int,
    flags: libc::c_int,
    file: Option<(&File, u64)>,
) -> io::Result<NonNull<u8>> {
    let (len, first) = (size(len)?, size(page_bytes())?.min(size(len)?));
    let (fd, at) = raw(file)?;
    let map = |len: usize| {
        // SAFETY: a new mapping at an address that the kernel chooses replaces no memory.
        let base = mapped("mmap", unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, at) })?;
        // SAFETY: as in `map_without_access`.
        unsafe { libc::munlock(base.as_ptr().cast(), len) };
        Ok(base)
    };
    let base = map(first)?;
    if len == first {
        return Ok(base);
    }
    // SAFETY: the page that was just mapped, and is not used yet. The kernel may move it.
    let longer = unsafe { libc::mremap(base.as_ptr().cast(), first, len, libc::MREMAP_MAYMOVE) };
    mapped("mremap", longer).or_else(|error| {
        // SAFETY: the page was not moved. It is ours and not used.
        unsafe { unmap(base, first as u64) };
        if refused::is(&error) {
            map(len)
        } else {
            Err(error)
        }
    })
}

/// Descriptor and offset for `mmap`.
fn raw(file: Option<(&File, u64)>) -> io::Result<(libc::c_int, libc::off_t)> {
    match file {
        Some((file, at)) => Ok((file.as_raw_fd(), offset(at)?)),
        None => Ok((-1, 0)),
    }
}

/// Gives the kernel advice on a mapping. If the kernel refuses it, it has no effect.
fn advise(base: NonNull<u8>, len: u64, advice: libc::c_int) {
    if let Ok(len) = size(len) {
        // SAFETY: the callers give only advice that changes no contents of any mapping.
        unsafe { libc::madvise(base.as_ptr().cast(), len, advice) };
    }
}

const PRIVATE: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Reserves `len` bytes of address space that cost no memory and stay out of core dumps.
pub(crate) fn reserve(len: u64) -> io::Result<NonNull<u8>> {
    let base = map_unlocked(len, libc::PROT_NONE, PRIVATE, None)?;
    advise(base, len, libc::MADV_DONTDUMP);
    Ok(base)
}

/// Maps private memory of zeros. A page of it takes memory only after a store. It stays out of core
/// dumps.
pub(crate) fn zeroed(len: u64) -> io::Result<NonNull<u8>> {
    let base = map_unlocked(len, protection(Access::ReadWrite), PRIVATE, None)?;
    advise(base, len, libc::MADV_DONTDUMP);
    Ok(base)
}

/// Reserves a range at a given address, if nothing is mapped there.
///
/// An error means that something is mapped there, or that the kernel cannot tell (before Linux
/// 4.17).
pub(crate) fn reserve_at(base: NonNull<u8>, len: u64) -> io::Result<()> {
    let (bytes, flags) = (size(len)?, PRIVATE | libc::MAP_FIXED_NOREPLACE);
    // SAFETY: replaces no mapping that exists.
    let got = mapped("mmap", unsafe { libc::mmap(base.as_ptr().cast(), bytes, libc::PROT_NONE, flags, -1, 0) })?;
    if got != base {
        // SAFETY: an older kernel took the address for a hint. The range that it mapped elsewhere
        // is ours and not used.
        unsafe { unmap(got, len) };
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    advise(base, len, libc::MADV_DONTDUMP);
    Ok(())
}

/// Whether a range is inside one memory area that, like a reservation, cannot be accessed and has
/// no file.
pub(crate) fn is_reserved(base: NonNull<u8>, len: u64) -> bool {
    let start = base.as_ptr() as u64;
    let maps = descriptor::open(OpenOptions::new().read(true), Path::new("/proc/self/maps"));
    let Ok(maps) = maps else { return false };
    let holds = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let inside = number(from)? <= start && start.checked_add(len)? <= number(to)?;
        Some(inside && rest.starts_with("---p") && rest.split_ascii_whitespace().nth(3) == Some("0"))
    };
    let mut lines = io::BufReader::with_capacity(4096, maps).lines().map_while(io::Result::ok);
    lines.any(|line| holds(&line) == Some(true))
}

fn protection(access: Access) -> libc::c_int {
    match access {
        Access::Read => libc::PROT_READ,
        Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    }
}

/// Maps a range of a file at an address that the kernel chooses, and gives the advice that keeps
/// folios small before any page is faulted in.
pub(crate) fn map_file(file: &File, at: u64, len: u64, access: Access) -> io::Result<NonNull<u8>> {
    let base = map_unlocked(len, protection(access), libc::MAP_SHARED, Some((file, at)))?;
    advise_file_range(base, len);
    Ok(base)
}

fn advise_file_range(base: NonNull<u8>, len: u64) {
    advise(base, len, libc::MADV_RANDOM);
    advise(base, len, libc::MADV_DONTDUMP);
}

/// Maps the start of a file over `to..to+len`, with the advice of [`map_file`], neither locked nor
/// read in. `Ok(false)`: that is not possible here, and nothing has changed.
///
/// # Safety
/// The caller owns `to..to+len`, and no thread uses it during the call. After an error it may be
/// unmapped.
pub(crate) unsafe fn map_start_over(file: &File, len: u64, access: Access, to: NonNull<u8>) -> io::Result<bool> {
    if hooks::move_fails() {
        // SAFETY: the caller owns the target, and gives it up if the call fails.
        return Err(unsafe { fail_late(to, size(len)?) });
    }
    // SAFETY: the caller's duty.
    match unsafe { map_without_access(Some(to), len, libc::MAP_SHARED, Some((file, 0))) } {
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(false),
        mapped => mapped?,
    };
    advise_file_range(to, len);
    // SAFETY: the range that was just mapped.
    match unsafe { permit(to, len, protection(access)) } {
        // SAFETY: the caller owns the range.
        Err(error) if refused::is(&error) => unsafe { map_file_over(file, 0, len, access, to) }.map(|()| true),
        permitted => {
            if permitted.is_err() {
                // SAFETY: the caller owns the range, and takes it for unmapped after an error.
                unsafe { unmap(to, len) };
            }
            permitted.map(|()| true)
        }
    }
}

/// Maps a range of a file over `to..to+len`, for kernels that refuse to move a mapping there.
///
/// # Safety
/// The caller owns `to..to+len`, and no thread uses it during the call. After an error it may be
/// unmapped.
pub(crate) unsafe fn map_file_over(file: &File, at: u64, len: u64, access: Access, to: NonNull<u8>) -> io::Result<()> {
    let (bytes, at) = (size(len)?, offset(at)?);
    let (prot, flags) = (protection(access), libc::MAP_SHARED | libc::MAP_FIXED);
    // SAFETY: the caller owns the range, and no thread uses it.
    let base = unsafe { libc::mmap(to.as_ptr().cast(), bytes, prot, flags, file.as_raw_fd(), at) };
    mapped("mmap", base).map(|base| advise_file_range(base, len))
}

fn mapped(call: &'static str, base: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if base == libc::MAP_FAILED {
        return Err(refused::by(call)(io::Error::last_os_error()));
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("the system mapped address zero"))
}

/// Moves the mapping `from..from+len` over `to..to+len` in one step.
///
/// # Safety
/// The caller owns both ranges, they do not overlap, and no thread uses either during the call.
/// Afterwards `from` does not belong to the caller. After an error, `to` may be unmapped.
pub(crate) unsafe fn move_over(from: NonNull<u8>, len: u64, to: NonNull<u8>) -> io::Result<()> {
    let len = size(len)?;
    if hooks::move_fails() {
        // SAFETY: the caller owns the target, and gives it up if the move fails.
        return Err(unsafe { fail_late(to, len) });
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the caller owns both ranges, and no thread uses them.
    let got = unsafe { libc::mremap(from.as_ptr().cast(), len, len, flags, to.as_ptr()) };
    mapped("mremap", got).map(|_| ())
}

/// For tests: fails like a move that has already unmapped its target, where another part of the
/// program then maps memory.
///
/// # Safety
/// The caller owns the target, and gives it up.
unsafe fn fail_late(to: NonNull<u8>, len: usize) -> io::Error {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    // SAFETY: the caller owns the target and gives it up.
    let others = unsafe { libc::mmap(to.as_ptr().cast(), len, access, flags, -1, 0) };
    assert!(others != libc::MAP_FAILED, "memory of somebody else");
    hooks::note_others(others as usize, len);
    io::Error::from_raw_os_error(libc::ENOMEM)
}

/// Permits or forbids stores to a mapped range.
///
/// # Safety
/// The range lies in a mapping of the caller. A store to it that is not permitted raises a signal.
pub(crate) unsafe fn protect(base: NonNull<u8>, len: u64, access: Access) -> io::Result<()> {
    // SAFETY: the caller's duty.
    unsafe { permit(base, len, protection(access)) }
}

/// Sets the permitted accesses of a mapped range.
///
/// # Safety
/// As for [`protect`].
unsafe fn permit(base: NonNull<u8>, len: u64, prot: libc::c_int) -> io::Result<()> {
    let len = size(len)?;
    // SAFETY: a range of the caller; its contents stay.
    retry(|| unsafe { libc::mprotect(base.as_ptr().cast(), len, prot) }).map_err(refused::by("mprotect"))
}

/// Unmaps a range. An error would mean wrong arguments, and only leaks address space.
///
/// # Safety
/// The caller owns the range, and no thread uses it any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: u64) {
    if let Ok(len) = size(len) {
        // SAFETY: the caller owns the range, and no thread uses it.
        let result = unsafe { libc::munmap(base.as_ptr().cast(), len) };
        let refused = || refused::is(&io::Error::last_os_error());
        debug_assert!(result == 0 || refused(), "munmap of a range of ours: {}", io::Error::last_os_error());
    }
}

/// Makes private anonymous memory read as zeros again.
///
/// # Safety
/// The range is private anonymous memory of the caller, accessed only through atomics.
pub(crate) unsafe fn zero_again(base: NonNull<u8>, len: u64) -> io::Result<()> {
    let len = size(len)?;
    // SAFETY: private anonymous memory of the caller, accessed only through atomics, for which any
    // value at any time is valid.
    retry(|| unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTNEED) })
}

/// Faults pages in for writing, so that a full disk is an error here and not a signal at the first
/// store. `Ok(false)`: the kernel does not know this advice, or refuses it.
///
/// # Safety
/// The range lies in a writable mapping of the caller.
pub(crate) unsafe fn prefault_write(base: NonNull<u8>, len: u64) -> io::Result<bool> {
    let len = size(len)?;
    // SAFETY: faulting pages in changes no contents.
    match retry(|| unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) }) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) || refused::is(&error) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
            Err(io::Error::new(io::ErrorKind::StorageFull, "no space for pages of the mapping"))
        }
        Err(error) => Err(error),
    }
}

/// Faults pages in for reading, so that a page that cannot be read is an error here (`EFAULT`,
/// `EIO` or `EHWPOISON`) and not a signal at the first load. `Ok(false)`: the kernel does not know
/// this advice, refuses it, or has no memory for it now.
///
/// # Safety
/// The range lies in a readable mapping of the caller.
pub(crate) unsafe fn prefault_read(base: NonNull<u8>, len: u64) -> io::Result<bool> {
    let len = size(len)?;
    // SAFETY: faulting pages in changes no contents.
    match retry(|| unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_POPULATE_READ) }) {
        Ok(()) => Ok(true),
        Err(error) if is_unserved(&error) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Whether an error means that the kernel cannot serve an access to the file: the file was cut
/// there, or the disk failed.
pub(crate) fn is_unserved(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EIO | libc::EHWPOISON))
}

/// Flushes the pages of a mapped range of a file to the disk and waits.
///
/// # Safety
/// The range lies in a mapping that the caller keeps during the call.
pub(crate) unsafe fn sync_range(base: NonNull<u8>, len: u64, file: &File) -> io::Result<()> {
    let len = size(len)?;
    // SAFETY: flushing only reads the range, and the caller keeps it mapped.
    match retry(|| unsafe { libc::msync(base.as_ptr().cast(), len, libc::MS_SYNC) }) {
        // Either call flushes the file.
        Err(error) if refused::is(&error) => file.sync_data().map_err(refused::by("msync, and fdatasync after it")),
        other => other,
    }
}

/// Maps a page of zeros, which the kernel sets to zeros again in every child after `fork`, if it
/// can.
pub(crate) fn cleared_in_children() -> io::Result<memmap2::MmapRaw> {
    let page = memmap2::MmapMut::map_anon(size(page_bytes())?)?;
    // SAFETY: a private anonymous mapping of ours, which holds nothing yet. If the kernel refuses,
    // the handler in `fork` clears it.
    unsafe { libc::madvise(page.as_ptr().cast_mut().cast(), page.len(), libc::MADV_WIPEONFORK) };
    Ok(page.into())
}
