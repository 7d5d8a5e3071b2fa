//! The frame of codecs of fixed length.
//!
//! Floor: table.

use super::CodecError;

/// The bytes as an array, or an error with both lengths.
#[inline]
pub(super) fn exactly<const N: usize>(bytes: &[u8], name: &str) -> Result<[u8; N], CodecError> {
    bytes.try_into().map_err(|_| wrong_length(bytes.len(), N, name))
}

#[cold]
pub(super) fn wrong_length(found: usize, wanted: usize, name: &str) -> CodecError {
    CodecError::new(format!("{found} bytes where {name} has {wanted}"))
}

/// Removes `N` bytes from the front and returns them.
#[inline]
pub(super) fn split<'a, const N: usize>(bytes: &mut &'a [u8], name: &str) -> Result<&'a [u8; N], CodecError> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(|| wrong_length(bytes.len(), N, name))?;
    *bytes = rest;
    Ok(first)
}

/// Implements a codec of fixed length from its name and two expressions: item to array, and array
/// to item or error. The first one may return an error by `?`.
macro_rules! fixed {
    ($(#[$doc:meta])* $type:ty, $name:expr, $bytes:expr, |$item:ident| $to:expr, |$array:ident| $from:expr $(, { $($lists:item)* })?) => {
        $(#[$doc])*
        impl Codec for $type {
            type Item<'a> = $type;
            type Owned = $type;

            fn name() -> String {
                $name.to_string()
            }

            #[inline]
            fn encode<'a>(item: &'a Self::Item<'_>) -> Result<Encoded<'a>> {
                let $item = *item;
                let array: [u8; $bytes] = $to;
                Ok(Encoded::copied(&array))
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<$type, CodecError> {
                let $array: [u8; $bytes] = exactly(bytes, $name)?;
                $from
            }

            #[inline]
            fn to_owned(item: Self::Item<'_>) -> $type {
                item
            }

            fn fixed_bytes() -> Option<usize> {
                Some($bytes)
            }
        }

        impl KeyCodec for $type {
            type Key<'a> = Self::Item<'a>;

            #[inline]
            fn encode_key<'a>(key: &'a Self::Key<'_>) -> Result<Encoded<'a>> {
                Self::encode(key)
            }
        }

        impl Part for $type {
            #[inline]
            fn put(item: &Self::Item<'_>, out: &mut Encoded<'_>) -> Result<()> {
                let $item = *item;
                let array: [u8; $bytes] = $to;
                out.push(&array);
                Ok(())
            }

            #[inline]
            fn take(bytes: &mut &[u8]) -> Result<$type, CodecError> {
                let $array: [u8; $bytes] = *split(bytes, $name)?;
                $from
            }

            $($($lists)*)?
        }
    };
}

pub(super) use fixed;
