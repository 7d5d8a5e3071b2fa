//! The lock file: the memory that the members of a database share.
//!
//! Floor: txn. `<name>-lock`, beside the file that a symbolic link leads to. It decides nothing
//! about recovery: without members it may be missing, old, or a copy, and the next process resets
//! it. It stays when the database is closed. The lock file of a database in memory is memory too
//! (`memory`).
//!
//! Invariants:
//!   LOCKFILE-1  the file is created and reset only inside the gate, while no member is alive (P4).
//!   LOCKFILE-2  it gets the rights of the data file, and no more.
//!   LOCKFILE-3  a file of another program is not changed, nor one that members of another data
//!               file use: they hold a lock on it (P3).
//!
//! Failure: `io::Error` of the kernel; `Locked` for a lock file that others use.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use crate::error::best_effort;
use crate::hooks::{self, Mutant};
use crate::mapping::{file, lengthen, tagged, RecordFaults, RecordMemory};
use crate::sys::file_calls;
use crate::sys::locks::{self, LockKind};
use crate::sys::random;
use crate::sys::rights::FileRights;
use crate::txn::live::layout::{
    DEVICE, FAILED_BEFORE, INODE, LAYOUT, LAYOUT_VALUE, MAGIC, MAGIC_VALUE, MAPPED_WORDS, POISON, READER_PAGES,
    READER_PAGE_WORDS, SESSION,
};
use crate::txn::live::{says_failed_flush, Live};
use crate::txn::processes::descriptor::LockDescriptor;
use crate::txn::processes::presence::FileId;
use crate::txn::read::readers::NO_OWNER;

/// How long the kernel may take between the descriptors of a process that was killed: the locks on
/// the lock file go after those on the data file.
const CLOSING_MILLIS: u32 = 50;

/// An open lock file.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    id: FileId,
    faults: RecordFaults,
    /// Whether an access that the kernel cannot serve becomes an error.
    fault_guard: bool,
    /// Holds the lock of a member on the lock file. Nothing is mapped from it (P1).
    holder: LockDescriptor,
}

/// The path of the lock file of a data file.
pub(crate) fn path_of(data: &Path) -> io::Result<PathBuf> {
    // Only the last link matters: the others lead to the same directory.
    let target = match std::fs::read_link(data) {
        Ok(_) => std::fs::canonicalize(data)?,
        Err(_) => data.to_path_buf(),
    };
    let mut name = target.into_os_string();
    name.push("-lock");
    Ok(name.into())
}

impl LockFile {
    /// Opens the lock file of a data file. With `create`, makes one if there is none.
    pub(crate) fn attach(data: &Path, data_file: &File, create: bool, fault_guard: bool) -> io::Result<LockFile> {
        let path = path_of(data)?;
        let file = match file::open_beside(&path, false) {
            // Only now with the flag to create one: the kernel may refuse it for a file of another
            // user in a directory with the sticky bit (`fs.protected_regular`).
            Err(e) if create && e.kind() == io::ErrorKind::NotFound => file::open_beside(&path, true)?,
            opened => opened?,
        };
        let status = file_calls::status(&file)?;
        if file::other_kind(status.mode).is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file"));
        }
        if create {
            file::prepare_empty(&file);
            // Fails for a process that does not own it: then its owner has done so.
            let rights = FileRights::of(data_file)?;
            if FileRights::of(&file)? != rights {
                best_effort(rights.give_to(&file));
            }
        }
        let id = (status.device, status.inode);
        let holder = LockDescriptor::open(&path, id, false).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(LockFile { file, id, faults: RecordFaults::default(), fault_guard, holder })
    }

    /// The lock file of a database in memory. `holder` is the same file, opened once more.
    pub(super) fn of_memory(file: File, holder: File, fault_guard: bool) -> io::Result<LockFile> {
        let status = file_calls::status(&file)?;
        let (id, faults) = ((status.device, status.inode), RecordFaults::default());
        Ok(LockFile { file, id, faults, fault_guard, holder: LockDescriptor::of(holder, true) })
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Device and inode of the lock file.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Whether members of another data file use the lock file: the data file was renamed, or
    /// replaced by another one.
    pub(crate) fn is_used(&self) -> io::Result<bool> {
        for _ in 0..CLOSING_MILLIS {
            if self.holder.try_lock(locks::PRESENCE, LockKind::Exclusive)? {
                return Ok(false);
            }
            // Not `sleep`, which panics if a sandbox refuses its system call.
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(true)
    }

    /// Releases the lock of a member.
    pub(crate) fn release(&self) {
        self.holder.unlock(locks::PRESENCE);
    }

    /// Takes the lock of a member.
    fn hold(&self) -> io::Result<()> {
        match self.holder.try_lock(locks::PRESENCE, LockKind::Shared)? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// A number below [`locks::BINDINGS_COUNT`] that depends on device and inode of the lock file.
    pub(crate) fn binding(&self) -> u64 {
        let (device, inode) = self.id;
        let mixed = (inode ^ device.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 31) % locks::BINDINGS_COUNT
    }

    /// Makes the file one of a session that begins: without states, readers and processes. That a
    /// flush had failed before stays (P20), until [`forget_failed_flush`].
    pub(crate) fn reset(&self, data: FileId) -> io::Result<Live> {
        let mut magic = [0; 8];
        let len = file_calls::end_of(&self.file)?;
        if len > 0 {
            self.file.read_exact_at(&mut magic, 0)?;
            if ![0, MAGIC_VALUE].contains(&u64::from_le_bytes(magic)) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "another program has made it"));
            }
        }
        // With a reader page, for this process.
        self.lengthen_to(1)?;
        self.hold()?;
        let live = self.map()?;
        let header = live.memory();
        header[SESSION].store(0, Ordering::SeqCst);
        let failed_before = tells_failed_flush(|index| header[index].load(Ordering::SeqCst), data);
        header[FAILED_BEFORE].store(failed_before.into(), Ordering::SeqCst);
        live.clear();
        for (index, value) in [(LAYOUT, LAYOUT_VALUE), (DEVICE, data.0), (INODE, data.1), (MAGIC, MAGIC_VALUE)] {
            header[index].store(value, Ordering::SeqCst);
        }
        // An earlier session may have left an owner in the first reader page.
        header[READER_PAGES].store(NO_OWNER, Ordering::SeqCst);
        live.raise_chunks(1);
        Ok(live)
    }

    /// Maps the records of a file that other processes use. `None`: they use another file.
    pub(crate) fn join(&self, data: FileId) -> io::Result<Option<Live>> {
        if file_calls::end_of(&self.file)? < MAPPED_WORDS as u64 * 8 {
            return Ok(None);
        }
        self.hold()?;
        let live = self.map()?;
        let is = |index: usize, value: u64| live.memory()[index].load(Ordering::SeqCst) == value;
        let ours = is(MAGIC, MAGIC_VALUE) && is(LAYOUT, LAYOUT_VALUE) && is(DEVICE, data.0) && is(INODE, data.1);
        let is_used = ours && !is(SESSION, 0);
        Ok(is_used.then_some(live))
    }

    fn map(&self) -> io::Result<Live> {
        let memory = RecordMemory::shared(&self.file, 0, MAPPED_WORDS, self.guard())?;
        Ok(Live::over(Arc::new(memory), self.faults.clone()))
    }

    fn guard(&self) -> Option<&RecordFaults> {
        self.fault_guard.then_some(&self.faults)
    }

    /// Makes the file long enough for reader pages up to `end`.
    pub(crate) fn lengthen_to(&self, end: usize) -> io::Result<()> {
        lengthen(&self.file, READER_PAGES + end * READER_PAGE_WORDS)
    }

    /// Maps some reader pages.
    pub(crate) fn map_reader_pages(&self, first: usize, pages: usize) -> io::Result<RecordMemory> {
        let (start, len) = (READER_PAGES + first * READER_PAGE_WORDS, pages * READER_PAGE_WORDS);
        if file_calls::end_of(&self.file)? < (start + len) as u64 * 8 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the lock file was cut"));
        }
        RecordMemory::shared(&self.file, start, len, self.guard())
    }
}

/// Whether a lock file is that of a data file and says that a flush failed in its last session, or
/// in one before from which no process has recovered yet (P20).
fn tells_failed_flush(word: impl Fn(usize) -> u64, data: FileId) -> bool {
    let header = [(MAGIC, MAGIC_VALUE), (LAYOUT, LAYOUT_VALUE), (DEVICE, data.0), (INODE, data.1)];
    header.into_iter().all(|(index, value)| word(index) == value)
        && (word(FAILED_BEFORE) != 0 || says_failed_flush(word(POISON)))
}

/// The words of a lock file up to the poison, for a process that has it not mapped.
struct Header(File, [u8; 8 * (POISON + 1)]);

impl Header {
    fn read(data: &Path, writable: bool) -> io::Result<Header> {
        let file = file::open_for_locks(&path_of(data)?, writable)?;
        let mut bytes = [0; 8 * (POISON + 1)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Header(file, bytes))
    }

    fn tells_failed_flush(&self, data: FileId) -> bool {
        let word = |index: usize| self.1[8 * index..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        tells_failed_flush(word, data)
    }
}

/// Whether the lock file of a data file says that a flush has failed: the attribute of the data
/// file does not, if its file system has no attributes. Only for a process inside the gate, without
/// members.
pub(crate) fn has_failed_flush(data: &Path, id: FileId) -> bool {
    !hooks::is(Mutant::LockFilePoisonIgnored)
        && Header::read(data, false).is_ok_and(|header| header.tells_failed_flush(id))
}

/// Forgets in the lock file that a flush has failed.
pub(crate) fn forget_failed_flush(data: &Path, id: FileId) {
    let forget = |header: Header| -> io::Result<()> {
        for (index, word) in [(FAILED_BEFORE, 0), (POISON, tagged(POISON, 0))] {
            file_calls::write_at(&header.0, &word.to_le_bytes(), 8 * index as u64)?;
        }
        Ok(())
    };
    // If this fails, the next opening only drops the cache once more.
    match Header::read(data, true) {
        Ok(header) if header.tells_failed_flush(id) => best_effort(forget(header)),
        _ => {}
    }
}

/// Begins a session: from now on processes may join.
pub(crate) fn begin_session(live: &Live) -> io::Result<()> {
    let session = u64::from_le_bytes(random::bytes()?);
    live.memory()[SESSION].store(session.max(1), Ordering::SeqCst);
    Ok(())
}

/// Ends the session.
pub(crate) fn end_session(live: &Live) {
    live.memory()[SESSION].store(0, Ordering::SeqCst);
}
