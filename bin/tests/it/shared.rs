//! `kvctl` on a database that a running program has open: this test itself.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mapleaf::{Db, Options, Table};

use crate::support::{kvctl, kvctl_with, Folder, Ran};

const MAIN: Table<&[u8], &[u8]> = Table::new("main");

fn put(db: &Db, key: &str, value: &str) {
    db.write(|txn| txn.table(MAIN)?.insert(key.as_bytes(), value.as_bytes()).map(drop)).unwrap();
}

fn get(db: &Db, key: &str) -> Option<String> {
    let table = db.begin_read().and_then(|txn| txn.table(MAIN)).unwrap();
    table.get(key.as_bytes()).unwrap().map(|value| String::from_utf8_lossy(value).into_owned())
}

#[track_caller]
fn done(ran: Ran, out: &str) {
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, out, ""));
}

#[test]
fn get_and_put_work_on_a_database_that_a_program_writes_to() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    let db = Db::open(&path).unwrap();
    for n in 0..10 {
        put(&db, "program", &format!("{n}"));
        done(kvctl(&["get", &path, "program"]), &format!("{n}\n"));
        done(kvctl(&["put", &path, "command", &format!("{n}")]), "");
        assert_eq!(get(&db, "command"), Some(format!("{n}")));
    }
    // A snapshot of the program stays as it is.
    let snapshot = db.begin_read().unwrap();
    done(kvctl(&["del", &path, "command"]), "");
    assert!(snapshot.table(MAIN).unwrap().get(b"command").unwrap().is_some());
    assert_eq!(get(&db, "command"), None);
    drop(snapshot);
    let rows: String = (0..2000).map(|n| format!("key{n:05}\tvalue {n}\n")).collect();
    assert_eq!(kvctl_with(&["load", &path], rows.as_bytes()).code, 0);
    assert_eq!(get(&db, "key01999"), Some("value 1999".to_string()));
    // A put of the command waits for the transaction of the program.
    let txn = db.begin_write().unwrap();
    txn.table(MAIN).unwrap().insert(b"program", b"first").unwrap();
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || kvctl(&["put", &path, "program", "second"])
    });
    done(kvctl(&["get", &path, "program"]), "9\n");
    txn.commit().unwrap();
    done(waiting.join().unwrap(), "");
    assert_eq!(get(&db, "program"), Some("second".to_string()));
    assert!(db.check().unwrap().is_clean());
    drop(db);
    done(kvctl(&["get", &path, "program"]), "second\n");
    assert_eq!(kvctl(&["check", &path]).code, 0);
}

#[test]
fn verbs_that_read_leave_a_file_that_a_program_has_open_byte_identical() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    let db = Db::open(&path).unwrap();
    for n in 0..50 {
        put(&db, &format!("key{n}"), "value");
    }
    let look = || (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let before = look();
    for verb in [
        &["get", &path, "key7"][..],
        &["stat", &path, "--pages"],
        &["scan", &path, "--json"],
        &["readers", &path],
        &["check", &path],
        &["tables", &path],
        &["dump", &path],
        &["page", &path, "2"],
    ] {
        let ran = kvctl(verb);
        assert_eq!(ran.code, 0, "{verb:?}: {}", ran.err);
        assert!(look() == before, "{verb:?} changed the file");
    }
    put(&db, "key7", "again");
    done(kvctl(&["get", &path, "key7"]), "again\n");
}

/// Runs a copy of `kvctl` that every user can read, as the user `nobody`.
fn as_nobody(program: &Path, args: &[&str]) -> Ran {
    const NOBODY: u32 = 65534;
    let mut command = Command::new(program);
    command.args(args).uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
    Ran::from(command.output().unwrap())
}

#[test]
fn a_user_that_may_only_read_gets_the_remedy_beside_a_program_and_reads_without_one() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    if fs::metadata(folder.0.path()).unwrap().uid() != 0 {
        println!("not checked: only root can become another user");
        return;
    }
    fs::set_permissions(folder.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.0.path().join("kvctl");
    fs::copy(assert_cmd::cargo::cargo_bin!("kvctl"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let db = Options::new().mode(0o644).open(&path).unwrap();
    put(&db, "k", "v");
    for verb in ["get", "stat", "dump"] {
        let args = if verb == "get" { vec![verb, &path, "k"] } else { vec![verb, &path] };
        let refused = as_nobody(&program, &args);
        assert_eq!(refused.code, 5, "{verb}: {}", refused.err);
        assert!(refused.err.contains("permission to write"), "{verb}: {}", refused.err);
        assert!(refused.err.contains("-lock"), "{verb}: {}", refused.err);
    }
    drop(db);
    done(as_nobody(&program, &["get", &path, "k"]), "v\n");
    assert_eq!(as_nobody(&program, &["put", &path, "k", "w"]).code, 77);
    assert_eq!(as_nobody(&program, &["check", &path]).code, 0);
    done(kvctl(&["get", &path, "k"]), "v\n");
}
