//! Options: `Option<T>`.
//!
//! Floor: table. `None` is a zero (00), `Some` a one (01) and the item. `None` sorts first.

use super::{Codec, CodecError, Encoded, KeyCodec, Part};
use crate::error::Result;

const NONE: u8 = 0;
const SOME: u8 = 1;

/// Removes the first byte: whether there is an item.
#[inline]
fn is_some(bytes: &mut &[u8]) -> Result<bool, CodecError> {
    let (&mark, rest) = bytes.split_first().ok_or_else(|| CodecError::new("an Option has at least one byte, not 0"))?;
    *bytes = rest;
    match mark {
        NONE => Ok(false),
        SOME => Ok(true),
        other => Err(CodecError::new(format!("an Option begins with {other:#04x}, expected 0x00 or 0x01"))),
    }
}

/// The bytes of an option, of which `some` are the bytes of the item.
#[inline]
fn whole(some: Option<Encoded<'_>>) -> Encoded<'static> {
    let Some(item) = some else { return Encoded::copied(&[NONE]) };
    let mut out = Encoded::copied(&[SOME]);
    out.push(&item);
    out
}

impl<C: Codec> Codec for Option<C> {
    type Item<'a> = Option<C::Item<'a>>;
    type Owned = Option<C::Owned>;

    fn name() -> String {
        format!("Option<{}>", C::name())
    }

    #[inline]
    fn encode<'a>(item: &'a Self::Item<'_>) -> Result<Encoded<'a>> {
        Ok(whole(item.as_ref().map(C::encode).transpose()?))
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self::Item<'_>, CodecError> {
        let mut rest = bytes;
        match is_some(&mut rest)? {
            true => Ok(Some(C::decode(rest)?)),
            false if rest.is_empty() => Ok(None),
            false => Err(CodecError::new(format!("{} bytes after None", rest.len()))),
        }
    }

    fn to_owned(item: Self::Item<'_>) -> Self::Owned {
        item.map(C::to_owned)
    }
}

impl<C: KeyCodec> KeyCodec for Option<C> {
    type Key<'a> = Option<C::Key<'a>>;

    #[inline]
    fn encode_key<'a>(key: &'a Self::Key<'_>) -> Result<Encoded<'a>> {
        Ok(whole(key.as_ref().map(C::encode_key).transpose()?))
    }
}

impl<C: Part> Part for Option<C> {
    #[inline]
    fn put(item: &Self::Item<'_>, out: &mut Encoded<'_>) -> Result<()> {
        match item {
            None => out.push(&[NONE]),
            Some(item) => {
                out.push(&[SOME]);
                C::put(item, out)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn take<'a>(bytes: &mut &'a [u8]) -> Result<Self::Item<'a>, CodecError> {
        Ok(match is_some(bytes)? {
            true => Some(C::take(bytes)?),
            false => None,
        })
    }
}
