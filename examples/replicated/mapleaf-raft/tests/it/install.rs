//! Snapshots: what is installed, what is refused, and a crash at every step of replacing the state.

use std::fs;
use std::path::Path;

use mapleaf_raft::{Incoming, Pinned, SnapshotData, State};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::RaftSnapshotBuilder;
use tokio::runtime::Runtime;

use crate::support::{entries, id, machine, runtime, APPLIED};

fn apply(runtime: &Runtime, dir: &Path, count: u64) {
    let mut machine = machine(dir);
    let applied =
        runtime.block_on(RaftStateMachine::<crate::support::Types>::apply(&mut machine, entries(1, 0..count)));
    assert_eq!(applied.expect("to apply"), vec![1; count as usize]);
}

fn applied(dir: &Path) -> u64 {
    let state = State::open(dir).expect("a state");
    let entries = state.db().begin_read().and_then(|txn| txn.table(APPLIED)).expect("a table").len();
    let (last, _) = state.applied().expect("a position");
    assert_eq!(last, entries.checked_sub(1).map(|last| id(1, last)), "position and table disagree");
    entries
}

/// The snapshot of the state in a directory.
fn snapshot(runtime: &Runtime, dir: &Path) -> Snapshot<crate::support::Types> {
    runtime.block_on(async {
        let mut machine = machine(dir);
        let mut builder = RaftStateMachine::<crate::support::Types>::get_snapshot_builder(&mut machine).await;
        builder.build_snapshot().await.expect("a snapshot")
    })
}

fn stream(snapshot: &Snapshot<crate::support::Types>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let SnapshotData::Pinned(pinned) = &*snapshot.snapshot else { panic!("not pinned") };
    pinned.write_to(&mut bytes).expect("to write");
    bytes
}

#[test]
fn a_snapshot_replaces_the_state_and_old_readers_go_on() {
    let (from, to, runtime) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"), runtime());
    apply(&runtime, from.path(), 1_000);
    apply(&runtime, to.path(), 10);
    let snapshot = snapshot(&runtime, from.path());
    let bytes = stream(&snapshot);

    let state = State::open(to.path()).expect("a state");
    let before = state.db().begin_read().expect("a reader");
    let incoming = Incoming::receive(&state, &bytes[..]).expect("to receive");
    let mut machine = mapleaf_raft::StateMachine::new(state.clone(), crate::support::Count);
    let data = Box::new(SnapshotData::Received(incoming));
    runtime
        .block_on(async {
            RaftStateMachine::<crate::support::Types>::install_snapshot(&mut machine, &snapshot.meta, data).await
        })
        .expect("to install");
    assert_eq!(before.table(APPLIED).expect("a table").len(), 10);
    assert_eq!(state.db().begin_read().and_then(|txn| txn.table(APPLIED)).expect("a table").len(), 1_000);
    drop((before, machine, state));
    assert_eq!(applied(to.path()), 1_000);
    let names: Vec<_> = fs::read_dir(to.path()).expect("a directory").map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with("state-2.mapleaf")), "{names:?}");
}

/// What a crash can leave: each step of replacing the state, in order.
#[test]
fn a_crash_while_a_state_is_replaced_leaves_the_old_or_the_new_one() {
    let (from, runtime) = (tempfile::tempdir().expect("one"), runtime());
    apply(&runtime, from.path(), 100);
    let bytes = stream(&snapshot(&runtime, from.path()));
    for step in 0..5 {
        let to = tempfile::tempdir().expect("two");
        apply(&runtime, to.path(), 10);
        let (old, new) = (to.path().join("state-1.mapleaf"), to.path().join("state-2.mapleaf"));
        let part = to.path().join("state-0.part");
        match step {
            0 => fs::write(&part, b"").expect("an empty file"),
            1 => fs::write(&part, &bytes[..bytes.len() / 2]).expect("some bytes"),
            _ => drop(fs::copy(from.path().join("state-1.mapleaf"), &part).expect("a copy")),
        }
        if step >= 3 {
            fs::rename(&part, &new).expect("to rename");
        }
        if step >= 4 {
            fs::remove_file(&old).expect("to remove");
        }
        assert_eq!(applied(to.path()), if step >= 3 { 100 } else { 10 }, "step {step}");
        let left = fs::read_dir(to.path()).expect("a directory").filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            !name.to_string_lossy().ends_with("-lock")
        });
        assert_eq!(left.count(), 1, "step {step}");
    }
}

#[test]
fn a_snapshot_that_is_not_what_was_announced_is_refused() {
    let (from, to, runtime) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"), runtime());
    apply(&runtime, from.path(), 100);
    let mut snapshot = snapshot(&runtime, from.path());
    let bytes = stream(&snapshot);
    snapshot.meta.last_log_id = Some(id(1, 200));
    let mut machine = machine(to.path());
    let state = State::open(to.path()).expect("the same state");
    let data = Box::new(SnapshotData::Received(Incoming::receive(&state, &bytes[..]).expect("to receive")));
    let refused = runtime.block_on(async {
        RaftStateMachine::<crate::support::Types>::install_snapshot(&mut machine, &snapshot.meta, data).await
    });
    let text = refused.expect_err("another position").to_string();
    assert!(text.contains("as announced"), "{text}");
    drop(machine);
    assert_eq!(applied(to.path()), 0);
}

#[test]
fn a_pinned_state_is_not_changed_by_later_entries() {
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    apply(&runtime, dir.path(), 10);
    let mut machine = machine(dir.path());
    let state = State::open(dir.path()).expect("the same state");
    let pinned = Pinned::new(&state).expect("a snapshot");
    runtime
        .block_on(RaftStateMachine::<crate::support::Types>::apply(&mut machine, entries(1, 10..20)))
        .expect("to apply");
    assert_eq!(pinned.applied().expect("a position").0, Some(id(1, 9)));
    assert_eq!(state.applied().expect("a position").0, Some(id(1, 19)));
}

#[test]
fn an_entry_is_not_applied_twice() {
    let (dir, runtime) = (tempfile::tempdir().expect("a directory"), runtime());
    apply(&runtime, dir.path(), 10);
    let mut machine = machine(dir.path());
    let again = runtime.block_on(RaftStateMachine::<crate::support::Types>::apply(&mut machine, entries(1, 9..11)));
    let text = again.expect_err("it is applied already").to_string();
    assert!(text.contains("entry 9 is applied already; the last one is 9"), "{text}");
    drop(machine);
    assert_eq!(applied(dir.path()), 10);
}

#[test]
fn a_state_that_is_being_received_outlives_the_installation_of_another() {
    let (from, to, runtime) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"), runtime());
    apply(&runtime, from.path(), 100);
    let snapshot = snapshot(&runtime, from.path());
    let bytes = stream(&snapshot);
    let mut machine = machine(to.path());
    let state = State::open(to.path()).expect("the same state");
    let two = [(); 2].map(|()| Incoming::receive(&state, &bytes[..]).expect("to receive"));
    for incoming in two {
        let data = Box::new(SnapshotData::Received(incoming));
        let installed = runtime.block_on(async {
            RaftStateMachine::<crate::support::Types>::install_snapshot(&mut machine, &snapshot.meta, data).await
        });
        installed.expect("to install");
    }
    drop((machine, state));
    assert_eq!(applied(to.path()), 100);
}
