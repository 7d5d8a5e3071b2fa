//! Keys and values. The number of an entry determines its key; key, version and seed determine its
//! value, so that `bench` can verify any value.
//!
//! A key begins with eight bytes that are unique: the entry's number or, for random order, its
//! mixed bits. They determine the rest of the key. A value begins with its version.

use serde::{Deserialize, Serialize};

use crate::random::mix;

/// Bytes of a key that make it unique, and bytes of a version.
pub(crate) const WORD_BYTES: usize = 8;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The shape of the entries, without their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) seed: u64,
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    /// Keys ascend with the numbers of their entries.
    pub(crate) sequential: bool,
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// Fills bytes with a sequence that starts at a number. It is cheap to generate and compare, and
/// does not compress.
fn fill(bytes: &mut [u8], from: u64) {
    let mut next = from;
    for chunk in bytes.chunks_mut(WORD_BYTES) {
        next = next.wrapping_add(STEP);
        chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
    }
}

fn is_filled(bytes: &[u8], from: u64) -> bool {
    let mut next = from;
    let mut differ = 0;
    let chunks = bytes.chunks_exact(WORD_BYTES);
    let rest = chunks.remainder();
    for chunk in chunks {
        next = next.wrapping_add(STEP);
        differ |= word(chunk) ^ next;
    }
    differ == 0 && next.wrapping_add(STEP).to_le_bytes().starts_with(rest)
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
        fill(&mut value[WORD_BYTES..], self.beginning(key, version));
    }

    /// Whether this is a value of the key, of any version. Compares every byte.
    pub(crate) fn is_right(&self, key: &[u8], value: &[u8]) -> bool {
        value.len() == self.value_bytes && is_filled(&value[WORD_BYTES..], self.beginning(key, word(value)))
    }

    fn beginning(&self, key: &[u8], version: u64) -> u64 {
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
    fn a_changed_value_is_not_accepted() {
        for value_bytes in [8, 9, 15, 16, 17, 150, 1001] {
            let data = data(9, value_bytes, false);
            let (mut key, mut other, mut value) = (Vec::new(), Vec::new(), Vec::new());
            data.key(1, &mut key);
            data.key(2, &mut other);
            data.value(&key, 77, &mut value);
            assert!(data.is_right(&key, &value));
            assert!(!data.is_right(&key, &value[..value_bytes - 1]));
            // A value that holds only the version has nothing else to compare.
            if value_bytes < 16 {
                continue;
            }
            assert!(!data.is_right(&other, &value));
            for at in 0..value_bytes {
                value[at] ^= 4;
                assert!(!data.is_right(&key, &value), "byte {at} of {value_bytes}");
                value[at] ^= 4;
            }
        }
    }
}
