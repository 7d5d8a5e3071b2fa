//! Keys, values and their checksums: every byte that the engines store and give back.
//!
//! Everything follows from the index of an entry, so nothing has to be kept to verify a value. Generating a pair costs
//! 10 to 40 ns and is part of every timed load, for every engine alike; probes for point reads are generated before.
//!
//! Failure: a wrong or missing value is counted, and the measurement that saw it ends with an error.

use crate::Res;

/// Length of the longest value.
const VALUE_MAX_BYTES: usize = 150;
/// Room for the longest key.
pub(crate) const KEY_MAX_BYTES: usize = 24;
/// What an S1 key can number with its eight digits.
pub(crate) const ENTRIES_MAX: u64 = 100_000_000;

const WORDS: usize = VALUE_MAX_BYTES.div_ceil(8);
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const TENANTS: u64 = 200;

/// Finaliser of splitmix64: a bijection that scatters its input.
#[inline(always)]
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A small generator for orders and choices.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(mix(seed ^ GOLDEN))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound`; the bias is below 2^-32 for every bound used here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn shuffle(&mut self, items: &mut [u32]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// Sum of all bytes as words, each word weighted by its place: sees changed, swapped, missing and added bytes.
#[inline]
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut weight = GOLDEN;
    let mut sum = (bytes.len() as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for word in words {
        sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap_or_default()).wrapping_mul(weight));
        weight = weight.wrapping_add(0x5851_f42d_4c95_7f2e);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    sum.wrapping_add(u64::from_le_bytes(last).wrapping_mul(weight))
}

/// What keys look like, and how long values are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// 24 random bytes.
    R,
    /// 16 random bytes.
    R16,
    /// `user:00012345:name`
    S1,
    /// `t017/item/000000123456`: tenant and item number.
    S2,
    /// 8 random bytes, values of 8 bytes: as an index has them.
    N,
}

impl Shape {
    pub(crate) fn parse(text: &str) -> Option<Shape> {
        match text {
            "R" => Some(Shape::R),
            "R16" => Some(Shape::R16),
            "S1" => Some(Shape::S1),
            "S2" => Some(Shape::S2),
            "N" => Some(Shape::N),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Shape::R => "R",
            Shape::R16 => "R16",
            Shape::S1 => "S1",
            Shape::S2 => "S2",
            Shape::N => "N",
        }
    }

    pub(crate) fn key_bytes(self) -> usize {
        match self {
            Shape::R => 24,
            Shape::R16 => 16,
            Shape::S1 => 18,
            Shape::S2 => 22,
            Shape::N => 8,
        }
    }

    pub(crate) fn value_bytes(self) -> usize {
        match self {
            Shape::N => 8,
            _ => VALUE_MAX_BYTES,
        }
    }

    /// Writes the key of entry `id` into `key`, which is `key_bytes` long.
    #[inline]
    pub(crate) fn key(self, id: u64, key: &mut [u8]) {
        match self {
            Shape::R | Shape::R16 | Shape::N => {
                for (i, word) in key.chunks_exact_mut(8).enumerate() {
                    word.copy_from_slice(&mix(id.wrapping_mul(3).wrapping_add(i as u64 + 1)).to_be_bytes());
                }
            }
            Shape::S1 => {
                key.copy_from_slice(b"user:00000000:name");
                digits(id, &mut key[5..13]);
            }
            Shape::S2 => {
                key.copy_from_slice(b"t000/item/000000000000");
                digits(id % TENANTS, &mut key[1..4]);
                digits(id / TENANTS, &mut key[10..22]);
            }
        }
    }
}

fn digits(mut number: u64, text: &mut [u8]) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A value with room for whole words, of which the first `bytes` bytes count.
pub(crate) struct Value {
    words: [u8; WORDS * 8],
    bytes: usize,
}

impl Value {
    pub(crate) fn new(shape: Shape) -> Value {
        Value { words: [0; WORDS * 8], bytes: shape.value_bytes() }
    }

    /// The bytes of version `version` of entry `id`.
    #[inline]
    pub(crate) fn fill(&mut self, id: u64, version: u64) -> &[u8] {
        let seed = mix(id ^ (version << 48) ^ 0x5bd1_e995_7b7d_1597);
        let words = self.bytes.next_multiple_of(8);
        for (i, word) in self.words[..words].chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&mix(seed.wrapping_add((i as u64).wrapping_mul(GOLDEN))).to_le_bytes());
        }
        &self.words[..self.bytes]
    }
}

/// Values of 100 KiB: pieces of one stretch of pseudo-random bytes, so that no time goes into making them.
pub(crate) struct LargeValues {
    bytes: Vec<u8>,
}

/// Length of a large value.
pub(crate) const LARGE_BYTES: usize = 100 << 10;
/// Distinct large values: pieces begin at every eighth byte.
const LARGE_STARTS: u64 = 1 << 17;

impl LargeValues {
    pub(crate) fn new() -> LargeValues {
        let mut rng = Rng::new(GOLDEN);
        let words = LARGE_STARTS as usize + LARGE_BYTES / 8;
        LargeValues { bytes: (0..words).flat_map(|_| rng.next().to_le_bytes()).collect() }
    }

    /// Version `version` of the value of entry `id`.
    pub(crate) fn get(&self, id: u64, version: u64) -> &[u8] {
        let start = (mix(id ^ (version << 48)) % LARGE_STARTS) as usize * 8;
        &self.bytes[start..start + LARGE_BYTES]
    }
}

/// The entries of one run: how many, with which keys.
#[derive(Clone, Copy)]
pub(crate) struct Data {
    pub(crate) shape: Shape,
    pub(crate) entries: u32,
}

impl Data {
    /// All entries in a random order that `seed` decides.
    pub(crate) fn shuffled(self, seed: u64) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..self.entries).collect();
        Rng::new(seed).shuffle(&mut ids);
        ids
    }

    /// All entries in the order of their keys.
    pub(crate) fn sorted(self) -> Vec<u32> {
        let mut keyed: Vec<([u8; KEY_MAX_BYTES], u32)> = (0..self.entries)
            .map(|id| {
                let mut key = [0; KEY_MAX_BYTES];
                self.shape.key(u64::from(id), &mut key[..self.shape.key_bytes()]);
                (key, id)
            })
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, id)| id).collect()
    }

    /// What a scan over all entries must add up to.
    pub(crate) fn tally(self) -> Tally {
        let mut pairs = Pairs::counted(self.shape, u64::from(self.entries), 0);
        let mut tally = Tally::default();
        while let Some((key, value)) = pairs.next() {
            tally.add(key, value);
        }
        tally
    }
}

enum Ids<'a> {
    Listed(&'a [u32]),
    Counted(u64),
}

/// Where the values of a list of pairs come from.
enum Values<'a> {
    Made { value: Value, version: u64 },
    Large { values: &'a LargeValues, version: u64 },
}

/// Pairs to store, made one at a time.
pub(crate) struct Pairs<'a> {
    shape: Shape,
    ids: Ids<'a>,
    at: u64,
    key: [u8; KEY_MAX_BYTES],
    values: Values<'a>,
}

impl<'a> Pairs<'a> {
    /// How many pairs there are in all.
    pub(crate) fn count(&self) -> u64 {
        match self.ids {
            Ids::Listed(ids) => ids.len() as u64,
            Ids::Counted(count) => count,
        }
    }

    /// The entries `ids` in that order.
    pub(crate) fn listed(shape: Shape, ids: &'a [u32], version: u64) -> Pairs<'a> {
        Pairs::new(shape, Ids::Listed(ids), Values::Made { value: Value::new(shape), version })
    }

    /// Entries 0 to `count - 1`, without a list in memory; keys R come in random order that way.
    pub(crate) fn counted(shape: Shape, count: u64, version: u64) -> Pairs<'static> {
        Pairs::new(shape, Ids::Counted(count), Values::Made { value: Value::new(shape), version })
    }

    /// The entries `ids` in that order, with large values.
    pub(crate) fn large(shape: Shape, ids: &'a [u32], values: &'a LargeValues, version: u64) -> Pairs<'a> {
        Pairs::new(shape, Ids::Listed(ids), Values::Large { values, version })
    }

    fn new(shape: Shape, ids: Ids<'a>, values: Values<'a>) -> Pairs<'a> {
        Pairs { shape, ids, at: 0, key: [0; KEY_MAX_BYTES], values }
    }

    /// The next pair; it lives until the next call.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(&[u8], &[u8])> {
        let id = match self.ids {
            Ids::Listed(ids) => u64::from(*ids.get(self.at as usize)?),
            Ids::Counted(count) if self.at < count => self.at,
            Ids::Counted(_) => return None,
        };
        self.at += 1;
        let key = &mut self.key[..self.shape.key_bytes()];
        self.shape.key(id, key);
        let value = match &mut self.values {
            Values::Made { value, version } => value.fill(id, *version),
            Values::Large { values, version } => values.get(id, *version),
        };
        Some((key, value))
    }
}

/// Keys to look up, in that order, and the checksum that each value must have.
pub(crate) struct Probes {
    key_bytes: usize,
    keys: Vec<u8>,
    checksums: Vec<u64>,
}

impl Probes {
    pub(crate) fn new(shape: Shape, ids: &[u32], version: u64) -> Probes {
        Probes::of(shape, Pairs::listed(shape, ids, version))
    }

    pub(crate) fn large(shape: Shape, ids: &[u32], values: &LargeValues, version: u64) -> Probes {
        Probes::of(shape, Pairs::large(shape, ids, values, version))
    }

    fn of(shape: Shape, mut pairs: Pairs<'_>) -> Probes {
        let mut probes = Probes { key_bytes: shape.key_bytes(), keys: Vec::new(), checksums: Vec::new() };
        while let Some((key, value)) = pairs.next() {
            probes.keys.extend_from_slice(key);
            probes.checksums.push(checksum(value));
        }
        probes
    }

    pub(crate) fn len(&self) -> usize {
        self.checksums.len()
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.keys.chunks_exact(self.key_bytes).zip(self.checksums.iter().copied())
    }

    /// Lists of at most `size` keys with their checksums.
    pub(crate) fn batches(&self, size: usize) -> impl Iterator<Item = (impl Iterator<Item = &[u8]>, &[u64])> {
        let keys = self.keys.chunks(self.key_bytes * size);
        keys.map(|keys| keys.chunks_exact(self.key_bytes)).zip(self.checksums.chunks(size))
    }
}

/// Keys to seek to, and what the entries from there on must add up to.
pub(crate) struct Seeks {
    /// Entries to read from each key on.
    pub(crate) length: usize,
    key_bytes: usize,
    keys: Vec<u8>,
    sums: Vec<u64>,
}

impl Seeks {
    /// To the keys of `ids`, in that order.
    pub(crate) fn new(data: Data, ids: &[u32], length: usize) -> Seeks {
        let order = data.sorted();
        let mut place = vec![0; order.len()];
        let mut until = vec![0u64];
        let mut pairs = Pairs::listed(data.shape, &order, 0);
        while let Some((key, value)) = pairs.next() {
            until.push(until[until.len() - 1].wrapping_add(entry_sum(key, value)));
        }
        for (at, &id) in order.iter().enumerate() {
            place[id as usize] = at;
        }
        let key_bytes = data.shape.key_bytes();
        let mut seeks = Seeks { length, key_bytes, keys: vec![0; key_bytes * ids.len()], sums: Vec::new() };
        for (&id, key) in ids.iter().zip(seeks.keys.chunks_exact_mut(key_bytes)) {
            data.shape.key(u64::from(id), key);
            let start = place[id as usize];
            let end = (start + length).min(order.len());
            seeks.sums.push(until[end].wrapping_sub(until[start]));
        }
        seeks
    }

    pub(crate) fn len(&self) -> usize {
        self.sums.len()
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.keys.chunks_exact(self.key_bytes).zip(self.sums.iter().copied())
    }
}

/// What an entry adds to the sum of a stretch of entries: every byte of key and value counts.
#[inline(always)]
pub(crate) fn entry_sum(key: &[u8], value: &[u8]) -> u64 {
    checksum(key).wrapping_add(checksum(value))
}

/// Counts values that were not what they should be.
#[derive(Default)]
pub(crate) struct Verifier {
    wrong: u64,
}

impl Verifier {
    /// Reads every byte of `value`.
    #[inline(always)]
    pub(crate) fn check(&mut self, value: Option<&[u8]>, expected: u64) {
        self.wrong += u64::from(value.is_none_or(|value| checksum(value) != expected));
    }

    /// Compares the sum over a stretch of entries.
    #[inline(always)]
    pub(crate) fn check_sum(&mut self, sum: u64, expected: u64) {
        self.wrong += u64::from(sum != expected);
    }

    pub(crate) fn finish(self) -> Res<()> {
        if self.wrong == 0 {
            return Ok(());
        }
        Err(format!("{} values were missing or wrong", self.wrong).into())
    }
}

/// What a scan has seen: every byte of every key and value counts.
#[derive(Default, PartialEq, Eq, Debug, Clone, Copy)]
pub(crate) struct Tally {
    entries: u64,
    keys: u64,
    values: u64,
}

impl Tally {
    #[inline(always)]
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.keys = self.keys.wrapping_add(checksum(key));
        self.values = self.values.wrapping_add(checksum(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_are_distinct_and_readable() {
        for shape in [Shape::R, Shape::R16, Shape::S1, Shape::S2, Shape::N] {
            let mut seen = HashSet::new();
            let mut key = vec![0; shape.key_bytes()];
            for id in 0..50_000 {
                shape.key(id, &mut key);
                assert!(seen.insert(key.clone()), "{} key of {id} came twice", shape.name());
            }
        }
        let mut key = [0; 22];
        Shape::S2.key(123_456 * TENANTS + 17, &mut key);
        assert_eq!(&key, b"t017/item/000000123456");
        Shape::S1.key(12_345, &mut key[..18]);
        assert_eq!(&key[..18], b"user:00012345:name");
    }

    #[test]
    fn any_changed_byte_changes_the_checksum() {
        let mut value = Value::new(Shape::R);
        let bytes = value.fill(7, 0).to_vec();
        let sum = checksum(&bytes);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_ne!(checksum(&damaged), sum);
        }
        assert_ne!(checksum(&bytes[..149]), sum);
        assert_ne!(checksum(value.fill(7, 1)), sum);
    }

    #[test]
    fn the_verifier_refuses_missing_values() {
        let mut verifier = Verifier::default();
        verifier.check(None, checksum(b""));
        assert!(verifier.finish().is_err());
    }

    #[test]
    fn sorted_ids_have_ascending_keys() {
        let data = Data { shape: Shape::S2, entries: 1_000 };
        let ids = data.sorted();
        let mut pairs = Pairs::listed(data.shape, &ids, 0);
        let mut last = Vec::new();
        while let Some((key, _)) = pairs.next() {
            assert!(last.as_slice() < key);
            last = key.to_vec();
        }
    }
}
