//! Scalar types of fixed length: integers, floats, `bool`, `char`, UUIDs, dates and times.
//!
//! [`SCALARS`] lists them. Each uses the library's codec for bytes and adds the text; those of
//! optional features of the library are converted here and in `calendar`.

use mapleaf::codec::Codec;

use super::calendar;
use crate::format::bytes::{from_hex, write_hex};

/// A type of fixed length.
#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) name: &'static str,
    /// Length of an item, in bytes.
    pub(super) bytes: usize,
    /// Describes the text, for errors.
    pub(super) expected: fn() -> String,
    /// Whether items are strings in a JSON array.
    pub(super) is_quoted: bool,
    /// Stored bytes to text.
    pub(super) show: fn(&[u8]) -> Result<String, String>,
    /// Text to stored bytes.
    pub(super) read: fn(&str) -> Option<Vec<u8>>,
}

/// The stored bytes of a parsed item.
macro_rules! stored {
    ($type:ty, $item:expr) => {
        <$type>::encode(&$item).ok().map(|bytes| bytes.to_vec())
    };
}

macro_rules! scalar {
    ($type:ty, $is_quoted:literal, $expected:expr, |$item:ident| $show:expr, |$text:ident| $read:expr) => {
        Scalar {
            name: stringify!($type),
            bytes: size_of::<$type>(),
            expected: || $expected.to_string(),
            is_quoted: $is_quoted,
            show: |bytes| {
                let $item = <$type>::decode(bytes).map_err(|error| error.to_string())?;
                Ok($show)
            },
            read: |$text| {
                let item: Option<$type> = $read;
                stored!($type, item?)
            },
        }
    };
}

macro_rules! integer {
    ($type:ty) => {
        scalar!(
            $type,
            false,
            format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX),
            |item| item.to_string(),
            // `parse` also accepts a plus sign, which `show` never writes.
            |text| if text.starts_with('+') { None } else { text.parse().ok() }
        )
    };
}

/// The text of a NaN with unusual bits contains the bits, so that the same bytes are stored again.
macro_rules! float {
    ($type:ty, $bits:ty) => {
        scalar!(
            $type,
            false,
            "a number such as 1.5 or -2e300, or inf, -inf, NaN",
            |item| match item.to_bits() {
                bits if item.is_nan() && bits != <$type>::NAN.to_bits() => format!("NaN({bits:#x})"),
                _ => format!("{item:?}"),
            },
            |text| match text {
                "NaN" => Some(<$type>::NAN),
                "inf" => Some(<$type>::INFINITY),
                "-inf" => Some(<$type>::NEG_INFINITY),
                _ => match text.strip_prefix("NaN(0x").and_then(|rest| rest.strip_suffix(')')) {
                    Some(digits) if !digits.starts_with('+') => {
                        <$bits>::from_str_radix(digits, 16).ok().map(<$type>::from_bits).filter(|item| item.is_nan())
                    }
                    _ => finite(text).and_then(|text| text.parse().ok()).filter(|item: &$type| item.is_finite()),
                },
            }
        )
    };
}

/// The text, if it begins like a number. `parse` also accepts words such as `infinity`.
fn finite(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.').then_some(text)
}

/// A date or time.
macro_rules! moment {
    ($name:literal, $bytes:literal, $expected:literal, $show:ident, $read:ident) => {
        Scalar {
            name: $name,
            bytes: $bytes,
            expected: || $expected.to_string(),
            is_quoted: true,
            show: calendar::$show,
            read: calendar::$read,
        }
    };
}

/// Places of the hyphens in the text of a UUID.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

fn show_uuid(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() != 16 {
        return Err(format!("{} bytes, expected 16", bytes.len()));
    }
    let mut digits = Vec::new();
    write_hex(bytes, &mut digits);
    let mut text = String::from_utf8_lossy(&digits).into_owned();
    HYPHENS.iter().for_each(|at| text.insert(*at, '-'));
    Ok(text)
}

fn read_uuid(text: &str) -> Option<Vec<u8>> {
    let has_form =
        text.len() == 36 && text.bytes().enumerate().all(|(at, byte)| (byte == b'-') == HYPHENS.contains(&at));
    from_hex(text.replace('-', "").as_bytes()).ok().filter(|_| has_form)
}

/// All scalar types.
pub(super) static SCALARS: [Scalar; 20] = [
    integer!(u8),
    integer!(u16),
    integer!(u32),
    integer!(u64),
    integer!(u128),
    integer!(i8),
    integer!(i16),
    integer!(i32),
    integer!(i64),
    integer!(i128),
    float!(f32, u32),
    float!(f64, u64),
    scalar!(bool, false, "true or false", |item| item.to_string(), |text| text.parse().ok()),
    scalar!(char, true, "one character", |item| item.to_string(), |text| text.parse().ok()),
    Scalar {
        name: "uuid",
        bytes: 16,
        expected: || "a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8".to_string(),
        is_quoted: true,
        show: show_uuid,
        read: read_uuid,
    },
    moment!("timestamp", 12, "a time in UTC such as 2024-02-29T12:00:00.5Z", show_timestamp, read_timestamp),
    moment!("datetime", 12, "a date and time such as 2024-02-29T12:00:00.5", show_datetime, read_datetime),
    moment!("date", 4, "a date such as 2024-02-29", show_date, read_date),
    moment!("time", 8, "a time such as 12:00:00.5", show_time, read_time),
    moment!("duration", 12, "a number of seconds such as -1.5", show_duration, read_duration),
];
