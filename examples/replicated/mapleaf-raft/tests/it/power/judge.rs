//! Opens an image of both files and checks what Raft needs of it.

use std::fs;

use mapleaf_raft::{LogStore, Node, State, StateMachine};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::disk::Image;
use super::model::Contents;
use super::run::{Group, Tally, World};
use crate::support::{runtime, Count, Types, APPLIED, TIMES};

/// Judges images, one after the other, in a directory of its own.
pub(crate) struct Judge {
    dir: TempDir,
    runtime: Runtime,
}

impl Judge {
    pub(crate) fn new() -> Judge {
        let shm = std::path::Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        Judge { dir: dir.expect("a directory"), runtime: runtime() }
    }

    /// Says what Raft would not permit.
    pub(crate) fn judge(&self, world: &World, log: &Image, state: &Image, tally: &mut Tally) -> Result<(), String> {
        for entry in fs::read_dir(self.dir.path()).expect("a directory") {
            fs::remove_file(entry.expect("an entry").path()).expect("to remove an image");
        }
        log.write(&self.dir.path().join("log.mapleaf"));
        state.write(&self.dir.path().join("state-1.mapleaf"));
        let opened = Node::<Types>::open(self.dir.path()).map_err(|e| format!("opening the files: {e}"))?;
        let Node { file, mut log, state } = opened;
        let mut second = file.group::<Types>(1).map_err(|e| format!("opening group 1: {e}"))?;
        let found = Contents::of(&self.runtime, &mut log);
        tally.changes_lost += u64::from(check_log(0, &world.groups[0], &found)?);
        let other = Contents::of(&self.runtime, &mut second);
        tally.changes_lost += u64::from(check_log(1, &world.groups[1], &other)?);
        let applied = check_state(world, &state)?;
        if applied < found.first() {
            return Err(format!("the state at {applied} lacks entries that were purged up to {}", found.first()));
        }
        tally.replays += u64::from(self.replay(world, &mut log, state, applied)?);
        Ok(())
    }

    /// Applies the committed entries that the state lacks. Whether there were any.
    fn replay(&self, world: &World, log: &mut LogStore<Types>, state: State, applied: u64) -> Result<bool, String> {
        let mut machine = StateMachine::new(state.clone(), Count);
        let replayed = self.runtime.block_on(async {
            let committed = log.read_committed().await.map_err(|e| e.to_string())?;
            let end = committed.map_or(0, |id| id.index + 1);
            if end <= applied {
                return Ok(false);
            }
            let entries = log.try_get_log_entries(applied..end).await.map_err(|e| e.to_string())?;
            if entries.len() as u64 != end - applied {
                return Err(format!("the log has {} of the entries {applied}..{end}", entries.len()));
            }
            RaftStateMachine::<Types>::apply(&mut machine, entries).await.map_err(|e| e.to_string())?;
            Ok(true)
        })?;
        // Entries may be committed that were not applied before the cut.
        if let Some(times) = not_once(&state)? {
            return Err(format!("the state at {applied} after a replay has {times}"));
        }
        let known = world.applied.len() as u64;
        let after = position(&state)?;
        (!replayed || after >= applied.min(known)).then_some(replayed).ok_or("a replay went back".to_string())
    }
}

/// Whether changes that were not acknowledged are missing.
fn check_log(number: u64, group: &Group, found: &Contents) -> Result<bool, String> {
    let permitted = &group.history[group.acknowledged..];
    match permitted.iter().rposition(|contents| contents == found) {
        Some(at) => Ok(at + 1 < permitted.len()),
        None => Err(format!(
            "the log of group {number} has vote {:?} and entries {}..{}, and must have vote {:?} and entries {}..{}",
            found.vote,
            found.first(),
            found.next(),
            permitted[0].vote,
            permitted[0].first(),
            permitted[0].next()
        )),
    }
}

fn position(state: &State) -> Result<u64, String> {
    let (last, _) = state.applied().map_err(|e| e.to_string())?;
    Ok(last.map_or(0, |id| id.index + 1))
}

/// Checks that the state holds each entry up to its position once. Returns how many these are.
fn check_state(world: &World, state: &State) -> Result<u64, String> {
    let applied = position(state)?;
    if applied < world.durable {
        return Err(format!("the state at {applied} lacks entries of a snapshot of {}", world.durable));
    }
    let txn = state.db().begin_read().map_err(|e| e.to_string())?;
    let table = txn.table(APPLIED).map_err(|e| e.to_string())?;
    let mut count = 0;
    for item in table.iter() {
        let (index, request) = item.map_err(|e| e.to_string())?;
        if world.applied.get(index as usize).map(String::as_str) != Some(request) || index != count {
            return Err(format!("the state at {applied} has another entry {index}"));
        }
        count += 1;
    }
    if count != applied {
        return Err(format!("the state at {applied} has {count} entries"));
    }
    match not_once(state)? {
        Some(times) => Err(format!("the state at {applied} has {times}")),
        None => Ok(applied),
    }
}

/// A request that was not applied once.
fn not_once(state: &State) -> Result<Option<String>, String> {
    let txn = state.db().begin_read().map_err(|e| e.to_string())?;
    let times = txn.table(TIMES).map_err(|e| e.to_string())?;
    for item in times.iter() {
        let (request, times) = item.map_err(|e| e.to_string())?;
        if times != 1 {
            return Ok(Some(format!("{request:.40?} applied {times} times")));
        }
    }
    Ok(None)
}
