//! Every error that Mapleaf returns, and the small ones that inner floors use.
//!
//! Floor 0. Two kinds of failure exist. What the world can do (files, disks, damage, limits, other
//! processes) is a value: [`Error`]. What only a bug of ours can do is an assertion. Decoding
//! reports a [`DecodeError`], which holds no strings; the transaction layer adds path and table.

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::PageId;

/// Result of a Mapleaf operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Drops the result of a step that may fail without harm. The caller says in a comment why that is
/// so.
pub(crate) fn best_effort<T, E>(_: std::result::Result<T, E>) {}

/// What kind of failure an [`Error`] is, for callers that decide by it (and for the exit codes of
/// `kvctl`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, option or codec does not fit.
    Usage,
    /// A key, value or name is over its limit.
    TooLarge,
    /// The file is not a Mapleaf database.
    NotADatabase,
    /// The file was written by a newer format than this build reads.
    NewerVersion,
    /// The file exists and has no bytes.
    EmptyFile,
    /// The file is shorter than its newest state needs.
    Truncated,
    /// Bytes of the file are damaged.
    Corrupt,
    /// The bytes of an entry are whole, and no item of the codec that its table was opened with.
    Decode,
    /// The kernel could not serve an access to the mapping.
    Fault,
    /// Another process or handle holds a lock.
    Locked,
    /// The database is being recovered or closed by another process.
    Busy,
    /// An answer would have to wait for the disk.
    WouldBlock,
    /// An earlier failure made further commits unsafe.
    Poisoned,
    /// No such file.
    NotFound,
    /// The kernel reported an error for an operation.
    Io,
    /// The disk has no room for what was asked.
    DiskFull,
    /// The kernel denied access.
    Permission,
}

/// The one error type of the crate: what happened, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument, option, codec or call does not fit. Change the call; nothing was changed.
    #[error("{what}")]
    Usage {
        /// What does not fit, and what would.
        what: String,
    },
    /// A child after `fork` used what its parent opened: the parent goes on writing to the pages,
    /// so nothing that the child would read of them is sure. Open the database again in the child,
    /// once the parent has closed it or if both only read; what was inherited need not be dropped
    /// for that. Its kind is [`ErrorKind::Usage`].
    #[error("{}opened by the parent of this process, and of no use in a child after fork; open the database again here", at_path(.path))]
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
    /// The file is something else. It was not touched; check the path.
    #[error("{}: not a Mapleaf database: {reason}", .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// The file needs a newer Mapleaf. It was not touched; open it with the release that wrote it,
    /// or later.
    #[error("{}: needs a newer release of Mapleaf: {found} (this build reads {supported})", .path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version or feature that is not known.
        found: String,
        /// What this build knows.
        supported: String,
    },
    /// The file exists and has zero bytes. It was not touched; remove it, or open with
    /// [`Options::init_empty`](crate::Options::init_empty).
    #[error("{}: the file is empty; remove it, or let an application open it with Options::init_empty", .path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is shorter than its newest state needs. It was read, to find out what is whole, and
    /// not touched. If an older state is whole, [`Options::recover`](crate::Options::recover) goes
    /// back to it; else [`Db::salvage`](crate::Db::salvage) copies what can be read.
    #[error("{}: the file has {found} bytes and its newest state needs {needed}: {} bytes are missing; {}", .path.display(), .needed.saturating_sub(*.found), way_out(*.whole))]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that the newest state needs.
        needed: u64,
        /// Bytes that the file has.
        found: u64,
        /// Transaction of the newest state all of whose pages lie inside the file and verify, if
        /// there is one.
        whole: Option<u64>,
    },
    /// Bytes of the file are damaged. `check` lists all damage.
    #[error("{}damage{}{}: {what}", at_path(.path), on_page(.page), in_table(.table))]
    Corrupt {
        /// The file, where known.
        path: Option<PathBuf>,
        /// The page, where known.
        page: Option<PageId>,
        /// The table, where known.
        table: Option<String>,
        /// What is wrong: the field, what was found, what was expected.
        what: String,
    },
    /// The bytes of a key or value are whole, and no item of its codec: a program wrote them that
    /// did not use this codec. The other entries are not affected, and a transaction goes on.
    /// [`insert`](crate::TableMut::insert) and [`put`](crate::TableMut::put) replace such a value,
    /// [`remove`](crate::TableMut::remove) takes the entry away, and
    /// [`bytes_table`](crate::WriteTxn::bytes_table) gives its bytes.
    #[error("{}{}{what}", at_path(.path), at_table(.table))]
    Decode {
        /// The file, where known.
        path: Option<PathBuf>,
        /// The table, where known.
        table: Option<String>,
        /// Which key or value, its length, the codec, what was found and expected, and the remedy.
        what: String,
    },
    /// The kernel could not serve an access to the mapping (a truncated file, a bad disk block, a
    /// full disk). What the call was to return is not known. Put right what the cause names, close
    /// every handle and open again.
    #[error("{}the system could not serve an access at byte {offset}: {cause}", at_path(.path))]
    Fault {
        /// The file, where known.
        path: Option<PathBuf>,
        /// Offset in the file, in bytes.
        offset: u64,
        /// What made the access fail, as far as known.
        cause: String,
    },
    /// Another process or thread holds the database or the writer. Wait, or close the other.
    #[error("{}: locked: {by}", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// The process or thread that holds it, as far as known, and the remedy.
        by: String,
    },
    /// The database is in a passing state in which it cannot be used. Try again.
    #[error("{}: busy: {why}", .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// What is going on.
        why: String,
    },
    /// A lookup that may not wait came to a page that is not in memory. The page has been asked
    /// for: try again later, or call the lookup that waits, on a thread that may.
    #[error("{}page {page}{} is not in memory: it has been asked for; try again, or read on a thread that may wait", at_path(.path), in_table(.table))]
    WouldBlock {
        /// The file, where known.
        path: Option<PathBuf>,
        /// The table, where known.
        table: Option<String>,
        /// The page, or the first of a value.
        page: PageId,
    },
    /// A flush has failed, or an access to the file, so that what the file holds is not known.
    /// Close every handle and open again.
    #[error("{}: an earlier failure: {cause}; close all handles and open the database again", .path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
        /// The failure that came first.
        cause: String,
    },
    /// No such file. Check the path, or make the folder that is missing.
    #[error("{}: no such file{}", .path.display(), in_folder(.folder))]
    NotFound {
        /// The path that was asked for.
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
    /// The disk has no room. The transaction can be aborted, reads go on, and writes work again
    /// once there is room.
    #[error("{}: the disk is full{}; make room and try again", .path.display(), wanted_bytes(*.wanted))]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Bytes that were wanted; 0 where that is not known.
        wanted: u64,
    },
    /// The kernel denied access: to the file or its folder, or it refused a call, as a sandbox
    /// does.
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

fn way_out(whole: Option<u64>) -> String {
    match whole {
        Some(txn) => {
            format!("the state of transaction {txn} is whole: 'kvctl recover FILE' or Options::recover goes back to it")
        }
        None => "no state is whole: 'kvctl salvage FILE OUT' or Db::salvage copies what can be read".to_string(),
    }
}

/// The first folder on the way to a file that does not exist.
fn missing_folder(path: &Path) -> Option<PathBuf> {
    let folders = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    folders.take_while(|folder| !folder.exists()).last().map(Path::to_path_buf)
}

fn in_folder(folder: &Option<PathBuf>) -> String {
    folder.as_ref().map(|folder| format!(": the folder '{}' does not exist", folder.display())).unwrap_or_default()
}

/// The name of a file before what is said of it; nothing where memory is meant.
fn at_file(path: &Path) -> String {
    match path.as_os_str().is_empty() {
        true => String::new(),
        false => format!("{}: ", path.display()),
    }
}

/// By what access was denied: the owner and mode of a file (`EACCES`), or something that only the
/// call and its number tell.
fn denial(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::EPERM) => format!("{source}; sandbox, or a file that may not be changed (chattr)?"),
        None if source.get_ref().is_some() => source.to_string(),
        _ => "permission denied".to_string(),
    }
}

/// What is to be done where a file system is mounted to be read only.
fn read_only_way(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; an existing database can be read, with Options::read_only(true) or a verb of kvctl that only reads \
             ('kvctl get', 'scan', 'dump'); for all else mount the file system for writing"
        }
        _ => "",
    }
}

fn wanted_bytes(wanted: u64) -> String {
    if wanted == 0 {
        return String::new();
    }
    format!(": {wanted} bytes were wanted")
}

fn in_table(table: &Option<String>) -> String {
    table.as_ref().map(|name| format!(" in table '{name}'")).unwrap_or_default()
}

fn at_table(table: &Option<String>) -> String {
    table.as_ref().map(|name| format!("table '{name}': ")).unwrap_or_default()
}

fn on_page(page: &Option<PageId>) -> String {
    page.map(|id| format!(" on page {id}")).unwrap_or_default()
}

fn at_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
}

// No call changes an error, so that none can be left half-changed; the source that it may have is
// only shown.
impl std::panic::UnwindSafe for Error {}
impl std::panic::RefUnwindSafe for Error {}

impl Error {
    /// The kind, for callers that decide by it.
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

    /// Damage on a page; path and table are added by outer floors.
    pub(crate) fn corrupt(page: PageId, what: impl Into<String>) -> Error {
        Error::Corrupt { path: None, page: Some(page), table: None, what: what.into() }
    }

    /// Turns a system error into the variant that says most about it.
    pub(crate) fn io(op: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound { folder: missing_folder(&path), path },
            io::ErrorKind::PermissionDenied => Error::Permission { op, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path, wanted: 0 },
            _ => Error::Io { op, path, source },
        }
    }

    /// Adds the path to errors of inner floors, which know no files.
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

    /// Names the file that was asked for, where an error names one that was made in its place.
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

    /// Says how many bytes did not fit, where the error is that the disk is full.
    pub(crate) fn with_wanted(mut self, bytes: u64) -> Error {
        if let Error::DiskFull { wanted, .. } = &mut self {
            *wanted = bytes;
        }
        self
    }

    /// Adds the table's name to errors of inner floors, which know no tables.
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

/// A page whose bytes do not mean anything valid. `Copy` and free of strings, so that decoding
/// stays cheap.
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
