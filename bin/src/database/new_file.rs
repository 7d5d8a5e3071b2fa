//! Databases that a verb creates.
//!
//! A verb that fails before its first commit removes the database that it created. So it keeps
//! other processes out of the new file until it ends: none can have written to a file that is
//! removed. A verb that writes a copy of a database (`compact`, `salvage`) shows its progress and
//! stops at SIGINT.

use std::fs;
use std::io;
use std::ops::{ControlFlow, Deref};
use std::path::{Path, PathBuf};

use mapleaf::{Db, Error, ErrorKind, Options};

use crate::database::scratch;
use crate::exit::{best_effort, Exit, Failure};
use crate::terminal::interrupt;
use crate::terminal::progress::{self, Progress, Unit};

/// A database that is open for writing. Drop removes the file if this run created it and committed
/// nothing to it.
pub(crate) struct WritableDb {
    db: Db,
    created: Option<CreatedDb>,
}

/// A database that this run created, with the number of its first transaction.
struct CreatedDb {
    path: PathBuf,
    txn: u64,
}

impl WritableDb {
    /// Opens a database for writing; creates it if missing.
    pub(crate) fn open_or_create(path: &Path) -> Result<WritableDb, Failure> {
        match scratch::open(path).unwrap_or_else(|| Db::open_existing(path)) {
            Err(error) if scratch::is_on() => Err(Failure::of_database(error, path)),
            Ok(db) => Ok(WritableDb { db, created: None }),
            Err(error) if error.kind() == ErrorKind::NotFound => WritableDb::create(path),
            Err(error) => Err(Failure::of_database(error, path)),
        }
    }

    fn create(path: &Path) -> Result<WritableDb, Failure> {
        let db = Options::new().exclusive(true).open(path).map_err(|error| not_created(path, error))?;
        let txn = db.stats().map_err(|error| Failure::of_database(error, path))?.txn;
        // If `path` is a link, the file that it leads to is removed, and not the link.
        let created = fs::canonicalize(path).ok().map(|path| CreatedDb { path, txn });
        if let Some(created) = &created {
            interrupt::remove_on_exit(Some(created.path.clone()));
        }
        Ok(WritableDb { db, created })
    }

    /// Keeps the file, even if the verb fails later.
    pub(crate) fn keep(&mut self) {
        self.created = None;
        interrupt::remove_on_exit(None);
    }
}

impl Deref for WritableDb {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

impl Drop for WritableDb {
    fn drop(&mut self) {
        let Some(created) = self.created.take() else { return };
        interrupt::remove_on_exit(None);
        // The lock of the open handle keeps other processes out, so none of them has written to the
        // file.
        if self.db.stats().is_ok_and(|stats| stats.txn == created.txn && stats.tables == 0) {
            best_effort(fs::remove_file(&created.path));
        }
    }
}

/// Removes a database that this run created, and its lock file.
pub(crate) fn remove(path: &Path) {
    best_effort(fs::remove_file(path));
    // There is none if the database was opened exclusively only.
    let mut lock_file = path.as_os_str().to_os_string();
    lock_file.push("-lock");
    best_effort(fs::remove_file(lock_file));
}

/// The failure to create a database. "Not found" means that the folder is missing, which is an I/O
/// error and not a missing input.
pub(crate) fn not_created(path: &Path, error: Error) -> Failure {
    let kind = error.kind();
    let mut failure = Failure::of_database(error, path);
    if kind == ErrorKind::NotFound {
        failure.exit = Exit::Io;
    }
    failure
}

/// A callback that takes the count of finished items and of all items, and says whether to go on.
type ReportProgress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Runs a call that writes a complete new file or none, and shows its progress. `items` names the
/// counted items. SIGINT stops the call.
pub(crate) fn write<T>(
    items: &'static str,
    run: impl FnOnce(&mut ReportProgress<'_>) -> mapleaf::Result<T>,
) -> Result<T, Failure> {
    interrupt::set_summary("nothing was written".to_string());
    interrupt::handle_sigint()?;
    let progress = Progress::new(Unit::Items(items), None);
    let result = run(&mut |done, all| {
        progress.set(done, all);
        match interrupt::requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    progress::clear();
    result.map_err(|error| match &error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::Interrupted => interrupt::failure(),
        // The text of the error names the file: the database that is read, or its copy.
        _ => Failure::from(error),
    })
}
