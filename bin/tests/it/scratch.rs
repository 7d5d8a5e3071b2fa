//! `--scratch`: the file keeps every byte, and the printed batch makes the change.

use std::fs;

use mapleaf::{Db, Table};

use crate::support::{kvctl, kvctl_with, Folder, Ran};

/// A database with tables `main`, without types, and `born`, of numbers.
fn database(folder: &Folder) -> String {
    const BORN: Table<&str, u16> = Table::new("born");
    let db = folder.path("a.mapleaf");
    assert_eq!(kvctl_with(&["load", &db], b"a\t1\nb\t2\nc\tx\\ty\n").code, 0);
    Db::open(&db).and_then(|db| db.write(|txn| txn.table(BORN)?.insert("ada", 1815).map(drop))).expect("written");
    db
}

fn dump(db: &str) -> String {
    let ran = kvctl(&["dump", db, "--all"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.out
}

/// Runs a verb to scratch, which prints this and changes no byte of the file. Then the batch that
/// it printed must do the same as the verb itself.
#[track_caller]
fn compare(args: &[&str], stdin: &[u8], printed: &str) {
    let folder = Folder::new();
    let db = database(&folder);
    let words: Vec<&str> = args.iter().map(|&arg| if arg == "DB" { db.as_str() } else { arg }).collect();
    let before = fs::read(&db).unwrap();
    let scratch = kvctl_with(&[&["--scratch"], &words[..]].concat(), stdin);
    assert_eq!((scratch.code, scratch.out.as_str()), (0, printed), "{}", scratch.err);
    assert!(fs::read(&db).unwrap() == before, "the file has changed");
    assert_eq!(folder.names_beside_locks(&["a.mapleaf"]), ["a.mapleaf"]);
    let copy = folder.path("b.mapleaf");
    fs::copy(&db, &copy).unwrap();
    assert_eq!(kvctl_with(&words, stdin).code, 0);
    let batch = printed.trim_start_matches("7\n");
    assert_eq!(kvctl_with(&["txn", &copy], batch.as_bytes()).code, 0);
    assert_eq!(dump(&copy), dump(&db));
}

#[test]
fn each_verb_prints_what_it_would_change_as_a_batch_of_txn() {
    compare(&["put", "DB", "d", "new"], b"", "table\tmain\nput\td\tnew\n");
    compare(&["put", "DB", "a", "1"], b"", "");
    compare(&["put", "DB", "-t", "born", "grace", "1906"], b"", "table\tborn\nput\tgrace\t1906\n");
    compare(&["del", "DB", "--from", "a", "--to", "c"], b"", "table\tmain\ndel\ta\ndel\tb\n");
    compare(&["incr", "DB", "a", "6"], b"", "7\ntable\tmain\nput\ta\t7\n");
    compare(&["cas", "DB", "b", "2", "9"], b"", "table\tmain\nput\tb\t9\n");
    compare(&["load", "DB"], b"a\tz\ne\tq\\nr\n", "table\tmain\nput\ta\tz\nput\te\tq\\nr\n");
    let batch = b"check\tb\t2\nput\tb\t3\ndel\tc\nput\tx\t1\ndel\tx\ntable\tborn\nput\tada\t1816\n";
    compare(&["txn", "DB"], batch, "table\tborn\nput\tada\t1816\ntable\tmain\nput\tb\t3\ndel\tc\n");
}

#[track_caller]
fn fails(ran: &Ran, code: i32, part: &str) {
    assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{}", ran.err);
    assert!(ran.err.contains(part), "{}", ran.err);
}

#[test]
fn a_batch_that_fails_prints_no_change_and_tables_are_named() {
    let folder = Folder::new();
    let db = database(&folder);
    let before = fs::read(&db).unwrap();
    fails(&kvctl_with(&["txn", &db, "--scratch"], b"put\ta\t5\ncheck\tb\t7\n"), 1, "line 2: the key has another value");
    fails(&kvctl_with(&["txn", &db, "--scratch"], b"put\ta\n"), 65, "line 1");
    let gone = kvctl(&["--scratch", "tables", "drop", &db, "born", "--yes"]);
    assert!(gone.out.contains("# table\tborn\twould be gone\n"), "{} {}", gone.out, gone.err);
    let new = kvctl(&["--scratch", "put", &db, "-t", "new", "k", "v"]);
    assert_eq!(new.out, "# table\tnew\twould be new\ntable\tnew\nput\tk\tv\n", "{}", new.err);
    assert!(fs::read(&db).unwrap() == before);
}

#[test]
fn scratch_creates_no_file_and_is_refused_by_other_verbs() {
    let folder = Folder::new();
    let db = folder.path("missing.mapleaf");
    fails(&kvctl(&["--scratch", "put", &db, "a", "b"]), 66, "missing.mapleaf");
    assert!(folder.names().is_empty());
    let db = database(&folder);
    let before = fs::read(&db).unwrap();
    for verb in ["get", "recover", "salvage", "compact", "bench", "torture"] {
        let ran = kvctl(&["--scratch", verb, &db, &folder.path("out")]);
        assert_eq!(ran.code, 2, "{verb}: {}", ran.err);
    }
    fails(&kvctl(&["--scratch", "recover", &db]), 2, "--scratch is for verbs that change entries");
    assert!(fs::read(&db).unwrap() == before);
}
