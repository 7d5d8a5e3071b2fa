//! Every error that Mapleaf returns, and the decoding error that inner floors use.
//!
//! Floor: base. Failures that a correct program can meet (I/O errors, damage, limits, other
//! processes) are values of [`Error`]. Failures that only a bug in Mapleaf can cause are
//! assertions. Decoding reports a [`DecodeError`], which holds no strings; the transaction layer
//! adds path and table.

mod text;

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::PageId;
use text::*;

/// Result of a Mapleaf operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Drops the result of a step that may fail without harm. Each caller explains in a comment why the
/// failure is harmless.
pub(crate) fn best_effort<T, E>(_: std::result::Result<T, E>) {}

/// The path of a database in memory in errors.
pub(crate) const IN_MEMORY: &str = "(memory)";

/// Kind of an [`Error`], for callers that branch on it. `kvctl` maps each kind to an exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, option or codec is invalid here.
    Usage,
    /// A key, value or name is longer than its limit.
    TooLarge,
    /// The file is not a Mapleaf database.
    NotADatabase,
    /// The file has a newer format than this build reads.
    NewerVersion,
    /// The file exists but is empty.
    EmptyFile,
    /// The file is shorter than its newest state needs.
    Truncated,
    /// Bytes of the file are damaged.
    Corrupt,
    /// An entry is undamaged, but the codec of its table cannot decode it.
    Decode,
    /// The kernel could not serve an access to the mapping.
    Fault,
    /// Another process or handle holds a lock.
    Locked,
    /// The database is being recovered or closed by another process.
    Busy,
    /// The call would have to wait for the disk.
    WouldBlock,
    /// An earlier failure made further commits unsafe.
    Poisoned,
    /// No such file.
    NotFound,
    /// The kernel reported an error for an operation.
    Io,
    /// The disk is full.
    DiskFull,
    /// The kernel denied access.
    Permission,
}

/// The one error type of the crate: what happened, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument, option, codec or call is invalid. Nothing was changed; correct the call.
    #[error("{what}")]
    Usage {
        /// The invalid argument or call, and what is allowed.
        what: String,
    },
    /// A child process used a handle that it inherited through `fork`. The parent goes on writing
    /// to the pages, so the child cannot trust what it would read. Open the database again in the
    /// child, or attach to one in shared memory ([`Db::attach`](crate::Db::attach)); inherited
    /// handles need not be dropped first. Its kind is [`ErrorKind::Usage`].
    #[error("{}this handle was inherited through fork and cannot be used in the child; {}", at_path(.path), way_in(.path))]
    Inherited {
        /// The file, where known.
        path: Option<PathBuf>,
    },
    /// A key, value or table name is longer than the limit. Nothing was changed.
    #[error("{what} of {len} bytes is over the limit of {limit} bytes{}", in_table(.table))]
    TooLarge {
        /// `"key"`, `"value"` or `"table name"`.
        what: &'static str,
        /// The length that was given, in bytes.
        len: u64,
        /// The limit, in bytes.
        limit: u64,
        /// The table, where there is one.
        table: Option<String>,
    },
    /// The file is not a Mapleaf database. It was not changed; check the path.
    #[error("{}: not a Mapleaf database: {reason}", .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// The content found instead.
        reason: String,
    },
    /// The file needs a newer release of Mapleaf. It was not changed; open it with the release that
    /// wrote it, or a later one.
    #[error("{}: needs a newer release of Mapleaf: {found} (this build reads {supported})", .path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version or feature that this build does not know.
        found: String,
        /// The versions or features that this build knows.
        supported: String,
    },
    /// The file exists but is empty. It was not changed; remove it, or open it with
    /// [`Options::init_empty`](crate::Options::init_empty).
    #[error("{}: the file is empty; remove it, or let an application open it with Options::init_empty", .path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is shorter than its newest state needs. It was read to find a whole state, and not
    /// changed. If an older state is whole, [`Options::recover`](crate::Options::recover) goes back
    /// to it; otherwise [`Db::salvage`](crate::Db::salvage) copies the entries that can still be
    /// read.
    #[error("{}: the file has {found} bytes and its newest state needs {needed}: {} bytes are missing; {}", .path.display(), .needed.saturating_sub(*.found), way_out(*.whole))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that the newest state needs.
        needed: u64,
        /// Bytes that the file has.
        found: u64,
        /// Transaction of the newest state whose pages all lie inside the file and verify, if there
        /// is one.
        whole: Option<u64>,
    },
    /// Bytes of the file are damaged. [`Db::check`](crate::Db::check) lists all damage.
    #[error("{}damage{}{}: {what}", at_path(.path), on_page(.page), in_table(.table))]
    Corrupt {
        /// The file, where known.
        path: Option<PathBuf>,
        /// The page, where known.
        page: Option<PageId>,
        /// The table, where known.
        table: Option<String>,
        /// The damage: the field, the value found, the value expected.
        what: String,
    },
    /// A key or value is undamaged, but its codec cannot decode it: a program wrote it with another
    /// codec. Other entries are not affected, and the transaction can go on.
    /// [`insert`](crate::TableMut::insert) and [`put`](crate::TableMut::put) replace such a value,
    /// [`remove`](crate::TableMut::remove) deletes the entry, and
    /// [`bytes_table`](crate::WriteTxn::bytes_table) reads its bytes.
    #[error("{}{}{what}", at_path(.path), at_table(.table))]
    Decode {
        /// The file, where known.
        path: Option<PathBuf>,
        /// The table, where known.
        table: Option<String>,
        /// Which key or value, its length, the codec, the bytes found and expected, and the remedy.
        what: String,
    },
    /// The kernel could not serve an access to the mapping (truncated file, bad disk block, full
    /// disk). The call has no valid result. Fix what `cause` names, close every handle and open the
    /// database again.
    #[error("{}the kernel could not serve an access at byte {offset}: {cause}", at_path(.path))]
    Fault {
        /// The file, where known.
        path: Option<PathBuf>,
        /// Offset in the file, in bytes.
        offset: u64,
        /// Why the access failed, as far as known.
        cause: String,
    },
    /// Another process has the database open, or this one read-only, and cannot share it with this
    /// handle: it has the file exclusively, or without a lock file, or by another path, or this
    /// process may not write to the file and its lock file. `by` names the remedy.
    #[error("{}: locked: {by}", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// The process or thread that holds it, as far as known, and the remedy.
        by: String,
    },
    /// The database cannot be used for a moment. Try again.
    #[error("{}: busy: {why}", .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used now.
        why: String,
    },
    /// A non-blocking lookup needs a page that is not in memory. The lookup has requested the page:
    /// try again later, or use a blocking lookup on a thread that may wait.
    #[error("{}page {page}{} is not in memory: it has been asked for; try again, or read on a thread that may wait", at_path(.path), in_table(.table))]
    WouldBlock {
        /// The file, where known.
        path: Option<PathBuf>,
        /// The table, where known.
        table: Option<String>,
        /// The page, or the first page of an overflow extent.
        page: PageId,
    },
    /// A flush or an access to the file has failed, so the contents of the file are uncertain.
    /// Close every handle and open the database again, or attach again to shared memory. If this
    /// fails too, the memory is damaged.
    #[error("{}: an earlier failure: {cause}; {}", .path.display(), way_back(.path))]
    Poisoned {
        /// The file.
        path: PathBuf,
        /// The failure that came first.
        cause: String,
    },
    /// No such file. Check the path, or create the missing folder.
    #[error("{}: no such file{}", .path.display(), in_folder(.folder))]
    NotFound {
        /// The path that the caller gave.
        path: PathBuf,
        /// The first folder on this path that does not exist; `None` where only the file is
        /// missing.
        folder: Option<PathBuf>,
    },
    /// The kernel reported an error.
    #[error("{}{op} failed: {source}{}", at_file(.path), read_only_way(.source))]
    Io {
        /// The operation.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The disk is full. The transaction can be aborted, reads go on, and writes work again once
    /// there is room.
    #[error("{}: the disk is full{}; make room and try again", .path.display(), wanted_bytes(*.wanted))]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Bytes that did not fit; 0 if unknown.
        wanted: u64,
    },
    /// The kernel denied access to the file or its folder, or refused a call (as in a sandbox).
    #[error("{}: {op}: {}", .path.display(), denial(.source))]
    Permission {
        /// The operation.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

// An `Error` is immutable after it was built, so a panic cannot leave it half-changed; its `source`
// is only displayed.
impl std::panic::UnwindSafe for Error {}
impl std::panic::RefUnwindSafe for Error {}

/// For programs whose functions return [`io::Error`]. It has the fitting [`io::ErrorKind`], and
/// [`io::Error::get_ref`] and [`io::Error::downcast`] give the [`Error`] back.
///
/// ```
/// # use mapleaf::{Db, Table};
/// fn count(path: &str) -> std::io::Result<u64> {
///     Ok(Db::open_existing(path)?.begin_read()?.table(Table::<&str, u64>::new("users"))?.len())
/// }
///
/// assert_eq!(count("no/such.mapleaf").unwrap_err().kind(), std::io::ErrorKind::NotFound);
/// ```
impl From<Error> for io::Error {
    fn from(e: Error) -> io::Error {
        let kind = match &e {
            Error::Usage { .. } | Error::Inherited { .. } | Error::TooLarge { .. } => io::ErrorKind::InvalidInput,
            Error::NotADatabase { .. } | Error::EmptyFile { .. } | Error::Corrupt { .. } | Error::Decode { .. } => {
                io::ErrorKind::InvalidData
            }
            Error::NewerVersion { .. } => io::ErrorKind::Unsupported,
            Error::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            Error::Fault { .. } | Error::Poisoned { .. } => io::ErrorKind::Other,
            Error::Locked { .. } | Error::Busy { .. } => io::ErrorKind::ResourceBusy,
            Error::WouldBlock { .. } => io::ErrorKind::WouldBlock,
            Error::NotFound { .. } => io::ErrorKind::NotFound,
            Error::Io { source, .. } => source.kind(),
            Error::DiskFull { .. } => io::ErrorKind::StorageFull,
            Error::Permission { .. } => io::ErrorKind::PermissionDenied,
        };
        io::Error::new(kind, e)
    }
}

impl Error {
    /// The kind, for callers that branch on it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Usage { .. } | Error::Inherited { .. } => ErrorKind::Usage,
            Error::TooLarge { .. } => ErrorKind::TooLarge,
            Error::NotADatabase { .. } => ErrorKind::NotADatabase,
            Error::NewerVersion { .. } => ErrorKind::NewerVersion,
            Error::EmptyFile { .. } => ErrorKind::EmptyFile,
            Error::Truncated { .. } => ErrorKind::Truncated,
            Error::Corrupt { .. } => ErrorKind::Corrupt,
            Error::Decode { .. } => ErrorKind::Decode,
            Error::Fault { .. } => ErrorKind::Fault,
            Error::Locked { .. } => ErrorKind::Locked,
            Error::Busy { .. } => ErrorKind::Busy,
            Error::WouldBlock { .. } => ErrorKind::WouldBlock,
            Error::Poisoned { .. } => ErrorKind::Poisoned,
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::Io { .. } => ErrorKind::Io,
            Error::DiskFull { .. } => ErrorKind::DiskFull,
            Error::Permission { .. } => ErrorKind::Permission,
        }
    }

    /// A usage error with this text.
    pub(crate) fn usage(what: impl Into<String>) -> Error {
        Error::Usage { what: what.into() }
    }

    /// Damage on a page; outer floors add path and table.
    pub(crate) fn corrupt(page: PageId, what: impl Into<String>) -> Error {
        Error::Corrupt { path: None, page: Some(page), table: None, what: what.into() }
    }

    /// Turns an I/O error into the most specific variant.
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound { folder: missing_folder(&path), path },
            io::ErrorKind::PermissionDenied => Error::Permission { op, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path, wanted: 0 },
            _ => Error::Io { op, path, source },
        }
    }

    /// Adds the path to errors of inner floors, which do not know it.
    pub(crate) fn with_path(mut self, at: &Path) -> Error {
        let (Error::Corrupt { path, .. }
        | Error::Decode { path, .. }
        | Error::Fault { path, .. }
        | Error::WouldBlock { path, .. }
        | Error::Inherited { path }) = &mut self
        else {
            return self;
        };
        path.get_or_insert_with(|| at.to_path_buf());
        self
    }

    /// Replaces the path in an error by `named`. For errors about a temporary file: the caller
    /// knows only the final name.
    pub(crate) fn of_file(mut self, named: &Path) -> Error {
        match &mut self {
            Error::Corrupt { path: Some(path), .. }
            | Error::Decode { path: Some(path), .. }
            | Error::Fault { path: Some(path), .. }
            | Error::WouldBlock { path: Some(path), .. }
            | Error::Inherited { path: Some(path) }
            | Error::NotADatabase { path, .. }
            | Error::NewerVersion { path, .. }
            | Error::EmptyFile { path }
            | Error::Truncated { path, .. }
            | Error::Locked { path, .. }
            | Error::Busy { path, .. }
            | Error::Poisoned { path, .. }
            | Error::NotFound { path, .. }
            | Error::Io { path, .. }
            | Error::DiskFull { path, .. }
            | Error::Permission { path, .. } => *path = named.to_path_buf(),
            Error::Usage { .. }
            | Error::TooLarge { .. }
            | Error::Corrupt { path: None, .. }
            | Error::Decode { path: None, .. }
            | Error::WouldBlock { path: None, .. }
            | Error::Inherited { path: None }
            | Error::Fault { path: None, .. } => {}
        }
        self
    }

    /// Adds the number of bytes that did not fit to a [`Error::DiskFull`].
    pub(crate) fn with_wanted(mut self, bytes: u64) -> Error {
        if let Error::DiskFull { wanted, .. } = &mut self {
            *wanted = bytes;
        }
        self
    }

    /// Adds the table's name to errors of inner floors, which do not know it.
    pub(crate) fn with_table(mut self, name: &str) -> Error {
        let (Error::Corrupt { table, .. }
        | Error::Decode { table, .. }
        | Error::TooLarge { table, .. }
        | Error::WouldBlock { table, .. }) = &mut self
        else {
            return self;
        };
        table.get_or_insert_with(|| name.to_string());
        self
    }
}

/// A field of a page has an invalid value. `Copy` and free of strings, so that decoding stays
/// cheap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DecodeError {
    pub(crate) page: PageId,
    /// The field as `docs/format.md` names it.
    pub(crate) field: &'static str,
    pub(crate) found: u64,
    /// The value or the bound that was expected.
    pub(crate) expected: u64,
}

impl From<DecodeError> for Error {
    #[cold]
    fn from(e: DecodeError) -> Error {
        Error::corrupt(e.page, format!("{} is {}, expected {}", e.field, e.found, e.expected))
    }
}
