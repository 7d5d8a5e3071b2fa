//! Transactions: snapshots, the writer, commit, checkpoint and recovery.
//!
//! Floor: txn. The only floor that knows time and other actors: which states are alive, which
//! thread may write, what is durable.
//!
//! ```text
//! open   opens and creates files: locks, the newest valid meta page, recovery
//! read   read transactions, reader slots, and what these keep between transactions
//! write  write transactions, the writer lock, commit and checkpoint
//! free   the persistent free space, and which of its pages may be used again
//! log    the commit log: records, group commit, replay
//! env    one open database, which all its handles share; makes the writer, closes
//! core   the part of it that flushes and checkpoints need: mapping, records, locks, poison
//! live   latest, published, durable ..: the records between readers, writer, leader and checkpoint
//! locks  the locks by name, and their order
//! state  one state of the database: what a meta page says of it
//! ```
//!
//! Where to find what:
//!
//! ```text
//! how a read begins                  ReadPool::begin      read/snapshot.rs
//! how a write begins                 WriteTxn::try_begin  write/txn.rs
//! the steps of a commit              WriteTxn::commit     write/commit.rs
//! the order of its flushes           Core::commit_state   write/checkpoint.rs
//! the flush that commits share       Core::lead           log/lead.rs
//! which states must stay readable    Env::live_states     env.rs
//! whether a page may be used again   LiveStates::reach    ../pager/write/free_space.rs
//! its callers: pages of the list,    FreeCache::begin     free/free_tree.rs
//!     pages of the tree              FreeCache::reclaim   free/free_tree.rs
//! which state a file is opened with  find_state           open/mod.rs
//! ```
//!
//! `docs/concurrency.md` has the argument why these steps are safe beside each other.

pub(crate) mod core;
pub(crate) mod env;
pub(crate) mod free;
pub(crate) mod live;
pub(crate) mod locks;
pub(crate) mod log;
pub(crate) mod open;
pub(crate) mod read;
pub(crate) mod state;
pub(crate) mod write;
