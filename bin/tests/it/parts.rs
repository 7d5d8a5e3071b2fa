//! Parts of tables: `scan --skip --json`, ranges of `dump`; and `stat` with pins and pages.

use mapleaf::{Db, Table};
use serde_json::{json, Value};

use crate::support::{kvctl, kvctl_with, Folder};

const DATA: Table<u64, &[u8]> = Table::new("data");

#[track_caller]
fn prints(args: &[&str], out: &str) {
    let ran = kvctl(args);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, out, ""), "{args:?}");
}

fn letters(folder: &Folder) -> String {
    let db = folder.path("a.mapleaf");
    assert_eq!(kvctl_with(&["load", &db], b"a\t1\nb\t2\nc\t3\nd\t\xff\ne\t\n").code, 0);
    db
}

#[test]
fn scan_skips_entries_before_it_counts_and_limits_them() {
    let folder = Folder::new();
    let db = letters(&folder);
    let scan = |args: &[&str], out: &str| prints(&[&["scan", &db], args].concat(), out);
    scan(&["--skip", "3", "--keys"], "d\ne\n");
    scan(&["--skip", "1", "--limit", "2"], "b\t2\nc\t3\n");
    scan(&["--skip", "1", "--limit", "1", "--reverse", "--keys"], "d\n");
    scan(&["--skip", "1", "--from", "b", "--keys", "--limit", "1"], "c\n");
    scan(&["--skip", "9"], "");
    scan(&["--skip", "2", "--count"], "3\n");
    scan(&["--skip", "9", "--count"], "0\n");
    scan(&["--skip", "1", "--count", "--from", "c"], "2\n");
}

#[test]
fn scan_prints_json_lines_that_load_reads() {
    let folder = Folder::new();
    let db = letters(&folder);
    let lines = "{\"key\": \"a\", \"value\": \"1\"}\n{\"key\": \"b\", \"value\": \"2\"}\n\
                 {\"key\": \"c\", \"value\": \"3\"}\n{\"key\": \"d\", \"value_b64\": \"/w==\"}\n\
                 {\"key\": \"e\", \"value\": \"\"}\n";
    prints(&["scan", &db, "--json"], lines);
    let copy = folder.path("copy.mapleaf");
    assert_eq!(kvctl_with(&["load", &copy, "--format", "jsonl"], lines.as_bytes()).code, 0);
    assert_eq!(kvctl(&["dump", &copy, "--format", "jsonl"]).out, kvctl(&["dump", &db, "--format", "jsonl"]).out);
    prints(&["scan", &db, "--json", "--keys", "--limit", "1"], "{\"key\": \"a\"}\n");
    prints(&["scan", &db, "--json", "--base64", "--limit", "1"], "{\"key_b64\": \"YQ==\", \"value_b64\": \"MQ==\"}\n");
    prints(&["scan", &db, "--json", "--count"], "{\"count\": 5}\n");
    assert_eq!(kvctl(&["scan", &db, "--json", "--hex"]).code, 2);
}

#[test]
fn dump_writes_the_rows_of_a_range_with_the_types_of_the_table() {
    let folder = Folder::new();
    let db = folder.path("a.mapleaf");
    assert_eq!(kvctl(&["tables", "create", &db, "log", "--key", "u32", "--value", "str"]).code, 0);
    for n in [1, 20, 300, 4000] {
        assert_eq!(kvctl(&["put", &db, "-t", "log", &n.to_string(), "v"]).code, 0);
    }
    let declared = "# mapleaf-table\tlog\tu32\tstr\n";
    let dump = |args: &[&str], rows: &str| {
        prints(&[&["dump", &db, "-t", "log"], args].concat(), &format!("{declared}{rows}"));
    };
    dump(&["--from", "20", "--to", "4000"], "20\tv\n300\tv\n");
    dump(&["--to", "2"], "1\tv\n");
    dump(&["--from", "9", "--to", "9"], "");
    dump(&["--hex", "--prefix", "0000"], "1\tv\n20\tv\n300\tv\n4000\tv\n");
    let out = folder.path("out.tsv");
    let refused = kvctl(&["dump", &db, "-t", "log", "--from", "x", "-o", &out]);
    assert_eq!((refused.code, std::fs::exists(&out).unwrap()), (2, false), "{}", refused.err);
    assert!(refused.err.contains("u32") && refused.err.contains(&db), "{}", refused.err);
    assert_eq!(kvctl(&["dump", &db, "--all", "--from", "1"]).code, 2);
}

/// The answer of `stat --json`.
fn stat(db: &str, more: &[&str]) -> Value {
    let ran = kvctl(&[&["stat", db, "--json"], more].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    serde_json::from_str(&ran.out).unwrap()
}

/// Stores values under some of 2,000 keys.
fn update(db: &Db, from: u64) {
    let value = vec![7; 300];
    db.write(|txn| {
        let mut data = txn.table(DATA)?;
        (0..400).try_for_each(|n| data.insert((n * 5 + from) % 2000, &value).map(drop))
    })
    .unwrap();
}

#[test]
fn stat_names_the_reader_that_pins_pages_and_the_process_beside_it() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    let db = Db::open(&path).unwrap();
    (0..5).for_each(|from| update(&db, from));
    let reader = db.begin_read().unwrap();
    reader.set_label("nightly report");
    (0..5).for_each(|from| update(&db, from));
    let process = std::process::id();
    let shown = stat(&path, &[]);
    assert_eq!((&shown["presence"], &shown["processes"], &shown["readers"]), (&json!("member"), &json!(2), &json!(1)));
    assert_eq!(shown["members"], json!([{ "process": process, "writes": true }]));
    assert_eq!(shown["session"].as_str().map(str::len), Some(16));
    let pins = shown["pins"].as_array().unwrap();
    let pin = pins.iter().find(|pin| pin["by"] == "reader").expect("a pin");
    assert_eq!(
        (&pin["process"], &pin["label"], &pin["txn"]),
        (&json!(process), &json!("nightly report"), &json!(reader.txn_id()))
    );
    let bytes = pin["pages"].as_u64().unwrap() * 4096;
    let readers: Value = serde_json::from_str(&kvctl(&["readers", &path, "--json"]).out).unwrap();
    assert!(bytes > 0 && readers[0]["pinned_bytes"] == bytes, "{pin} {readers}");
    let text = kvctl(&["stat", &path]).out;
    let line = |start: &str| text.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>().join("\n");
    assert_eq!(line("member "), format!("member          process {process}, which may write"));
    assert!(line("pinned by").contains(&format!("the reader 'nightly report' of process {process}: pages ")), "{text}");
    drop(reader);
    assert!(!stat(&path, &[])["pins"].as_array().unwrap().iter().any(|pin| pin["by"] == "reader"));
}

#[test]
fn stat_shows_the_log_and_the_page_cache() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    let db = Db::open(&path).unwrap();
    for n in 0..20 {
        db.write(|txn| txn.table(DATA)?.insert(n, b"v").map(drop)).unwrap();
    }
    let shown = stat(&path, &[]);
    let number = |name: &str| shown[name].as_u64().unwrap_or_else(|| panic!("{name}: {shown}"));
    assert_eq!(number("log_bytes"), number("log_pages") * 4096);
    assert!(number("log_used_bytes") > 0 && number("log_used_bytes") <= number("log_bytes"), "{shown}");
    assert!(number("resident_bytes") > 0 && number("resident_bytes") <= number("file_bytes"), "{shown}");
    assert!(shown["dirty_bytes"].as_u64().is_none_or(|dirty| dirty <= number("resident_bytes")), "{shown}");
    db.checkpoint().unwrap();
    assert_eq!(stat(&path, &[])["log_used_bytes"], 0);
}

#[test]
fn stat_pages_counts_every_page_by_table_and_kind() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    let db = Db::open(&path).unwrap();
    (0..5).for_each(|from| update(&db, from));
    db.write(|txn| txn.table(Table::<&str, &[u8]>::new("long"))?.insert("k", &[1; 10_000]).map(drop)).unwrap();
    drop(db);
    let before = std::fs::read(&path).unwrap();
    let shown = stat(&path, &["--pages"]);
    let pages = &shown["pages"];
    let sum = |of: &Value, names: &[&str]| names.iter().map(|name| of[name].as_u64().unwrap()).sum::<u64>();
    let trees = pages["tables"].as_array().unwrap().iter().chain([&pages["catalog"], &pages["free_space"]]);
    let in_trees: u64 = trees.map(|tree| sum(tree, &["branch_pages", "leaf_pages", "overflow_pages"])).sum();
    let others = ["meta_pages", "free_list_pages", "log_pages", "free_pages", "pending_pages"];
    assert_eq!(in_trees + sum(pages, &others), shown["page_count"].as_u64().unwrap());
    let (data, long) = (&pages["tables"][0], &pages["tables"][1]);
    assert_eq!((&data["name"], &data["entries"], &data["depth"]), (&json!("data"), &json!(2000), &json!(2)));
    assert!((0.4..1.0).contains(&data["fill"].as_f64().unwrap()), "{data}");
    assert_eq!((&long["leaf_pages"], &long["overflow_pages"]), (&json!(1), &json!(3)));
    let text = kvctl(&["stat", &path, "--pages"]).out;
    let last: Vec<&str> = text.lines().rev().take(4).collect();
    assert_eq!(last[2], "table 'long': entries 1, depth 1, pages 4: branch 0, leaf 1, overflow 3; fill 61.6 %");
    assert!(last[3].starts_with("table 'data': entries 2000, depth 2, pages "), "{text}");
    assert!(!kvctl(&["stat", &path]).out.contains("table 'data'"));
    assert!(std::fs::read(&path).unwrap() == before, "stat changed the file");
}
