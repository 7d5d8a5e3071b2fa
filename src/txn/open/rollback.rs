//! Going back to the newest whole state, in a file that was cut or whose newest state is damaged.
//!
//! Floor: txn. [`plan`] finds the state to go back to and changes nothing. [`carry_out`] goes back:
//! it flushes the file, writes a new meta page with the roots of that state and a number above all
//! others over the slot that does not hold the state, and flushes it. Then it extends the file to
//! the length that the state needs (pages that are not in use may be missing).
//!
//! If the target is the newest state of its database and its log has records, `carry_out` writes no
//! meta page, even where the slots contradict each other: the caller replays the log from the
//! target, and the checkpoint of the replay writes the other slot. If the slots contradict each
//! other, one more checkpoint writes the target's slot: it may hold a copy of another meta page.
//!
//! Invariants:
//!   ROLLBACK-1  the slot of the target state is not written before the new meta page is durable.
//!       So after a crash at any moment the target state is found again, by its own meta page or by
//!       the new one.
//!   ROLLBACK-2  every page of the target state was read and verified just before.
//!   ROLLBACK-3  the file is extended only when the target is durably the newest state. Until then
//!       a file that is too short cannot be opened with the damaged state, so the slot of the
//!       target state is not overwritten.
//!
//! Failure: [`Error::Truncated`] or [`Error::Corrupt`] if no state is whole; errors of the kernel.

use crate::hooks::{self, Recovery};
use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::ids::{TxnId, MAX_U48};
use crate::mapping::file::{self as files, ChunkWriter};
use crate::page::meta::{self, LogDescriptor, MetaPage, Slot};
use crate::tree::Finding;
use crate::txn::log::replay;
use crate::txn::log::scan::LogDamage;
use crate::txn::open::survey::{self, Candidate, Survey};

/// The result of [`plan`]: the newest state, and the target state to go back to.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The state that the newest meta page of the target's database describes.
    pub(crate) newest: Candidate,
    /// Damage of the newest state, if there is any.
    pub(crate) damage: Option<Finding>,
    /// The target: the newest whole state.
    pub(crate) target: Candidate,
    /// Why Mapleaf cannot have written the slots like this. Then a slot is rewritten even if no
    /// state is given up, here or by the checkpoint of a replay. `None` for slots that fit each
    /// other.
    pub(crate) contradiction: Option<String>,
    /// The contents of the meta pages.
    pub(crate) slots: [Slot; 2],
    /// The commit log after the target state, if there is one. `None` also if the slots contradict
    /// each other and there was no record.
    pub(crate) log: Option<LogTail>,
    /// Length of the file, in bytes.
    pub(crate) found: u64,
    /// Tables of the newest state with their entry counts, as far as they can be read.
    pub(crate) before: Vec<(String, u64)>,
    /// Tables of the target with their entry counts.
    pub(crate) after: Vec<(String, u64)>,
}

/// The transactions that a commit log adds to the state of a meta page.
#[derive(Clone, Debug)]
pub(crate) struct LogTail {
    /// The newest transaction that can be replayed.
    pub(crate) newest: TxnId,
    pub(crate) damage: Option<LogDamage>,
}

impl LogTail {
    fn of(file: &File, meta: &MetaPage) -> Option<LogTail> {
        (meta.log.pages > 0).then(|| {
            let log = replay::read_log(file, meta);
            LogTail { newest: log.newest(meta), damage: log.damage }
        })
    }
}

impl Plan {
    /// Whether going back gives up a commit.
    pub(crate) fn loses(&self) -> bool {
        self.newest != self.target
    }

    /// Whether the caller goes on by a replay of the target's log.
    pub(crate) fn replays(&self) -> bool {
        !self.loses() && self.log.is_some()
    }

    /// Whether a meta page has to be written for the file to open with the target.
    fn rewrites(&self) -> bool {
        self.loses() || (self.contradiction.is_some() && !self.replays())
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.loses() && self.contradiction.is_none() && self.target.needed() <= self.found
    }
}

/// Reads every page in use to find the newest whole state. The caller holds the lock.
pub(crate) fn plan(path: &Path, file: &File) -> Result<Plan> {
    let found = files::length(file).map_err(|e| Error::io("reading the length", path, e))?;
    let probe = survey::probe(file);
    let contradiction = meta::contradiction(&probe.slots);
    let candidates = survey::candidates(&probe);
    let Some(&newest) = candidates.first() else {
        let what = "no meta page is usable; 'kvctl salvage FILE OUT' copies what can still be read".to_string();
        return Err(Error::Corrupt { path: Some(path.to_path_buf()), page: None, table: None, what });
    };
    let mut surveyed: Vec<(Candidate, Survey)> = Vec::new();
    for candidate in candidates {
        let survey = survey::survey(file, found, &candidate.meta);
        let is_whole = survey.damage.is_none();
        surveyed.push((candidate, survey));
        if is_whole {
            break;
        }
    }
    let Some((target, whole)) = surveyed.last().filter(|(_, survey)| survey.damage.is_none()).cloned() else {
        return Err(nothing_whole(path, &newest, found, surveyed.swap_remove(0).1.damage));
    };
    // A meta page of another database does not belong to this history.
    let of_target = |(candidate, _): &(Candidate, Survey)| candidate.meta.uuid == target.meta.uuid;
    let found_newest = surveyed.into_iter().find(of_target);
    let (newest, first) = found_newest.unwrap_or_else(|| unreachable!("the target is of its own database"));
    // Slots that contradict each other are written again, with a number that no record of the log
    // follows, if the log neither has nor had a record.
    let has_records = |log: &LogTail| log.newest > target.meta.txn || log.damage.is_some();
    let log = LogTail::of(file, &target.meta).filter(|log| contradiction.is_none() || has_records(log));
    let (damage, before, after) = (first.damage, first.tables, whole.tables);
    Ok(Plan { newest, damage, target, contradiction, slots: probe.slots, log, found, before, after })
}

fn nothing_whole(path: &Path, newest: &Candidate, found: u64, damage: Option<Finding>) -> Error {
    if newest.needed() > found {
        return Error::Truncated { path: path.to_path_buf(), needed: newest.needed(), found, whole: None };
    }
    let finding = damage.unwrap_or_else(|| unreachable!("the newest state was not whole"));
    Error::Corrupt {
        path: Some(path.to_path_buf()),
        page: Some(finding.page).filter(|page| !page.is_none()),
        table: finding.table,
        what: format!(
            "{}; no older state is whole either; 'kvctl salvage FILE OUT' copies what can be read",
            finding.what
        ),
    }
}

/// The transaction of the newest whole state, in a file of `found` bytes that is shorter than its
/// newest state needs. The caller holds the lock.
pub(crate) fn whole_of(path: &Path, file: &File, found: u64) -> Option<u64> {
    let plan = plan(path, file).ok().filter(|plan| plan.found == found)?;
    Some(plan.target.meta.txn.0)
}

/// Makes the target state the one that the file opens with. The caller has held the exclusive lock
/// since the plan was made.
pub(crate) fn carry_out(path: &Path, file: &File, plan: &Plan) -> Result<()> {
    if plan.is_nothing() {
        return Ok(());
    }
    // Check first whether the last step can succeed: the file must not be left half-way.
    let wanted = plan.target.needed().saturating_sub(plan.found);
    has_room(path, plan, wanted)?;
    let flush = || files::sync(file).map_err(|e| Error::io("flushing the file", path, e));
    // Pages of the target state may be only in the page cache.
    flush()?;
    if plan.rewrites() {
        give_up(path, file, plan)?;
        hooks::recovering(Recovery::MetaWritten, path);
        flush()?;
        hooks::recovering(Recovery::MetaFlushed, path);
    }
    if plan.rewrites() && plan.contradiction.is_some() {
        // The copies of one slot may differ too. The new meta page is durable, so the target's own
        // slot may be rewritten now.
        write_slot(path, file, &plan.target.meta, plan.target.slot)?;
        flush()?;
    }
    if wanted > 0 {
        lengthen(path, file, plan).map_err(|e| Error::io("making the file longer", path, e).with_wanted(wanted))?;
        flush()?;
    }
    Ok(())
}

/// Writes a meta page that makes the target state the newest, over the slot that does not hold it
/// (ROLLBACK-1).
fn give_up(path: &Path, file: &File, plan: &Plan) -> Result<()> {
    let meta = &plan.target.meta;
    let candidates = survey::candidates(&survey::probe(file));
    let newest = candidates.iter().map(|found| last_txn(file, &found.meta)).max();
    // A meta page that was overwritten may have had the next number, and pages of its state carry
    // it.
    let lost = u64::from(plan.contradiction.is_some());
    let txn = newest.unwrap_or(0).max(plan.newest.meta.txn.0) + 1 + lost;
    if txn > MAX_U48 {
        let what = "the transaction number has reached its maximum; 'kvctl salvage FILE OUT' makes a new file".into();
        return Err(Error::Corrupt { path: Some(path.to_path_buf()), page: None, table: None, what });
    }
    // A new epoch: no record of the log that was given up counts any more.
    let epoch = candidates.iter().map(|found| found.meta.log.epoch).max().unwrap_or(0) + 1;
    let log = LogDescriptor { epoch, ..meta.log };
    write_slot(path, file, &MetaPage { txn: TxnId(txn), log, ..*meta }, plan.target.slot ^ 1)
}

/// The newest transaction that a meta page or its log names. Pages may carry its number.
fn last_txn(file: &File, meta: &MetaPage) -> u64 {
    let Some(log) = LogTail::of(file, meta) else { return meta.txn.0 };
    log.newest.0.max(log.damage.and_then(|damage| damage.durable).map_or(0, |txn| txn.0))
}

/// Writes both copies of a meta page into a slot.
fn write_slot(path: &Path, file: &File, meta: &MetaPage, slot: usize) -> Result<()> {
    let mut page = vec![0; meta.page_size as usize];
    meta.encode_slot(&mut page);
    files::write_at(file, &page, (slot * page.len()) as u64).map_err(|e| Error::io("writing the meta page", path, e))
}

/// An error if the file cannot be extended by `wanted` bytes: the size limit of the process, or a
/// full disk.
fn has_room(path: &Path, plan: &Plan, wanted: u64) -> Result<()> {
    if wanted == 0 {
        return Ok(());
    }
    files::may_have_length(plan.target.needed()).map_err(|e| Error::io("making the file longer", path, e))?;
    let room = files::free_bytes(path).map_err(|e| Error::io("reading the free space of the disk", path, e))?;
    match room < wanted {
        true => Err(Error::DiskFull { path: path.to_path_buf(), wanted }),
        false => Ok(()),
    }
}

/// Extends the file by the missing pages, none of which is in use. Writes zeros, so that they have
/// blocks and a later store cannot hit a full disk.
fn lengthen(path: &Path, file: &File, plan: &Plan) -> io::Result<()> {
    let (page_size, needed) = (plan.target.meta.page_size as usize, plan.target.needed());
    let (writer, zeros) = (ChunkWriter::new(file, page_size), vec![0; page_size]);
    let mut at = plan.found;
    while at < needed {
        let chunk = (page_size as u64 - at % page_size as u64).min(needed - at);
        writer.write_at(at, &zeros[..chunk as usize])?;
        at += chunk;
        hooks::recovering(Recovery::Lengthened, path);
    }
    Ok(())
}
