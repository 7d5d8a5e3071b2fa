//! Real processes that share a file: each test starts some, drives them, kills them, and compares
//! what they read.
//!
//! ```text
//! member   a database in a child process, driven by commands of the test
//! memory   databases in memory that processes share
//! forked   the same with children after `fork`
//! broker   gives their descriptors to processes
//! basic    joining, reading, writing in turns, growth, snapshots, closing
//! stress   processes that are killed and restarted all the time
//! worker   the children of the stress test
//! death    a process that is killed at each event of the test seam
//! faults   a file that is cut, flushes that fail, a lock file that is damaged
//! places   other users, permissions, links, renamed and copied files, `fork`
//! mounts   namespaces, read-only mounts, a file without its directory, full file systems
//! readers  the list of read transactions of all processes
//! kinds    tables of all kinds that processes change in turns
//! snapshots  named snapshots that one process makes while another one writes
//! exclusive  processes that have a file exclusively
//! ```
//!
//! Invariants: the test itself opens no database, so only a child can hang. Each child ends itself
//! by a signal when one step takes a minute, and when any of its threads panics; the test fails
//! then.
//!
//! Failure: a wrong answer, or a child that has ended, fails the test with the command.

mod basic;
pub(crate) mod broker;
mod death;
mod exclusive;
mod faults;
mod forked;
mod kinds;
pub(crate) mod member;
mod memory;
mod mounts;
mod places;
mod readers;
mod snapshots;
mod stress;
mod worker;
