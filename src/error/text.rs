//! Parts of the texts of errors: the place, the cause, the remedy.
//!
//! Floor: base. Each function returns a part of a sentence, which may be empty.
//!
//! Failure: none.

use std::io;
use std::path::{Path, PathBuf};

use super::IN_MEMORY;
use crate::ids::PageId;

pub(super) fn way_out(whole: Option<u64>) -> String {
    match whole {
        Some(txn) => {
            format!("the state of transaction {txn} is whole: 'kvctl recover FILE' or Options::recover goes back to it")
        }
        None => "no state is whole: 'kvctl salvage FILE OUT' or Db::salvage copies what can be read".to_string(),
    }
}

/// How a child gets to a database that its parent has.
pub(super) fn way_in(path: &Option<PathBuf>) -> &'static str {
    match path {
        Some(path) if path.as_os_str() == IN_MEMORY => {
            "a database in memory is opened in a child by Db::attach, if it was made with Options::shared_memory"
        }
        _ => "open the database again in this process",
    }
}

/// How a database that was poisoned is used again.
pub(super) fn way_back(path: &Path) -> &'static str {
    match path.as_os_str() == IN_MEMORY {
        true => {
            "close all handles, and attach again if it is shared; if that fails, the memory is damaged: make a new one"
        }
        false => "close all handles and open the database again",
    }
}

/// The topmost folder of this path that does not exist.
pub(super) fn missing_folder(path: &Path) -> Option<PathBuf> {
    let folders = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    folders.take_while(|folder| !folder.exists()).last().map(Path::to_path_buf)
}

pub(super) fn in_folder(folder: &Option<PathBuf>) -> String {
    folder.as_ref().map(|folder| format!(": the folder '{}' does not exist", folder.display())).unwrap_or_default()
}

/// The path as the start of a message; empty for a database in memory, which has an empty path.
pub(super) fn at_file(path: &Path) -> String {
    match path.as_os_str().is_empty() {
        true => String::new(),
        false => format!("{}: ", path.display()),
    }
}

/// Why access was denied: the owner and mode of a file (`EACCES`), or another reason that the
/// message of the error gives.
pub(super) fn denial(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::EPERM) => format!("{source}; sandbox, or a file that may not be changed (chattr)?"),
        None if source.get_ref().is_some() => source.to_string(),
        _ => "permission denied".to_string(),
    }
}

/// The remedy if the file system is mounted read-only.
pub(super) fn read_only_way(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; an existing database can be read, with Options::read_only(true) or a verb of kvctl that only reads \
             ('kvctl get', 'scan', 'dump'); for all else mount the file system for writing"
        }
        _ => "",
    }
}

pub(super) fn wanted_bytes(wanted: u64) -> String {
    if wanted == 0 {
        return String::new();
    }
    format!(": {wanted} bytes were wanted")
}

pub(super) fn in_table(table: &Option<String>) -> String {
    table.as_ref().map(|name| format!(" in table '{name}'")).unwrap_or_default()
}

pub(super) fn at_table(table: &Option<String>) -> String {
    table.as_ref().map(|name| format!("table '{name}': ")).unwrap_or_default()
}

pub(super) fn on_page(page: &Option<PageId>) -> String {
    page.map(|id| format!(" on page {id}")).unwrap_or_default()
}

pub(super) fn at_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
}
