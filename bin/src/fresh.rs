//! Databases that a verb may have to make: one that fails before its first commit leaves no file.

use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use mapleaf::{Db, Error, ErrorKind};

use crate::exit::{Exit, Failure};
use crate::interrupt;

/// An open database, and whether this run has made it.
pub(crate) struct Opened {
    db: Db,
    fresh: Option<Fresh>,
}

/// A file that nothing was committed to when it was made.
struct Fresh {
    path: PathBuf,
    txn: u64,
}

impl Opened {
    /// Opens a database for writing; makes it where there is none.
    pub(crate) fn open_or_make(path: &Path) -> Result<Opened, Failure> {
        match Db::open_existing(path) {
            Ok(db) => Ok(Opened { db, fresh: None }),
            Err(error) if error.kind() == ErrorKind::NotFound => Opened::make(path),
            Err(error) => Err(Failure::of_database(error, path)),
        }
    }

    fn make(path: &Path) -> Result<Opened, Failure> {
        let db = Db::open(path).map_err(|error| not_made(path, error))?;
        let txn = db.stats().map_err(|error| Failure::of_database(error, path))?.txn;
        // By a link, the file that was made is another one than the link.
        let fresh = fs::canonicalize(path).ok().map(|path| Fresh { path, txn });
        if let Some(fresh) = &fresh {
            interrupt::remove_at_end(Some(fresh.path.clone()));
        }
        Ok(Opened { db, fresh })
    }

    /// The file stays, whatever happens from here on.
    pub(crate) fn keep(&mut self) {
        self.fresh = None;
        interrupt::remove_at_end(None);
    }
}

impl Deref for Opened {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Some(fresh) = self.fresh.take() else { return };
        interrupt::remove_at_end(None);
        // The lock keeps other processes out until the handle goes, so that nobody else has written
        // to it.
        if self.db.stats().is_ok_and(|stats| stats.txn == fresh.txn && stats.tables == 0) {
            fs::remove_file(&fresh.path).ok();
        }
    }
}

/// The failure to make a file: a verb that writes does not miss the file, but its folder.
pub(crate) fn not_made(path: &Path, error: Error) -> Failure {
    let kind = error.kind();
    let mut failure = Failure::of_database(error, path);
    if kind == ErrorKind::NotFound {
        failure.exit = Exit::Io;
    }
    failure
}

/// The text for a file that cannot be made because a folder on the way to it does not exist.
pub(crate) fn missing_folder(path: &Path, error: &io::Error) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    let missing = folder.ancestors().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()).last()?;
    let text = format!("the folder '{}' does not exist; make it first, or choose another path", missing.display());
    (error.kind() == io::ErrorKind::NotFound).then_some(text)
}
