//! Opening a file that no member has open: finds its newest state, and replays its log.
//!
//! Floor: txn. The caller holds the gate.
//!
//! Failure: every error names the file and the remedy.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hooks::FlushKind;
use crate::limits;
use crate::mapping::{file, Mapping};
use crate::page::meta::MetaPage;
use crate::txn::env::{Env, EnvParts};
use crate::txn::live::Live;
use crate::txn::log::replay;
use crate::txn::log::scan::Scan;
use crate::txn::open::create::{initialise, is_blank};
use crate::txn::open::newest_meta::{metas, newest_meta};
use crate::txn::open::survey::Candidate;
use crate::txn::open::{cache_validation, map_options, rollback, survey, OpenSpec};
use crate::txn::processes::descriptor::Gate;
use crate::txn::processes::lock_file;
use crate::txn::processes::presence::{FileId, FileLock, Wanted};
use crate::txn::state::State;

/// Opens a file that no member has open, and replays its log.
pub(super) fn open_first(
    path: &Path,
    file: File,
    (spec, wanted): (&OpenSpec, Wanted),
    (mut lock, gate): (FileLock, Gate),
) -> Result<Arc<Env>> {
    let id = lock.id();
    initialise_blank(path, &file, spec)?;
    let may_be_clean = !spec.recover && (!spec.read_only || lock.may_share());
    let found = find_state(path, &file, (id, may_be_clean), spec)?;
    let NewestState { meta, slot, closed_cleanly, cache_dropped, rewrites_slot } = found;
    if spec.read_only && !closed_cleanly {
        // Only a process that may write to the file could make it one that others can join.
        lock.read_plainly(path)?;
    }
    let (needed, len) = check_length(path, &file, &meta)?;
    let log = find_log(path, &file, &meta, spec)?;
    // A replay may use the space after the state, whose blocks are reserved already.
    let options = map_options(&meta, spec, (spec.read_only || log.is_none()).then_some(needed));
    let replays = log.as_ref().is_some_and(|log| !log.records.is_empty());
    let parts = |lock, live: Live| EnvParts {
        path: path.to_path_buf(),
        meta,
        live: live.begin(State::from_meta(&meta), slot),
        read_only: spec.read_only,
        opened: spec.clone(),
        lock,
    };
    let memory = match &log {
        Some(log) if !spec.read_only => replay::in_memory(&file, (parts(None, Live::private()), slot), options, log)?,
        _ => None,
    };
    let records = lock.share(path, wanted)?;
    let mapped = match (&records, spec.read_only && replays) {
        (_, true) => Mapping::over_file(file, needed, options),
        (Some(live), _) => Mapping::of_shared_file(file, !spec.read_only, options, live.length(), false),
        (None, _) => Mapping::of_file(file, !spec.read_only, options),
    };
    let mapping = mapped.map_err(|e| Error::io("mapping the file", path, e))?;
    mapping.set_read_ahead(spec.read_ahead.unwrap_or_default());
    if !spec.read_only && !closed_cleanly {
        prepare_unclean(path, &mapping, needed, log.is_none() && len > needed)?;
    }
    let live = records.unwrap_or_else(Live::private);
    let env = Arc::new(Env::new(parts(Some(lock), live), mapping));
    let replayed = match log.filter(|_| !spec.read_only || replays) {
        Some(log) => replay::replay(&env, (&meta, slot), &log, memory),
        None => Ok(()),
    };
    let replayed = match rewrites_slot && !spec.read_only {
        true => replayed.and_then(|()| replay::write_other_slot(&env)),
        false => replayed,
    };
    let admitted = replayed.and_then(|()| admit_others(&env, cache_dropped)).map(|()| Arc::clone(&env));
    // After an error this process leaves, inside the gate.
    drop(env);
    drop(gate);
    admitted
}

/// Returns the bytes that a state needs and those that the file has, which are at least as many.
fn check_length(path: &Path, file: &File, meta: &MetaPage) -> Result<(u64, u64)> {
    let found = file::length(file).map_err(|e| Error::io("reading the length", path, e))?;
    match meta.page_count.saturating_mul(u64::from(meta.page_size)) {
        needed if needed <= found => Ok((needed, found)),
        needed => Err(Error::Truncated { path: path.to_path_buf(), needed, found, whole: None }),
    }
}

/// Ends an opening that has succeeded: forgets an earlier failed flush, and begins a session, which
/// other processes may join.
fn admit_others(env: &Env, cache_dropped: bool) -> Result<()> {
    if let (true, false, Some(lock)) = (cache_dropped, env.read_only, &env.lock) {
        // Only now is the state durable that was read after the cache was dropped (P20).
        cache_validation::forget_failed_flush(env.path(), lock.file(), lock.id());
    }
    env.claim_reader_slots()?;
    match env.is_member() {
        true => lock_file::begin_session(&env.live).map_err(|e| Error::io("reading random numbers", env.path(), e)),
        false => Ok(()),
    }
}

/// Prepares a file for writing that was not closed cleanly.
///
/// A killed process may have left its newest meta page only in the page cache. It is flushed before
/// readers see its state or a commit builds on it (R7, R10); otherwise a power loss could bring
/// back the older state after its pages were reused.
fn prepare_unclean(path: &Path, mapping: &Mapping, needed: u64, cuts: bool) -> Result<()> {
    mapping.flush(FlushKind::Tree, 0, needed).map_err(|e| Error::io("flushing the file", path, e))?;
    if cuts {
        // Cut only after the flush: the meta page found, which may need less than the older one, is
        // durable now.
        mapping.shrink(needed).map_err(|e| Error::io("cutting off unused space", path, e))?;
    }
    mapping.ready_to_write().map_err(|e| Error::io("mapping the file for writing", path, e))
}

/// Makes an empty file a database, if the options say so.
fn initialise_blank(path: &Path, file: &File, spec: &OpenSpec) -> Result<()> {
    let len = file::length(file).map_err(|e| Error::io("reading the length", path, e))?;
    let may = spec.init_empty && !spec.read_only;
    match len {
        0 if may => initialise(path, file, spec),
        0 => Err(Error::EmptyFile { path: path.to_path_buf() }),
        // A power loss while an empty file was initialised can leave the new length without the
        // bytes.
        _ if may && len <= 2 * limits::PAGE_SIZE_MAX as u64 && is_blank(file, len) => initialise(path, file, spec),
        _ => Ok(()),
    }
}

/// Reads the commit log of a file that was not closed cleanly. `None` if it has no log.
fn find_log(path: &Path, file: &File, meta: &MetaPage, spec: &OpenSpec) -> Result<Option<Scan>> {
    let log = (meta.log.pages > 0).then(|| replay::read_log(file, meta));
    match log.as_ref().and_then(|log| log.damage.as_ref()).filter(|_| !spec.replay_to_damage) {
        Some(damage) => Err(replay::damage_error(path, damage)),
        None => Ok(log),
    }
}

/// The state that a file is opened with, and how far the file can be trusted.
struct NewestState {
    meta: MetaPage,
    slot: usize,
    /// The file was closed cleanly, so the work for a writer can wait until there is one.
    closed_cleanly: bool,
    /// The page cache was dropped, because it may have held bytes that the disk does not have.
    cache_dropped: bool,
    /// The slots contradict each other, and the replay writes only one of them.
    rewrites_slot: bool,
}

/// Finds the newest state of a file, or the one that recovery goes back to.
fn find_state(path: &Path, file: &File, (id, may_be_clean): (FileId, bool), spec: &OpenSpec) -> Result<NewestState> {
    let len = file::length(file).map_err(|e| Error::io("reading the length", path, e))?;
    if may_be_clean && !cache_validation::has_failed_flush(path, file, id) {
        // A file that is being written is longer than its newest state (MAP-5). So if the lengths
        // are equal, the file was closed cleanly, or opened and never written to.
        match newest_meta(path, file) {
            Ok((meta, slot)) if meta.log.pages == 0 && meta.page_count.saturating_mul(meta.page_size.into()) == len => {
                let cache_dropped = false;
                return Ok(NewestState { meta, slot, closed_cleanly: true, cache_dropped, rewrites_slot: false });
            }
            _ => {}
        }
    }
    let cache_dropped = cache_validation::validate(path, file, id, spec.read_only)?;
    let mut target =
        spec.replay_from.filter(|(_, slots)| survey::probe(file).slots == *slots).map(|(target, _)| target);
    let mut rewrites_slot = false;
    if spec.recover {
        metas(path, file)?;
        let plan = rollback::plan(path, file)?;
        rollback::carry_out(path, file, &plan)?;
        target = plan.replays().then_some(plan.target);
        rewrites_slot = plan.replays() && plan.contradiction.is_some();
    }
    let (meta, slot) = match target {
        Some(Candidate { meta, slot }) => (meta, slot),
        None => newest_meta(path, file)?,
    };
    Ok(NewestState { meta, slot, closed_cleanly: false, cache_dropped, rewrites_slot })
}
