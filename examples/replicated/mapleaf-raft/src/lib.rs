//! Mapleaf as the storage of openraft: a log store and a state machine, each in a Mapleaf file.
//!
//! ```text
//! log_file     one file with the logs of several Raft groups, and the thread that writes it
//! log_store    the log of one group: openraft's `RaftLogStorage`
//! unflushed    what an append has taken in, and the disk does not have yet
//! state        the file of the state machine: which one is current, and how another replaces it
//! machine      openraft's `RaftStateMachine`: applies entries, and remembers the last one
//! snapshot     a state on its way: a pinned read transaction, chunks with checksums, a new file
//! files        the files of a node, opened together
//! seed         a node that starts from the copy of a state
//! error        what can go wrong, and how openraft is told
//! ```
//!
//! What a node promises after a power loss, and why:
//!   RAFT-1  A vote that `save_vote` has returned is in the log file, because it returns after a
//!       durable commit.
//!   RAFT-2  An append that was acknowledged is in the log file: the callback runs after the
//!       durable commit that holds it. Commits are made in the order of the calls, so a later
//!       change is never there without an earlier one.
//!   RAFT-3  The applied state and `last_applied` are of the same commit. That commit may be older
//!       than the last one before the power loss (`Durability::Eventual`); openraft applies the
//!       entries after it again, which are in the log.
//!   RAFT-4  The log is purged only up to a state that is durable: a snapshot is reported to
//!       openraft after `Db::sync`, and openraft purges no further than its snapshot.
//!
//! The application implements [`Apply`]: what a request does to the tables of the state machine.

mod error;
mod files;
mod log_file;
mod log_store;
mod machine;
mod seed;
mod snapshot;
mod state;
#[cfg(feature = "testing")]
#[doc(hidden)]
#[allow(missing_docs, reason = "not part of the public interface")]
pub mod testing;
mod unflushed;

use openraft::{BasicNode, Entry, RaftTypeConfig};

pub use error::{Error, Result};
pub use files::Node;
pub use log_file::LogFile;
pub use log_store::LogStore;
pub use machine::{Apply, StateMachine};
pub use seed::seed;
pub use snapshot::{Incoming, Pinned, SnapshotData};
pub use state::{Applied, State};

/// The types that this storage asks of openraft: ids are numbers, nodes have an address, entries
/// are openraft's. The response of an entry without a request is the default one.
pub trait Config:
    RaftTypeConfig<NodeId = u64, Node = BasicNode, Entry = Entry<Self>, SnapshotData = SnapshotData, R: Default>
{
}

impl<C> Config for C where
    C: RaftTypeConfig<NodeId = u64, Node = BasicNode, Entry = Entry<C>, SnapshotData = SnapshotData, R: Default>
{
}
