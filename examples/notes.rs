//! Notes with tags: the program of `docs/migrating.md` that was ported from LMDB (heed).

use std::error::Error;
use std::path::Path;

use mapleaf::{Db, MultiTable, Result, Table};

const NOTES: Table<u64, &str> = Table::new("notes");
const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");

fn run(path: &Path) -> Result<()> {
    let db = Db::open(path)?;

    let mut txn = db.begin_write()?;
    for (id, text, tag) in [(1, "buy pears", "shop"), (2, "call ada", "phone"), (3, "buy plums", "shop")] {
        txn.table(NOTES)?.insert(id, text)?;
        txn.multi_table(TAGS)?.insert(tag, id)?;
    }

    // An import that is taken back.
    let import = txn.begin_nested()?;
    import.table(NOTES)?.insert(4, "")?;
    import.multi_table(TAGS)?.insert("shop", 4)?;
    drop(import);

    // The notes of a tag.
    let (mut notes, mut tags) = (txn.table(NOTES)?, txn.multi_table(TAGS)?);
    let ids = tags.values("shop")?.collect::<Result<Vec<u64>>>()?;
    assert_eq!(ids, [1, 3]);

    // Notes about buying are deleted by a cursor, and their tags by another one.
    let mut gone = Vec::new();
    let mut entries = notes.cursor();
    while let Some((id, text)) = entries.next()? {
        if text.starts_with("buy") {
            gone.push(id);
            entries.remove()?;
        }
    }
    let mut pairs = tags.cursor();
    while let Some((_, id)) = pairs.next()? {
        if gone.contains(&id) {
            pairs.remove()?;
        }
    }
    assert!(tags.remove("phone", 2)?);
    tags.insert("call", 2)?;
    drop((notes, tags));
    txn.commit()?;

    let txn = db.begin_read()?;
    assert_eq!((txn.table(NOTES)?.len(), txn.multi_table(TAGS)?.len()), (1, 1));
    assert_eq!(txn.table(NOTES)?.get(2)?, Some("call ada"));
    assert_eq!(txn.multi_table(TAGS)?.first()?, Some(("call", 2)));
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    Ok(run(&folder.path().join("notes.mapleaf"))?)
}

#[test]
fn the_example_works() {
    main().expect("it ends without an error");
}
