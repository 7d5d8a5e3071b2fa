//! `kvctl` with closed standard descriptors drops its output, and writes it to no other file.

use std::fs;
use std::process::Command;

use crate::support::{kvctl, Folder};

/// Runs `kvctl` with the three descriptors closed, and returns its exit code.
fn closed(args: &[&str]) -> i32 {
    let program = assert_cmd::cargo::cargo_bin!("kvctl");
    let script = "exec \"$0\" \"$@\" <&- >&- 2>&-";
    Command::new("sh").args(["-c", script]).arg(program).args(args).status().unwrap().code().unwrap()
}

#[test]
fn closed_standard_descriptors_do_not_corrupt_files() {
    let folder = Folder::new();
    let [db, tsv, dump, compacted, saved] =
        ["a.mapleaf", "a.tsv", "dump.tsv", "compacted.mapleaf", "saved.mapleaf"].map(|name| folder.path(name));
    let lines: String = (0..500).map(|n| format!("key {n:04}\tvalue {n}\n")).collect();
    fs::write(&tsv, &lines).unwrap();
    for args in [
        &["put", &db, "key 0000", "other"][..],
        &["load", &db, &tsv],
        &["get", &db, "key 0001"],
        &["scan", &db],
        &["check", &db],
        &["stat", &db],
        &["page", &db],
        &["dump", &db, "-o", &dump],
        &["compact", &db, &compacted],
        &["salvage", &db, &saved],
    ] {
        assert_eq!(closed(args), 0, "{args:?}");
    }
    // Error messages are dropped too.
    assert_eq!(closed(&["get", &db, "none"]), 1);
    assert_ne!(closed(&["load", &db, &folder.path("none.tsv")]), 0);
    let dumped = fs::read_to_string(&dump).unwrap();
    assert!(dumped.ends_with(&lines) && dumped.lines().filter(|line| !line.starts_with('#')).count() == 500);
    for file in [&db, &compacted, &saved] {
        assert_eq!(kvctl(&["check", file]).code, 0, "{file}");
        assert_eq!(kvctl(&["get", file, "key 0123"]).out, "value 123\n");
    }
}
