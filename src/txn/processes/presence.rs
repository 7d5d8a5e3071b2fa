//! How a process comes in, and how it leaves.
//!
//! Floor: txn. There are three kinds of processes (P4):
//!
//! ```text
//! member        shares the live records through the lock file; any number of them read and write
//! exclusive     keeps others out, with records in private memory
//! plain reader  may only read the file or its directory; any number, while no other kind is present
//! ```
//!
//! A process comes in and leaves inside the gate. Bytes that are locked then:
//!
//! ```text
//! presence           shared by members and plain readers, exclusively by an exclusive process
//! process slot       by each member, one byte each: held means alive
//! binding            shared by members: the hash of their lock file (P3)
//! ```
//!
//! Invariants:
//!   PRESENCE-1  a file is opened only if it still has a name; it may be removed later.
//!   PRESENCE-2  all members use the same lock file.
//!
//! Failure: [`Error::Locked`] names the processes that have the file, if the kernel tells;
//! [`Error::Busy`] for a file that was replaced or removed while it was opened.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mapping::file;
use crate::sys::lock_holder;
use crate::sys::locks::{self, LockKind};
use crate::sys::rights::FileRights;
use crate::txn::live::layout::PROCESSES;
use crate::txn::live::{Live, Process};
use crate::txn::open::cache_validation;
use crate::txn::processes::descriptor::{Gate, LockDescriptor, ProcessLock};
use crate::txn::processes::lock_file::{self, LockFile};

/// Device and inode of an open database.
pub(crate) type FileId = (u64, u64);

/// What a process wants to do with a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) read_only: bool,
    /// Keep other processes out.
    pub(crate) exclusive: bool,
    /// Read or write only while no member is present, without a lock file.
    pub(crate) plain: bool,
    pub(crate) fault_guard: bool,
}

/// How a process has a file open.
#[derive(Debug)]
pub(super) enum Kind {
    Member {
        process: Process,
        lock_file: Arc<LockFile>,
    },
    /// No other process is present, and this one may become a member or a plain reader.
    First,
    /// Keeps others out; with the reason, if it could not become a member.
    Exclusive(Option<String>),
    PlainReader,
}

/// The presence of this process. Dropping it releases its locks.
#[derive(Debug)]
pub(crate) struct FileLock {
    descriptor: Arc<LockDescriptor>,
    id: FileId,
    kind: Kind,
    in_memory: bool,
}

/// How a process has come in.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) lock: FileLock,
    /// The records of the members that were there before.
    pub(crate) joined: Option<Live>,
    pub(crate) gate: Gate,
}

impl FileLock {
    /// The presence of a member of a database in memory.
    pub(super) fn in_memory(descriptor: Arc<LockDescriptor>, id: FileId, kind: Kind) -> FileLock {
        FileLock { descriptor, id, kind, in_memory: true }
    }

    /// Whether the file is memory, which no opening finds by a path.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Device and inode of the file.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    pub(crate) fn file(&self) -> &File {
        self.descriptor.file()
    }

    pub(crate) fn descriptor(&self) -> &Arc<LockDescriptor> {
        &self.descriptor
    }

    /// The process slot and the lock file of a member.
    pub(crate) fn member(&self) -> Option<(Process, &Arc<LockFile>)> {
        match &self.kind {
            Kind::Member { process, lock_file } => Some((*process, lock_file)),
            _ => None,
        }
    }

    /// A lock between processes. `None` if only this process changes the file.
    pub(crate) fn process_lock(&self, byte: u64) -> Option<ProcessLock> {
        self.member().map(|_| ProcessLock::new(&self.descriptor, byte))
    }

    /// Why the process keeps others out, if it could not become a member.
    pub(crate) fn why_exclusive(&self) -> Option<&str> {
        match &self.kind {
            Kind::Exclusive(why) => why.as_deref(),
            _ => None,
        }
    }

    /// Whether the process is a plain reader.
    pub(crate) fn is_plain_reader(&self) -> bool {
        matches!(self.kind, Kind::PlainReader)
    }

    /// Takes the gate, to leave.
    pub(crate) fn gate(&self) -> io::Result<Gate> {
        Gate::enter(&self.descriptor)
    }

    /// Whether no other process is present. Then none comes in while the caller holds the gate.
    pub(crate) fn is_last(&self) -> bool {
        self.descriptor.try_lock(locks::PRESENCE, LockKind::Exclusive).unwrap_or(false)
    }

    /// Shares the file with later processes: makes a lock file and becomes a member, if this
    /// process came first and may. Otherwise the records are private. The caller holds the gate,
    /// and begins the session when the file is ready for others.
    pub(crate) fn share(&mut self, path: &Path, wanted: Wanted) -> Result<Option<Live>> {
        if !matches!(self.kind, Kind::First) {
            return Ok(None);
        }
        let opened = LockFile::attach(path, self.file(), true, wanted.fault_guard);
        let is_used = opened.as_ref().map_or(Ok(false), LockFile::is_used);
        if is_used.map_err(|e| Error::io("locking the lock file", path, e))? {
            let by = "its lock file '<name>-lock' is in use for another file, which had this name before; wait until \
                      they have closed it";
            return Err(Error::Locked { path: path.to_path_buf(), by: by.into() });
        }
        let made = opened.and_then(|lock_file| lock_file.reset(self.id).map(|live| (lock_file, live)));
        let (kind, live) = match made {
            Ok((lock_file, live)) => {
                share_presence(path, &self.descriptor)?;
                (become_member(path, &self.descriptor, lock_file, &live, !wanted.read_only)?, Some(live))
            }
            Err(_) if wanted.read_only => return self.read_plainly(path).map(|()| None),
            Err(e) => (Kind::Exclusive(Some(format!("the lock file cannot be made: {e}"))), None),
        };
        self.kind = kind;
        Ok(live)
    }

    /// Becomes a plain reader, if this process came first. The caller holds the gate.
    pub(crate) fn read_plainly(&mut self, path: &Path) -> Result<()> {
        if matches!(self.kind, Kind::First) {
            share_presence(path, &self.descriptor)?;
            self.kind = Kind::PlainReader;
        }
        Ok(())
    }

    /// Whether other processes could become members beside this one.
    pub(crate) fn may_share(&self) -> bool {
        matches!(self.kind, Kind::First)
    }

    /// Remembers for the next open that a flush of this file has failed.
    pub(crate) fn remember_failed_flush(&self) {
        if !self.in_memory {
            cache_validation::remember_failed_flush(self.file(), self.id);
        }
    }

    /// The rights of the database file, to give to files made from it.
    pub(crate) fn rights(&self) -> io::Result<FileRights> {
        FileRights::of(self.file())
    }

    fn unlock_slot(&self) {
        if let Kind::Member { process, lock_file } = &self.kind {
            lock_file.release();
            self.descriptor.unlock(locks::BINDINGS + lock_file.binding());
            self.descriptor.unlock(locks::PROCESSES + process.index as u64);
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        self.unlock_slot();
        self.descriptor.unlock(locks::PRESENCE);
    }
}

/// Comes in: takes the gate, sees which processes are present, and takes the locks of the kind that
/// this process can be.
pub(crate) fn enter(path: &Path, id: FileId, wanted: Wanted) -> Result<Entry> {
    let failed = |e| Error::io("locking the file", path, e);
    let descriptor = Arc::new(LockDescriptor::open(path, id, wanted.read_only)?);
    let gate = Gate::enter(&descriptor).map_err(failed)?;
    let found =
        file::status(descriptor.file()).map_err(|e| Error::io("reading the link count of the file", path, e))?;
    if found.links == 0 {
        // Commits to a file without a name would be lost with its last handle.
        let why = "the file was removed while it was opened; open it again".into();
        return Err(Error::Busy { path: path.to_path_buf(), why });
    }
    let entering = Entering { path, id, wanted, descriptor };
    let sees_members = || entering.descriptor.sees_members().map_err(failed);
    let (kind, joined) = loop {
        if !sees_members()? {
            break (entering.come_first()?, None);
        }
        match entering.join() {
            Ok((kind, live)) => break (kind, Some(live)),
            Err(e) if sees_members()? => return Err(e),
            // They have been killed meanwhile, and their locks are gone.
            Err(_) => {}
        }
    };
    let lock = FileLock { descriptor: entering.descriptor, id, kind, in_memory: false };
    Ok(Entry { lock, joined, gate })
}

/// A process that comes in and holds the gate.
struct Entering<'a> {
    path: &'a Path,
    id: FileId,
    wanted: Wanted,
    descriptor: Arc<LockDescriptor>,
}

impl Entering<'_> {
    fn locked<T>(&self, by: impl Into<String>) -> Result<T> {
        Err(Error::Locked { path: self.path.to_path_buf(), by: by.into() })
    }

    fn try_lock(&self, byte: u64, kind: LockKind) -> Result<bool> {
        try_lock(self.path, &self.descriptor, byte, kind)
    }

    /// Comes in while members are present.
    fn join(&self) -> Result<(Kind, Live)> {
        let Wanted { plain, exclusive, read_only, fault_guard } = self.wanted;
        if plain || exclusive {
            return self.locked("wait until all processes have closed it");
        }
        if !self.descriptor.is_writable {
            return self.locked(
                "a reader beside other processes needs permission to write to the file and to its lock file '<name>-lock'; \
                 or wait until all processes have closed it",
            );
        }
        let opened = LockFile::attach(self.path, self.descriptor.file(), false, fault_guard);
        let lock_file = match opened {
            Ok(lock_file) => lock_file,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return self.locked(
                    "it needs permission to write to the lock file '<name>-lock', which should have the mode of the file",
                );
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                return self.other_binding();
            }
            Err(e) => return Err(Error::io("opening the lock file", self.path, e)),
        };
        let live = lock_file.join(self.id).map_err(|e| Error::io("mapping the lock file", self.path, e))?;
        let Some(live) = live.filter(|_| !self.has_other_binding(lock_file.binding())) else {
            return self.other_binding();
        };
        if !self.try_lock(locks::PRESENCE, LockKind::Shared)? {
            return self.locked("wait until it has closed it");
        }
        become_member(self.path, &self.descriptor, lock_file, &live, !read_only).map(|kind| (kind, live))
    }

    fn other_binding<T>(&self) -> Result<T> {
        self.locked(
            "they have it open by another path or lost its lock file '<name>-lock': a hard link, a file that is mounted without \
             its directory, or a lock file that was removed; open it by the same path, or wait until they have closed it",
        )
    }

    /// Whether members use another lock file than the one with this hash.
    fn has_other_binding(&self, own: u64) -> bool {
        let is_locked = |start, len| len > 0 && !matches!(self.descriptor.lock_of_others(start, len), Ok(None));
        let after = own + 1;
        !is_locked(locks::BINDINGS + own, 1)
            || is_locked(locks::BINDINGS, own)
            || is_locked(locks::BINDINGS + after, locks::BINDINGS_COUNT - after)
    }

    /// Comes in while no member is present.
    fn come_first(&self) -> Result<Kind> {
        let Wanted { read_only, exclusive, plain, .. } = self.wanted;
        if exclusive && !self.descriptor.is_writable {
            return Err(Error::io(
                "locking the file for this process alone",
                self.path,
                io::ErrorKind::PermissionDenied.into(),
            ));
        }
        let alone = self.descriptor.is_writable && self.try_lock(locks::PRESENCE, LockKind::Exclusive)?;
        if !alone {
            return match read_only && !exclusive && self.try_lock(locks::PRESENCE, LockKind::Shared)? {
                true => Ok(Kind::PlainReader),
                false => self.locked("wait until it has closed it"),
            };
        }
        match plain && read_only {
            true => share_presence(self.path, &self.descriptor).map(|()| Kind::PlainReader),
            false if exclusive || plain => Ok(Kind::Exclusive(None)),
            false => Ok(Kind::First),
        }
    }
}

fn try_lock(path: &Path, descriptor: &LockDescriptor, byte: u64, kind: LockKind) -> Result<bool> {
    descriptor.try_lock(byte, kind).map_err(|e| Error::io("locking the file", path, e))
}

/// Changes the lock of presence from exclusive to shared.
fn share_presence(path: &Path, descriptor: &LockDescriptor) -> Result<()> {
    match try_lock(path, descriptor, locks::PRESENCE, LockKind::Shared)? {
        true => Ok(()),
        false => Err(Error::Locked { path: path.to_path_buf(), by: "wait until it has closed it".into() }),
    }
}

/// Takes the locks of a member.
pub(super) fn become_member(
    path: &Path,
    descriptor: &LockDescriptor,
    lock_file: LockFile,
    live: &Live,
    writes: bool,
) -> Result<Kind> {
    try_lock(path, descriptor, locks::BINDINGS + lock_file.binding(), LockKind::Shared)?;
    for index in 0..PROCESSES {
        if try_lock(path, descriptor, locks::PROCESSES + index as u64, LockKind::Exclusive)? {
            return Ok(Kind::Member { process: live.enter(index, writes), lock_file: Arc::new(lock_file) });
        }
    }
    let why = format!("{PROCESSES} processes have it open, the most that may; close one of them");
    Err(Error::Busy { path: path.to_path_buf(), why })
}

/// Adds to a `Locked` error the processes that have the file, if the kernel tells. That searches
/// all processes, so it runs without the gate.
pub(crate) fn name_holders(e: Error, id: FileId) -> Error {
    let Error::Locked { path, by } = e else { return e };
    let holders = lock_holder::of_lock(id, locks::PRESENCE);
    let by = match holders.as_slice() {
        [] => format!("other processes have it open; {by}"),
        _ => format!("{}; {by}", describe(&holders)),
    };
    Error::Locked { path, by }
}

/// Says which other members have a file open, as this process sees them: a member of another
/// process namespace may have another number there, or cannot be seen at all.
pub(crate) fn describe_others(others: &[Process], id: FileId) -> String {
    let mut seen = lock_holder::of_lock(id, locks::PRESENCE);
    seen.retain(|holder| holder.process != std::process::id());
    let unseen: Vec<String> = match others.len() - seen.len().min(others.len()) {
        0 => Vec::new(),
        hidden => {
            let is_seen = |process: &&Process| seen.iter().any(|holder| holder.process == process.id);
            let hidden_ids = others.iter().filter(|process| !is_seen(process)).take(hidden);
            let name = |process: &Process| match process.id == std::process::id() {
                true => "another one with the number of this process".to_string(),
                false => format!("process {} (its own number; of another namespace or user)", process.id),
            };
            hidden_ids.map(name).collect()
        }
    };
    describe_named(&seen, &unseen)
}

/// Says which processes have a file open.
fn describe(holders: &[lock_holder::Holder]) -> String {
    describe_named(holders, &[])
}

/// The same, with names of processes that cannot be seen.
fn describe_named(holders: &[lock_holder::Holder], unseen: &[String]) -> String {
    const NAMED_MAX: usize = 3;
    let name = |holder: &lock_holder::Holder| match holder.process == std::process::id() {
        true => "this process".to_string(),
        false => format!("process {} ({})", holder.process, holder.command),
    };
    let mut named: Vec<_> = holders.iter().map(name).chain(unseen.iter().cloned()).collect();
    let count = named.len();
    named.truncate(NAMED_MAX);
    if let Some(more) = count.checked_sub(NAMED_MAX).filter(|&more| more > 0) {
        named.push(format!("{more} more"));
    }
    let verb = if count == 1 { "has" } else { "have" };
    let how = if holders.iter().any(|holder| holder.writes) {
        " alone (by option, or because it cannot make the lock file '<name>-lock')"
    } else {
        ""
    };
    format!("{} {verb} it open{how}", named.join(", "))
}

/// Ends the session, if this process is the last.
pub(crate) fn end_session(live: &Live) {
    lock_file::end_session(live);
}

/// Device and inode of an open file.
pub(crate) fn file_id(path: &Path, file: &File) -> Result<FileId> {
    let found = file::status(file).map_err(|e| Error::io("reading device and inode", path, e))?;
    Ok((found.device, found.inode))
}
