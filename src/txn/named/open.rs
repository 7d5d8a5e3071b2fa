//! Beginning to read a named snapshot.
//!
//! Floor: txn. The record is found in the published state. The reader shows the txn of the snapshot
//! in a slot, and then looks at the record again, in the state that is published by then. If the
//! record is still there, the snapshot was not dropped before the slot showed its txn, and no
//! writer uses its pages again: a writer whose state lacks the record has loaded a newer
//! `published` first, and so sees the slot (docs/concurrency.md, "A named snapshot").
//!
//! Failure: `Usage` if there is no such snapshot; `Corrupt`, which names it, for a damaged record.

use std::sync::atomic::Ordering;

use crate::catalog::snapshots::{self, SnapshotRecord};
use crate::error::{Error, Result};
use crate::hooks::{self, Moment};
use crate::ids::TreeId;
use crate::mapping::owned_cell::SharedOwner;
use crate::page::meta::TreeRoot;
use crate::sys::clock;
use crate::txn::read::snapshot::{ReadPool, ReadTxn, NOTE_BEGUN, NOTE_LABEL};
use crate::txn::state::State;

impl ReadPool {
    /// Begins to read a named snapshot.
    pub(crate) fn begin_named(&self, name: &str) -> Result<ReadTxn> {
        let mut now = self.begin()?;
        loop {
            let record = now.snapshot_record(name)?.ok_or_else(|| now.no_snapshot(name))?;
            let mut slot = self.take_slot(record.txn)?;
            let notes = slot.notes();
            notes[NOTE_BEGUN].store(clock::coarse_millis(), Ordering::Relaxed);
            notes[NOTE_LABEL].store(0, Ordering::Relaxed);
            hooks::reach(Moment::SnapshotShown);
            let later = self.begin()?;
            if later.snapshot_record(name)? == Some(record) {
                slot.get_mut().set_state(&state_of(&record, later.state()));
                let set = slot.get_mut().set_pages(self.env().page_size, &self.env().mapping);
                set.map_err(|e| Error::io("mapping the file", self.env().path(), e))?;
                return Ok(ReadTxn::of(SharedOwner::new(slot)));
            }
            // It was dropped, and perhaps another one has the name.
            now = later;
        }
    }
}

/// The state of a snapshot, for readers of tables. `holder` is a state that has its record: every
/// page that the snapshot reaches is inside it, although the file may have been cut since.
fn state_of(record: &SnapshotRecord, holder: &State) -> State {
    State {
        txn: record.txn,
        page_count: record.page_count.min(holder.page_count),
        catalog: record.catalog,
        free_space: TreeRoot::empty(TreeId::FREE_SPACE),
        next_tree: record.next_tree,
        last_immediate: record.txn,
        snapshots: TreeRoot::empty(TreeId::SNAPSHOTS),
        ..State::default()
    }
}

impl ReadTxn {
    /// The record of a named snapshot in this state, if there is one.
    pub(crate) fn snapshot_record(&self, name: &str) -> Result<Option<SnapshotRecord>> {
        let state = self.state();
        self.check_fault(snapshots::find(self.pages(), &state.snapshots, name, state.txn))
    }

    /// Names and records of the snapshots of this state. A damaged record is an error in its place.
    pub(crate) fn snapshot_records(&self) -> Result<Vec<(String, Result<SnapshotRecord>)>> {
        self.check_process()?;
        let state = self.state();
        self.check_fault(snapshots::list(self.pages(), &state.snapshots, state.txn))
    }

    /// The error for a snapshot that does not exist.
    fn no_snapshot(&self, name: &str) -> Error {
        match self.snapshot_records() {
            Ok(records) => snapshots::absent(name, &records.into_iter().map(|(name, _)| name).collect::<Vec<_>>()),
            Err(e) => e,
        }
    }
}
