//! Descending order: `std::cmp::Reverse<T>`.
//!
//! Floor: table. The bytes are those of `T` as a component of a tuple, each inverted. No encoded
//! component is a prefix of another one, so two of them differ in a byte that both have, and
//! inverting that byte turns their order around.
//!
//! Invariants:
//!   REVERSE-1  an item is decoded from a copy of inverted bytes, so it must borrow nothing.

use std::cmp::Reverse;

use super::{Codec, CodecError, Encoded, KeyCodec, Part};
use crate::error::Result;

/// Bytes to invert at first. Most items are shorter.
pub(super) const FIRST_BYTES: usize = 32;
/// Each time that an item turns out to be longer, this many times as many bytes are inverted.
const STEP: usize = 4;

fn invert(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

/// An owned item, which can be decoded from a temporary copy (REVERSE-1).
trait OwnedPart: Part + for<'a> Codec<Item<'a> = <Self as Codec>::Owned> {}

impl<C: Part + for<'a> Codec<Item<'a> = <C as Codec>::Owned>> OwnedPart for C {}

/// Decodes an item at the start of these inverted bytes; also returns its length.
fn take_inverted<C: OwnedPart>(inverted: &[u8]) -> Result<(C::Owned, usize), CodecError> {
    let mut rest = inverted;
    let item = C::take(&mut rest)?;
    Ok((item, inverted.len() - rest.len()))
}

/// Decodes an item at the start of `bytes`; also returns its length. Inverts some bytes, and more
/// if they do not decode, so that the time depends on the item, not on the bytes after it.
#[inline]
fn take_reversed<C: OwnedPart>(bytes: &[u8]) -> Result<(C::Owned, usize), CodecError> {
    let mut room = [0; FIRST_BYTES];
    let first = &mut room[..bytes.len().min(FIRST_BYTES)];
    first.copy_from_slice(&bytes[..first.len()]);
    invert(first);
    match take_inverted::<C>(first) {
        Err(_) if bytes.len() > FIRST_BYTES => take_longer::<C>(bytes),
        taken => taken,
    }
}

fn take_longer<C: OwnedPart>(bytes: &[u8]) -> Result<(C::Owned, usize), CodecError> {
    let mut tried = FIRST_BYTES;
    loop {
        tried = tried.saturating_mul(STEP).min(bytes.len());
        let mut inverted = bytes[..tried].to_vec();
        invert(&mut inverted);
        match take_inverted::<C>(&inverted) {
            Err(_) if tried < bytes.len() => {}
            taken => return taken,
        }
    }
}

/// Descending order. The item is `Reverse<T>`; `T` must be an owned type, such as `String` instead
/// of `&str`, because a reversed item is decoded to a copy.
///
/// The bytes are those of `T` as a component before the last one of a tuple, each of them inverted.
///
/// ```
/// use std::cmp::Reverse;
/// use mapleaf::codec::Codec;
/// use mapleaf::{Db, Table};
///
/// assert_eq!(*Reverse::<u16>::encode(&Reverse(1))?, [0xFF, 0xFE]);
/// assert_eq!(Reverse::<u16>::name(), "Reverse<u16>");
///
/// // The newest message of each user first.
/// const MESSAGES: Table<(&str, Reverse<u64>), &str> = Table::new("messages");
///
/// let db = Db::in_memory()?;
/// db.write(|txn| {
///     let mut messages = txn.table(MESSAGES)?;
///     messages.insert(("ada", Reverse(1)), "hello")?;
///     messages.insert(("ada", Reverse(2)), "are you there?")?;
///     Ok::<_, mapleaf::Error>(())
/// })?;
/// let messages = db.begin_read()?.table(MESSAGES)?;
/// let newest = messages.prefix("ada")?.next().transpose()?;
/// assert_eq!(newest, Some((("ada", Reverse(2)), "are you there?")));
/// # Ok::<(), mapleaf::Error>(())
/// ```
impl<C: Part + for<'a> Codec<Item<'a> = <C as Codec>::Owned>> Codec for Reverse<C> {
    type Item<'a> = Reverse<C::Owned>;
    type Owned = Reverse<C::Owned>;

    fn name() -> String {
        format!("Reverse<{}>", C::name())
    }

    #[inline]
    fn encode<'a>(item: &'a Self::Item<'_>) -> Result<Encoded<'a>> {
        let mut out = Encoded::new();
        Self::put(item, &mut out)?;
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self::Item<'_>, CodecError> {
        match take_reversed::<C>(bytes)? {
            (item, len) if len == bytes.len() => Ok(Reverse(item)),
            (_, len) => Err(CodecError::new(format!("{} bytes after {}", bytes.len() - len, Self::name()))),
        }
    }

    fn to_owned(item: Self::Item<'_>) -> Self::Owned {
        item
    }

    fn fixed_bytes() -> Option<usize> {
        C::fixed_bytes()
    }
}

impl<C: Part + KeyCodec + for<'a> Codec<Item<'a> = <C as Codec>::Owned>> KeyCodec for Reverse<C> {
    type Key<'a> = Reverse<C::Owned>;

    #[inline]
    fn encode_key<'a>(key: &'a Self::Key<'_>) -> Result<Encoded<'a>> {
        Self::encode(key)
    }
}

impl<C: Part + for<'a> Codec<Item<'a> = <C as Codec>::Owned>> Part for Reverse<C> {
    #[inline]
    fn put(item: &Self::Item<'_>, out: &mut Encoded<'_>) -> Result<()> {
        let start = out.len();
        C::put(&item.0, out)?;
        invert(&mut out.bytes_mut()[start..]);
        Ok(())
    }

    #[inline]
    fn take<'a>(bytes: &mut &'a [u8]) -> Result<Self::Item<'a>, CodecError> {
        let (item, len) = take_reversed::<C>(bytes)?;
        *bytes = &bytes[len..];
        Ok(Reverse(item))
    }
}
