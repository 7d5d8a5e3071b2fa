//! The bytes of dates and times, for the types of the crates `chrono` and `time`.
//!
//! Floor: table. Numbers are big-endian, with the sign bit of signed ones inverted, so that the
//! bytes sort by time.
//!
//! | name | bytes |
//! |---|---|
//! | `timestamp`, `duration` | seconds i64 (since 1970, UTC), nanoseconds u32 |
//! | `date` | days since 1970-01-01, i32 |
//! | `time` | seconds since midnight u32, nanoseconds u32 |
//! | `datetime` | a `date`, then a `time` |
//!
//! Nanoseconds of 10^9 and more are the leap second after the second. Only `chrono` has them.
//!
//! Failure: bytes of times that the type cannot represent.

use super::CodecError;
use crate::error::Error;

/// Nanoseconds of a second.
pub(super) const SECOND: u32 = 1_000_000_000;

/// Seconds, and nanoseconds after them.
pub(super) fn seconds(seconds: i64, nanoseconds: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&(seconds ^ i64::MIN).to_be_bytes());
    bytes[8..].copy_from_slice(&nanoseconds.to_be_bytes());
    bytes
}

pub(super) fn read_seconds(bytes: [u8; 12]) -> (i64, u32) {
    let [a, b, c, d, e, f, g, h, nanoseconds @ ..] = bytes;
    (i64::from_be_bytes([a, b, c, d, e, f, g, h]) ^ i64::MIN, u32::from_be_bytes(nanoseconds))
}

/// Days since 1970-01-01.
pub(super) fn days(days: i32) -> [u8; 4] {
    (days ^ i32::MIN).to_be_bytes()
}

pub(super) fn read_days(bytes: [u8; 4]) -> i32 {
    i32::from_be_bytes(bytes) ^ i32::MIN
}

/// Seconds since midnight, and nanoseconds after them.
pub(super) fn time_of_day(seconds: u32, nanoseconds: u32) -> [u8; 8] {
    (u64::from(seconds) << 32 | u64::from(nanoseconds)).to_be_bytes()
}

pub(super) fn read_time_of_day(bytes: [u8; 8]) -> (u32, u32) {
    let both = u64::from_be_bytes(bytes);
    ((both >> 32) as u32, both as u32)
}

/// A `date`, then a `time`.
pub(super) fn both(date: [u8; 4], time: [u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&date);
    bytes[4..].copy_from_slice(&time);
    bytes
}

pub(super) fn read_both(bytes: [u8; 12]) -> ([u8; 4], [u8; 8]) {
    let [a, b, c, d, time @ ..] = bytes;
    ([a, b, c, d], time)
}

/// A duration as whole seconds, rounded down, and nanoseconds after them. `None` if these seconds
/// are out of range.
pub(super) fn floor(seconds: i64, nanoseconds: i32) -> Option<(i64, u32)> {
    match u32::try_from(nanoseconds) {
        Ok(nanoseconds) => Some((seconds, nanoseconds)),
        Err(_) => Some((seconds.checked_sub(1)?, SECOND.checked_add_signed(nanoseconds)?)),
    }
}

#[cold]
pub(super) fn no_such(what: &str, kind: &str, number: i64, nanoseconds: u32) -> CodecError {
    CodecError::new(format!("{number} and {nanoseconds} ns is no {what} that {kind} can represent"))
}

#[cold]
pub(super) fn out_of_range(what: &str) -> Error {
    Error::usage(format!("this {what} is too far away to be stored"))
}
