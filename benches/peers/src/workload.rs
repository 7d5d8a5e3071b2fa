//! YCSB's core workloads A to F (Cooper et al. 2010) as lists of operations, and the loop that carries them out.
//!
//! A list is made before the clock starts, once for all engines, from one seed: which operation, on which key, and what a
//! read must find after the writes before it. Popular entries follow YCSB: a Zipfian distribution with exponent 0.99 by
//! the algorithm of Gray et al. (1994), scattered over all entries by a hash; D reads what was inserted last most often.
//! E scans 1 to 100 entries, uniformly. Each operation is a transaction of its own, and each write is durable when it
//! returns.
//!
//! Failure: values that are missing or wrong are counted, and end the measurement with an error.

use crate::data::{checksum, entry_sum, Data, Pairs, Rng, Shape, Value, Verifier, KEY_MAX_BYTES};
use crate::Res;
use std::collections::BTreeMap;

/// Exponent of the Zipfian distribution.
const THETA: f64 = 0.99;
const SCAN_MAX: u64 = 100;
const SEED: u64 = 6;

/// Operations on single keys, each in a transaction of its own; writes are durable when they return.
pub(crate) trait Single {
    /// Shows the value of a key to `see`.
    fn get(&self, key: &[u8], see: impl FnMut(Option<&[u8]>)) -> Res<()>;

    fn put(&self, key: &[u8], value: &[u8]) -> Res<()>;

    /// Reads and overwrites a key in one transaction.
    fn modify(&self, key: &[u8], see: impl FnMut(Option<&[u8]>), value: &[u8]) -> Res<()>;

    /// Shows `count` entries from `key` on, or as many as there are.
    fn scan_from(&self, key: &[u8], count: usize, see: impl FnMut(&[u8], &[u8])) -> Res<()>;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Modify,
    Scan,
}

struct Op {
    kind: Kind,
    id: u32,
    /// What a write stores; how many entries a scan reads.
    number: u32,
    /// Checksum of the value to find, or sum of the entries of a scan.
    expected: u64,
}

/// Stores pairs, each in a transaction of its own.
pub(crate) fn put_each<S: Single>(store: &S, pairs: &mut Pairs<'_>) -> Res<()> {
    while let Some((key, value)) = pairs.next() {
        store.put(key, value)?;
    }
    Ok(())
}

/// What a workload is made of, in percent.
pub(crate) struct Mix {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    read: u64,
    update: u64,
    insert: u64,
    modify: u64,
    latest: bool,
    /// Scans in place of reads.
    scan: bool,
    pub(crate) operations: u32,
}

const fn mix(id: &'static str, title: &'static str, shares: [u64; 4], operations: u32) -> Mix {
    let [read, update, insert, modify] = shares;
    Mix { id, title, read, update, insert, modify, latest: false, scan: false, operations }
}

/// The core workloads; fewer operations where writes make them slow.
pub(crate) const MIXES: [Mix; 6] = [
    mix("ycsb_a", "YCSB A: 50 % reads, 50 % updates", [50, 50, 0, 0], 10_000),
    mix("ycsb_b", "YCSB B: 95 % reads, 5 % updates", [95, 5, 0, 0], 50_000),
    mix("ycsb_c", "YCSB C: reads only", [100, 0, 0, 0], 500_000),
    Mix { latest: true, ..mix("ycsb_d", "YCSB D: 95 % reads of the latest, 5 % inserts", [95, 0, 5, 0], 50_000) },
    Mix { scan: true, ..mix("ycsb_e", "YCSB E: 95 % scans of 1 to 100 entries, 5 % inserts", [95, 0, 5, 0], 20_000) },
    mix("ycsb_f", "YCSB F: 50 % reads, 50 % read-modify-write", [50, 0, 0, 50], 10_000),
];

/// A list of operations.
pub(crate) struct Workload {
    shape: Shape,
    ops: Vec<Op>,
}

impl Workload {
    pub(crate) fn new(data: Data, mix: &Mix) -> Workload {
        let mut maker = Maker::new(data, mix);
        let ops = (0..mix.operations).map(|_| maker.next(mix)).collect();
        Workload { shape: data.shape, ops }
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }
}

/// What the list so far has done to the entries.
struct Maker {
    data: Data,
    rng: Rng,
    zipfian: Zipfian,
    /// Version of each entry, as the list stands.
    versions: Vec<u32>,
    /// Keys in order, where scans need them.
    order: BTreeMap<[u8; KEY_MAX_BYTES], u32>,
    value: Value,
}

impl Maker {
    fn new(data: Data, mix: &Mix) -> Maker {
        let count = if mix.scan { data.entries } else { 0 };
        Maker {
            data,
            rng: Rng::new(SEED),
            zipfian: Zipfian::new(u64::from(data.entries)),
            versions: vec![0; data.entries as usize],
            order: (0..count).map(|id| (padded_key(data.shape, id), id)).collect(),
            value: Value::new(data.shape),
        }
    }

    fn next(&mut self, mix: &Mix) -> Op {
        let die = self.rng.below(100);
        if die < mix.insert {
            return self.insert(mix);
        }
        let id = self.popular(mix.latest);
        if die < mix.insert + mix.update {
            return self.overwrite(Kind::Write, id);
        }
        if die < mix.insert + mix.update + mix.modify {
            return self.overwrite(Kind::Modify, id);
        }
        debug_assert_eq!(mix.read + mix.insert + mix.update + mix.modify, 100);
        if mix.scan {
            return self.scan(id);
        }
        Op { kind: Kind::Read, id, number: 0, expected: self.current(id) }
    }

    fn insert(&mut self, mix: &Mix) -> Op {
        let id = self.versions.len() as u32;
        self.versions.push(0);
        if mix.scan {
            self.order.insert(padded_key(self.data.shape, id), id);
        }
        Op { kind: Kind::Write, id, number: 0, expected: 0 }
    }

    fn overwrite(&mut self, kind: Kind, id: u32) -> Op {
        let expected = self.current(id);
        self.versions[id as usize] += 1;
        Op { kind, id, number: self.versions[id as usize], expected }
    }

    fn scan(&mut self, id: u32) -> Op {
        let count = 1 + self.rng.below(SCAN_MAX) as u32;
        let key_bytes = self.data.shape.key_bytes();
        let mut sum = 0u64;
        for (key, &id) in self.order.range(padded_key(self.data.shape, id)..).take(count as usize) {
            sum = sum.wrapping_add(entry_sum(&key[..key_bytes], self.value.fill(u64::from(id), 0)));
        }
        Op { kind: Kind::Scan, id, number: count, expected: sum }
    }

    fn current(&mut self, id: u32) -> u64 {
        checksum(self.value.fill(u64::from(id), u64::from(self.versions[id as usize])))
    }

    fn popular(&mut self, latest: bool) -> u32 {
        let rank = self.zipfian.next(&mut self.rng);
        if latest {
            return (self.versions.len() as u64 - 1 - rank) as u32;
        }
        // A hash of its own: the keys R are made of another one.
        (Rng::new(rank).next() % u64::from(self.data.entries)) as u32
    }
}

fn padded_key(shape: Shape, id: u32) -> [u8; KEY_MAX_BYTES] {
    let mut key = [0; KEY_MAX_BYTES];
    shape.key(u64::from(id), &mut key[..shape.key_bytes()]);
    key
}

/// Ranks 0 to `count - 1`, the first the most popular (Gray et al., "Quickly generating billion-record synthetic
/// databases", 1994).
struct Zipfian {
    count: f64,
    alpha: f64,
    eta: f64,
    zeta: f64,
    /// Below it the rank is 0 or 1.
    second: f64,
}

impl Zipfian {
    fn new(count: u64) -> Zipfian {
        let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum();
        let second = 1.0 + 0.5f64.powf(THETA);
        let count = count as f64;
        let eta = (1.0 - (2.0 / count).powf(1.0 - THETA)) / (1.0 - second / zeta);
        Zipfian { count, alpha: 1.0 / (1.0 - THETA), eta, zeta, second }
    }

    fn next(&self, rng: &mut Rng) -> u64 {
        let u = (rng.next() >> 11) as f64 / (1u64 << 53) as f64;
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.second {
            return 1;
        }
        let rank = self.count * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count as u64 - 1)
    }
}

/// Carries the operations out, one after the other, and verifies what they read.
pub(crate) fn drive<S: Single>(store: &S, workload: &Workload) -> Res<()> {
    let mut verifier = Verifier::default();
    let mut value = Value::new(workload.shape);
    let mut key = [0; KEY_MAX_BYTES];
    let key = &mut key[..workload.shape.key_bytes()];
    for op in &workload.ops {
        let id = u64::from(op.id);
        workload.shape.key(id, key);
        match op.kind {
            Kind::Read => store.get(key, |found| verifier.check(found, op.expected))?,
            Kind::Write => store.put(key, value.fill(id, u64::from(op.number)))?,
            Kind::Modify => {
                let see = |found: Option<&[u8]>| verifier.check(found, op.expected);
                store.modify(key, see, value.fill(id, u64::from(op.number)))?;
            }
            Kind::Scan => {
                let mut sum = 0u64;
                store.scan_from(key, op.number as usize, |key, value| sum = sum.wrapping_add(entry_sum(key, value)))?;
                verifier.check_sum(sum, op.expected);
            }
        }
    }
    verifier.finish()
}

/// Looks each probe up in a read transaction of its own.
pub(crate) fn get_each<S: Single>(store: &S, probes: &crate::data::Probes) -> Res<()> {
    let mut verifier = Verifier::default();
    for (key, expected) in probes.iter() {
        store.get(key, |found| verifier.check(found, expected))?;
    }
    verifier.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With exponent 0.99 the share of rank r among n is r^-0.99 / zeta(n).
    #[test]
    fn zipfian_ranks_have_the_frequency_of_the_formula() {
        let (count, draws) = (1_000, 200_000);
        let (zipfian, mut rng) = (Zipfian::new(count), Rng::new(1));
        let mut hits = vec![0u32; count as usize];
        for _ in 0..draws {
            hits[zipfian.next(&mut rng) as usize] += 1;
        }
        let share = |rank: usize| f64::from(hits[rank]) / f64::from(draws);
        assert!((share(0) - 1.0 / zipfian.zeta).abs() < 0.005, "{}", share(0));
        assert!((share(1) - 0.5f64.powf(THETA) / zipfian.zeta).abs() < 0.005, "{}", share(1));
        let tail: u32 = hits[500..].iter().sum();
        let expected: f64 = (501..=count).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>() / zipfian.zeta;
        assert!((f64::from(tail) / f64::from(draws) - expected).abs() < 0.01, "{tail} {expected}");
    }

    #[test]
    fn mixes_add_up_to_100_and_the_same_operations_repeat() {
        let data = Data { shape: Shape::S1, entries: 2_000 };
        for mix in &MIXES {
            assert_eq!(mix.read + mix.update + mix.insert + mix.modify, 100, "{}", mix.id);
            let (one, two) = (Workload::new(data, mix), Workload::new(data, mix));
            assert!(one.ops.iter().zip(&two.ops).all(|(a, b)| a.id == b.id && a.expected == b.expected));
            let writes = one.ops.iter().filter(|op| matches!(op.kind, Kind::Write | Kind::Modify)).count() as f64;
            let share = (mix.update + mix.insert + mix.modify) as f64 / 100.0;
            assert!((writes / one.len() as f64 - share).abs() < 0.02, "{}", mix.id);
        }
    }
}
