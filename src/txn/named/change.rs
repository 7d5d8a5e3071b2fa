//! Creating and dropping named snapshots.
//!
//! Floor: txn. Each is a write transaction of its own that changes only the tree of named
//! snapshots, and commits by checkpoint. A new snapshot keeps the state that its transaction builds
//! on: the newest committed one. A dropped one keeps nothing from the next transaction on, but a
//! reader of it keeps its pages as any reader does.
//!
//! Failure: `Usage`, and the errors of a commit.

use crate::catalog::snapshots::{self, SnapshotRecord};
use crate::error::{Error, Result};
use crate::sys::clock;
use crate::tree::{PutHint, TreeMut};
use crate::txn::write::txn::{writer_of, RunningTxn};

impl RunningTxn {
    /// Names and records of all snapshots. A damaged record is an error in its place.
    pub(super) fn snapshot_records(&mut self) -> Result<Vec<(String, Result<SnapshotRecord>)>> {
        let listed = snapshots::list(self.pages(), &self.snapshots, self.basis.latest.txn);
        self.note(None, listed)
    }

    /// The error for a snapshot that does not exist.
    pub(super) fn no_snapshot(&mut self, name: &str) -> Error {
        match self.snapshot_records() {
            Ok(records) => snapshots::absent(name, &records.into_iter().map(|(name, _)| name).collect::<Vec<_>>()),
            Err(e) => e,
        }
    }

    /// Keeps the state that this transaction builds on under a name. Returns its txn.
    pub(crate) fn create_snapshot(&mut self, name: &str) -> Result<u64> {
        snapshots::check_name(name)?;
        let latest = self.basis.latest;
        let found = self.snapshot_records()?;
        if found.iter().any(|(other, _)| other == name) {
            let remedy = "drop it first, or choose another name";
            return Err(Error::usage(format!("there is already a snapshot '{name}'; {remedy}")));
        }
        let record = SnapshotRecord {
            txn: latest.txn,
            page_count: latest.page_count,
            catalog: latest.catalog,
            next_tree: latest.next_tree,
            created_millis: clock::coarse_millis(),
        };
        self.begin_change()?;
        let pages = &mut writer_of(&mut self.writer).pages;
        let tree = TreeMut::new(pages, &mut self.snapshots);
        let put = tree.put(name.as_bytes(), &record.encode(), &mut PutHint::default(), None);
        self.note(None, put)?;
        Ok(record.txn.0)
    }

    /// Drops a snapshot, also one whose record is damaged.
    pub(crate) fn drop_snapshot(&mut self, name: &str) -> Result<()> {
        snapshots::check_name(name)?;
        self.begin_change()?;
        let pages = &mut writer_of(&mut self.writer).pages;
        let deleted = TreeMut::new(pages, &mut self.snapshots).delete(name.as_bytes(), None);
        match self.note(None, deleted)? {
            true => Ok(()),
            false => Err(self.no_snapshot(name)),
        }
    }

    /// Prepares for a change of the named snapshots, which commits by checkpoint.
    pub(super) fn begin_change(&mut self) -> Result<()> {
        let ensured = self.ensure(0);
        self.note(None, ensured)?;
        writer_of(&mut self.writer).record.give_up();
        self.catalog_changed = true;
        Ok(())
    }
}
