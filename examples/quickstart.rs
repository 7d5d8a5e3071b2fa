//! The example of the README.

use mapleaf::{Db, Table};

const BORN: Table<&str, u64> = Table::new("born");

fn main() -> mapleaf::Result<()> {
    let db = Db::open("people.mapleaf")?;

    let txn = db.begin_write()?;
    txn.table(BORN)?.insert("ada", 1815)?;
    txn.table(BORN)?.insert("grace", 1906)?;
    txn.commit()?;

    let txn = db.begin_read()?;
    let born = txn.table(BORN)?;
    assert_eq!(born.get("ada")?, Some(1815));
    for item in born.range("a".."h")? {
        let (name, year) = item?;
        println!("{name} was born in {year}");
    }
    Ok(())
}
