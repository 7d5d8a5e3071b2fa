//! Random bytes of the kernel.
//!
//! Floor: sys.
//!
//! Failure: `io::Error` if the kernel gives none, not even through `/dev/urandom`.
#![allow(unsafe_code, reason = "raw system calls")]

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::Path;

use crate::sys::{descriptor, refused};

/// Random bytes. By `getrandom`, or from a file if a sandbox refuses this call.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "the kernel gives so many bytes at once, or none") };
    let mut bytes = [0; N];
    // SAFETY: the call stores at most `N` bytes into a buffer that lives through it.
    let given = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if given == N as isize {
        return Ok(bytes);
    }
    descriptor::open(OpenOptions::new().read(true), Path::new("/dev/urandom"))
        .map_err(refused::by("openat"))?
        .read_exact(&mut bytes)
        .map_err(refused::by("read"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_differ_from_call_to_call() {
        assert_ne!(bytes::<16>().unwrap(), bytes::<16>().unwrap());
    }
}
