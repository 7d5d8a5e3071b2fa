//! `kvctl` under limits of the kernel: the error names the cause, and no incomplete file stays.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::names_beside_locks;

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

/// The unit of `ulimit -f` is 512 bytes (dash) or 1024 bytes (bash).
#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_does_not_end_the_process() {
    let folder = tempfile::tempdir().unwrap();
    rows(folder.path(), 60_000);
    let (code, err) = shell(folder.path(), "ulimit -f 8000; $K load a.mapleaf rows.tsv --batch 10000");
    assert_eq!(code, Some(74), "{err}");
    assert!(err.contains("File too large") && err.contains("rows of whole batches stay"), "{err}");
    assert_eq!(shell(folder.path(), "$K check a.mapleaf && $K put a.mapleaf key value").0, Some(0));
    let (code, err) = shell(folder.path(), "ulimit -f 4; $K put b.mapleaf key value");
    assert!(matches!(code, Some(0 | 74)), "{code:?} {err}");
}

/// A reservation must be smaller than the limit, so that address space is left to map the file and
/// to allocate memory.
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
fn dump_writes_a_file_with_a_name_of_maximum_length() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("{}.tsv", "n".repeat(251));
    let line = format!("$K put a.mapleaf key value && $K dump a.mapleaf -o {name}");
    assert_eq!(shell(folder.path(), &line), (Some(0), String::new()));
    assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), b"# mapleaf-table\tmain\t\t\nkey\tvalue\n");
}

/// The error must name the requested file and not the temporary one.
#[test]
fn a_salvage_that_cannot_write_names_the_requested_file() {
    let folder = tempfile::tempdir().unwrap();
    rows(folder.path(), 60_000);
    assert_eq!(shell(folder.path(), "$K load a.mapleaf rows.tsv").0, Some(0));
    for limit in [1, 4000] {
        let (code, err) = shell(folder.path(), &format!("ulimit -f {limit}; $K salvage a.mapleaf out.mapleaf"));
        assert_eq!(code, Some(74), "{err}");
        assert!(err.starts_with("kvctl: out.mapleaf: ") && err.contains("File too large"), "{err}");
        assert_eq!(names(folder.path()), ["a.mapleaf", "rows.tsv"], "{err}");
    }
}

/// SIGXFSZ, the signal of a limit on the size of files, must not end the recovery between two of
/// its steps.
#[test]
fn a_recovery_that_cannot_lengthen_the_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    rows(folder.path(), 20_000);
    let path = folder.path().join("a.mapleaf");
    assert_eq!(shell(folder.path(), "$K load a.mapleaf rows.tsv --batch 10000").0, Some(0));
    let db = mapleaf::Db::open_existing(&path).unwrap();
    db.write(|txn| txn.drop_table("main").map(drop)).unwrap();
    drop(db);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    // Cuts page after page, until the older state is cut and the newest state lacks only free
    // pages.
    let missing = std::iter::repeat_with(|| {
        file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
        mapleaf::Db::recover_preview(&path).unwrap()
    });
    let plan = missing.take(20).find(|plan| !plan.is_loss() && !plan.is_nothing()).unwrap();
    assert!(plan.bytes_missing() > 0, "{plan:?}");
    let before = std::fs::read(&path).unwrap();
    let (code, err) = shell(folder.path(), "ulimit -f 1; $K recover --yes a.mapleaf");
    assert_eq!(code, Some(74), "{err}");
    assert!(err.contains("a.mapleaf: ") && err.contains("File too large"), "{err}");
    assert!(std::fs::read(&path).unwrap() == before, "changed");
    assert_eq!(shell(folder.path(), "$K recover --yes a.mapleaf && $K check a.mapleaf").0, Some(0));
}

fn names(folder: &Path) -> Vec<String> {
    names_beside_locks(folder, &["a.mapleaf"])
}

#[test]
fn sigint_ends_a_salvage_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    rows(folder.path(), 400_000);
    assert_eq!(shell(folder.path(), "$K load a.mapleaf rows.tsv").0, Some(0));
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    command.args(["salvage", "a.mapleaf", "out.mapleaf"]).current_dir(folder.path());
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    while names(folder.path()).len() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = child.wait_with_output().unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(130), "{err}");
    assert_eq!(err, "kvctl: interrupted; nothing was written\n");
    assert_eq!(names(folder.path()), ["a.mapleaf", "rows.tsv"]);
}
