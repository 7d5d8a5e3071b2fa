//! How to open a database.
//!
//! Floor: db. One builder; every option is a method with a value.

use std::path::Path;

use crate::db::{open_with, Db};
use crate::error::Result;
use crate::limits::PAGE_SIZE_DEFAULT;
use crate::mapping::ReadAhead;
use crate::txn::open::{self, OpenSpec};

/// Options for opening a database.
///
/// ```
/// use mapleaf::Options;
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("app.mapleaf");
/// let db = Options::new().page_size(8192).open(&path)?;
/// # drop(db);
/// let db = Options::new().read_only(true).open(&path)?;
/// assert!(db.begin_write().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # A database that this process has open
///
/// To open it again gives another handle to the same database, which stays as it was opened first:
///
/// | option | at the second opening |
/// |---|---|
/// | [`read_only`](Options::read_only) | holds for the new handle; without it, `Locked` if the database is open read-only |
/// | [`fault_guard`](Options::fault_guard), [`read_ahead`](Options::read_ahead) | another value than the one in force is an error of kind `Usage`; not given, nothing changes |
/// | [`recover`](Options::recover) | an error of kind `Usage` |
/// | [`window_size`](Options::window_size) | has no effect: the window is there |
/// | [`page_size`](Options::page_size), [`create`](Options::create), [`init_empty`](Options::init_empty), [`mode`](Options::mode) | have no effect, as for any file that is a database |
#[derive(Clone, Debug)]
pub struct Options {
    spec: OpenSpec,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The options of [`Db::open`].
    pub fn new() -> Options {
        Options {
            spec: OpenSpec {
                page_size: PAGE_SIZE_DEFAULT,
                read_only: false,
                create: true,
                init_empty: false,
                mode: 0o666,
                window_bytes: None,
                fault_guard: None,
                recover: false,
                read_ahead: None,
            },
        }
    }

    /// Page size of a new database, in bytes: 4096 (the default), 8192, 16384 or 32768. A database
    /// that exists keeps its own.
    pub fn page_size(mut self, bytes: u32) -> Options {
        self.spec.page_size = bytes as usize;
        self
    }

    /// Only read: the file is never written, and may be open read-only in any number of processes.
    /// Default: false.
    pub fn read_only(mut self, read_only: bool) -> Options {
        self.spec.read_only = read_only;
        self
    }

    /// Make the file where there is none. Default: true (and never when read-only).
    pub fn create(mut self, create: bool) -> Options {
        self.spec.create = create;
        self
    }

    /// Take an existing file of zero bytes for a new database, for files that a temporary-file
    /// crate has made. So is one of nothing but zeros that is no longer than two pages: a power cut
    /// can leave it while an empty file is made a database. Default: false, because an empty file
    /// is more often one that lost its content.
    pub fn init_empty(mut self, init_empty: bool) -> Options {
        self.spec.init_empty = init_empty;
        self
    }

    /// Mode of a new database, with the bits of the umask taken off as for any new file; the file
    /// has it from the first byte on, under its temporary name too. A file that exists keeps its
    /// own. The owner must be able to read and write. Default: `0o666`.
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("secret.mapleaf");
    /// let db = mapleaf::Options::new().mode(0o600).open(&path)?;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mode(mut self, mode: u32) -> Options {
        self.spec.mode = mode;
        self
    }

    /// Address space to reserve at first, in bytes, for reading; as much again is reserved for
    /// writing. It is no limit: a database that outgrows it goes on in a larger window. Reserved
    /// address space takes no memory, but it belongs to the whole process, so all databases
    /// together take at most a half of what the program leaves of it (and of `RLIMIT_AS`, where
    /// that is set), beyond what their files need. Default: the larger of 64 GiB and 16 times the
    /// file, but at most a sixteenth of what is left of that half. A size set here may take all of
    /// it.
    pub fn window_size(mut self, bytes: u64) -> Options {
        self.spec.window_bytes = Some(bytes);
        self
    }

    /// Turn accesses to the file that the kernel cannot serve, because the file was cut short or
    /// the disk fails, into [`Error::Fault`](crate::Error::Fault). For that, the first database
    /// that is opened so installs a handler for the signal SIGBUS; signals that have nothing to do
    /// with a database go on to the handler that was there before. Without the SIGBUS handler, and
    /// in threads that block SIGBUS, such an access ends the process. Default: true.
    pub fn fault_guard(mut self, fault_guard: bool) -> Options {
        self.spec.fault_guard = Some(fault_guard);
        self
    }

    /// Go back to the newest state that is whole, if the newest one is not: in a file that was cut
    /// short, or in which pages of the newest state are damaged. [`Db::recover`] says when there is
    /// such a state. Commits after it are given up for good; [`Db::recover_preview`] says before
    /// what would be lost. Nothing is changed in a file whose newest state is whole. Reads every
    /// page that is in use, so opening takes as long as reading the file. An error if this process
    /// has the database open already. Default: false.
    pub fn recover(mut self, recover: bool) -> Options {
        self.spec.recover = recover;
        self
    }

    /// Whether pages that are not in memory are read before they are needed. Default:
    /// [`ReadAhead::Auto`].
    pub fn read_ahead(mut self, read_ahead: ReadAhead) -> Options {
        self.spec.read_ahead = Some(read_ahead);
        self
    }

    /// Opens the database at a path.
    ///
    /// # Errors
    /// As [`Db::open`]; `Usage` for a page size or a mode that is not possible.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        open_with(path.as_ref(), &self.spec)
    }

    /// Makes a database in memory.
    ///
    /// # Errors
    /// As [`Db::in_memory`]; `Usage` for a page size that is not possible.
    pub fn in_memory(self) -> Result<Db> {
        Ok(Db::of(open::in_memory(&self.spec)?, false))
    }
}
