//! Opens files, always with a descriptor above 2, so that no print of the program reaches a file of
//! ours.
//!
//! Floor: sys. Every file that Mapleaf opens is opened here, which `tests/tidy/` checks. The kernel
//! gives a new file the lowest free number. In a daemon that closed its standard descriptors this
//! would be 0, 1 or 2, and later prints of the program would overwrite the database. So before a
//! file is opened, each standard descriptor that is closed is opened on `/dev/null`, and stays so,
//! as at the start of every Rust program. (Moving the descriptor afterwards is not enough: another
//! thread could print before.) Only if there is no `/dev/null`, the descriptor of the file is
//! moved.
//!
//! Invariants:
//!   DESCRIPTOR-1  a file that is returned has a descriptor above 2, close-on-exec.
//!
//! Failure: `io::Error` of opening, also if the process may have no more descriptors.
#![allow(unsafe_code, reason = "raw descriptors")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _};
use std::path::Path;

use crate::sys::refused;

/// The lowest descriptor after the standard ones.
const LOWEST: libc::c_int = 3;

/// Opens a file with these options (DESCRIPTOR-1).
pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    take_standard();
    at_least(LOWEST, options.open(path)?)
}

/// The text of a small file, such as those in `/proc`.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(OpenOptions::new().read(true), path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// A file without a name that lives in memory.
pub(crate) fn memory_file() -> io::Result<File> {
    new_memory_file(0)
}

/// A file without a name that lives in memory, and that can be sealed (`seals`).
pub(crate) fn memory_file_to_seal() -> io::Result<File> {
    new_memory_file(libc::MFD_ALLOW_SEALING)
}

fn new_memory_file(flags: libc::c_uint) -> io::Result<File> {
    take_standard();
    // SAFETY: the name is a string with its terminating zero.
    let new = unsafe { libc::memfd_create(c"mapleaf".as_ptr(), libc::MFD_CLOEXEC | flags) };
    at_least(LOWEST, owned(new).map_err(refused::by("memfd_create"))?)
}

/// Opens the file of a descriptor once more, for reading and writing, also one without a name.
/// Unlike a duplicate of the descriptor, the new one has locks of its own.
pub(crate) fn open_again(file: BorrowedFd<'_>) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    open(File::options().read(true).write(true), Path::new(&path)).map_err(refused::by("openat"))
}

/// Opens `/dev/null` as each standard descriptor that is closed.
fn take_standard() {
    for _ in 0..closed_standard() {
        let taken = null(0);
        if taken >= LOWEST {
            // Another thread was first.
            drop(owned(taken));
        }
    }
}

/// How many of the standard descriptors are closed. One system call, as there are mostly none.
fn closed_standard() -> usize {
    let mut asked = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array is ours, and has as many elements as the call is told.
    let answered = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, 0) };
    if answered >= 0 {
        return asked.iter().filter(|asked| asked.revents & libc::POLLNVAL != 0).count();
    }
    // Interrupted, or more than the process may have open.
    // SAFETY: a question without pointers.
    asked.iter().filter(|asked| unsafe { libc::fcntl(asked.fd, libc::F_GETFD) } < 0).count()
}

/// A new descriptor of `/dev/null`, or a negative number. Calls what a child after `fork` may call.
pub(crate) fn null(flags: libc::c_int) -> libc::c_int {
    // SAFETY: the name is a string with its terminating zero.
    unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | flags) }
}

/// The same open file, under a descriptor of at least `lowest`.
fn at_least(lowest: libc::c_int, file: File) -> io::Result<File> {
    if file.as_raw_fd() >= lowest {
        return Ok(file);
    }
    // SAFETY: a call on a descriptor that `file` keeps open, without pointers.
    owned(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) })
}

/// The file of a descriptor that a call has just returned, or the error of the call.
fn owned(new: libc::c_int) -> io::Result<File> {
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and no other `File` owns it.
    Ok(unsafe { File::from_raw_fd(new) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_moves_up_and_stays_the_same_open_file() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(temp.path(), "0123").unwrap();
        let file = open(OpenOptions::new().read(true), temp.path()).unwrap();
        assert!(file.as_raw_fd() >= LOWEST);
        let mut first = [0; 1];
        (&file).read_exact(&mut first).unwrap();
        let mut moved = at_least(200, file).unwrap();
        assert!(moved.as_raw_fd() >= 200);
        // SAFETY: a question without pointers.
        assert_eq!(unsafe { libc::fcntl(moved.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        let mut rest = String::new();
        moved.read_to_string(&mut rest).unwrap();
        assert_eq!((&first, rest.as_str()), (b"0", "123"), "the position came along");
    }
}
