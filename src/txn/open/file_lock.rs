//! The lock on a database file: one process writes, or any number read.
//!
//! Floor: txn. A range of bytes past the end of the file itself, locked for an open file and not
//! for a process, so that it holds by whatever path the file was opened, and goes with the process.
//!
//! Invariants:
//!   LOCK-1  the descriptor of the lock is opened for it only, and nothing is mapped from it (P1).
//!   LOCK-2  a file that is locked has a name, or was removed later.
//!
//! Failure: [`Error::Locked`] names the process that has the file, where the kernel tells;
//! [`Error::Busy`] for a file that was replaced or removed while it was opened.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::mapping::file;
use crate::sys::fork::{self, ForkEntry};
use crate::sys::lock_holder;
use crate::sys::locks::{self, LockKind};
use crate::sys::rights::FileRights;
use crate::txn::open::cache_validation;
use crate::txn::open::open_error;

/// Device and inode of an open database.
pub(crate) type FileId = (u64, u64);

/// The lock on an open database, and its place in the registry.
#[derive(Debug)]
pub(crate) struct FileLock {
    // Declared before the file: from the list first.
    _lost_in_children: ForkEntry,
    /// `None` only while it is dropped. A child does not close it: it has lost it, and its number
    /// may be another file's.
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
            None => unreachable!("the file goes with the lock"),
        }
    }

    /// Remembers for the next opening that a flush of this file has failed.
    pub(crate) fn remember_failed_flush(&self) {
        cache_validation::remember_failed_flush(self.file(), self.id);
    }

    /// The rights of the database's file, for what is made from it.
    pub(crate) fn rights(&self) -> io::Result<FileRights> {
        FileRights::of(self.file())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.process != fork::id() {
            // The copy of a child after `fork`: the lock is the parent's, and unlocking would
            // unlock for both.
            std::mem::forget(self.file.take());
            return;
        }
        // Closing the file would do, were it not for processes that another thread is starting:
        // until they execute their program they hold copies of the descriptor, and with it the
        // lock. If it fails, closing is what is left.
        let _by_closing = locks::unlock(self.file(), locks::WRITER, 1);
    }
}

/// Takes the lock that keeps other processes out: exclusive to write, shared to read.
pub(crate) fn lock_file(path: &Path, id: FileId, read_only: bool) -> Result<FileLock> {
    // A description of its own, from which nothing is ever mapped (P1).
    let file = file::open(path, !read_only).map_err(|e| open_error(path, e))?;
    if file_id(path, &file)? != id {
        return Err(Error::Busy { path: path.to_path_buf(), why: "the file was replaced while it was opened".into() });
    }
    let kind = if read_only { LockKind::Shared } else { LockKind::Exclusive };
    let listed = ForkEntry::descriptor(&file);
    match locks::try_lock(&file, locks::WRITER, 1, kind) {
        Ok(true) => {
            let found = file::status(&file).map_err(|e| Error::io("reading the number of its names", path, e))?;
            if found.links == 0 {
                // What is committed to it would be gone with its last handle.
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

/// Names the process that has the file in the refusal of a locked one, where the kernel tells. That
/// looks through all processes, so it is found out without the registry.
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
