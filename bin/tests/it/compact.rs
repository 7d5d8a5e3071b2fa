//! `kvctl compact`: output, exit codes, interruption.

use std::fs;
use std::process::{Command, Stdio};

use mapleaf::{Db, Options};
use serde_json::Value;

use crate::support::{kvctl, names_beside_locks, Folder};

/// A folder with a database `a.mapleaf` of two tables, whose pages are half full.
fn folder() -> Folder {
    let folder = Folder::new();
    let db = Db::open(folder.path("a.mapleaf")).unwrap();
    db.write(|txn| {
        txn.bytes_table("other")?.insert(b"k", &[b'v'; 50_000])?;
        let mut table = txn.bytes_table("main")?;
        (0..4000u32).try_for_each(|n| {
            let key = n.wrapping_mul(0x9e37_79b9);
            table.insert(format!("{key:08x}").as_bytes(), &[b'v'; 100]).map(drop)
        })
    })
    .unwrap();
    folder
}

#[test]
fn a_compacted_file_is_smaller_and_dumps_the_same() {
    let folder = folder();
    let (a, b, c) = (folder.path("a.mapleaf"), folder.path("b.mapleaf"), folder.path("c.mapleaf"));
    let before = fs::read(&a).unwrap();
    let ran = kvctl(&["compact", &a, &b]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let (was, is) = (before.len(), fs::metadata(&b).unwrap().len());
    assert!(ran.out.starts_with("compacted: 4001 entries in 2 tables to "), "{}", ran.out);
    assert!(ran.out.contains(&format!(", {was} bytes to {is} (")), "{}", ran.out);
    assert!((is as usize) * 10 < was * 9, "{was} to {is}");
    assert!(fs::read(&a).unwrap() == before, "FILE is only read");
    assert_eq!(kvctl(&["check", &b]).code, 0);
    assert_eq!(kvctl(&["dump", &a, "--all"]).out, kvctl(&["dump", &b, "--all"]).out);

    let json: Value = serde_json::from_str(&kvctl(&["compact", &b, &c, "--json"]).out).unwrap();
    assert_eq!((json["entries"].as_u64(), json["tables"].as_u64()), (Some(4001), Some(2)));
    assert_eq!((json["bytes_before"].as_u64(), json["bytes_after"].as_u64()), (Some(is), Some(is)));
    assert_eq!(json["page_size"].as_u64(), Some(4096));
    let databases = ["a.mapleaf", "b.mapleaf", "c.mapleaf"];
    assert_eq!(folder.names_beside_locks(&databases), databases);
}

#[test]
fn a_compaction_that_fails_names_the_cause_with_its_exit_code() {
    let folder = folder();
    let (a, b) = (folder.path("a.mapleaf"), folder.path("b.mapleaf"));
    fs::write(&b, b"mine").unwrap();
    let damaged = folder.path("damaged");
    let mut bytes = fs::read(&a).unwrap();
    bytes[2 * 4096..].fill(0x55);
    fs::write(&damaged, &bytes).unwrap();
    let new = folder.path("new.mapleaf");
    for (args, code, part) in [
        ([&a, &b], 2, "exists and stays as it is; choose another name"),
        ([&a, &a], 2, "is the database itself; choose another name"),
        ([&folder.path("none"), &new], 66, "none"),
        ([&b, &new], 3, "b.mapleaf"),
        ([&damaged, &new], 3, "damaged"),
        ([&a, &folder.path("no/such/folder")], 66, "no/such/folder"),
    ] {
        let ran = kvctl(&["compact", args[0], args[1]]);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {}", ran.err);
        assert!(ran.err.starts_with("kvctl: ") && ran.err.contains(part), "{args:?}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    let held = Options::new().exclusive(true).open(&a).unwrap();
    assert_eq!(kvctl(&["compact", &a, &new]).code, 5);
    drop(held);
    assert_eq!(fs::read(&b).unwrap(), b"mine");
    // Reading a database makes its lock file, reading a file that is none does not.
    assert_eq!(folder.names_beside_locks(&["a.mapleaf", "damaged"]), ["a.mapleaf", "b.mapleaf", "damaged"]);
}

#[test]
fn a_database_that_another_process_has_open_is_compacted() {
    let folder = folder();
    let (a, b) = (folder.path("a.mapleaf"), folder.path("b.mapleaf"));
    for read_only in [true, false] {
        let shared = Options::new().read_only(read_only).open(&a).unwrap();
        assert_eq!(kvctl(&["compact", &a, &b]).code, 0);
        drop(shared);
        assert_eq!(folder.names_beside_locks(&["a.mapleaf"]), ["a.mapleaf", "b.mapleaf"]);
        assert_eq!(kvctl(&["dump", &a, "--all"]).out, kvctl(&["dump", &b, "--all"]).out);
        fs::remove_file(&b).unwrap();
        fs::remove_file(folder.path("b.mapleaf-lock")).unwrap();
    }
}

#[test]
fn an_interrupted_compaction_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.mapleaf"), folder.path().join("b.mapleaf"));
    let db = Db::open(&a).unwrap();
    for batch in 0..8u32 {
        db.write(|txn| {
            let mut table = txn.bytes_table("main")?;
            (0..20_000u32).try_for_each(|n| table.append(&(batch * 20_000 + n).to_be_bytes(), &[7; 900]).map(drop))
        })
        .unwrap();
    }
    drop(db);
    // Each attempt interrupts the writing of the new file (140 MB) at another point.
    let interrupted = (0..10).any(|_| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kvctl"));
        let child = command.arg("compact").args([&a, &b]).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        while names_beside_locks(folder.path(), &["a.mapleaf"]).len() < 2 {
            std::thread::yield_now();
        }
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let ran = child.wait_with_output().unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        if ran.status.code() == Some(0) {
            // The compaction was complete before the signal came.
            fs::remove_file(&b).unwrap();
            return false;
        }
        assert_eq!((ran.status.code(), err.as_str()), (Some(130), "kvctl: interrupted; nothing was written\n"));
        assert_eq!(names_beside_locks(folder.path(), &["a.mapleaf"]), ["a.mapleaf"]);
        true
    });
    assert!(interrupted);
}
