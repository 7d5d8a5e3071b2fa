//! A URL shortener. Two tables, changed in one transaction, point at each other: codes to URLs, and
//! a secondary index from URLs to codes, so that a URL gets one code only.

use mapleaf::{Db, Table};

const URLS: Table<u64, &str> = Table::new("urls");
const CODES: Table<&str, u64> = Table::new("codes_by_url");

/// The code of a URL, which gets a new one if it has none.
fn shorten(db: &Db, url: &str) -> mapleaf::Result<u64> {
    // Most URLs are known, and reading waits for no writer.
    if let Some(code) = db.begin_read()?.table(CODES)?.get(url)? {
        return Ok(code);
    }
    db.write(|txn| {
        // Another thread may have been faster.
        if let Some(code) = txn.table(CODES)?.get(url)? {
            return Ok(code);
        }
        let code = txn.table(URLS)?.last()?.map_or(1, |(newest, _)| newest + 1);
        txn.table(URLS)?.insert(code, url)?;
        txn.table(CODES)?.insert(url, code)?;
        Ok(code)
    })
}

/// Forgets a code. Returns whether there was such a code.
fn forget(db: &Db, code: u64) -> mapleaf::Result<bool> {
    db.write(|txn| {
        let Some(url) = txn.table(URLS)?.remove(code)? else { return Ok(false) };
        txn.table(CODES)?.remove(&*url)?;
        Ok(true)
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let db = Db::open(dir.path().join("urls.mapleaf"))?;

    let book = shorten(&db, "https://doc.rust-lang.org/book/")?;
    let std = shorten(&db, "https://doc.rust-lang.org/std/")?;
    assert_eq!(shorten(&db, "https://doc.rust-lang.org/book/")?, book);
    assert_ne!(book, std);

    let txn = db.begin_read()?;
    println!("{book} leads to {:?}", txn.table(URLS)?.get(book)?);
    for entry in txn.table(CODES)?.prefix("https://doc.rust-lang.org/")? {
        let (url, code) = entry?;
        println!("{code} of this site: {url}");
    }

    assert!(forget(&db, book)? && !forget(&db, book)?);
    let txn = db.begin_read()?;
    assert_eq!((txn.table(URLS)?.len(), txn.table(CODES)?.len()), (1, 1));
    Ok(())
}

#[cfg(test)]
#[test]
fn the_example_works() {
    main().expect("the example works");
}
