//! The open file that holds the locks of a process, and the locks of which one process is the
//! owner.
//!
//! Floor: txn. Threads of a process queue for each lock before the process asks for it, because a
//! descriptor does not see its own locks.
//!
//! Invariants:
//!   LOCK-1  the file is opened once more for locks only, and nothing is mapped from it (P1).
//!   LOCK-2  a lock is released by unlocking, and not only by closing the file: a process that
//!           another thread is starting has copies of the descriptor until it calls `exec`.
//!
//! Failure: `Io` of the kernel, while the database is opened. Later the kernel has no reason to
//! refuse a lock but a lack of memory. Then a thread tries again.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{best_effort, Error, Result};
use crate::mapping::file;
use crate::sys::fork::{self, ForkEntry};
use crate::sys::locks::{self, LockKind};
use crate::txn::live::layout::PROCESSES;
use crate::txn::open::open_error;
use crate::txn::processes::presence::{file_id, FileId};

/// How long a thread waits before it asks again for a lock that the kernel had no memory for.
const RETRY: Duration = Duration::from_millis(1);

/// The open file that holds the locks of a process.
#[derive(Debug)]
pub(crate) struct LockDescriptor {
    // Declared before `file`, so that it is dropped, and leaves the list, before the file is
    // closed.
    _lost_in_children: ForkEntry,
    /// `None` only during drop. A child after `fork` does not close the file: the fork handler has
    /// replaced or closed its descriptor, and the number may belong to another file by now.
    file: Option<File>,
    process: u32,
    /// Whether it can hold exclusive locks.
    pub(crate) is_writable: bool,
}

impl LockDescriptor {
    /// Opens the file once more. With `read_only` it may be open for reading only, and then holds
    /// shared locks only.
    pub(crate) fn open(path: &Path, id: FileId, read_only: bool) -> Result<LockDescriptor> {
        let (file, is_writable) = match file::open_for_locks(path, true) {
            Err(e) if read_only && may_not_write(&e) => (file::open_for_locks(path, false), false),
            opened => (opened, true),
        };
        let file = file.map_err(|e| open_error(path, e))?;
        if file_id(path, &file)? != id {
            let why = "the file was replaced while it was opened".into();
            return Err(Error::Busy { path: path.to_path_buf(), why });
        }
        Ok(LockDescriptor::of(file, is_writable))
    }

    /// The locks of a file that was opened for this, and for nothing else (LOCK-1).
    pub(crate) fn of(file: File, is_writable: bool) -> LockDescriptor {
        let listed = ForkEntry::descriptor(&file);
        LockDescriptor { _lost_in_children: listed, file: Some(file), process: fork::id(), is_writable }
    }

    pub(crate) fn file(&self) -> &File {
        match &self.file {
            Some(file) => file,
            None => unreachable!("the descriptor keeps its file open"),
        }
    }

    /// Tries to lock a byte, or to change the kind of the lock that this process holds there.
    pub(crate) fn try_lock(&self, byte: u64, kind: LockKind) -> io::Result<bool> {
        locks::try_lock(self.file(), byte, 1, kind)
    }

    /// Unlocks a byte. In a child after `fork`, the lock is the parent's and stays.
    pub(crate) fn unlock(&self, byte: u64) {
        if self.process == fork::id() {
            // If this fails, closing the file is all that can be done.
            best_effort(locks::unlock(self.file(), byte, 1));
        }
    }

    /// How another process has locked a byte of a range.
    pub(crate) fn lock_of_others(&self, start: u64, len: u64) -> io::Result<Option<LockKind>> {
        locks::lock_of_others(self.file(), start, len)
    }

    /// Whether another process is a member.
    pub(crate) fn sees_members(&self) -> io::Result<bool> {
        Ok(self.lock_of_others(locks::PROCESSES, PROCESSES as u64)?.is_some())
    }

    /// Whether another process holds the lock of a process slot.
    pub(crate) fn is_alive(&self, index: usize) -> bool {
        // If the kernel does not tell, the process counts as alive: then nothing of it is freed.
        index >= PROCESSES || !matches!(self.lock_of_others(locks::PROCESSES + index as u64, 1), Ok(None))
    }
}

/// Whether a file cannot be opened for writing, and perhaps can for reading.
fn may_not_write(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

impl Drop for LockDescriptor {
    fn drop(&mut self) {
        match self.process == fork::id() {
            // All that is locked still, for example after an opening that failed (LOCK-2).
            true => best_effort(locks::unlock(self.file(), locks::GATE, locks::ALL)),
            false => std::mem::forget(self.file.take()),
        }
    }
}

/// The gate: held by a process that opens or closes the file (P4).
#[derive(Debug)]
pub(crate) struct Gate(Arc<LockDescriptor>);

impl Gate {
    /// Waits for the gate.
    pub(crate) fn enter(descriptor: &Arc<LockDescriptor>) -> io::Result<Gate> {
        let kind = if descriptor.is_writable { LockKind::Exclusive } else { LockKind::Shared };
        locks::lock(descriptor.file(), locks::GATE, 1, kind)?;
        Ok(Gate(Arc::clone(descriptor)))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.unlock(locks::GATE);
    }
}

/// A lock that one process at a time holds: the part between processes of a lock with a name.
#[derive(Clone, Debug)]
pub(crate) struct ProcessLock {
    descriptor: Arc<LockDescriptor>,
    byte: u64,
}

impl ProcessLock {
    pub(crate) fn new(descriptor: &Arc<LockDescriptor>, byte: u64) -> ProcessLock {
        ProcessLock { descriptor: Arc::clone(descriptor), byte }
    }

    /// Waits for the lock. The caller is the only thread of this process that asks for it.
    pub(crate) fn lock(&self) {
        while locks::lock(self.descriptor.file(), self.byte, 1, LockKind::Exclusive).is_err() {
            std::thread::park_timeout(RETRY);
        }
    }

    /// Takes the lock if no other process holds it.
    pub(crate) fn try_lock(&self) -> bool {
        self.descriptor.try_lock(self.byte, LockKind::Exclusive).unwrap_or(false)
    }

    pub(crate) fn unlock(&self) {
        self.descriptor.unlock(self.byte);
    }

    /// Whether the process with a slot is alive.
    pub(crate) fn is_alive(&self, index: usize) -> bool {
        self.descriptor.is_alive(index)
    }

    /// Whether another process holds the lock.
    pub(crate) fn is_held_by_others(&self) -> bool {
        !matches!(self.descriptor.lock_of_others(self.byte, 1), Ok(None))
    }
}
