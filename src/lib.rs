//! Mapleaf is an embedded, persistent, ordered key-value store: one file, mapped into memory, with
//! a B+tree in it.
//!
//! Readers get `&[u8]` and `&str` straight out of the mapping, in any number of threads, and never
//! wait; one writer at a time changes copies of pages, and a commit makes them durable. There is no
//! map size to choose.
//!
//! ```
//! use mapleaf::{Db, Table};
//!
//! const USERS: Table<&str, u64> = Table::new("users");
//!
//! let dir = tempfile::tempdir()?;
//! let db = Db::open(dir.path().join("app.mapleaf"))?; // opens, or makes the file where there is none
//!
//! let mut txn = db.begin_write()?;
//! txn.table(USERS)?.insert("ada", 1)?;
//! txn.table(USERS)?.insert("grace", 2)?;
//! txn.commit()?; // durable when it returns; dropping the transaction instead changes nothing
//!
//! let txn = db.begin_read()?; // an unchanging state: Clone, Send, Sync, no lifetime
//! let users = txn.table(USERS)?;
//! assert_eq!(users.get("ada")?, Some(1));
//! for item in users.range("a".."h")? {
//!     let (name, number) = item?;
//!     println!("{name} is number {number}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Promises
//!
//! - When [`WriteTxn::commit`] returns `Ok`, the transaction survives a power loss. A crash at any
//!   moment leaves the state of some commit, none older than the last one acknowledged.
//! - A [`ReadTxn`] sees one state for as long as it lives, and neither waits for the writer nor
//!   makes it wait.
//! - Damage is an [`Error`] that names the page, never a panic: every page has a checksum, and so
//!   has every pointer to it.
//! - A full disk is an error of the call that needed room ([`ErrorKind::DiskFull`]); the database
//!   goes on.
//! - Using it needs no `unsafe`. Why `open` may be a safe function is argued in
//!   `docs/soundness.md`.
//!
//! # When a file is damaged
//!
//! A file that was cut short is refused with [`ErrorKind::Truncated`], which says how many bytes
//! are missing and whether an older state is whole; damage that is met while reading is
//! [`ErrorKind::Corrupt`]. [`Db::check`] lists what is wrong. [`Db::recover`] (or
//! [`Options::recover`]) goes back to the newest state that is whole, and [`Db::recover_preview`]
//! says before what that gives up. Where no state is whole, [`Db::salvage`] copies every entry that
//! can be read to a new file, and reports what is lost.
//!
//! # Caveats
//!
//! - **One process** may have a file open for writing, or any number may have it open
//!   read-only; the others get [`ErrorKind::Locked`] at once. Opening the same file again in one
//!   process gives the same database.
//! - **Read transactions that never end** keep the pages that they see, and the file grows
//!   meanwhile.
//! - **One write transaction at a time.** A thread that begins a second one while it has the first
//!   waits for itself.
//! - **Each commit flushes twice.** Put what belongs together into one transaction.
//! - **Programs that do not use Mapleaf** and overwrite the file while it is open can change a
//!   value that you have borrowed. One that cuts the file short makes calls answer with
//!   [`ErrorKind::Fault`], and what you have borrowed read as zeros ([`Options::fault_guard`]).
//! - **Not after `fork`**: in a child, every call through what it inherited is an error. It opens
//!   its databases afresh.
//! - **Stacks**: a thread that uses a database needs 64 KiB, besides what codecs of your own and
//!   progress callbacks take.
//! - **Local file systems** only, on **64-bit Linux** only: growing under readers needs its
//!   `mremap`.
//! - Keys have at most a quarter of a page less 24 bytes: 1,000 bytes with pages of 4 KiB.
//!
//! # Where to go on
//!
//! | | |
//! |---|---|
//! | [`Db`], [`Options`] | open, begin transactions, statistics, check, compact, recover, salvage |
//! | [`ReadTxn`], [`WriteTxn`] | one state; changes to the newest |
//! | [`Table`], [`ReadTable`], [`TableMut`] | typed tables: `get`, `insert`, `range`, `prefix`, `append` |
//! | [`codec`] | the types of keys and values, and an example of a [codec of your own](codec#codecs-of-your-own) |
//! | [`Error`], [`ErrorKind`] | what can go wrong, and the remedy |
//! | [`inspect`] | meta pages and pages as numbers, for tools |
//!
//! In the repository: `docs/design.md` says how it works and which rules hold, `docs/format.md`
//! what the bytes of the file are, `docs/soundness.md` why it is sound. The command line tool is
//! `kvctl`, in `bin/`.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "Mapleaf runs on 64-bit Linux alone: files grow by mremap over reserved address space, which takes Linux, and the \
     reservation is larger than 32 bits can address"
);

mod catalog;
mod db;
mod error;
mod hooks;
mod ids;
mod limits;
mod mapping;
mod page;
mod pager;
mod sys;
mod table;
#[cfg(feature = "testing")]
#[doc(hidden)]
#[allow(missing_docs, reason = "not part of the public interface")]
pub mod testing;
mod tree;
mod txn;

pub use crate::txn::read::snapshot::ReadTxn;
pub use crate::txn::write::txn::WriteTxn;
pub use db::{
    inspect, CheckReport, CompactReport, Db, Finding, Options, RecoverReport, SalvageReport, SalvagedTable, Stats,
    TableLoss,
};
pub use error::{Error, ErrorKind, Result};
pub use ids::PageId;
pub use mapping::ReadAhead;
pub use table::{
    codec, EntriesOwned, Loader, OwnedValue, Range, RangeOwned, ReadTable, Reserved, Table, TableInfo, TableMut,
};

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
