//! Databases in memory that several processes use: the descriptors of one, and attaching to it.
//!
//! Floor: db. See `txn::open::memory`.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::db::{Db, Options};
use crate::error::{Error, Result};
use crate::txn::open;
use crate::txn::processes::memory::Descriptors;

/// The memory of a database, as descriptors to give to another process. [`Db::share`] makes it, and
/// [`Db::attach`] opens the database from it.
///
/// Each descriptor is a file in memory (`memfd`) that is open for reading and writing. The memory
/// lives as long as any process has the database open, or one of these descriptors; then the kernel
/// frees it. Both are needed to attach.
///
/// Both descriptors are close-on-exec. So a child after `fork` has them, and a program that it
/// starts by `exec` does not, unless the flag is taken away (`fcntl(F_SETFD)`). Through a Unix
/// socket they go as ancillary data (`SCM_RIGHTS`): send `data` and `records`, and put those that
/// the other process receives together by [`SharedMemory::new`]. The receiver sets close-on-exec by
/// the flag `MSG_CMSG_CLOEXEC`.
///
/// A process that has them can change everything in the database. Give them only to processes that
/// may.
#[derive(Debug)]
#[non_exhaustive]
pub struct SharedMemory {
    /// The pages.
    pub data: OwnedFd,
    /// What the processes tell each other: the newest states, readers, locks.
    pub records: OwnedFd,
}

impl SharedMemory {
    /// Puts together descriptors that came from another process. [`Db::attach`] examines them.
    pub fn new(data: OwnedFd, records: OwnedFd) -> SharedMemory {
        SharedMemory { data, records }
    }
}

impl Db {
    /// The memory of a database that was made with [`Options::shared_memory`], for other processes:
    /// children after `fork`, and processes that get the descriptors through a socket. May be
    /// called again and again, in each process that has the database open.
    ///
    /// ```
    /// use mapleaf::{Db, Options, Table};
    ///
    /// const USERS: Table<&str, u64> = Table::new("users");
    ///
    /// let db = Options::new().shared_memory(true).in_memory()?;
    /// let memory = db.share()?;
    /// db.write(|txn| txn.table(USERS)?.insert("ada", 1).map(drop))?;
    ///
    /// // In a child after `fork`, or in a process that has received the descriptors; here, in the
    /// // same process, it is another handle.
    /// let attached = Db::attach(&memory)?;
    /// assert_eq!(attached.read(|txn| txn.table(USERS)?.get("ada"))?, Some(1));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` for a database in memory that was made without that option, and for one in a file:
    /// other processes open the file. `Io` if the process may have no more descriptors.
    pub fn share(&self) -> Result<SharedMemory> {
        let env = self.env();
        env.check_process()?;
        let name = env.path().display();
        let Some(lock) = &env.lock else {
            let remedy = "make a database that is to be shared with Options::shared_memory";
            return Err(Error::usage(format!(
                "{name}: the memory of this database belongs to this process only; {remedy}"
            )));
        };
        let (true, Some((_, lock_file))) = (lock.is_in_memory(), lock.member()) else {
            let remedy = "other processes share it when they open the file";
            return Err(Error::usage(format!("{name}: the database is in a file, not in memory; {remedy}")));
        };
        let duplicate = |file: BorrowedFd<'_>| {
            let made = file.try_clone_to_owned();
            made.map_err(|e| Error::io("duplicating a descriptor of shared memory", env.path(), e))
        };
        let (data, records) = (env.mapping.file().as_fd(), lock_file.file().as_fd());
        Ok(SharedMemory { data: duplicate(data)?, records: duplicate(records)? })
    }

    /// Opens a database in memory that another process has shared ([`Db::share`]). The processes
    /// are equal: each reads and writes, any of them may end or be killed, and the others go on.
    /// The memory is whole also when no process has the database open any more, so attaching works
    /// as long as the descriptors exist. In a process that has the database open, returns another
    /// handle to it.
    ///
    /// The descriptors are only borrowed: the process may close them afterwards, attach again, or
    /// pass them on. A child after `fork` cannot use the handles of its parent, and attaches by the
    /// descriptors that it has inherited. `/proc` has to be mounted where the process runs.
    ///
    /// ```
    /// use mapleaf::{Db, Options, Table};
    ///
    /// const COUNTS: Table<&str, u64> = Table::new("counts");
    ///
    /// let db = Options::new().shared_memory(true).in_memory()?;
    /// let memory = db.share()?;
    ///
    /// // SAFETY: this process has no other thread that could hold a lock now.
    /// let child = unsafe { libc::fork() };
    /// if child == 0 {
    ///     let put = |db: Db| db.write(|txn| txn.table(COUNTS)?.insert("child", 1).map(drop));
    ///     let done = Db::attach(&memory).and_then(put);
    ///     // SAFETY: ends the child.
    ///     unsafe { libc::_exit(i32::from(done.is_err())) };
    /// }
    /// let mut status = 1;
    /// // SAFETY: waits for the child, with a pointer that lives through the call.
    /// unsafe { libc::waitpid(child, &mut status, 0) };
    /// assert_eq!(status, 0);
    /// assert_eq!(db.read(|txn| txn.table(COUNTS)?.get("child"))?, Some(1));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotADatabase` for descriptors of something else, or of two databases; `Permission` for such
    /// as are not open for writing; `Busy` if 1,024 processes have the database open; `Poisoned` if
    /// a process has found it damaged; `Io` from the kernel. The error names the descriptor.
    pub fn attach(memory: &SharedMemory) -> Result<Db> {
        Options::new().attach(memory)
    }
}

impl Options {
    /// Attaches to a database in memory, as [`Db::attach`]. Of the options,
    /// [`read_only`](Options::read_only), [`window_size`](Options::window_size) and
    /// [`fault_guard`](Options::fault_guard) have an effect.
    ///
    /// # Errors
    /// As [`Db::attach`]; `Usage` with [`exclusive`](Options::exclusive) or
    /// [`recover`](Options::recover).
    pub fn attach(self, memory: &SharedMemory) -> Result<Db> {
        let descriptors = Descriptors { data: memory.data.as_fd(), records: memory.records.as_fd() };
        let env = open::attach(descriptors, self.spec())?;
        Ok(Db::of(env, self.spec().read_only))
    }
}
