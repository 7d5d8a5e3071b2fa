//! Named snapshots: states that stay readable under a name.
//!
//! Floor: db. `txn::named` does the work.
//!
//! Failure: `Usage` for names; `Corrupt`, which names the snapshot, for a damaged record.

use std::time::{Duration, SystemTime};

use crate::db::pins::PinCount;
use crate::db::Db;
use crate::error::Result;
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::read::snapshot::ReadTxn;
use crate::txn::write::txn::RunningTxn;

/// A named snapshot, from [`Db::snapshots`](crate::Db::snapshots).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Its name.
    pub name: String,
    /// The number of the transaction whose state it keeps.
    pub txn: u64,
    /// When it was created.
    pub created: SystemTime,
    /// Pages that the newest state does not use any more, and that this snapshot reaches.
    pub pinned_pages: u64,
    /// Those of them that no other snapshot reaches: they come back when it is dropped, unless a
    /// read transaction needs them.
    pub only_pages: u64,
}

impl Db {
    /// Keeps the newest committed state under a name, until it is dropped, also when the database
    /// is closed. Returns the number of the transaction whose state it is.
    ///
    /// Takes as long as a small commit by checkpoint, whatever the size of the database: no page is
    /// copied. From then on, pages that the snapshot reaches and later transactions change are
    /// kept, so the file gets longer by as much as is changed. [`compact_to`](Db::compact_to) and
    /// [`salvage`](Db::salvage) copy no snapshots. A file with snapshots is refused by releases
    /// that do not know them; it is accepted again when the last one was dropped.
    ///
    /// ```
    /// # use mapleaf::{Db, Table};
    /// # let db = Db::in_memory()?;
    /// const USERS: Table<u64, &str> = Table::new("users");
    /// db.write(|txn| txn.table(USERS)?.insert(1, "ada").map(drop))?;
    ///
    /// db.create_snapshot("before-migration")?;
    /// db.write(|txn| txn.table(USERS)?.clear().map(drop))?;
    ///
    /// let before = db.read_snapshot("before-migration")?;
    /// assert_eq!(before.table(USERS)?.get(1)?, Some("ada"));
    ///
    /// db.restore_snapshot("before-migration")?;
    /// assert_eq!(db.begin_read()?.table(USERS)?.get(1)?, Some("ada"));
    /// db.drop_snapshot("before-migration")?;
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Usage` if there is a snapshot of this name, or the name is empty; `TooLarge` if
    /// the name has more than 255 bytes. Otherwise as [`begin_write`](Db::begin_write) and
    /// [`WriteTxn::commit`](crate::WriteTxn::commit). A thread that has a write transaction of this
    /// database would wait for itself for ever.
    pub fn create_snapshot(&self, name: &str) -> Result<u64> {
        self.change_snapshots(|txn| txn.create_snapshot(name))
    }

    /// Lists the named snapshots, in the order of their names, and how many pages each keeps.
    ///
    /// Reads the free space, and no table.
    ///
    /// # Errors
    /// As [`begin_read`](Db::begin_read), and `Corrupt` if the free space or the record of
    /// a snapshot is damaged. The latter names the snapshot.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        list(&self.begin_read()?)
    }

    /// Begins to read a named snapshot. The transaction keeps its pages like every other read
    /// transaction, also when the snapshot is dropped meanwhile.
    ///
    /// # Errors
    /// `Usage` if there is no such snapshot; it says which there are. `Corrupt` if its record is
    /// damaged. Otherwise as [`begin_read`](Db::begin_read).
    pub fn read_snapshot(&self, name: &str) -> Result<ReadTxn> {
        let begun = self.pool.begin_named(name);
        begun.map_err(|e| e.with_path(self.env().path()))
    }

    /// Drops a named snapshot. The pages that only it has kept can be used again, those that a read
    /// transaction reads too when that ends.
    ///
    /// # Errors
    /// `Usage` if there is no such snapshot; it says which there are. Otherwise as
    /// [`create_snapshot`](Db::create_snapshot).
    pub fn drop_snapshot(&self, name: &str) -> Result<()> {
        self.change_snapshots(|txn| txn.drop_snapshot(name))
    }

    /// Makes the state of a named snapshot the newest one: all tables are as they were then, and
    /// tables that were made since are gone. All snapshots stay, this one too. Read transactions
    /// that are running do not notice.
    ///
    /// One transaction, which survives a power loss as a whole or not at all. Copies no page, but
    /// reads each branch and leaf of the snapshot and of the newest state.
    ///
    /// # Errors
    /// `Usage` if there is no such snapshot; it says which there are. `Corrupt`, which names the
    /// snapshot, if it is damaged: then nothing changes. Otherwise as
    /// [`create_snapshot`](Db::create_snapshot).
    pub fn restore_snapshot(&self, name: &str) -> Result<()> {
        self.change_snapshots(|txn| txn.restore_snapshot(name))
    }

    /// Runs a change of the named snapshots in a transaction of its own, and commits it.
    fn change_snapshots<T>(&self, change: impl FnOnce(&mut RunningTxn) -> Result<T>) -> Result<T> {
        let mut txn = self.begin_write()?.into_running();
        let done = change(&mut txn).map_err(|e| e.with_path(self.env().path()))?;
        txn.commit()?;
        Ok(done)
    }
}

fn list(txn: &ReadTxn) -> Result<Vec<SnapshotInfo>> {
    let mut found = Vec::new();
    for (name, record) in txn.snapshot_records()? {
        found.push((name, record.map_err(|e| txn.locate(e))?));
    }
    let mut count = PinCount::new(found.iter().map(|(_, record)| record.txn).collect());
    let walked = free_extents::walk(txn.pages(), txn.state(), &mut |record| {
        if let FreeRecord::Pending(item) = record {
            count.add(&item);
        }
        Ok(())
    });
    txn.check_fault(walked)?;
    let pinned = count.finish();
    let info = |(name, record): (String, crate::catalog::snapshots::SnapshotRecord)| {
        let (pinned_pages, only_pages) = pinned.of(record.txn);
        let since = Duration::from_millis(record.created_millis);
        let created = SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH);
        SnapshotInfo { name, txn: record.txn.0, created, pinned_pages, only_pages }
    };
    Ok(found.into_iter().map(info).collect())
}
