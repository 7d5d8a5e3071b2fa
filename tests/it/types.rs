//! The types of tables: tables without types, tables that tools make by the names of types, and what a codec cannot
//! decode.

use mapleaf::codec::Codec;
use mapleaf::{Db, ErrorKind, Options, Table, TableInfo};

use crate::support::TestDb;

/// Names and codecs of all tables.
fn types_of(tables: &[TableInfo]) -> Vec<[&str; 3]> {
    tables.iter().map(|table| [&*table.name, &*table.key_codec, &*table.value_codec]).collect()
}

#[test]
fn a_table_made_without_types_opens_as_text_or_bytes_only() {
    let db = TestDb::memory(Options::new());
    db.write(|txn| txn.bytes_table("t")?.insert(b"ada", b"Lovelace").map(drop)).expect("written");
    let read = db.begin_read().expect("begins");
    assert_eq!(read.table(Table::<&str, &str>::new("t")).expect("text").get("ada").expect("get"), Some("Lovelace"));
    let owned = read.table(Table::<String, Vec<u8>>::new("t")).expect("text and bytes");
    assert_eq!(owned.get("ada".into()).expect("get"), Some(b"Lovelace".to_vec()));
    let bytes = read.table(Table::<&[u8], &[u8]>::new("t")).expect("bytes");
    assert_eq!(bytes.get(b"ada").expect("get"), Some(&b"Lovelace"[..]));
    let mut write = db.begin_write().expect("begins");
    write.table(Table::<&str, &str>::new("t")).expect("text").insert("bob", "Kahn").expect("inserted");
    let numbers: Table<&str, u64> = Table::new("t");
    for refused in [read.table(numbers.clone()).map(drop), write.table(numbers).map(drop)] {
        let refused = refused.expect_err("neither text nor bytes");
        assert_eq!(refused.kind(), ErrorKind::Usage);
        let text = refused.to_string();
        for part in ["'t'", "without types", "<str, u64>", "opens as text or bytes only"] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert!(read.try_get_resident(Table::<&str, u64>::new("t"), "ada").is_err());
    write.commit().expect("committed");
    assert_eq!(types_of(&db.begin_read().expect("begins").tables().expect("tables")), [["t", "", ""]]);
}

#[test]
fn a_table_of_bytes_does_not_become_one_of_text() {
    let db = TestDb::memory(Options::new());
    db.write(|txn| txn.table(Table::<&[u8], &[u8]>::new("t"))?.insert(b"k", b"v").map(drop)).expect("written");
    let e = db.begin_read().expect("begins").table(Table::<&str, &str>::new("t")).expect_err("bytes");
    assert_eq!(e.kind(), ErrorKind::Usage);
    db.write(|txn| txn.bytes_table("t")?.insert(b"k", b"w").map(drop)).expect("written");
    assert_eq!(types_of(&db.begin_read().expect("begins").tables().expect("tables")), [["t", "bytes", "bytes"]]);
}

#[test]
fn a_table_made_by_the_names_of_its_types_opens_with_them() {
    const BORN: Table<&str, u64> = Table::new("born");
    let db = TestDb::memory(Options::new());
    let mut txn = db.begin_write().expect("begins");
    let encoded = u64::encode(&1815).expect("encoded");
    txn.create_table("born", "str", "u64").expect("made").insert(b"ada", &encoded).expect("inserted");
    txn.create_table("born", "str", "u64").expect("the same types").insert(b"bob", &encoded).expect("inserted");
    for (key, value) in [("str", "i64"), ("bytes", "u64"), ("", ""), ("str", "")] {
        let e = txn.create_table("born", key, value).map(drop).expect_err("other types");
        assert_eq!(e.kind(), ErrorKind::Usage, "{key} {value}");
        assert!(e.to_string().contains("'born' was made as <str, u64>"), "{e}");
    }
    txn.create_table("plain", "", "").expect("made");
    assert!(txn.create_table("plain", "bytes", "bytes").is_err());
    assert_eq!(
        txn.create_table(&"n".repeat(256), "", "").map(drop).expect_err("a long name").kind(),
        ErrorKind::TooLarge
    );
    assert_eq!(
        txn.create_table("t", &"c".repeat(2000), "").map(drop).expect_err("a long name").kind(),
        ErrorKind::Usage
    );
    assert_eq!(txn.table(BORN).expect("opened").get("bob").expect("get"), Some(1815));
    txn.commit().expect("committed");
    let read = db.begin_read().expect("begins");
    assert_eq!(read.table(BORN).expect("opened").get("ada").expect("get"), Some(1815));
    assert_eq!(types_of(&read.tables().expect("tables")), [["born", "str", "u64"], ["plain", "", ""]]);
}

#[test]
fn copies_of_a_database_keep_types_and_their_absence() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let expected = [["born", "str", "u64"], ["empty", "(str,u8)", "acme.v1"], ["half", "", "u8"], ["plain", "", ""]];
    let db = Db::open(path("db.mapleaf")).expect("opened");
    db.write(|txn| {
        txn.table(Table::<&str, u64>::new("born"))?.insert("ada", 1815)?;
        txn.create_table("empty", "(str,u8)", "acme.v1")?;
        txn.create_table("half", "", "u8")?.insert(b"k", &[7])?;
        txn.bytes_table("plain")?.insert(b"k", b"v").map(drop)
    })
    .expect("written");
    assert_eq!(types_of(&db.begin_read().expect("begins").tables().expect("tables")), expected);
    db.compact_to(path("compact.mapleaf")).expect("compacted");
    drop(db);
    let report = Db::salvage(path("db.mapleaf"), path("salvaged.mapleaf")).expect("salvaged");
    assert!(!report.is_loss());
    for copy in ["compact.mapleaf", "salvaged.mapleaf"] {
        let tables = Db::open_existing(path(copy)).and_then(|db| db.begin_read()?.tables()).expect("tables");
        assert_eq!(types_of(&tables), expected, "{copy}");
    }
}
