//! Sizes and counts of a state, the processes that have the file, and the states that pin pages.
//!
//! Floor: db. Costs a walk over the catalog and the free-space tree, and a look at each reader
//! slot; tables are not read. `space` counts their pages.
//!
//! Failure: `Corrupt` for a damaged catalog or free space.

use std::sync::atomic::Ordering;

use crate::db::pins::{PinCount, Pinned};
use crate::db::readers;
use crate::error::{Error, Result};
use crate::ids::TxnId;
use crate::page::meta;
use crate::txn::env::Env;
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::read::readers::ReaderNotes;
use crate::txn::read::snapshot::ReadTxn;
use crate::txn::state::State;

/// Sizes and counts of the newest committed state, from [`Db::stats`](crate::Db::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes per page.
    pub page_size: u32,
    /// Pages of the state, meta pages and free ones included.
    pub page_count: u64,
    /// Length of the file now, in bytes. While a database is open for writing, the file is longer
    /// than its pages in use; closing cuts it.
    pub file_bytes: u64,
    /// Bytes that the file takes on the disk: more than the pages in use while blocks are reserved
    /// for growth.
    pub disk_bytes: u64,
    /// Pages that the next transaction may use.
    pub free_pages: u64,
    /// Pages that were freed, but that a snapshot, the state of the durable meta page or a running
    /// checkpoint may still need.
    pub pending_pages: u64,
    /// Pending pages that no state pins any more: they become free with a later transaction.
    pub unpinned_pages: u64,
    /// What keeps the other pending pages: read transactions and checkpoints that reach some, the
    /// oldest state first. Some pages have several pins.
    pub pins: Vec<Pin>,
    /// Number of the transaction that made this state.
    pub txn: u64,
    /// Tables.
    pub tables: u64,
    /// Entries of all tables.
    pub entries: u64,
    /// Live read transactions of all processes, not counting the one of this call.
    /// [`Db::readers`](crate::Db::readers) lists them.
    pub readers: u64,
    /// Processes that have the database open, this one included.
    pub processes: u64,
    /// The same processes, this one first. A plain reader does not see the others.
    pub members: Vec<MemberInfo>,
    /// How this process has the database open.
    pub presence: Presence,
    /// Random number of the session, the time from the first member to the last; `None` for a
    /// process that is no member.
    pub session: Option<u64>,
    /// Why other processes cannot open the database while this one has it open, if that was not
    /// asked for: the lock file cannot be made.
    pub why_exclusive: Option<String>,
    /// Bytes of the file that the newest state uses: its pages, free ones included.
    pub used_bytes: u64,
    /// Bytes of the file that are mapped. Like the file itself, the mapping is longer than the
    /// pages in use.
    pub mapped_bytes: u64,
    /// Address space reserved for this database in this process, in bytes: room for the file to
    /// grow, which takes no memory. Includes windows that the file has outgrown but a read
    /// transaction still uses. See [`Options::window_size`](crate::Options::window_size).
    pub reserved_bytes: u64,
    /// Memory of this process for indexes of tables, in bytes. See
    /// [`Options::index_memory`](crate::Options::index_memory).
    pub index_bytes: u64,
    /// Pages of the commit log; 0 if there is none.
    pub log_pages: u64,
    /// Bytes of the commit log with records after the last checkpoint. Opening after a crash
    /// replays them. At three quarters of the log the next checkpoint begins.
    pub log_used_bytes: u64,
    /// Checkpoints made beside writers since this process opened the database.
    pub checkpoints: u64,
    /// How long writers have waited for checkpoints in all, in nanoseconds: for space in the commit
    /// log, or because too many pages were held.
    pub log_wait_nanos: u64,
    /// Version of the file format.
    pub format_version: u32,
    /// UUID of the database, generated when it was created.
    pub uuid: [u8; 16],
}

/// How a process has a database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Presence {
    /// It shares the database with other members, by the lock file or by shared memory.
    Member,
    /// It keeps other processes out. So does a database in memory that is not shared.
    Exclusive,
    /// It only reads, without a lock file, while no process can write.
    PlainReader,
    /// It changes only memory of its own ([`Options::scratch`](crate::Options::scratch)).
    Scratch,
}

/// A process that has the database open, in [`Stats::members`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberInfo {
    /// The number of the process, as it sees it itself: in a container it may be another one.
    pub process: u32,
    /// Whether it has opened the database for writing.
    pub writes: bool,
}

/// A state that keeps pending pages from being used again, in [`Stats::pins`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// The cause.
    pub by: PinnedBy,
    /// The number of the transaction that made the state.
    pub txn: u64,
    /// Pending pages that the state reaches.
    pub pages: u64,
    /// Those of them that no other pinned state reaches: they come back when this pin goes. 0 if
    /// another pin has the same state.
    pub only_pages: u64,
}

/// Why a state is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinnedBy {
    /// A read transaction. It pins until it ends or is refreshed.
    Reader {
        /// The number of the process, as in [`ReaderInfo::process`](crate::ReaderInfo::process).
        process: u32,
        /// The label; empty if it has none.
        label: String,
    },
    /// The last checkpoint: opening after a crash begins with its state. It pins until the next
    /// one.
    LastCheckpoint,
    /// A checkpoint that is being made.
    RunningCheckpoint,
    /// A named snapshot. It pins until it is dropped.
    Snapshot {
        /// Its name.
        name: String,
    },
}

pub(crate) fn of(txn: &ReadTxn) -> Result<Stats> {
    let (env, state) = (txn.env(), txn.state());
    let readers = env.readers.list();
    let mut pins = Pins::find(env, &readers);
    pins.add_snapshots(txn)?;
    let (free_pages, pending_pages, pinned) = free_space(txn, &pins)?;
    let tables = txn.table_records()?;
    let file_bytes = env.mapping.file_len().map_err(|e| Error::io("reading the length", env.path(), e))?;
    let disk_bytes = env.mapping.disk_bytes().map_err(|e| Error::io("reading the blocks in use", env.path(), e))?;
    let (members, presence) = members(env);
    Ok(Stats {
        page_size: env.page_size as u32,
        page_count: state.page_count,
        file_bytes,
        disk_bytes,
        free_pages,
        pending_pages,
        unpinned_pages: pinned.unpinned,
        pins: pins.counted(&pinned),
        txn: state.txn.0,
        tables: tables.len() as u64,
        entries: tables.iter().fold(0, |sum, (_, record)| record.entries().saturating_add(sum)),
        readers: (readers.len() as u64).saturating_sub(1),
        processes: members.len() as u64,
        members,
        presence,
        session: Some(env.live.session()).filter(|_| presence == Presence::Member),
        why_exclusive: env.lock.as_ref().and_then(|lock| lock.why_exclusive()).map(str::to_string),
        used_bytes: state.page_count * env.page_size as u64,
        mapped_bytes: env.mapping.read_map().len_bytes(),
        reserved_bytes: env.mapping.reserved_bytes(),
        index_bytes: env.flat_indexes.bytes() as u64,
        log_pages: state.log.pages,
        log_used_bytes: log_used_bytes(env, state),
        checkpoints: env.checkpoints.load(Ordering::Relaxed),
        log_wait_nanos: env.waited_nanos.load(Ordering::Relaxed),
        format_version: meta::VERSION,
        uuid: env.uuid,
    })
}

/// Counts the free pages, the pending ones, and the latter by the states that pin them.
fn free_space(txn: &ReadTxn, pins: &Pins) -> Result<(u64, u64, Pinned)> {
    let (mut free_pages, mut pending_pages) = (0, 0);
    let mut count = PinCount::new(pins.0.iter().map(|(_, state)| *state).collect());
    let walked = free_extents::walk(txn.pages(), txn.state(), &mut |record| {
        match record {
            FreeRecord::Usable { pages, .. } => free_pages += pages,
            FreeRecord::Pending(item) => {
                pending_pages += item.pages;
                count.add(&item);
            }
        }
        Ok(())
    });
    txn.check_fault(walked)?;
    Ok((free_pages, pending_pages, count.finish()))
}

/// States that are needed, with the causes.
struct Pins(Vec<(PinnedBy, TxnId)>);

impl Pins {
    /// The states that bound the reuse of pages, but for the published one: it reaches no page that
    /// it lists as pending. The same holds for the transaction of the caller, which is among the
    /// readers.
    fn find(env: &Env, readers: &[ReaderNotes]) -> Pins {
        let mut pins = Vec::new();
        for found in readers {
            let info = readers::info(found, 0);
            pins.push((PinnedBy::Reader { process: info.process, label: info.label }, found.txn));
        }
        let checkpoint = env.live.checkpoint();
        pins.push((PinnedBy::LastCheckpoint, checkpoint.durable_meta.txn));
        let in_doubt = checkpoint.in_doubt.map(|(_, state)| state.txn);
        let running = checkpoint.pinned.into_iter().chain(in_doubt.filter(|&state| checkpoint.pinned != Some(state)));
        pins.extend(running.map(|state| (PinnedBy::RunningCheckpoint, state)));
        Pins(pins)
    }

    /// Adds the named snapshots. A damaged record is for `check` to report.
    fn add_snapshots(&mut self, txn: &ReadTxn) -> Result<()> {
        for (name, record) in txn.snapshot_records()? {
            self.0.extend(record.ok().map(|record| (PinnedBy::Snapshot { name }, record.txn)));
        }
        Ok(())
    }

    /// Those that pin pages.
    fn counted(self, pinned: &Pinned) -> Vec<Pin> {
        let mut pins = Vec::new();
        for (by, state) in self.0 {
            let (pages, only_pages) = pinned.of(state);
            if pages > 0 {
                pins.push(Pin { by, txn: state.0, pages, only_pages });
            }
        }
        pins.sort_by_key(|pin| pin.txn);
        for same in pins.chunk_by_mut(|a, b| a.txn == b.txn).filter(|same| same.len() > 1) {
            same.iter_mut().for_each(|pin| pin.only_pages = 0);
        }
        pins
    }
}

/// The processes that have the database open, this one first, and how this one has it.
fn members(env: &Env) -> (Vec<MemberInfo>, Presence) {
    let mut members = vec![MemberInfo { process: std::process::id(), writes: !env.read_only }];
    let others = env.other_processes();
    members.extend(others.iter().map(|other| MemberInfo { process: other.id, writes: other.writes }));
    let presence = match &env.lock {
        _ if env.base().is_some() => Presence::Scratch,
        Some(lock) if lock.member().is_some() => Presence::Member,
        Some(lock) if lock.is_plain_reader() => Presence::PlainReader,
        _ => Presence::Exclusive,
    };
    (members, presence)
}

fn log_used_bytes(env: &Env, state: &State) -> u64 {
    // A checkpoint may have been made after the state of the caller.
    let used = state.log.start.saturating_sub(env.live.durable_meta().log_start);
    used.min(state.log.pages * env.page_size as u64)
}
