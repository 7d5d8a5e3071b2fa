//! Files that a verb creates.
//!
//! A verb that fails before its first commit removes the database that it created. A verb that
//! writes a copy (`compact`, `salvage`) shows its progress and stops at SIGINT.

use std::fs;
use std::io;
use std::ops::{ControlFlow, Deref};
use std::path::{Path, PathBuf};

use mapleaf::{Db, Error, ErrorKind};

use crate::exit::{Exit, Failure};
use crate::terminal::interrupt;
use crate::terminal::progress::{self, Progress, Unit};

/// An open database that is removed at the end if this run created it and committed nothing to it.
pub(crate) struct Opened {
    db: Db,
    fresh: Option<Fresh>,
}

/// A database that this run created, with its first transaction number.
struct Fresh {
    path: PathBuf,
    txn: u64,
}

impl Opened {
    /// Opens a database for writing; creates it if missing.
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
        // `path` may be a link; the file to remove is the one that it leads to.
        let fresh = fs::canonicalize(path).ok().map(|path| Fresh { path, txn });
        if let Some(fresh) = &fresh {
            interrupt::remove_on_exit(Some(fresh.path.clone()));
        }
        Ok(Opened { db, fresh })
    }

    /// Keeps the file, whatever happens from here on.
    pub(crate) fn keep(&mut self) {
        self.fresh = None;
        interrupt::remove_on_exit(None);
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
        interrupt::remove_on_exit(None);
        // The lock keeps other processes out until the handle is closed, so no other process has
        // written to it.
        if self.db.stats().is_ok_and(|stats| stats.txn == fresh.txn && stats.tables == 0) {
            fs::remove_file(&fresh.path).ok();
        }
    }
}

/// The failure to create a database. "Not found" means its folder then, which is an I/O error and
/// not a missing input.
pub(crate) fn not_made(path: &Path, error: Error) -> Failure {
    let kind = error.kind();
    let mut failure = Failure::of_database(error, path);
    if kind == ErrorKind::NotFound {
        failure.exit = Exit::Io;
    }
    failure
}

/// Takes the count of finished items and of all items; returns whether to continue.
type ReportProgress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Runs a call that writes a complete new file or none, and shows its progress in `what`. SIGINT
/// stops it.
pub(crate) fn write<T>(
    what: &'static str,
    run: impl FnOnce(&mut ReportProgress<'_>) -> mapleaf::Result<T>,
) -> Result<T, Failure> {
    interrupt::say_what_stays("nothing was written".to_string());
    interrupt::handle_sigint()?;
    let progress = Progress::of(Unit::Things(what), None);
    let done = run(&mut |done, all| {
        progress.show(done, all);
        match interrupt::requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    progress::clear();
    done.map_err(|error| match &error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::Interrupted => interrupt::failure(),
        // It names the file that it is about: that which is read, or that which is written.
        _ => Failure::from(error),
    })
}
