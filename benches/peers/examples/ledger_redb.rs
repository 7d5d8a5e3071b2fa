//! Accounts and their payments in redb: a multimap table, savepoints, several tables at once.

use redb::{
    Database, MultimapTableDefinition, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};
use std::error::Error;
use std::path::Path;

const ACCOUNTS: TableDefinition<&str, u64> = TableDefinition::new("accounts");
const PAYMENTS: MultimapTableDefinition<&str, u64> = MultimapTableDefinition::new("payments");

fn run(path: &Path) -> Result<(), Box<dyn Error>> {
    let db = Database::create(path)?;
    let txn = db.begin_write()?;
    {
        let mut accounts = txn.open_table(ACCOUNTS)?;
        let mut payments = txn.open_multimap_table(PAYMENTS)?;
        for (name, amount) in [("ada", 70), ("bob", 20), ("ada", 30)] {
            let before = accounts.get(name)?.map_or(0, |sum| sum.value());
            accounts.insert(name, before + amount)?;
            payments.insert(name, amount)?;
        }
    }
    txn.commit()?;

    // A payment that is taken back.
    let mut txn = db.begin_write()?;
    let before = txn.ephemeral_savepoint()?;
    txn.open_table(ACCOUNTS)?.insert("bob", 0)?;
    txn.open_multimap_table(PAYMENTS)?.remove_all("bob")?;
    txn.restore_savepoint(&before)?;
    txn.open_table(ACCOUNTS)?.retain(|_, sum| sum >= 50)?;
    txn.commit()?;

    let txn = db.begin_read()?;
    let accounts = txn.open_table(ACCOUNTS)?;
    assert_eq!(accounts.len()?, 1);
    assert_eq!(accounts.get("ada")?.map(|sum| sum.value()), Some(100));
    let payments = txn.open_multimap_table(PAYMENTS)?;
    let of_ada =
        payments.get("ada")?.map(|amount| Ok(amount?.value())).collect::<Result<Vec<u64>, redb::StorageError>>()?;
    assert_eq!(of_ada, [30, 70]);
    assert_eq!(payments.get("bob")?.count(), 1);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("ledger-{}.redb", std::process::id()));
    run(&path)?;
    Ok(std::fs::remove_file(&path)?)
}

#[test]
fn the_example_works() {
    main().expect("it ends without an error");
}
