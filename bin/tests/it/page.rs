//! `kvctl page`: meta pages, headers of pages, and pages of the commit log.

use std::fs;

use mapleaf::{inspect, Db, Durability, PageId};
use serde_json::{json, Value};

use crate::support::{kvctl, Folder};

const PAGE: usize = 4096;

/// A database with a branch, leaves, a free list and an overflow extent of several pages, closed.
fn database(folder: &Folder) -> String {
    let path = folder.path("a.mapleaf");
    let db = Db::open(&path).unwrap();
    for txn in 0..3u32 {
        db.write(|write| {
            let mut table = write.bytes_table("main")?;
            (0..300u32).try_for_each(|n| table.insert(&(txn * 300 + n).to_be_bytes(), &[7; 50]).map(drop))?;
            table.insert(b"long", &[7; 5 * PAGE]).map(drop)
        })
        .unwrap();
    }
    path
}

/// A copy of a database file while the log has commits before and after a checkpoint, as a process
/// leaves it that is killed. The database stays open.
fn with_log(folder: &Folder) -> (Db, String) {
    let db = Db::open(folder.path("open.mapleaf")).unwrap();
    let put = |n: u8| db.write(|txn| txn.bytes_table("main")?.insert(&[n], &[n; 100]).map(drop)).unwrap();
    (0..12).for_each(put);
    db.checkpoint().unwrap();
    (12..14).for_each(put);
    // A flush closes its last page, so only commits without a flush between them share a page.
    for n in 14..20u8 {
        let mut txn = db.begin_write().unwrap();
        txn.set_durability(Durability::Eventual);
        txn.bytes_table("main").unwrap().insert(&[n], &[n; 100]).unwrap();
        txn.commit().unwrap();
    }
    let copy = folder.path("killed.mapleaf");
    fs::copy(folder.path("open.mapleaf"), &copy).unwrap();
    (db, copy)
}

/// Runs `kvctl page`, asserts success and an unchanged file, and returns standard output.
#[track_caller]
fn page(path: &str, args: &[&str]) -> String {
    let state = || (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
    let before = state();
    let ran = kvctl(&[&["page", path], args].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
    assert!(state() == before, "{args:?}: the file has changed");
    ran.out
}

#[track_caller]
fn page_json(path: &str, args: &[&str]) -> Value {
    let out = page(path, &[args, &["--json"]].concat());
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

/// Asserts that `kvctl page` fails with this exit code and line, and leaves the file unchanged.
#[track_caller]
fn fails(path: &str, args: &[&str], code: i32, text: &str) {
    let before = fs::read(path).ok();
    let ran = kvctl(&[&["page", path], args].concat());
    let line = ran.err.lines().next().unwrap_or_default();
    assert_eq!((ran.code, ran.out.as_str(), line), (code, "", format!("kvctl: {text}").as_str()), "{args:?}");
    assert!(fs::read(path).ok() == before, "{args:?}: the file has changed");
}

/// The words after the name of a field, in lines of `name value ..`.
fn values<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = lines.next().unwrap_or_else(|| panic!("no '{name}' in:\n{text}"));
    line.split_whitespace().collect()
}

/// Every field of the copies of the meta pages, as the library returns them.
fn metas_of(path: &str, of: impl Fn(u32) -> bool) -> Vec<Value> {
    let db = mapleaf::Options::new().read_only(true).open(path).unwrap();
    let metas = inspect::metas(&db).unwrap().into_iter().filter(|meta| of(meta.slot));
    let object = |meta: inspect::MetaInfo| {
        json!({
            "slot": meta.slot, "copy": meta.copy, "txn": meta.txn, "page_count": meta.page_count,
            "catalog_root": meta.catalog_root, "free_space_root": meta.free_space_root, "log_first": meta.log_first,
            "log_pages": meta.log_pages, "log_epoch": meta.log_epoch, "log_start": meta.log_start,
            "snapshots_root": meta.snapshots_root,
        })
    };
    metas.map(object).collect()
}

#[test]
fn page_prints_all_copies_of_the_meta_pages_or_those_of_one() {
    let folder = Folder::new();
    let (_open, path) = with_log(&folder);
    for (args, slots) in [(&[][..], &[0, 1][..]), (&["0"], &[0]), (&["1"], &[1])] {
        let expected = metas_of(&path, |slot| slots.contains(&slot));
        assert_eq!(expected.len(), 2 * slots.len());
        let found = page_json(&path, args);
        assert_eq!(found, json!({ "file": path, "metas": expected, "remarks": [] }), "{args:?}");
        let text = page(&path, args);
        let fields = expected[0].as_object().unwrap();
        assert_eq!(text.lines().count(), fields.len(), "{text}");
        for name in fields.keys() {
            let shown: Vec<String> = expected.iter().map(|meta| meta[name].to_string()).collect();
            assert_eq!(values(&text, &name.replace('_', " ")), shown, "{name}");
        }
    }
    let metas = metas_of(&path, |_| true);
    let largest = |name: &str| metas.iter().map(|meta| meta[name].as_u64().unwrap()).max().unwrap();
    assert!(largest("log_pages") > 0 && largest("log_first") > 1, "the log has an extent: {metas:?}");
    assert!(largest("log_epoch") > 0 && largest("log_start") > 0, "{metas:?}");
}

#[test]
fn page_leaves_out_unreadable_copies_and_says_so_if_none_is_left() {
    let folder = Folder::new();
    let path = database(&folder);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    // The first copy of slot 1.
    bytes[PAGE..PAGE + PAGE / 2].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    let copies = |found: &Value| -> Vec<(u64, u64)> {
        let number = |meta: &Value, name: &str| meta[name].as_u64().unwrap();
        found["metas"].as_array().unwrap().iter().map(|meta| (number(meta, "slot"), number(meta, "copy"))).collect()
    };
    let found = page_json(&path, &[]);
    assert_eq!((copies(&found), found["remarks"].as_array().map(Vec::len)), (vec![(0, 0), (0, 1), (1, 1)], Some(1)));
    assert_eq!(values(&page(&path, &["1"]), "copy"), ["1"]);
    assert!(page(&path, &["1"]).contains("\nnote: page 1: the meta page is not whole"));
    assert_eq!(page_json(&path, &["0"])["remarks"], json!([]), "the remark is about page 1");
    bytes[PAGE..2 * PAGE].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    let text = format!(
        "{path}: page 1: no copy of this meta page can be read; 'kvctl check FILE' says what may be lost with it"
    );
    fails(&path, &["1"], 3, &text);
    fails(&path, &["1", "--json"], 3, &text);
    fs::write(&path, whole).unwrap();
}

#[test]
fn page_prints_the_header_of_every_page_that_has_one() {
    let folder = Folder::new();
    let path = database(&folder);
    let db = mapleaf::Options::new().read_only(true).open(&path).unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for id in 2..db.stats().unwrap().page_count {
        let Ok(info) = inspect::page(&db, PageId(id)) else { continue };
        kinds.insert(info.kind);
        let found = page_json(&path, &[&id.to_string()]);
        let expected = json!({
            "file": path, "page": id, "kind": info.kind, "level": info.level, "count": info.count, "txn": info.txn,
            "tree_id": info.tree_id, "checksum": info.checksum,
        });
        assert_eq!(found, expected);
        let text = page(&path, &[&id.to_string()]);
        let count = match info.kind {
            "leaf" => "entries",
            "branch" => "children",
            _ => "count",
        };
        for (name, value) in [
            ("page", id.to_string()),
            ("level", info.level.to_string()),
            (count, info.count.to_string()),
            ("txn", info.txn.to_string()),
            ("tree id", info.tree_id.to_string()),
            ("checksum", info.checksum.to_string()),
        ] {
            assert_eq!(values(&text, name), [value], "{name}");
        }
        assert_eq!(values(&text, "kind").join(" "), info.kind);
    }
    assert!(["leaf", "branch", "overflow", "free list"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}

#[test]
fn page_counts_the_records_of_a_page_of_the_commit_log() {
    let folder = Folder::new();
    let (db, path) = with_log(&folder);
    let newest = db.begin_read().unwrap().txn_id();
    // The log was made with the older meta page, so its records begin after that state.
    let meta = metas_of(&path, |_| true).into_iter().min_by_key(|meta| meta["txn"].as_u64()).unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let (first, pages) = (number(&meta["log_first"]), number(&meta["log_pages"]));
    let (mut seen, mut most) = (Vec::new(), 0);
    for id in first..first + pages {
        let found = page_json(&path, &[&id.to_string()]);
        assert_eq!((&found["kind"], number(&found["page"])), (&json!("commit log"), id));
        if number(&found["count"]) == 0 {
            assert_eq!((number(&found["txn"]), number(&found["checksum"])), (0, 0), "{found}");
            continue;
        }
        most = most.max(number(&found["count"]));
        seen.extend((0..number(&found["count"])).map(|at| number(&found["txn"]) + at));
        // A record begins with its checksum; its transaction follows 16 bytes after it.
        let bytes = fs::read(&path).unwrap()[id as usize * PAGE..][..24].to_vec();
        let checksum = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let txn = u64::from_le_bytes(bytes[16..].try_into().unwrap());
        assert_eq!((number(&found["checksum"]), number(&found["txn"])), (checksum.into(), txn));
        let text = page(&path, &[&id.to_string()]);
        assert_eq!(values(&text, "kind"), ["commit", "log"]);
        assert_eq!(values(&text, "records"), [found["count"].to_string()]);
        assert_eq!(values(&text, "first txn"), [txn.to_string()]);
        assert_eq!(values(&text, "checksum"), [checksum.to_string()]);
        assert!(!text.contains("level") && !text.contains("tree"), "a log has no trees: {text}");
    }
    let expected: Vec<u64> = (number(&meta["txn"]) + 1..=newest).collect();
    assert!(expected.len() > 5 && seen == expected, "{seen:?}, and the log has {expected:?}");
    assert!(most > 2, "a page with several records");
}

#[test]
fn page_refuses_numbers_of_no_page_and_names_the_remedy() {
    let folder = Folder::new();
    let path = database(&folder);
    let count = kvctl(&["stat", &path, "--json"]).out;
    let count = serde_json::from_str::<Value>(&count).unwrap()["page_count"].as_u64().unwrap();
    for id in [count, u64::from(u32::MAX) + 2, u64::MAX] {
        let text = format!(
            "{path}: page {id} has no header or does not exist; give a page from 2 to {}; 0 and 1 are the meta pages",
            count - 1
        );
        fails(&path, &[&id.to_string()], 2, &text);
        fails(&path, &[&id.to_string(), "--json"], 2, &text);
    }
    for text in ["-1", "x", "0x5", "1.5", "99999999999999999999", " 2"] {
        fails(&path, &[text], 2, &format!("PAGE: '{text}' is not valid; give a whole number, 0 or more"));
    }
    fails(&path, &["2", "3"], 2, "'3' is one argument too many for 'kvctl page'; quote a key or value that has spaces");
    let none = folder.path("none");
    let stat = kvctl(&["stat", &none]);
    for args in [&[][..], &["2"], &["0"]] {
        fails(&none, args, stat.code, stat.err.trim_end().trim_start_matches("kvctl: "));
    }
    assert_eq!(stat.code, 66);
}

#[test]
fn page_names_no_range_in_a_database_that_has_only_meta_pages() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    drop(Db::open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * PAGE as u64);
    let what = "page 2 has no header or does not exist; the database has only meta pages; 0 and 1 are the meta pages";
    fails(&path, &["2"], 2, &format!("{path}: {what}"));
    assert_eq!(values(&page(&path, &[]), "page count").len(), 4);
}

#[test]
fn page_says_of_a_page_without_a_header_where_there_is_none() {
    let folder = Folder::new();
    let path = database(&folder);
    let db = mapleaf::Options::new().read_only(true).open(&path).unwrap();
    let kind = |id| inspect::page(&db, PageId(id)).ok().map(|info| info.kind);
    let inside = (3..db.stats().unwrap().page_count).find(|&id| kind(id).is_none() && kind(id - 1) == Some("overflow"));
    let inside = inside.expect("the second page of an overflow extent").to_string();
    let ran = kvctl(&["page", &path, &inside]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (3, "", 1), "{}", ran.err);
    for part in [path.as_str(), &format!("page {inside}"), "all pages of an extent but its first", "'kvctl check FILE'"]
    {
        assert!(ran.err.contains(part), "no '{part}' in: {}", ran.err);
    }
    assert!(!ran.err.contains("salvage"), "nothing is damaged: {}", ran.err);
}
