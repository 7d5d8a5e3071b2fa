//! Damaged files: the messages and exit codes of `check`, `recover` and `salvage`, and the entries
//! that `recover` and `salvage` restore.

use std::fs;

use mapleaf::Db;
use serde_json::Value;

use crate::support::{kvctl, Folder};

const PAGE: usize = 4096;

/// A folder with a database whose last commit made it longer.
fn folder() -> Folder {
    let folder = Folder::new();
    let db = Db::open(folder.path("a.mapleaf")).unwrap();
    for batch in 0..3u32 {
        db.write(|txn| {
            let mut table = txn.bytes_table("main")?;
            (0..3000u32).try_for_each(|n| table.insert(format!("{batch}-{n:05}").as_bytes(), &[b'v'; 100]).map(drop))
        })
        .unwrap();
    }
    folder
}

/// Cuts the last pages off the database. Returns its path and bytes.
fn cut(folder: &Folder, pages: usize) -> (String, Vec<u8>) {
    let path = folder.path("a.mapleaf");
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - pages * PAGE);
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

#[test]
fn errors_of_a_cut_file_name_the_missing_bytes_and_recover_repairs_it() {
    let folder = folder();
    let (path, bytes) = cut(&folder, 3);
    let missing = format!("{} bytes are missing", 3 * PAGE);
    for verb in [&["get", &path, "0-00001"][..], &["put", &path, "k", "v"], &["scan", &path], &["check", &path]] {
        let ran = kvctl(verb);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{verb:?}: {}", ran.err);
        assert!(ran.err.contains(&missing) && ran.err.contains("kvctl recover FILE"), "{verb:?}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    let asked = kvctl(&["recover", &path]);
    assert_eq!((asked.code, asked.out.as_str()), (2, ""), "{}", asked.err);
    for part in
        [missing.as_str(), "that state has 1 table with 6000 entries", "table 'main': 6000 entries stay", "--yes"]
    {
        assert!(asked.err.contains(part), "no '{part}' in {}", asked.err);
    }
    assert_eq!(fs::read(&path).unwrap(), bytes, "not changed without --yes");

    let recovered = kvctl(&["recover", &path, "--yes"]);
    assert_eq!((recovered.code, recovered.err.as_str()), (4, ""));
    assert!(recovered.out.contains(&missing) && recovered.out.contains("\nrecovered: "), "{}", recovered.out);
    let again = kvctl(&["recover", &path]);
    assert!(again.code == 0 && again.out.starts_with("whole: "), "{} {}", again.out, again.err);
    assert_eq!(kvctl(&["check", &path]).code, 0);
    assert_eq!(kvctl(&["get", &path, "1-02999"]).code, 0);
    assert_eq!(kvctl(&["get", &path, "2-00000"]).code, 1);
}

#[test]
fn recover_says_that_an_older_state_is_empty_before_it_returns_to_it() {
    let folder = Folder::new();
    let path = folder.path("a.mapleaf");
    Db::open(&path).unwrap().write(|txn| txn.bytes_table("main")?.insert(b"k", b"v").map(drop)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    for page in bytes.chunks_mut(PAGE).skip(2) {
        page.fill(0x5a);
    }
    fs::write(&path, &bytes).unwrap();
    let asked = kvctl(&["recover", &path]);
    assert_eq!((asked.code, asked.out.as_str()), (2, ""), "{}", asked.err);
    assert!(asked.err.contains("that state is empty: it has no tables"), "{}", asked.err);
}

#[test]
fn recover_stat_check_and_page_note_a_damaged_meta_slot() {
    let folder = folder();
    let path = folder.path("a.mapleaf");
    let mut bytes = fs::read(&path).unwrap();
    bytes[PAGE..2 * PAGE].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    for verb in ["recover", "stat", "check", "page"] {
        let ran = kvctl(&[verb, &path]);
        let note = ran.out.lines().find(|line| line.starts_with("note: "));
        assert!(note.is_some_and(|note| note.contains("a newer state may be lost with it")), "{verb}: {}", ran.out);
        let json: Value = serde_json::from_str(&kvctl(&[verb, &path, "--json"]).out).unwrap();
        assert_eq!(json["remarks"].as_array().map(Vec::len), Some(1), "{verb}: {json}");
    }
}

#[test]
fn recover_prints_json() {
    let folder = folder();
    let (path, bytes) = cut(&folder, 1);
    let ran = kvctl(&["recover", &path, "--yes", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, json["missing_bytes"].as_u64()), (4, Some(PAGE as u64)));
    assert_eq!((json["file_bytes"].as_u64(), json["loss"].as_bool()), (Some(bytes.len() as u64), Some(true)));
    assert_eq!(json["newest_txn"].as_u64(), json["whole_txn"].as_u64().map(|txn| txn + 1));
    assert!(json["damage"]["page"].is_u64(), "{json}");
    // The last page is that of the catalog, so nobody can tell how many entries there were.
    let table = &json["tables"][0];
    assert!(table["entries_before"].is_null() && table["entries_after"].as_u64() == Some(6000), "{json}");
}

#[test]
fn recover_prints_how_many_entries_are_lost_as_json() {
    let folder = folder();
    let path = folder.path("a.mapleaf");
    let mut bytes = fs::read(&path).unwrap();
    // A page of the last commit.
    let page = bytes.len() / PAGE - 40;
    bytes[page * PAGE..(page + 1) * PAGE].fill(0);
    fs::write(&path, &bytes).unwrap();
    let ran = kvctl(&["recover", &path, "--yes", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, json["damage"]["page"].as_u64()), (4, Some(page as u64)), "{json}");
    let table = &json["tables"][0];
    assert_eq!((table["entries_before"].as_u64(), table["entries_after"].as_u64()), (Some(9000), Some(6000)));
}

#[test]
fn a_file_that_cannot_be_recovered_is_salvaged() {
    let folder = folder();
    let (path, bytes) = cut(&folder, 140);
    let out = folder.path("b.mapleaf");
    let refused = kvctl(&["recover", &path, "--yes"]);
    assert_eq!((refused.code, refused.out.as_str()), (3, ""));
    assert!(refused.err.contains("kvctl salvage FILE OUT"), "{}", refused.err);

    let salvaged = kvctl(&["salvage", &path, &out]);
    assert_eq!((salvaged.code, salvaged.err.as_str()), (4, ""), "{}", salvaged.out);
    assert!(salvaged.out.contains(&format!("{} bytes of the file are missing", 140 * PAGE)), "{}", salvaged.out);
    // The catalogs of both states were in the lost part, so the name of the table is lost.
    assert!(salvaged.out.lines().any(|line| line.starts_with("table 'lost-16': ")), "{}", salvaged.out);
    assert!(salvaged.out.lines().last().unwrap().starts_with("salvaged with loss: "), "{}", salvaged.out);
    assert_eq!(fs::read(&path).unwrap(), bytes, "the damaged file is only read");
    assert_eq!(kvctl(&["check", &out]).code, 0);
    let databases = [&*path, &*out].map(|path| std::path::Path::new(path).file_name().unwrap().to_str().unwrap());
    assert_eq!(folder.names_beside_locks(&databases).len(), 2, "{:?}", folder.names());

    let twice = kvctl(&["salvage", &path, &out]);
    assert_eq!((twice.code, twice.out.as_str()), (2, ""));
    assert!(twice.err.contains("choose another name"), "{}", twice.err);
}

#[test]
fn salvage_as_json_lists_the_lost_parts_by_table() {
    let folder = folder();
    let path = folder.path("a.mapleaf");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100 * PAGE..101 * PAGE].fill(0);
    fs::write(&path, &bytes).unwrap();
    let ran = kvctl(&["salvage", &path, &folder.path("b.mapleaf"), "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, json["missing_bytes"].as_u64()), (4, Some(0)));
    let (entries, stale) = (json["entries"].as_u64().unwrap(), json["maybe_stale"].as_u64().unwrap());
    assert!(entries > 8000 && entries < 9000 && stale <= entries, "{json}");
    assert_eq!(json["tables"][0]["expected"].as_u64(), Some(9000));
    let lost = &json["lost"][0];
    assert!(lost["page"] == 100 && lost["table"] == "main", "{json}");
    assert!(lost["first_key"].is_string() && lost["end_key"].is_string(), "{json}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "the damaged file is only read");
}

#[test]
fn salvage_copies_all_of_an_undamaged_file_and_refuses_other_files() {
    let folder = folder();
    let ran = kvctl(&["salvage", &folder.path("a.mapleaf"), &folder.path("b.mapleaf")]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("9000 entries"), "{}", ran.out);
    let dump = |name: &str| kvctl(&["dump", &folder.path(name), "--all", "--format", "jsonl"]).out;
    // One line declares the table, and one line holds each entry.
    assert!(dump("a.mapleaf") == dump("b.mapleaf") && dump("a.mapleaf").lines().count() == 1 + 9000);
    fs::write(folder.path("text"), "x".repeat(50_000)).unwrap();
    let ran = kvctl(&["salvage", &folder.path("text"), &folder.path("c.mapleaf")]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{}", ran.err);
    assert!(!fs::exists(folder.path("c.mapleaf")).unwrap());
}

#[test]
fn a_file_without_meta_pages_is_distinguished_from_a_file_of_another_kind() {
    let folder = folder();
    let path = folder.path("a.mapleaf");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..2 * PAGE].fill(0);
    fs::write(&path, &bytes).unwrap();
    for verb in [&["get", &path, "0-00001"][..], &["recover", &path]] {
        let ran = kvctl(verb);
        assert_eq!(ran.code, 3, "{verb:?}");
        assert!(ran.err.contains("both meta pages") && ran.err.contains("kvctl salvage FILE OUT"), "{}", ran.err);
    }
    let ran = kvctl(&["salvage", &path, &folder.path("b.mapleaf")]);
    assert!(ran.code == 4 && ran.out.contains("table 'main': 9000 entries, 9000 of them may be stale"), "{}", ran.out);
}

#[test]
fn check_names_the_remedies_for_damage() {
    let folder = folder();
    let path = folder.path("a.mapleaf");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100 * PAGE + 1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let ran = kvctl(&["check", &path, "--json"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("kvctl recover FILE") && ran.err.contains("kvctl salvage FILE OUT"), "{}", ran.err);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    let first = &json["findings"][0];
    assert!(first["page"].is_u64() && first["table"] == "main" && first["what"].is_string(), "{json}");
}
