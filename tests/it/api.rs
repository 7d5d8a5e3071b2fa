//! The public API: transactions, handles, tables, limits, ranges and errors.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

use mapleaf::codec::{Codec, CodecError, Encoded};
use mapleaf::{Db, Error, ErrorKind, Options, OwnedValue, RangeOwned, ReadTable, ReadTxn, Result, Table, WriteTxn};

use crate::support::{bytes, seed, Rng, TestDb, BYTES};

const USERS: Table<&str, u64> = Table::new("users");

fn users(db: &Db, entries: &[(&str, u64)]) {
    let txn = db.begin_write().expect("begins");
    let mut users = txn.table(USERS).expect("table");
    for &(name, id) in entries {
        users.insert(name, id).expect("insert");
    }
    txn.commit().expect("commit");
}

#[test]
fn handles_and_transactions_have_the_traits_that_are_promised() {
    use std::panic::{RefUnwindSafe, UnwindSafe};
    fn shared<T: Clone + Send + Sync + UnwindSafe + RefUnwindSafe + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Db>();
    shared::<ReadTxn>();
    shared::<Options>();
    shared::<ReadTable<&str, u64>>();
    shared::<ReadTable<&[u8], &[u8]>>();
    shared::<Table<&str, u64>>();
    sent::<WriteTxn>();
    sent::<RangeOwned<&str, u64>>();
    sent::<OwnedValue<&[u8], &[u8]>>();
    fn error<T: std::error::Error + Send + Sync + 'static>() {}
    error::<Error>();
}

#[test]
fn insert_returns_the_previous_value_and_a_range_the_committed_entries() {
    for db in TestDb::both(&Options::new()) {
        let txn = db.begin_write().expect("begins");
        assert_eq!(txn.table(USERS).expect("table").insert("ada", 1).expect("insert"), None);
        assert_eq!(txn.table(USERS).expect("table").insert("ada", 2).expect("insert"), Some(1));
        txn.commit().expect("commit");
        let txn = db.begin_read().expect("begins");
        let users = txn.table(USERS).expect("table");
        assert_eq!(users.get("ada").expect("get"), Some(2));
        let found: Vec<_> = users.range("a".."b").expect("range").map(|entry| entry.expect("entry")).collect();
        assert_eq!(found, [("ada", 2)]);
    }
}

#[test]
fn dropping_a_write_transaction_aborts_it() {
    for db in TestDb::both(&Options::new()) {
        users(&db, &[("ada", 1)]);
        let txn = db.begin_write().expect("begins");
        txn.table(USERS).expect("table").insert("bob", 2).expect("insert");
        txn.table(USERS).expect("table").remove("ada").expect("remove");
        drop(txn);
        let read = db.begin_read().expect("begins").table(USERS).expect("table");
        assert_eq!((read.get("ada").expect("get"), read.get("bob").expect("get")), (Some(1), None));
    }
}

#[test]
fn a_transaction_that_changes_nothing_makes_no_state() {
    let db = TestDb::memory(Options::new());
    users(&db, &[("ada", 1)]);
    let before = db.stats().expect("stats").txn;
    let mut txn = db.begin_write().expect("begins");
    assert_eq!(txn.table(USERS).expect("table").remove("nobody").expect("remove"), None);
    assert!(!txn.drop_table("no such table").expect("drop"));
    txn.commit().expect("commit");
    assert_eq!(db.stats().expect("stats").txn, before);
}

#[test]
fn readers_see_nothing_before_the_commit_and_everything_after_it() {
    let db = TestDb::memory(Options::new());
    users(&db, &[("ada", 1)]);
    let before = db.begin_read().expect("begins");
    let txn = db.begin_write().expect("begins");
    txn.table(USERS).expect("table").insert("bob", 2).expect("insert");
    let during = db.begin_read().expect("begins");
    txn.commit().expect("commit");
    let after = db.begin_read().expect("begins");
    let len = |txn: &ReadTxn| txn.table(USERS).expect("table").len();
    assert_eq!((len(&before), len(&during), len(&after)), (1, 1, 2));
    assert_eq!(before.txn_id(), during.txn_id());
    assert!(after.txn_id() > before.txn_id());
}

#[test]
fn owned_forms_outlive_every_handle_and_later_commits() {
    for db in TestDb::both(&Options::new()) {
        let big = bytes(5, 300_000);
        let txn = db.begin_write().expect("begins");
        let mut table = txn.table(BYTES).expect("table");
        for key in 0..500u32 {
            table.insert(&key.to_be_bytes(), &bytes(u64::from(key), 100)).expect("insert");
        }
        table.insert(b"big", &big).expect("insert");
        txn.commit().expect("commit");

        let (value, none, range) = {
            let table = db.begin_read().expect("begins").table(BYTES).expect("table");
            let value = table.get_owned(b"big").expect("get").expect("there");
            (value, table.get_owned(b"no").expect("get"), table.range_owned(..).expect("range"))
        };
        assert!(none.is_none());
        let mut txn = db.begin_write().expect("begins");
        assert!(txn.drop_table("bytes").expect("drop"));
        txn.commit().expect("commit");
        for round in 0..20 {
            let txn = db.begin_write().expect("begins");
            txn.table(BYTES).expect("table").insert(b"other", &bytes(round, 500_000)).expect("insert");
            txn.commit().expect("commit");
        }
        std::thread::spawn(move || {
            assert_eq!(value.get().expect("get"), big);
            let entries: Vec<_> = range.map(|entry| entry.expect("entry")).collect();
            assert_eq!(entries.len(), 501);
            assert_eq!(entries[499].1, bytes(499, 100));
            assert_eq!(entries[500], (b"big".to_vec(), big));
        })
        .join()
        .expect("the other thread");
    }
}

#[test]
fn a_transaction_outlives_the_database_handle() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opens");
    users(&db, &[("ada", 1)]);
    let read = db.begin_read().expect("begins");
    let write = db.begin_write().expect("begins");
    drop(db);
    write.table(USERS).expect("table").insert("bob", 2).expect("insert");
    write.commit().expect("commit");
    assert_eq!(read.table(USERS).expect("table").len(), 1);
    drop(read);
    let db = Db::open_existing(&path).expect("opens");
    assert_eq!(db.begin_read().expect("begins").table(USERS).expect("table").len(), 2);
}

#[test]
fn there_is_one_writer_and_waiting_has_a_limit() {
    for db in TestDb::both(&Options::new()) {
        let txn = db.try_begin_write().expect("no error").expect("nobody else writes");
        assert!(db.try_begin_write().expect("no error").is_none());
        let begun = Instant::now();
        let limit = Duration::from_millis(30);
        assert!(db.begin_write_timeout(limit).expect("no error").is_none());
        assert!(begun.elapsed() >= limit && begun.elapsed() < Duration::from_secs(5));
        let other = db.clone();
        let waiting = std::thread::spawn(move || {
            let txn = other.begin_write_timeout(Duration::from_secs(30)).expect("no error");
            txn.expect("the writer ends in time").commit().expect("commit");
        });
        std::thread::sleep(Duration::from_millis(20));
        drop(txn);
        waiting.join().expect("the waiting thread");
        assert!(db.try_begin_write().expect("no error").is_some());
    }
}

#[test]
fn the_longest_timeout_there_is_does_not_panic() {
    let db = TestDb::memory(Options::new());
    assert!(db.begin_write_timeout(Duration::MAX).expect("no error").is_some());
    let txn = db.begin_write().expect("begins");
    let other = db.clone();
    let waiting = std::thread::spawn(move || other.begin_write_timeout(Duration::MAX).expect("no error").is_some());
    std::thread::sleep(Duration::from_millis(20));
    drop(txn);
    assert!(waiting.join().expect("the waiting thread"));
}

#[test]
fn a_write_transaction_moves_between_threads() {
    let db = TestDb::memory(Options::new());
    let mut txn = db.begin_write().expect("begins");
    for step in 0..8u64 {
        txn = std::thread::spawn(move || {
            txn.table(USERS).expect("table").insert(&format!("thread {step}"), step).expect("insert");
            txn
        })
        .join()
        .expect("a thread");
    }
    std::thread::spawn(move || txn.commit().expect("commit")).join().expect("a thread");
    assert_eq!(db.begin_read().expect("begins").table(USERS).expect("table").len(), 8);
    assert!(db.try_begin_write().expect("no error").is_some());
}

#[test]
fn a_panic_in_a_writer_aborts_and_leaves_the_database_usable() {
    let db = TestDb::memory(Options::new());
    users(&db, &[("ada", 1)]);
    let other = db.clone();
    let panicked = std::thread::spawn(move || {
        let txn = other.begin_write().expect("begins");
        txn.table(USERS).expect("table").insert("bob", 2).expect("insert");
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    users(&db, &[("cy", 3)]);
    let read = db.begin_read().expect("begins").table(USERS).expect("table");
    assert_eq!((read.len(), read.get("bob").expect("get")), (2, None));
}

#[test]
fn writers_in_many_threads_lose_nothing() {
    let db = TestDb::file(Options::new());
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let db = db.clone();
            scope.spawn(move || {
                for step in 0..25 {
                    db.write(|txn| -> Result<()> {
                        let mut table = txn.table(USERS)?;
                        let sum = table.get("sum")?.unwrap_or(0);
                        table.insert("sum", sum + 1)?;
                        table.insert(&format!("{thread}.{step}"), step)?;
                        Ok(())
                    })
                    .expect("write");
                }
            });
        }
    });
    let read = db.begin_read().expect("begins").table(USERS).expect("table");
    assert_eq!((read.get("sum").expect("get"), read.len()), (Some(100), 101));
}

#[test]
fn closures_commit_on_ok_and_abort_on_error() {
    #[derive(Debug)]
    enum Mine {
        Store(Error),
        Refused,
    }
    impl From<Error> for Mine {
        fn from(e: Error) -> Mine {
            Mine::Store(e)
        }
    }
    let db = TestDb::memory(Options::new());
    let done: std::result::Result<u64, Mine> = db.write_with_error(|txn| {
        txn.table(USERS)?.insert("ada", 1)?;
        Ok(7)
    });
    assert_eq!(done.expect("committed"), 7);
    let refused: std::result::Result<(), Mine> = db.write_with_error(|txn| {
        txn.table(USERS)?.insert("bob", 2)?;
        Err(Mine::Refused)
    });
    assert!(matches!(refused, Err(Mine::Refused)));
    let failed: std::result::Result<(), Mine> = db.write_with_error(|txn| {
        txn.table(USERS)?.insert("cy", 2)?;
        txn.rename_table("none", "other")?;
        Ok(())
    });
    assert!(matches!(failed, Err(Mine::Store(e)) if e.kind() == ErrorKind::Usage));
    let len: std::result::Result<u64, Mine> = db.read_with_error(|txn| Ok(txn.table(USERS)?.len()));
    assert_eq!(len.expect("read"), 1);
}

#[test]
fn a_read_only_handle_refuses_to_write_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("a.mapleaf");
    let db = Db::open(&path).expect("opens");
    users(&db, &[("ada", 1)]);
    drop(db);
    let before = std::fs::read(&path).expect("bytes");
    let db = Options::new().read_only(true).open(&path).expect("opens");
    assert!(db.is_read_only());
    assert_eq!(db.begin_read().expect("begins").table(USERS).expect("table").get("ada").expect("get"), Some(1));
    for refused in [db.begin_write().map(Some), db.try_begin_write(), db.begin_write_timeout(Duration::MAX)] {
        let refused = refused.expect_err("read-only");
        assert_eq!(refused.kind(), ErrorKind::Usage);
        assert!(refused.to_string().contains("read-only"), "{refused}");
    }
    let locked = Options::new().exclusive(true).open(&path).expect_err("this process reads it");
    assert_eq!(locked.kind(), ErrorKind::Locked, "{locked}");
    assert!(db.check().expect("check").is_clean());
    drop(db);
    assert_eq!(std::fs::read(&path).expect("bytes"), before);
}

#[test]
fn a_read_only_handle_beside_a_writing_one_stays_read_only() {
    let db = TestDb::file(Options::new());
    let reader = Options::new().read_only(true).open(db.path()).expect("the same database");
    users(&db, &[("ada", 1)]);
    assert_eq!(reader.begin_read().expect("begins").table(USERS).expect("table").len(), 1);
    assert_eq!(reader.begin_write().expect_err("read-only").kind(), ErrorKind::Usage);
}

#[test]
fn the_same_file_opened_twice_is_one_database() {
    let db = TestDb::file(Options::new());
    let link = db.path().with_file_name("link.mapleaf");
    std::os::unix::fs::symlink(db.path(), &link).expect("link");
    let hard = db.path().with_file_name("hard.mapleaf");
    std::fs::hard_link(db.path(), &hard).expect("link");
    for path in [db.path(), link, hard] {
        let other = Db::open(&path).expect("opens");
        let txn = db.begin_write().expect("begins");
        assert!(other.try_begin_write().expect("no error").is_none(), "one writer");
        drop(txn);
        users(&other, &[("ada", 1)]);
        let seen = db.begin_read().expect("begins");
        assert_eq!(seen.table(USERS).expect("table").get("ada").expect("get"), Some(1));
        assert_eq!(other.stats().expect("stats").uuid, db.stats().expect("stats").uuid);
    }
}

/// The last handle may be dropped at the moment when another open is refused.
#[test]
fn opening_and_refusing_race_with_closing_without_a_deadlock() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("a.mapleaf");
    drop(Db::open(&path).expect("made"));
    let stop = Arc::new(AtomicBool::new(false));
    let (done, finished) = mpsc::channel();
    for thread in 0..3u64 {
        let (path, stop, done) = (path.clone(), Arc::clone(&stop), done.clone());
        std::thread::spawn(move || {
            let mut rng = Rng::new(thread);
            while !stop.load(Ordering::Relaxed) {
                match Options::new().read_only(thread == 1).exclusive(thread == 0).open(&path) {
                    Ok(db) => {
                        let until = Instant::now() + Duration::from_micros(rng.below(60));
                        while Instant::now() < until {}
                        drop(db);
                    }
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Locked, "{e}"),
                }
            }
            done.send(()).expect("the test waits");
        });
    }
    std::thread::sleep(Duration::from_millis(1500));
    stop.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        finished.recv_timeout(Duration::from_secs(20)).expect("no thread hangs or panics");
    }
}

#[test]
fn a_missing_table_reads_as_empty() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_read().expect("begins");
    let table = txn.table(USERS).expect("table");
    assert!(table.is_empty() && table.first().expect("first").is_none() && table.last().expect("last").is_none());
    assert_eq!(table.get("ada").expect("get"), None);
    assert!(!table.contains_key("ada").expect("contains"));
    assert_eq!(table.iter().count() + table.iter().rev().count(), 0);
    assert_eq!(table.range_owned(..).expect("range").count(), 0);
    assert_eq!(table.prefix("a").expect("prefix").count(), 0);
    assert!(txn.tables().expect("tables").is_empty());
}

#[test]
fn wrong_codecs_are_refused_with_both_names() {
    let db = TestDb::memory(Options::new());
    users(&db, &[("ada", 1)]);
    let wrong: Table<u64, &str> = Table::new("users");
    let read = db.begin_read().expect("begins");
    let write = db.begin_write().expect("begins");
    for refused in [read.table(wrong.clone()).map(|_| ()), write.table(wrong).map(|_| ())] {
        let refused = refused.expect_err("other codecs");
        assert_eq!(refused.kind(), ErrorKind::Usage);
        let text = refused.to_string();
        assert!(text.contains("'users'") && text.contains("<str, u64>") && text.contains("<u64, str>"), "{text}");
    }
    // The refusal broke nothing.
    write.table(USERS).expect("table").insert("bob", 2).expect("insert");
    write.commit().expect("commit");
    let as_bytes = db.begin_read().expect("begins").bytes_table("users").expect("table");
    assert_eq!(as_bytes.get(b"bob").expect("get"), Some(&2u64.to_be_bytes()[..]));
}

#[test]
fn table_names_have_limits_and_an_order() {
    let db = TestDb::memory(Options::new());
    let named = |name: &str| Table::<&str, u64>::named(name);
    let txn = db.begin_write().expect("begins");
    let long = "n".repeat(255);
    for name in ["b", "a", &long, "\u{e4}", "A", " ", "a\0b"] {
        txn.table(named(name)).expect("a good name").insert("x", 1).expect("insert");
    }
    let too_long = txn.table(named(&"n".repeat(256))).map(|_| ()).expect_err("too long");
    assert_eq!(too_long.kind(), ErrorKind::TooLarge);
    assert_eq!(too_long.to_string(), "table name of 256 bytes is over the limit of 255 bytes");
    assert_eq!(txn.table(named("")).map(|_| ()).expect_err("empty").kind(), ErrorKind::Usage);
    let mut expected = vec!["b", "a", &long, "\u{e4}", "A", " ", "a\0b"];
    expected.sort_unstable();
    let listed: Vec<String> = txn.tables().expect("tables").into_iter().map(|table| table.name).collect();
    assert_eq!(listed, expected);
    txn.commit().expect("commit");
    let read = db.begin_read().expect("begins");
    let listed: Vec<String> = read.tables().expect("tables").into_iter().map(|table| table.name).collect();
    assert_eq!(listed, expected);
    assert_eq!(read.table(named("")).map(|_| ()).expect_err("empty").kind(), ErrorKind::Usage);
}

/// A codec of bytes whose name has this many letters.
struct Named<const LETTERS: usize>;

impl<const LETTERS: usize> Codec for Named<LETTERS> {
    type Item<'a> = &'a [u8];
    type Owned = Vec<u8>;

    fn name() -> String {
        "n".repeat(LETTERS)
    }

    fn encode<'a>(item: &'a &[u8]) -> Result<Encoded<'a>> {
        Ok(Encoded::Borrowed(item))
    }

    fn decode(bytes: &[u8]) -> std::result::Result<&[u8], CodecError> {
        Ok(bytes)
    }

    fn to_owned(item: &[u8]) -> Vec<u8> {
        item.to_vec()
    }
}

/// The record of a table lies in a leaf of the catalog, whose values have at most 1,000 bytes with
/// pages of 4 KiB; 32 of them are not for names.
#[test]
fn codec_names_that_do_not_fit_the_record_of_a_table_are_refused() {
    let db = TestDb::file(Options::new());
    let txn = db.begin_write().expect("begins");
    let refused = [
        (969, txn.table(Table::<&str, Named<966>>::new("longer")).map(drop)),
        (2003, txn.table(Table::<&str, Named<2000>>::new("far longer")).map(drop)),
    ];
    for (names, refused) in refused {
        let refused = refused.expect_err("too long");
        assert_eq!(refused.kind(), ErrorKind::Usage);
        assert!(refused.to_string().contains(&format!("{names} bytes together, and the limit is 968")), "{refused}");
    }
    txn.table(Table::<&str, Named<965>>::new("longest")).expect("fits").insert("k", b"v").expect("insert");
    txn.commit().expect("commit");
    let read = db.begin_read().expect("begins");
    let longest = read.table(Table::<&str, Named<965>>::new("longest")).expect("table");
    assert_eq!(longest.get("k").expect("get"), Some(&b"v"[..]));
}

#[test]
fn tables_are_renamed_dropped_and_made_again_in_one_transaction() {
    let db = TestDb::memory(Options::new());
    let table = |name: &str| Table::<&str, u64>::named(name);
    let put = |txn: &mut WriteTxn, name: &str, id| {
        txn.table(table(name)).expect("table").insert("id", id).expect("insert");
    };
    let mut txn = db.begin_write().expect("begins");
    put(&mut txn, "a", 1);
    put(&mut txn, "b", 2);
    txn.commit().expect("commit");
    let mut txn = db.begin_write().expect("begins");
    assert_eq!(txn.rename_table("a", "b").expect_err("taken").kind(), ErrorKind::Usage);
    assert_eq!(txn.rename_table("none", "c").expect_err("missing").kind(), ErrorKind::Usage);
    assert_eq!(txn.rename_table("a", "").expect_err("empty").kind(), ErrorKind::Usage);
    txn.rename_table("a", "a").expect("to itself");
    // a and b change names by way of c.
    txn.rename_table("a", "c").expect("rename");
    txn.rename_table("b", "a").expect("rename");
    txn.rename_table("c", "b").expect("rename");
    put(&mut txn, "fresh", 3);
    txn.rename_table("fresh", "c").expect("rename");
    put(&mut txn, "fresh", 4);
    assert!(txn.drop_table("fresh").expect("drop"));
    assert!(!txn.drop_table("fresh").expect("drop"));
    put(&mut txn, "gone", 5);
    assert!(txn.drop_table("gone").expect("drop"));
    let mut again = txn.table(Table::<u64, u64>::new("gone")).expect("other codecs are fine for a new table");
    again.insert(6, 6).expect("insert");
    txn.commit().expect("commit");
    let read = db.begin_read().expect("begins");
    let id = |name: &str| read.table(table(name)).expect("table").get("id").expect("get");
    assert_eq!((id("a"), id("b"), id("c"), id("fresh")), (Some(2), Some(1), Some(3), None));
    assert_eq!(read.tables().expect("tables").len(), 4);
}

#[test]
fn keys_are_taken_up_to_the_limit_and_refused_above() {
    for page_size in [4096u32, 8192, 16384, 32768] {
        let db = TestDb::memory(Options::new().page_size(page_size));
        let limit = 65_536;
        let txn = db.begin_write().expect("begins");
        let mut table = txn.table(BYTES).expect("table");
        for fill in 0..=255u8 {
            table.insert(&vec![fill; limit], &[fill]).expect("a key at the limit");
        }
        table.insert(b"", b"empty").expect("the empty key");
        for over in [limit + 1, limit + 2, 4 * limit] {
            let key = vec![7; over];
            for refused in [table.insert(&key, b"x").map(|_| ()), table.append(&key, b"x")] {
                let refused = refused.expect_err("over the limit");
                assert_eq!(refused.kind(), ErrorKind::TooLarge);
                let text = format!("key of {over} bytes is over the limit of {limit} bytes in table 'bytes'");
                assert_eq!(refused.to_string(), text);
            }
            assert_eq!(table.get(&key).expect("get"), None);
            assert_eq!(table.remove(&key).expect("remove"), None);
            assert!(table.range(key.as_slice()..).expect("range").next().is_some());
        }
        assert_eq!(table.len(), 257, "refusals changed nothing");
        txn.commit().expect("a refusal does not break the transaction");
        let read = db.begin_read().expect("begins").table(BYTES).expect("table");
        assert_eq!(read.get(b"").expect("get"), Some(&b"empty"[..]));
        assert_eq!(read.get(&vec![255; limit]).expect("get"), Some(&[255][..]));
        assert_eq!(read.get(&vec![255; limit + 1]).expect("get"), None);
        assert_eq!(read.range(vec![255; 3 * limit].as_slice()..).expect("range").count(), 0);
    }
}

#[test]
fn values_of_every_length_around_the_thresholds_come_back() {
    for page_size in [4096u32, 8192, 32768] {
        let mut db = TestDb::file(Options::new().page_size(page_size));
        let page = page_size as usize;
        let mut lengths = vec![0, 1, 2, 100];
        for threshold in
            [page / 4 - 24, page / 4, page / 2, page - 32, page, 2 * page - 32, 2 * page, 3 * page, 8 * page]
        {
            lengths.extend(threshold - 3..=threshold + 3);
        }
        lengths.push(5 << 20);
        let limit = page / 4 - 24;
        let key = |at: usize, long: bool| match long {
            true => bytes(at as u64, limit),
            false => (at as u32).to_be_bytes().to_vec(),
        };
        for turn in 0..3usize {
            let txn = db.begin_write().expect("begins");
            let mut table = txn.table(BYTES).expect("table");
            for at in 0..lengths.len() {
                // Each key gets another length in each round, so that overflow extents become
                // inline values and back.
                let len = lengths[(at + turn * 7) % lengths.len()];
                for long in [false, true] {
                    let old = table.insert(&key(at, long), &bytes(len as u64, len)).expect("insert");
                    let before = (turn > 0).then(|| lengths[(at + (turn - 1) * 7) % lengths.len()]);
                    assert!(old == before.map(|len| bytes(len as u64, len)), "the old value, now {len} bytes");
                }
            }
            txn.commit().expect("commit");
            db.reopen();
            let read = db.begin_read().expect("begins").table(BYTES).expect("table");
            for at in 0..lengths.len() {
                let len = lengths[(at + turn * 7) % lengths.len()];
                for long in [false, true] {
                    let found = read.get(&key(at, long)).expect("get");
                    assert!(found == Some(&bytes(len as u64, len)[..]), "{len} bytes, page size {page_size}");
                }
            }
        }
    }
}

#[test]
fn page_sizes_that_are_not_possible_are_refused_everywhere() {
    let dir = tempfile::tempdir().expect("directory");
    for bytes in [0, 1, 512, 2048, 4095, 4097, 5000, 12288, 65536, u32::MAX] {
        let options = Options::new().page_size(bytes);
        for refused in [options.clone().in_memory(), options.open(dir.path().join("a.mapleaf"))] {
            let refused = refused.expect_err("not a page size");
            assert_eq!(refused.kind(), ErrorKind::Usage);
            assert!(refused.to_string().contains("4096, 8192, 16384 or 32768"), "{refused}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("directory").count(), 0);
}

#[test]
fn a_database_with_any_window_size_stores_and_reads() {
    for window in [0, 1, 4095, 4096, 8192, 10_000, 1 << 20, 1 << 46, u64::MAX] {
        for db in TestDb::both(&Options::new().window_size(window)) {
            let txn = db.begin_write().expect("begins");
            txn.table(BYTES).expect("table").insert(b"k", &bytes(1, 3 << 20)).expect("insert");
            txn.commit().expect("commit");
            let read = db.begin_read().expect("begins").table(BYTES).expect("table");
            assert!(read.get(b"k").expect("get") == Some(&bytes(1, 3 << 20)[..]), "window {window}");
        }
    }
}

#[test]
fn append_takes_ascending_keys_only_and_a_refusal_changes_nothing() {
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BYTES).expect("table");
    table.append(b"", b"0").expect("the empty key is the least");
    assert_eq!(table.append(b"", b"x").expect_err("not above").kind(), ErrorKind::Usage);
    for key in 0..5000u32 {
        table.append(&key.to_be_bytes(), &bytes(u64::from(key), 40)).expect("append");
        if key % 97 == 0 {
            let refused = table.append(&key.to_be_bytes(), b"x").expect_err("equal");
            assert!(refused.to_string().contains("ascending"), "{refused}");
            assert_eq!(table.append(&[], b"x").expect_err("below").kind(), ErrorKind::Usage);
            // Other changes in between have no effect on appends.
            table.insert(&key.to_be_bytes(), b"changed").expect("insert");
            assert!(table.remove(&(key / 2).to_be_bytes()).expect("remove").is_some() || key < 97 * 2);
            table.insert(&(key / 2).to_be_bytes(), b"back").expect("insert");
        }
    }
    table.remove(&4999u32.to_be_bytes()).expect("remove");
    table.append(&4999u32.to_be_bytes(), b"again").expect("the last one went");
    assert_eq!(table.len(), 5001);
    txn.commit().expect("commit");
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BYTES).expect("table");
    assert_eq!(table.append(&4999u32.to_be_bytes(), b"x").expect_err("equal").kind(), ErrorKind::Usage);
    table.append(&5000u32.to_be_bytes(), b"x").expect("append");
    txn.commit().expect("commit");
}

/// A table of two-byte keys over several leaves, and the same as a map.
fn two_byte_keys(db: &Db, count: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut model = BTreeMap::new();
    let mut rng = Rng::new(seed("two_byte_keys"));
    while model.len() < count {
        let key = (rng.below(400) as u16).to_be_bytes().to_vec();
        model.insert(key.clone(), bytes(rng.next(), 60));
    }
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BYTES).expect("table");
    for (key, value) in &model {
        table.insert(key, value).expect("insert");
    }
    txn.commit().expect("commit");
    model
}

fn inside(model: &BTreeMap<Vec<u8>, Vec<u8>>, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Vec<Vec<u8>> {
    let above = |key: &[u8]| match low {
        Included(low) => key >= low,
        Excluded(low) => key > low,
        Unbounded => true,
    };
    let below = |key: &[u8]| match high {
        Included(high) => key <= high,
        Excluded(high) => key < high,
        Unbounded => true,
    };
    model.keys().filter(|key| above(key) && below(key)).cloned().collect()
}

#[test]
fn ranges_with_all_kinds_of_bounds_also_empty_and_inverted() {
    let db = TestDb::memory(Options::new());
    let model = two_byte_keys(&db, 250);
    let read = db.begin_read().expect("begins").table(BYTES).expect("table");
    let txn = db.begin_write().expect("begins");
    let write = txn.table(BYTES).expect("table");
    let mut rng = Rng::new(11);
    let mut keys: Vec<Vec<u8>> = (0..60).map(|_| (rng.below(410) as u16).to_be_bytes().to_vec()).collect();
    keys.extend([vec![], vec![0], vec![1], vec![0xff; 2], vec![0xff; 2000], vec![0, 200, 0]]);
    let bounds = |key: &Vec<u8>| [Included(key.clone()), Excluded(key.clone())];
    let mut bounds: Vec<Bound<Vec<u8>>> = keys.iter().flat_map(bounds).collect();
    bounds.push(Unbounded);
    for low in &bounds {
        for high in &bounds {
            let range = (low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice));
            let expected = inside(&model, range.0, range.1);
            let keys = |found: mapleaf::Range<'_, &[u8], &[u8]>| -> Vec<Vec<u8>> {
                found.map(|entry| entry.expect("entry").0.to_vec()).collect()
            };
            assert_eq!(keys(read.range(range).expect("range")), expected, "{range:?}");
            assert_eq!(keys(write.range(range).expect("range")), expected, "{range:?}");
            let mut back: Vec<Vec<u8>> =
                read.range(range).expect("range").rev().map(|entry| entry.expect("entry").0.to_vec()).collect();
            back.reverse();
            assert_eq!(back, expected, "{range:?} backwards");
            // Both ends in a random order, and a few more calls than there are entries.
            let mut both = read.range(range).expect("range");
            let mut owned = read.range_owned(range).expect("range");
            let (mut front, mut back) = (Vec::new(), Vec::new());
            for _ in 0..expected.len() {
                if rng.below(2) == 0 {
                    let key = both.next().expect("one more").expect("entry").0.to_vec();
                    assert_eq!(owned.next().expect("one more").expect("entry").0, key);
                    front.push(key);
                } else {
                    let key = both.next_back().expect("one more").expect("entry").0.to_vec();
                    assert_eq!(owned.next_back().expect("one more").expect("entry").0, key);
                    back.push(key);
                }
            }
            front.extend(back.into_iter().rev());
            assert_eq!(front, expected, "{range:?} from both ends");
            for _ in 0..2 {
                assert!(both.next().is_none() && both.next_back().is_none(), "{range:?} is over");
                assert!(owned.next().is_none() && owned.next_back().is_none(), "{range:?} is over");
            }
        }
    }
}

#[test]
fn prefixes_select_what_begins_with_them() {
    let db = TestDb::memory(Options::new());
    let mut model = BTreeMap::new();
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(BYTES).expect("table");
    for len in 0..5usize {
        for code in 0..4usize.pow(len as u32) {
            let key: Vec<u8> = (0..len).map(|at| [0, 1, 0xfe, 0xff][code >> (2 * at) & 3]).collect();
            table.insert(&key, &bytes(code as u64, 30)).expect("insert");
            model.insert(key, ());
        }
    }
    txn.commit().expect("commit");
    let read = db.begin_read().expect("begins").table(BYTES).expect("table");
    let prefixes =
        model.keys().cloned().chain([vec![7], vec![0xff; 9], vec![0xff; 5000], vec![0xfe, 0xff, 0xff, 0xff, 0]]);
    for prefix in prefixes.collect::<Vec<_>>() {
        let expected: Vec<&Vec<u8>> = model.keys().filter(|key| key.starts_with(&prefix)).collect();
        let found = read.prefix(&prefix).expect("prefix").map(|entry| entry.expect("entry").0.to_vec());
        assert!(found.eq(expected.iter().copied().cloned()), "{prefix:?}");
        let found = read.prefix(&prefix).expect("prefix").rev().map(|entry| entry.expect("entry").0.to_vec());
        assert!(found.eq(expected.iter().rev().copied().cloned()), "{prefix:?} backwards");
    }
}

#[test]
fn prefixes_of_text_and_of_tuples_select_their_keys() {
    const ITEMS: Table<(&str, u64), &str> = Table::new("items");
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    for (tenant, count) in [("", 2), ("t", 3), ("t0", 4), ("t01", 5)] {
        for item in 0..count {
            txn.table(ITEMS).expect("table").insert((tenant, item), "x").expect("insert");
            txn.table(USERS).expect("table").insert(&format!("{tenant}\u{10ffff}{item}"), item).expect("insert");
        }
    }
    txn.commit().expect("commit");
    let txn = db.begin_read().expect("begins");
    let items = txn.table(ITEMS).expect("table");
    for (tenant, count) in [("", 2), ("t", 3), ("t0", 4), ("t01", 5), ("t02", 0)] {
        assert_eq!(items.prefix(tenant).expect("prefix").count(), count, "{tenant}");
    }
    assert_eq!(items.starting_with(("t",)).expect("one component").count(), 3);
    let users = txn.table(USERS).expect("table");
    for (prefix, count) in [("", 14), ("t", 12), ("t0", 9), ("t\u{10ffff}", 3), ("\u{10ffff}", 2)] {
        assert_eq!(users.prefix(prefix).expect("prefix").count(), count, "{prefix}");
    }
}

#[test]
fn any_number_of_leading_components_selects_keys_in_both_transactions() {
    const READINGS: Table<(&str, Reverse<u16>, String, u64), u8> = Table::new("readings");
    let db = TestDb::memory(Options::new());
    let txn = db.begin_write().expect("begins");
    let mut readings = txn.table(READINGS).expect("table");
    for (place, sensor, kind) in [("roof", 1, "heat"), ("roof", 2, "heat"), ("roof", 2, "wind"), ("roo", 2, "heat")] {
        for time in [10, 20] {
            readings.insert((place, Reverse(sensor), kind.to_string(), time), 0).expect("insert");
        }
    }
    let heat = || "heat".to_string();
    let found = [
        readings.starting_with(("roof",)).expect("one").count(),
        readings.starting_with(("roof", Reverse(2))).expect("two").count(),
        readings.starting_with(("roof", Reverse(2), heat())).expect("three").count(),
        readings.starting_with(("roof", Reverse(3))).expect("none").count(),
    ];
    assert_eq!(found, [6, 4, 2, 0]);
    txn.commit().expect("commit");
    let readings = db.begin_read().expect("begins").table(READINGS).expect("table");
    let sensors = readings.starting_with(("roof",)).expect("one").map(|entry| entry.expect("entry").0 .1 .0);
    assert_eq!(sensors.collect::<Vec<_>>(), [2, 2, 2, 2, 1, 1]);
    let times = readings.starting_with(("roof", Reverse(2), heat())).expect("three").rev();
    assert_eq!(times.map(|entry| entry.expect("entry").0 .3).collect::<Vec<_>>(), [20, 10]);
    assert_eq!(readings.starting_with(("\0",)).map(drop).expect_err("a zero byte").kind(), ErrorKind::Usage);
}

#[test]
fn every_error_of_a_call_says_where_and_its_kind() {
    let dir = tempfile::tempdir().expect("directory");
    let missing = dir.path().join("none.mapleaf");
    let refused = Db::open_existing(&missing).expect_err("no file");
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(refused.to_string().contains("none.mapleaf"), "{refused}");
    assert!(!missing.exists(), "nothing is made by a refusal");
    assert_eq!(Options::new().read_only(true).open(&missing).expect_err("no file").kind(), ErrorKind::NotFound);
    assert_eq!(Db::open(dir.path().join("no/such/place")).expect_err("no directory").kind(), ErrorKind::NotFound);
}

#[test]
fn a_transaction_goes_on_after_an_error_that_changed_nothing() {
    const PAIRS: Table<(&str, u64), u64> = Table::new("pairs");
    let db = TestDb::memory(Options::new());
    let mut txn = db.begin_write().expect("begins");
    let mut pairs = txn.table(PAIRS).expect("table");
    pairs.insert(("a", 1), 1).expect("insert");
    assert_eq!(pairs.insert(("a\0b", 1), 1).expect_err("a zero byte").kind(), ErrorKind::Usage);
    assert_eq!(pairs.get(("a\0b", 1)).expect_err("a zero byte").kind(), ErrorKind::Usage);
    assert_eq!(pairs.append(("a", 1), 1).expect_err("not above").kind(), ErrorKind::Usage);
    assert_eq!(pairs.insert((&"k".repeat(70_000), 1), 1).expect_err("too long").kind(), ErrorKind::TooLarge);
    assert_eq!(pairs.len(), 1);
    drop(pairs);
    assert_eq!(txn.rename_table("none", "other").expect_err("missing").kind(), ErrorKind::Usage);
    txn.table(PAIRS).expect("table").insert(("b", 2), 2).expect("insert");
    txn.commit().expect("commit");
    assert_eq!(db.begin_read().expect("begins").table(PAIRS).expect("table").len(), 2);
}

#[test]
fn handles_to_the_newest_state_do_not_disturb_each_other_in_memory() {
    let (one, two) = (TestDb::memory(Options::new()), TestDb::memory(Options::new()));
    users(&one, &[("ada", 1)]);
    assert_eq!(two.begin_read().expect("begins").table(USERS).expect("table").len(), 0);
    assert_eq!((Db::path(&one), Db::path(&two)), (None, None));
    assert_ne!(one.stats().expect("stats").uuid, two.stats().expect("stats").uuid);
}

#[test]
fn thousands_of_read_transactions_are_open_at_once() {
    let db = TestDb::memory(Options::new());
    users(&db, &[("ada", 0)]);
    let mut open = Vec::new();
    for round in 0..3000u64 {
        if round % 10 == 0 {
            users(&db, &[("ada", round)]);
        }
        open.push((round / 10 * 10, db.begin_read().expect("begins")));
    }
    assert_eq!(db.stats().expect("stats").readers, 3000);
    for (expected, txn) in &open {
        assert_eq!(txn.table(USERS).expect("table").get("ada").expect("get"), Some(*expected));
    }
    drop(open);
    assert_eq!(db.stats().expect("stats").readers, 0);
}

#[test]
fn a_write_transaction_reads_what_it_wrote() {
    let db = TestDb::memory(Options::new());
    users(&db, &[("ada", 1), ("bob", 2), ("cy", 3)]);
    let txn = db.begin_write().expect("begins");
    let mut table = txn.table(USERS).expect("table");
    table.remove("bob").expect("remove");
    table.insert("dora", 4).expect("insert");
    let all: Vec<_> = table.iter().map(|entry| entry.expect("entry")).collect();
    assert_eq!(all, [("ada", 1), ("cy", 3), ("dora", 4)]);
    assert_eq!(table.first().expect("first"), Some(("ada", 1)));
    assert_eq!(table.last().expect("last"), Some(("dora", 4)));
    assert_eq!((table.len(), table.name()), (3, "users"));
    assert!(table.contains_key("cy").expect("contains") && !table.contains_key("bob").expect("contains"));
    assert_eq!(table.prefix("d").expect("prefix").count(), 1);
    assert_eq!(txn.tables().expect("tables")[0].entries, 3);
}
