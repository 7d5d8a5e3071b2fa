//! Generates keys and values, and verifies values. The number of an entry determines its key; key,
//! version and seed determine its value, so that `bench` can verify any value.
//!
//! A key begins with eight unique bytes: the entry's number or, for random order, the number with
//! its bits mixed. They determine the rest of the key. A value begins with its version.

use serde::{Deserialize, Serialize};

use crate::random::mix;

/// Length of the unique part of a key, and of a version.
pub(crate) const WORD_BYTES: usize = 8;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The parameters that determine all keys and values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) seed: u64,
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    /// Whether keys ascend with the numbers of their entries.
    pub(crate) sequential: bool,
}

/// The first eight bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// Fills bytes with the sequence of a start number. It is cheap to generate and to compare, and it
/// does not compress.
fn fill(bytes: &mut [u8], start: u64) {
    let mut next = start;
    for chunk in bytes.chunks_mut(WORD_BYTES) {
        next = next.wrapping_add(STEP);
        chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
    }
}

/// Whether bytes hold the sequence of a start number.
fn is_filled(bytes: &[u8], start: u64) -> bool {
    let mut next = start;
    let mut difference = 0;
    let chunks = bytes.chunks_exact(WORD_BYTES);
    let rest = chunks.remainder();
    for chunk in chunks {
        next = next.wrapping_add(STEP);
        difference |= word(chunk) ^ next;
    }
    difference == 0 && next.wrapping_add(STEP).to_le_bytes().starts_with(rest)
}

impl Data {
    /// Writes the key of an entry.
    pub(crate) fn key(&self, number: u64, key: &mut Vec<u8>) {
        let lead = if self.sequential { number } else { mix(number ^ mix(self.seed)) };
        key.resize(self.key_bytes, 0);
        key[..WORD_BYTES].copy_from_slice(&lead.to_be_bytes());
        fill(&mut key[WORD_BYTES..], mix(lead ^ self.seed));
    }

    /// Writes a value for a key.
    pub(crate) fn value(&self, key: &[u8], version: u64, value: &mut Vec<u8>) {
        value.resize(self.value_bytes, 0);
        value[..WORD_BYTES].copy_from_slice(&version.to_le_bytes());
        fill(&mut value[WORD_BYTES..], self.start_of(key, version));
    }

    /// Whether this is a value of the key, in any version. Compares every byte.
    pub(crate) fn is_correct(&self, key: &[u8], value: &[u8]) -> bool {
        value.len() == self.value_bytes && is_filled(&value[WORD_BYTES..], self.start_of(key, word(value)))
    }

    /// The start number of the sequence in a value.
    fn start_of(&self, key: &[u8], version: u64) -> u64 {
        mix(word(key) ^ version.wrapping_mul(STEP) ^ self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn data(key_bytes: usize, value_bytes: usize, sequential: bool) -> Data {
        Data { seed: 5, key_bytes, value_bytes, sequential }
    }

    #[test]
    fn every_entry_has_a_unique_key() {
        for sequential in [false, true] {
            let data = data(20, 8, sequential);
            let keys: Vec<Vec<u8>> = (0..5000)
                .map(|number| {
                    let mut key = Vec::new();
                    data.key(number, &mut key);
                    key
                })
                .collect();
            assert!(keys.iter().all(|key| key.len() == 20));
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 5000);
            assert_eq!(keys.windows(2).all(|pair| pair[0] < pair[1]), sequential);
        }
    }

    #[test]
    fn a_changed_value_or_another_key_is_detected() {
        for value_bytes in [8, 9, 15, 16, 17, 150, 1001] {
            let data = data(9, value_bytes, false);
            let (mut key, mut other, mut value) = (Vec::new(), Vec::new(), Vec::new());
            data.key(1, &mut key);
            data.key(2, &mut other);
            data.value(&key, 77, &mut value);
            assert!(data.is_correct(&key, &value));
            assert!(!data.is_correct(&key, &value[..value_bytes - 1]));
            // A value that holds only the version has nothing else to compare.
            if value_bytes < 16 {
                continue;
            }
            assert!(!data.is_correct(&other, &value));
            for index in 0..value_bytes {
                value[index] ^= 4;
                assert!(!data.is_correct(&key, &value), "byte {index} of {value_bytes}");
                value[index] ^= 4;
            }
        }
    }
}
