//! Opens databases as each verb needs them.
//!
//! Verbs that read open an existing file read-only, so that it stays byte-identical. Verbs that
//! write create a missing file.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mapleaf::{Db, ErrorKind, Options, ReadTxn};

use crate::database::new_file::WritableDb;
use crate::database::scratch;
use crate::exit::{Exit, Failure};
use crate::terminal::output;

/// Opens an existing database for reading only.
pub(crate) fn read_only(path: &Path) -> Result<Db, Failure> {
    refuse_own_output(path)?;
    let options = Options::new().read_only(true).create(false);
    options.open(path).map_err(|error| Failure::of_database(error, path))
}

/// Opens a database for writing; creates it if missing. A file that it created is removed if
/// nothing is committed to it.
pub(crate) fn or_create(path: &Path) -> Result<WritableDb, Failure> {
    WritableDb::open_or_create(path)
}

/// Opens a database for writing; `None` if the file does not exist.
pub(crate) fn if_exists(path: &Path) -> Result<Option<Db>, Failure> {
    match scratch::open(path).unwrap_or_else(|| Db::open_existing(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(|error| Failure::of_database(error, path)),
    }
}

/// Whether both belong to the same file, which may have several names.
pub(crate) fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Refuses to run if standard output is redirected into the database.
fn refuse_own_output(path: &Path) -> Result<(), Failure> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(|stdout| File::from(stdout).metadata());
    match (stdout, fs::metadata(path)) {
        (Ok(stdout), Ok(file)) if is_same_file(&stdout, &file) => Err(Failure::usage(format!(
            "{}: standard output is the database itself; send it elsewhere",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Whether the database has a table of this name. (Reading a missing table finds no entries.)
pub(crate) fn has_table(txn: &ReadTxn, name: &str) -> Result<bool, Failure> {
    Ok(txn.tables()?.iter().any(|table| table.name == name))
}

/// The failure of a verb that needs a missing table.
pub(crate) fn no_table(name: &str, path: &Path) -> Failure {
    Failure::new(Exit::No, format!("{}: {}", path.display(), missing(name)))
}

fn missing(name: &str) -> String {
    format!("no table '{name}'; 'kvctl tables' lists them")
}

/// Tells the user if the table is missing. It reads as empty, but most often its name is misspelt.
pub(crate) fn note_missing_table(txn: &ReadTxn, name: &str, path: &Path) -> Result<(), Failure> {
    if !has_table(txn, name)? {
        output::message(&format!("kvctl: note: {}: {}", path.display(), missing(name)));
    }
    Ok(())
}
