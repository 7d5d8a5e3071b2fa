//! Scalar types of fixed length: integers, floats, `bool` and `char`.
//!
//! [`SCALARS`] lists them. Each uses the library's codec for bytes and adds the text.

use mapleaf::codec::Codec;

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

/// All scalar types.
pub(super) static SCALARS: [Scalar; 14] = [
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
];
