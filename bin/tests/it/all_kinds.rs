//! `dump` and `load` of a file that holds tables of all kinds: single values, multimaps of values
//! of any size and of fixed sizes, with short and long keys.

use mapleaf::{Db, Options, ReadTxn, Result};

use crate::support::{kvctl, Folder};

type Pair = (Vec<u8>, Vec<u8>);

/// Each table with its kind, types and contents.
fn contents(txn: &ReadTxn) -> Result<Vec<(String, String, Vec<Pair>)>> {
    let own = |pair: Result<(&[u8], &[u8])>| pair.map(|(key, value)| (key.to_vec(), value.to_vec()));
    let all = txn.tables()?.into_iter().map(|info| {
        let pairs: Result<Vec<Pair>> = match info.is_multimap {
            true => txn.multi_bytes_table(&info.name)?.iter().map(own).collect(),
            false => txn.bytes_table(&info.name)?.iter().map(own).collect(),
        };
        let kind = format!("{:?} {} {}", info.value_bytes, info.key_codec, info.value_codec);
        Ok((info.name, format!("{} {kind}", info.is_multimap), pairs?))
    });
    all.collect()
}

/// Keys of no byte, a few, all that a page keeps, one more, and the most.
fn keys(page_size: usize) -> Vec<Vec<u8>> {
    let limit = page_size / 4 - 24;
    let mut keys = vec![Vec::new(), b"key\t\n\0\xff".to_vec()];
    for len in [limit, limit + 1, 3 * page_size, 65_536] {
        for last in [0u8, b'~', 0xff] {
            let mut key = vec![b'k'; len.min(65_536)];
            *key.last_mut().expect("a byte") = last;
            keys.push(key);
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

fn fill(db: &Db, page_size: usize) {
    let limit = page_size / 4 - 24;
    db.write(|txn| {
        let mut single = txn.create_table("single", "bytes", "bytes")?;
        for (number, key) in keys(page_size).iter().enumerate() {
            single.insert(key, &vec![number as u8; number * 700])?;
        }
        drop(single);
        for (name, codec, size) in
            [("any", "bytes", None), ("eights", "u64", Some(8)), ("twenties", "[u8;20]", Some(20))]
        {
            let mut multi = txn.create_multi_table(name, "bytes", codec, size)?;
            for (number, key) in keys(page_size).iter().enumerate() {
                // Some keys have one value, some a set, some a tree of several pages.
                let count = [1, 20, 4000][number % 3];
                for value in 0..count {
                    let mut bytes = u64::to_be_bytes(value).to_vec();
                    match size {
                        Some(size) => bytes.resize(size, value as u8),
                        None if value == 0 => bytes.clear(),
                        None if value == 7 => bytes.resize(limit, b'v'),
                        None => bytes.resize(8 + value as usize % 40, 0),
                    }
                    multi.insert(key, &bytes)?;
                }
            }
        }
        Ok(())
    })
    .expect("filled");
}

#[test]
fn a_dump_of_tables_of_all_kinds_loads_to_the_same() {
    for page_size in [4096, 32768] {
        let folder = Folder::new();
        let path = folder.path("made.mapleaf");
        let db = Options::new().page_size(page_size).open(&path).expect("made");
        fill(&db, page_size as usize);
        let expected = contents(&db.begin_read().expect("begins")).expect("read");
        assert_eq!(expected.len(), 4);
        drop(db);
        for format in ["tsv", "jsonl"] {
            let (dump, copy) = (folder.path(&format!("dump.{format}")), folder.path(&format!("{format}.mapleaf")));
            let dumped = kvctl(&["dump", &path, "--all", "-o", &dump]);
            assert_eq!(dumped.code, 0, "{format}: {}", dumped.err);
            // Values of multimaps may be as long as a page allows: the copy has the same pages.
            drop(Options::new().page_size(page_size).open(&copy).expect("made"));
            let loaded = kvctl(&["load", &copy, &dump]);
            assert_eq!(loaded.code, 0, "{format}: {}", loaded.err);
            let copied = Db::open_existing(&copy).expect("opens");
            let found = contents(&copied.begin_read().expect("begins")).expect("read");
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!((&found.0, &found.1), (&expected.0, &expected.1), "{format}");
                assert!(found.2 == expected.2, "{format}: table {} of pages of {page_size} bytes", found.0);
            }
            assert_eq!(found.len(), expected.len(), "{format}");
            assert!(copied.check().expect("a check").is_clean(), "{format}");
        }
    }
}
