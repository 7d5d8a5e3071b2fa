//! Seals of files in memory: changes that no process can make any more.
//!
//! Floor: sys. A file that `descriptor::memory_file_to_seal` has made gets the seal that it never
//! becomes shorter, and the one that no process can add other seals. So no process that has the
//! descriptor can cut the file under the mappings of others, or keep them from writing.
//!
//! Failure: `io::Error` of the kernel.
#![allow(unsafe_code, reason = "raw system calls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::sys::call::retry;
use crate::sys::refused;

/// The seals of Mapleaf.
const OURS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
/// Seals that keep processes from writing, or from making the file longer.
const NO_CHANGE: libc::c_int = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE;

/// What the seals of a file say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seals {
    /// Those of [`seal`].
    Ours,
    /// Processes cannot write to the file, or not make it longer.
    NoChange,
    /// Others, or none: the file may be any.
    Other,
}

/// Seals a file in memory.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    // SAFETY: a call on a descriptor that `file` keeps open, without pointers.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, OURS) })
        .map_err(refused::by("fcntl(F_ADD_SEALS)"))
}

/// The seals of an open file.
pub(crate) fn of(file: BorrowedFd<'_>) -> Seals {
    // SAFETY: a question about a descriptor that `file` keeps open, without pointers.
    let found = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    match found {
        // A file on a disk has no seals.
        ..0 => Seals::Other,
        _ if found & NO_CHANGE != 0 => Seals::NoChange,
        _ if found & OURS == OURS => Seals::Ours,
        _ => Seals::Other,
    }
}

/// Whether a descriptor is open for reading and writing.
pub(crate) fn is_open_for_writing(file: BorrowedFd<'_>) -> bool {
    // SAFETY: a question about a descriptor that `file` keeps open, without pointers.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    flags >= 0 && flags & libc::O_ACCMODE == libc::O_RDWR && flags & libc::O_PATH == 0
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::{descriptor, file_calls};

    #[test]
    fn a_sealed_file_becomes_longer_and_never_shorter() {
        let file = descriptor::memory_file_to_seal().unwrap();
        assert_eq!(of(file.as_fd()), Seals::Other);
        seal(&file).unwrap();
        assert_eq!(of(file.as_fd()), Seals::Ours);
        file_calls::set_len(&file, 10_000).unwrap();
        assert!(file_calls::set_len(&file, 9_999).is_err());
        assert_eq!(file_calls::end_of(&file).unwrap(), 10_000);
        assert!(seal(&file).is_err(), "no seal can be added");
        assert!(is_open_for_writing(file.as_fd()));
    }

    #[test]
    fn other_files_are_told_from_sealed_ones() {
        for file in [tempfile::tempfile().unwrap(), descriptor::memory_file().unwrap()] {
            assert_eq!(of(file.as_fd()), Seals::Other);
        }
        let read_only = File::open("/dev/null").unwrap();
        assert!(!is_open_for_writing(read_only.as_fd()));
    }
}
