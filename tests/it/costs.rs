//! Costs that must not grow with the number of tables, readers or extents, counted in steps and not
//! in time.
//!
//! A step is one visit of an item that a transaction or the database holds outside of trees
//! (`testing::steps`).

use mapleaf::testing::steps;
use mapleaf::{Db, Options, Table};

use crate::support::TestDb;

const FEW: u64 = 1000;
const MANY: u64 = 20_000;

fn table(number: u64) -> Table<u64, u64> {
    Table::named(format!("table {number}"))
}

/// Steps of `run`, for each of `count`.
fn steps_each(count: u64, run: impl FnOnce()) -> f64 {
    let before = steps();
    run();
    (steps() - before) as f64 / count as f64
}

/// Steps per table for several kinds of work, in a database with this many tables.
fn work(db: &Db, count: u64) -> Vec<(&'static str, f64)> {
    let written = |name, write: &dyn Fn(&mut mapleaf::WriteTxn)| {
        let mut txn = db.begin_write().expect("begins");
        let written = steps_each(count, || write(&mut txn));
        (name, written + steps_each(count, || txn.commit().expect("commits")))
    };
    let all = || (0..count).map(table);
    let put = |txn: &mut mapleaf::WriteTxn| {
        all().for_each(|table| assert!(txn.table(table).expect("table").insert(1, 1).is_ok()));
    };
    let mut found = vec![
        written("open new tables", &|txn| all().for_each(|table| assert!(txn.table(table).is_ok()))),
        written("put into each", &put),
        written("put into each again, open by then", &|txn| (0..2).for_each(|_| put(txn))),
        written("list them", &|txn| {
            put(txn);
            assert_eq!(txn.tables().expect("tables").len() as u64, count);
        }),
        written("rename each", &|txn| {
            all().for_each(|table| txn.rename_table(table.name(), &format!("new {}", table.name())).expect("renamed"));
        }),
        written("list new ones", &|txn| {
            put(txn);
            assert_eq!(txn.tables().expect("tables").len() as u64, 2 * count);
        }),
        written("drop each, open", &|txn| {
            put(txn);
            all().for_each(|table| assert!(txn.drop_table(table.name()).expect("dropped")));
        }),
    ];
    let txn = db.begin_read().expect("begins");
    let held = steps_each(count, || {
        all().for_each(|table| {
            let name = format!("new {}", table.name());
            assert_eq!(txn.table(Table::<u64, u64>::named(name)).expect("table").get(1).expect("get"), Some(1));
        });
    });
    found.push(("read each", held));
    found
}

#[test]
fn the_steps_of_a_table_do_not_grow_with_the_number_of_tables() {
    let of = |count| {
        let db = TestDb::file(Options::new());
        work(&db, count)
    };
    for ((what, few), (_, many)) in of(FEW).into_iter().zip(of(MANY)) {
        println!("{what}: {few:.2} steps a table of {FEW}, {many:.2} of {MANY}");
        assert!(many <= 1.5 * few + 1.0, "{what}: {few:.2} steps a table of {FEW}, {many:.2} of {MANY}");
    }
}

#[test]
fn the_steps_of_a_transaction_do_not_grow_with_the_readers_beside_it() {
    let of = |count: u64| {
        let db = TestDb::memory(Options::new());
        let mut held = Vec::new();
        let begun = steps_each(count, || (0..count).for_each(|_| held.push(db.begin_read().expect("begins"))));
        let refreshed = steps_each(count, || held.iter_mut().for_each(|txn| *txn = db.begin_read().expect("begins")));
        [("begin", begun), ("begin anew", refreshed)]
    };
    for ((what, few), (_, many)) in of(FEW).into_iter().zip(of(MANY)) {
        println!("{what}: {few:.2} steps a reader of {FEW}, {many:.2} of {MANY}");
        assert!(many <= 1.5 * few + 1.0, "{what}: {few:.2} steps a reader of {FEW}, {many:.2} of {MANY}");
    }
}
