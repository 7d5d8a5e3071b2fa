//! Verbs that change several entries or depend on the present ones: `incr`, `cas`, `txn`, ranges of
//! `del`, and the actions of `tables`.

use std::fs;
use std::thread;

use mapleaf::{Db, Options, Table};

use crate::support::{kvctl, kvctl_with, Folder, Ran};

#[track_caller]
fn done(ran: &Ran, out: &str) {
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, out, ""));
}

/// Asserts this exit code, no answer, and one line on standard error that contains these texts.
#[track_caller]
fn fails(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (code, "", 1), "{}", ran.err);
    for part in parts {
        assert!(ran.err.contains(part), "no '{part}' in: {}", ran.err);
    }
}

/// All rows of a table.
fn rows(db: &str, table: &str) -> String {
    let ran = kvctl(&["scan", db, "-t", table]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.out
}

/// A database with these rows in table `main`.
fn with_rows(folder: &Folder, rows: &str) -> String {
    let db = folder.path("a.mapleaf");
    assert_eq!(kvctl_with(&["load", &db], rows.as_bytes()).code, 0);
    db
}

#[test]
fn incr_adds_to_digits_in_a_table_without_types_and_counts_an_absent_key_as_0() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    done(&kvctl(&["incr", &db, "visits"]), "1\n");
    done(&kvctl(&["incr", &db, "visits", "41"]), "42\n");
    done(&kvctl(&["incr", &db, "visits", "-50"]), "-8\n");
    done(&kvctl(&["incr", &db, "--hex", "766973697473", "8"]), "0\n");
    assert_eq!(rows(&db, "main"), "visits\t0\n");
    done(&kvctl(&["put", &db, "name", "ada"]), "");
    fails(&kvctl(&["incr", &db, "name"]), 2, &[&db, "'main'", "'ada'", "not a whole number", "kvctl put"]);
    fails(&kvctl(&["incr", &db, "visits", "1.5"]), 2, &["BY: '1.5'", "a whole number"]);
    assert_eq!(rows(&db, "main"), "name\tada\nvisits\t0\n");
    fails(&kvctl(&["incr", &folder.path("new"), "k", "x"]), 2, &["BY: 'x'"]);
    assert!(!fs::exists(folder.path("new")).unwrap());
}

#[test]
fn incr_keeps_the_type_of_the_table_and_refuses_a_sum_that_does_not_fit() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    const STOCK: Table<&str, u8> = Table::new("stock");
    const WEIGHTS: Table<u32, f64> = Table::new("weights");
    let db = Db::open(&path).unwrap();
    db.write(|txn| {
        txn.table(STOCK)?.insert("apples", 250)?;
        txn.table(WEIGHTS)?.insert(7, 1.25)?;
        txn.create_table("flags", "str", "bool").map(drop)
    })
    .unwrap();
    drop(db);
    done(&kvctl(&["incr", &path, "-t", "stock", "apples", "5"]), "255\n");
    fails(&kvctl(&["incr", &path, "-t", "stock", "apples"]), 2, &["'stock'", "u8", "'256'", "0 to 255"]);
    fails(&kvctl(&["incr", &path, "-t", "stock", "pears", "-1"]), 2, &["'-1'", "0 to 255"]);
    done(&kvctl(&["incr", &path, "-t", "weights", "7", "-0.5"]), "0.75\n");
    fails(&kvctl(&["incr", &path, "-t", "flags", "k"]), 2, &["'flags'", "bool", "no numbers"]);
    let db = Db::open(&path).unwrap();
    let txn = db.begin_read().unwrap();
    assert_eq!(txn.table(STOCK).unwrap().get("apples").unwrap(), Some(255));
    assert_eq!(txn.table(STOCK).unwrap().len(), 1);
    assert_eq!(txn.table(WEIGHTS).unwrap().get(7).unwrap(), Some(0.75));
}

#[test]
fn processes_that_add_at_the_same_time_lose_nothing() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    done(&kvctl(&["put", &db, "n", "0"]), "");
    let add = |_| {
        let db = db.clone();
        thread::spawn(move || (0..10).for_each(|_| assert_eq!(kvctl(&["incr", &db, "n"]).code, 0)))
    };
    let threads: Vec<_> = (0..4).map(add).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    done(&kvctl(&["get", &db, "n"]), "40\n");
}

#[test]
fn cas_stores_only_if_the_value_is_the_expected_one() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let cas = |args: &[&str]| kvctl(&[&["cas", &db], args].concat());
    fails(&cas(&["k", "old", "new"]), 1, &[&db, "no such key"]);
    assert!(!fs::exists(&db).unwrap());
    done(&cas(&["--absent", "k", "one"]), "");
    fails(&cas(&["--absent", "k", "two"]), 1, &[&db, "exists already", "'main'"]);
    fails(&cas(&["k", "two", "three"]), 1, &[&db, "another value", "kvctl get"]);
    fails(&cas(&["l", "one", "two"]), 1, &["no such key"]);
    assert_eq!(rows(&db, "main"), "k\tone\n");
    done(&cas(&["k", "one", "two"]), "");
    done(&cas(&["--hex", "6b", "74776f", "00"]), "");
    assert_eq!(rows(&db, "main"), "k\t\0\n");
    fails(&cas(&["k", "one"]), 2, &["NEW is missing"]);
    fails(&cas(&["k", "one", "two", "--absent"]), 2, &["--absent takes only the new value"]);
    fails(&cas(&["k", "-", "-"]), 2, &["standard input", "@PATH"]);
    assert_eq!(kvctl_with(&["cas", &db, "--raw", "k", "-", "plain"], b"\0").code, 0);
    assert_eq!(rows(&db, "main"), "k\tplain\n");
    // A missing table is not created by a refusal.
    fails(&cas(&["-t", "none", "k", "a", "b"]), 1, &["no such key in table 'none'"]);
    assert_eq!(kvctl(&["tables", &db]).out.lines().count(), 1);
}

#[test]
fn cas_compares_values_by_the_type_of_the_table() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    done(&kvctl(&["tables", "create", &db, "born", "--key", "str", "--value", "u64"]), "");
    done(&kvctl(&["put", &db, "-t", "born", "ada", "1815"]), "");
    done(&kvctl(&["cas", &db, "-t", "born", "ada", "01815", "1816"]), "");
    fails(&kvctl(&["cas", &db, "-t", "born", "ada", "1816", "later"]), 2, &["u64", "'later'"]);
    done(&kvctl(&["get", &db, "-t", "born", "ada"]), "1816\n");
}

#[test]
fn txn_applies_all_lines_in_order() {
    let folder = Folder::new();
    let db = with_rows(&folder, "a\t1\nb\t2\n");
    done(&kvctl(&["tables", "create", &db, "born", "--key", "str", "--value", "u64"]), "");
    let batch = "# all of this or nothing\ncheck\ta\t1\ncheck\tz\nput\tz\tnew\\n\ncheck\tz\tnew\\n\ndel\ta\ncheck\ta\n\
                 del\tabsent\ntable\tborn\nput\tada\t1815\ncheck\tada\t1815\ntable\tother\ndel\tx\ncheck\tx\n";
    done(&kvctl_with(&["txn", &db], batch.as_bytes()), "");
    assert_eq!(rows(&db, "main"), "b\t2\nz\tnew\\n\n");
    done(&kvctl(&["get", &db, "-t", "born", "ada"]), "1815\n");
    // `other` was only looked at.
    assert_eq!(kvctl(&["tables", &db]).out.lines().count(), 2);
    let file = folder.path("batch.tsv");
    fs::write(&file, "put\tc\t3\n").unwrap();
    done(&kvctl(&["txn", &db, "-t", "third", &file]), "");
    assert_eq!(rows(&db, "third"), "c\t3\n");
}

#[test]
fn txn_changes_nothing_if_a_check_fails_or_a_line_is_malformed() {
    let folder = Folder::new();
    let db = with_rows(&folder, "a\t1\nb\t2\n");
    done(&kvctl(&["tables", "create", &db, "born", "--key", "str", "--value", "u64"]), "");
    // Not the bytes of the file: a transaction that was aborted may have used free pages.
    let state = || (kvctl(&["dump", &db, "--all"]).out, Db::open(&db).unwrap().stats().unwrap().txn);
    let before = state();
    let long = format!("put\t{}\tv\n", "k".repeat(65_537));
    for (last, code, parts) in [
        ("check\ta\t2\n", 1, &["line 4: the key has another value"][..]),
        ("check\ta\n", 1, &["line 4: the key exists"]),
        ("check\tc\t1\n", 1, &["line 4: there is no such key"]),
        ("check\tb\t2\n", 1, &["line 4: there is no such key"]),
        ("table\tnone\ncheck\tk\tv\n", 1, &["line 5: there is no such key"]),
        ("put\tk\n", 65, &["line 4: put needs a key and a value"]),
        ("put\tk\t\\q\n", 65, &["line 4: bad escape"]),
        ("move\tk\n", 65, &["line 4: 'move' is no operation"]),
        ("table\tborn\nput\tada\tsoon\n", 65, &["line 5: ", "'born'", "u64", "'soon'"]),
        ("table\tborn\ncheck\tada\tsoon\n", 65, &["line 5: ", "'soon'"]),
        (&long, 2, &["line 4: ", "65537", "65536"]),
    ] {
        let batch = format!("put\ta\tchanged\nput\tnew\tv\ndel\tb\n{last}");
        let ran = kvctl_with(&["txn", &db], batch.as_bytes());
        fails(&ran, code, parts);
        assert!(ran.err.contains("standard input: ") && ran.err.contains("nothing was changed"), "{}", ran.err);
        if last.contains("born") {
            continue;
        }
        let new = folder.path("new.mapleaf");
        assert_ne!(kvctl_with(&["txn", &new], batch.as_bytes()).code, 0, "{last}");
        assert!(!fs::exists(&new).unwrap(), "{last}");
    }
    assert_eq!(rows(&db, "main"), "a\t1\nb\t2\n");
    let read = Options::new().read_only(true).open(&db).unwrap();
    assert_eq!(read.begin_read().unwrap().tables().unwrap().len(), 2);
    assert_eq!(state(), before, "a refused batch changed the database");
}

#[test]
fn txn_with_checks_only_changes_nothing_and_creates_no_file() {
    let folder = Folder::new();
    let db = with_rows(&folder, "a\t1\n");
    let before = fs::read(&db).unwrap();
    done(&kvctl_with(&["txn", &db], b"check\ta\t1\ncheck\tb\ndel\tb\n"), "");
    assert!(fs::read(&db).unwrap() == before);
    let new = folder.path("new");
    done(&kvctl_with(&["txn", &new], b"check\ta\n"), "");
    assert!(!fs::exists(&new).unwrap());
    fails(&kvctl(&["txn", &db, &folder.path("none")]), 66, &["none", "no such file"]);
}

#[test]
fn del_removes_the_keys_of_a_range_and_says_how_many() {
    let folder = Folder::new();
    let all = "a\t1\nb1\t2\nb2\t3\nb3\t4\nc\t5\n";
    let db = with_rows(&folder, all);
    let del = |args: &[&str]| kvctl(&[&["del", &db], args].concat());
    let said = |ran: &Ran| (ran.code, ran.out.clone(), ran.err.clone());
    assert_eq!(said(&del(&["--prefix", "b", "--to", "b2"])), (0, String::new(), "deleted 1 entry\n".into()));
    assert_eq!(rows(&db, "main"), "a\t1\nb2\t3\nb3\t4\nc\t5\n");
    assert_eq!(said(&del(&["--hex", "--from", "6233"])), (0, String::new(), "deleted 2 entries\n".into()));
    assert_eq!(rows(&db, "main"), "a\t1\nb2\t3\n");
    fails(&del(&["--from", "x", "--to", "y"]), 1, &[&db, "no such key"]);
    fails(&del(&["--from", "b", "--to", "a"]), 1, &[&db, "no such key"]);
    fails(&del(&["--prefix", "x", "-t", "none"]), 1, &["no such key in table 'none'"]);
    fails(&del(&["--prefix", ""]), 2, &["all keys", "kvctl tables clear"]);
    assert_eq!((del(&["a", "--prefix", "a"]).code, del(&[]).code), (2, 2));
    assert_eq!(rows(&db, "main"), "a\t1\nb2\t3\n");
    assert_eq!(kvctl(&["tables", &db]).out.lines().count(), 1);
    fails(&kvctl(&["del", &folder.path("new"), "--prefix", "a"]), 1, &["no such file"]);
}

#[test]
fn del_takes_the_first_items_of_tuple_keys_as_a_prefix() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    done(&kvctl(&["tables", "create", &db, "t", "--key", "(str,u64)", "--value", "str"]), "");
    for key in ["[\"a\", 1]", "[\"a\", 300]", "[\"ab\", 1]"] {
        done(&kvctl(&["put", &db, "-t", "t", key, "v"]), "");
    }
    assert_eq!(kvctl(&["del", &db, "-t", "t", "--prefix", "[\"a\"]"]).err, "deleted 2 entries\n");
    done(&kvctl(&["scan", &db, "-t", "t", "--keys"]), "[\"ab\", 1]\n");
}

#[test]
fn tables_are_renamed_cleared_and_dropped() {
    let folder = Folder::new();
    let db = with_rows(&folder, "a\t1\nb\t2\n");
    done(&kvctl(&["tables", "create", &db, "born", "--key", "str", "--value", "u64"]), "");
    done(&kvctl(&["put", &db, "-t", "born", "ada", "1815"]), "");
    done(&kvctl(&["tables", "rename", &db, "born", "years"]), "");
    done(&kvctl(&["get", &db, "-t", "years", "ada"]), "1815\n");
    fails(&kvctl(&["tables", "rename", &db, "born", "x"]), 1, &[&db, "no table 'born'", "kvctl tables"]);
    fails(&kvctl(&["tables", "rename", &db, "years", "main"]), 2, &[&db, "already a table 'main'"]);
    // Without a terminal, entries go only with --yes.
    for action in ["drop", "clear"] {
        let refused = kvctl(&["tables", action, &db, "years"]);
        fails(&refused, 2, &[&db, "not changed", "--yes removes 1 entry of table 'years'"]);
        fails(&kvctl(&["tables", action, &db, "none", "--yes"]), 1, &["no table 'none'"]);
        fails(&kvctl(&["tables", action, &folder.path("new"), "t", "--yes"]), 1, &["no such file"]);
    }
    assert_eq!(rows(&db, "years"), "ada\t1815\n");
    done(&kvctl(&["tables", "clear", &db, "years", "--yes"]), "");
    done(&kvctl(&["tables", &db]), "main\t2\t1\t\t\nyears\t0\t0\tstr\tu64\n");
    // An empty table has nothing to lose.
    done(&kvctl(&["tables", "clear", &db, "years"]), "");
    done(&kvctl(&["tables", "drop", &db, "years"]), "");
    done(&kvctl(&["tables", "drop", &db, "main", "--yes"]), "");
    done(&kvctl(&["tables", &db]), "");
    assert_eq!(kvctl(&["check", &db]).code, 0);
    assert!(!fs::exists(folder.path("new")).unwrap());
}

#[test]
fn multimap_tables_are_made_changed_scanned_and_dumped() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    done(&kvctl(&["tables", "create", &db, "tags", "--multimap", "--key", "str", "--value", "u64"]), "");
    for (key, value) in [("red", "7"), ("red", "300"), ("blue", "7"), ("red", "7")] {
        done(&kvctl(&["put", &db, "-t", "tags", key, value]), "");
    }
    done(&kvctl(&["get", &db, "-t", "tags", "red"]), "7\n300\n");
    assert_eq!(rows(&db, "tags"), "blue\t7\nred\t7\nred\t300\n");
    done(&kvctl(&["scan", &db, "-t", "tags", "--count"]), "3\n");
    done(&kvctl(&["scan", &db, "-t", "tags", "--reverse", "--limit", "1"]), "red\t300\n");
    // Programs open it with their types.
    let tags: mapleaf::MultiTable<&str, u64> = mapleaf::MultiTable::new("tags");
    let opened = Db::open_existing(&db).expect("opens");
    assert_eq!(opened.begin_read().and_then(|txn| txn.multi_table(&tags)?.count("red")).expect("a count"), 2);
    drop(opened);

    for format in ["tsv", "jsonl"] {
        let (dump, copy) = (folder.path(&format!("dump.{format}")), folder.path(&format!("{format}.mapleaf")));
        assert_eq!(kvctl(&["dump", &db, "--all", "-o", &dump]).code, 0);
        assert_eq!(kvctl(&["load", &copy, &dump]).code, 0);
        assert_eq!(rows(&copy, "tags"), rows(&db, "tags"));
        let listed = |path: &str| kvctl(&["tables", path, "--json"]).out.replace(" ", "");
        assert!(listed(&copy).contains("\"multimap\":true"), "{}", listed(&copy));
        assert_eq!(kvctl(&["put", &copy, "-t", "tags", "red", "8"]).code, 0);
        done(&kvctl(&["get", &copy, "-t", "tags", "red"]), "7\n8\n300\n");
    }
    done(&kvctl(&["del", &db, "-t", "tags", "red", "7"]), "");
    fails(&kvctl(&["del", &db, "-t", "tags", "red", "7"]), 1, &["no such key"]);
    done(&kvctl(&["get", &db, "-t", "tags", "red"]), "300\n");
    done(&kvctl(&["del", &db, "-t", "tags", "red"]), "");
    assert_eq!(rows(&db, "tags"), "blue\t7\n");
    assert_eq!(kvctl(&["tables", "clear", &db, "tags", "--yes"]).code, 0);
    assert_eq!(rows(&db, "tags"), "");
    assert_eq!(kvctl(&["check", &db]).code, 0);
    let other = Folder::new();
    fails(&kvctl(&["del", &with_rows(&other, "a\tb\n"), "a", "b"]), 2, &["is no multimap", "leave VALUE out"]);
}

#[test]
fn txn_checks_puts_and_deletes_values_of_multimap_tables() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    done(&kvctl(&["tables", "create", &db, "tags", "--multimap", "--key", "str", "--value", "u64"]), "");
    let batch = |lines: &str| kvctl_with(&["txn", &db, "-t", "tags"], lines.as_bytes());
    done(&batch("check\tred\nput\tred\t7\nput\tred\t300\ncheck\tred\t7\nput\tblue\t7\nput\tred\t7\n"), "");
    assert_eq!(rows(&db, "tags"), "blue\t7\nred\t7\nred\t300\n");
    // A failed check takes back what came before it.
    fails(&batch("del\tred\t7\ncheck\tred\t8\n"), 1, &["line 2", "the key does not have this value"]);
    fails(&batch("del\tred\ncheck\tred\t7\n"), 1, &["line 2", "there is no such key"]);
    fails(&batch("del\tred\t7\ncheck\tred\n"), 1, &["line 2", "the key exists"]);
    assert_eq!(rows(&db, "tags"), "blue\t7\nred\t7\nred\t300\n");
    fails(&batch("del\tred\tseven\n"), 65, &["line 1", "u64"]);
    // A value that the key does not have is no error, as an absent key is none.
    done(&batch("del\tred\t7\ndel\tred\t9\ndel\tnone\t9\ndel\tblue\ncheck\tblue\n"), "");
    assert_eq!(rows(&db, "tags"), "red\t300\n");
    // One batch changes tables of both kinds.
    done(&batch("put\tred\t8\ntable\tplain\nput\ta\tb\ntable\ttags\ndel\tred\t300\n"), "");
    assert_eq!((rows(&db, "tags").as_str(), rows(&db, "plain").as_str()), ("red\t8\n", "a\tb\n"));
    fails(&batch("table\tplain\ndel\ta\tb\n"), 2, &["line 2", "'plain' is no multimap", "leave the value out"]);
    assert_eq!(kvctl(&["check", &db]).code, 0);
}

#[test]
fn verbs_that_need_one_value_for_each_key_refuse_multimap_tables() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    done(&kvctl(&["tables", "create", &db, "tags", "--multimap", "--key", "str", "--value", "u64"]), "");
    done(&kvctl(&["put", &db, "-t", "tags", "red", "7"]), "");
    for (verb, arguments) in [
        ("incr", &["red"][..]),
        ("incr", &["none", "3"]),
        ("cas", &["red", "7", "8"]),
        ("cas", &["--absent", "none", "8"]),
    ] {
        let ran = kvctl(&[&[verb, &db, "-t", "tags"], arguments].concat());
        fails(
            &ran,
            2,
            &["table 'tags' is a multimap table", &format!("{verb} needs a table with one value"), "kvctl txn"],
        );
    }
    assert_eq!(rows(&db, "tags"), "red\t7\n");
}
