//! Entries generated from their numbers: random-looking keys of 24 bytes and values of 150.

pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub(crate) fn key(number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    for (word, bytes) in (1..).zip(key.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&mix(number * 3 + word).to_be_bytes());
    }
    key
}

pub(crate) fn value(number: u64) -> [u8; 150] {
    let mut value = [0; 150];
    for (word, bytes) in (0..).zip(value.chunks_mut(8)) {
        bytes.copy_from_slice(&mix(number ^ word << 32).to_le_bytes()[..bytes.len()]);
    }
    value
}
