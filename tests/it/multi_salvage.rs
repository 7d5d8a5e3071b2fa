//! Salvage of multimap tables whose records are lost: all pages of the catalog are destroyed, and
//! the tables come back under other names, with all pairs and the shape that they had.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mapleaf::testing::set_log_shape;
use mapleaf::{Db, Options};

use crate::multimap::{key, make, value, Model, NAMES};
use crate::support::assert_clean;
use crate::workload::fast_dir;

/// Overwrites the pages that a test chooses by number and header.
fn destroy(path: &Path, page_size: usize, hits: impl Fn(usize, &[u8]) -> bool) -> usize {
    let mut bytes = std::fs::read(path).expect("the file");
    let pages: Vec<usize> =
        (0..bytes.len() / page_size).filter(|&page| hits(page, &bytes[page * page_size..][..32])).collect();
    for page in &pages {
        bytes[page * page_size..][..page_size].fill(0xee);
    }
    std::fs::write(path, bytes).expect("written");
    pages.len()
}

fn is_of_catalog(page: usize, header: &[u8]) -> bool {
    page >= 2 && header[28..32] == [0; 4] && matches!(header[4], 1 | 2)
}

/// Makes a file whose tables of three shapes have sets, and value trees if there are many values.
fn filled(path: &Path, page_size: usize, values: u64) -> [Model; 3] {
    let mut models: [Model; 3] = Default::default();
    set_log_shape(Some((u64::MAX, 0)));
    let db = Options::new().page_size(page_size as u32).open(path).expect("made");
    make(&db);
    // Two transactions, so that older pages of the same tables lie in the file.
    for round in 0..2 {
        let txn = db.begin_write().expect("a transaction");
        for (table, name) in NAMES.iter().enumerate() {
            let mut open = txn.multi_bytes_table(name).expect("a table");
            for number in (0..values).filter(|number| number % 2 == round) {
                let at = key(if number % 4 == 0 { 7 } else { number % 60 });
                let value = value(table, number, page_size);
                open.insert(&at, &value).expect("inserted");
                models[table].entry(at).or_default().insert(value);
            }
        }
        txn.commit().expect("committed");
    }
    drop(db);
    set_log_shape(None);
    models
}

/// The tables of a salvaged file, by the size of their values.
fn salvaged(path: &Path, out: &Path) -> BTreeMap<Option<usize>, Model> {
    let report = Db::salvage(path, out).expect("salvaged");
    assert!(report.is_loss() && report.tables.iter().all(|table| table.name.starts_with("lost-")), "{report:?}");
    let db = Db::open_existing(out).expect("opens");
    assert_clean(&db);
    let txn = db.begin_read().expect("a transaction");
    let mut found = BTreeMap::new();
    for counts in &report.tables {
        let info = txn.table_info(&counts.name).expect("read").expect("the table");
        assert!(info.is_multimap, "{counts:?}");
        let table = txn.multi_bytes_table(&counts.name).expect("a multimap");
        let mut model = Model::new();
        for pair in table.iter() {
            let (key, value) = pair.expect("a pair");
            model.entry(key.to_vec()).or_default().insert(value.to_vec());
        }
        assert_eq!(counts.maybe_stale, model.values().map(BTreeSet::len).sum::<usize>() as u64);
        assert!(found.insert(info.value_bytes, model).is_none(), "two tables of this size");
    }
    found
}

#[test]
fn multimaps_come_back_without_the_catalog() {
    for (page_size, values) in [(4096, 6000), (4096, 200), (4096, 3), (32768, 20_000)] {
        let dir = fast_dir();
        let (path, out) = (dir.path().join("made.mapleaf"), dir.path().join("out.mapleaf"));
        let [words, numbers, parts] = filled(&path, page_size, values);
        assert!(destroy(&path, page_size, is_of_catalog) > 0);
        // Without a meta page too, so that no older catalog is found by a pointer.
        destroy(&path, page_size, |page, _| page < 2);
        let found = salvaged(&path, &out);
        let expected = BTreeMap::from([(None, words), (Some(8), numbers), (Some(24), parts)]);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{values} values");
        assert!(found == expected, "the pairs, {page_size} {values}");
    }
}

/// Leaves of value trees that are lost with the catalog take their values along, and no others.
#[test]
fn without_the_catalog_and_some_value_leaves_the_other_values_come_back() {
    let dir = fast_dir();
    let (path, out) = (dir.path().join("made.mapleaf"), dir.path().join("out.mapleaf"));
    let [words, numbers, parts] = filled(&path, 4096, 6000);
    destroy(&path, 4096, |page, header| page < 2 || is_of_catalog(page, header));
    let is_value_leaf = |header: &[u8]| header[31] & 0x80 != 0 && header[5] == 0 && matches!(header[4], 1..=9);
    let gone = destroy(&path, 4096, |page, header| page >= 2 && page % 3 == 0 && is_value_leaf(header));
    assert!(gone > 5, "{gone} leaves");
    let found = salvaged(&path, &out);
    let mut lost = 0;
    for (bytes, expected) in [(None, words), (Some(8), numbers), (Some(24), parts)] {
        let model = &found[&bytes];
        assert!(model.iter().all(|(key, values)| values.is_subset(&expected[key])), "{bytes:?}");
        let count = |model: &Model| model.values().map(BTreeSet::len).sum::<usize>();
        assert!(count(model) * 3 > count(&expected), "{bytes:?}: {} of {}", count(model), count(&expected));
        lost += count(&expected) - count(model);
    }
    assert!(lost > 100, "{lost}");
}
