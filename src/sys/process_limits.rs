//! The limits on the memory of the process: address space, locked memory, memory areas.
//!
//! Floor: sys.
//!
//! Failure: `None` if there is no limit, or if the kernel does not tell it.
#![allow(unsafe_code, reason = "raw system calls")]

use std::path::Path;

use crate::sys::call::page_bytes;
use crate::sys::descriptor;

/// A soft limit of this process; `None` if unlimited. Each C library has its own type for the
/// number of a limit.
pub(crate) fn soft_limit(resource: libc::c_int) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call stores into a value that lives through it. If it fails, the value says
    // "unlimited".
    unsafe { libc::getrlimit(resource as _, &mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Address space that this process may have (`ulimit -v`), if that is limited.
pub(crate) fn address_space_limit() -> Option<u64> {
    soft_limit(libc::RLIMIT_AS as libc::c_int)
}

/// Memory that this process may lock (`ulimit -l`), if that is limited.
pub(crate) fn locked_memory_limit() -> Option<u64> {
    soft_limit(libc::RLIMIT_MEMLOCK as libc::c_int)
}

/// Memory areas that a process may have.
pub(crate) fn areas_limit() -> Option<u64> {
    descriptor::read_text(Path::new("/proc/sys/vm/max_map_count")).ok()?.trim().parse().ok()
}

/// Address space that this process uses, reserved ranges included.
pub(crate) fn process_bytes() -> Option<u64> {
    let text = descriptor::read_text(Path::new("/proc/self/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    pages.checked_mul(page_bytes())
}

/// The size of the address space of a process on this machine, rounded up from the address of its
/// first stack, which the kernel puts near the end.
pub(crate) fn address_space_bytes() -> u64 {
    const USUAL: u64 = 1 << 47;
    // SAFETY: a query without pointers. It gives the address of bytes on the first stack, or 0.
    match unsafe { libc::getauxval(libc::AT_RANDOM) } {
        0 => USUAL,
        address => address.checked_next_power_of_two().unwrap_or(USUAL),
    }
}
