//! The plan: the steps of transaction n, and the contents of the tables after it.
//!
//! Seed, number of keys and n determine both. So after any crash, any process can compute the
//! expected contents of a database from the transaction number in it. The number of keys is fixed
//! at creation and bounds the size of the file.

use std::collections::BTreeMap;

use crate::random::Rng;

/// The table that marks a database of `torture` and holds its transaction number.
pub(crate) const COUNTERS: &str = "kvctl torture";

const TABLES: [&str; 4] = ["apples", "birches", "cedars", "dates"];

/// Length of the longest value; small files have only shorter ones.
const VALUE_BYTES_MAX: u64 = 100 * 1024;
/// Rough estimate of the bytes of the file per key: values, half-full pages, older states that are
/// still needed.
const BYTES_PER_KEY: u64 = 16 * 1024;

/// A seeded sequence of transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Number of keys in all tables together.
    pub(crate) keys: u64,
}

/// A value of the plan, as the seed and length from which its bytes are generated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PlannedValue {
    seed: u64,
    len: usize,
}

impl PlannedValue {
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut rng = Rng::from_seed(self.seed);
        let mut bytes = Vec::with_capacity(self.len + 8);
        while bytes.len() < self.len {
            bytes.extend_from_slice(&rng.next().to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }
}

/// One step of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Put(&'static str, Vec<u8>, PlannedValue),
    Delete(&'static str, Vec<u8>),
    Drop(&'static str),
}

/// The contents of the tables. A table whose only steps were deletions exists and is empty.
pub(crate) type Contents = BTreeMap<&'static str, BTreeMap<Vec<u8>, PlannedValue>>;

impl Plan {
    /// The plan of a new database that stays below about `max_bytes`.
    pub(crate) fn new(seed: u64, max_bytes: u64) -> Plan {
        Plan { seed, keys: (max_bytes / BYTES_PER_KEY).clamp(64, 1 << 20) }
    }

    /// The steps of transaction `number`, which counts from 1.
    pub(crate) fn steps(&self, number: u64) -> Vec<Step> {
        let mut rng = Rng::of(self.seed, number);
        let count = match rng.below(16) {
            0 => 40 + rng.below(160),
            _ => 1 + rng.below(8),
        };
        (0..count).map(|_| self.step(&mut rng)).collect()
    }

    fn step(&self, rng: &mut Rng) -> Step {
        let table = TABLES[rng.below(TABLES.len() as u64) as usize];
        // Rare, so that tables grow large in between, but frequent enough that each run drops some.
        if rng.one_in(400) {
            return Step::Drop(table);
        }
        let key = key(rng.below(self.keys.div_ceil(TABLES.len() as u64)));
        if rng.one_in(3) {
            return Step::Delete(table, key);
        }
        Step::Put(table, key, PlannedValue { seed: rng.next(), len: self.value_bytes(rng) as usize })
    }

    fn value_bytes(&self, rng: &mut Rng) -> u64 {
        let most = VALUE_BYTES_MAX.min(self.keys * 256);
        match rng.below(32) {
            0 => rng.below(most + 1),
            1..=3 => rng.below(16 * 1024 + 1).min(most),
            4..=9 => rng.below(2001),
            _ => rng.below(101),
        }
    }

    /// The contents of the tables after transaction `number`.
    pub(crate) fn state(&self, number: u64) -> Contents {
        let mut state = Contents::new();
        for step in (1..=number).flat_map(|number| self.steps(number)) {
            match step {
                Step::Put(table, key, value) => drop(state.entry(table).or_default().insert(key, value)),
                Step::Delete(table, key) => drop(state.entry(table).or_default().remove(&key)),
                Step::Drop(table) => drop(state.remove(table)),
            }
        }
        state
    }
}

/// Key `index` of a table. Most keys are short, some are nearly as long as the limit.
fn key(index: u64) -> Vec<u8> {
    let mut bytes = format!("key {index:06}").into_bytes();
    let mut rng = Rng::of(0, index);
    if rng.one_in(8) {
        bytes.resize(bytes.len() + rng.below(900) as usize, b'.');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_follows_from_seed_and_number() {
        let plan = Plan::new(7, 64 << 20);
        assert_eq!(plan.keys, 4096);
        assert_eq!(plan.steps(5), plan.steps(5));
        assert_ne!(plan.steps(5), plan.steps(6));
        assert_ne!(plan.steps(5), Plan { seed: 8, ..plan }.steps(5));
    }

    #[test]
    fn a_run_has_all_kinds_of_steps_and_stays_small() {
        let plan = Plan::new(1, 4 << 20);
        let steps: Vec<Step> = (1..=400).flat_map(|number| plan.steps(number)).collect();
        let count = |what: fn(&Step) -> bool| steps.iter().filter(|step| what(step)).count();
        assert!(count(|step| matches!(step, Step::Drop(_))) > 3);
        assert!(count(|step| matches!(step, Step::Delete(..))) > 100);
        assert!(count(|step| matches!(step, Step::Put(_, _, value) if value.len > 20_000)) > 10);
        assert!(count(|step| matches!(step, Step::Put(_, key, _) if key.len() > 500)) > 10);
        let state = plan.state(400);
        assert!(state.values().map(BTreeMap::len).sum::<usize>() as u64 <= plan.keys);
        let bytes: usize = state.values().flat_map(BTreeMap::values).map(|value| value.len).sum();
        assert!(bytes < 2 << 20, "{bytes}");
    }
}
