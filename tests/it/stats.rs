//! Statistics: what pins pages, how full the commit log is, and where every page of a state is.

use mapleaf::{inspect, Db, Options, PageId, Pin, PinnedBy, Presence, Space, Stats, Table};

use crate::support::{bytes, seed, Rng, TestDb};

const DATA: Table<u64, &[u8]> = Table::new("data");

fn stats(db: &Db) -> Stats {
    db.stats().expect("stats")
}

/// Stores values of these lengths under some of the keys below `keys`, in one transaction.
fn update(db: &Db, rng: &mut Rng, count: u64, keys: u64, longest: u64) {
    let txn = db.begin_write().expect("begins");
    let mut data = txn.table(DATA).expect("table");
    for _ in 0..count {
        let value = bytes(rng.next(), rng.below(longest) as usize);
        data.insert(rng.below(keys), &value).expect("insert");
    }
    txn.commit().expect("commit");
}

/// The pins of readers, by label.
fn reader_pin<'s>(stats: &'s Stats, name: &str) -> Option<&'s Pin> {
    let is = |pin: &&Pin| matches!(&pin.by, PinnedBy::Reader { label, .. } if label == name);
    stats.pins.iter().find(is)
}

#[test]
fn the_space_of_a_state_has_every_page_once() {
    let mut rng = Rng::new(seed("space"));
    for page_size in [4096, 8192, 32_768] {
        for db in TestDb::both(&Options::new().page_size(page_size)) {
            let reader = db.begin_read().expect("begins");
            for _ in 0..30 {
                update(&db, &mut rng, 60, 3000, 3 * u64::from(page_size));
                update(&db, &mut rng, 60, 3000, 60);
            }
            let txn = db.begin_write().expect("begins");
            txn.bytes_table("empty").expect("table");
            txn.commit().expect("commit");
            let space = db.space().expect("space");
            let report = db.check().expect("check");
            assert_eq!(pages_in_use(&space) + space.free_pages + space.pending_pages, space.page_count);
            assert_eq!((pages_in_use(&space), space.page_count), (report.reachable_pages, report.pages_checked));
            let [data, empty] = &space.tables[..] else { panic!("two tables: {space:?}") };
            assert_eq!((data.name.as_str(), data.entries), ("data", report.entries));
            assert!(data.branch_pages > 0 && data.leaf_pages > 0 && data.overflow_pages > 0, "{data:?}");
            assert_eq!((empty.name.as_str(), empty.pages(), empty.depth, empty.used_bytes()), ("empty", 0, 0, 0));
            assert_eq!(stats(&db).pending_pages, space.pending_pages);
            drop(reader);
        }
    }
}

fn pages_in_use(space: &Space) -> u64 {
    let trees = space.tables.iter().chain([&space.catalog, &space.free_space]);
    trees.map(mapleaf::TreeSpace::pages).sum::<u64>() + space.meta_pages + space.free_list_pages + space.log_pages
}

#[test]
fn fill_is_the_part_of_a_tables_pages_that_is_in_use() {
    let db = TestDb::memory(Options::new());
    db.write(|txn| txn.table(DATA)?.insert(1, &[7; 10_000])).expect("written");
    let space = db.space().expect("space");
    let data = &space.tables[0];
    assert_eq!((data.leaf_pages, data.overflow_pages, data.depth), (1, 3, 1));
    // A page header, then a head, a slot, the header of the entry, the key, a pointer; a page
    // header and the value.
    assert_eq!((data.leaf_bytes, data.overflow_bytes), (32 + 4 + 2 + 4 + 8 + 18, 32 + 10_000));
    assert!((data.fill(space.page_size) - 10_100.0 / 16_384.0).abs() < 1e-9, "{}", data.fill(space.page_size));

    // A load leaves full pages.
    let value = bytes(1, 100);
    db.write(|txn| txn.table(DATA)?.load((2..20_000).map(|n| (n, &value[..])))).expect("loaded");
    let space = db.space().expect("space");
    let leaves = &space.tables[0];
    let fill = leaves.leaf_bytes as f64 / (leaves.leaf_pages * 4096) as f64;
    assert!((0.96..1.0).contains(&fill), "{fill}: {leaves:?}");
}

#[test]
fn a_damaged_page_ends_the_walk_with_an_error_that_names_page_and_table() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("test.mapleaf");
    let db = Db::open(&path).expect("created");
    update(&db, &mut Rng::new(1), 2000, 2000, 100);
    let is_leaf_of_data =
        |&id: &PageId| inspect::page(&db, id).is_ok_and(|page| page.kind == "leaf" && page.tree_id >= 16);
    let leaf = (2..stats(&db).page_count).map(PageId).find(is_leaf_of_data).expect("a leaf");
    drop(db);
    let mut file = std::fs::read(&path).expect("the file");
    file[leaf.0 as usize * 4096 + 2000] ^= 1;
    std::fs::write(&path, &file).expect("written");
    let error = Db::open(&path).expect("opens").space().expect_err("damage").to_string();
    assert!(error.contains(&format!("page {leaf}")) && error.contains("'data'"), "{error}");
}

#[test]
fn a_pin_names_its_reader_and_the_pages_that_come_back_when_it_ends() {
    let mut rng = Rng::new(seed("pins"));
    for db in TestDb::both(&Options::new()) {
        update(&db, &mut rng, 3000, 3000, 200);
        let mut readers = Vec::new();
        for n in 0..4 {
            // Few pages change, so that several readers share many.
            update(&db, &mut rng, 20, 3000, 200);
            let txn = db.begin_read().expect("begins");
            txn.set_label(&format!("reader {n}"));
            readers.push((format!("reader {n}"), txn));
        }
        update(&db, &mut rng, 3000, 3000, 200);
        db.checkpoint().expect("checkpoint");
        assert!(stats(&db).pins.iter().all(|pin| pin.pages > pin.only_pages), "{:?}", stats(&db).pins);
        while !readers.is_empty() {
            let before = stats(&db);
            assert_eq!(before.readers, readers.len() as u64);
            let (name, txn) = readers.swap_remove(rng.below(readers.len() as u64) as usize);
            let pin = reader_pin(&before, &name).expect("a pin").clone();
            let PinnedBy::Reader { process, .. } = pin.by else { panic!("{pin:?}") };
            assert_eq!((process, pin.txn), (std::process::id(), txn.txn_id()));
            assert!(pin.only_pages > 0 && pin.pages >= pin.only_pages, "{pin:?}");
            let pinned = db.readers().expect("readers").into_iter().find(|reader| reader.label == name);
            assert_eq!(pinned.expect("listed").pinned_bytes, pin.pages * 4096);
            drop(txn);
            let after = stats(&db);
            assert_eq!(after.unpinned_pages, before.unpinned_pages + pin.only_pages, "{pin:?}");
            assert_eq!((after.pending_pages, reader_pin(&after, &name)), (before.pending_pages, None));
        }
    }
}

#[test]
fn two_readers_of_one_state_both_pin_its_pages_and_neither_has_them_only() {
    let mut rng = Rng::new(seed("two readers"));
    let db = TestDb::memory(Options::new());
    update(&db, &mut rng, 300, 3000, 200);
    let [first, second] = [db.begin_read().expect("begins"), db.begin_read().expect("begins")];
    second.set_label("second");
    update(&db, &mut rng, 300, 3000, 200);
    let both = stats(&db);
    let found: Vec<(u64, u64)> = ["", "second"]
        .map(|name| reader_pin(&both, name).map(|pin| (pin.pages, pin.only_pages)).expect("a pin"))
        .to_vec();
    assert!(found[0].0 > 0 && found == [(found[0].0, 0); 2], "{found:?}");
    drop(second);
    assert_eq!(reader_pin(&stats(&db), "").map(|pin| pin.only_pages), Some(found[0].0));
    drop(first);
}

#[test]
fn the_last_checkpoint_pins_pages_until_the_next_one() {
    let mut rng = Rng::new(seed("checkpoint pins"));
    let db = TestDb::file(Options::new());
    update(&db, &mut rng, 3000, 3000, 200);
    db.checkpoint().expect("checkpoint");
    for _ in 0..12 {
        update(&db, &mut rng, 3, 3000, 200);
    }
    let before = stats(&db);
    let by_checkpoint = |stats: &Stats| {
        let pins = stats.pins.iter().filter(|pin| pin.by == PinnedBy::LastCheckpoint);
        pins.map(|pin| pin.pages).sum::<u64>()
    };
    assert!(by_checkpoint(&before) > 0, "{:?}", before.pins);
    assert!((1..=before.log_pages * 4096).contains(&before.log_used_bytes), "{}", before.log_used_bytes);
    db.checkpoint().expect("checkpoint");
    let after = stats(&db);
    assert_eq!((by_checkpoint(&after), after.log_used_bytes), (0, 0));
    assert!(after.log_pages > 0 && after.unpinned_pages > before.unpinned_pages);
}

#[test]
fn stats_say_how_the_process_has_the_database() {
    let shared = TestDb::file(Options::new());
    let member = stats(&shared);
    assert_eq!((member.presence, member.processes), (Presence::Member, 1));
    assert!(member.session.is_some_and(|session| session > 0));
    let alone = [TestDb::file(Options::new().exclusive(true)), TestDb::memory(Options::new())];
    for found in alone.iter().map(|db| stats(db)) {
        assert_eq!((found.presence, found.session, found.members.len()), (Presence::Exclusive, None, 1));
        assert_eq!((found.members[0].process, found.members[0].writes), (std::process::id(), true));
    }
}

#[test]
fn the_page_cache_has_the_pages_that_were_written() {
    for db in TestDb::both(&Options::new()) {
        update(&db, &mut Rng::new(1), 2000, 2000, 1000);
        let (found, stats) = (db.page_cache().expect("page cache"), stats(&db));
        assert!(found.resident_bytes >= stats.used_bytes / 2, "{found:?} of {}", stats.used_bytes);
        assert!(
            found.resident_bytes <= stats.file_bytes.next_multiple_of(1 << 16),
            "{found:?} of {}",
            stats.file_bytes
        );
        assert!(found.dirty_bytes.is_none_or(|dirty| dirty <= found.resident_bytes), "{found:?}");
    }
}
