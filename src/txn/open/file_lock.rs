//! The lock on a database file: one process writes, or any number read.
//!
//! Floor: txn. An open file description lock (`F_OFD_SETLK`) on a byte range of the data file, past
//! its end. Such a lock belongs to the open file description, not to the process: it works for any
//! path to the file, and ends with the process.
//!
//! Invariants:
//!   LOCK-1  the file is opened a second time for the lock only, and nothing is mapped from it
//!           (P1).
//!   LOCK-2  a file is locked only if it still has a name; it may be removed later.
//!
//! Failure: [`Error::Locked`] names the process that has the file, if the kernel tells;
//! [`Error::Busy`] for a file that was replaced or removed while it was opened.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{best_effort, Error, Result};
use crate::mapping::file;
use crate::sys::fork::{self, ForkEntry};
use crate::sys::lock_holder;
use crate::sys::locks::{self, LockKind};
use crate::sys::rights::FileRights;
use crate::txn::open::cache_validation;
use crate::txn::open::open_error;

/// Device and inode of an open database.
pub(crate) type FileId = (u64, u64);

/// The lock on an open database.
#[derive(Debug)]
pub(crate) struct FileLock {
    // Declared before `file`, so that it is dropped, and leaves the list, before the file is
    // closed.
    _lost_in_children: ForkEntry,
    /// `None` only during drop. A child after `fork` does not close the file: the fork handler has
    /// replaced or closed its descriptor, and the number may belong to another file by now.
    file: Option<File>,
    id: FileId,
    process: u32,
}

impl FileLock {
    /// Device and inode of the file.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    pub(crate) fn file(&self) -> &File {
        match &self.file {
            Some(file) => file,
            None => unreachable!("the lock keeps its file open"),
        }
    }

    /// Remembers for the next open that a flush of this file has failed.
    pub(crate) fn remember_failed_flush(&self) {
        cache_validation::remember_failed_flush(self.file(), self.id);
    }

    /// The rights of the database file, to give to files made from it.
    pub(crate) fn rights(&self) -> io::Result<FileRights> {
        FileRights::of(self.file())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.process != fork::id() {
            // In a child after `fork`: the lock is the parent's, and unlocking would release it for
            // both.
            std::mem::forget(self.file.take());
            return;
        }
        // Closing the file is not enough: a process that another thread is starting has copies of
        // the descriptor, and with them the lock, until it calls `exec`. If unlocking fails,
        // closing the file is all that can be done.
        best_effort(locks::unlock(self.file(), locks::WRITER, 1));
    }
}

/// Locks the file against other processes: exclusive to write, shared to read.
pub(crate) fn lock_file(path: &Path, id: FileId, read_only: bool) -> Result<FileLock> {
    // An open file description of its own, from which nothing is mapped (P1).
    let file = file::open(path, !read_only).map_err(|e| open_error(path, e))?;
    if file_id(path, &file)? != id {
        return Err(Error::Busy { path: path.to_path_buf(), why: "the file was replaced while it was opened".into() });
    }
    let kind = if read_only { LockKind::Shared } else { LockKind::Exclusive };
    let listed = ForkEntry::descriptor(&file);
    match locks::try_lock(&file, locks::WRITER, 1, kind) {
        Ok(true) => {
            let found = file::status(&file).map_err(|e| Error::io("reading the link count of the file", path, e))?;
            if found.links == 0 {
                // Commits to a file without a name would be lost with its last handle.
                let why = "the file was removed while it was opened; open it again".into();
                return Err(Error::Busy { path: path.to_path_buf(), why });
            }
            Ok(FileLock { _lost_in_children: listed, file: Some(file), id, process: fork::id() })
        }
        Ok(false) => {
            let by = match read_only {
                true => "another process has it open for writing; wait until it has closed it",
                false => "another process has it open; wait until it has closed it, or open read-only if it reads only",
            };
            Err(Error::Locked { path: path.to_path_buf(), by: by.into() })
        }
        Err(e) => Err(Error::io("locking the file", path, e)),
    }
}

/// Adds to a `Locked` error the process that has the file, if the kernel tells. That searches all
/// processes, so it runs without the lock on the registry.
pub(crate) fn name_holder(e: Error, id: FileId) -> Error {
    let Error::Locked { path, by } = e else { return e };
    let Some(holder) = lock_holder::of_lock(id, locks::WRITER) else { return Error::Locked { path, by } };
    let holds = match holder.process == std::process::id() {
        true => "this process".to_string(),
        false => format!("process {} ({})", holder.process, holder.command),
    };
    let by = match holder.writes {
        true => format!("{holds} has it open for writing; wait until it has closed it"),
        false => format!("{holds} has it open read-only; wait until it has closed it, or open read-only too"),
    };
    Error::Locked { path, by }
}

/// Device and inode of an open file.
pub(crate) fn file_id(path: &Path, file: &File) -> Result<FileId> {
    let found = file::status(file).map_err(|e| Error::io("reading device and inode", path, e))?;
    Ok((found.device, found.inode))
}
