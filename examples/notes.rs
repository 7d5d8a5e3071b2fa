//! Notes with tags: the program of `docs/migrating.md` that was ported from LMDB (heed).

use std::error::Error;
use std::path::Path;

use mapleaf::{Db, Result, Table};

const NOTES: Table<u64, &str> = Table::new("notes");
/// Tag and id of a note. `starting_with` selects those of a tag.
const TAGS: Table<(&str, u64), ()> = Table::new("tags");

fn run(path: &Path) -> Result<()> {
    let db = Db::open(path)?;

    let mut txn = db.begin_write()?;
    for (id, text, tag) in [(1, "buy pears", "shop"), (2, "call ada", "phone"), (3, "buy plums", "shop")] {
        txn.table(NOTES)?.insert(id, text)?;
        txn.table(TAGS)?.insert((tag, id), ())?;
    }

    // An import that is taken back.
    let import = txn.begin_nested()?;
    import.table(NOTES)?.insert(4, "")?;
    import.table(TAGS)?.insert(("shop", 4), ())?;
    drop(import);

    // The notes of a tag.
    let (mut notes, mut tags) = (txn.table(NOTES)?, txn.table(TAGS)?);
    let ids = tags.starting_with(("shop",))?.map(|entry| Ok(entry?.0 .1)).collect::<Result<Vec<u64>>>()?;
    assert_eq!(ids, [1, 3]);

    // Notes about buying are deleted by a cursor, and their tags meanwhile.
    let mut entries = notes.cursor();
    while let Some((id, text)) = entries.next()? {
        if text.starts_with("buy") {
            tags.remove(("shop", id))?;
            entries.remove()?;
        }
    }
    drop((notes, tags));
    txn.commit()?;

    let txn = db.begin_read()?;
    assert_eq!((txn.table(NOTES)?.len(), txn.table(TAGS)?.len()), (1, 1));
    assert_eq!(txn.table(NOTES)?.get(2)?, Some("call ada"));
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
