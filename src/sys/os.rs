//! The system calls of the mapping, each as a thin function with an `io::Result`.
//!
//! Floor: sys. Nothing here knows of pages or windows; what must hold for a call to be harmless
//! is documented at each function, and its caller gives the argument.
//!
//! Failure: the error of the call, which names it if the kernel refused it (`refused`). `EINTR` is
//! retried; `EFAULT` of prefaulting and `EDQUOT`/`ENOSPC` of reserving blocks come out as
//! [`io::ErrorKind::StorageFull`] or `QuotaExceeded`.
#![allow(unsafe_code, reason = "raw system calls")]

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

use crate::hooks;
use crate::sys::{descriptor, refused};

/// Which access a mapped file range has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "offset or length beyond what this system can address")
}

pub(crate) fn size(len: u64) -> io::Result<usize> {
    usize::try_from(len).map_err(|_| too_large())
}

pub(crate) fn offset(at: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(at).map_err(|_| too_large())
}

/// Repeats a call that returns -1 and `EINTR` when a signal came in between.
pub(crate) fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<()> {
    loop {
        if call() == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The result of a call that returns 0, or -1 and an error.
#[cfg(feature = "testing")]
pub(crate) fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The page size of the kernel, which mappings are aligned to (not that of the database).
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: a query without pointers.
    let found = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(found).ok().filter(|n| n.is_power_of_two()).unwrap_or(4096)
}

/// Maps `len` bytes, at least a kernel page, at an address of the kernel's choice. In a
/// program that locks whatever it maps (`mlockall`) they are not locked, nor read in: only the
/// first page is, for a moment, and the rest is added to it then. Where the kernel refuses
/// `mremap`, the whole range is locked for a moment.
fn map_unlocked(
    len: u64,
    prot: libc::c_int,
    flags: libc::c_int,
    file: Option<(&File, u64)>,
) -> io::Result<NonNull<u8>> {
    let (len, first) = (size(len)?, size(page_bytes())?.min(size(len)?));
    let (fd, at) = match file {
        Some((file, at)) => (file.as_raw_fd(), offset(at)?),
        None => (-1, 0),
    };
    let map = |len: usize| {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let base = mapped("mmap", unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, at) })?;
        // SAFETY: the range just mapped, whose contents stay. Refused, it stays locked, which costs
        // memory and no more.
        unsafe { libc::munlock(base.as_ptr().cast(), len) };
        Ok(base)
    };
    let base = map(first)?;
    if len == first {
        return Ok(base);
    }
    // SAFETY: the page just mapped, which nobody uses, becomes longer, wherever the kernel has
    // room.
    let longer = unsafe { libc::mremap(base.as_ptr().cast(), first, len, libc::MREMAP_MAYMOVE) };
    mapped("mremap", longer).or_else(|error| {
        // SAFETY: it was not moved: the page is where it was, ours, and nobody uses it.
        unsafe { unmap(base, first as u64) };
        if refused::is(&error) {
            map(len)
        } else {
            Err(error)
        }
    })
}

/// Advice on a mapping. Refused, it has no effect.
fn advise(base: NonNull<u8>, len: u64, advice: libc::c_int) {
    if let Ok(len) = size(len) {
        // SAFETY: this advice changes no contents, of whatever mapping.
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

/// Private memory of zeros, of which a page costs something when it is stored to, and which stays
/// out of core dumps.
pub(crate) fn zeroed(len: u64) -> io::Result<NonNull<u8>> {
    let base = map_unlocked(len, protection(Access::ReadWrite), PRIVATE, None)?;
    advise(base, len, libc::MADV_DONTDUMP);
    Ok(base)
}

/// Reserves a range again, if nothing is mapped there.
///
/// An error: something is, or the kernel cannot say so (before Linux 4.17).
pub(crate) fn reserve_at(base: NonNull<u8>, len: u64) -> io::Result<()> {
    let (bytes, flags) = (size(len)?, PRIVATE | libc::MAP_FIXED_NOREPLACE);
    // SAFETY: replaces no mapping that exists.
    let got = mapped("mmap", unsafe { libc::mmap(base.as_ptr().cast(), bytes, libc::PROT_NONE, flags, -1, 0) })?;
    if got != base {
        // SAFETY: an older kernel took the address for a wish; what it mapped instead is ours, and
        // nobody uses it.
        unsafe { unmap(got, len) };
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    advise(base, len, libc::MADV_DONTDUMP);
    Ok(())
}

/// Whether a range is inside one area that cannot be accessed and has no file, as a reservation is.
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

/// Maps a range of a file at an address of the kernel's choice, with the advice that keeps folios
/// small, before anything faults a page in.
pub(crate) fn map_file(file: &File, at: u64, len: u64, access: Access) -> io::Result<NonNull<u8>> {
    let base = map_unlocked(len, protection(access), libc::MAP_SHARED, Some((file, at)))?;
    advise_file_range(base, len);
    Ok(base)
}

fn advise_file_range(base: NonNull<u8>, len: u64) {
    advise(base, len, libc::MADV_RANDOM);
    advise(base, len, libc::MADV_DONTDUMP);
}

/// Maps a range of a file over `to..to+len`, for kernels that refuse to move a mapping there. Until
/// the advice is given the caller lets nobody touch it.
///
/// # Safety
/// The caller owns `to..to+len`, and nobody uses it. After an error it may be unmapped.
pub(crate) unsafe fn map_file_over(file: &File, at: u64, len: u64, access: Access, to: NonNull<u8>) -> io::Result<()> {
    let (bytes, at) = (size(len)?, offset(at)?);
    let (prot, flags) = (protection(access), libc::MAP_SHARED | libc::MAP_FIXED);
    // SAFETY: the caller owns the range, and nobody uses it.
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
/// The caller owns both ranges, nothing reads or writes either during the call, and they do not
/// overlap. `from` is no mapping of the caller afterwards. After an error, `to` may be unmapped.
pub(crate) unsafe fn move_over(from: NonNull<u8>, len: u64, to: NonNull<u8>) -> io::Result<()> {
    let len = size(len)?;
    if hooks::move_fails() {
        // SAFETY: the caller owns the target, and expects it unmapped after an error.
        return Err(unsafe { fail_late(to, len) });
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the caller owns both ranges and nobody uses them.
    let got = unsafe { libc::mremap(from.as_ptr().cast(), len, len, flags, to.as_ptr()) };
    mapped("mremap", got).map(|_| ())
}

/// A move that fails when the kernel has unmapped the target, where another mapping lies at
/// once.
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

/// Takes the right to store from a mapped range, or gives it.
///
/// # Safety
/// The range lies in a mapping of the caller, and every thread that stores to it may get a signal.
pub(crate) unsafe fn protect(base: NonNull<u8>, len: u64, access: Access) -> io::Result<()> {
    let (len, prot) = (size(len)?, protection(access));
    // SAFETY: a range of the caller, whose contents stay.
    retry(|| unsafe { libc::mprotect(base.as_ptr().cast(), len, prot) })
}

/// Unmaps a range. An error would mean that the arguments are wrong, and leaks address space at
/// worst.
///
/// # Safety
/// The caller owns the range and nothing uses it any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: u64) {
    if let Ok(len) = size(len) {
        // SAFETY: the caller owns the range and nothing uses it.
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
    // SAFETY: private anonymous memory of the caller; atomics may see any value at any time.
    retry(|| unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTNEED) })
}

/// Faults pages in for writing, so that a full disk is an error here and not a signal at the first
/// store. `Ok(false)`: this kernel has no such advice, or refuses it.
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

/// Faults pages in for reading, so that a page that cannot be read is an error here and not a
/// signal at the first load: `EFAULT`, `EIO` or `EHWPOISON`. `Ok(false)`: this kernel has no such
/// advice, refuses it, or has no memory for it now.
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

/// Whether an error says that the file cannot give or take what was asked for: it was cut there, or
/// the disk fails.
pub(crate) fn is_unserved(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EIO | libc::EHWPOISON))
}

/// Flushes the pages of a mapped range of a file to the disk and waits.
///
/// # Safety
/// The range lies in a mapping that the caller keeps for the duration of the call.
pub(crate) unsafe fn sync_range(base: NonNull<u8>, len: u64, file: &File) -> io::Result<()> {
    let len = size(len)?;
    // SAFETY: flushing only reads the range, and the caller keeps it mapped.
    match retry(|| unsafe { libc::msync(base.as_ptr().cast(), len, libc::MS_SYNC) }) {
        // What is flushed is the file, through whichever call.
        Err(error) if refused::is(&error) => file.sync_data().map_err(refused::by("msync, and fdatasync after it")),
        other => other,
    }
}

/// Starts to write a range of a file to the disk and does not wait. Where the file system cannot,
/// or the kernel refuses, nothing is done: the flush does it all.
pub(crate) fn start_write_back(file: &File, at: u64, len: u64) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    // SAFETY: a call on a descriptor that `file` keeps open, without pointers. It does not ask for
    // errors of earlier write-back, which the next flush tells.
    match retry(|| unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) }) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ESPIPE)) || refused::is(&error) => {
            Ok(())
        }
        other => other,
    }
}

/// The first byte at `at` or after it that is not in a hole of the file; `None` when there is
/// none. Moves the position of the descriptor, which reads and writes at offsets do not use.
pub(crate) fn seek_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    let at = offset(at)?;
    // SAFETY: a call on a descriptor that `file` keeps open, without pointers.
    let found = unsafe { libc::lseek(file.as_raw_fd(), at, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// Tells the kernel that a descriptor is read here and there, so that read-ahead brings no large
/// folios in. Advice: errors do not matter.
pub(crate) fn advise_random(file: &File) {
    // SAFETY: a call on a descriptor that `file` keeps open.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
}

/// A page of memory, of zeros, that is zeros again in every child after `fork` where the kernel can
/// see to that.
pub(crate) fn cleared_in_children() -> io::Result<memmap2::MmapRaw> {
    let page = memmap2::MmapMut::map_anon(size(page_bytes())?)?;
    // SAFETY: a mapping of ours, private and anonymous, of whose content nobody knows yet. If the
    // kernel refuses, the handler of `process` clears it.
    unsafe { libc::madvise(page.as_ptr().cast_mut().cast(), page.len(), libc::MADV_WIPEONFORK) };
    Ok(page.into())
}

/// Takes or drops (`F_UNLCK`) a lock of the open file description on a byte range. `Ok(false)`:
/// another open file holds one that conflicts, which cannot be when the call waits.
pub(crate) fn set_lock(file: &File, kind: libc::c_int, start: u64, len: u64, wait: bool) -> io::Result<bool> {
    let lock = lock_of(kind, start, len)?;
    let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
    // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through the
    // call.
    match retry(|| unsafe { libc::fcntl(file.as_raw_fd(), command, &lock) }) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(refused::by("fcntl(F_OFD_SETLK)")(error)),
    }
}

/// Whether another open file description holds a lock that would conflict.
pub(crate) fn test_lock(file: &File, kind: libc::c_int, start: u64, len: u64) -> io::Result<bool> {
    let mut lock = lock_of(kind, start, len)?;
    // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through the
    // call.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) })?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn lock_of(kind: libc::c_int, start: u64, len: u64) -> io::Result<libc::flock> {
    // SAFETY: `flock` is plain integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = offset(start)?;
    lock.l_len = offset(len)?;
    Ok(lock)
}

/// Renames without replacing: `Ok(false)` when the new name exists.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<bool> {
    let (old, new) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    // By number: musl has no function for it.
    let (call, here, flags) = (libc::SYS_renameat2, libc::AT_FDCWD, libc::RENAME_NOREPLACE);
    // SAFETY: both names are strings with their terminating zero that live through the call.
    let renamed =
        retry(|| unsafe { libc::syscall(call, here, old.as_ptr(), here, new.as_ptr(), flags) } as libc::c_int);
    match renamed {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) || refused::is(&error) => link_new(from, to),
        Err(error) => Err(error),
    }
}

/// The same for file systems and kernels that cannot rename without replacing: a second name, then
/// the first one goes.
fn link_new(from: &Path, to: &Path) -> io::Result<bool> {
    match std::fs::hard_link(from, to) {
        Ok(()) => {
            // The file has its name. If the other one cannot go, it leads to the same file.
            drop(std::fs::remove_file(from));
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(refused::by("renameat2, and linkat after it")(error)),
    }
}

/// The same file once more, for reading past the page cache. An error where the file system has no
/// such reads.
pub(crate) fn reopen_direct(file: &File) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    descriptor::open(File::options().read(true).custom_flags(libc::O_DIRECT), Path::new(&path))
}

/// Gives a file an extended attribute without content.
pub(crate) fn set_attribute(file: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: a call on a descriptor that `file` keeps open, with a terminated name and a value of
    // no bytes.
    retry(|| unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), c"".as_ptr().cast(), 0, 0) })
}

/// Whether a file has an extended attribute.
pub(crate) fn has_attribute(file: &File, name: &CStr) -> bool {
    // SAFETY: a call on a descriptor that `file` keeps open, with a terminated name; asks only for
    // the length.
    unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), ptr::null_mut(), 0) >= 0 }
}

/// Takes an extended attribute from a file.
pub(crate) fn remove_attribute(file: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: a call on a descriptor that `file` keeps open, with a terminated name.
    retry(|| unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) })
}
