//! Types of tables: text of built-in codecs, tables without types, dumps with types.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use mapleaf::codec::Codec;
use mapleaf::{Db, Options, Table};
use proptest::prelude::*;

use crate::support::{kvctl, kvctl_with, Folder, Ran};

const BORN: Table<&str, u64> = Table::new("born");

/// Asserts success with this on standard output.
#[track_caller]
fn prints(args: &[&str], out: &str) {
    let ran = kvctl(args);
    assert_eq!((ran.code, &*ran.out, &*ran.err), (0, out, ""));
}

/// Asserts this exit code and one line that contains all of these texts.
#[track_caller]
fn fails(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!((ran.code, ran.err.lines().count()), (code, 1), "{}", ran.err);
    for part in parts {
        assert!(ran.err.contains(part), "no '{part}' in: {}", ran.err);
    }
}

/// The database of a program, with years of birth by name.
fn people(folder: &Folder) -> String {
    let path = folder.path("people.mapleaf");
    let db = Db::open(&path).unwrap();
    db.write(|txn| {
        txn.table(BORN)?.insert("ada", 1815)?;
        txn.table(BORN)?.insert("grace", 1906).map(drop)
    })
    .unwrap();
    path
}

/// The entries as the program reads them. All must decode.
#[track_caller]
fn years(path: &str) -> Vec<(String, u64)> {
    let db = Options::new().read_only(true).open(path).unwrap();
    let born = db.begin_read().unwrap().table(BORN).unwrap();
    born.range_owned(..).unwrap().collect::<mapleaf::Result<_>>().unwrap()
}

/// The codecs of the keys and the values of a table, and its stored entries.
type Stored = (String, String, Vec<(Vec<u8>, Vec<u8>)>);

/// All tables of a database, by name.
type Content = BTreeMap<String, Stored>;

fn content(path: &str) -> Content {
    let txn = Options::new().read_only(true).open(path).unwrap().begin_read().unwrap();
    let tables = txn.tables().unwrap().into_iter();
    tables
        .map(|table| {
            let entries = txn.bytes_table(&table.name).unwrap().range_owned(..).unwrap();
            let entries = entries.collect::<mapleaf::Result<_>>().unwrap();
            (table.name, (table.key_codec, table.value_codec, entries))
        })
        .collect()
}

#[test]
fn values_of_typed_tables_are_printed_and_parsed_as_text() {
    let folder = Folder::new();
    let db = people(&folder);
    prints(&["get", "-t", "born", &db, "ada"], "1815\n");
    prints(&["put", "-t", "born", &db, "bob", "1900"], "");
    prints(&["get", "-t", "born", &db, "bob"], "1900\n");
    prints(&["scan", "-t", "born", &db], "ada\t1815\nbob\t1900\ngrace\t1906\n");
    prints(&["del", "-t", "born", &db, "ada"], "");
    assert_eq!(years(&db), [("bob".to_string(), 1900), ("grace".to_string(), 1906)]);
    prints(&["get", "-t", "born", &db, "--hex", "626f62"], "000000000000076c\n");
    assert_eq!(kvctl(&["get", "-t", "born", &db, "bob", "--raw"]).out, "\0\0\0\0\0\0\x07\x6c");
    for input in ["1901\n", "1901\r\n", "1901"] {
        assert_eq!(kvctl_with(&["put", "-t", "born", &db, "bob", "-"], input.as_bytes()).code, 0, "{input:?}");
    }
    assert_eq!(kvctl_with(&["put", "-t", "born", &db, "bob", "-", "--raw"], &1902u64.to_be_bytes()).code, 0);
    prints(&["get", "-t", "born", &db, "bob"], "1902\n");
}

#[test]
fn text_that_does_not_fit_the_type_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    let db = people(&folder);
    let before = fs::read(&db).unwrap();
    for text in ["x", "", "-1", "+1", "1.5", " 1", "18446744073709551616"] {
        let ran = kvctl(&["put", "-t", "born", &db, "bob", text]);
        fails(&ran, 2, &[&db, "table 'born'", "u64", &format!("'{text}'"), "0 to 18446744073709551615"]);
    }
    fails(&kvctl(&["put", "-t", "born", &db, "--hex", "626f62", "ff"]), 2, &["'born'", "u64", "1 bytes"]);
    fails(&kvctl(&["put", "-t", "born", &db, "--hex", "ff", &"00".repeat(8)]), 2, &["'born'", "keys of type str"]);
    fails(&kvctl(&["put", "-t", "born", &db, "--base64", "Ym9i", "/w=="]), 2, &["'born'", "u64"]);
    fails(&kvctl_with(&["put", "-t", "born", &db, "bob", "-", "--raw"], b"1900"), 2, &["'born'", "4 bytes"]);
    assert!(fs::read(&db).unwrap() == before);
    prints(&["put", "-t", "born", &db, "--hex", "626f62", "000000000000076c"], "");
    assert_eq!(years(&db).len(), 3);
}

#[test]
fn a_table_that_kvctl_creates_opens_as_text_and_as_bytes() {
    let folder = Folder::new();
    let db = folder.path("new.mapleaf");
    prints(&["put", "-t", "users", &db, "ada", "x"], "");
    let opened = Db::open(&db).unwrap();
    opened.write(|txn| txn.table(Table::<&str, String>::new("users"))?.insert("bob", "y".into()).map(drop)).unwrap();
    let txn = opened.begin_read().unwrap();
    assert_eq!(txn.table(Table::<&str, &str>::new("users")).unwrap().get("ada").unwrap(), Some("x"));
    assert_eq!(txn.table(Table::<&[u8], &[u8]>::new("users")).unwrap().get(b"bob").unwrap(), Some(&b"y"[..]));
    let refused = txn.table(Table::<&str, u64>::new("users")).unwrap_err();
    assert!(refused.to_string().contains("made without types"), "{refused}");
    drop((txn, opened));
    prints(&["tables", &db], "users\t2\t1\t\t\n");
}

#[test]
fn a_database_loaded_from_tsv_opens_as_text() {
    const NAMES: Table<&str, &str> = Table::new("main");
    let folder = Folder::new();
    let (db, rows) = (folder.path("names.mapleaf"), folder.path("names.tsv"));
    let all = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/unicode-names.tsv")).unwrap();
    let some: Vec<&str> = all.lines().filter(|line| line.starts_with('#') || line.starts_with("U+1F9")).collect();
    fs::write(&rows, some.join("\n")).unwrap();
    assert_eq!(kvctl(&["load", &db, &rows]).code, 0);
    let txn = Db::open_existing(&db).unwrap().begin_read().unwrap();
    let names = txn.table(NAMES).unwrap();
    assert_eq!(names.get("U+1F980").unwrap(), Some("CRAB"));
    assert!(names.len() > 100 && names.iter().all(|entry| entry.is_ok()));
}

#[test]
fn tables_lists_types_and_creates_tables_with_types() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let create = |args: &[&str]| kvctl(&[&["tables", "create", &db], args].concat());
    let made = |args: &[&str]| {
        let ran = create(args);
        assert_eq!((ran.code, &*ran.out, &*ran.err), (0, "", ""));
    };
    made(&["born", "--key", "str", "--value", "u64"]);
    made(&["born", "--key", "str", "--value", "u64"]);
    made(&["edges", "--key", "( u64, [u8; 2] )", "--value", "()"]);
    made(&["half", "--value", "u8"]);
    made(&["plain"]);
    fails(&create(&["born", "--key", "str", "--value", "i64"]), 2, &[&db, "'born'", "<str, u64>", "<str, i64>"]);
    fails(&create(&["born"]), 2, &["'born' was made as <str, u64> and was to be made without types"]);
    for (option, name) in [("--key", "string"), ("--value", "acme.v1"), ("--value", ""), ("--key", "()")] {
        let ran = create(&["other", option, name]);
        assert_eq!(ran.code, 2, "{}", ran.err);
        if name != "()" {
            assert!(ran.err.contains("str, bytes, u8 to u128") && ran.err.contains("(str,u64)"), "{}", ran.err);
        }
    }
    let listed = "born\t0\t0\tstr\tu64\nedges\t0\t0\t(u64,[u8;2])\t()\nhalf\t0\t0\t\tu8\nplain\t0\t0\t\t\n";
    prints(&["tables", &db], listed);
    let json: serde_json::Value = serde_json::from_str(&kvctl(&["tables", &db, "--json"]).out).unwrap();
    assert_eq!((&json[0]["key_codec"], &json[0]["value_codec"]), (&"str".into(), &"u64".into()));
    assert_eq!(json[3]["key_codec"], "");
    prints(&["put", &db, "-t", "edges", "[7, \"00ff\"]", ""], "");
    let opened = Db::open_existing(&db).unwrap();
    opened.write(|txn| txn.table(BORN)?.insert("ada", 1815).map(drop)).unwrap();
    let edges = opened.begin_read().unwrap().table(Table::<(u64, [u8; 2]), ()>::new("edges")).unwrap();
    assert_eq!(edges.get((7, [0, 255])).unwrap(), Some(()));
}

#[test]
fn bounds_of_a_scan_are_keys_in_the_order_of_the_codec() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    for (table, key) in [("n", "i32"), ("f", "f64"), ("t", "(str,u8,str)"), ("a", "[u8;2]")] {
        prints(&["tables", "create", &db, table, "--key", key, "--value", "str"], "");
    }
    for n in ["-20", "-3", "0", "5", "10", "100"] {
        prints(&["put", &db, "-t", "n", n, "v"], "");
    }
    prints(&["get", &db, "-t", "n", "-20"], "v\n");
    prints(&["scan", &db, "-t", "n", "--keys"], "-20\n-3\n0\n5\n10\n100\n");
    prints(&["scan", &db, "-t", "n", "--keys", "--from", "-3", "--to", "100"], "-3\n0\n5\n10\n");
    prints(&["scan", &db, "-t", "n", "--count", "--from", "6"], "2\n");
    fails(&kvctl(&["scan", &db, "-t", "n", "--from", "a"]), 2, &[&db, "'n'", "i32", "'a'"]);
    fails(&kvctl(&["scan", &db, "-t", "n", "--prefix", "1"]), 2, &["'n'", "no prefix", "--from"]);
    for n in ["1.5", "-inf", "NaN", "1e300"] {
        prints(&["put", &db, "-t", "f", "--", n, "v"], "");
    }
    prints(&["scan", &db, "-t", "f", "--keys"], "-inf\n1.5\n1e300\nNaN\n");
    for key in ["[\"a\", 1, \"x\"]", "[\"a\", 2, \"\"]", "[\"ab\", 1, \"x\"]"] {
        prints(&["put", &db, "-t", "t", key, "v"], "");
    }
    prints(&["scan", &db, "-t", "t", "--keys", "--prefix", "[\"a\"]"], "[\"a\", 1, \"x\"]\n[\"a\", 2, \"\"]\n");
    prints(&["scan", &db, "-t", "t", "--keys", "--prefix", "[\"a\", 2]"], "[\"a\", 2, \"\"]\n");
    prints(&["put", &db, "-t", "a", "00ff", "v"], "");
    prints(&["scan", &db, "-t", "a", "--prefix", "00"], "00ff\tv\n");
    fails(&kvctl(&["get", &db, "-t", "n", "1.5"]), 2, &[&db, "'n'", "i32", "'1.5'"]);
    fails(&kvctl(&["del", &db, "-t", "n", "x"]), 2, &[&db, "'n'", "i32", "'x'"]);
    prints(&["del", &db, "-t", "n", "-20"], "");
    prints(&["scan", &db, "-t", "n", "--count"], "5\n");
}

/// Creates tables of many kinds. Two are empty, and one has codecs that are not built in.
fn with_many_kinds(path: &str) {
    let db = Db::open(path).unwrap();
    db.write(|txn| {
        txn.table(BORN)?.insert("#ada\t\n", 1815)?;
        txn.table(BORN)?.insert("", u64::MAX)?;
        txn.table(Table::<(i8, String), f64>::new("a\tb\n\"#"))?.insert((-1, "x\0y".into()), -0.0)?;
        txn.table(Table::<u64, &str>::new("empty"))?;
        txn.bytes_table("empty and plain")?;
        txn.bytes_table("plain")?.insert(b"\xff\n", b"\\!\t")?;
        txn.table(Table::<&[u8], &[u8]>::new("raw"))?.insert(b"", b"\0")?;
        let compound = Table::<(Reverse<u16>, Option<String>), Vec<(String, i64)>>::new("compound");
        txn.table(compound)?.insert((Reverse(7), Some("\n\0".into())), vec![("a\tb".into(), -1), ("".into(), 1)])?;
        txn.create_table("moments", "(uuid,Reverse<timestamp>)", "json<any>")?
            .insert(&[&[7; 16][..], &[0x7F], &[0xFF; 11]].concat(), b"{\"a\":\"\\n\"}")?;
        txn.create_table("serde", "acme.key", "acme.value.v1")?.insert(b"k", b"\x01\xff").map(drop)
    })
    .unwrap();
}

#[test]
fn loading_a_dump_of_all_tables_restores_their_types() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    with_many_kinds(&db);
    prints(
        &["scan", &db, "-t", "moments"],
        "[\"07070707-0707-0707-0707-070707070707\", \"1970-01-01T00:00:00Z\"]\t{\"a\":\"\\\\n\"}\n",
    );
    prints(&["get", &db, "-t", "compound", "[7, \"\\n\\u0000\"]"], "[[\"a\\tb\", -1], [\"\", 1]]\n");
    let program = assert_cmd::cargo::cargo_bin!("kvctl");
    let again = folder.path("again.mapleaf");
    let pipe = format!("'{0}' dump --all '{db}' | '{0}' load '{again}'", program.display());
    assert!(Command::new("sh").args(["-c", &pipe]).status().unwrap().success());
    assert_eq!(content(&again), content(&db));
    assert_eq!(years(&again), years(&db));
    for name in ["dump.tsv", "dump.jsonl"] {
        let (dump, again) = (folder.path(name), folder.path(&format!("{name}.mapleaf")));
        prints(&["dump", "--all", &db, "-o", &dump], "");
        assert_eq!(kvctl(&["load", &again, &dump, "--batch", "2"]).code, 0, "{name}");
        assert_eq!(content(&again), content(&db), "{name}");
        // Loading the dump into the same database again changes nothing.
        assert_eq!(kvctl(&["load", &again, &dump]).code, 0, "{name}");
        assert_eq!(content(&again), content(&db), "{name}");
    }
    let tsv = String::from_utf8_lossy(&fs::read(folder.path("dump.tsv")).unwrap()).into_owned();
    assert!(tsv.contains("# mapleaf-table\tborn\tstr\tu64\n\t18446744073709551615\n\\x23ada\\t\\n\t1815\n"), "{tsv}");
    let jsonl = fs::read_to_string(folder.path("dump.jsonl")).unwrap();
    assert!(jsonl.contains("{\"table\": \"empty\", \"key_codec\": \"u64\", \"value_codec\": \"str\"}\n"), "{jsonl}");
    assert!(jsonl.contains("{\"table\": \"born\", \"key\": \"\", \"value\": \"18446744073709551615\"}\n"), "{jsonl}");
}

#[test]
fn a_dump_of_one_table_carries_its_name_and_types() {
    let folder = Folder::new();
    let db = people(&folder);
    let dump = kvctl(&["dump", &db, "-t", "born"]).out;
    assert_eq!(dump, "# mapleaf-table\tborn\tstr\tu64\nada\t1815\ngrace\t1906\n");
    let again = folder.path("again.mapleaf");
    assert_eq!(kvctl_with(&["load", &again], dump.as_bytes()).code, 0);
    assert_eq!(years(&again), years(&db));
    assert_eq!(kvctl_with(&["load", &again, "-t", "copy"], dump.as_bytes()).code, 0);
    prints(&["tables", &again], "born\t2\t1\tstr\tu64\ncopy\t2\t1\tstr\tu64\n");
    prints(&["tables", "create", &db, "none", "--key", "u8"], "");
    let all = kvctl(&["dump", &db, "--all"]).out;
    fails(&kvctl_with(&["load", &again, "-t", "copy"], all.as_bytes()), 2, &["'born' and 'none'", "-t copy"]);
}

#[test]
fn a_dump_of_other_types_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    with_many_kinds(&db);
    let other = folder.path("other.mapleaf");
    prints(&["tables", "create", &other, "serde", "--key", "str", "--value", "u64"], "");
    let before = fs::read(&other).unwrap();
    for name in ["dump.tsv", "dump.jsonl"] {
        let dump = folder.path(name);
        prints(&["dump", &db, "--all", "-o", &dump], "");
        let ran = kvctl(&["load", &other, &dump, "--batch", "1"]);
        fails(&ran, 2, &["'serde' was made as <str, u64>", "<acme.key, acme.value.v1>", "no rows were loaded"]);
        assert!(fs::read(&other).unwrap() == before, "{name}");
    }
}

#[test]
fn rows_without_declarations_are_text_of_the_tables_types() {
    let folder = Folder::new();
    let db = people(&folder);
    assert_eq!(kvctl_with(&["load", &db, "-t", "born"], b"bob\t1900\n").code, 0);
    let rows = b"{\"table\": \"born\", \"key\": \"eve\", \"value\": \"1950\"}\n";
    assert_eq!(kvctl_with(&["load", &db, "--format", "jsonl"], rows).code, 0);
    assert_eq!(years(&db).len(), 4);
    let before = content(&db);
    let ran = kvctl_with(&["load", &db, "-t", "born"], b"joe\t1901\njim\tx\n");
    fails(&ran, 65, &["line 2", "'born'", "u64", "'x'", "no rows were loaded"]);
    let ran = kvctl_with(&["load", &db, "-t", "born"], b"joe\t\\!aaaa\n");
    fails(&ran, 65, &["line 1", "'born'", "u64", "4 bytes", "--unchecked"]);
    let rows = b"{\"table\": \"born\", \"key\": \"ada\", \"value\": 1815}\n";
    let ran = kvctl_with(&["load", &db, "--format", "jsonl"], rows);
    fails(&ran, 65, &["line 1", "integer `1815`", "written in quotes"]);
    fails(&kvctl_with(&["load", &db], rows), 65, &["line 1", "no tab", "--format jsonl"]);
    // Older releases wrote dumps without declarations of tables.
    let old = [b"old\t".as_slice(), &[0, 0, 0, 0, 0, 0, 7, b'l'], b"\n"].concat();
    fails(&kvctl_with(&["load", &db, "-t", "born"], &old), 65, &["line 1", "'born'"]);
    fails(
        &kvctl_with(&["load", &db, "-t", "born", "--raw"], b"joe\t1901\n"),
        65,
        &["line 1", "4 bytes", "--unchecked"],
    );
    assert_eq!(content(&db), before);
    assert_eq!(kvctl_with(&["load", &db, "-t", "born", "--raw"], &old).code, 0);
    prints(&["get", &db, "-t", "born", "old"], "1900\n");
    let rows = b"{\"key\": \"json\", \"value_b64\": \"AAAAAAAAB2w=\"}\n";
    assert_eq!(kvctl_with(&["load", &db, "-t", "born", "--format", "jsonl"], rows).code, 0);
    prints(&["get", &db, "-t", "born", "json"], "1900\n");
}

#[test]
fn bytes_that_do_not_decode_are_shown_as_bytes_and_can_be_replaced_and_deleted() {
    let folder = Folder::new();
    let db = people(&folder);
    let spoil = |key: &[u8], value: &[u8]| {
        Db::open(&db).unwrap().write(|txn| txn.bytes_table("born")?.insert(key, value).map(drop)).unwrap();
    };
    spoil(b"bob", b"x\ty");
    fails(&kvctl(&["get", &db, "-t", "born", "bob"]), 3, &[&db, "'born'", "u64", "3 bytes", "--hex"]);
    prints(&["get", &db, "-t", "born", "--hex", "626f62"], "780979\n");
    prints(&["get", &db, "-t", "born", "bob", "--raw"], "x\ty");
    let scan = kvctl(&["scan", &db, "-t", "born"]);
    assert_eq!(scan.out, "ada\t1815\nbob\t\\!x\\ty\ngrace\t1906\n");
    fails(&scan, 3, &["'born'", "u64"]);
    prints(&["scan", &db, "-t", "born", "--keys"], "ada\nbob\ngrace\n");
    for format in ["tsv", "jsonl"] {
        let dump = kvctl(&["dump", &db, "--all", "--format", format]);
        assert_eq!((dump.code, dump.err.contains("--unchecked")), (0, true), "{}", dump.err);
        let again = folder.path(&format!("{format}.mapleaf"));
        let load =
            |more: &[&str]| kvctl_with(&[&["load", &again, "--format", format], more].concat(), dump.out.as_bytes());
        fails(&load(&[]), 65, &["line ", "'born'", "3 bytes", "--unchecked"]);
        assert_eq!(load(&["--unchecked"]).code, 0);
        assert_eq!(content(&again), content(&db));
    }
    prints(&["put", &db, "-t", "born", "bob", "1900"], "");
    assert_eq!(years(&db).len(), 3);
    spoil(b"\xff", b"x");
    prints(&["del", &db, "-t", "born", "--hex", "ff"], "");
    spoil(b"bob", b"x");
    prints(&["del", &db, "-t", "born", "bob"], "");
    assert_eq!(years(&db).len(), 2);
}

#[test]
fn values_of_an_unknown_codec_need_an_option_for_bytes() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    let make = |txn: &mut mapleaf::WriteTxn| txn.create_table("t", "str", "acme.v1")?.insert(b"k", b"\x01v").map(drop);
    Db::open(&db).unwrap().write(make).unwrap();
    fails(&kvctl(&["get", &db, "-t", "t", "k"]), 2, &["'t'", "'acme.v1'", "--hex"]);
    prints(&["get", &db, "-t", "t", "--hex", "6b"], "0176\n");
    prints(&["get", &db, "-t", "t", "k", "--raw"], "\x01v");
    prints(&["scan", &db, "-t", "t"], "k\t\\!\x01v\n");
    fails(&kvctl(&["put", &db, "-t", "t", "l", "w"]), 2, &["'t'", "'acme.v1'", "--hex"]);
    prints(&["put", &db, "-t", "t", "--hex", "6c", "02"], "");
    prints(&["put", &db, "-t", "t", "--hex", "6c", "w", "--raw"], "");
    fails(&kvctl_with(&["load", &db, "-t", "t"], b"m\tx\n"), 2, &["line 1", "'acme.v1'"]);
    assert_eq!(kvctl_with(&["load", &db, "-t", "t"], b"m\t\\!x\n").code, 0);
    prints(&["scan", &db, "-t", "t"], "k\t\\!\x01v\nl\t\\!w\nm\t\\!x\n");
}

#[test]
fn a_table_of_bytes_keeps_its_type() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    Db::open(&db).unwrap().write(|txn| txn.create_table("main", "bytes", "bytes").map(drop)).unwrap();
    prints(&["put", &db, "k", "v"], "");
    prints(&["get", &db, "k"], "v\n");
    let txn = Db::open(&db).unwrap().begin_read().unwrap();
    assert!(txn.table(Table::<&str, &str>::new("main")).is_err());
    assert_eq!(txn.table(Table::<&[u8], &[u8]>::new("main")).unwrap().get(b"k").unwrap(), Some(&b"v"[..]));
}

/// Tables of random types, with random entries.
fn tables() -> impl Strategy<Value = Content> {
    fn all<K: Codec, V: Codec>(entries: &[(K::Item<'_>, V::Item<'_>)]) -> Stored {
        let encoded = |(key, value): &(K::Item<'_>, V::Item<'_>)| {
            (K::encode(key).unwrap().to_vec(), V::encode(value).unwrap().to_vec())
        };
        let entries: BTreeMap<_, _> = entries.iter().map(encoded).collect();
        (K::name(), V::name(), entries.into_iter().collect())
    }
    macro_rules! of {
        ($key:ty, $value:ty) => {
            prop::collection::vec(any::<($key, $value)>(), 0..4).prop_map(|entries| all::<$key, $value>(&entries))
        };
    }
    let plain = of!(Vec<u8>, Vec<u8>).prop_map(|(_, _, entries)| (String::new(), String::new(), entries));
    let serde =
        of!(Vec<u8>, Vec<u8>).prop_map(|(_, _, entries)| ("acme".to_string(), "(u8,acme)".to_string(), entries));
    let table = prop_oneof![
        plain,
        serde,
        of!(String, u64),
        of!(i128, f64),
        of!(char, bool),
        of!([u8; 3], Vec<u8>),
        of!((String, u8), String),
        of!((Vec<u8>, String, i16), (f32, ())),
        of!(u128, (u8, (Vec<u8>, char))),
    ];
    prop::collection::btree_map("[ -~\t\n#\u{e4}]{1,8}", table, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn loading_a_dump_of_all_tables_restores_every_byte(tables in tables(), jsonl in any::<bool>()) {
        let folder = Folder::new();
        let (db, again) = (folder.path("a.mapleaf"), folder.path("again.mapleaf"));
        Db::open(&db).unwrap().write(|txn| {
            for (name, (key_codec, value_codec, entries)) in &tables {
                let mut table = txn.create_table(name, key_codec, value_codec)?;
                for (key, value) in entries {
                    table.insert(key, value)?;
                }
            }
            Ok::<_, mapleaf::Error>(())
        }).unwrap();
        prop_assert_eq!(&content(&db), &tables);
        let dump = folder.path(if jsonl { "dump.jsonl" } else { "dump.tsv" });
        prop_assert_eq!(kvctl(&["dump", "--all", &db, "-o", &dump]).code, 0);
        let load = kvctl(&["load", &again, &dump]);
        prop_assert_eq!(load.code, 0, "{}", load.err);
        let loaded = if tables.is_empty() { Content::new() } else { content(&again) };
        prop_assert_eq!(&loaded, &tables);
    }
}
