//! Helpers for the wrappers of system calls: conversions, retries, the kernel's page size.
//!
//! Floor: sys.
//!
//! Failure: `io::Error` for numbers that a call cannot take.
#![allow(unsafe_code, reason = "raw system calls")]

use std::io;

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "offset or length beyond what this system can address")
}

/// A length as the kernel takes it for memory.
pub(crate) fn size(len: u64) -> io::Result<usize> {
    usize::try_from(len).map_err(|_| too_large())
}

/// An offset or length as the kernel takes it for files.
pub(crate) fn offset(at: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(at).map_err(|_| too_large())
}

/// Makes a call that returns 0, or -1 and an error. Repeats it while a signal interrupts it
/// (`EINTR`).
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

/// The page size of the kernel, to which mappings are aligned (not the page size of the database).
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: a query without pointers.
    let found = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(found).ok().filter(|n| n.is_power_of_two()).unwrap_or(4096)
}
