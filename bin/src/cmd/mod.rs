//! One file for each verb. clap fills the verb's `Args`; `Args::run` does the work. The arguments
//! that several verbs share are in `args`.

pub(crate) mod args;
pub(crate) mod bench;
pub(crate) mod cas;
pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod del;
pub(crate) mod dump;
pub(crate) mod get;
pub(crate) mod incr;
pub(crate) mod load;
pub(crate) mod page;
pub(crate) mod put;
pub(crate) mod readers;
pub(crate) mod recover;
pub(crate) mod salvage;
pub(crate) mod scan;
pub(crate) mod snapshot;
pub(crate) mod stat;
pub(crate) mod tables;
pub(crate) mod torture;
pub(crate) mod txn;
pub(crate) mod warm;
