//! Actions of tests on a process of their own: limit it, refuse its system calls, interrupt it.
//!
//! Floor: sys. Present only with the feature `testing`.
//!
//! ```text
//! limits   limits of the process, and its rights
//! confine  system calls that the kernel refuses, and interruptions
//! descriptors  go from one process to another
//! process  faults, signals, forks, closed descriptors
//! ```
//!
//! Failure: `io::Error` as the kernel gave it.

pub(crate) mod confine;
pub(crate) mod descriptors;
pub(crate) mod limits;
pub(crate) mod process;

use std::io;

/// The result of a call that returns 0, or -1 and an error.
fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
