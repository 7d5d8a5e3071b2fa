//! What a store must be able to do to be measured.
//!
//! `Store` is object-safe and coarse: one call is a whole loop, written in each engine's own file against concrete
//! types, so that no virtual call stands between two lookups. All engines run with equal durability: when a write
//! returns, its transaction has been flushed to the device.

#[cfg(feature = "canopydb")]
mod canopydb;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "libmdbx")]
mod libmdbx;
mod lmdb;
pub(crate) mod lmdb_renew;
#[cfg(feature = "mapleaf")]
mod mapleaf;
mod redb;
#[cfg(feature = "sqlite")]
mod sqlite;

use crate::cli::Measure;
use crate::data::{Pairs, Probes, Seeks, Tally};
use crate::workload::Workload;
use crate::Res;
use std::path::Path;

/// In what order the keys of a load come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Any,
    /// In any order, and an engine may use a call that reorders them.
    Batch,
    /// Ascending, all behind the last key: an engine uses the call it has for that.
    Append,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Reverse,
}

/// An open database with one table of bytes.
pub(crate) trait Store: Send + Sync {
    /// Stores all pairs in one durable transaction.
    fn put_all(&mut self, pairs: &mut Pairs<'_>, order: Order) -> Res<()>;

    /// Stores all pairs, each in a durable transaction of its own.
    fn put_each(&self, pairs: &mut Pairs<'_>) -> Res<()>;

    /// Removes all keys in one durable transaction.
    fn remove_all(&mut self, keys: &mut Pairs<'_>) -> Res<()>;

    /// Looks all probes up in one read transaction and verifies every value.
    fn get_all(&self, probes: &Probes) -> Res<()>;

    /// The same, each probe in a read transaction of its own.
    fn get_each(&self, probes: &Probes) -> Res<()>;

    /// As `get_all`, with the call that an engine has for `batch` keys at once.
    fn get_batches(&self, probes: &Probes, _batch: usize) -> Res<()> {
        self.get_all(probes)
    }

    /// Seeks to each key and reads on from it, in one read transaction.
    fn seek_all(&self, seeks: &Seeks) -> Res<()>;

    /// Reads everything in order of the keys.
    fn scan(&self, direction: Direction) -> Res<Tally>;

    /// Carries out a list of operations, each a transaction of its own.
    fn drive(&self, workload: &Workload) -> Res<()>;

    /// Pages in the file that hold nothing, where the engine can tell.
    fn free_pages(&self) -> Res<Option<u64>>;

    /// Closes the database and leaves a compacted one at `to`; false where the engine has no such call.
    fn compact(self: Box<Self>, _path: &Path, _to: &Path) -> Res<bool> {
        Ok(false)
    }

    /// Stores pairs, each in a transaction of its own; `see` is called at each step.
    fn put_each_seen(&self, _pairs: &mut Pairs<'_>, _see: &mut dyn FnMut(Step) -> Res<()>) -> Res<()> {
        Err("this engine has no transactions to look into".into())
    }

    /// Begins a read transaction of the state of now, which lives beside the store.
    fn hold(&self) -> Res<Box<dyn Held>> {
        Err("this engine has no transaction to hold".into())
    }

    /// Makes at least so many free extents that are one page long, in the file as it is.
    fn scatter_free(&mut self, _extents: u64) -> Res<()> {
        Err("this engine has no way to scatter free pages".into())
    }

    /// Closes the file and everything that belongs to it.
    fn close(self: Box<Self>) -> Res<()>;
}

/// Where a transaction of `put_each_seen` stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// About to begin.
    Call,
    /// Has begun, so that this thread is the writer.
    Begun,
    /// About to commit.
    Commit,
    /// Committed.
    Done,
}

/// A read transaction that stays.
pub(crate) trait Held {
    /// Looks all probes up in its state and verifies every value.
    fn get_all(&self, probes: &Probes) -> Res<()>;
}

/// What a measurement changes in an engine's settings.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tuning {
    /// Size of the engine's own cache, for those that have one; their default, or what README.md says, if none.
    pub(crate) cache_bytes: Option<usize>,
    /// Commits do not wait for the disk, and a power loss may take them.
    pub(crate) eventual: bool,
    /// The process has the file alone, where an engine knows that.
    pub(crate) exclusive: bool,
}

/// Which measurements an engine takes part in.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// These do not apply to it. (A page that was changed cannot be told in a store that writes to a log first.)
    Without(&'static [Measure]),
    /// In the others it would be another engine once more.
    Only(&'static [Measure]),
}

const EVERYTHING: Part = Part::Without(&[]);
const DURABLE: Part = Part::Without(&[Measure::Eventual]);

/// A kind of store that can be opened.
#[derive(Clone, Copy)]
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Part of a run when nobody chooses.
    pub(crate) default: bool,
    pub(crate) part: Part,
    opener: fn(&Path, Tuning) -> Res<Box<dyn Store>>,
}

impl Engine {
    /// Whether its figure for a measurement would say something.
    pub(crate) fn takes(&self, measure: Measure) -> bool {
        match self.part {
            Part::Without(absent) => !absent.contains(&measure),
            Part::Only(present) => present.contains(&measure),
        }
    }

    /// Whether a figure says that it has none for this engine.
    pub(crate) fn is_missed(&self, measure: Measure) -> bool {
        matches!(self.part, Part::Without(_)) && !self.takes(measure)
    }

    /// Opens the file, or makes it.
    pub(crate) fn open(&self, path: &Path) -> Res<Box<dyn Store>> {
        self.open_tuned(path, Tuning::default())
    }

    pub(crate) fn open_tuned(&self, path: &Path, tuning: Tuning) -> Res<Box<dyn Store>> {
        (self.opener)(path, tuning).map_err(|e| format!("{}: {}: {e}", self.name, path.display()).into())
    }
}

/// The engine that ratios are taken to.
pub(crate) const BASELINE: &str = "lmdb";

/// Every engine that this build knows, in the order in which they take turns.
pub(crate) fn all() -> Vec<Engine> {
    vec![
        Engine {
            name: BASELINE,
            about: "LMDB through heed, defaults, unnamed database",
            default: true,
            part: EVERYTHING,
            opener: lmdb::open_default,
        },
        #[cfg(feature = "mapleaf")]
        Engine {
            name: "mapleaf",
            about: "this repository, defaults",
            default: true,
            part: EVERYTHING,
            opener: mapleaf::open,
        },
        #[cfg(feature = "mapleaf")]
        Engine {
            name: "mapleaf-load",
            about: "this repository, many entries by `load` where the other has a loop of `insert` or `append`",
            default: true,
            part: Part::Only(&[Measure::Load, Measure::Append, Measure::Size, Measure::Memory]),
            opener: mapleaf::open_loading,
        },
        Engine {
            name: "lmdb-writemap",
            about: "LMDB with MDB_WRITEMAP (its file is as long as its map, and sparse)",
            default: true,
            part: DURABLE,
            opener: lmdb::open_write_map,
        },
        Engine {
            name: "lmdb-nordahead",
            about: "LMDB with MDB_NORDAHEAD: the kernel reads nothing ahead",
            default: true,
            part: Part::Only(&[
                Measure::ColdGet,
                Measure::ColdMulti,
                Measure::ColdScan,
                Measure::ColdSmall,
                Measure::FioRandom,
                Measure::FioSequential,
            ]),
            opener: lmdb::open_no_read_ahead,
        },
        #[cfg(feature = "libmdbx")]
        Engine {
            name: "libmdbx",
            about: "libmdbx through its C interface, durable default mode",
            default: false,
            part: DURABLE,
            opener: libmdbx::open,
        },
        Engine {
            name: "redb",
            about: "redb, defaults (Durability::Immediate, 1 GiB cache)",
            default: true,
            part: DURABLE,
            opener: redb::open,
        },
        #[cfg(feature = "fjall")]
        Engine {
            name: "fjall",
            about: "fjall, SyncAll with each commit, 1 GiB cache",
            default: false,
            part: Part::Without(&[Measure::Device, Measure::ColdFolios, Measure::FreeList, Measure::Eventual]),
            opener: fjall::open,
        },
        #[cfg(feature = "canopydb")]
        Engine {
            name: "canopydb",
            about: "canopydb, commits wait for the flush of the log, 1 GiB cache",
            default: false,
            part: Part::Without(&[Measure::Device, Measure::ColdFolios, Measure::Eventual]),
            opener: canopydb::open,
        },
        #[cfg(feature = "sqlite")]
        Engine {
            name: "sqlite",
            about: "SQLite, WAL, synchronous=FULL, WITHOUT ROWID, mapped reads",
            default: false,
            part: Part::Without(&[Measure::Device, Measure::ColdFolios, Measure::Eventual]),
            opener: sqlite::open,
        },
        Engine {
            name: "lmdb-named",
            about: "LMDB with a named database: one more tree, as stores with tables have",
            default: false,
            part: DURABLE,
            opener: lmdb::open_named,
        },
    ]
}
