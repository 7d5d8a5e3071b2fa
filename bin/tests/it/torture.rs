//! `kvctl torture`: it finds nothing on a working disk, finds changed bytes, and removes its files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::names_beside_locks;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kvctl"));
    command.args(args);
    command
}

fn kvctl(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

#[track_caller]
fn summary(ran: &Output) -> serde_json::Value {
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

fn names(folder: &Path) -> Vec<String> {
    names_beside_locks(folder, &[])
}

#[test]
fn kills_find_no_violation_and_leave_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.mapleaf");
    let path = path.to_str().unwrap();
    let ran = kvctl(&["torture", path, "--cycles", "12", "--seed", "5", "--truncate", "--flip", "--json"]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert!(ran.stderr.is_empty(), "{ran:?}");
    let json = summary(&ran);
    let number = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("{name} in {json}"));
    assert_eq!((number("cycles"), number("violations"), number("seed")), (12, 0, 5));
    assert_eq!(number("kills_in_commit") + number("kills_elsewhere"), 12);
    assert!(number("transactions") >= 6, "{json}");
    // In the first cycles, the file may not exist yet; such a cycle makes no copy.
    let cut = ["refused", "right", "recovered", "errors"].map(|how| number(&format!("cut_copies_{how}")));
    let cut: u64 = cut.iter().sum();
    let flipped = number("flipped_copies_refused") + number("flipped_copies_right") + number("flipped_copies_errors");
    assert!(cut == flipped && (12..=24).contains(&cut), "{json}");
    assert_eq!(names(folder.path()), [""; 0], "all files are removed");
}

#[test]
fn a_kept_file_is_continued_and_a_changed_one_is_a_violation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.mapleaf");
    let path = path.to_str().unwrap();
    let ran = kvctl(&["torture", path, "--cycles", "3", "--seed", "6", "--keep", "--max-size", "1M"]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert_eq!(names_beside_locks(folder.path(), &["t.mapleaf"]), ["t.mapleaf"]);

    let ran = kvctl(&["torture", path, "--cycles", "1", "--seed", "7"]);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("was created with seed 6"), "{ran:?}");

    let ran = kvctl(&["torture", path, "--cycles", "3", "--json"]);
    assert_eq!((ran.status.code(), summary(&ran)["seed"].as_u64()), (Some(0), Some(6)), "{ran:?}");
    assert_eq!(names_beside_locks(folder.path(), &["t.mapleaf"]), ["t.mapleaf"], "an existing file stays");

    assert!(kvctl(&["put", path, "-t", "apples", "key 000000", "changed"]).status.success());
    let ran = kvctl(&["torture", path, "--cycles", "3"]);
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    let text = String::from_utf8_lossy(&ran.stderr);
    for part in ["VIOLATION", "seed 6", "table apples", "stays"] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
    assert_eq!(names_beside_locks(folder.path(), &["t.mapleaf"]), ["t.mapleaf"], "a file with a violation stays");
}

#[test]
fn torture_does_not_touch_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.mapleaf");
    assert!(kvctl(&["put", database.to_str().unwrap(), "key", "value"]).status.success());
    let text = folder.path().join("text");
    fs::write(&text, "some text, by no means a database").unwrap();
    for path in [&database, &text, &folder.path().to_path_buf()] {
        let before = fs::read(path).ok();
        let ran = kvctl(&["torture", path.to_str().unwrap(), "--cycles", "1"]);
        assert_ne!(ran.status.code(), Some(0), "{ran:?}");
        assert_ne!(ran.status.code(), Some(3), "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains(path.to_str().unwrap()), "{ran:?}");
        assert_eq!(fs::read(path).ok(), before);
    }
    let ran = kvctl(&["torture", database.to_str().unwrap()]);
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
}

#[test]
fn sigint_ends_torture_and_removes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.mapleaf");
    let mut torture = command(&["torture", path.to_str().unwrap(), "--cycles", "1000000"]);
    let child = torture.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = child.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(130), "{ran:?}");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("interrupted"), "{ran:?}");
    assert_eq!(names(folder.path()), [""; 0], "all files are removed");
}
