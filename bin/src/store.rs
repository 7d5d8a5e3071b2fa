//! Opening databases the way that each verb may.
//!
//! Verbs that read open an existing file read-only, so that it stays byte-identical; verbs that write make the file
//! where there is none.

use std::path::Path;

use mapleaf::{Db, Options, ReadTxn};

use crate::exit::Failure;
use crate::output;

/// The table that a verb works on.
#[derive(clap::Args, Debug)]
pub(crate) struct TableName {
    /// Table to work on
    #[arg(short = 't', long = "table", value_name = "NAME", default_value = "main")]
    pub(crate) table: String,
}

/// Opens an existing database for reading only.
pub(crate) fn open_to_read(path: &Path) -> Result<Db, Failure> {
    let options = Options::new().read_only(true).create(false);
    options.open(path).map_err(|error| Failure::of_database(error, path))
}

/// Opens a database for writing; makes it where there is none.
pub(crate) fn open_to_write(path: &Path) -> Result<Db, Failure> {
    Db::open(path).map_err(|error| Failure::of_database(error, path))
}

/// Whether the database has a table of this name. One that it has not reads as empty.
pub(crate) fn has_table(txn: &ReadTxn, name: &str) -> Result<bool, Failure> {
    Ok(txn.tables()?.iter().any(|table| table.name == name))
}

/// Says on standard error that a table reads as empty because it is not there: most often its name is misspelt.
pub(crate) fn note_missing_table(txn: &ReadTxn, name: &str, path: &Path) -> Result<(), Failure> {
    if !has_table(txn, name)? {
        output::note(&format!("kvctl: note: {}: no table '{name}'; 'kvctl tables' lists them", path.display()));
    }
    Ok(())
}
