//! Reuse of free space: under a steady workload the file stops growing.

use mapleaf::{Db, Durability, Options, Table, TableMut};

use crate::support::{seed, Rng, TestDb};

const SMALL: Table<u64, &[u8]> = Table::new("small");
const LARGE: Table<u64, &[u8]> = Table::new("large");

fn page_count(db: &Db) -> u64 {
    db.stats().expect("stats").page_count
}

/// Length of the file in pages after each eighth of the work.
fn growth(db: &Db, commits: u64, mut commit: impl FnMut(&Db)) -> Vec<u64> {
    (0..8)
        .map(|_| {
            (0..commits / 8).for_each(|_| commit(db));
            page_count(db)
        })
        .collect()
}

/// Asserts that the second half of the work added few pages to those of the first.
#[track_caller]
fn assert_levels_off(pages: &[u64]) {
    assert!(pages[7] <= pages[3] + pages[3] / 2, "the file goes on growing: {pages:?}");
}

/// Each commit replaces one large value and many small ones. The file once grew with every commit:
/// the small values used up parts of freed large extents, and the rest was too short for the next
/// large value.
#[test]
fn large_values_among_small_ones_do_not_grow_the_file_for_ever() {
    let db = TestDb::memory(Options::new());
    let mut rng = Rng::new(seed("large_values_beside_many_small_ones"));
    let pages = growth(&db, 160, |db| {
        let txn = db.begin_write().expect("begins");
        let mut small = txn.table(SMALL).expect("table");
        for _ in 0..3000 {
            let key = rng.below(6000);
            if rng.below(2) == 0 {
                small.insert(key, &[1; 1500]).expect("insert");
            } else {
                small.remove(key).expect("remove");
            }
        }
        let len = 2_000_000 + rng.below(2_000_000) as usize;
        txn.table(LARGE).expect("table").insert(0, &vec![2; len]).expect("insert");
        txn.commit().expect("commit");
    });
    assert_levels_off(&pages);
}

/// Adjacent extents in the free-space tree must be merged, although they were freed at different
/// times and the writer's cache no longer has the first when it adds the second. Otherwise long
/// extents are soon found only at the end of the file.
#[test]
fn adjacent_free_extents_are_merged_whatever_transactions_freed_them() {
    const COUNT: u64 = 6000;
    let db = TestDb::memory(Options::new());
    type Small<'t> = TableMut<'t, u64, &'static [u8]>;
    let write = |change: &dyn Fn(&mut Small<'_>)| {
        let txn = db.begin_write().expect("begins");
        change(&mut txn.table(SMALL).expect("table"));
        txn.commit().expect("commit");
    };
    let put_large = |key: u64| {
        write(&|table| assert!(table.insert(key, &vec![2; 4_000_000]).expect("insert").is_none()));
    };
    let remove = |rest: u64| {
        write(&|table| {
            for key in (rest..COUNT).step_by(2) {
                assert!(table.remove(key).expect("remove").is_some());
            }
        });
        // Makes the freed pages usable and lists them.
        put_large(COUNT + rest);
        db.begin_write().expect("begins").abort();
    };
    write(&|table| (0..COUNT).for_each(|key| assert!(table.insert(key, &[1; 1500]).expect("insert").is_none())));
    remove(0);
    remove(1);
    let before = page_count(&db);
    for key in 0..4 {
        put_large(COUNT + 10 + key);
    }
    assert_eq!(page_count(&db), before, "{COUNT} pages in a row were free");
}

/// A file that is opened, changed by small commits, and closed, again and again. Each session once
/// made it longer by a commit log and by free lists that no later session used.
#[test]
fn a_file_that_is_opened_and_closed_again_and_again_stops_growing() {
    const KEYS: u64 = 5000;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("again.mapleaf");
    let mut rng = Rng::new(seed("sessions"));
    let mut pages = Vec::new();
    for session in 0..16 {
        let db = Db::open(&path).expect("opened");
        let put = |keys: &mut dyn Iterator<Item = u64>| {
            let mut txn = db.begin_write().expect("begins");
            txn.set_durability(Durability::Eventual);
            let mut table = txn.table(SMALL).expect("table");
            keys.for_each(|key| drop(table.insert(key, &[3; 150]).expect("insert")));
            txn.commit().expect("commit");
        };
        if session == 0 {
            put(&mut (0..KEYS));
        }
        (0..400).for_each(|_| put(&mut std::iter::once(rng.below(KEYS))));
        pages.push(page_count(&db));
    }
    assert!(pages[15] <= pages[7], "the file goes on growing: {pages:?}");
}
