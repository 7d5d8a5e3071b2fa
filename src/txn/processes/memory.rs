//! Databases in memory that processes share: how a process comes in.
//!
//! Floor: txn. Two files in memory (`memfd`) take the place of the data file and of the lock file.
//! They have no path, so a process comes in by descriptors. Everything else is as for files
//! (`presence`), but for this: the memory is whole at any time, and lost with its last user. So no
//! opener recovers, a session never ends, and no process that leaves changes anything.
//!
//! Invariants:
//!   MEMORY-1  each process opens both files again. A descriptor that came by `fork` or through a
//!             socket shares its open file description, and so its locks, with that of the sender.
//!   MEMORY-2  both files are sealed: no process can cut them.
//!   MEMORY-3  a file that Mapleaf has not made is not changed.
//!
//! Failure: [`Error::NotADatabase`] for descriptors of something else, [`Error::Permission`] for
//! such as cannot be written to; `Io` of the kernel, also where `/proc` is missing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mapping::file;
use crate::sys::descriptor;
use crate::sys::locks;
use crate::sys::seals::{self, Seals};
use crate::txn::live::layout::MAGIC_VALUE;
use crate::txn::live::Live;
use crate::txn::processes::descriptor::{Gate, LockDescriptor, ProcessLock};
use crate::txn::processes::lock_file::LockFile;
use crate::txn::processes::presence::{become_member, file_id, FileId, FileLock};

/// A database in memory in messages.
pub(crate) const NAME: &str = crate::error::IN_MEMORY;

/// Descriptors of the two files, from a caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors<'d> {
    pub(crate) data: BorrowedFd<'d>,
    pub(crate) records: BorrowedFd<'d>,
}

/// How a process has come in.
#[derive(Debug)]
pub(crate) struct MemoryEntry {
    pub(crate) lock: FileLock,
    pub(crate) live: Live,
    pub(crate) gate: Gate,
}

/// Both files, opened again (MEMORY-1), and examined.
#[derive(Debug)]
pub(crate) struct MemoryFiles {
    pub(crate) data: File,
    pub(crate) id: FileId,
    records: File,
    records_id: FileId,
}

fn io_error(op: &'static str) -> impl Fn(io::Error) -> Error {
    // Not `Error::io`: there is no path that could be missing.
    move |source| Error::Io { op, path: PathBuf::from(NAME), source }
}

/// Makes a file in memory (MEMORY-2).
fn make_file() -> Result<File> {
    let file = descriptor::memory_file_to_seal().map_err(io_error("making shared memory"))?;
    seals::seal(&file).map_err(io_error("sealing shared memory"))?;
    Ok(file)
}

/// Opens a file in memory again (MEMORY-1).
fn open_again(file: BorrowedFd<'_>) -> Result<File> {
    descriptor::open_again(file).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            let what = "there is no /proc/self/fd; mount /proc where the process runs";
            io_error("opening shared memory again")(io::Error::new(e.kind(), what))
        }
        _ => Error::io("opening shared memory again, through /proc/self/fd", Path::new(NAME), e),
    })
}

/// The identity of a file, which is known to be open.
fn id_of(file: &File) -> Result<FileId> {
    file_id(Path::new(NAME), file)
}

impl MemoryFiles {
    /// Makes the files of a new database.
    pub(crate) fn make() -> Result<MemoryFiles> {
        let (data, records) = (make_file()?, make_file()?);
        let (id, records_id) = (id_of(&data)?, id_of(&records)?);
        Ok(MemoryFiles { data, id, records, records_id })
    }

    /// Opens the files that a caller has descriptors of, after a look at what they are.
    pub(crate) fn open(descriptors: Descriptors<'_>) -> Result<MemoryFiles> {
        let (data, records) = (examine(descriptors.data, "data")?, examine(descriptors.records, "records")?);
        let mut magic = [0; 8];
        if records.read_exact_at(&mut magic, 0).is_err() || u64::from_le_bytes(magic) != MAGIC_VALUE {
            return Err(foreign("`records` does not lead to live records"));
        }
        let (id, records_id) = (id_of(&data)?, id_of(&records)?);
        Ok(MemoryFiles { data, id, records, records_id })
    }

    /// Whether an open database has these files.
    pub(crate) fn are_of(&self, lock: &FileLock) -> bool {
        let records = lock.member().map(|(_, lock_file)| lock_file.id());
        lock.id() == self.id && records == Some(self.records_id)
    }

    /// The file of the data, and the locks and the lock file of a process that comes in.
    fn locks(self, fault_guard: bool) -> Result<(File, FileId, Arc<LockDescriptor>, LockFile)> {
        let MemoryFiles { data, id, records, .. } = self;
        let descriptor = Arc::new(LockDescriptor::of(open_again(data.as_fd())?, true));
        let holder = open_again(records.as_fd())?;
        let lock_file =
            LockFile::of_memory(records, holder, fault_guard).map_err(io_error("examining shared memory"))?;
        Ok((data, id, descriptor, lock_file))
    }

    /// Comes in as the process that makes the database. It begins the session when others may come.
    pub(crate) fn enter_first(self, fault_guard: bool) -> Result<(File, MemoryEntry)> {
        let (data, id, descriptor, lock_file) = self.locks(fault_guard)?;
        let gate = Gate::enter(&descriptor).map_err(io_error("locking shared memory"))?;
        let live = lock_file.reset(id).map_err(io_error("mapping shared live records"))?;
        Ok((data, member((descriptor, id), lock_file, (live, gate), true)?))
    }

    /// Comes in to a database that another process has made, whether it still uses it or not.
    pub(crate) fn join(self, fault_guard: bool, writes: bool) -> Result<(File, MemoryEntry)> {
        let (data, id, descriptor, lock_file) = self.locks(fault_guard)?;
        let gate = Gate::enter(&descriptor).map_err(io_error("locking shared memory"))?;
        let live = lock_file.join(id).map_err(io_error("mapping shared live records"))?;
        let Some(live) = live else {
            return Err(not_of_one_database());
        };
        Ok((data, member((descriptor, id), lock_file, (live, gate), writes)?))
    }
}

/// Takes the locks of a member.
fn member(
    (descriptor, id): (Arc<LockDescriptor>, FileId),
    lock_file: LockFile,
    (live, gate): (Live, Gate),
    writes: bool,
) -> Result<MemoryEntry> {
    let kind = become_member(Path::new(NAME), &descriptor, lock_file, &live, writes)?;
    Ok(MemoryEntry { lock: FileLock::in_memory(descriptor, id, kind), live, gate })
}

/// The error for descriptors of two databases.
pub(crate) fn not_of_one_database() -> Error {
    foreign("`data` and `records` are not of one database, or of one that another release has made")
}

/// The error for descriptors that are not those of a database.
fn foreign(what: &str) -> Error {
    let reason = format!("{what}; pass both descriptors that Db::share has given for one database, each in its field");
    Error::NotADatabase { path: PathBuf::from(NAME), reason }
}

/// Opens again the file of a descriptor, if it is memory that Mapleaf may have made.
fn examine(given: BorrowedFd<'_>, field: &str) -> Result<File> {
    let denied = |what: &str| {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, format!("the descriptor `{field}` {what}"));
        Error::Permission { op: "attaching to shared memory", path: PathBuf::from(NAME), source }
    };
    let duplicate = given.try_clone_to_owned().map_err(io_error("duplicating a descriptor of shared memory"))?;
    let duplicate = File::from(duplicate);
    let status = file::status(&duplicate).map_err(io_error("examining a descriptor of shared memory"))?;
    if let Some(kind) = file::other_kind(status.mode) {
        return Err(foreign(&format!("`{field}` leads to {kind}")));
    }
    match seals::of(given) {
        Seals::Ours => {}
        Seals::NoChange => {
            return Err(denied("leads to memory that is sealed against changes; share it without that seal"))
        }
        Seals::Other => return Err(foreign(&format!("`{field}` leads to a file that is no shared memory of Mapleaf"))),
    }
    if !seals::is_open_for_writing(given) {
        return Err(denied("is not open for reading and writing; pass the one that Db::share has given"));
    }
    open_again(given)
}

/// Runs `read` while no process stores a meta page. The caller holds the gate.
pub(crate) fn beside_no_commit<T>(lock: &FileLock, read: impl FnOnce() -> T) -> T {
    let checkpoint = ProcessLock::new(lock.descriptor(), locks::CHECKPOINT);
    checkpoint.lock();
    let done = read();
    checkpoint.unlock();
    done
}
