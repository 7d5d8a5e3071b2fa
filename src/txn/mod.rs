//! Transactions: snapshots, the writer, commit, checkpoint and recovery.
//!
//! Floor: txn. The only floor that knows of other threads and of the disk: which states are live,
//! which thread may write, which state is durable.
//!
//! ```text
//! open   opens and creates files: locks, the newest valid meta page, recovery
//! read   read transactions, reader slots, and what these keep between transactions
//! write  write transactions, the writer lock, commit and checkpoint
//! free   the persistent free space, and which of its pages may be used again
//! log    the commit log: records, group commit, replay
//! processes  several processes with one database: locks, the lock file, coming in and leaving
//! env    one open database, which all its handles share; makes the writer, closes
//! core   the part of env that flushes and checkpoints need: mapping, live records, locks, poison
//! live   the live records: words that readers, writer, leader and checkpoint share
//! named  named snapshots: states that are kept under a name
//! locks  the locks by name, and their order
//! state  one state of the database, as a meta page describes it
//! ```
//!
//! Where to look first:
//!
//! ```text
//! how a read begins                  ReadPool::begin      read/snapshot.rs
//! how a write begins                 RunningTxn::try_begin  write/txn.rs
//! the steps of a commit              RunningTxn::complete   write/commit.rs
//! the flushes of a commit:
//!     by log, shared with others     Core::flush_records  log/lead.rs
//!     by checkpoint                  Core::commit_state   write/checkpoint.rs
//! which states must stay readable    Env::live_states     env.rs
//! whether a page may be used again   LiveStates::reach    ../pager/write/live_states.rs
//! which functions ask LiveStates:
//!     for extents of the free list   FreeCache::begin     free/free_tree.rs
//!     for extents of the tree        FreeCache::reclaim   free/free_tree.rs
//! the state that a file opens with   find_state           open/mod.rs
//! ```
//!
//! `docs/concurrency.md` argues why these steps are safe beside each other.

pub(crate) mod core;
pub(crate) mod env;
pub(crate) mod free;
pub(crate) mod live;
pub(crate) mod locks;
pub(crate) mod log;
pub(crate) mod named;
pub(crate) mod open;
pub(crate) mod processes;
pub(crate) mod read;
pub(crate) mod state;
pub(crate) mod write;
