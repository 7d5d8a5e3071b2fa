//! Lists: `Vec<T>`, whose elements are parts.
//!
//! Floor: table. A list is its elements, one after the other; each shows where it ends. Before the
//! last component of a tuple, a one (01) stands before each element and a zero (00) at the end.
//! Lists sort by their first elements, then by their second, and so on; a list sorts before every
//! longer list that it begins.
//!
//! `Vec<u8>` is the codec `bytes`: `u8` overrides the five functions of [`Part`] for lists.
//!
//! Invariants:
//!   LIST-1  an element of a list that is no component has at least one byte: of elements without
//!       bytes, the number would be lost.
//!
//! Memory: a list is decoded element by element, so a short value never reserves much memory. It
//! takes the size of the item in memory for each element.

use super::{Codec, CodecError, Encoded, KeyCodec, Part, PrefixCodec};
use crate::error::{Error, Result};

/// Before an element, in a component.
const MORE: u8 = 1;
/// After the last element, in a component.
const END: u8 = 0;

impl<C: Part> Codec for Vec<C> {
    type Item<'a> = Vec<C::Item<'a>>;
    type Owned = Vec<C::Owned>;

    fn name() -> String {
        C::list_name()
    }

    #[inline]
    fn encode<'a>(item: &'a Self::Item<'_>) -> Result<Encoded<'a>> {
        C::encode_list(item)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self::Item<'_>, CodecError> {
        C::decode_list(bytes)
    }

    fn to_owned(item: Self::Item<'_>) -> Self::Owned {
        item.into_iter().map(C::to_owned).collect()
    }
}

impl<C: Part + KeyCodec + for<'a> Codec<Item<'a> = <C as Codec>::Owned>> KeyCodec for Vec<C> {
    type Key<'a> = &'a [C::Owned];

    #[inline]
    fn encode_key<'a>(key: &'a Self::Key<'_>) -> Result<Encoded<'a>> {
        C::encode_list(key)
    }
}

impl<C: Part + KeyCodec + for<'a> Codec<Item<'a> = <C as Codec>::Owned>> PrefixCodec for Vec<C> {
    type Prefix<'a> = &'a [C::Owned];

    #[inline]
    fn encode_prefix<'a>(prefix: &'a Self::Prefix<'_>) -> Result<Encoded<'a>> {
        C::encode_list(prefix)
    }
}

impl<C: Part> Part for Vec<C> {
    #[inline]
    fn put(item: &Self::Item<'_>, out: &mut Encoded<'_>) -> Result<()> {
        C::put_list(item, out)
    }

    #[inline]
    fn take<'a>(bytes: &mut &'a [u8]) -> Result<Self::Item<'a>, CodecError> {
        C::take_list(bytes)
    }
}

/// The bytes of a list of any elements but `u8`.
pub(super) fn encode<C: Part + ?Sized>(items: &[C::Item<'_>]) -> Result<Encoded<'static>> {
    let mut out = Encoded::new();
    for item in items {
        let start = out.len();
        C::put(item, &mut out)?;
        if out.len() == start {
            return Err(no_bytes(&C::name()));
        }
    }
    Ok(out)
}

#[cold]
fn no_bytes(element: &str) -> Error {
    Error::usage(format!(
        "an element of Vec<{element}> has no bytes, so the number of elements would be lost; store the number"
    ))
}

/// A list of any elements but `u8`.
pub(super) fn decode<C: Part + ?Sized>(bytes: &[u8]) -> Result<Vec<C::Item<'_>>, CodecError> {
    let (mut items, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let before = rest.len();
        items.push(C::take(&mut rest).map_err(|e| e.in_element(items.len() + 1, &C::list_name()))?);
        if rest.len() == before {
            return Err(CodecError::new(format!("{before} bytes where an element of {} has none", C::list_name())));
        }
    }
    Ok(items)
}

/// Appends a list of any elements but `u8` as a component.
pub(super) fn put<C: Part + ?Sized>(items: &[C::Item<'_>], out: &mut Encoded<'_>) -> Result<()> {
    for item in items {
        out.push(&[MORE]);
        C::put(item, out)?;
    }
    out.push(&[END]);
    Ok(())
}

/// Removes a component that is a list of any elements but `u8` from the front and returns it.
pub(super) fn take<'a, C: Part + ?Sized>(bytes: &mut &'a [u8]) -> Result<Vec<C::Item<'a>>, CodecError> {
    let mut items = Vec::new();
    loop {
        let (&mark, rest) = bytes.split_first().ok_or_else(|| CodecError::new("the list does not end"))?;
        *bytes = rest;
        match mark {
            END => return Ok(items),
            MORE => items.push(C::take(bytes).map_err(|e| e.in_element(items.len() + 1, &C::list_name()))?),
            other => return Err(CodecError::new(format!("a list goes on with {other:#04x}, expected 0x00 or 0x01"))),
        }
    }
}
