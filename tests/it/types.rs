//! Types of tables: tables without types, tables that tools create by codec names, and bytes that a
//! codec cannot decode.

use std::cmp::Reverse;

use mapleaf::codec::Codec;
use mapleaf::{Db, ErrorKind, Options, Result, Table, TableInfo};

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
    assert_eq!(owned.get("ada").expect("get"), Some(b"Lovelace".to_vec()));
    let bytes = read.table(Table::<&[u8], &[u8]>::new("t")).expect("bytes");
    assert_eq!(bytes.get(b"ada").expect("get"), Some(&b"Lovelace"[..]));
    let write = db.begin_write().expect("begins");
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
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
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
fn a_wrong_type_argument_of_a_codec_is_refused_with_both_names() {
    const MADE: Table<(Reverse<u64>, Option<&str>), Vec<String>> = Table::new("t");
    let db = TestDb::memory(Options::new());
    db.write(|txn| txn.table(MADE)?.insert((Reverse(7), Some("a")), vec!["x".into()]).map(drop)).expect("written");
    let read = db.begin_read().expect("begins");
    let refused = [
        read.table(Table::<(Reverse<i64>, Option<&str>), Vec<String>>::new("t")).map(drop).expect_err("i64"),
        read.table(Table::<(Reverse<u64>, Option<&[u8]>), Vec<String>>::new("t")).map(drop).expect_err("bytes"),
        read.table(Table::<(Reverse<u64>, Option<&str>), Vec<Vec<u8>>>::new("t"))
            .map(drop)
            .expect_err("lists of bytes"),
    ];
    let asked = [
        "<(Reverse<i64>,Option<str>), Vec<str>>",
        "<(Reverse<u64>,Option<bytes>), Vec<str>>",
        "<(Reverse<u64>,Option<str>), Vec<bytes>>",
    ];
    for (refused, asked) in refused.iter().zip(asked) {
        assert_eq!(refused.kind(), ErrorKind::Usage);
        let text = refused.to_string();
        assert!(
            text.contains("'t' was made as <(Reverse<u64>,Option<str>), Vec<str>>") && text.contains(asked),
            "{text}"
        );
    }
    // Types that share a name open the same table.
    let borrowed = read.table(Table::<(Reverse<u64>, Option<String>), Vec<&str>>::new("t")).expect("the same names");
    assert_eq!(borrowed.get((Reverse(7), Some("a".into()))).expect("get"), Some(vec!["x"]));
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

/// `<str, u64>` with the entries ada, bob and eve, of which bob's value has one byte.
fn with_undecodable_value(db: &Db) {
    let txn = db.begin_write().expect("begins");
    let mut born = txn.create_table("born", "str", "u64").expect("made");
    for (name, value) in [("ada", &1815u64.to_be_bytes()[..]), ("bob", b"x"), ("eve", &1900u64.to_be_bytes())] {
        born.insert(name.as_bytes(), value).expect("inserted");
    }
    txn.commit().expect("committed");
}

const BORN: Table<&str, u64> = Table::new("born");

/// The items of an iterator: years, and errors.
fn years<K>(entries: impl Iterator<Item = Result<(K, u64)>>) -> Vec<Result<u64, ErrorKind>> {
    entries.map(|entry| entry.map(|(_, year)| year).map_err(|e| e.kind())).collect()
}

#[test]
fn bytes_that_a_codec_cannot_decode_are_no_damage_and_concern_their_entry_only() {
    let db = TestDb::file(Options::new());
    with_undecodable_value(&db);
    assert!(db.check().expect("checked").is_clean());
    let expected = [Ok(1815), Err(ErrorKind::Decode), Ok(1900)];
    let read = db.begin_read().expect("begins");
    let born = read.table(BORN).expect("opened");
    let e = born.get("bob").expect_err("one byte");
    assert_eq!(e.kind(), ErrorKind::Decode);
    let path = db.path().display().to_string();
    for part in [&*path, "table 'born'", "the value of key 'bob'", "1 bytes", "u64", "insert or put replaces it"] {
        assert!(e.to_string().contains(part), "no {part} in: {e}");
    }
    assert_eq!(years(born.iter()), expected);
    assert!(years(born.iter().rev()).into_iter().eq(expected.into_iter().rev()));
    assert_eq!(years(born.range("ada".."eve").expect("range")), expected[..2]);
    assert_eq!(years(born.range_owned(..).expect("range")), expected);
    assert!(years(born.range_owned(..).expect("range").rev()).into_iter().eq(expected.into_iter().rev()));
    let owned_error = born.range_owned("b".."c").expect("range").next().expect("an entry").expect_err("one byte");
    assert!(owned_error.to_string().contains("table 'born'"), "{owned_error}");
    assert_eq!(born.multi_get(["ada", "bob"]).expect_err("one byte").kind(), ErrorKind::Decode);
    assert!(born.multi_get(["ada", "bob"]).expect_err("one byte").to_string().contains("key 'bob'"));
    assert_eq!(born.try_get_resident("bob").expect_err("one byte").kind(), ErrorKind::Decode);
    assert_eq!(born.get_owned("bob").map(drop).expect_err("one byte").kind(), ErrorKind::Decode);
    assert_eq!(born.get("eve").expect("get"), Some(1900));
    let write = db.begin_write().expect("begins");
    let born = write.table(BORN).expect("opened");
    assert_eq!(born.get("bob").expect_err("one byte").kind(), ErrorKind::Decode);
    assert_eq!(years(born.iter()), expected);
    drop((write, read));
}

/// The table, in a new read transaction.
fn born_of(db: &Db) -> mapleaf::ReadTable<&'static str, u64> {
    db.begin_read().and_then(|txn| txn.table(BORN)).expect("opened")
}

#[test]
fn undecodable_values_can_be_replaced_and_removed() {
    type Change = fn(&mut mapleaf::TableMut<'_, &str, u64>) -> Result<()>;
    let changes: [(Change, Option<u64>); 4] = [
        (|born| born.insert("bob", 1901).map(|old| assert_eq!(old, None)), Some(1901)),
        (|born| born.put("bob", 1902).map(|existed| assert!(existed)), Some(1902)),
        (|born| born.remove("bob").map(|old| assert_eq!(old, None)), None),
        (|born| born.delete("bob").map(|existed| assert!(existed)), None),
    ];
    for (change, expected) in changes {
        let db = TestDb::memory(Options::new());
        with_undecodable_value(&db);
        db.write(|txn| change(&mut txn.table(BORN)?)).expect("changed");
        let born = born_of(&db);
        assert_eq!(born.get("bob").expect("get"), expected);
        assert_eq!(born.len(), 2 + u64::from(expected.is_some()));
        assert!(born.iter().all(|entry| entry.is_ok()));
    }
}

#[test]
fn a_key_that_a_codec_cannot_decode_is_named_and_removed_through_bytes() {
    let db = TestDb::memory(Options::new());
    let key = [b"long ".repeat(20), vec![0xFF]].concat();
    db.write(|txn| txn.create_table("born", "str", "u64")?.insert(&key, &[0; 8]).map(drop)).expect("written");
    let e = born_of(&db).iter().next().expect("an entry").expect_err("no text");
    assert_eq!(e.kind(), ErrorKind::Decode);
    for part in ["table 'born'", "the key 'long long", "..' of 101 bytes", "str", "from byte 100", "bytes_table"] {
        assert!(e.to_string().contains(part), "no {part} in: {e}");
    }
    assert_eq!(born_of(&db).first().expect_err("no text").kind(), ErrorKind::Decode);
    db.write(|txn| txn.bytes_table("born")?.remove(&key).map(drop)).expect("removed");
    assert!(born_of(&db).is_empty());
}
