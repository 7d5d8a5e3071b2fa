//! Whether a store to a file needs a new block on the disk.
//!
//! Floor: sys. If the disk is full, a store to a mapping that needs a new block raises a signal. A
//! store needs one in a hole, in a block that the file shares with a copy of it (`cp --reflink`,
//! snapshots), and everywhere on file systems that write every change to new blocks.
//!
//! Failure: none. If the kernel cannot tell, the answer is the one that costs only speed.
#![allow(unsafe_code, reason = "raw system calls")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::sys::{file_calls, refused};

/// The attribute of a file whose changes go to the same blocks.
const NO_COPY_ON_WRITE: libc::c_int = 0x0080_0000;

/// The request for the extents of a file, `FS_IOC_FIEMAP`, and flags of an extent.
const GET_EXTENTS: libc::Ioctl = libc::_IOWR::<ExtentsHeader>(b'f' as u32, 11);
const LAST_EXTENT: u32 = 0x1;
const SHARED_EXTENT: u32 = 0x2000;
/// Extents per request, few because they are on the stack, and requests per file. A file in more
/// extents counts as one that lacks blocks, so that opening does not take long.
const EXTENTS: usize = 32;
const REQUESTS: usize = 1024;

/// `struct fiemap` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ExtentsHeader {
    start: u64,
    len: u64,
    flags: u32,
    found: u32,
    room: u32,
    reserved: u32,
}

/// `struct fiemap_extent` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    at: u64,
    on_disk: u64,
    len: u64,
    reserved_long: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Extents {
    header: ExtentsHeader,
    extents: [Extent; EXTENTS],
}

/// Whether every byte below `len` has a block of its own, which no copy shares.
pub(crate) fn has_all_blocks(file: &File, len: u64) -> io::Result<bool> {
    let counted = file_calls::status(file)?.allocated >= len;
    Ok(counted && own_extents_reach(file, len).unwrap_or(true))
}

/// The same, by the extents that the file system lists. `None` if it lists none. `Some(false)` if
/// the kernel refuses the request, because the extents are unknown then.
fn own_extents_reach(file: &File, len: u64) -> Option<bool> {
    let mut reached = 0;
    for _ in 0..REQUESTS {
        if reached >= len {
            return Some(true);
        }
        let header = ExtentsHeader { start: reached, len: len - reached, room: EXTENTS as u32, ..Default::default() };
        let mut answer = Extents { header, extents: [Extent::default(); EXTENTS] };
        // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through
        // the call, to a header and as many extents as it says.
        if unsafe { libc::ioctl(file.as_raw_fd(), GET_EXTENTS, &mut answer) } != 0 {
            return refused::is(&io::Error::last_os_error()).then_some(false);
        }
        let found = answer.extents.get(..answer.header.found as usize)?;
        let ended = found.last().is_none_or(|last| last.flags & LAST_EXTENT != 0);
        for extent in found {
            if extent.at > reached || extent.flags & SHARED_EXTENT != 0 {
                return Some(false);
            }
            reached = extent.at.saturating_add(extent.len);
        }
        if ended {
            return Some(reached >= len);
        }
    }
    Some(false)
}

fn attributes(file: &File) -> io::Result<libc::c_int> {
    let mut found: libc::c_int = 0;
    // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through the
    // call; the kernel stores an `int`, although the name of the request is made with `long`.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut found) } {
        0 => Ok(found),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the file system writes every change of the file to new blocks, so that reserved blocks
/// do not help. True if the kernel refuses to tell.
pub(crate) fn is_copy_on_write(file: &File) -> bool {
    let copies = match file_calls::file_system(file) {
        Ok(kind) => kind == i128::from(libc::BTRFS_SUPER_MAGIC),
        Err(error) => refused::is(&error),
    };
    copies && !attributes(file).is_ok_and(|attributes| attributes & NO_COPY_ON_WRITE != 0)
}

/// Makes changes of a file go to the same blocks, on a file system that would take new ones, so
/// that reserved blocks are used. Works only while the file is empty. Best effort: errors do not
/// matter.
pub(crate) fn avoid_copy_on_write(file: &File) {
    if !is_copy_on_write(file) {
        return;
    }
    if let Ok(found) = attributes(file) {
        let wanted = found | NO_COPY_ON_WRITE;
        // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through
        // the call; the kernel reads an `int`.
        unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &wanted) };
    }
}
