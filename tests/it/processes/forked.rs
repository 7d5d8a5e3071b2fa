//! Databases in memory that a process shares with its children after `fork`.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use mapleaf::testing::{end_child, ends_without_error, fork, in_forked_child, receive_descriptors, send_descriptors};
use mapleaf::{Db, Error, SharedMemory};

use super::memory::{get, put, shared_db, NUMBERS};
use crate::reexec;

/// A process without other threads, which forks.
#[test]
fn forking_child() {
    if reexec::arguments().is_none() {
        return;
    }
    reexec::watch();
    let (db, memory) = shared_db();
    put(&db, 1, 1);
    let mut inherited = Some(db);
    assert!(in_forked_child(|| {
        let db = inherited.take().expect("the copy");
        for error in [db.begin_read().map(drop), db.begin_write().map(drop), db.share().map(drop)] {
            let error = error.expect_err("a child");
            assert!(matches!(error, Error::Inherited { .. }) && error.to_string().contains("Db::attach"), "{error}");
        }
        let attached = Db::attach(&memory).expect("attached");
        assert_eq!(get(&attached, 1), Some(1));
        drop(db);
        put(&attached, 2, 2);
        assert_eq!(attached.stats().expect("stats").processes, 2, "the parent and the child");
    }));
    let db = inherited.expect("the parent's own");
    assert_eq!((get(&db, 2), db.stats().expect("stats").processes), (Some(2), 1));
    // Parent and child do not share their locks.
    let txn = db.begin_write().expect("begins");
    txn.table(NUMBERS).expect("table").insert(3, 3).expect("inserted");
    assert!(in_forked_child(|| {
        let attached = Db::attach(&memory).expect("attached");
        assert!(attached.try_begin_write().expect("asked").is_none(), "the parent writes");
        assert_eq!(get(&attached, 3), None);
    }));
    txn.commit().expect("committed");
    // A child that ends without closing anything holds nothing.
    assert!(in_forked_child(|| {
        let attached = Db::attach(&memory).expect("attached");
        let txn = attached.begin_write().expect("begins");
        let held = attached.begin_read().expect("begins");
        std::mem::forget((txn, held, attached));
    }));
    put(&db, 4, 4);
    assert!(db.check().expect("check").is_clean());
    reexec::answer("done");
}

#[test]
fn a_forked_child_attaches_to_the_memory_of_its_parent() {
    let mut child = reexec::start(reexec::command("processes::forked::forking_child", &[&"go"]));
    assert_eq!(child.line().as_deref(), Some("done"));
    child.finish();
}

/// A process that passes descriptors to its child through a socket pair. Both commit in turns.
#[test]
fn sending_child() {
    if reexec::arguments().is_none() {
        return;
    }
    reexec::watch();
    const ROUNDS: u64 = 200;
    let turn = |db: &Db, socket: &mut UnixStream, round: u64| {
        assert_eq!(get(db, round), round.checked_sub(1).map(|_| round), "round {round}");
        put(db, round + 1, round + 1);
        socket.write_all(&[1]).expect("told");
    };
    let await_turn = |socket: &mut UnixStream| socket.read_exact(&mut [0]).expect("another process that goes on");
    let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    // The child has no descriptors of the memory but those that it receives.
    let Some(child) = fork() else {
        let run = || {
            drop(ours);
            let [data, records] = receive_descriptors(&theirs).expect("received");
            let db = Db::attach(&SharedMemory::new(data, records)).expect("attached");
            for round in (1..ROUNDS).step_by(2) {
                await_turn(&mut theirs);
                turn(&db, &mut theirs, round);
            }
        };
        end_child(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok());
    };
    drop(theirs);
    let (db, memory) = shared_db();
    send_descriptors(&ours, [memory.data.as_fd(), memory.records.as_fd()]).expect("sent");
    drop(memory);
    for round in (0..ROUNDS).step_by(2) {
        turn(&db, &mut ours, round);
        await_turn(&mut ours);
    }
    assert!(ends_without_error(child));
    assert_eq!(get(&db, ROUNDS), Some(ROUNDS));
    assert!(db.check().expect("check").is_clean());
    reexec::answer("done");
}

#[test]
fn a_process_attaches_by_descriptors_from_a_socket_pair() {
    let mut child = reexec::start(reexec::command("processes::forked::sending_child", &[&"go"]));
    assert_eq!(child.line().as_deref(), Some("done"));
    child.finish();
}

/// A process whose child goes on when it is killed.
#[test]
fn dying_parent() {
    if reexec::arguments().is_none() {
        return;
    }
    reexec::watch();
    let (db, memory) = shared_db();
    put(&db, 0, 1);
    if fork().is_some() {
        // Holds a snapshot and the writer lock until it is killed.
        let txn = db.begin_write().expect("begins");
        let held = db.begin_read().expect("begins");
        reexec::answer("parent holds");
        loop {
            std::thread::park();
            std::hint::black_box((&txn, &held));
        }
    }
    let run = || {
        reexec::progress();
        let db = Db::attach(&memory).expect("attached");
        reexec::answer("child attached");
        while let Some(command) = reexec::listen() {
            let number = command.parse().expect("a number");
            assert_eq!(get(&db, 0), Some(number));
            put(&db, 0, number + 1);
            assert!(db.check().expect("check").is_clean());
            reexec::answer(&format!("{} {}", number + 1, db.stats().expect("stats").processes));
        }
    };
    end_child(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok());
}

#[test]
fn a_child_goes_on_with_shared_memory_when_its_parent_is_killed() {
    let mut parent = reexec::start(reexec::command("processes::forked::dying_parent", &[&"go"]));
    let mut said = [parent.line().expect("a line"), parent.line().expect("a line")];
    said.sort();
    assert_eq!(said, ["child attached", "parent holds"]);
    parent.kill();
    for number in 1..20_u64 {
        parent.say(&number.to_string());
        assert_eq!(parent.line(), Some(format!("{} 1", number + 1)));
    }
}
