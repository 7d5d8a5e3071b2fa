//! Mapleaf is an embedded, persistent, ordered key-value store: one file, mapped into memory, with
//! a B+tree in it.
//!
//! Readers get `&[u8]` and `&str` straight out of the mapping, in any number of threads and
//! processes, and never wait; one writer at a time changes copies of pages, and a commit makes them
//! durable. No map size needs to be chosen.
//!
//! ```
//! use mapleaf::{Db, Table};
//!
//! const USERS: Table<&str, u64> = Table::new("users");
//!
//! let dir = tempfile::tempdir()?;
//! let db = Db::open(dir.path().join("app.mapleaf"))?; // opens the file, or creates it
//!
//! let txn = db.begin_write()?;
//! txn.table(USERS)?.insert("ada", 1)?;
//! txn.table(USERS)?.insert("grace", 2)?;
//! txn.commit()?; // durable when it returns; dropping the transaction instead changes nothing
//!
//! let txn = db.begin_read()?; // a snapshot: Clone, Send, Sync, no lifetime
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
//! - When [`WriteTxn::commit`] returns `Ok`, the transaction survives a power loss, at the default
//!   level ([`Durability`]). A crash at any moment leaves the state of a commit that is not older
//!   than the last `Immediate` one acknowledged.
//! - A [`ReadTxn`] sees one state for as long as it lives. Readers never wait for the writer, nor
//!   the writer for readers.
//! - Damage is an [`Error`] that names the page, never a panic: every page has a checksum, and
//!   every pointer to a page repeats it.
//! - When the disk is full, the call that needed room fails with [`ErrorKind::DiskFull`]; the
//!   database stays usable.
//! - Using it needs no `unsafe`. Why `open` may be a safe function is argued in
//!   `docs/soundness.md`.
//!
//! # When a file is damaged
//!
//! Opening a file that was cut short fails with [`ErrorKind::Truncated`], which says how many bytes
//! are missing and whether an older state is whole; reading damaged pages fails with
//! [`ErrorKind::Corrupt`]. [`Db::check`] lists all damage. [`Db::recover`] (or
//! [`Options::recover`]) goes back to the newest state that is whole; [`Db::recover_preview`] shows
//! in advance what would be lost. If no state is whole, [`Db::salvage`] copies every readable entry
//! to a new file and reports what is lost.
//!
//! # Caveats
//!
//! - **Several processes** share a file by a lock file beside it, `<name>-lock`. Each of them needs
//!   permission to write to both, also to read; others get [`ErrorKind::Locked`] while one of
//!   them has the file open. [`Options::exclusive`] keeps other processes out. Opening the same
//!   file again in one process gives the same database.
//! - **Read transactions that never end** keep all pages of their state from being reused, so the
//!   file grows.
//! - **One write transaction at a time.** A thread that begins a second one before it ends the
//!   first deadlocks.
//! - **Each durable commit waits for the disk.** A small one flushes a few pages of the commit log,
//!   and commits of several threads share a flush. A large one flushes all its pages, then a meta
//!   page. To wait less, batch related changes in one transaction, use [`WriteTxn::commit_async`],
//!   or commit at the level [`Durability::Eventual`].
//! - **Programs that do not use Mapleaf** and overwrite the file while it is open can change a
//!   value that you have borrowed. If one truncates the file, calls return [`ErrorKind::Fault`],
//!   and borrowed values read as zeros ([`Options::fault_guard`]).
//! - **Not after `fork`**: in a child process, every call through an inherited handle is an error.
//!   The child must open its databases again, or attach to those in shared memory ([`Db::attach`]).
//! - **Stacks**: a thread that uses a database needs 64 KiB of stack, besides what your own codecs
//!   and progress callbacks use.
//! - **Local file systems** only, on **64-bit Linux** only: growing under readers needs its
//!   `mremap`.
//! - Keys have at most 65,536 bytes. One of more than a quarter page minus 24 bytes (1,000 bytes
//!   with pages of 4 KiB) takes at least a page of its own.
//!
//! # Where to go on
//!
//! | | |
//! |---|---|
//! | [`Db`], [`Options`] | open, begin transactions, statistics, check, compact, recover, salvage |
//! | [`ReadTxn`], [`WriteTxn`] | a snapshot; changes to the latest state |
//! | [`Options::shared_memory`], [`Db::share`], [`Db::attach`] | a database in memory that several processes use |
//! | [`WriteTxn::begin_nested`], [`WriteTxn::savepoint`] | going back inside a write transaction |
//! | [`Durability`], [`PendingCommit`], [`Db::sync`], [`Db::checkpoint`] | what a commit survives, and when |
//! | [`Table`], [`ReadTable`], [`TableMut`], [`TableRef`] | typed tables: `get`, `insert`, `range`, `prefix`, `append` |
//! | [`ReadTable::split_points`], [`ReadTable::estimate_range`], [`ReadTable::sample`] | parallel scans, progress, random entries |
//! | [`ReadableTable`] | the trait of all table handles, for functions that read any of them |
//! | [`codec`] | the types of keys and values, and an example of a [codec of your own](codec#codecs-of-your-own) |
//! | [`Error`], [`ErrorKind`] | what can go wrong, and the remedy |
//! | [`inspect`] | decoded meta pages and page headers, for tools |
//!
//! In the repository: `docs/design.md` explains the design and its rules, `docs/format.md` the file
//! format, `docs/soundness.md` why the unsafe code is sound. The command line tool is `kvctl`, in
//! `bin/`.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "Mapleaf runs only on 64-bit Linux: files grow by mremap over reserved address space, which takes Linux, and the \
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
pub use crate::txn::write::commit::{Durability, PendingCommit};
pub use crate::txn::write::savepoints::{NestedTxn, Savepoint};
pub use crate::txn::write::shared::WriteTxn;
pub use db::{
    inspect, CheckReport, CompactReport, Db, Finding, MemberInfo, Options, PageCache, Pin, PinnedBy, Presence,
    ReaderInfo, RecoverReport, SalvageReport, SalvagedTable, SharedMemory, SnapshotInfo, Space, Stats, TableLoss,
    TreeSpace,
};
pub use error::{Error, ErrorKind, Result};
pub use ids::PageId;
pub use limits::MAX_KEY_BYTES;
pub use mapping::ReadAhead;
pub use table::{
    codec, CopiedPairs, CopiedValues, CursorMut, EntriesOwned, Entry, Estimate, ExtractIf, KeyOrder, Loader,
    MultiCursorMut, MultiExtractIf, MultiLoader, MultiPosition, MultiRange, MultiTable, MultiTableMut, MultiTableRef,
    OccupiedEntry, OwnedValue, PairsOwned, Part, Position, Range, RangeOwned, ReadMultiTable, ReadTable,
    ReadableMultiTable, ReadableTable, Reserved, SplitPoints, Table, TableInfo, TableMut, TableRef, VacantEntry,
    Values, ValuesOwned,
};

/// Compiles the example of the README, and runs it in a temporary directory.
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
