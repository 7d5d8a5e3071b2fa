//! `kvctl warm`: what it reads, output, exit codes.

use std::fs;

use mapleaf::Db;
use serde_json::Value;

use crate::support::{kvctl, Folder};

/// A folder with a database `a.mapleaf` of three tables, one of them a multimap.
fn folder() -> Folder {
    let folder = Folder::new();
    let db = Db::open(folder.path("a.mapleaf")).unwrap();
    db.write(|txn| {
        txn.bytes_table("other")?.insert(b"k", &[b'v'; 50_000])?;
        txn.multi_bytes_table("tags")?.insert(b"k", b"v")?;
        let mut table = txn.bytes_table("main")?;
        (0..4000u32).try_for_each(|n| table.insert(format!("{n:08}").as_bytes(), &[b'v'; 300]).map(drop))
    })
    .unwrap();
    folder
}

fn pages(args: &[&str]) -> u64 {
    let ran = kvctl(args);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    json["pages"].as_u64().unwrap()
}

#[test]
fn tables_and_ranges_are_read_into_memory() {
    let folder = folder();
    let a = folder.path("a.mapleaf");
    let before = fs::read(&a).unwrap();
    let all = pages(&["warm", &a, "--json"]);
    let main = pages(&["warm", &a, "main", "--json"]);
    let range = pages(&["warm", &a, "main", "--from", "00001000", "--to", "00002000", "--json"]);
    assert!(range > main / 5 && range < main / 3, "{range} of {main}");
    assert_eq!(pages(&["warm", &a, "main", "--from", "2", "--to", "1", "--json"]), 0);
    assert_eq!(pages(&["warm", &a, "tags", "--json"]), 1);
    let other = pages(&["warm", &a, "other", "--json"]);
    assert!(other > 50_000 / 4096, "{other}");
    assert_eq!(all, main + other + 1);
    assert_eq!(kvctl(&["warm", &a]).out, format!("warmed: {all} pages of 3 tables\n"));
    assert!(fs::read(&a).unwrap() == before, "FILE is only read");
}

#[test]
fn refusals_name_their_cause() {
    let folder = folder();
    let (a, missing) = (folder.path("a.mapleaf"), folder.path("none.mapleaf"));
    let damaged = folder.path("damaged.mapleaf");
    let mut bytes = fs::read(&a).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8 * 4096].fill(0x55);
    fs::write(&damaged, &bytes).unwrap();
    for (args, code, part) in [
        (&["warm", &a, "nowhere"][..], 1, "no table 'nowhere'"),
        (&["warm", &a, "--from", "1"], 2, "keys of one table"),
        (&["warm", &missing], 66, "none.mapleaf"),
        (&["warm", &damaged], 3, "page"),
    ] {
        let ran = kvctl(args);
        assert!(ran.out.is_empty() && ran.err.contains(part), "{args:?}: {}", ran.err);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
    }
}
