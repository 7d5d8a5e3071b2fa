//! Page ids beyond 2^32 and offsets beyond 16 TiB in all parts of the database, in a sparse file on
//! tmpfs.

use mapleaf::testing::raise_page_count;
use mapleaf::{inspect, Db, Options, PageId, Table};

use crate::support::{bytes, Rng};

const DATA: Table<u64, &[u8]> = Table::new("data");

fn value(key: u64, version: u64) -> Vec<u8> {
    let len = if key.is_multiple_of(50) { 30_000 } else { 100 };
    bytes(key ^ version << 40, len)
}

fn put(db: &Db, keys: impl Iterator<Item = u64>, version: u64) {
    let txn = db.begin_write().expect("begins");
    let mut data = txn.table(DATA).expect("table");
    for key in keys {
        data.insert(key, &value(key, version)).expect("insert");
    }
    txn.commit().expect("commit");
}

/// `check` would report the lower pages as lost. So the test compares every entry instead, also
/// after reopening, when no page counts as verified.
#[test]
fn trees_extents_and_free_space_work_beyond_two_to_the_32_pages() {
    for page_size in [4096u32, 8192] {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory on tmpfs");
        let path = dir.path().join("far.mapleaf");
        let db = Options::new().page_size(page_size).open(&path).expect("made");
        put(&db, 0..500, 0);
        drop(db);
        let far = (1u64 << 32) + 5;
        raise_page_count(&path, far, 20_000).expect("raised");

        let mut db = Db::open(&path).expect("opens");
        let old = db.begin_read().expect("begins").table(DATA).expect("table");
        let mut versions = vec![0; 3000];
        for version in 1..30 {
            let mut rng = Rng::new(version);
            let keys: Vec<u64> = (0..200).map(|_| rng.below(3000)).collect();
            keys.iter().for_each(|&key| versions[key as usize] = version);
            put(&db, keys.into_iter(), version);
        }
        let stats = db.stats().expect("stats");
        assert!(stats.page_count > far + 300 && stats.free_pages + stats.pending_pages > 50, "{stats:?}");
        assert!((0..500).all(|key| old.get(key).expect("get") == Some(&value(key, 0)[..])), "the old snapshot");
        drop(old);
        for reopened in [false, true] {
            if reopened {
                drop(db);
                db = Db::open(&path).expect("opens again");
            }
            let data = db.begin_read().expect("begins").table(DATA).expect("table");
            for (key, &version) in (0u64..).zip(&versions) {
                let expected = (version > 0 || key < 500).then(|| value(key, version));
                assert!(data.get(key).expect("get") == expected.as_deref(), "key {key}");
            }
            assert_eq!(data.iter().filter(Result::is_ok).count() as u64, data.len());
        }
        let metas = inspect::metas(&db).expect("metas");
        let root = metas.iter().max_by_key(|meta| meta.txn).expect("a meta page").catalog_root;
        assert!(root > 1 << 32, "the catalog's root is page {root}");
        assert_eq!(inspect::page(&db, PageId(root)).expect("a page").id, PageId(root));
    }
}
