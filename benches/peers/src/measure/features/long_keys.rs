//! Gets of long keys: 100,000 URLs of 2,000 bytes, beside as many of 900 bytes, which lie in the pages whole.
//!
//! Both files belong to Mapleaf; LMDB has no keys of more than 511 bytes. Keys are looked up in random order in one read
//! transaction; each value is compared. URLs begin alike and differ from their path on.

use super::shared::{figure, Of};
use crate::data::{mix, Rng};
use crate::disk;
use crate::measure::processes::rounds;
use crate::measure::Run;
use crate::report::{Better, Figure};
use crate::Res;
use mapleaf::{Db, Table};
use std::fmt::Write as _;
use std::time::Instant;

const TABLE: Table<&str, u64> = Table::new("urls");
const KEYS: u64 = 100_000;
const NAMES: [&str; 2] = ["mapleaf-900", "mapleaf"];
const LENGTHS: [usize; 2] = [900, 2_000];
const SEED: u64 = 9;

fn url(id: u64, bytes: usize) -> String {
    let mut url = format!("https://www.example.com/{:016x}?", mix(id));
    let mut part = id;
    while url.len() < bytes {
        part = mix(part + 1);
        let _ = write!(url, "p{:02}={part:016x}&", part % 100);
    }
    url.truncate(bytes);
    url
}

pub(super) fn gets(run: &Run<'_>) -> Res<Vec<Figure>> {
    let mut dbs = Vec::new();
    let mut order: Vec<u32> = (0..KEYS as u32).collect();
    Rng::new(SEED).shuffle(&mut order);
    for (name, bytes) in NAMES.iter().zip(LENGTHS) {
        let path = run.scratch.file("urls", name);
        disk::remove(&path)?;
        let db = Db::open(&path)?;
        let txn = db.begin_write()?;
        txn.table(TABLE)?.load(
            (0..KEYS).map(|id| (url(id, bytes), id)).collect::<Vec<_>>().iter().map(|(url, id)| (url.as_str(), *id)),
        )?;
        txn.commit()?;
        let urls: Vec<(String, u64)> = order.iter().map(|&id| (url(u64::from(id), bytes), u64::from(id))).collect();
        dbs.push((db, path, urls));
    }
    let values = rounds(run, 2, |i, _| {
        let (db, _, urls) = &dbs[i];
        let table = db.begin_read()?.table(TABLE)?;
        let start = Instant::now();
        for (url, id) in urls {
            if table.get(url)? != Some(*id) {
                return Err(format!("{url} is missing").into());
            }
        }
        Ok(KEYS as f64 / start.elapsed().as_secs_f64())
    })?;
    for (db, path, _) in dbs {
        drop(db);
        disk::remove(&path)?;
    }
    let title = "random gets of 100,000 keys of 2,000 bytes; and of 900 bytes";
    let (unit, better, versus) = ("lookups/s", Better::Higher, NAMES[0]);
    let of = Of { id: "long_keys", title, unit, better, versus, entries: KEYS };
    Ok(vec![figure(of, &NAMES, &values)])
}
