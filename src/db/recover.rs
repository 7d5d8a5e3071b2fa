//! Recovery of a file whose newest state is cut or damaged: what would be lost, and going back.
//!
//! Floor: db. Reports of what `txn::rollback` plans and does.
//!
//! Failure: the errors of opening; `Truncated` or `Corrupt` when no state is whole.

use std::collections::BTreeMap;
use std::path::Path;

use crate::db::{Db, Finding};
use crate::error::Result;
use crate::txn::open;
use crate::txn::open::rollback::Plan;

/// What [`Db::recover`] did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoverReport {
    /// Transaction of the newest state that the file tells of.
    pub newest_txn: u64,
    /// Transaction of the newest state that is whole, and that the file is given. The same when
    /// nothing is lost.
    pub whole_txn: u64,
    /// Bytes that the file had.
    pub file_bytes: u64,
    /// Bytes that its newest state needs.
    pub needed_bytes: u64,
    /// The first thing that is wrong with the newest state, or with the meta pages together; `None`
    /// when all is whole.
    pub damage: Option<Finding>,
    /// The meta pages contradict each other, so that a commit newer than all that is left may have
    /// been lost before.
    pub is_newest_doubtful: bool,
    /// Tables whose number of entries is another one in the state that is whole, or is not known in
    /// the newest one.
    pub tables: Vec<TableLoss>,
    /// Tables of the state that is whole.
    pub whole_tables: u64,
    /// Entries in all of them.
    pub whole_entries: u64,
    /// What is noted of the meta pages: one that is not whole may have told of newer commits, which
    /// are lost with it.
    pub remarks: Vec<Finding>,
}

/// A table before and after a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableLoss {
    /// The table.
    pub name: String,
    /// Entries in the newest state; `None` where the table, or the record of it, is not there.
    pub entries_before: Option<u64>,
    /// Entries in the state that is whole; `None` where the table is not there.
    pub entries_after: Option<u64>,
}

impl RecoverReport {
    /// Whether commits are given up, or may have been lost before.
    pub fn is_loss(&self) -> bool {
        self.newest_txn != self.whole_txn || self.is_newest_doubtful
    }

    /// Whether the file can be used as it is.
    pub fn is_nothing(&self) -> bool {
        !self.is_loss() && self.bytes_missing() == 0 && self.damage.is_none()
    }

    /// Bytes that the newest state needs and the file did not have.
    pub fn bytes_missing(&self) -> u64 {
        self.needed_bytes.saturating_sub(self.file_bytes)
    }

    fn of(plan: Plan) -> RecoverReport {
        let contradiction = plan.contradiction.clone().map(Finding::of_slots);
        let tables = if plan.loses() { table_losses(&plan) } else { Vec::new() };
        RecoverReport {
            newest_txn: plan.newest.meta.txn.0,
            whole_txn: plan.target.meta.txn.0,
            file_bytes: plan.found,
            needed_bytes: plan.newest.needed(),
            is_newest_doubtful: plan.contradiction.is_some(),
            damage: plan.damage.map(Finding::of_tree).or(contradiction),
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
    /// Goes back to the newest state that is whole, in a file that was cut short or whose newest
    /// state is damaged. What was committed after that state is given up for good. A file whose
    /// newest state is whole is not changed.
    ///
    /// The state before the newest one is whole as long as no write transaction has changed
    /// anything since the newest commit: the next transaction uses the pages again that only the
    /// older state reaches, at once and also if it is dropped. After that the older state may still
    /// be whole by chance. States before these two are not kept. Every page of a state is read and
    /// verified before the file goes back to it, so that it never goes back to a part of one.
    ///
    /// Also for a file whose two meta pages hold the same record, because one was copied over the
    /// other: it goes on from the state that is left, if that is whole.
    ///
    /// Reads every page that is in use, with plain reads; nothing is mapped. A crash at any moment
    /// leaves a file that can be recovered to the same state.
    /// [`Options::recover`](crate::Options::recover) does the same while opening.
    ///
    /// # Errors
    /// `Truncated` or `Corrupt` when no state is whole, and then the file is not changed;
    /// [`Db::salvage`] copies what can be read. `Locked` while a process has the file open, this
    /// one included. Else as [`Db::open_existing`].
    pub fn recover(path: impl AsRef<Path>) -> Result<RecoverReport> {
        open::recover(path.as_ref(), true).map(RecoverReport::of)
    }

    /// What [`Db::recover`] would do, without doing it.
    ///
    /// # Errors
    /// As [`Db::recover`].
    pub fn recover_preview(path: impl AsRef<Path>) -> Result<RecoverReport> {
        open::recover(path.as_ref(), false).map(RecoverReport::of)
    }
}
