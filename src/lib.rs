//! Mapleaf: an embedded, persistent, ordered key-value store on a memory-mapped file.
#![allow(dead_code)]

mod catalog;
mod db;
mod error;
mod ids;
mod limits;
mod mapping;
mod page;
mod pager;
mod table;
#[cfg(feature = "testing")]
#[doc(hidden)]
#[allow(missing_docs, reason = "not part of the public interface")]
pub mod testing;
mod tree;
mod txn;

pub use db::{inspect, CheckReport, Db, Finding, Options, Stats};
pub use error::{Error, ErrorKind, Result};
pub use ids::PageId;
pub use table::{codec, OwnedValue, Range, RangeOwned, ReadTable, Table, TableInfo, TableMut};
pub use txn::snapshot::ReadTxn;
pub use txn::write::WriteTxn;

/// The example of the README is compiled where it stands, and run in a directory of its own.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = "```"]
#[doc = "mod quickstart {"]
#[doc = include_str!("../examples/quickstart.rs")]
#[doc = "    pub fn run() {"]
#[doc = "        let directory = tempfile::tempdir().expect(\"a directory\");"]
#[doc = "        std::env::set_current_dir(&directory).expect(\"to go there\");"]
#[doc = "        main().expect(\"the example works\");"]
#[doc = "    }"]
#[doc = "}"]
#[doc = "fn main() { quickstart::run() }"]
#[doc = "```"]
struct Readme;
