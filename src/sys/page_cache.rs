//! The page cache: which pages of a file it holds, requests to read some, and to drop some.
//!
//! Floor: sys.
//!
//! Failure: the error of the call. Advice fails without effect.
#![allow(unsafe_code, reason = "raw system calls")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use crate::sys::call::{offset, page_bytes, retry, size};
use crate::sys::refused;

/// Drops the clean pages of a range that no program has mapped. A length of 0 means to the end of
/// the file.
pub(crate) fn drop_cache(file: &File, start: u64, len: u64) -> io::Result<()> {
    let (start, len) = (offset(start)?, offset(len)?);
    // SAFETY: a call on a descriptor that `file` keeps open.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), start, len, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(refused::by("fadvise64")(io::Error::from_raw_os_error(code))),
    }
}

/// Pages of a mapping that are in memory, brought there by any process.
pub(crate) fn resident_pages(map: &memmap2::MmapRaw) -> io::Result<u64> {
    let mut resident = vec![0u8; map.len().div_ceil(page_bytes() as usize)];
    // SAFETY: the mapping lives through the call, which stores a byte for each of its pages.
    retry(|| unsafe { libc::mincore(map.as_mut_ptr().cast(), map.len(), resident.as_mut_ptr().cast()) })
        .map_err(refused::by("mincore"))?;
    Ok(resident.iter().filter(|page| **page & 1 == 1).count() as u64)
}

/// Whether all pages of a range are in memory and read from the disk.
///
/// # Safety
/// The range lies in a mapping that the caller keeps.
pub(crate) unsafe fn all_resident(base: NonNull<u8>, len: u64) -> io::Result<bool> {
    const PAGES: usize = 256;
    let mut resident = [0u8; PAGES];
    let chunk = PAGES as u64 * page_bytes();
    for from in (0..len).step_by(chunk as usize) {
        let now = size(chunk.min(len - from))?;
        // SAFETY: inside the caller's range.
        let at = unsafe { base.add(size(from)?) };
        // SAFETY: a range of the caller, and room for a byte for each of its pages.
        retry(|| unsafe { libc::mincore(at.as_ptr().cast(), now, resident.as_mut_ptr().cast()) })?;
        let pages = now.div_ceil(page_bytes() as usize);
        if resident[..pages].iter().any(|page| page & 1 == 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bytes that this thread's stores and writes have dirtied in the page cache, counted in units of
/// 512.
pub(crate) fn thread_dirtied_bytes() -> u64 {
    // SAFETY: `rusage` is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call stores into a value that lives through it. If it fails, nothing was counted.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    u64::try_from(usage.ru_oublock).unwrap_or(0) * 512
}

/// Kernel pages that are dirty in a range of a file. An error if the kernel cannot tell.
pub(crate) fn dirty_pages(file: &File, start: u64, len: u64) -> io::Result<u64> {
    cache_state(file, start, len).map(|found| found[1] + found[2])
}

/// Kernel pages of a range of a file that are cached or being read. An error if the kernel cannot
/// tell.
pub(crate) fn cached_pages(file: &File, start: u64, len: u64) -> io::Result<u64> {
    cache_state(file, start, len).map(|found| found[0])
}

/// How many pages are cached, dirty, in write-back, evicted, recently evicted.
fn cache_state(file: &File, start: u64, len: u64) -> io::Result<[u64; 5]> {
    /// The number of `cachestat`, the same on all architectures.
    const CACHESTAT: libc::c_long = 451;
    let range = [start, len];
    let mut found = [0u64; 5];
    // SAFETY: a call on a descriptor that `file` keeps open, with two records of the form that it
    // asks for.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), found.as_mut_ptr(), 0) };
    match result {
        0 => Ok(found),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Requests that the kernel reads a range of a file soon. Does not wait. Errors do not matter.
pub(crate) fn will_need(file: &File, start: u64, len: u64) {
    if let (Ok(start), Ok(len)) = (offset(start), offset(len)) {
        // SAFETY: a call on a descriptor that `file` keeps open.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), start, len, libc::POSIX_FADV_WILLNEED) };
    }
}

/// Removes a range of a shared file mapping from the page tables. The next access finds the page
/// again, in the page cache or in the file.
///
/// # Safety
/// The range lies in a shared mapping of a file that the caller keeps.
pub(crate) unsafe fn release_pages(base: NonNull<u8>, len: u64) -> io::Result<()> {
    let len = size(len)?;
    // SAFETY: a shared file mapping loses no bytes. A thread that uses the page meanwhile faults it
    // in again.
    retry(|| unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTNEED) })
}

/// Tells the kernel that a range of a shared file mapping is not needed soon: when memory is short,
/// its pages leave it before others do.
///
/// # Safety
/// The range lies in a shared mapping of a file that the caller keeps.
pub(crate) unsafe fn cool_pages(base: NonNull<u8>, len: u64) -> io::Result<()> {
    let len = size(len)?;
    // SAFETY: bounds and lifetime: the caller keeps the mapping of the whole range. Aliasing: this
    // advice moves pages in the kernel's lists and changes no byte.
    retry(|| unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_COLD) })
}

/// Tells the kernel that a file is read at random, so that its read-ahead brings no large folios
/// into the page cache. Errors do not matter.
pub(crate) fn advise_random(file: &File) {
    // SAFETY: a call on a descriptor that `file` keeps open.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
}

/// Starts to write a range of a file to the disk and does not wait. If the file system cannot do
/// that, or the kernel refuses, the next flush writes everything.
pub(crate) fn start_write_back(file: &File, at: u64, len: u64) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    // SAFETY: a call on a descriptor that `file` keeps open, without pointers. It does not report
    // errors of earlier write-back; the next flush does.
    match retry(|| unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) }) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ESPIPE)) || refused::is(&error) => {
            Ok(())
        }
        other => other,
    }
}
