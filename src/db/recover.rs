//! Recovery of a file whose newest state is cut or damaged: previews the loss, and goes back to a
//! whole state.
//!
//! Floor: db. Makes reports of the plans of `txn::open::rollback`.
//!
//! Failure: errors of opening; `Truncated` or `Corrupt` if no state is whole.

use std::collections::BTreeMap;
use std::path::Path;

use crate::db::{Db, Finding};
use crate::error::Result;
use crate::txn::open;
use crate::txn::open::rollback::Plan;

/// The result of [`Db::recover`], or of its preview.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoverReport {
    /// The newest transaction that the file is known to have had: that of the newest meta page, or
    /// one that the commit log names.
    pub newest_txn: u64,
    /// Transaction of the newest whole state, to which the file goes back. Equal to `newest_txn` if
    /// nothing is lost.
    pub whole_txn: u64,
    /// Length of the file before the recovery, in bytes.
    pub file_bytes: u64,
    /// Bytes that its newest state needs.
    pub needed_bytes: u64,
    /// The first damage of the newest state, or a contradiction between the meta pages; `None` if
    /// there is none.
    pub damage: Option<Finding>,
    /// The meta pages contradict each other, so a commit newer than all remaining states may have
    /// been lost earlier.
    pub is_newest_doubtful: bool,
    /// Tables whose entry count differs in the whole state, or is unknown in the newest one.
    pub tables: Vec<TableLoss>,
    /// Number of tables in the whole state.
    pub whole_tables: u64,
    /// Entries of all tables in the whole state.
    pub whole_entries: u64,
    /// Remarks about the meta pages. A damaged one may have described newer commits, which are lost
    /// with it.
    pub remarks: Vec<Finding>,
}

/// A table before and after a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableLoss {
    /// The table.
    pub name: String,
    /// Entries in the newest state; `None` if the table does not exist there or its record cannot
    /// be read.
    pub entries_before: Option<u64>,
    /// Entries in the whole state; `None` if the table does not exist there.
    pub entries_after: Option<u64>,
}

impl RecoverReport {
    /// Whether commits are lost, or may have been lost earlier.
    pub fn is_loss(&self) -> bool {
        self.newest_txn != self.whole_txn || self.is_newest_doubtful
    }

    /// Whether the file can be used as it is.
    pub fn is_nothing(&self) -> bool {
        !self.is_loss() && self.bytes_missing() == 0 && self.damage.is_none()
    }

    /// Bytes that the newest state needs but the file did not have.
    pub fn bytes_missing(&self) -> u64 {
        self.needed_bytes.saturating_sub(self.file_bytes)
    }

    fn of(plan: Plan) -> RecoverReport {
        let contradiction = plan.contradiction.clone().map(Finding::of_slots);
        // The log belongs to the state that its meta page describes.
        let log = plan.log.as_ref().filter(|_| !plan.loses());
        let log_damage = log.and_then(|log| log.damage.as_ref());
        let whole_txn = log.map_or(plan.target.meta.txn, |log| log.newest).0;
        let newest_txn = log_damage.map_or(whole_txn, |damage| damage.durable.unwrap_or(damage.from).0);
        let in_log = log_damage.map(|damage| Finding::of_slots(damage.what.clone()));
        let tables = if plan.loses() { table_losses(&plan) } else { Vec::new() };
        RecoverReport {
            newest_txn: if plan.loses() { plan.newest.meta.txn.0 } else { newest_txn },
            whole_txn,
            file_bytes: plan.found,
            needed_bytes: plan.newest.needed(),
            is_newest_doubtful: plan.contradiction.is_some(),
            damage: plan.damage.map(Finding::of_tree).or(contradiction).or(in_log),
            tables,
            whole_tables: plan.after.len() as u64,
            whole_entries: plan.after.iter().map(|(_, entries)| entries).sum(),
            remarks: Finding::of_flaws(&plan.slots),
        }
    }
}

fn table_losses(plan: &Plan) -> Vec<TableLoss> {
    let mut tables: BTreeMap<&str, (Option<u64>, Option<u64>)> = BTreeMap::new();
    for (name, entries) in &plan.before {
        tables.entry(name).or_default().0 = Some(*entries);
    }
    for (name, entries) in &plan.after {
        tables.entry(name).or_default().1 = Some(*entries);
    }
    tables
        .into_iter()
        .filter(|(_, (before, after))| before != after)
        .map(|(name, (entries_before, entries_after))| TableLoss { name: name.into(), entries_before, entries_after })
        .collect()
}

impl Db {
    /// Goes back to the newest whole state, in a file that was cut short or whose newest state is
    /// damaged. Later commits are lost for good. A file whose newest state is whole is not changed.
    ///
    /// The state before the newest one stays whole until a write transaction after the newest
    /// commit changes anything: that transaction may reuse pages that only the older state reaches,
    /// even if it is dropped. Afterwards the older state may still be whole by chance. Earlier
    /// states are not kept. Recovery reads and verifies every page of a state before it goes back
    /// to it, so it never goes back to a partial state.
    ///
    /// Also repairs a file whose two meta pages hold the same record, because one was copied over
    /// the other: it goes on with the remaining state, if that is whole, and replays its commit
    /// log.
    ///
    /// Of named snapshots, only the records come back with a state. Pages that only they reach are
    /// not looked at: [`check`](Db::check) says afterwards which snapshots are damaged.
    ///
    /// Reads every page in use with `pread`; nothing is mapped. A crash at any moment leaves a file
    /// that can be recovered to the same state. [`Options::recover`](crate::Options::recover) does
    /// the same while opening.
    ///
    /// # Errors
    /// `Truncated` or `Corrupt` if no state is whole; the file is not changed then, and
    /// [`Db::salvage`] copies what can be read. `Locked` while a process, this one included, has
    /// the file open. Otherwise as [`Db::open_existing`].
    pub fn recover(path: impl AsRef<Path>) -> Result<RecoverReport> {
        open::recover(path.as_ref(), true).map(RecoverReport::of)
    }

    /// Returns what [`Db::recover`] would do, without changing the file.
    ///
    /// # Errors
    /// As [`Db::recover`].
    pub fn recover_preview(path: impl AsRef<Path>) -> Result<RecoverReport> {
        open::recover(path.as_ref(), false).map(RecoverReport::of)
    }
}
