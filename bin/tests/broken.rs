//! What a hostile tester broke in `kvctl`: each test failed before the change that came with it.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Output};

/// Runs a shell line in which `$K` is kvctl, in a folder.
fn shell(folder: &Path, line: &str) -> (Option<i32>, String) {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env("K", env!("CARGO_BIN_EXE_kvctl"));
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn rows(folder: &Path, count: u64) {
    let row = |n: u64| format!("{:08}\t{}\n", n * 7919 % 100_000_007, "v".repeat(100));
    std::fs::write(folder.join("rows.tsv"), (0..count).map(row).collect::<String>()).unwrap();
}

/// The shell's unit is 512 bytes (dash) or 1024 (bash).
#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_signal() {
    let folder = tempfile::tempdir().unwrap();
    rows(folder.path(), 60_000);
    let (code, err) = shell(folder.path(), "ulimit -f 8000; $K load a.mapleaf rows.tsv");
    assert_eq!(code, Some(74), "{err}");
    assert!(err.contains("File too large") && err.contains("rows of whole batches stay"), "{err}");
    assert_eq!(shell(folder.path(), "$K check a.mapleaf && $K put a.mapleaf key value").0, Some(0));
    let (code, err) = shell(folder.path(), "ulimit -f 4; $K put b.mapleaf key value");
    assert!(matches!(code, Some(0 | 74)), "{code:?} {err}");
}

/// A reservation as large as the limit left no address space to map the file from, or to allocate memory.
#[test]
fn a_limit_on_address_space_leaves_room_for_the_file_and_the_program() {
    let folder = tempfile::tempdir().unwrap();
    rows(folder.path(), 60_000);
    for kib in [300_000, 530_000, 1_060_000, 1_090_000, 2_150_000] {
        let line = format!("rm -f a.mapleaf; ulimit -v {kib}; $K load a.mapleaf rows.tsv && $K check a.mapleaf");
        let (code, err) = shell(folder.path(), &line);
        assert_eq!(code, Some(0), "ulimit -v {kib}: {err}");
    }
}

#[test]
fn dump_writes_a_file_whose_name_is_as_long_as_names_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{}.tsv", "n".repeat(251));
    let line = format!("$K put a.mapleaf key value && $K dump a.mapleaf -o {name}");
    assert_eq!(shell(folder.path(), &line), (Some(0), String::new()));
    assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), b"key\tvalue\n");
}
