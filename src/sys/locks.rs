//! Locks of byte ranges that belong to an open file, not to a process (OFD locks).
//!
//! Floor: sys. Two files opened apart conflict even in one process; a lock goes when its file
//! is closed, so a dead process holds none. A duplicate of a descriptor shares its locks. The
//! offsets lie far past the end of any file.
//!
//! Failure: `Ok(false)` when another open file holds a conflicting lock; errors of the kernel
//! otherwise.

use std::fs::File;
use std::io;

use crate::sys::os;

/// Start of the bytes that stand for locks.
const BASE: u64 = 1 << 61;
/// An opener or closer holds it from testing which processes are alive until it has taken or
/// released its own byte.
#[cfg_attr(not(test), expect(dead_code, reason = "reserved for several processes at one file"))]
pub(crate) const GATE: u64 = BASE;
/// Held by the writer.
pub(crate) const WRITER: u64 = BASE + 1;
/// Held while a checkpoint is made.
#[expect(dead_code, reason = "reserved for several processes at one file")]
pub(crate) const CHECKPOINT: u64 = BASE + 2;
/// Held while records are made durable and published.
#[expect(dead_code, reason = "reserved for several processes at one file")]
pub(crate) const FLUSH: u64 = BASE + 3;
/// The byte of process slot n is `PROCESSES + n`.
#[expect(dead_code, reason = "reserved for several processes at one file")]
pub(crate) const PROCESSES: u64 = BASE + (1 << 32);
/// The bytes that bind data file and lock file: `BINDINGS` plus a hash below [`BINDINGS_COUNT`].
pub(crate) const BINDINGS: u64 = BASE + (1 << 60);
/// How many values the hash of a binding may take.
pub(crate) const BINDINGS_COUNT: u64 = 1 << 59;

// Every range ends below 2^63, the end of what offsets can name.
const _: () = assert!(BINDINGS + BINDINGS_COUNT < 1 << 63);

/// How a range is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockKind {
    /// Any number may hold it; the file must be open for reading.
    Shared,
    /// One may hold it; the file must be open for writing.
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

/// Tries to lock `len` bytes from `offset` on, or to change the kind of the own lock there.
/// `Ok(false)`: taken.
pub(crate) fn try_lock(file: &File, offset: u64, len: u64, kind: LockKind) -> io::Result<bool> {
    os::set_lock(file, kind.code(), offset, len, false)
}

/// Locks `len` bytes from `offset` on, waiting as long as another open file holds a lock that
/// conflicts.
#[cfg_attr(not(test), expect(dead_code, reason = "reserved for several processes at one file"))]
pub(crate) fn lock(file: &File, offset: u64, len: u64, kind: LockKind) -> io::Result<()> {
    os::set_lock(file, kind.code(), offset, len, true).map(|_| ())
}

/// Whether anybody else holds a lock in the range; the own one does not count. Takes nothing.
#[cfg_attr(not(test), expect(dead_code, reason = "reserved for several processes at one file"))]
pub(crate) fn is_locked(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    os::test_lock(file, LockKind::Exclusive.code(), offset, len)
}

/// Gives up the own lock on a range, if there is one.
pub(crate) fn unlock(file: &File, offset: u64, len: u64) -> io::Result<()> {
    os::set_lock(file, libc::F_UNLCK, offset, len, false).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_opens_in_one_process_conflict() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (a, b) = (open(), open());
        assert!(try_lock(&a, WRITER, 1, LockKind::Exclusive).unwrap());
        assert!(is_locked(&b, GATE, 100).unwrap() && !is_locked(&b, GATE, 1).unwrap());
        assert!(!is_locked(&a, GATE, 100).unwrap(), "the own lock does not count");
        assert!(!try_lock(&b, WRITER, 1, LockKind::Exclusive).unwrap());
        assert!(!try_lock(&b, WRITER, 1, LockKind::Shared).unwrap());
        assert!(try_lock(&b, GATE, 1, LockKind::Exclusive).unwrap(), "neighbours do not conflict");
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
        assert!(try_lock(&a, GATE, 4, LockKind::Exclusive).unwrap(), "closing gives locks back");
        assert!(try_lock(&a, BINDINGS + BINDINGS_COUNT - 1, 1, LockKind::Shared).unwrap());
        assert_eq!(file.as_file().metadata().unwrap().len(), 0);
    }
}
