//! Limits of the process, set by tests, and what its databases have reserved.
//!
//! Floor: sys. Present only with the feature `testing`. A limit holds for the whole process,
//! so only a test that runs in a child of its own sets one.
#![allow(unsafe_code, reason = "raw system calls")]
#![allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]

use std::io;

use crate::sys::call;

/// A limit that the kernel keeps for a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessLimit {
    /// `RLIMIT_AS`, in bytes.
    AddressSpace,
    /// `RLIMIT_MEMLOCK`, in bytes.
    LockedMemory,
    /// `RLIMIT_NOFILE`.
    OpenFiles,
}

/// Sets the soft limit, so that it can be raised again; `None`: as far as the hard limit permits.
pub fn set_process_limit(limit: ProcessLimit, value: Option<u64>) -> io::Result<()> {
    let resource = match limit {
        ProcessLimit::AddressSpace => libc::RLIMIT_AS,
        ProcessLimit::LockedMemory => libc::RLIMIT_MEMLOCK,
        ProcessLimit::OpenFiles => libc::RLIMIT_NOFILE,
    };
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call stores into a value that lives through it.
    super::checked(unsafe { libc::getrlimit(resource, &mut now) })?;
    now.rlim_cur = value.unwrap_or(now.rlim_max);
    // SAFETY: the call reads a value that lives through it.
    super::checked(unsafe { libc::setrlimit(resource, &now) })
}

/// `mlockall`: locks what is mapped from now on, and with `current` also what is mapped now.
pub fn lock_process_memory(current: bool) -> io::Result<()> {
    let flags = if current { libc::MCL_CURRENT | libc::MCL_FUTURE } else { libc::MCL_FUTURE };
    // SAFETY: changes no contents.
    super::checked(unsafe { libc::mlockall(flags) })
}

/// Makes the process one of the user `nobody`, without any privilege.
pub fn become_nobody() -> io::Result<()> {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: calls without pointers.
    super::checked(unsafe { libc::setgid(NOBODY) })?;
    // SAFETY: as above.
    super::checked(unsafe { libc::setuid(NOBODY) })
}

/// Splits memory of the caller into as many areas as it has pages: every other page becomes
/// read-only.
pub fn split_into_areas(memory: &mut [u8]) -> io::Result<()> {
    let page = call::page_bytes() as usize;
    let start = memory.as_mut_ptr().align_offset(page);
    let pages = memory.get_mut(start..).unwrap_or_default().chunks_exact_mut(page);
    for page in pages.step_by(2) {
        // SAFETY: a whole page that the caller lends mutably; it stays readable.
        super::checked(unsafe { libc::mprotect(page.as_mut_ptr().cast(), page.len(), libc::PROT_READ) })?;
    }
    Ok(())
}
