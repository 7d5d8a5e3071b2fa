//! The files of a node, opened together, so that one that is missing is noticed.
//!
//! A node that lost its log has forgotten its vote, and one that lost its state machine has lost
//! entries that its log does not have any more. Neither may go on as if it were new under its old
//! id: it could vote twice, or answer from an empty table.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::log_file::LogFile;
use crate::log_store::LogStore;
use crate::seed::seed;
use crate::state::{numbers, State};
use crate::Config;

/// The group of a node that has one.
const GROUP: u64 = 0;

/// The files of a node: `log.mapleaf` and `state-<number>.mapleaf`.
#[derive(Debug)]
pub struct Node<C: Config> {
    /// The file with the log.
    pub file: LogFile,
    /// The log.
    pub log: LogStore<C>,
    /// The state of the state machine.
    pub state: State,
}

impl<C: Config> Node<C> {
    /// Opens the files in a directory; creates directory and files if they do not exist.
    ///
    /// # Errors
    /// `Store` for a file that cannot be used, `Refused` if one of the files is missing or belongs
    /// to another node: the node has to leave the cluster, and to join it with an empty directory.
    pub fn open(dir: &Path) -> Result<Node<C>> {
        fs::create_dir_all(dir).map_err(Error::files("creating the directory", dir))?;
        let log = dir.join("log.mapleaf");
        if !log.exists() && !numbers(dir)?.is_empty() {
            return Err(lost(dir, "the log is missing, and with it the votes of this node"));
        }
        let file = LogFile::open(log)?;
        let log = file.group(GROUP)?;
        let (state, purged) = (State::open(dir)?, log.purged());
        let (applied, _) = state.applied()?;
        if purged > applied {
            let (purged, applied) = (purged.map_or(0, |id| id.index), applied.map_or(0, |id| id.index));
            let what = format!("the log begins after entry {purged}, and the state is only at entry {applied}");
            return Err(lost(dir, &what));
        }
        Ok(Node { file, log, state })
    }

    /// Opens an empty directory as the only member of a new cluster, with the tables of the
    /// database at `from`. See [`seed`].
    ///
    /// # Errors
    /// As [`open`](Node::open) and [`seed`].
    pub fn open_seeded(dir: &Path, from: &Path, id: u64, addr: &str) -> Result<Node<C>> {
        fs::create_dir_all(dir).map_err(Error::files("creating the directory", dir))?;
        seed(dir, &LogFile::open(dir.join("log.mapleaf"))?, GROUP, from, id, addr)?;
        Node::open(dir)
    }
}

fn lost(dir: &Path, what: &str) -> Error {
    let dir = dir.display();
    Error::Refused(format!(
        "{dir}: {what}. Let the node leave the cluster, move the directory away, start the node and let it join again"
    ))
}
