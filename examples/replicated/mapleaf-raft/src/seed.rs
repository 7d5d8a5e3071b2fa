//! A node that starts from a copy of a state: the first member of a new cluster.
//!
//! Only one node is seeded. Its log begins after an entry that it calls purged, so every node that
//! joins later gets the state as a snapshot; it cannot be replayed into an empty one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mapleaf::Db;
use openraft::{BasicNode, CommittedLeaderId, LogId, Membership, StoredMembership, Vote};

use crate::error::{Error, Result};
use crate::log_file::{Change, LogFile};
use crate::state::{flush_directory, numbers, path_of, put_applied, remove};

/// Makes an empty directory that of a node which is the only member of a new cluster, with the
/// tables of the database at `from`. The log goes to `log`.
///
/// # Errors
/// `Refused` if the directory has a state already, `Store` if `from` cannot be read, `Files` if the
/// directory cannot be changed. After an error, call again.
pub fn seed(dir: &Path, log: &LogFile, group: u64, from: &Path, id: u64, addr: &str) -> Result<()> {
    if !numbers(dir)?.is_empty() {
        let dir = dir.display();
        return Err(Error::Refused(format!("{dir} has a state already; seed an empty directory")));
    }
    let part = dir.join("state-1.part");
    remove(&part)?;
    Db::open_existing(from)?.compact_to(&part)?;
    let first = LogId::new(CommittedLeaderId::new(1, id), 1);
    {
        let txn = Db::open_existing(&part)?.begin_write()?;
        put_applied(&txn, first, Some(&alone(first, id, addr)))?;
        txn.commit()?;
    }
    start_log(log, group, first, id)?;
    let path = path_of(dir, 1);
    fs::rename(&part, &path).map_err(Error::files("renaming to the current state", &path))?;
    flush_directory(dir)
}

/// The membership of a cluster of one node.
fn alone(first: LogId<u64>, id: u64, addr: &str) -> StoredMembership<u64, BasicNode> {
    let nodes = BTreeMap::from([(id, BasicNode::new(addr))]);
    StoredMembership::new(Some(first), Membership::new(vec![[id].into()], nodes))
}

/// Writes the vote of the first leader, and that the first entry was purged.
fn start_log(log: &LogFile, group: u64, first: LogId<u64>, id: u64) -> Result<()> {
    let encoded = |item: postcard::Result<Vec<u8>>| item.map_err(Error::decode("a record of the log"));
    let purge = Change::Purge(first.index, encoded(postcard::to_stdvec(&first))?);
    let vote = Change::Vote(encoded(postcard::to_stdvec(&Vote::new(1, id)))?);
    for change in [vote, purge] {
        let (tell, told) = std::sync::mpsc::channel();
        log.queue(group, change, Box::new(move |written| drop(tell.send(written))));
        let written = told.recv().map_err(|e| Error::Stopped(e.to_string()))?;
        written.map_err(|e| Error::Stopped(e.to_string()))?;
    }
    Ok(())
}
