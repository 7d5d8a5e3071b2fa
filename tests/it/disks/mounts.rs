//! Properties of mounts and file systems: read-only mounts, and the times of files.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use mapleaf::{Db, Error, Options, Table};

use super::{run, skipped, Disk, Kind};

const NUMBERS: Table<u64, u64> = Table::new("numbers");

fn put(db: &Db, key: u64) {
    db.write(|txn| txn.table(NUMBERS)?.insert(key, key).map(drop)).expect("committed");
}

#[test]
fn on_a_read_only_mount_the_error_says_how_to_read() {
    let disk = match Disk::new(Kind::Tmpfs) {
        Ok(disk) => disk,
        Err(why) => return skipped("on_a_read_only_mount_the_error_says_how_to_read", &why),
    };
    let path = disk.path().join("db.mapleaf");
    put(&Db::open(&path).expect("made"), 7);
    if let Err(why) = run(&["mount", "-o", "remount,ro"], &[&disk.path()]) {
        return skipped("on_a_read_only_mount_the_error_says_how_to_read", &why);
    }
    let says_how = |refused: mapleaf::Result<Db>| {
        let text = refused.map(drop).expect_err("a read-only mount").to_string();
        assert!(text.contains("(os error 30)") && text.contains("Options::read_only(true)"), "{text}");
        assert!(text.contains(disk.path().to_str().expect("a name")), "{text}");
    };
    says_how(Db::open(&path));
    says_how(Db::open(disk.path().join("new.mapleaf")));
    let refused = Db::recover(&path).map(drop).expect_err("a read-only mount");
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    let db = Options::new().read_only(true).open(&path).expect("opens to read");
    assert_eq!(db.begin_read().and_then(|txn| txn.table(NUMBERS)?.get(7)).expect("reads"), Some(7));
}

/// Sets an old time on the file. The returned closure tells whether the file still has it.
fn forget_change(path: &Path) -> impl Fn() -> bool + '_ {
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(path).and_then(|file| file.set_modified(old)).expect("an old time");
    move || std::fs::metadata(path).and_then(|found| found.modified()).expect("a time") == old
}

fn commits_change_the_time(kind: Kind) {
    let disk = match Disk::new(kind) {
        Ok(disk) => disk,
        Err(why) => return skipped(&format!("times of files on {kind:?}"), &why),
    };
    let path = disk.path().join("db.mapleaf");
    let db = Db::open(&path).expect("made");
    for key in 0..5 {
        let is_old = forget_change(&path);
        put(&db, key);
        assert!(!is_old(), "{kind:?}: commit {key} left no trace");
        let is_old = forget_change(&path);
        assert_eq!(db.begin_read().and_then(|txn| txn.table(NUMBERS)?.get(key)).expect("reads"), Some(key));
        drop(db.begin_write().expect("begins"));
        assert!(is_old(), "{kind:?}: reading and an abort changed nothing");
    }
}

#[test]
fn a_commit_gives_the_file_a_new_time_on_tmpfs() {
    commits_change_the_time(Kind::Tmpfs);
}

#[test]
fn a_commit_gives_the_file_a_new_time_on_ext4() {
    commits_change_the_time(Kind::Ext4);
}

#[test]
fn a_commit_gives_the_file_a_new_time_on_xfs() {
    commits_change_the_time(Kind::Xfs);
}

#[test]
fn a_commit_gives_the_file_a_new_time_on_btrfs() {
    commits_change_the_time(Kind::Btrfs);
}
