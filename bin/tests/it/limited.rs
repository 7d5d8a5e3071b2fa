//! `kvctl` with a limit on the size of files, and on a read-only mount.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use crate::support::{kvctl, kvctl_with, Folder};

/// Runs a shell command with `kvctl` as a function.
fn shell(command: &str) -> Output {
    let program = assert_cmd::cargo::cargo_bin!("kvctl");
    let command = format!("kvctl() {{ {} \"$@\"; }}; {command}", program.display());
    Command::new("sh").args(["-c", &command]).output().unwrap()
}

/// Asserts the exit code and that standard error contains these texts; returns standard error.
#[track_caller]
fn assert_fails(command: &str, code: i32, says: &[&str]) -> String {
    let ran = shell(command);
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!((ran.status.signal(), ran.status.code()), (None, Some(code)), "{command}: {err}");
    assert!(says.iter().all(|text| err.contains(text)), "{command}: {err}");
    err
}

/// A database of 600 kB: every copy and dump of it exceeds a limit of 100 blocks of 512 bytes.
fn database(folder: &Folder) -> String {
    let db = folder.path("a.mapleaf");
    let rows: String = (0..3000).map(|n| format!("{n:09}\t{}\n", "v".repeat(100))).collect();
    assert_eq!(kvctl_with(&["load", &db], rows.as_bytes()).code, 0);
    db
}

#[test]
fn output_past_the_limit_on_the_size_of_files_is_an_error_and_leaves_no_file() {
    let folder = Folder::new();
    let db = database(&folder);
    let [out, rows] = ["out", "rows.tsv"].map(|name| folder.path(name));
    assert_eq!(kvctl(&["dump", &db, "-o", &rows, "--format", "tsv"]).code, 0);
    for verb in [
        format!("dump {db} -o {out} --format tsv"),
        format!("dump {db} -o {out} --format jsonl --all"),
        format!("compact {db} {out}"),
        format!("salvage {db} {out}"),
        format!("load {out} {rows}"),
    ] {
        let err = assert_fails(&format!("ulimit -f 100; kvctl {verb}"), 74, &["File too large", "ulimit -f", "out"]);
        assert!(!err.contains(": line "), "the input is not to blame: {err}");
        assert!(!folder.names().iter().any(|name| name.contains("out") || name.contains("partial")), "{verb}");
    }
    assert_eq!(kvctl(&["check", &db]).code, 0);
}

#[test]
fn standard_output_past_the_limit_on_the_size_of_files_is_an_error() {
    let folder = Folder::new();
    let db = database(&folder);
    for verb in ["dump", "scan"] {
        let rows = folder.path("rows");
        let says = ["standard output: cannot be written: File too large", "ulimit -f"];
        assert_fails(&format!("ulimit -f 100; kvctl {verb} {db} >{rows}"), 74, &says);
        assert!(fs::metadata(&rows).unwrap().len() <= 100 * 512);
    }
}

/// A read-only bind mount of a folder; drop unmounts it. `None` if mounting is not permitted.
struct ReadOnly<'f>(&'f str);

impl ReadOnly<'_> {
    fn mount(folder: &str) -> Option<ReadOnly<'_>> {
        let mount = |args: &[&str]| Command::new("mount").args(args).status().is_ok_and(|status| status.success());
        if !mount(&["--bind", folder, folder]) {
            return None;
        }
        let mounted = ReadOnly(folder);
        mount(&["-o", "remount,bind,ro", folder]).then_some(mounted)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0).status().ok();
    }
}

#[test]
fn on_a_read_only_mount_verbs_that_read_work_and_the_others_name_a_remedy() {
    let folder = Folder::new();
    let mounted_at = folder.path("mount");
    fs::create_dir(&mounted_at).unwrap();
    let db = format!("{mounted_at}/a.mapleaf");
    fs::rename(database(&folder), &db).unwrap();
    let key = "000000007";
    let Some(_mount) = ReadOnly::mount(&mounted_at) else {
        println!("skipped: this user may not mount");
        return;
    };
    let [copy, saved, rows] = ["copy", "saved", "rows.tsv"].map(|name| folder.path(name));
    for args in [
        &["get", &db, key][..],
        &["scan", &db],
        &["scan", &db, "--count"],
        &["dump", &db],
        &["dump", &db, "-o", &rows, "--format", "tsv"],
        &["stat", &db],
        &["page", &db],
        &["check", &db],
        &["tables", &db],
        &["recover", &db],
        &["compact", &db, &copy],
        &["salvage", &db, &saved],
    ] {
        let ran = kvctl(args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
    }
    let new = format!("{mounted_at}/new");
    for verb in [
        format!("put {db} k v"),
        format!("put {new} k v"),
        format!("del {db} {key}"),
        format!("load {db} {rows}"),
        format!("tables create {new} t"),
        format!("compact {db} {new}"),
        format!("salvage {db} {new}"),
        format!("dump {db} -o {new} --format tsv"),
    ] {
        let err = assert_fails(&format!("kvctl {verb}"), 74, &["Read-only file system (os error 30)", "for writing"]);
        assert!(verb.starts_with("dump") || err.contains("a verb of kvctl that only reads"), "{verb}: {err}");
        assert_eq!(err.lines().count(), 1, "{verb}: {err}");
        assert!(!err.contains("Options::"), "{verb}: {err}");
    }
}
