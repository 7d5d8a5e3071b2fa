//! Extended attributes of open files.
//!
//! Floor: sys.
//!
//! Failure: the error of the call.
#![allow(unsafe_code, reason = "raw system calls")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr;

use crate::hooks;
use crate::sys::call::retry;

/// Sets an extended attribute without content on a file.
pub(crate) fn set(file: &File, name: &CStr) -> io::Result<()> {
    if !hooks::has_attributes() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: a call on a descriptor that `file` keeps open, with a terminated name and a value of
    // no bytes.
    retry(|| unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), c"".as_ptr().cast(), 0, 0) })
}

/// Whether a file has an extended attribute.
pub(crate) fn has(file: &File, name: &CStr) -> bool {
    // SAFETY: a call on a descriptor that `file` keeps open, with a terminated name; asks only for
    // the length.
    unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), ptr::null_mut(), 0) >= 0 }
}

/// Removes an extended attribute from a file.
pub(crate) fn remove(file: &File, name: &CStr) -> io::Result<()> {
    // SAFETY: a call on a descriptor that `file` keeps open, with a terminated name.
    retry(|| unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) })
}
