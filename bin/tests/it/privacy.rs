//! Files that `kvctl` writes from a database never have more permissions than the database, and
//! never replace it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{symlink, MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use crate::support::{kvctl, Folder};

/// Runs a shell command with `kvctl` as a function.
fn shell(command: &str) -> (i32, String) {
    let program = assert_cmd::cargo::cargo_bin!("kvctl");
    let command = format!("kvctl() {{ {} \"$@\"; }}; {command}", program.display());
    let ran = Command::new("sh").args(["-c", &command]).output().unwrap();
    (ran.status.code().unwrap(), String::from_utf8(ran.stderr).unwrap())
}

fn database(folder: &Folder, bits: u32) -> String {
    let path = folder.path("a.mapleaf");
    assert_eq!(kvctl(&["put", &path, "k", "v"]).code, 0);
    fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
    path
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn copies_and_dumps_have_no_more_permissions_than_the_database_under_any_umask() {
    for (bits, umask) in [(0o600, "0"), (0o600, "022"), (0o640, "0"), (0o644, "0"), (0o640, "077")] {
        let folder = Folder::new();
        let db = database(&folder, bits);
        let [compacted, salvaged, tsv, jsonl] = ["c", "s", "d.tsv", "d.jsonl"].map(|name| folder.path(name));
        let verbs = format!(
            "umask {umask}; kvctl compact {db} {compacted} && kvctl salvage {db} {salvaged} && \
             kvctl dump {db} -o {tsv} && kvctl dump {db} --all -o {jsonl}"
        );
        assert_eq!(shell(&verbs), (0, String::new()));
        for made in [compacted, salvaged, tsv, jsonl] {
            assert_eq!(mode(&made), bits, "{made}, umask {umask}");
        }
    }
}

#[test]
fn a_dump_keeps_the_permissions_of_a_private_file_that_it_replaces() {
    let folder = Folder::new();
    let db = database(&folder, 0o644);
    let out = folder.path("d.tsv");
    fs::write(&out, "before").unwrap();
    fs::set_permissions(&out, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(kvctl(&["dump", &db, "-o", &out]).code, 0);
    assert!(fs::read(&out).unwrap().ends_with(b"k\tv\n"));
    assert_eq!(mode(&out), 0o600);
}

#[test]
fn a_dump_never_follows_a_link_under_its_temporary_name() {
    let folder = Folder::new();
    let db = database(&folder, 0o600);
    let (victim, out) = (folder.path("victim"), folder.path("d.tsv"));
    fs::write(&victim, "before").unwrap();
    // With `exec`, the process of `dump` has the process id of the shell.
    let dir = folder.0.path().display();
    let program = assert_cmd::cargo::cargo_bin!("kvctl").display();
    let (code, err) = shell(&format!(
        "cd {dir}; ln -s victim .kvctl-$$.partial; ln -s victim .kvctl-$$-0.partial; exec {program} dump {db} -o {out}"
    ));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(fs::read(&victim).unwrap(), b"before");
    assert!(fs::symlink_metadata(&out).unwrap().is_file());
}

#[test]
fn output_onto_the_database_is_refused_under_all_its_names() {
    let folder = Folder::new();
    let db = database(&folder, 0o600);
    let (hard, soft, linked) = (folder.path("hard.tsv"), folder.path("soft.tsv"), folder.path("linked.tsv"));
    fs::hard_link(&db, &hard).unwrap();
    symlink(&db, &soft).unwrap();
    symlink(&hard, &linked).unwrap();
    let before = fs::read(&db).unwrap();
    for out in [&db, &hard, &soft, &linked] {
        let dump = kvctl(&["dump", &db, "-o", out, "--format", "tsv"]);
        let (compact, salvage) = (kvctl(&["compact", &db, out]), kvctl(&["salvage", &db, out]));
        for ran in [dump, compact, salvage] {
            assert_eq!(ran.code, 2, "{}", ran.err);
            assert!(ran.err.contains("is the database itself"), "{}", ran.err);
        }
    }
    for verb in ["dump", "scan"] {
        let (code, err) = shell(&format!("kvctl {verb} {db} >>{db}"));
        assert!(code == 2 && err.contains("standard output is the database itself"), "{code}: {err}");
    }
    assert!(fs::read(&db).unwrap() == before);
}

#[test]
fn the_error_of_a_locked_database_names_the_process_that_has_it_open() {
    let folder = Folder::new();
    let db = database(&folder, 0o600);
    let holder = format!("process {} (", std::process::id());
    let hard = folder.path("hard");
    fs::hard_link(&db, &hard).unwrap();
    let refused = |args: &[&str], why: &str| {
        let ran = kvctl(args);
        assert!(ran.code == 5 && ran.err.contains(&holder) && ran.err.contains(why), "{args:?}: {}", ran.err);
    };
    let options = mapleaf::Options::new;
    for shared in [options(), options().read_only(true)] {
        let shared = shared.open(&db).unwrap();
        for verb in [&["salvage", &db, "new"][..], &["recover", &db]] {
            refused(verb, ") has it open; wait until all processes have closed it");
        }
        for verb in [&["get", &hard, "k"][..], &["put", &hard, "k", "v"]] {
            refused(verb, ") has it open; they have it open by another path or lost its lock file");
        }
        drop(shared);
    }
    let _alone = options().exclusive(true).open(&db).unwrap();
    for verb in [
        &["get", &db, "k"][..],
        &["put", &db, "k", "v"],
        &["get", &hard, "k"],
        &["salvage", &db, "new"],
        &["recover", &db],
    ] {
        refused(verb, ") has it open alone (by option, or because it cannot make the lock file '<name>-lock'); wait");
    }
}
