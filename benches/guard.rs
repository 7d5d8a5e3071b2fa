//! Measures the cost of checksums and the fault guard for cached random reads: the public `get`,
//! and the same lookup without them.
//!
//! ```sh
//! cargo bench --bench guard      # 1,000,000 entries, 11 rounds, interleaved; median of the ratios
//! ```
//!
//! Both sides read the same keys in the same order from the same mapping, and compare each value
//! completely. The unprotected side does the same steps, but does not check the verified bytes of
//! pages, the sentinel and the record of faults.

mod entries;

use std::time::Instant;

use entries::{key, mix, value};
use mapleaf::testing::BareTable;
use mapleaf::{Db, Table};

const ENTRIES: u64 = 1_000_000;
const READS: u64 = 1_000_000;
const ROUNDS: usize = 11;
const TABLE: Table<&[u8], &[u8]> = Table::new("bench");

/// Looks up a million random keys; nanoseconds per lookup.
fn time<'a>(probes: &[(u64, [u8; 24])], get: impl Fn(&[u8]) -> Option<&'a [u8]>) -> f64 {
    let start = Instant::now();
    let mut sum = 0u64;
    for (_, key) in probes {
        let value = get(key).expect("there");
        sum = sum.wrapping_add(u64::from(value[0])).wrapping_add(u64::from(value[149]));
    }
    let nanos = start.elapsed().as_nanos() as f64 / probes.len() as f64;
    let expected = probes.iter().fold(0u64, |sum, (number, _)| {
        let value = value(*number);
        sum.wrapping_add(u64::from(value[0])).wrapping_add(u64::from(value[149]))
    });
    assert_eq!(sum, expected, "wrong values");
    nanos
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = Db::open(folder.path().join("bench.mapleaf")).expect("open");
    db.write(|txn| {
        let mut table = txn.table(TABLE)?;
        (0..ENTRIES).try_for_each(|number| table.insert(&key(number), &value(number)).map(drop))
    })
    .expect("loaded");
    let table = db.begin_read().and_then(|txn| txn.table(TABLE)).expect("table");
    let bare = BareTable::of(&db.begin_read().and_then(|txn| txn.bytes_table("bench")).expect("table"));
    for number in 0..ENTRIES {
        assert_eq!(table.get(&key(number)).expect("get"), Some(&value(number)[..]));
    }
    let mut ratios = Vec::new();
    for round in 0..ROUNDS as u64 {
        let probe = |n| mix(n ^ round << 40) % ENTRIES;
        let probes: Vec<(u64, [u8; 24])> = (0..READS).map(probe).map(|number| (number, key(number))).collect();
        let protected = || time(&probes, |key| table.get(key).expect("get"));
        let unprotected = || time(&probes, |key| bare.get(key).expect("get"));
        // The sides take turns in going first.
        let (with, without) = match round % 2 {
            0 => (protected(), unprotected()),
            _ => {
                let without = unprotected();
                (protected(), without)
            }
        };
        ratios.push(with / without);
        println!("round {round}: {with:.0} ns with, {without:.0} ns without: {:.3}", with / without);
    }
    ratios.sort_by(f64::total_cmp);
    let (median, least, most) = (ratios[ROUNDS / 2], ratios[0], ratios[ROUNDS - 1]);
    println!("checksums and guard on : off = {median:.3} of the time ({least:.3} .. {most:.3})");
}
