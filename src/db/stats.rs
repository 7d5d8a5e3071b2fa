//! Sizes and counts of a state.
//!
//! Floor: db. Costs a walk over the catalog and the free-space tree; tables are not read.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::page::meta;
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::read::snapshot::ReadTxn;

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
    /// Pages of the commit log; 0 if there is none.
    pub log_pages: u64,
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

pub(crate) fn of(txn: &ReadTxn) -> Result<Stats> {
    let (env, state) = (txn.env(), txn.state());
    let (mut free_pages, mut pending_pages) = (0, 0);
    let walked = free_extents::walk(txn.pages(), state, &mut |record| {
        match record {
            FreeRecord::Usable { pages, .. } => free_pages += pages,
            FreeRecord::Pending(item) => pending_pages += item.pages,
        }
        Ok(())
    });
    txn.check_fault(walked)?;
    let tables = txn.table_records()?;
    let file_bytes = env.mapping.file_len().map_err(|e| Error::io("reading the length", env.path(), e))?;
    let disk_bytes = env.mapping.disk_bytes().map_err(|e| Error::io("reading the blocks in use", env.path(), e))?;
    Ok(Stats {
        page_size: env.page_size as u32,
        page_count: state.page_count,
        file_bytes,
        disk_bytes,
        free_pages,
        pending_pages,
        txn: state.txn.0,
        tables: tables.len() as u64,
        entries: tables.iter().fold(0, |sum, (_, record)| record.root.entries.saturating_add(sum)),
        readers: env.readers.count().saturating_sub(1),
        processes: env.other_processes().len() as u64 + 1,
        why_exclusive: env.lock.as_ref().and_then(|lock| lock.why_exclusive()).map(str::to_string),
        used_bytes: state.page_count * env.page_size as u64,
        mapped_bytes: env.mapping.read_map().len_bytes(),
        reserved_bytes: env.mapping.reserved_bytes(),
        log_pages: state.log.pages,
        checkpoints: env.checkpoints.load(Ordering::Relaxed),
        log_wait_nanos: env.waited_nanos.load(Ordering::Relaxed),
        format_version: meta::VERSION,
        uuid: env.uuid,
    })
}
