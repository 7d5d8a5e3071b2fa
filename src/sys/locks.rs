//! Locks of byte ranges that belong to an open file, not to a process (OFD locks).
//!
//! Floor: sys. Two openings of a file conflict even in one process. A lock ends when its file is
//! closed, so a dead process holds none. A duplicate of a descriptor shares the locks. The bytes
//! that are locked lie far after the end of any file.
//!
//! Failure: `Ok(false)` if another open file holds a conflicting lock; otherwise errors of the
//! kernel.
#![allow(unsafe_code, reason = "raw system calls")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use crate::sys::call::{offset, retry};
use crate::sys::refused;

/// The first byte that stands for a lock.
const BASE: u64 = 1 << 61;
/// Held by a process that opens or closes the file (P4).
pub(crate) const GATE: u64 = BASE;
/// Held by the writer.
pub(crate) const WRITER: u64 = BASE + 1;
/// Held by a checkpoint.
pub(crate) const CHECKPOINT: u64 = BASE + 2;
/// Held by the leader of a flush.
pub(crate) const FLUSH: u64 = BASE + 3;
/// Held shared by all processes that have the file open, exclusively by one that keeps others out.
pub(crate) const PRESENCE: u64 = BASE + 4;
/// Held while the lock file gets longer.
pub(crate) const LENGTHENING: u64 = BASE + 5;
/// The bytes of process slots: held by the process that has the slot.
pub(crate) const PROCESSES: u64 = BASE + (1 << 32);
/// The bytes that bind a data file to its lock file: `BINDINGS` plus a hash below
/// [`BINDINGS_COUNT`].
pub(crate) const BINDINGS: u64 = BASE + (1 << 60);
/// How many values the hash of a binding may take.
pub(crate) const BINDINGS_COUNT: u64 = 1 << 59;

/// The bytes from [`GATE`] on that stand for locks.
pub(crate) const ALL: u64 = BINDINGS + BINDINGS_COUNT - GATE;

// Every range ends below 2^63, because offsets are signed.
const _: () = assert!(BINDINGS + BINDINGS_COUNT < 1 << 63);

/// How a range is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockKind {
    /// Any number of open files may hold it. The file must be open for reading.
    Shared,
    /// Only one open file may hold it. The file must be open for writing.
    Exclusive,
}

impl LockKind {
    fn code(self) -> libc::c_int {
        match self {
            LockKind::Shared => libc::F_RDLCK,
            LockKind::Exclusive => libc::F_WRLCK,
        }
    }
}

/// Tries to lock `len` bytes from `start` on, or to change the kind of the lock that this file
/// holds there. `Ok(false)`: another open file holds a conflicting lock.
pub(crate) fn try_lock(file: &File, start: u64, len: u64, kind: LockKind) -> io::Result<bool> {
    set_lock(file, libc::F_OFD_SETLK, kind.code(), start, len)
}

/// Locks a range, and waits while another open file holds a conflicting lock.
pub(crate) fn lock(file: &File, start: u64, len: u64, kind: LockKind) -> io::Result<()> {
    set_lock(file, libc::F_OFD_SETLKW, kind.code(), start, len).map(|_| ())
}

/// How another open file has locked a byte of the range; `None` if none has. Locks of this file do
/// not count.
pub(crate) fn lock_of_others(file: &File, start: u64, len: u64) -> io::Result<Option<LockKind>> {
    let mut lock = lock_of(libc::F_WRLCK, start, len)?;
    // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through the
    // call.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) })
        .map_err(refused::by("fcntl(F_OFD_GETLK)"))?;
    Ok(match libc::c_int::from(lock.l_type) {
        libc::F_UNLCK => None,
        libc::F_RDLCK => Some(LockKind::Shared),
        _ => Some(LockKind::Exclusive),
    })
}

/// Drops the lock of this file on a range, if it holds one.
pub(crate) fn unlock(file: &File, start: u64, len: u64) -> io::Result<()> {
    set_lock(file, libc::F_OFD_SETLK, libc::F_UNLCK, start, len).map(|_| ())
}

/// Takes, changes or drops (`F_UNLCK`) a lock. `Ok(false)`: another open file holds a conflicting
/// lock.
fn set_lock(file: &File, command: libc::c_int, kind: libc::c_int, start: u64, len: u64) -> io::Result<bool> {
    let lock = lock_of(kind, start, len)?;
    // SAFETY: a call on a descriptor that `file` keeps open, with a pointer that lives through the
    // call.
    match retry(|| unsafe { libc::fcntl(file.as_raw_fd(), command, &lock) }) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(refused::by("fcntl(F_OFD_SETLK)")(error)),
    }
}

fn lock_of(kind: libc::c_int, start: u64, len: u64) -> io::Result<libc::flock> {
    // SAFETY: `flock` is plain integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = offset(start)?;
    lock.l_len = offset(len)?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte beside [`WRITER`].
    const NEIGHBOUR: u64 = GATE;

    /// Whether another open file holds a lock in the range.
    fn is_locked(file: &File, start: u64, len: u64) -> io::Result<bool> {
        lock_of_others(file, start, len).map(|found| found.is_some())
    }

    #[test]
    fn two_opens_in_one_process_conflict() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (a, b) = (open(), open());
        assert!(try_lock(&a, WRITER, 1, LockKind::Exclusive).unwrap());
        assert!(is_locked(&b, NEIGHBOUR, 100).unwrap() && !is_locked(&b, NEIGHBOUR, 1).unwrap());
        assert!(!is_locked(&a, NEIGHBOUR, 100).unwrap(), "the own lock does not count");
        assert!(!try_lock(&b, WRITER, 1, LockKind::Exclusive).unwrap());
        assert!(!try_lock(&b, WRITER, 1, LockKind::Shared).unwrap());
        assert!(try_lock(&b, NEIGHBOUR, 1, LockKind::Exclusive).unwrap(), "neighbours do not conflict");
        assert!(try_lock(&a, WRITER, 1, LockKind::Shared).unwrap(), "the own lock changes its kind");
        assert!(try_lock(&b, WRITER, 1, LockKind::Shared).unwrap());
        unlock(&a, WRITER, 1).unwrap();
        assert!(try_lock(&b, WRITER, 1, LockKind::Exclusive).unwrap());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lock(&a, WRITER, 1, LockKind::Exclusive));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!waiter.is_finished());
            unlock(&b, WRITER, 1).unwrap();
            waiter.join().unwrap().unwrap();
        });
        drop(b);
        assert!(try_lock(&a, NEIGHBOUR, 4, LockKind::Exclusive).unwrap(), "closing gives locks back");
        assert!(try_lock(&a, BINDINGS + BINDINGS_COUNT - 1, 1, LockKind::Shared).unwrap());
        assert_eq!(file.as_file().metadata().unwrap().len(), 0);
    }
}
