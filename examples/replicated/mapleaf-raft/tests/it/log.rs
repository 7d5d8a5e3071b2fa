//! The log: positions after opening again, shared flushes, and what it refuses.

use mapleaf_raft::{LogFile, LogStore};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::Vote;
use tempfile::TempDir;

use crate::support::{append, entries, entry, id, runtime, Types};

fn open(dir: &TempDir) -> LogStore<Types> {
    LogFile::open(dir.path().join("log.mapleaf")).expect("a file").group(0).expect("a log")
}

#[test]
fn positions_entries_and_votes_are_there_after_opening_again() {
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let mut log = open(&dir);
    append(&runtime, &mut log, entries(1, 0..10));
    runtime.block_on(async {
        log.save_vote(&Vote::new(3, 2)).await.expect("to vote");
        log.purge(id(1, 3)).await.expect("to purge");
        log.truncate(id(1, 8)).await.expect("to truncate");
        log.save_committed(Some(id(1, 6))).await.expect("to save");
    });
    drop(log);

    let mut log = open(&dir);
    runtime.block_on(async {
        let state = log.get_log_state().await.expect("a state");
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 3)), Some(id(1, 7))));
        assert_eq!(log.read_vote().await.expect("to read"), Some(Vote::new(3, 2)));
        assert_eq!(log.read_committed().await.expect("to read"), Some(id(1, 6)));
        let read = log.try_get_log_entries(..).await.expect("to read");
        assert_eq!(read, entries(1, 4..8));
    });
}

#[test]
fn truncated_entries_are_replaced_and_nothing_of_them_is_left() {
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let mut log = open(&dir);
    append(&runtime, &mut log, entries(1, 0..5));
    runtime.block_on(log.truncate(id(1, 2))).expect("to truncate");
    append(&runtime, &mut log, entries(2, 2..4));
    let expected = [entries(1, 0..2), entries(2, 2..4)].concat();
    assert_eq!(runtime.block_on(log.try_get_log_entries(..)).expect("to read"), expected);
    drop(log);
    assert_eq!(runtime.block_on(open(&dir).try_get_log_entries(..)).expect("to read"), expected);
}

#[test]
fn what_is_read_at_once_is_limited_in_bytes_but_never_empty() {
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let mut log = open(&dir);
    let long = "x".repeat(1_500_000);
    append(&runtime, &mut log, (0..4).map(|index| entry(1, index, &long)).collect());
    let read = runtime.block_on(log.limited_get_log_entries(0, 4)).expect("to read");
    assert_eq!(read.len(), 1);
    let longer = "x".repeat(5_000_000);
    append(&runtime, &mut log, vec![entry(1, 4, &longer)]);
    assert_eq!(runtime.block_on(log.limited_get_log_entries(4, 5)).expect("to read").len(), 1);
}

#[test]
fn an_append_that_leaves_a_gap_is_refused() {
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let mut log = open(&dir);
    append(&runtime, &mut log, entries(1, 0..2));
    let refused = runtime.block_on(log.blocking_append(entries(1, 3..4)));
    let text = refused.expect_err("a gap").to_string();
    assert!(text.contains("entry 3 does not follow the log; the next one is 2"), "{text}");
}

#[test]
fn a_group_has_one_store_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = LogFile::open(dir.path().join("log.mapleaf")).expect("a file");
    let first: LogStore<Types> = file.group(7).expect("a log");
    let text = file.group::<Types>(7).expect_err("it is in use").to_string();
    assert_eq!(text, "the log of group 7 is in use; drop its store first");
    drop(first);
    file.group::<Types>(7).expect("it is free again");
}

/// The writer is kept from beginning a transaction until all appends are queued: then it has at
/// most one of them in hand, and writes all others by the next commit.
#[test]
fn appends_of_several_groups_share_a_flush() {
    const GROUPS: u64 = 20;
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let file = LogFile::open(dir.path().join("log.mapleaf")).expect("a file");
    let logs: Vec<LogStore<Types>> = (0..GROUPS).map(|group| file.group(group).expect("a log")).collect();
    let blocker = file.db().begin_write().expect("a transaction");
    runtime.block_on(async {
        let appends: Vec<_> = logs
            .into_iter()
            .map(|mut log| {
                tokio::spawn(async move {
                    log.blocking_append(entries(1, 0..3)).await.expect("to append");
                })
            })
            .collect();
        while file.queued() < GROUPS {
            tokio::task::yield_now().await;
        }
        blocker.abort();
        for append in appends {
            append.await.expect("a task");
        }
    });
    assert_eq!(file.changes(), GROUPS);
    assert!(file.flushes() <= 2, "{} flushes", file.flushes());
}

#[test]
fn entries_can_be_read_before_they_are_durable() {
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let file = LogFile::open(dir.path().join("log.mapleaf")).expect("a file");
    let mut log: LogStore<Types> = file.group(0).expect("a log");
    append(&runtime, &mut log, entries(1, 0..2));
    let blocker = file.db().begin_write().expect("a transaction");
    runtime.block_on(async {
        let (mut reader, queued) = (log.get_log_reader().await, file.queued());
        let append = tokio::spawn(async move { log.blocking_append(entries(1, 2..4)).await });
        while file.queued() == queued {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.try_get_log_entries(1..).await.expect("to read"), entries(1, 1..4));
        assert!(!append.is_finished(), "acknowledged before it was written");
        blocker.abort();
        append.await.expect("a task").expect("to append");
        assert_eq!(reader.try_get_log_entries(1..).await.expect("to read"), entries(1, 1..4));
    });
}
