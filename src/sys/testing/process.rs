//! Actions of tests in a process of their own: faults, signals, forks, closed descriptors.
//!
//! Floor: sys. Present only with the feature `testing`. For children that a test starts.
//!
//! Failure: `io::Error` as the kernel gave it.
#![allow(unsafe_code, reason = "raw system calls")]
#![allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::sys::descriptor;

/// Unmaps memory that `fail_late` mapped.
#[cfg(test)]
pub(crate) fn unmap_others(start: usize, len: usize) {
    let start = std::ptr::NonNull::new(std::ptr::without_provenance_mut(start)).expect("an address");
    // SAFETY: private memory that `fail_late` mapped and no thread uses.
    unsafe { crate::sys::memory_calls::unmap(start, len as u64) };
}

/// Makes a file, maps it as any program may, cuts it, and reads what was cut: a fault that is not
/// Mapleaf's.
pub fn foreign_fault(path: &Path) -> io::Result<u8> {
    let file = descriptor::open(std::fs::File::options().read(true).write(true).create(true).truncate(true), path)?;
    file.write_all_at(&[1; 8192], 0)?;
    let map = memmap2::MmapOptions::new().map_raw_read_only(&file)?;
    file.set_len(0)?;
    // SAFETY: inside a mapping that lives; the access must raise a signal, which the test wants.
    Ok(unsafe { map.as_ptr().add(5000).read_volatile() })
}

/// Closes the standard descriptors, as some daemons do. For a process of its own.
pub fn close_standard_descriptors() {
    for fd in 0..3 {
        // SAFETY: Rust's streams have these only by number, and every use of them is checked.
        unsafe { libc::close(fd) };
    }
}

/// Writes to whatever the standard descriptors are.
pub fn print_to_standard_descriptors(text: &str) {
    for fd in 0..3 {
        // SAFETY: bytes that live through the call. That it may fail, or reach a file, is what
        // tests ask.
        unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
    }
}

/// Installs a handler for SIGBUS that asks to be called once, with SIGUSR1 blocked meanwhile, and
/// says to standard output that it was called so. For a process of its own.
pub fn handle_one_bus_error() {
    extern "C" fn say(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: zero is a value of a set of signals, and the calls fill and ask it, and write
        // bytes that live.
        unsafe {
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut blocked);
            let said: &[u8] = match libc::sigismember(&blocked, libc::SIGUSR1) {
                1 => b"\n@called, SIGUSR1 blocked\n",
                _ => b"\n@called, SIGUSR1 not blocked\n",
            };
            libc::write(1, said.as_ptr().cast(), said.len());
        }
    }
    // SAFETY: zero is a value of `sigaction`; the handler is of the form that `SA_SIGINFO` asks
    // for.
    unsafe {
        let mut once: libc::sigaction = std::mem::zeroed();
        once.sa_sigaction = say as extern "C" fn(_, _, _) as usize;
        once.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        libc::sigaddset(&mut once.sa_mask, libc::SIGUSR1);
        libc::sigaction(libc::SIGBUS, &once, std::ptr::null_mut());
    }
}

/// Forks: `None` in the child, which goes on from here and ends by [`end_child`]. For a process
/// without other threads that hold locks.
pub fn fork() -> Option<i32> {
    // SAFETY: the caller's process has no other thread that could leave a lock held in the child.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no process: {}", io::Error::last_os_error());
    (child > 0).then_some(child)
}

/// Ends a child of [`fork`] without running the exit handlers that its parent has registered.
pub fn end_child(without_error: bool) -> ! {
    // SAFETY: a call without pointers.
    unsafe { libc::_exit(i32::from(!without_error)) }
}

/// Waits for a child. Returns whether it ended without an error.
pub fn ends_without_error(child: i32) -> bool {
    let mut status = 0;
    // SAFETY: waits for a child of our own, with a pointer that lives through the call.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Runs `run` in a child after [`fork`] and waits for the child. Returns whether it ended without
/// an error.
pub fn in_forked_child(run: impl FnOnce()) -> bool {
    match fork() {
        None => end_child(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok()),
        Some(child) => ends_without_error(child),
    }
}
