//! System calls on open files: length, blocks, writes, flushes, status.
//!
//! Floor: sys. Each is a thin function, which also does what is needed if the kernel refuses the
//! call.
//!
//! Invariants:
//!   CALL-1  before a call that writes to a file or may make it longer, the size limit of the
//!       process is checked (`within_size_limit`).
//!   CALL-2  a call ends at some time, however often signals interrupt it.
//!
//! Failure: the error of the call, which names it if the kernel refused it.
#![allow(unsafe_code, reason = "raw system calls")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::ptr;

use crate::error::best_effort;
use crate::hooks;
use crate::sys::call::{offset, page_bytes, retry};
use crate::sys::process_limits::soft_limit;
use crate::sys::refused;

/// Refuses a length above the size limit of the process (`ulimit -f`): a call that exceeds it
/// raises the signal SIGXFSZ, which ends the process. So every call that writes to a file, or may
/// make it longer, checks here first.
pub(crate) fn within_size_limit(len: u64) -> io::Result<()> {
    match soft_limit(libc::RLIMIT_FSIZE as libc::c_int) {
        Some(limit) if len > limit => {
            let what = "the limit of this process on the size of files (RLIMIT_FSIZE, 'ulimit -f')";
            let what = format!("File too large: {len} bytes are over {what} of {limit} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
        }
        _ => Ok(()),
    }
}

/// Writes bytes at an offset of a file. Checks the size limit.
pub(crate) fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    within_size_limit(at.saturating_add(bytes.len() as u64))?;
    write_within(file, bytes, at)
}

/// Writes bytes at an offset of a file, after the caller has checked the size limit.
pub(crate) fn write_within(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at).map_err(refused::by("pwrite"))
}

/// Changes the length of a file. Checks the size limit.
pub(crate) fn set_len(file: &File, len: u64) -> io::Result<()> {
    // Only a file that gets longer can exceed the limit. If its present length is unknown, the call
    // decides.
    if end_of(file).is_ok_and(|now| len > now) {
        within_size_limit(len)?;
    }
    file.set_len(len).map_err(refused::by("ftruncate"))
}

/// The length of a file, found by a seek and not by `stat`: after a program has read the times of a
/// file by `stat`, the kernel writes them again at the next change, which costs each commit two
/// more blocks. Mapleaf never uses the position that the seek moves.
pub(crate) fn end_of(file: &File) -> io::Result<u64> {
    match (&*file).seek(io::SeekFrom::End(0)) {
        Err(error) if refused::is(&error) => status(file).map(|found| found.len),
        other => other,
    }
}

/// The status of an open file, as the kernel gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStatus {
    pub(crate) len: u64,
    /// Bytes that it takes on the disk.
    pub(crate) allocated: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Type and rights, as in `st_mode`.
    pub(crate) mode: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Names of the file; 0 if all were removed.
    pub(crate) links: u64,
}

/// The status of an open file, by `statx`, or by `fstat` if the kernel refuses that.
pub(crate) fn status(file: &File) -> io::Result<FileStatus> {
    /// The unit that the kernel counts blocks in, whatever the file system's own is.
    const BLOCK_BYTES: u64 = 512;
    let error = match file.metadata() {
        Ok(found) => {
            let (len, allocated, mode) = (found.len(), found.blocks() * BLOCK_BYTES, found.mode());
            let (device, inode, user, group) = (found.dev(), found.ino(), found.uid(), found.gid());
            return Ok(FileStatus { len, allocated, device, inode, mode, user, group, links: found.nlink() });
        }
        Err(error) if refused::is(&error) => error,
        other => return other.map(|_| unreachable!("an error")),
    };
    // SAFETY: `stat` is plain integers, for which zero is a value.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through the
    // call.
    retry(|| unsafe { libc::fstat(file.as_raw_fd(), &mut found) })
        .map_err(|_| refused::by("statx and fstat")(error))?;
    let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
    let (len, allocated) = (bytes(found.st_size), bytes(found.st_blocks).saturating_mul(BLOCK_BYTES));
    let (device, inode, mode) = (found.st_dev, found.st_ino, found.st_mode);
    let (user, group) = (found.st_uid, found.st_gid);
    #[allow(clippy::useless_conversion, reason = "a narrower number on other processors")]
    let links = found.st_nlink.into();
    Ok(FileStatus { len, allocated, device, inode, mode, user, group, links })
}

/// Reserves blocks for a range of a file without changing its length. `Ok(false)`: the file system
/// cannot do that, or the kernel refuses. Some of the range may have blocks then.
pub(crate) fn reserve_blocks(file: &File, at: u64, len: u64) -> io::Result<bool> {
    within_size_limit(at.saturating_add(len))?;
    let reserve = |at, len| {
        let (at, len) = (offset(at)?, offset(len)?);
        // SAFETY: a call on a descriptor that `file` keeps open.
        match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, at, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    match in_chunks(at, len, reserve) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) || refused::is(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Calls `call` for a range: for the whole range first. If a signal interrupts a call, the kernel
/// has undone it, and the next call takes half as much. So the range is completed whatever the
/// interval of signals is.
fn in_chunks(at: u64, len: u64, mut call: impl FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
    let (mut from, end, mut chunk) = (at, at.saturating_add(len), len);
    while from < end {
        let now = chunk.min(end - from);
        match call(from, now) {
            Ok(()) => from += now,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                chunk = (now / 2).next_multiple_of(page_bytes());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a whole file durable, its length included, and waits.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if refused::is(&error) => file.sync_data().map_err(refused::by("fsync, and fdatasync after it")),
        other => other,
    }
}

/// Makes the whole file system of a file durable, and waits.
pub(crate) fn sync_file_system(file: &File) -> io::Result<()> {
    // SAFETY: a call on a descriptor that `file` keeps open.
    retry(|| unsafe { libc::syncfs(file.as_raw_fd()) }).map_err(refused::by("syncfs"))
}

/// Sets the modification time of a file to now, for file systems that do not note stores through a
/// mapping. If that fails, the file keeps its old time.
pub(crate) fn note_change(file: &File) {
    let at = |tv_nsec| libc::timespec { tv_sec: 0, tv_nsec };
    let times = [at(libc::UTIME_OMIT), at(libc::UTIME_NOW)];
    // SAFETY: a call on a descriptor that `file` keeps open, with two records that live through it.
    if unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) } != 0 {
        // Only the owner may leave out a time. Every user with write permission may set both to
        // now.
        // SAFETY: as above, without records.
        unsafe { libc::futimens(file.as_raw_fd(), ptr::null()) };
    }
}

/// The type of the file system of a file, as `statfs` gives it.
pub(crate) fn file_system(file: &File) -> io::Result<i128> {
    if let Some(kind) = hooks::file_system() {
        return Ok(kind);
    }
    // SAFETY: `statfs` is plain integers, for which zero is a value.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through the
    // call.
    retry(|| unsafe { libc::fstatfs(file.as_raw_fd(), &mut found) }).map(|()| i128::from(found.f_type))
}

/// Whether the file system of a file makes a direct write with `O_DSYNC` durable before it returns,
/// with the same flush of the disk as `fdatasync`. Other file systems may leave it to the program
/// that serves them (FUSE), or write elsewhere first (btrfs).
pub(crate) fn flushes_direct_writes(file: &File) -> bool {
    const XFS_MAGIC: i128 = 0x5846_5342;
    let known = [i128::from(libc::EXT4_SUPER_MAGIC), XFS_MAGIC, i128::from(libc::TMPFS_MAGIC)];
    file_system(file).is_ok_and(|kind| known.contains(&kind))
}

/// The name of a file system that other machines may change a file of, or whose shared mappings or
/// locks are not those of the machine.
fn name_of_network(kind: i128) -> Option<&'static str> {
    // From `linux/magic.h` and the sources of these file systems. `f_type` is signed on some
    // machines, so only its lower half is compared.
    const KNOWN: [(u32, &str); 11] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x0102_1997, "9p"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x7375_7245, "Coda"),
        (0x0bd0_0bd3, "Lustre"),
        (0x786f_4256, "a shared folder of VirtualBox"),
        (0x0116_1970, "GFS2"),
    ];
    KNOWN.iter().find(|(known, _)| i128::from(*known) == kind & 0xffff_ffff).map(|(_, name)| *name)
}

/// The name of the network file system of a file; `None` for a local one.
pub(crate) fn network_file_system(file: &File) -> Option<&'static str> {
    file_system(file).ok().and_then(name_of_network)
}

/// Whether the file exists only in the page cache, without a disk.
pub(crate) fn lives_in_memory(file: &File) -> bool {
    const RAMFS_MAGIC: i128 = 0x8584_58f6;
    matches!(file_system(file), Ok(kind) if kind == i128::from(libc::TMPFS_MAGIC) || kind == RAMFS_MAGIC)
}

/// The first byte at `at` or after it that is not in a hole of the file; `None` if there is none.
/// Moves the position of the descriptor, which no other call uses.
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

/// Renames without replacing. `Ok(false)`: the new name exists.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<bool> {
    let (old, new) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    // By its number, because musl has no function for it.
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

/// The same for file systems and kernels that cannot rename without replacing: makes a second name,
/// then removes the first.
fn link_new(from: &Path, to: &Path) -> io::Result<bool> {
    match std::fs::hard_link(from, to) {
        Ok(()) => {
            // The file has its new name. If the old one cannot be removed, it only leads to the
            // same file.
            best_effort(std::fs::remove_file(from));
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(refused::by("renameat2, and linkat after it")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        assert_eq!(name_of_network(0x6969), Some("NFS"));
        // As `statfs` gives it where `f_type` is signed.
        assert_eq!(name_of_network(i128::from(0xff53_4d42_u32 as i32)), Some("CIFS"));
        for local in [libc::EXT4_SUPER_MAGIC, libc::TMPFS_MAGIC, 0x5846_5342, 0x6573_5546] {
            assert_eq!(name_of_network(i128::from(local)), None, "{local:x}");
        }
        assert_eq!(network_file_system(&tempfile::tempfile().unwrap()), None);
    }

    #[test]
    fn a_reservation_is_completed_whatever_the_interval_of_signals() {
        for (len, longest) in [(1 << 30, 1 << 20), (1 << 30, 4096), (12_288, 4096), (5000, 4096)] {
            let (mut done, mut calls) = (0, 0);
            let call = |at: u64, len: u64| {
                calls += 1;
                assert_eq!(at, 7 * 4096 + done, "from where it stopped");
                if len > longest {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                done += len;
                Ok(())
            };
            in_chunks(7 * 4096, len, call).unwrap();
            assert_eq!(done, len);
            assert!(calls <= 2 * (len / longest) + 20, "{calls} calls for {len} bytes in chunks of {longest}");
        }
        let once = |at, len| match (at, len) {
            (0, 10) => Ok(()),
            _ => Err(io::Error::other("not in one call")),
        };
        in_chunks(0, 10, once).expect("one call where nothing interrupts");
        assert!(in_chunks(0, 9, once).is_err(), "other errors end it");
    }

    #[test]
    fn set_len_and_write_at_set_the_length_that_status_reports() {
        let file = tempfile::tempfile().unwrap();
        set_len(&file, 10_000).unwrap();
        set_len(&file, 5_000).unwrap();
        write_at(&file, b"end", 6_000).unwrap();
        assert_eq!(end_of(&file).unwrap(), 6_003);
        let found = status(&file).unwrap();
        let known = file.metadata().unwrap();
        assert_eq!((found.len, found.device, found.inode), (6_003, known.dev(), known.ino()));
        assert_eq!((found.mode, found.allocated), (known.mode(), known.blocks() * 512));
    }
}
