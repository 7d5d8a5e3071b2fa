//! Compaction: the new file has the contents of the snapshot in as few pages as possible; after an
//! error there is no file.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use mapleaf::{testing, Db, Error, ErrorKind, Options, ReadTxn, Table};
use tempfile::TempDir;

use crate::reexec;
use crate::support::{assert_clean, bytes, long, names_beside_locks, remove_database, seed};
use crate::workload::{fast_dir, History, Rng};

const PAGE: usize = 4096;

/// Pages of a new file that are neither leaf nor branch of a table: the meta pages, the catalog and
/// the free list.
const OTHER_PAGES: u64 = 4;

fn names(dir: &TempDir) -> Vec<String> {
    names_beside_locks(dir.path(), &["made.mapleaf"])
}

/// No commit takes this long; a test that waits longer fails.
const LONG: Duration = Duration::from_secs(120);

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Every entry of every table.
fn contents(txn: &ReadTxn) -> HashMap<String, Entries> {
    let of_table = |name: &str| {
        let table = txn.bytes_table(name).expect("a table");
        let owned = |entry: mapleaf::Result<(&[u8], &[u8])>| entry.map(|(k, v)| (k.to_vec(), v.to_vec()));
        table.iter().map(owned).collect::<mapleaf::Result<_>>().expect("entries")
    };
    txn.tables().expect("tables").into_iter().map(|it| (it.name.clone(), of_table(&it.name))).collect()
}

#[test]
fn the_copy_after_many_transactions_holds_the_newest_state() {
    let seed = seed("compact_history");
    let dir = fast_dir();
    let out = dir.path().join("out.mapleaf");
    let history = History::new(seed);
    let db = Db::open(dir.path().join("made.mapleaf")).expect("made");
    for round in 0..12 * u64::from(long()) {
        let newest = (0..20).map(|_| history.commit_next(&db).expect("committed")).last().expect("a commit");
        let report = db.compact_to(&out).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
        let copy = Db::open_existing(&out).expect("opens");
        history.holds(&copy, newest).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
        assert_clean(&copy);
        let (stats, before) = (copy.stats().expect("stats"), db.stats().expect("stats"));
        assert_eq!((report.txn, report.entries, report.tables), (newest, stats.entries, stats.tables));
        assert_eq!(report.bytes_before, before.page_count * PAGE as u64);
        assert_eq!(report.bytes_after, stats.page_count * PAGE as u64);
        assert!(report.bytes_after <= report.bytes_before, "{report:?}");
        assert_eq!(stats.free_pages + stats.pending_pages, 0, "seed {seed}, round {round}: {stats:?}");
        assert_ne!(stats.uuid, before.uuid);
        drop(copy);
        let databases = ["made.mapleaf", "out.mapleaf"];
        assert_eq!(names_beside_locks(dir.path(), &databases), databases);
        remove_database(&out);
    }
}

/// Leaves are filled until the next entry does not fit, branches nearly so. A commit in between
/// leaves no unused page.
#[test]
fn the_pages_of_the_copy_are_full() {
    const ENTRIES: u64 = 250_000;
    let entry_bytes = 6 + 4 + 24 + 150;
    let dir = fast_dir();
    let out = dir.path().join("out.mapleaf");
    let db = Db::open(dir.path().join("made.mapleaf")).expect("made");
    let mut rng = Rng(seed("full_pages"));
    let mut value = vec![0; 150];
    db.write(|txn| {
        let mut table = txn.bytes_table("t")?;
        for _ in 0..ENTRIES {
            let key: Vec<u8> = (0..3).flat_map(|_| rng.next().to_be_bytes()).collect();
            value[..8].copy_from_slice(&rng.next().to_le_bytes());
            table.insert(&key, &value)?;
        }
        Ok::<_, Error>(())
    })
    .expect("written");
    let report = db.compact_to(&out).expect("compacts");
    let leaves = ENTRIES.div_ceil((PAGE as u64 - 32) / entry_bytes);
    let children = (PAGE as u64 - 128) / 16;
    let branches = leaves.div_ceil(children) + 1;
    let pages = report.bytes_after / PAGE as u64;
    let copy = Db::open_existing(&out).expect("opens");
    let stats = copy.stats().expect("stats");
    let unused = stats.free_pages + stats.pending_pages;
    println!("{pages} pages, {leaves} leaves and {branches} branches at least, {unused} unused");
    // Separators of some children do not fit into their heads.
    assert!(pages <= leaves + branches + 2 + branches / 20 + OTHER_PAGES + unused, "{pages}");
    assert!(unused <= 12, "{unused} unused pages");
    assert_eq!(contents(&copy.begin_read().expect("reads")), contents(&db.begin_read().expect("reads")));
    assert_clean(&copy);
}

#[test]
fn large_values_are_copied_with_every_page_size() {
    for page_size in [4096, 8192, 16384, 32768] {
        let dir = fast_dir();
        let out = dir.path().join("out.mapleaf");
        let db = Options::new().page_size(page_size).in_memory().expect("made");
        for round in 0..3u64 {
            db.write(|txn| {
                let mut table = txn.bytes_table("large")?;
                for (at, len) in [0, 1, 1000, 5000, 100_000, 3 << 20, 40 << 20].into_iter().enumerate() {
                    table.insert(&[at as u8], &bytes(round + at as u64, len))?;
                }
                Ok::<_, Error>(())
            })
            .expect("written");
        }
        let report = db.compact_to(&out).expect("compacts");
        assert_eq!((report.page_size, report.entries), (page_size, 7));
        let copy = Db::open_existing(&out).expect("opens");
        assert_eq!(contents(&copy.begin_read().expect("reads")), contents(&db.begin_read().expect("reads")));
        assert_clean(&copy);
        let stats = copy.stats().expect("stats");
        assert!(stats.free_pages + stats.pending_pages <= 12, "{stats:?}");
    }
}

#[test]
fn codecs_and_empty_tables_are_kept() {
    const TYPED: Table<(&str, u32), f64> = Table::new("typed");
    let dir = fast_dir();
    let out = dir.path().join("out.mapleaf");
    let path = dir.path().join("made.mapleaf");
    let db = Db::open(&path).expect("made");
    let empty = db.compact_to(&out).expect("an empty one");
    assert_eq!((empty.tables, empty.entries, empty.bytes_after), (0, 0, 2 * PAGE as u64));
    assert_clean(&Db::open_existing(&out).expect("opens"));
    remove_database(&out);
    db.write(|txn| {
        txn.table(TYPED)?.insert(("width", 2), 3.25)?;
        txn.table(Table::<u64, &str>::new("empty")).map(drop)
    })
    .expect("written");
    drop(db);
    let before = std::fs::read(&path).expect("read");
    let db = Options::new().read_only(true).open(&path).expect("opens");
    assert_eq!(db.compact_to(&out).expect("compacts").tables, 2);
    assert!(std::fs::read(&path).expect("read") == before, "a database that is only read stays as it is");
    let txn = Db::open_existing(&out).and_then(|db| db.begin_read()).expect("reads");
    assert_eq!(txn.table(TYPED).expect("the same codecs").get(("width", 2)).expect("read"), Some(3.25));
    assert!(txn.table(Table::<u64, &str>::new("empty")).expect("the same codecs").is_empty());
}

#[test]
fn many_small_tables_are_copied() {
    let dir = fast_dir();
    let out = dir.path().join("out.mapleaf");
    let db = Db::open(dir.path().join("made.mapleaf")).expect("made");
    for batch in 0..30 {
        db.write(|txn| {
            (0..100u32).try_for_each(|n| {
                let mut table = txn.bytes_table(&format!("table {batch} {n}"))?;
                (0..n % 3).try_for_each(|key| table.insert(&key.to_be_bytes(), &[7; 30]).map(drop))
            })
        })
        .expect("written");
    }
    let report = db.compact_to(&out).expect("compacts");
    assert_eq!((report.tables, report.entries), (3000, 30 * 99));
    let copy = Db::open_existing(&out).expect("opens");
    assert!(contents(&copy.begin_read().expect("reads")) == contents(&db.begin_read().expect("reads")));
    assert_clean(&copy);
}

/// In each round the writer commits after the snapshot of the compaction and before its end. So the
/// copy of the next round is of a later state.
#[test]
fn writers_continue_and_the_copy_is_one_state() {
    let seed = seed("compact_live");
    let dir = fast_dir();
    let history = History::new(seed);
    let db = Db::open(dir.path().join("made.mapleaf")).expect("made");
    for _ in 0..60 {
        history.commit_next(&db).expect("committed");
    }
    let mut txns = Vec::new();
    std::thread::scope(|scope| {
        let (committed, commits) = mpsc::channel();
        let writer = scope.spawn({
            let (history, db) = (&history, &db);
            // Ends when no thread receives any more.
            move || while committed.send(history.commit_next(db).expect("committed")).is_ok() {}
        });
        let next = move || commits.recv_timeout(LONG).expect("the writer goes on");
        for round in 0..12 {
            let out = dir.path().join(format!("out-{round}.mapleaf"));
            let mut began_at = None;
            let report = db.compact_to_with(&out, |_, _| {
                // The first call comes after the snapshot was taken.
                if began_at.is_none() {
                    let newest = testing::latest_txn(&db);
                    began_at = Some(newest);
                    while next() <= newest {}
                }
                ControlFlow::Continue(())
            });
            let report = report.expect("compacts");
            assert!(Some(report.txn) <= began_at, "seed {seed}, round {round}: the snapshot was taken before");
            let copy = Db::open_existing(&out).expect("opens");
            history.holds(&copy, report.txn).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
            assert_clean(&copy);
            txns.push(report.txn);
        }
        drop(next);
        writer.join().expect("a writer");
    });
    assert!(txns.windows(2).all(|pair| pair[0] < pair[1]), "the writer went on: {txns:?}");
    history.judge(&db).expect("whole");
}

#[test]
fn an_existing_target_is_refused_and_unchanged() {
    let dir = fast_dir();
    let path = dir.path().join("made.mapleaf");
    let db = Db::open(&path).expect("made");
    db.write(|txn| txn.bytes_table("t")?.insert(b"k", b"v").map(drop)).expect("written");
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("file"), b"mine").expect("written");
    std::fs::create_dir(at("directory")).expect("made");
    std::os::unix::fs::symlink(at("nowhere"), at("link")).expect("linked");
    std::os::unix::fs::symlink(&path, at("alias")).expect("linked");
    std::fs::hard_link(&path, at("other-name")).expect("linked");
    let before = names(&dir);
    for (name, what) in [
        ("file", "exists"),
        ("directory", "exists"),
        ("link", "exists"),
        ("alias", "is the database itself"),
        ("other-name", "is the database itself"),
        ("made.mapleaf", "is the database itself"),
        ("", "exists"),
    ] {
        let e = db.compact_to(at(name)).expect_err(name);
        let text = e.to_string();
        assert!(e.kind() == ErrorKind::Usage && text.contains(what) && text.contains("another name"), "{name}: {e}");
    }
    let e = db.compact_to(at("no/such/place")).expect_err("no directory");
    assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("no/such/place"), "{e}");
    assert_eq!(std::fs::read(at("file")).expect("read"), b"mine");
    assert_eq!(names(&dir), before);
    assert_clean(&db);
}

/// Damage in any reachable page is an error of the same kind as for a reader, and leaves no file.
#[test]
fn damage_ends_the_compaction_and_leaves_no_file() {
    let seed = seed("compact_damage");
    let dir = fast_dir();
    let (path, out) = (dir.path().join("made.mapleaf"), dir.path().join("out.mapleaf"));
    let history = History::new(seed);
    let db = Db::open(&path).expect("made");
    let newest = (0..60).map(|_| history.commit_next(&db).expect("committed")).last().expect("a commit");
    drop(db);
    let whole = std::fs::read(&path).expect("read");
    let mut rng = Rng(seed);
    let (mut refused, mut copied) = (0, 0);
    for round in 0..80 * u64::from(long()) {
        let mut bytes = whole.clone();
        let page = 2 + rng.below(bytes.len() as u64 / PAGE as u64 - 2) as usize;
        bytes[page * PAGE + rng.below(PAGE as u64) as usize] ^= 1 << rng.below(8);
        std::fs::write(&path, &bytes).expect("written");
        let db = Options::new().read_only(true).open(&path).expect("opens");
        match db.compact_to(&out) {
            Ok(_) => {
                let copy = Db::open_existing(&out).expect("opens");
                history.holds(&copy, newest).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
                drop(copy);
                remove_database(&out);
                copied += 1;
            }
            Err(e) => {
                let text = e.to_string();
                assert!(e.kind() == ErrorKind::Corrupt && text.contains("made.mapleaf"), "round {round}: {e}");
                refused += 1;
            }
        }
        assert_eq!(names(&dir), ["made.mapleaf"], "seed {seed}, round {round}");
    }
    println!("{refused} refused, {copied} copied, whose damage lay in pages that are free");
    assert!(refused > 10 && copied > 0);
}

/// Bytes are changed anywhere and checksums recomputed: the compaction must not panic or hang, and
/// a copy must be whole.
#[test]
fn crafted_files_never_panic_or_give_wrong_entries() {
    let seed = seed("compact_hostile");
    let dir = fast_dir();
    let (path, out) = (dir.path().join("made.mapleaf"), dir.path().join("out.mapleaf"));
    let history = History::small(seed);
    testing::without_log(|| {
        let db = Db::open(&path).expect("made");
        for _ in 0..25 {
            history.commit_next(&db).expect("committed");
        }
    });
    let whole = std::fs::read(&path).expect("read");
    let (mut rng, mut copies, mut refused) = (Rng(seed), 0, 0);
    for round in 0..300 * u64::from(long()) {
        let mut bytes = whole.clone();
        for _ in 0..1 + rng.below(6) {
            let (at, byte) = (rng.below(bytes.len() as u64) as usize, rng.next() as u8);
            let at = if rng.one_in(2) { at / PAGE * PAGE + at % 160 } else { at };
            bytes[at] = if rng.one_in(2) { byte } else { bytes[at] ^ 1 << (byte % 8) };
        }
        testing::seal_file(&mut bytes);
        std::fs::write(&path, &bytes).expect("written");
        let Ok(db) = Options::new().read_only(true).open(&path) else { continue };
        match db.compact_to(&out) {
            Ok(_) => {
                assert_clean(&Db::open_existing(&out).expect("opens"));
                remove_database(&out);
                copies += 1;
            }
            Err(e) => {
                let known = matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Usage | ErrorKind::TooLarge);
                assert!(known, "seed {seed}, round {round}: {e}");
                refused += 1;
            }
        }
        assert_eq!(names(&dir), ["made.mapleaf"], "seed {seed}, round {round}");
    }
    println!("{copies} copies, {refused} refused");
    assert!(copies > 30 && refused > 30);
}

/// A table of an unknown kind is an error; the copy never silently omits it.
#[test]
fn a_table_of_an_unknown_kind_refuses_the_compaction() {
    let dir = fast_dir();
    let (path, out) = (dir.path().join("made.mapleaf"), dir.path().join("out.mapleaf"));
    let db = Db::open(&path).expect("made");
    db.write(|txn| {
        txn.bytes_table("plain")?.insert(b"k", b"v")?;
        txn.bytes_table("strange")?.insert(b"k", b"v").map(drop)
    })
    .expect("written");
    drop(db);
    let mut bytes = std::fs::read(&path).expect("read");
    let record = b"strange\x01\x00\x00\x00\x00";
    let at = bytes.windows(record.len()).position(|window| window == record).expect("the record");
    bytes[at + record.len() - 4] = 8;
    testing::seal_file(&mut bytes);
    std::fs::write(&path, &bytes).expect("written");
    let db = Db::open(&path).expect("opens");
    let e = db.compact_to(&out).expect_err("a table of another kind");
    assert!(e.kind() == ErrorKind::Usage && e.to_string().contains("'strange' is a table of an unknown kind"), "{e}");
    assert_eq!(names(&dir), ["made.mapleaf"]);
}

#[test]
fn a_stopped_compaction_leaves_no_file() {
    let dir = fast_dir();
    let (path, out) = (dir.path().join("made.mapleaf"), dir.path().join("out.mapleaf"));
    let db = Db::open(&path).expect("made");
    db.write(|txn| (0..9000u32).try_for_each(|n| txn.bytes_table("t")?.insert(&n.to_be_bytes(), &[7; 900]).map(drop)))
        .expect("written");
    let mut told = Vec::new();
    db.compact_to_with(&out, |done, all| {
        told.push((done, all));
        ControlFlow::Continue(())
    })
    .expect("compacts");
    assert!(told.len() > 5 && told.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{told:?}");
    assert_eq!((told[0], told[told.len() - 1]), ((0, 9000), (9000, 9000)));
    remove_database(&out);
    for stop_at in 0..told.len() {
        let mut at = 0;
        let stopped = db.compact_to_with(&out, |_, _| {
            at += 1;
            if at > stop_at {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let Err(Error::Io { path: named, source, .. }) = stopped else { panic!("{stop_at}: {stopped:?}") };
        assert_eq!((named, source.kind()), (out.clone(), std::io::ErrorKind::Interrupted), "{stop_at}");
        assert_eq!(names(&dir), ["made.mapleaf"], "{stop_at}");
    }
}

/// The database is cut during the copy. Lost pages read as zeros, which must not get into the copy.
#[test]
fn cut_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let (path, out) = (Path::new(&arguments[0]), Path::new(&arguments[1]));
    let whole = std::fs::read(path).expect("read");
    for share in 0..10u64 {
        std::fs::write(path, &whole).expect("written");
        let db = Options::new().read_only(true).open(path).expect("opens");
        let mut told = 0;
        let cut = db.compact_to_with(out, |_, _| {
            told += 1;
            if told == 2 + share / 3 {
                let file = std::fs::File::options().write(true).open(path).expect("the file");
                file.set_len(whole.len() as u64 * share / 10).expect("cut");
            }
            ControlFlow::Continue(())
        });
        let e = cut.expect_err("a cut file");
        assert!(matches!(e.kind(), ErrorKind::Fault | ErrorKind::Poisoned), "{share}: {e}");
        assert!(!out.exists(), "{share}");
    }
    reexec::answer("ten errors");
}

#[test]
fn a_cut_during_a_compaction_is_an_error_and_never_a_copy_with_zeros() {
    let dir = fast_dir();
    let (path, out) = (dir.path().join("made.mapleaf"), dir.path().join("out.mapleaf"));
    let db = Db::open(&path).expect("made");
    db.write(|txn| {
        let mut table = txn.bytes_table("t")?;
        (0..100u32).try_for_each(|n| table.insert(&n.to_be_bytes(), &bytes(n.into(), 100_000)).map(drop))
    })
    .expect("written");
    drop(db);
    let mut child = reexec::start(reexec::command("compact::cut_child", &[&path, &out]));
    assert_eq!(child.line().as_deref(), Some("ten errors"));
    child.finish();
    assert_eq!(names(&dir), ["made.mapleaf"]);
}
