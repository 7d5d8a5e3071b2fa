//! Words of documents, and an index of them: a multimap has several values per key, in order.
//!
//! Run with `cargo run --example multimap_index`. `INDEX` has the numbers of the documents in which
//! a word occurs. Numbers have one size, so they lie packed beside the word. Both tables change in
//! one transaction, so the index is never out of date.

use mapleaf::{Db, MultiTable, ReadMultiTable, Result, Table, WriteTxn};

const DOCUMENTS: Table<u64, &str> = Table::new("documents");
const INDEX: MultiTable<&str, u64> = MultiTable::new("index");

/// Stores a document in place of an older one with its number, and keeps the index up to date.
fn store(txn: &WriteTxn, number: u64, text: &str) -> Result<()> {
    remove(txn, number)?;
    txn.table(DOCUMENTS)?.insert(number, text)?;
    let mut index = txn.multi_table(INDEX)?;
    for word in text.split_whitespace() {
        index.insert(word, number)?;
    }
    Ok(())
}

fn remove(txn: &WriteTxn, number: u64) -> Result<()> {
    let Some(text) = txn.table(DOCUMENTS)?.remove(number)? else { return Ok(()) };
    let mut index = txn.multi_table(INDEX)?;
    for word in text.split_whitespace() {
        // A word that occurs twice is in the index once.
        index.remove(word, number)?;
    }
    Ok(())
}

/// The documents that have all of these words: begins with the rarest one, which a count finds
/// without reading values.
fn search(index: &ReadMultiTable<&'static str, u64>, words: &[&str]) -> Result<Vec<u64>> {
    let mut counted = words.iter().map(|&word| Ok((index.count(word)?, word))).collect::<Result<Vec<_>>>()?;
    counted.sort_unstable();
    let Some(((_, rarest), others)) = counted.split_first() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for number in index.values(rarest)? {
        let number = number?;
        if others
            .iter()
            .map(|(_, word)| index.contains(word, number))
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|&has| has)
        {
            found.push(number);
        }
    }
    Ok(found)
}

fn main() -> Result<()> {
    let db = Db::in_memory()?;
    db.write(|txn| {
        store(txn, 1, "the maple has red leaves")?;
        store(txn, 2, "the oak has brown leaves")?;
        store(txn, 3, "red apples")?;
        store(txn, 4, "red red leaves")
    })?;
    db.write(|txn| store(txn, 2, "the oak is bare"))?;

    let index = db.begin_read()?.multi_table(INDEX)?;
    assert_eq!(search(&index, &["red", "leaves"])?, [1, 4]);
    assert!(search(&index, &["oak", "leaves"])?.is_empty());
    assert_eq!(index.count("red")?, 3);
    assert_eq!(index.values_range("red", 2..)?.collect::<Result<Vec<_>>>()?, [3, 4]);
    for pair in index.prefix("o")? {
        let (word, number) = pair?;
        println!("{word}: document {number}");
    }
    println!("{} words, {} pairs", index.key_count(), index.len());
    Ok(())
}

#[cfg(test)]
#[test]
fn the_example_works() {
    main().expect("the example works");
}
