//! The measured database. `bench` removes a new file at the end, unless `--keep` is given. It uses
//! an existing file only if the mark table shows that an earlier `bench` created it, and keeps it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mapleaf::{Db, Options, ReadTxn, Table};

use super::data::Data;
use crate::database::new_file;
use crate::exit::{Exit, Failure};

/// The table of the measured entries.
pub(crate) const ENTRIES: Table<&[u8], &[u8]> = Table::new("entries");
/// Marks a database of `bench`, and holds the parameters of its entries.
const MARK: Table<&str, &str> = Table::new("kvctl-bench");
/// The key of the parameters in the mark table.
const DATA: &str = "data";

/// The database file, and whether it is removed at the end.
#[derive(Debug)]
pub(crate) struct BenchFile {
    pub(crate) path: PathBuf,
    /// `None` before the first fill.
    open: Option<BenchDb>,
    /// Whether the file did not exist when this run started.
    is_new: bool,
    /// Whether this run has created the file.
    created: bool,
    /// Whether the file stays at the end.
    keep: bool,
}

/// An open database, and the parameters of its entries.
#[derive(Clone, Debug)]
pub(crate) struct BenchDb {
    pub(crate) db: Db,
    pub(crate) data: Data,
}

impl BenchFile {
    /// Examines TARGET, which is a folder for a new file, a new file, or a file of an earlier run.
    pub(crate) fn examine(target: &Path, keep: bool) -> Result<BenchFile, Failure> {
        let mut path = target.to_path_buf();
        match fs::metadata(target) {
            Ok(metadata) if metadata.is_dir() => {
                path.push(format!("kvctl-bench-{}.mapleaf", std::process::id()));
                refuse_link(&path)?;
            }
            Ok(_) => {
                let data = read_mark(target)?;
                let db = Db::open_existing(target).map_err(|error| Failure::of_database(error, target))?;
                return Ok(BenchFile {
                    path,
                    open: Some(BenchDb { db, data }),
                    is_new: false,
                    created: false,
                    keep: true,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => refuse_link(target)?,
            Err(error) => return Err(Failure::reading(&target.display().to_string(), &error)),
        }
        Ok(BenchFile { path, open: None, is_new: true, created: false, keep })
    }

    /// The database; none before the first fill.
    pub(crate) fn opened(&self) -> Option<&BenchDb> {
        self.open.as_ref()
    }

    /// Whether the file did not exist when this run started.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the file stays at the end.
    pub(crate) fn stays(&self) -> bool {
        self.keep
    }

    /// Keeps the file, so that the user can examine it.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }

    /// Creates an empty database. Replaces a database that this run created earlier.
    pub(crate) fn recreate(&mut self, data: Data) -> Result<BenchDb, Failure> {
        let failed = |error| Failure::of_database(error, &self.path);
        self.open = None;
        if self.created {
            fs::remove_file(&self.path).map_err(|error| Failure::writing(&self.path.display().to_string(), &error))?;
            self.created = false;
        }
        let db = Db::open(&self.path).map_err(|error| new_file::not_created(&self.path, error))?;
        if !db.begin_read().and_then(|txn| txn.tables()).map_err(failed)?.is_empty() {
            // Another process created the file first. It stays.
            return Err(Failure::usage(format!(
                "{}: another process has just created this file; choose another name",
                self.path.display()
            )));
        }
        self.created = true;
        let mark = serde_json::to_string(&data).map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
        db.write(|txn| {
            txn.table(MARK)?.insert(DATA, &mark)?;
            txn.table(ENTRIES).map(drop)
        })
        .map_err(failed)?;
        Ok(self.open.insert(BenchDb { db, data }).clone())
    }
}

impl Drop for BenchFile {
    fn drop(&mut self) {
        self.open = None;
        if self.created && !self.keep {
            new_file::remove(&self.path);
        }
    }
}

/// Refuses a path that exists as a link, even to a missing file.
fn refuse_link(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Failure::usage(format!("{}: exists; choose another name", path.display()))),
        Err(_) => Ok(()),
    }
}

/// The parameters of the entries of an existing database. Fails if no earlier run created it. Only
/// reads the file.
fn read_mark(path: &Path) -> Result<Data, Failure> {
    let failed = |error| Failure::of_database(error, path);
    let db = Options::new().read_only(true).create(false).open(path).map_err(failed)?;
    let txn = db.begin_read().map_err(failed)?;
    data_of(&txn).ok_or_else(|| {
        let shown = path.display();
        Failure::usage(format!(
            "{shown}: was not made by 'kvctl bench', and is left alone; name a folder or a file that does not exist"
        ))
    })
}

fn data_of(txn: &ReadTxn) -> Option<Data> {
    let mark = txn.table(MARK).ok()?;
    serde_json::from_str(mark.get(DATA).ok()??).ok()
}
