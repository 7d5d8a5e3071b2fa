//! A kernel that refuses every kind of flush: writing is impossible, and no data is lost.

use mapleaf::testing::{answer_calls, Answer, Matching};
use mapleaf::{Db, Table};

use crate::reexec;
use crate::workload::fast_dir;

const COUNTS: Table<u32, u32> = Table::new("counts");

#[test]
fn refused_flushes_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let path = &arguments[0];
    let db = Db::open(path).expect("opens");
    let flushes = [libc::SYS_msync, libc::SYS_fdatasync, libc::SYS_fsync];
    let flushes: Vec<_> = flushes.iter().map(|&number| Matching { number, arguments: &[] }).collect();
    answer_calls(&flushes, Answer::Refuse(libc::EPERM), Answer::Obey).expect("a filter");
    for _ in 0..2 {
        let refused = db.begin_write().map(drop).expect_err("no flush").to_string();
        assert!(refused.contains("sandbox?") && !refused.contains("earlier failure"), "{refused}");
        let read = db.begin_read().expect("reading goes on");
        assert_eq!(read.table(COUNTS).expect("table").get(1).expect("get"), Some(1));
    }
    reexec::answer("done");
}

#[test]
fn refused_flushes_poison_nothing_and_mark_no_file() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let db = Db::open(&path).expect("made");
    db.write(|txn| txn.table(COUNTS)?.insert(1, 1).map(drop)).expect("committed");
    drop(db);
    if !super::can_confine() {
        return;
    }
    let mut child = reexec::start(reexec::command("sandbox::flush::refused_flushes_child", &[&path]));
    assert_eq!(child.line().as_deref(), Some("done"));
    child.finish();
    let db = Db::open(&path).expect("opens without a sandbox");
    db.write(|txn| txn.table(COUNTS)?.insert(2, 2).map(drop)).expect("committed");
}
