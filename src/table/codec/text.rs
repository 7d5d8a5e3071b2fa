//! Codecs of variable length: text and bytes, borrowed and owned.
//!
//! Floor: table. Outside a tuple and as its last component, the bytes are stored unchanged. Before
//! the last component (see `Part`):
//!
//! ```text
//! "ab"   and u16 7     61 62 00 00       | 00 07
//! "a\0b" and u16 7     61 00 FF 62 00 00 | 00 07
//! ```
//!
//! Invariants:
//!   TEXT-1  in a component a zero byte is followed by 0xFF; 00 00 ends the component; nothing else
//!           may follow a zero.
//!   TEXT-2  bytewise order is the order of items: the end (00 00) sorts before an escaped zero
//!       (00 FF), and that before every byte from 1 on.
//!   TEXT-3  a borrowed component has no zero byte, so its stored bytes are the item.

use super::{Codec, CodecError, Encoded, KeyCodec, Part, PrefixCodec};
use crate::error::{Error, Result};

const END: [u8; 2] = [0, 0];
const ESCAPED_ZERO: [u8; 2] = [0, 0xFF];

fn utf8(bytes: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(bytes)
        .map_err(|e| CodecError::new(format!("not text: no valid UTF-8 from byte {}", e.valid_up_to())))
}

/// Appends a component without zero bytes (TEXT-3).
#[inline]
fn put_plain(bytes: &[u8], out: &mut Encoded<'_>, borrowed: &str, owned: &str) -> Result<()> {
    if bytes.contains(&0) {
        return Err(zero_byte(borrowed, owned));
    }
    out.push(bytes);
    out.push(&END);
    Ok(())
}

#[cold]
fn zero_byte(borrowed: &str, owned: &str) -> Error {
    Error::usage(format!(
        "a {borrowed} that is not the last component of a tuple must not hold a zero byte; \
         declare the component as {owned}, which may"
    ))
}

/// Appends a component with any content (TEXT-1).
pub(super) fn put_escaped(bytes: &[u8], out: &mut Encoded<'_>) {
    let mut chunks = bytes.split(|&byte| byte == 0);
    out.push(chunks.next().unwrap_or_default());
    for chunk in chunks {
        out.push(&ESCAPED_ZERO);
        out.push(chunk);
    }
    out.push(&END);
}

/// Index of the next zero byte, and the byte after it.
#[inline]
fn next_zero(bytes: &[u8]) -> Result<(usize, u8), CodecError> {
    let at = bytes.iter().position(|&byte| byte == 0).ok_or_else(no_end)?;
    let mark = *bytes.get(at + 1).ok_or_else(no_end)?;
    Ok((at, mark))
}

#[cold]
fn no_end() -> CodecError {
    CodecError::new("the component does not end")
}

#[cold]
fn bad_mark(mark: u8) -> CodecError {
    CodecError::new(format!("a zero byte is followed by {mark:#04x}, expected 0x00 or 0xff"))
}

/// Removes a component without zero bytes from the front and returns it.
#[inline]
fn take_plain<'a>(bytes: &mut &'a [u8], owned: &str) -> Result<&'a [u8], CodecError> {
    let (at, mark) = next_zero(bytes)?;
    match mark {
        0 => {
            let item = &bytes[..at];
            *bytes = &bytes[at + END.len()..];
            Ok(item)
        }
        0xFF => Err(CodecError::new(format!("it holds a zero byte, which only {owned} can read"))),
        other => Err(bad_mark(other)),
    }
}

/// Removes a component with any content from the front and returns it.
pub(super) fn take_escaped(bytes: &mut &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut item = Vec::new();
    loop {
        let (at, mark) = next_zero(bytes)?;
        item.extend_from_slice(&bytes[..at]);
        *bytes = &bytes[at + END.len()..];
        match mark {
            0 => return Ok(item),
            0xFF => item.push(0),
            other => return Err(bad_mark(other)),
        }
    }
}

/// Implements the codecs of text and bytes types from their differences.
macro_rules! variable {
    (
        $type:ty, item $item:ty, owned $owned:ty, name $name:literal, prefix $prefix:ty,
        bytes |$given:ident| $bytes:expr,
        decode |$found:ident| $decode:expr,
        to_owned |$borrowed:ident| $to_owned:expr,
        put |$putted:ident, $out:ident| $put:expr,
        take |$from:ident| $take:expr
    ) => {
        impl Codec for $type {
            type Item<'a> = $item;
            type Owned = $owned;

            fn name() -> String {
                $name.to_string()
            }

            #[inline]
            fn encode<'a>($given: &'a Self::Item<'_>) -> Result<Encoded<'a>> {
                Ok(Encoded::Borrowed($bytes))
            }

            #[inline]
            fn decode($found: &[u8]) -> Result<Self::Item<'_>, CodecError> {
                $decode
            }

            #[inline]
            fn to_owned($borrowed: Self::Item<'_>) -> $owned {
                $to_owned
            }
        }

        impl KeyCodec for $type {
            type Key<'a> = $prefix;

            #[inline]
            fn encode_key<'a>($given: &'a Self::Key<'_>) -> Result<Encoded<'a>> {
                Ok(Encoded::Borrowed($bytes))
            }
        }

        impl PrefixCodec for $type {
            type Prefix<'a> = $prefix;

            #[inline]
            fn encode_prefix<'a>($given: &'a Self::Prefix<'_>) -> Result<Encoded<'a>> {
                Ok(Encoded::Borrowed($bytes))
            }
        }

        impl Part for $type {
            #[inline]
            fn put($putted: &Self::Item<'_>, $out: &mut Encoded<'_>) -> Result<()> {
                $put
            }

            #[inline]
            fn take<'a>($from: &mut &'a [u8]) -> Result<Self::Item<'a>, CodecError> {
                $take
            }
        }
    };
}

variable! {
    &str, item &'a str, owned String, name "str", prefix &'a str,
    bytes |item| item.as_bytes(),
    decode |bytes| utf8(bytes),
    to_owned |item| item.to_string(),
    put |item, out| put_plain(item.as_bytes(), out, "&str", "String"),
    take |bytes| take_plain(bytes, "String").and_then(utf8)
}

variable! {
    String, item String, owned String, name "str", prefix &'a str,
    bytes |item| item.as_bytes(),
    decode |bytes| utf8(bytes).map(str::to_string),
    to_owned |item| item,
    put |item, out| {
        put_escaped(item.as_bytes(), out);
        Ok(())
    },
    take |bytes| String::from_utf8(take_escaped(bytes)?).map_err(|e| {
        CodecError::new(format!("not text: no valid UTF-8 from byte {}", e.utf8_error().valid_up_to()))
    })
}

variable! {
    &[u8], item &'a [u8], owned Vec<u8>, name "bytes", prefix &'a [u8],
    bytes |item| item,
    decode |bytes| Ok(bytes),
    to_owned |item| item.to_vec(),
    put |item, out| put_plain(item, out, "&[u8]", "Vec<u8>"),
    take |bytes| take_plain(bytes, "Vec<u8>")
}

variable! {
    Box<[u8]>, item Box<[u8]>, owned Box<[u8]>, name "bytes", prefix &'a [u8],
    bytes |item| item,
    decode |bytes| Ok(bytes.into()),
    to_owned |item| item,
    put |item, out| {
        put_escaped(item, out);
        Ok(())
    },
    take |bytes| take_escaped(bytes).map(Vec::into_boxed_slice)
}
