//! The files of a node: one that is missing or damaged is noticed, and a copy seeds a node.

use std::fs;
use std::path::Path;

use mapleaf::{Db, Table};
use mapleaf_raft::{Node, StateMachine};
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::{RaftSnapshotBuilder, Vote};

use crate::support::{append, entries, id, runtime, Count, Types, APPLIED};

/// A node with a purged log.
fn node(dir: &Path) {
    let runtime = runtime();
    let Node { mut log, state, .. } = Node::<Types>::open(dir).expect("a node");
    append(&runtime, &mut log, entries(1, 0..10));
    let mut machine = StateMachine::new(state, Count);
    runtime.block_on(async {
        RaftStateMachine::<Types>::apply(&mut machine, entries(1, 0..8)).await.expect("to apply");
        let mut builder = RaftStateMachine::<Types>::get_snapshot_builder(&mut machine).await;
        RaftSnapshotBuilder::<Types>::build_snapshot(&mut builder).await.expect("a snapshot");
        log.purge(id(1, 5)).await.expect("to purge");
    });
}

#[test]
fn a_node_opens_again() {
    let dir = tempfile::tempdir().expect("a directory");
    node(dir.path());
    let Node { mut log, state, .. } = Node::<Types>::open(dir.path()).expect("the node again");
    assert_eq!(state.applied().expect("a position").0, Some(id(1, 7)));
    let read = runtime().block_on(log.try_get_log_entries(8..)).expect("to read");
    assert_eq!(read, entries(1, 8..10));
}

#[test]
fn a_node_without_its_state_or_without_its_log_is_refused() {
    for (lost, expected) in [
        ("state-1.mapleaf", "the log begins after entry 5, and the state is only at entry 0"),
        ("log.mapleaf", "the log is missing, and with it the votes of this node"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        node(dir.path());
        fs::remove_file(dir.path().join(lost)).expect("to remove");
        let text = Node::<Types>::open(dir.path()).expect_err(lost).to_string();
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("let it join again"), "{text}");
    }
}

#[test]
fn a_node_with_a_file_that_was_cut_is_refused() {
    for cut in ["state-1.mapleaf", "log.mapleaf"] {
        let dir = tempfile::tempdir().expect("a directory");
        node(dir.path());
        let file = fs::OpenOptions::new().write(true).open(dir.path().join(cut)).expect("the file");
        file.set_len(8192).expect("to cut");
        let text = Node::<Types>::open(dir.path()).expect_err(cut).to_string();
        assert!(text.contains(cut), "{text}");
    }
}

#[test]
fn a_copy_seeds_the_only_member_of_a_new_cluster() {
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    let from = dir.path().join("from.mapleaf");
    Db::open(&from).and_then(|db| db.write(|txn| txn.table(APPLIED)?.put(3, "three"))).expect("to write");

    let new = dir.path().join("new");
    let seeded = Node::<Types>::open_seeded(&new, &from, 4, "here:1").expect("a node");
    let Node { mut log, state, .. } = seeded;
    let (last, membership) = state.applied().expect("a position");
    assert_eq!(membership.voter_ids().collect::<Vec<_>>(), [4]);
    assert_eq!(membership.membership().get_node(&4).map(|node| node.addr.as_str()), Some("here:1"));
    let log_state = runtime.block_on(log.get_log_state()).expect("a state");
    assert_eq!((log_state.last_purged_log_id, log_state.last_log_id), (last, last));
    assert_eq!(runtime.block_on(log.read_vote()).expect("a vote"), Some(Vote::new(1, 4)));
    let three = Table::<u64, &str>::new("applied");
    assert_eq!(state.db().begin_read().unwrap().table(three).unwrap().get(3).unwrap(), Some("three"));
    drop((log, state));

    let again = Node::<Types>::open_seeded(&new, &from, 4, "here:1").expect_err("not empty").to_string();
    assert!(again.contains("has a state already; seed an empty directory"), "{again}");
}
