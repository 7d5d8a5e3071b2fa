//! A new database that salvage or compaction fills. It is written under a temporary name and
//! renamed when it is complete (rule R11).
//!
//! Floor: db. Entries in key order are loaded in one transaction, which leaves no free page: each
//! further commit would copy the path to the last leaf and free the old pages. Pages are written
//! while the next ones are built, and write-back starts after each batch, so that little is left
//! for the commit. Entries in any other order change the same pages again and again; they are
//! committed in batches.
//!
//! Privacy: while the new file is being filled, only its owner can access it. Then it gets the
//! rights of its source, or fewer.
//!
//! Failure: errors of writing, which may name the temporary file. That file is removed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::catalog::{flags, TableRecord, TableSpec};
use crate::db::{Db, Options};
use crate::error::{best_effort, Error, ErrorKind, Result};
use crate::mapping::file;
use crate::page::value_set::Shape;
use crate::sys::fork;
use crate::sys::rights::FileRights;
use crate::tree::Tree;
use crate::txn::write::load::Load;
use crate::txn::write::multi::PairsLoad;
use crate::txn::write::txn::RunningTxn;

/// Maximum bytes and entries of a batch, before its last entry.
const BATCH_BYTES: usize = 32 << 20;
const BATCH_ENTRIES: usize = 100_000;

/// A table to write to: its name, and how it is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) key_codec: String,
    pub(crate) value_codec: String,
    pub(crate) flags: u32,
    pub(crate) key_order: String,
}

impl Target {
    /// A table of this name with codecs, flags and key order of a record.
    pub(crate) fn of(name: &str, record: &TableRecord) -> Target {
        Target {
            name: name.to_string(),
            key_codec: record.key_codec.clone(),
            value_codec: record.value_codec.clone(),
            flags: record.flags,
            key_order: record.key_order.clone(),
        }
    }

    /// A table of this name without types, which stores values like this.
    pub(crate) fn without_record(name: &str, shape: Shape) -> Target {
        let [key_codec, value_codec, key_order] = [const { String::new() }; 3];
        Target { name: name.to_string(), key_codec, value_codec, flags: flags::of_shape(shape), key_order }
    }

    fn spec(&self) -> TableSpec<'_> {
        let made = TableSpec::made(&self.key_codec, &self.value_codec);
        TableSpec { flags: self.flags, key_order: &self.key_order, ..made }
    }
}

/// A database that is being filled.
pub(crate) struct Copy {
    // Declared before `unfinished`, so that the database is closed before the file is removed.
    txn: Option<RunningTxn>,
    db: Db,
    unfinished: Unfinished,
    out: PathBuf,
    /// Rights of the source; `None` for a database in memory, which has none.
    rights: Option<FileRights>,
    /// The last table written to: its name, and its index in the transaction.
    current: Option<(String, usize)>,
    /// The load into that table, while entries come in key order.
    load: Option<Load>,
    /// The load into a multimap.
    pairs: Option<PairsLoad>,
    batch_bytes: usize,
    batch_entries: usize,
    /// Pages of the new file whose write-back was started.
    begun_pages: u64,
}

/// A temporary file, removed on drop, and the process that made it.
struct Unfinished(PathBuf, u32);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // The file is renamed by now, or incomplete. In a child after `fork` it is the parent's
        // file. If removing fails, it only costs space.
        if self.1 == fork::id() {
            best_effort(std::fs::remove_file(&self.0));
        }
    }
}

fn exists(out: &Path) -> Error {
    Error::usage(format!("{}: exists and stays as it is; choose another name for the new file", out.display()))
}

/// Whether both paths lead to the same file.
fn is_same_file(source: &Path, out: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    id(out).is_some_and(|out| id(source) == Some(out))
}

impl Copy {
    /// Creates a new database in the directory of `out`, which must not exist.
    pub(crate) fn begin(out: &Path, options: Options, rights: Option<FileRights>) -> Result<Copy> {
        let temporary = file::temporary_name(out).map_err(|e| Error::io("finding a temporary name", out, e))?;
        let unfinished = Unfinished(temporary, fork::id());
        let options = if rights.is_some() { options.mode(0o600) } else { options };
        // No other process knows the file yet, and no lock file stays beside it.
        let db = options.exclusive(true).open(&unfinished.0)?;
        let out = out.to_path_buf();
        Ok(Copy {
            txn: None,
            db,
            unfinished,
            out,
            rights,
            current: None,
            load: None,
            pairs: None,
            batch_bytes: 0,
            batch_entries: 0,
            begun_pages: 0,
        })
    }

    /// An error if `out` exists, even as a dangling link.
    pub(crate) fn refuse_existing(source: Option<&Path>, out: &Path) -> Result<()> {
        if source.is_some_and(|source| is_same_file(source, out)) {
            let what = format!("{}: is the database itself; choose another name for the new file", out.display());
            return Err(Error::usage(what));
        }
        match std::fs::symlink_metadata(out) {
            Ok(_) => Err(exists(out)),
            Err(_) => Ok(()),
        }
    }

    fn open(&mut self, target: &Target) -> Result<(&mut RunningTxn, usize)> {
        let is_open = self.current.as_ref().is_some_and(|(name, _)| *name == target.name);
        if !is_open {
            self.end_load()?;
        }
        let txn = match &mut self.txn {
            Some(txn) => txn,
            none => none.insert(self.db.begin_write()?.into_running()),
        };
        let at = match &self.current {
            Some((_, at)) if is_open => *at,
            _ => {
                let at = txn.open_table(&target.name, target.spec())?;
                self.current = Some((target.name.clone(), at));
                at
            }
        };
        Ok((txn, at))
    }

    /// Creates a table if it does not exist yet.
    pub(crate) fn make_table(&mut self, target: &Target) -> Result<()> {
        self.open(target).map(drop)
    }

    /// Completes the running load: its entries become part of the table.
    fn end_load(&mut self) -> Result<()> {
        let (load, pairs) = (self.load.take(), self.pairs.take());
        let Some(txn) = &mut self.txn else { return Ok(()) };
        if let Some(mut load) = load {
            txn.end_load(&mut load)?;
        }
        match pairs {
            Some(mut pairs) => txn.end_pairs(&mut pairs).map(drop),
            None => Ok(()),
        }
    }

    /// Stores an entry with a key above all others of its table, or a pair above all others of a
    /// multimap; `Usage` if it is not. `false`: the entry is too large for any table.
    pub(crate) fn append(&mut self, target: &Target, key: &[u8], value: &[u8]) -> Result<bool> {
        self.open(target)?;
        let (Some(txn), Some((_, at))) = (&mut self.txn, &self.current) else { return Ok(false) };
        if txn.root(*at).shape.is_multi() {
            let pairs = match &mut self.pairs {
                Some(pairs) => pairs,
                none => none.insert(txn.begin_pairs(*at)?),
            };
            return match txn.load_pair(pairs, key, value) {
                Ok(()) if pairs.is_in_order() => self.begin_write_back().map(|()| true),
                Ok(()) => Err(Error::usage("this pair is not above the last one")),
                Err(e) if e.kind() == ErrorKind::TooLarge => Ok(false),
                Err(e) => Err(e),
            };
        }
        let load = match &mut self.load {
            Some(load) => load,
            none => none.insert(txn.begin_load(*at, 0)?),
        };
        match txn.load(load, key, value) {
            Ok(()) if load.is_in_order() => self.begin_write_back().map(|()| true),
            Ok(()) => Err(Error::usage("this key is not above the last one")),
            Err(e) if e.kind() == ErrorKind::TooLarge => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Stores an entry unless the table has its key; in a multimap, a pair unless the table has it.
    /// Returns whether it was stored.
    pub(crate) fn add(&mut self, target: &Target, key: &[u8], value: &[u8]) -> Result<bool> {
        self.end_load()?;
        let (txn, at) = self.open(target)?;
        if txn.root(at).shape.is_multi() {
            return match txn.insert_value(at, key, value) {
                Ok(is_new) => self.count(key.len() + value.len()).map(|()| is_new),
                Err(e) if matches!(e.kind(), ErrorKind::TooLarge | ErrorKind::Usage) => Ok(false),
                Err(e) => Err(e),
            };
        }
        if Tree::new(txn.pages(), txn.root(at)).get(key)?.is_some() {
            return Ok(false);
        }
        match txn.put(at, key, value, None) {
            Ok(_) => self.count(key.len() + value.len()).map(|()| true),
            Err(e) if e.kind() == ErrorKind::TooLarge => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Starts the write-back of the pages written since the last time, once they are a batch.
    fn begin_write_back(&mut self) -> Result<()> {
        match &self.txn {
            Some(txn) => txn.begin_write_back(&mut self.begun_pages, BATCH_BYTES as u64),
            None => Ok(()),
        }
    }

    /// Counts an entry stored by [`Copy::add`], and commits when the batch is full.
    fn count(&mut self, bytes: usize) -> Result<()> {
        self.batch_bytes += bytes;
        self.batch_entries += 1;
        if self.batch_bytes < BATCH_BYTES && self.batch_entries < BATCH_ENTRIES {
            return Ok(());
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<()> {
        self.end_load()?;
        (self.current, self.batch_bytes, self.batch_entries) = (None, 0, 0);
        self.txn.take().map_or(Ok(()), RunningTxn::commit)
    }

    /// Applies the operations of a record of a commit log, in a transaction of its own.
    pub(crate) fn apply(&mut self, body: &[u8]) -> Result<()> {
        self.commit()?;
        let mut txn = self.db.begin_write()?.into_running();
        txn.apply(body)?;
        txn.commit()
    }

    /// Commits the rest, closes the file, and renames it to its final name.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.commit()?;
        let Copy { txn, db, unfinished, out, rights, .. } = self;
        drop((txn, db));
        let failed = |op| {
            let out = &out;
            move |e| Error::io(op, out, e)
        };
        let file = file::open(&unfinished.0, false).map_err(failed("opening the new file"))?;
        if let Some(rights) = rights {
            rights.give_to(&file).map_err(failed("giving the new file the mode of its source"))?;
        }
        file::sync(&file).map_err(failed("flushing the new file"))?;
        let renamed = file::rename_new(&file, &unfinished.0, &out).map_err(failed("giving the new file its name"))?;
        renamed.then_some(()).ok_or_else(|| exists(&out))
    }
}
