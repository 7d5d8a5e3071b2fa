//! All ways to read, compared with a map and each other: keys that are hard to tell apart, trees of
//! every shape, and lookups through a flat index.

use std::collections::BTreeMap;
use std::ops::Bound;

use mapleaf::{Db, ErrorKind, Options, ReadTable};

use crate::support::{bytes, long, seed, Rng, TestDb, BYTES};
use crate::workload::fast_dir;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Rows = ReadTable<&'static [u8], &'static [u8]>;

/// Lookups after which a table surely has a flat index.
const LOOKUPS: usize = 5000;

/// The lowest and highest bytes, and some in between.
fn extreme(rng: &mut Rng) -> u8 {
    [0, 0, 1, 0x7f, 0x80, 0xfe, 0xff, 0xff][rng.below(8) as usize]
}

/// A key of a family whose keys are hard to tell apart.
fn key(family: u64, limit: usize, rng: &mut Rng) -> Vec<u8> {
    let extremes = |rng: &mut Rng, len: u64| (0..len).map(|_| extreme(rng)).collect::<Vec<u8>>();
    match family {
        // Up to the width of a word, of only zeros and ones.
        0 => {
            let len = rng.below(9);
            (0..len).map(|_| [0, 0xff][rng.below(2) as usize]).collect()
        }
        // One word in common, and tails of zeros.
        1 => [b"eight888".as_slice(), &vec![0; rng.below(20) as usize], &extremes(rng, 3)].concat(),
        // A long part in common, up to the limit.
        2 => {
            let tail = extremes(rng, 4);
            [vec![b'p'; limit - 4 - rng.below(3) as usize], tail].concat()
        }
        // Zeros at the end, of any number.
        3 => {
            let len = rng.below(6);
            [extremes(rng, len), vec![0; rng.below(limit as u64 / 8) as usize]].concat()
        }
        // The last byte of the longest key.
        4 => {
            let number = rng.below(3000) as u16;
            [vec![0xff; limit - 2], number.to_be_bytes().to_vec()].concat()
        }
        // Columns that differ, between columns that do not.
        5 => format!("t{:03}/item/{:06}", rng.below(7), rng.below(2000)).into_bytes(),
        6 => rng.below(1 << 20).to_be_bytes().to_vec(),
        7 => {
            let len = rng.below(24) + 1;
            extremes(rng, len)
        }
        _ => bytes(rng.next(), 1 + rng.below(30) as usize),
    }
}

/// Keys that are nearly this one.
fn neighbours(key: &[u8], rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut near = vec![key.to_vec(), [key, &[0]].concat(), [key, &[0xff]].concat(), [key, &[0; 9]].concat()];
    for cut in [1, 2, rng.below(9) as usize] {
        near.push(key[..key.len().saturating_sub(cut)].to_vec());
    }
    for len in [3, 4, 7, 8, 9] {
        near.push(key[..key.len().min(len)].to_vec());
    }
    if !key.is_empty() {
        for change in [1_u8, 0xff] {
            for at in [key.len() - 1, rng.below(key.len() as u64) as usize] {
                let mut other = key.to_vec();
                other[at] = other[at].wrapping_add(change);
                near.push(other);
            }
        }
        let mut zeros = key.to_vec();
        while zeros.last() == Some(&0) {
            zeros.pop();
        }
        near.push(zeros);
    }
    near
}

fn lookups_agree(rows: &Rows, model: &Model, probes: &[Vec<u8>]) {
    for probe in probes {
        let expected = model.get(probe).map(Vec::as_slice);
        let what = || format!("key {}", probe.escape_ascii());
        assert_eq!(rows.get(probe).expect("get"), expected, "{}", what());
        assert_eq!(rows.contains_key(probe).expect("contains"), expected.is_some(), "{}", what());
        assert_eq!(rows.try_get_resident(probe).expect("in memory"), expected, "{}", what());
        let owned = rows.get_owned(probe).expect("get");
        assert_eq!(owned.as_ref().map(|value| value.get().expect("there")), expected, "{}", what());
    }
    for group in probes.chunks(37) {
        let found = rows.multi_get(group.iter().map(Vec::as_slice)).expect("multi_get");
        let expected: Vec<_> = group.iter().map(|probe| model.get(probe).map(Vec::as_slice)).collect();
        assert!(found == expected, "a batch differs");
    }
}

fn bound(key: &[u8], kind: u64) -> Bound<&[u8]> {
    match kind {
        0 => Bound::Included(key),
        1 => Bound::Excluded(key),
        _ => Bound::Unbounded,
    }
}

fn ranges_agree(rows: &Rows, model: &Model, probes: &[Vec<u8>], rng: &mut Rng) {
    for pair in probes.chunks_exact(2) {
        let range = (bound(&pair[0], rng.below(4)), bound(&pair[1], rng.below(4)));
        let inside = |key: &[u8]| std::ops::RangeBounds::<&[u8]>::contains(&range, &key);
        let expected: Vec<_> = model.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (&k[..], &v[..])).collect();
        let entries = || rows.range(range).expect("range").map(|entry| entry.expect("an entry"));
        assert!(entries().eq(expected.iter().copied()), "{range:?}");
        assert!(rows
            .range(range)
            .expect("range")
            .rev()
            .map(|entry| entry.expect("an entry"))
            .eq(expected.iter().rev().copied()));
        // From both ends by turns, until they meet.
        let (mut both, mut front, mut back) = (rows.range(range).expect("range"), 0, expected.len());
        loop {
            let forward = rng.below(2) == 0;
            let found = if forward { both.next() } else { both.next_back() };
            let Some(entry) = found.transpose().expect("an entry") else { break };
            assert!(front < back, "{range:?}: more than there are");
            let at = if forward { front } else { back - 1 };
            assert!(entry == expected[at], "{range:?}");
            (front, back) = if forward { (front + 1, back) } else { (front, back - 1) };
        }
        assert_eq!(front, back, "{range:?}: less than there are");
        let owned = rows.range_owned(range).expect("range").map(|entry| entry.expect("an entry"));
        assert!(owned.eq(expected.iter().map(|(k, v)| (k.to_vec(), v.to_vec()))), "{range:?}");
        let prefix = &pair[0][..pair[0].len().min(rng.below(12) as usize)];
        let begin = model.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (&k[..], &v[..]));
        assert!(rows.prefix(prefix).expect("prefix").map(|entry| entry.expect("an entry")).eq(begin), "{prefix:?}");
    }
    let first = model.first_key_value().map(|(k, v)| (&k[..], &v[..]));
    let last = model.last_key_value().map(|(k, v)| (&k[..], &v[..]));
    assert_eq!((rows.first().expect("first"), rows.last().expect("last")), (first, last));
}

/// Stores entries in one of several ways.
fn store(db: &Db, entries: &[(Vec<u8>, Vec<u8>)], way: u64) {
    db.write(|txn| {
        let mut table = txn.table(BYTES)?;
        if way == 0 {
            return entries.iter().try_for_each(|(key, value)| table.insert(key, value).map(drop));
        }
        let mut loader = table.loader()?.memory(if way == 1 { usize::MAX } else { 100_000 });
        entries.iter().try_for_each(|(key, value)| loader.push(key, value))?;
        loader.finish().map(drop)
    })
    .expect("stored");
}

fn rows(db: &Db) -> Rows {
    db.begin_read().expect("begins").table(BYTES).expect("table")
}

#[test]
fn all_reads_agree_on_keys_that_are_hard_to_tell_apart() {
    let mut rng = Rng::new(seed("all_reads_agree_on_keys_that_are_hard_to_tell_apart"));
    for round in 0..36 * u64::from(long()) {
        let page_size = 4096_usize << (round % 4);
        let limit = page_size / 4 - 24;
        let options = Options::new().page_size(page_size as u32);
        let db = if round % 3 == 0 { TestDb::file(options) } else { TestDb::memory(options) };
        let mut model = Model::new();
        for step in 0..3 {
            let family = (round / 4 + step * rng.below(2)) % 9;
            let count = [30, 400, 4000][rng.below(3) as usize];
            let mut entries: Vec<_> = (0..count)
                .map(|n| {
                    (
                        key(family, limit, &mut rng),
                        bytes(n, rng.below(if u64::is_multiple_of(n, 50) { 3000 } else { 60 }) as usize),
                    )
                })
                .collect();
            if rng.below(2) == 0 {
                entries.sort();
            }
            store(&db, &entries, rng.below(3));
            model.extend(entries);
            if step > 0 {
                let gone: Vec<_> = model.keys().filter(|_| rng.below(3) == 0).cloned().collect();
                db.write(|txn| {
                    let mut table = txn.table(BYTES)?;
                    gone.iter().try_for_each(|key| table.remove(key).map(drop))
                })
                .expect("removed");
                model.retain(|key, _| gone.binary_search(key).is_err());
            }
            let keys: Vec<_> = model.keys().cloned().collect();
            let some = |rng: &mut Rng| {
                keys.get(rng.below(keys.len().max(1) as u64) as usize)
                    .cloned()
                    .unwrap_or_else(|| key(family, limit, rng))
            };
            let mut probes = vec![vec![], vec![0; 8], vec![0xff; 8], vec![0xff; 9], vec![0; limit], vec![0xff; limit]];
            while probes.len() < 1200 {
                let near = some(&mut rng);
                probes.extend(neighbours(&near, &mut rng));
            }
            for at in (1..probes.len()).rev() {
                probes.swap(at, rng.below(at as u64 + 1) as usize);
            }
            let rows = rows(&db);
            lookups_agree(&rows, &model, &probes[..200]);
            for probe in probes.iter().cycle().take(LOOKUPS) {
                std::hint::black_box(rows.get(probe).expect("get"));
            }
            lookups_agree(&rows, &model, &probes);
            ranges_agree(&rows, &model, &probes[..60], &mut rng);
        }
    }
}

/// For any wrong byte of the file and any way to read, the answer is right or an error.
#[test]
fn no_way_to_read_returns_wrong_data_of_a_damaged_file() {
    let mut rng = Rng::new(seed("no_way_to_read_gives_a_wrong_answer_of_a_damaged_file"));
    let dir = fast_dir();
    let path = dir.path().join("made.mapleaf");
    let value = |n: u64| bytes(n, if n.is_multiple_of(40) { 5000 } else { 30 + n as usize % 90 });
    let model: Model = (0..3000).map(|n| (format!("user:{:05}:name", n * 3).into_bytes(), value(n))).collect();
    let entries: Vec<_> = model.clone().into_iter().collect();
    store(&Db::open(&path).expect("opens"), &entries, 1);
    let whole = std::fs::read(&path).expect("read");
    let (mut right, mut refused) = (0, 0);
    for _ in 0..400 * u64::from(long()) {
        let mut damaged = whole.clone();
        let at = rng.below(whole.len() as u64) as usize;
        damaged[at] ^= 1 << rng.below(8);
        std::fs::write(&path, &damaged).expect("written");
        let Ok(db) = Options::new().read_only(true).create(false).open(&path) else {
            refused += 1;
            continue;
        };
        let Ok(rows) = db.begin_read().expect("begins").table(BYTES) else {
            refused += 1;
            continue;
        };
        let mut judge = |is_right: Result<bool, mapleaf::Error>| match is_right {
            Ok(is_right) => {
                assert!(is_right, "byte {at}");
                right += 1;
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt, "byte {at}: {e}");
                refused += 1;
            }
        };
        // Twice: the second lookup uses the flat index.
        for _ in 0..2 {
            for (key, value) in entries.iter().step_by(1 + rng.below(30) as usize) {
                judge(rows.get(key).map(|found| found == Some(value)));
                judge(rows.try_get_resident(key).map(|found| found == Some(value)));
                judge(rows.contains_key(&[key, &b"!"[..]].concat()).map(|found| !found));
            }
            for group in entries.chunks(1000) {
                let found = rows.multi_get(group.iter().map(|(key, _)| &key[..]));
                judge(found.map(|found| found.iter().zip(group).all(|(found, (_, value))| *found == Some(value))));
            }
            for from in [0, 777, 2500] {
                let mut range = rows.range(&entries[from].0[..]..).expect("range").zip(&entries[from..]);
                range.try_for_each(|(entry, (k, v))| entry.map(|entry| assert!(entry == (k, v), "byte {at}"))).ok();
                let mut back =
                    rows.range(..=&entries[from].0[..]).expect("range").rev().zip(entries[..=from].iter().rev());
                back.try_for_each(|(entry, (k, v))| entry.map(|entry| assert!(entry == (k, v), "byte {at}"))).ok();
                let mut owned = rows.range_owned(&entries[from].0[..]..).expect("range").zip(&entries[from..]);
                owned
                    .try_for_each(|(entry, expected)| entry.map(|entry| assert!(entry == *expected, "byte {at}")))
                    .ok();
            }
        }
    }
    println!("{right} right answers, {refused} errors");
    assert!(right > 0 && refused > 0);
}
