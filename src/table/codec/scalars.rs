//! Codecs of fixed length: integers, floats, `bool`, `char`, byte arrays and the unit.
//!
//! Floor: table. Big-endian, so that bytes sort like the numbers. The sign bit of signed numbers is
//! flipped, so that negative numbers sort first.

use super::fixed::{exactly, fixed, split, wrong_length};
use super::text::{put_escaped, take_escaped};
use super::{Codec, CodecError, Encoded, KeyCodec, Part, PrefixCodec};
use crate::error::Result;

macro_rules! unsigned {
    ($($type:ty)*) => { $(
        fixed!($type, stringify!($type), { size_of::<$type>() }, |item| item.to_be_bytes(), |bytes| Ok(<$type>::from_be_bytes(bytes)));
    )* };
}

macro_rules! signed {
    ($($type:ty)*) => { $(
        fixed!(
            $type,
            stringify!($type),
            { size_of::<$type>() },
            |item| (item ^ <$type>::MIN).to_be_bytes(),
            |bytes| Ok(<$type>::from_be_bytes(bytes) ^ <$type>::MIN)
        );
    )* };
}

/// Floats in the order of `total_cmp`: negative ones have all bits flipped, others only the sign
/// bit.
macro_rules! float {
    ($($type:ty, $bits:ty, $sign:expr;)*) => { $(
        fixed!(
            $type,
            stringify!($type),
            { size_of::<$type>() },
            |item| {
                let bits = item.to_bits();
                (if bits & $sign == 0 { bits | $sign } else { !bits }).to_be_bytes()
            },
            |bytes| {
                let bits = <$bits>::from_be_bytes(bytes);
                Ok(<$type>::from_bits(if bits & $sign == 0 { !bits } else { bits & !$sign }))
            }
        );
    )* };
}

// A list of `u8` is the codec `bytes`.
fixed!(u8, "u8", 1, |item| [item], |bytes| Ok(bytes[0]), {
    fn list_name() -> String {
        "bytes".to_string()
    }

    #[inline]
    fn encode_list<'a>(items: &'a [u8]) -> Result<Encoded<'a>> {
        Ok(Encoded::Borrowed(items))
    }

    #[inline]
    fn decode_list(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }

    fn put_list(items: &[u8], out: &mut Encoded<'_>) -> Result<()> {
        put_escaped(items, out);
        Ok(())
    }

    fn take_list(bytes: &mut &[u8]) -> Result<Vec<u8>, CodecError> {
        take_escaped(bytes)
    }
});
unsigned!(u16 u32 u64 u128);
signed!(i8 i16 i32 i64 i128);
float! {
    f32, u32, 1 << 31;
    f64, u64, 1 << 63;
}

fixed!(bool, "bool", 1, |item| [u8::from(item)], |bytes| match bytes[0] {
    0 => Ok(false),
    1 => Ok(true),
    other => Err(CodecError::new(format!("{other} is not a bool (0 or 1)"))),
});

fixed!(char, "char", 4, |item| u32::from(item).to_be_bytes(), |bytes| {
    let code = u32::from_be_bytes(bytes);
    char::from_u32(code).ok_or_else(|| CodecError::new(format!("{code:#x} is not a char")))
});

fn array_name<const N: usize>() -> String {
    format!("[u8;{N}]")
}

/// Implements `[u8; N]`, which copies the array when decoding, and `&[u8; N]`, which borrows it.
macro_rules! byte_array {
    ($type:ty, item $item_type:ty, |$found:ident| $from:expr, |$item:ident| $owned:expr) => {
        impl<const N: usize> Codec for $type {
            type Item<'a> = $item_type;
            type Owned = [u8; N];

            fn name() -> String {
                array_name::<N>()
            }

            #[inline]
            fn encode<'a>(item: &'a Self::Item<'_>) -> Result<Encoded<'a>> {
                Ok(Encoded::Borrowed(&item[..]))
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<Self::Item<'_>, CodecError> {
                let $found: &[u8; N] =
                    bytes.try_into().map_err(|_| wrong_length(bytes.len(), N, &array_name::<N>()))?;
                Ok($from)
            }

            #[inline]
            fn to_owned($item: Self::Item<'_>) -> [u8; N] {
                $owned
            }

            fn fixed_bytes() -> Option<usize> {
                Some(N)
            }
        }

        impl<const N: usize> KeyCodec for $type {
            type Key<'a> = Self::Item<'a>;

            #[inline]
            fn encode_key<'a>(key: &'a Self::Key<'_>) -> Result<Encoded<'a>> {
                Self::encode(key)
            }
        }

        impl<const N: usize> PrefixCodec for $type {
            type Prefix<'a> = &'a [u8];

            #[inline]
            fn encode_prefix<'a>(prefix: &'a Self::Prefix<'_>) -> Result<Encoded<'a>> {
                Ok(Encoded::Borrowed(prefix))
            }
        }

        impl<const N: usize> Part for $type {
            #[inline]
            fn put(item: &Self::Item<'_>, out: &mut Encoded<'_>) -> Result<()> {
                out.push(&item[..]);
                Ok(())
            }

            #[inline]
            fn take<'a>(bytes: &mut &'a [u8]) -> Result<Self::Item<'a>, CodecError> {
                let (first, rest) =
                    bytes.split_first_chunk::<N>().ok_or_else(|| wrong_length(bytes.len(), N, &array_name::<N>()))?;
                *bytes = rest;
                let $found = first;
                Ok($from)
            }
        }
    };
}

byte_array!([u8; N], item [u8; N], |found| *found, |item| item);
byte_array!(&[u8; N], item &'a [u8; N], |found| found, |item| *item);

impl Codec for () {
    type Item<'a> = ();
    type Owned = ();

    fn name() -> String {
        "()".to_string()
    }

    #[inline]
    fn encode<'a>(_: &'a Self::Item<'_>) -> Result<Encoded<'a>> {
        Ok(Encoded::new())
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<(), CodecError> {
        exactly::<0>(bytes, "()").map(|_| ())
    }

    fn to_owned(_: Self::Item<'_>) {}
}
