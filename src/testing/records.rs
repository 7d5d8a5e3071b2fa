//! What a search over schedules sees of an open database: its live records, locks and reader slots.
//!
//! Floor: testing. The search decides by them which thread can go on, and which states it knows.
//!
//! Failure: none.

use std::sync::Arc;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::hooks::{set_next_hooks, Hooks};
use crate::mapping::{file, MapOptions, Mapping};
use crate::txn::env::{Env, EnvParts};
use crate::txn::live::Live;
use crate::txn::open;
use crate::txn::processes::presence::{enter, file_id, Wanted};

/// The live records of a database, at one moment in which no thread changes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Records {
    /// Number of the latest state.
    pub latest: u64,
    /// Number of the newest transaction that is known to be durable.
    pub durable: u64,
    /// Number of the state that new readers see.
    pub published: u64,
    /// Position in the log before which no record begins.
    pub closed: u64,
    /// Position in the log before which it is durable.
    pub flushed: u64,
    /// The transaction whose record is being appended, or 0.
    pub appending: u64,
    /// The newest epoch with an orphan record.
    pub broken: u64,
    /// Number of the state of the durable meta page, and the position where replay begins there.
    pub durable_meta: (u64, u64),
    /// The pinned state.
    pub pinned: Option<u64>,
    /// The state of the meta page in doubt.
    pub in_doubt: Option<u64>,
    /// The newest transaction up to the published one that had to be durable; `None`: the ring has
    /// lost the state.
    pub last_immediate: Option<u64>,
    /// Which locks are held: writer, checkpoint, flush.
    pub held: [bool; 3],
    /// First page and number of pages of the commit log.
    pub log: (u64, u64),
    /// Txns in reader slots.
    pub snapshots: Vec<u64>,
    /// Whether a flush has failed.
    pub poisoned: bool,
    /// A hash of all that a thread can read in the records.
    pub hash: u64,
}

/// The records of a database now.
pub fn records(db: &Db) -> Records {
    let env = db.env();
    let live = &env.live;
    let checkpoint = live.checkpoint();
    let mut snapshots: Vec<u64> = env.readers.snapshots().0.iter().map(|txn| txn.0).collect();
    snapshots.sort_unstable();
    let published = live.published_txn();
    Records {
        latest: live.latest_txn().0,
        durable: live.durable_txn().0,
        published: published.0,
        closed: live.closed(),
        flushed: live.flushed(),
        appending: live.appending().0,
        broken: live.broken(),
        durable_meta: (checkpoint.durable_meta.txn.0, checkpoint.durable_meta.log_start),
        pinned: checkpoint.pinned.map(|txn| txn.0),
        in_doubt: checkpoint.in_doubt.map(|(_, state)| state.txn.0),
        last_immediate: live.state(published).map(|state| state.last_immediate.0),
        held: [env.writer_lock.is_held(), !env.checkpoint_lock.is_free(), !env.flush_lock.is_free()],
        log: live.state(live.latest_txn()).map_or((0, 0), |state| (state.log.first.0, state.log.pages)),
        snapshots,
        poisoned: env.poison().is_some() || live.is_poisoned(),
        hash: live.hash(),
    }
}

/// Releases the writer lock, as the kernel does for a process that has died with it.
pub fn release_writer_lock(db: &Db) {
    db.env().writer_lock.release();
}

/// Goes on from the live records and the file of a database all of whose threads have stopped, in a
/// new environment. `stopped` is the last handle. The file is neither flushed, compared nor cut, as
/// by a process that joins others.
pub fn go_on_from(stopped: Db, hooks: Arc<dyn Hooks>) -> Result<Db> {
    let env = stopped.env();
    let (words, path, opened) = (env.live.to_words(), env.path().to_path_buf(), env.opened.clone());
    let meta = env.meta_page_of(&env.live.latest());
    abandon(&stopped);
    drop(stopped);
    let failed = |e| Error::io("opening the file", &path, e);
    let file = file::open(&path, true).map_err(failed)?;
    let wanted = Wanted { read_only: false, exclusive: true, plain: false, fault_guard: true };
    let lock = enter(&path, file_id(&path, &file)?, wanted)?.lock;
    let (page_size, window_bytes) = (meta.page_size as usize, opened.window_bytes);
    set_next_hooks(Some(hooks));
    let mapped =
        Mapping::of_file(file, true, MapOptions { page_size, window_bytes, fault_guard: true, used_bytes: None });
    set_next_hooks(None);
    let mapping = mapped.map_err(failed)?;
    mapping.ready_to_write().map_err(failed)?;
    let live = Live::private();
    live.take_words(&words);
    let env = Env::new(EnvParts { path, meta, live, read_only: false, opened, lock: Some(lock) }, mapping);
    Ok(Db::of(Arc::new(env), false))
}

/// Opens the file of a database, which is not exclusive, once more, as another process would: with
/// mappings, descriptors, locks and private records of its own.
pub fn open_as_another_process(db: &Db, hooks: Arc<dyn Hooks>) -> Result<Db> {
    set_next_hooks(Some(hooks));
    let opened = open::open_as_another_process(db.env().path(), &db.env().opened);
    set_next_hooks(None);
    Ok(Db::of(opened?, false))
}

/// Ends a database as if its process had died: nothing is written when the last handle is dropped.
pub fn abandon(db: &Db) {
    db.env().abandon(&Error::usage("the test has ended this database"));
}
