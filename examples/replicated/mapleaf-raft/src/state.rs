//! The file of the state machine: which one is current, and how another one replaces it.
//!
//! The directory holds `state-<number>.mapleaf`; the highest number is the current one. A new state
//! is built in `state-<any>.part`, which is never taken for a state. When it is
//! complete and durable, it is renamed to the next number and the directory is flushed; then the
//! old file is removed. A crash leaves the old state, the new one, or both, and then the new one
//! counts.
//!
//! The table `raft` belongs to this crate: the last applied entry and the membership. All others
//! are those of the application.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use mapleaf::{Db, ReadTxn, Table, WriteTxn};
use openraft::{BasicNode, LogId, StoredMembership};

use crate::error::{Error, Result};

/// The last applied entry and the membership, encoded by postcard.
pub(crate) const RAFT: Table<&str, &[u8]> = Table::new("raft");

/// How far a state machine is: the last applied entry, and the membership of the cluster then.
pub type Applied = (Option<LogId<u64>>, StoredMembership<u64, BasicNode>);

/// The current state of a node. Cheap to clone; read transactions go on when another state
/// replaces the one that they read.
#[derive(Clone, Debug)]
pub struct State {
    dir: Arc<PathBuf>,
    current: Arc<RwLock<Current>>,
    /// New states that were begun, so that each has a file of its own.
    begun: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    db: Db,
}

impl State {
    /// Opens the current state in a directory, or creates an empty one. What an interrupted
    /// installation has left is removed.
    ///
    /// # Errors
    /// `Store` as [`Db::open`], `Files` if the directory cannot be read or changed.
    pub fn open(dir: impl AsRef<Path>) -> Result<State> {
        let dir = dir.as_ref().to_path_buf();
        let number = numbers(&dir)?.last().copied().unwrap_or(1);
        let db = Db::open(path_of(&dir, number))?;
        let current = Arc::new(RwLock::new(Current { number, db }));
        let state = State { dir: Arc::new(dir), current, begun: Arc::default() };
        state.remove_others(|name| number_of(name).is_some() || is_part(name))?;
        Ok(state)
    }

    /// The database of the current state. Only entries of the log change it: read it only.
    pub fn db(&self) -> Db {
        self.current.read().unwrap_or_else(PoisonError::into_inner).db.clone()
    }

    /// How far the state is.
    ///
    /// # Errors
    /// `Store` or `Decode` if the file is damaged.
    pub fn applied(&self) -> Result<Applied> {
        applied_of(&self.db().begin_read()?)
    }

    /// Where a new state is built.
    pub(crate) fn part(&self) -> PathBuf {
        self.dir.join(format!("state-{}.part", self.begun.fetch_add(1, Ordering::Relaxed)))
    }

    fn number(&self) -> u64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).number
    }

    /// Makes a complete, durable and closed file the current state.
    pub(crate) fn replace(&self, part: &Path) -> Result<()> {
        let number = self.number() + 1;
        let path = path_of(&self.dir, number);
        fs::rename(part, &path).map_err(Error::files("renaming to the current state", &path))?;
        flush_directory(&self.dir)?;
        let db = Db::open_existing(&path)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { number, db };
        // Another new state may be on its way: its file stays.
        self.remove_others(|name| number_of(name).is_some())
    }

    /// Removes the files with such names, except those of the current state.
    fn remove_others(&self, is_old: impl Fn(&str) -> bool) -> Result<()> {
        let current = self.number();
        for entry in fs::read_dir(&*self.dir).map_err(Error::files("listing", &self.dir))? {
            let path = entry.map_err(Error::files("listing", &self.dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_old(name) && number_of(name) != Some(current) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// How far the state of a transaction is.
pub(crate) fn applied_of(txn: &ReadTxn) -> Result<Applied> {
    let raft = txn.table(RAFT)?;
    let last = raft.get("applied")?.map(postcard::from_bytes).transpose();
    let membership = raft.get("membership")?.map(postcard::from_bytes).transpose();
    let last = last.map_err(Error::decode("the position of the state machine"))?;
    let membership = membership.map_err(Error::decode("the membership in the state machine"))?;
    Ok((last, membership.unwrap_or_default()))
}

/// Keeps how far the state is, in the transaction that brings it there (RAFT-3).
pub(crate) fn put_applied(
    txn: &WriteTxn,
    last: LogId<u64>,
    membership: Option<&StoredMembership<u64, BasicNode>>,
) -> Result<()> {
    let mut raft = txn.table(RAFT)?;
    raft.put("applied", &encode(&last)?)?;
    if let Some(membership) = membership {
        raft.put("membership", &encode(membership)?)?;
    }
    Ok(())
}

fn encode(item: &impl serde::Serialize) -> Result<Vec<u8>> {
    postcard::to_stdvec(item).map_err(Error::decode("a record of the state machine"))
}

/// The path of a state.
pub(crate) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("state-{number}.mapleaf"))
}

/// The numbers of the states in a directory, in order.
pub(crate) fn numbers(dir: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::files("listing", dir))? {
        let entry = entry.map_err(Error::files("listing", dir))?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        numbers.extend(number_of(name).filter(|_| name.ends_with(".mapleaf")));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number of a state, by the name of its file or lock file.
fn number_of(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("state-")?;
    rest.strip_suffix(".mapleaf").or(rest.strip_suffix(".mapleaf-lock"))?.parse().ok()
}

fn is_part(name: &str) -> bool {
    name.starts_with("state-") && (name.ends_with(".part") || name.ends_with(".part-lock"))
}

/// Makes the names in a directory durable.
pub(crate) fn flush_directory(dir: &Path) -> Result<()> {
    let flushed = fs::File::open(dir).and_then(|dir| dir.sync_all());
    flushed.map_err(Error::files("flushing the directory", dir))
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::files("removing", path)(e)),
        _ => Ok(()),
    }
}
