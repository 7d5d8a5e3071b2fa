//! Direct I/O: reading what the disk really holds, and writing past the page cache.
//!
//! Floor: sys. After a failed flush, the page cache may hold pages that never reached the disk. The
//! kernel may call them clean, and report success at the next flush (Rebello and others, "Can
//! Applications Recover from fsync Failures?", 2020). So recovery reads the meta pages by direct
//! I/O, past the cache. After a failed flush it drops the whole cache of the file before it uses
//! any page. An extended attribute of the file, where the file system has those, records that a
//! flush failed. The attribute outlives the process and stays with a renamed file; copies do not
//! get it.
//!
//! Failure: `io::Error`. `Ok(None)` and `Ok(false)` if the kernel cannot do it.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use memmap2::{MmapMut, MmapOptions};

use crate::error::best_effort;
use crate::sys::{attributes, descriptor, file_calls, page_cache, refused};

/// Alignment of direct reads and writes. Disks with larger sectors refuse it.
const ALIGNED_BYTES: u64 = 4096;
/// Bytes of each direct read, and of each write of zeros.
const BUFFER_BYTES: usize = 1 << 20;
/// Bytes of the file whose residency is found in one call.
const STEP_BYTES: u64 = 1 << 30;
/// How often dropping the cache is tried, with a pause between: a page that is being written back
/// can be dropped a little later.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(5);
/// The attribute of a file of which a flush failed.
const FLUSH_FAILED: &std::ffi::CStr = c"user.mapleaf.flush-failed";

/// The first `len` bytes of a file, or as many as it has, read from the disk. Bytes that cannot be
/// read are zeros. `None`: the file system reads only through its cache.
pub(crate) fn read_start_past_cache(file: &File, len: u64) -> io::Result<Option<Vec<u8>>> {
    let Ok(direct) = reopen_direct(file, false, 0) else { return Ok(None) };
    let len = len.min(file_calls::end_of(file)?);
    let mut read = Vec::with_capacity(len as usize);
    // A mapping, because direct I/O needs aligned memory.
    let mut chunk = MmapMut::map_anon(ALIGNED_BYTES as usize)?;
    for offset in (0..len).step_by(ALIGNED_BYTES as usize) {
        chunk.fill(0);
        match direct.read_at(&mut chunk, offset) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
            // The read may have stored a part of the chunk.
            Err(_) => chunk.fill(0),
            Ok(_) => {}
        }
        let wanted = (len - offset).min(ALIGNED_BYTES) as usize;
        read.extend_from_slice(&chunk[..wanted]);
    }
    Ok(Some(read))
}

/// A file that is read past the page cache.
#[derive(Debug)]
pub(crate) struct PastCache {
    direct: File,
    /// Aligned memory, which direct I/O needs.
    buffer: RefCell<MmapMut>,
}

impl PastCache {
    /// `None`: the file system reads only through its cache.
    pub(crate) fn open(file: &File) -> Option<PastCache> {
        let direct = reopen_direct(file, false, 0).ok()?;
        let mut buffer = MmapMut::map_anon(BUFFER_BYTES).ok()?;
        match direct.read_at(&mut buffer[..ALIGNED_BYTES as usize], 0) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
            _ => Some(PastCache { direct, buffer: RefCell::new(buffer) }),
        }
    }

    /// Reads bytes from the disk, at an offset that is a multiple of [`ALIGNED_BYTES`].
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut buffer = self.buffer.borrow_mut();
        for (chunk, offset) in into.chunks_mut(BUFFER_BYTES).zip((offset..).step_by(BUFFER_BYTES)) {
            let aligned = chunk.len().next_multiple_of(ALIGNED_BYTES as usize);
            let mut read = 0;
            while read < chunk.len() {
                match self.direct.read_at(&mut buffer[read..aligned], offset + read as u64)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    // The kernel returns an unaligned number of bytes only at the end of the file.
                    count => read += count,
                }
            }
            chunk.copy_from_slice(&buffer[..chunk.len()]);
        }
        Ok(())
    }
}

/// A file that is written past the page cache. A write is durable when it returns.
#[derive(Debug)]
pub(crate) struct DurableWriter {
    direct: File,
    /// Aligned memory, which direct I/O needs.
    buffer: Mutex<MmapMut>,
}

impl DurableWriter {
    /// The most bytes of one write.
    pub(crate) const BYTES_MAX: usize = 64 << 10;

    /// `None`: the file system does not promise this, or refuses direct I/O.
    pub(crate) fn open(file: &File) -> Option<DurableWriter> {
        if !file_calls::flushes_direct_writes(file) {
            return None;
        }
        let direct = reopen_direct(file, true, libc::O_DSYNC).ok()?;
        let mut buffer = MmapMut::map_anon(DurableWriter::BYTES_MAX).ok()?;
        // A disk with larger sectors refuses this alignment.
        direct.read_at(&mut buffer[..ALIGNED_BYTES as usize], 0).ok()?;
        Some(DurableWriter { direct, buffer: Mutex::new(buffer) })
    }

    /// Whether it can write so many bytes at an offset, in one write.
    pub(crate) fn fits(at: u64, len: usize) -> bool {
        (at | len as u64).is_multiple_of(ALIGNED_BYTES) && len <= DurableWriter::BYTES_MAX
    }

    /// Writes bytes and returns when they are durable. The caller has checked that they fit, and
    /// the size limit of the process. After an error, unknown bytes are written, and the disk may
    /// have lost what it had not made durable before.
    pub(crate) fn write_within(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer[..bytes.len()].copy_from_slice(bytes);
        self.direct.write_all_at(&buffer[..bytes.len()], at).map_err(refused::by("pwrite"))
    }
}

/// Whether direct I/O was refused because of its alignment: then nothing was written.
pub(crate) fn is_unaligned(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// Writes zeros past the page cache. They are not durable before a flush. `Ok(false)`: the
/// file system is not one of those of [`DurableWriter`], or refuses direct I/O.
pub(crate) fn write_zeros(file: &File, at: u64, len: u64) -> io::Result<bool> {
    if !file_calls::flushes_direct_writes(file) || !(at | len).is_multiple_of(ALIGNED_BYTES) {
        return Ok(false);
    }
    let Ok(direct) = reopen_direct(file, true, 0) else { return Ok(false) };
    file_calls::within_size_limit(at.saturating_add(len))?;
    let zeros = MmapMut::map_anon(BUFFER_BYTES)?;
    for from in (at..at + len).step_by(BUFFER_BYTES) {
        let now = (at + len - from).min(BUFFER_BYTES as u64) as usize;
        match file_calls::write_within(&direct, &zeros[..now], from) {
            Err(error) if is_unaligned(&error) => return Ok(false),
            written => written?,
        }
    }
    Ok(true)
}

/// Opens the same file once more for direct I/O, with further flags. Returns an error if the file
/// system does not support it.
fn reopen_direct(file: &File, writable: bool, flags: libc::c_int) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = libc::O_DIRECT | flags;
    descriptor::open(File::options().read(true).write(writable).custom_flags(flags), Path::new(&path))
}

/// Drops all pages of a file from the page cache, and checks that they are gone, so that later
/// reads come from the disk. `false`: some stay, because a program has them mapped or they cannot
/// be written back.
pub(crate) fn forget_cache(file: &File) -> io::Result<bool> {
    if file_calls::lives_in_memory(file) {
        return Ok(true);
    }
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            // `sleep` would panic if the kernel refuses its call.
            std::thread::park_timeout(PAUSE);
        }
        page_cache::drop_cache(file, 0, 0)?;
        if cached_pages(file)? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Pages of a file that are in memory, brought there by any process.
pub(crate) fn cached_pages(file: &File) -> io::Result<u64> {
    let (len, mut cached) = (file_calls::end_of(file)?, 0);
    for offset in (0..len).step_by(STEP_BYTES as usize) {
        let size = (len - offset).min(STEP_BYTES) as usize;
        let map = MmapOptions::new().offset(offset).len(size).map_raw_read_only(file).map_err(refused::by("mmap"))?;
        cached += match page_cache::resident_pages(&map) {
            Err(error) if refused::is(&error) => {
                page_cache::cached_pages(file, offset, size as u64).map_err(|_| error)?
            }
            found => found?,
        };
    }
    Ok(cached)
}

/// Records that a flush of the file failed. Returns whether that worked.
pub(crate) fn mark_flush_failed(file: &File) -> bool {
    attributes::set(file, FLUSH_FAILED).is_ok()
}

/// Whether a flush of the file failed since its last recovery.
pub(crate) fn is_flush_failed(file: &File) -> bool {
    attributes::has(file, FLUSH_FAILED)
}

/// Removes the record of a failed flush: the cache and the disk agree.
pub(crate) fn clear_flush_failed(file: &File) {
    // If the attribute cannot be removed, the next opening only drops the cache once more.
    best_effort(attributes::remove(file, FLUSH_FAILED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_cache_is_dropped_reads_show_the_disk() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(temp.path(), &bytes).unwrap();
        let file = File::options().read(true).write(true).open(temp.path()).unwrap();
        file.sync_all().unwrap();
        if let Some(read) = read_start_past_cache(&file, 10_000).unwrap() {
            assert!(read == bytes[..10_000]);
            assert_eq!(read_start_past_cache(&file, 1 << 20).unwrap().unwrap().len(), 100_000);
        }
        assert!(cached_pages(&file).unwrap() > 0);
        assert!(forget_cache(&file).unwrap());
        assert!(file_calls::lives_in_memory(&file) || cached_pages(&file).unwrap() == 0);
        assert!(std::fs::read(temp.path()).unwrap() == bytes);
    }

    #[test]
    fn dropping_the_cache_reports_a_mapped_page_that_stays() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(temp.path(), [7; 8192]).unwrap();
        let file = File::options().read(true).write(true).open(temp.path()).unwrap();
        file.sync_all().unwrap();
        let map = MmapOptions::new().map_raw_read_only(&file).unwrap();
        map.advise(memmap2::Advice::PopulateRead).unwrap();
        assert!(file_calls::lives_in_memory(&file) || !forget_cache(&file).unwrap());
    }

    #[test]
    fn a_failed_flush_is_remembered_where_the_file_system_can() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let file = temp.as_file();
        assert!(!is_flush_failed(file));
        if mark_flush_failed(file) {
            assert!(is_flush_failed(&File::open(temp.path()).unwrap()));
            clear_flush_failed(file);
        }
        assert!(!is_flush_failed(file));
    }
}
