//! Accounts and their payments: the program of `docs/migrating.md` that was ported from redb.

use std::error::Error;
use std::path::Path;

use mapleaf::{Db, MultiTable, Result, Table};

const ACCOUNTS: Table<&str, u64> = Table::new("accounts");
const PAYMENTS: MultiTable<&str, u64> = MultiTable::new("payments");

fn run(path: &Path) -> Result<()> {
    let db = Db::open(path)?;
    let txn = db.begin_write()?;
    {
        let mut accounts = txn.table(ACCOUNTS)?;
        let mut payments = txn.multi_table(PAYMENTS)?;
        for (name, amount) in [("ada", 70), ("bob", 20), ("ada", 30)] {
            accounts.entry(name)?.and_modify(|sum| sum + amount)?.or_insert(amount)?;
            payments.insert(name, amount)?;
        }
    }
    txn.commit()?;

    // A payment that is taken back.
    let mut txn = db.begin_write()?;
    let before = txn.savepoint()?;
    txn.table(ACCOUNTS)?.insert("bob", 0)?;
    txn.multi_table(PAYMENTS)?.remove_all("bob")?;
    txn.rollback_to(&before)?;
    txn.table(ACCOUNTS)?.retain(|_, sum| sum >= 50)?;
    txn.commit()?;

    let txn = db.begin_read()?;
    let accounts = txn.table(ACCOUNTS)?;
    assert_eq!(accounts.len(), 1);
    assert_eq!(accounts.get("ada")?, Some(100));
    let payments = txn.multi_table(PAYMENTS)?;
    let of_ada = payments.values("ada")?.collect::<Result<Vec<u64>>>()?;
    assert_eq!(of_ada, [30, 70]);
    assert_eq!(payments.count("bob")?, 1);
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    Ok(run(&folder.path().join("ledger.mapleaf"))?)
}

#[test]
fn the_example_works() {
    main().expect("it ends without an error");
}
