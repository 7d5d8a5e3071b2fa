//! What the log of a group must hold: its contents after each of the changes that were asked for.

use mapleaf_raft::LogStore;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::{Entry, LogId, Vote};
use tokio::runtime::Runtime;

use super::disk::Rng;
use crate::support::{entry, id, Types};

/// The contents of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) purged: Option<LogId<u64>>,
    pub(crate) entries: Vec<Entry<Types>>,
    pub(crate) vote: Option<Vote<u64>>,
}

impl Contents {
    pub(crate) fn of(runtime: &Runtime, log: &mut LogStore<Types>) -> Contents {
        runtime.block_on(async {
            let purged = log.get_log_state().await.expect("a state").last_purged_log_id;
            let entries = log.try_get_log_entries(..).await.expect("entries");
            Contents { purged, entries, vote: log.read_vote().await.expect("a vote") }
        })
    }

    pub(crate) fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    pub(crate) fn next(&self) -> u64 {
        self.first() + self.entries.len() as u64
    }
}

/// A change of a log.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Append(Vec<Entry<Types>>),
    Truncate(LogId<u64>),
    Purge(LogId<u64>),
    Vote(Vote<u64>),
}

impl Change {
    /// A change that Raft may ask for. Entries below `committed` stay, and only those up to
    /// `durable`, the position of a snapshot, are purged.
    pub(crate) fn any(log: &Contents, term: &mut u64, committed: u64, durable: Option<u64>, rng: &mut Rng) -> Change {
        let (first, next) = (log.first(), log.next());
        match rng.below(8) {
            0 => {
                *term += 1;
                Change::Vote(Vote::new(*term, rng.below(3)))
            }
            1 if next > committed.max(first) => {
                let from = committed.max(first) + rng.below(next - committed.max(first));
                *term += 1;
                Change::Truncate(log.entries[(from - first) as usize].log_id)
            }
            2 if durable.is_some_and(|durable| durable >= first) => {
                let upto = first + rng.below(durable.unwrap_or(0) + 1 - first);
                Change::Purge(log.entries[(upto - first) as usize].log_id)
            }
            _ => {
                let count = 1 + rng.below(4);
                let size = if rng.below(8) == 0 { 6_000 } else { 20 };
                let text = |index: u64| format!("request {index} of term {term} {}", "x".repeat(size));
                Change::Append((next..next + count).map(|index| entry(*term, index, &text(index))).collect())
            }
        }
    }

    /// The contents after the change.
    pub(crate) fn after(&self, log: &Contents) -> Contents {
        let mut log = log.clone();
        match self {
            Change::Append(entries) => log.entries.extend(entries.iter().cloned()),
            Change::Truncate(id) => log.entries.retain(|entry| entry.log_id.index < id.index),
            Change::Purge(id) => {
                log.purged = Some(*id);
                log.entries.retain(|entry| entry.log_id.index > id.index);
            }
            Change::Vote(vote) => log.vote = Some(*vote),
        }
        log
    }

    /// Makes the change, and returns when it is acknowledged.
    pub(crate) fn make(&self, runtime: &Runtime, log: &mut LogStore<Types>) {
        let made = runtime.block_on(async {
            match self.clone() {
                Change::Append(entries) => log.blocking_append(entries).await,
                Change::Truncate(id) => log.truncate(id).await,
                Change::Purge(id) => log.purge(id).await,
                Change::Vote(vote) => log.save_vote(&vote).await,
            }
        });
        made.expect("a change");
    }
}

/// The id of the last of so many entries.
pub(crate) fn last_of(log: &Contents, count: u64) -> LogId<u64> {
    let at = (count - 1 - log.first()) as usize;
    id(log.entries[at].log_id.leader_id.term, count - 1)
}
