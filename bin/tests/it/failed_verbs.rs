//! A verb that fails leaves no new file. A load that fails stores only complete batches, and a
//! later load can continue after them.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{kvctl, kvctl_with, Folder, Ran};

fn shell(command: &str) -> Ran {
    let program = assert_cmd::cargo::cargo_bin!("kvctl");
    let command = format!("kvctl() {{ {} \"$@\"; }}; {command}", program.display());
    Ran::from(Command::new("sh").args(["-c", &command]).output().unwrap())
}

#[test]
fn a_verb_that_fails_before_its_first_commit_leaves_no_file() {
    let folder = Folder::new();
    let new = folder.path("new");
    let long = "k".repeat(65_537);
    for (args, stdin, code) in [
        (vec!["del", &new, "k"], &b""[..], 1),
        (vec!["put", &new, &long, "v"], b"", 2),
        (vec!["put", &new, "k", "v", "-t", ""], b"", 2),
        (vec!["load", &new], b"no tab\n", 65),
        (vec!["load", &new], b"k\tv\nno tab\n", 65),
        (vec!["load", &new], b"k\tv\nk\\q\tv\n", 65),
        (vec!["load", &new, "--batch", "1"], b"no tab\n", 65),
        (vec!["load", &new, "--skip", "2"], b"k\tv\n", 2),
        (vec!["load", &new, "--format", "jsonl"], b"{}\n", 65),
        (vec!["load", &new, "-"], format!("{long}\tv\n").as_bytes(), 2),
    ] {
        let ran = kvctl_with(&args, stdin);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
        assert_eq!(folder.names(), [""; 0], "{args:?}");
    }
    std::os::unix::fs::symlink(folder.path("target"), &new).unwrap();
    assert_eq!(kvctl_with(&["load", &new], b"k\tv\nno tab\n").code, 65);
    assert_eq!(folder.names(), ["new"], "a link stays, its target is removed");
    fs::remove_file(&new).unwrap();
    assert_eq!(kvctl_with(&["load", &new], b"").code, 0);
    assert_eq!(kvctl(&["scan", &new, "--count"]).out, "0\n", "a load of no rows succeeds and makes a database");
}

#[test]
fn dev_stdin_and_pipes_are_tsv_as_standard_input_is() {
    let folder = Folder::new();
    let [db, rows] = ["a.mapleaf", "rows"].map(|name| folder.path(name));
    fs::write(&rows, "k\tv\n").unwrap();
    for (command, table) in [
        (format!("kvctl load {db} -t file /dev/stdin <{rows}"), "file"),
        (format!("cat {rows} | kvctl load {db} -t pipe /dev/stdin"), "pipe"),
        (format!("cat {rows} | kvctl load {db} -t number /dev/fd/0"), "number"),
    ] {
        let ran = shell(&command);
        assert_eq!(ran.code, 0, "{command}: {}", ran.err);
        assert_eq!(kvctl(&["scan", &db, "-t", table]).out, "k\tv\n");
    }
}

#[test]
fn a_verb_that_fails_keeps_an_existing_file() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    drop(mapleaf::Db::open(&db).unwrap());
    assert_eq!(kvctl_with(&["load", &db], b"no tab\n").code, 65);
    assert_eq!(kvctl(&["del", &db, "k"]).code, 1);
    assert_eq!(folder.names_beside_locks(&["a.mapleaf"]), ["a.mapleaf"]);
    let other = folder.path("b.mapleaf");
    assert_eq!(kvctl_with(&["load", &other, "--batch", "1"], b"k\tv\nno tab\n").code, 65);
    assert_eq!(kvctl(&["scan", &other]).out, "k\tv\n", "a batch was committed");
}

#[test]
fn an_interrupted_load_without_a_commit_leaves_no_file() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let program = assert_cmd::cargo::cargo_bin!("kvctl");
    let mut child =
        Command::new(program).args(["load", &db]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"k\tv\n").unwrap();
    while folder.names().is_empty() {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (130, "kvctl: interrupted; no rows were loaded\n"));
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_closed_standard_input_is_an_error_and_an_empty_one_is_not() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    for verb in ["put", "load"] {
        let value = if verb == "put" { "k -" } else { "" };
        let ran = shell(&format!("kvctl {verb} {db} {value} <&-"));
        assert_eq!((ran.code, ran.err.contains("standard input is closed")), (2, true), "{}", ran.err);
        assert_eq!(folder.names(), [""; 0]);
    }
    assert_eq!(shell(&format!("kvctl put {db} k - </dev/null")).code, 0);
    assert_eq!(shell(&format!("printf '' | kvctl put {db} l -")).code, 0);
    assert_eq!(kvctl(&["scan", &db]).out, "k\t\nl\t\n");
}

#[test]
fn a_line_without_an_end_is_refused_with_its_number_and_the_limit() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let rows = folder.path("rows.tsv");
    let file = fs::File::create(&rows).unwrap();
    // A hole: 8 GiB of zeros without a line feed.
    (&file).write_all(b"a\tb\n").unwrap();
    file.set_len(8 << 30).unwrap();
    let ran = kvctl(&["load", &db, &rows, "--max-line", "16M"]);
    assert_eq!(ran.code, 65, "{}", ran.err);
    assert!(ran.err.contains("line 2: the line has more than 16777216 bytes; if that is right, raise --max-line"));
    let ran = kvctl_with(&["load", &db, "--max-line", "5"], b"a\tb\naaa\tbbb\n");
    assert!(ran.code == 65 && ran.err.contains("line 2: the line has more than 5 bytes"), "{}", ran.err);
    assert_eq!(kvctl_with(&["load", &db, "--max-line", "7"], b"a\tb\naaa\tbbb\n").code, 0);
}

#[test]
fn a_byte_order_mark_is_not_part_of_the_first_key() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    assert_eq!(kvctl_with(&["load", &db], b"\xef\xbb\xbfk\tv\n").code, 0);
    assert_eq!(kvctl(&["get", &db, "k"]).out, "v\n");
    let json = b"\xef\xbb\xbf{\"key\": \"j\", \"value\": \"w\"}\n";
    assert_eq!(kvctl_with(&["load", &db, "--format", "jsonl"], json).code, 0);
    assert_eq!(kvctl(&["get", &db, "j"]).out, "w\n");
}

#[test]
fn a_load_continues_with_the_skip_that_it_printed() {
    let folder = Folder::new();
    let (db, whole) = (folder.path("a.mapleaf"), folder.path("b.mapleaf"));
    let mut rows: Vec<String> = (0..95).map(|n| format!("k{:02}\t{n}\n", n * 7 % 50)).collect();
    assert_eq!(kvctl_with(&["load", &whole], rows.concat().as_bytes()).code, 0);
    let (mut skip, mut steps) = (0, 0);
    for broken in [35, 61] {
        let good = std::mem::replace(&mut rows[broken], "# comment\nno tab\n".to_string());
        let ran = kvctl_with(&["load", &db, "--batch", "10", "--skip", &skip.to_string()], rows.concat().as_bytes());
        assert_eq!(ran.code, 65, "{}", ran.err);
        let (_, after) = ran.err.split_once("load with --skip ").unwrap();
        skip = after.split(' ').next().unwrap().parse().unwrap();
        rows[broken] = good;
        steps += 1;
        assert_eq!(skip, [0, 30, 60][steps], "{}", ran.err);
    }
    let ran = kvctl_with(&["load", &db, "--skip", &skip.to_string()], rows.concat().as_bytes());
    assert!(ran.code == 0 && ran.err.starts_with("loaded 35 rows "), "{}", ran.err);
    assert_eq!(kvctl(&["dump", &db]).out, kvctl(&["dump", &whole]).out);
    assert_eq!(kvctl_with(&["load", &db], rows.concat().as_bytes()).code, 0);
    assert_eq!(kvctl(&["dump", &db]).out, kvctl(&["dump", &whole]).out, "beginning again changes nothing");
}

#[test]
fn a_load_commits_by_bytes_and_not_by_rows() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let commits = |db: &str| -> u64 {
        let stat = kvctl(&["stat", db, "--json"]);
        serde_json::from_str::<serde_json::Value>(&stat.out).unwrap()["txn"].as_u64().unwrap()
    };
    drop(mapleaf::Db::open(&db).unwrap());
    let before = commits(&db);
    let rows: String = (0..30_000).map(|n| format!("{n:09}\tvalue\n")).collect();
    assert_eq!(kvctl_with(&["load", &db], rows.as_bytes()).code, 0);
    assert_eq!(commits(&db), before + 1);
    assert_eq!(kvctl_with(&["load", &db, "--batch", "10000"], rows.as_bytes()).code, 0);
    assert_eq!(commits(&db), before + 4);
}
