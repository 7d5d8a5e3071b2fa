//! Notes with tags in LMDB, through heed: duplicate values, nested transactions, a cursor that deletes.

use heed::byteorder::BigEndian;
use heed::types::{Str, U64};
use heed::{CommitOrAbort, DatabaseFlags, EnvOpenOptions};
use std::error::Error;
use std::path::Path;

fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    // SAFETY: no other program changes the files, and this one opens them once.
    let env = unsafe { EnvOpenOptions::new().map_size(64 << 20).max_dbs(2).open(folder)? };
    let (notes, tags) = env
        .create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let notes = opener.database_options().types::<U64<BigEndian>, Str>().name("notes").create(txn)?;
            let mut options = opener.database_options().types::<Str, U64<BigEndian>>();
            let tags = options.flags(DatabaseFlags::DUP_SORT).name("tags").create(txn)?;
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit((notes, tags)))
        })?
        .unwrap_commit();

    let mut txn = env.write_txn()?;
    for (id, text, tag) in [(1, "buy pears", "shop"), (2, "call ada", "phone"), (3, "buy plums", "shop")] {
        notes.put(&mut txn, &id, text)?;
        tags.put(&mut txn, tag, &id)?;
    }

    // An import that is taken back.
    let mut import = env.nested_write_txn(&mut txn)?;
    notes.put(&mut import, &4, "")?;
    tags.put(&mut import, "shop", &4)?;
    import.abort();

    // The notes of a tag.
    let of_shop = tags.get_duplicates(&txn, "shop")?.into_iter().flatten();
    let ids = of_shop.map(|entry| Ok(entry?.1)).collect::<heed::Result<Vec<u64>>>()?;
    assert_eq!(ids, [1, 3]);

    // Notes about buying are deleted by a cursor, and their tags by another one.
    let mut gone = Vec::new();
    let mut entries = notes.iter_mut(&mut txn)?;
    while let Some((id, text)) = entries.next().transpose()? {
        if text.starts_with("buy") {
            gone.push(id);
            // SAFETY: no reference into the database is kept.
            unsafe { entries.del_current()? };
        }
    }
    drop(entries);
    let mut pairs = tags.iter_mut(&mut txn)?;
    while let Some((_, id)) = pairs.next().transpose()? {
        if gone.contains(&id) {
            // SAFETY: as above.
            unsafe { pairs.del_current()? };
        }
    }
    drop(pairs);
    assert!(tags.delete_one_duplicate(&mut txn, "phone", &2)?);
    tags.put(&mut txn, "call", &2)?;
    txn.commit()?;

    let txn = env.read_txn()?;
    assert_eq!((notes.len(&txn)?, tags.len(&txn)?), (1, 1));
    assert_eq!(notes.get(&txn, &2)?, Some("call ada"));
    assert_eq!(tags.first(&txn)?, Some(("call", 2)));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("notes-heed-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    run(&folder)?;
    Ok(std::fs::remove_dir_all(&folder)?)
}

#[test]
fn the_example_works() {
    main().expect("it ends without an error");
}
