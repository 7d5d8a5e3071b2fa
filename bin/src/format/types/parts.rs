//! Finds the end of an item in the stored bytes of a tuple or list, and marks it when writing.
//!
//! The bytes of an item before the last one of a tuple, and in a list, are a *part*: it shows where
//! it ends. [`take`] makes the item's own bytes of a part, [`put`] a part of these bytes.
//!
//! Failure: bytes that are no part of the type.

use std::borrow::Cow;

use mapleaf::codec::{Encoded, Part};

use super::{Type, TypeKind};

/// Bytes of a descending item that are inverted at first, and how many times as many then.
const INVERTED_BYTES: usize = 64;
const INVERTED_STEP: usize = 8;

/// Removes a part from the front of `rest`; returns the bytes of the item by itself.
pub(super) fn take<'a>(part: &Type, rest: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    let fixed = |count: usize, rest: &mut &'a [u8]| {
        let too_short = || format!("{} bytes where {} has {count}", rest.len(), part.name);
        let (taken, after) = rest.split_at_checked(count).ok_or_else(too_short)?;
        *rest = after;
        Ok(Cow::Borrowed(taken))
    };
    match &part.kind {
        TypeKind::Scalar(scalar) => fixed(scalar.bytes, rest),
        TypeKind::Array(count) => fixed(*count, rest),
        TypeKind::Bytes | TypeKind::Str => <Vec<u8>>::take(rest).map(Cow::Owned).map_err(|error| error.to_string()),
        TypeKind::Tuple(parts) => take_tuple(parts, rest),
        TypeKind::Option(inner) => match mark(rest)? {
            0 => Ok(Cow::Borrowed(&[0])),
            1 => Ok(Cow::Owned([&[1], &*take(inner, rest)?].concat())),
            other => Err(format!("an Option begins with {other:#04x}, expected 0x00 or 0x01")),
        },
        TypeKind::List(element) => {
            let mut list = Vec::new();
            loop {
                match mark(rest)? {
                    0 => return Ok(Cow::Owned(list)),
                    1 => list.extend_from_slice(span(element, rest)?),
                    other => return Err(format!("a list goes on with {other:#04x}, expected 0x00 or 0x01")),
                }
            }
        }
        TypeKind::Reverse(inner) => fixed(take_inverted(inner, rest)?.1, rest),
        TypeKind::Unit | TypeKind::Json | TypeKind::Unknown => Err(format!("{} does not show its end", part.name)),
    }
}

/// Removes a part from the front of `rest` and returns its bytes.
pub(super) fn span<'a>(part: &Type, rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let all = *rest;
    take(part, rest)?;
    Ok(&all[..all.len() - rest.len()])
}

fn mark(rest: &mut &[u8]) -> Result<u8, String> {
    let (&mark, after) = rest.split_first().ok_or_else(|| "the item does not end".to_string())?;
    *rest = after;
    Ok(mark)
}

/// All items of a tuple but the last stay as they are.
fn take_tuple<'a>(parts: &[Type], rest: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    let Some((last, before)) = parts.split_last() else { return Ok(Cow::Borrowed(&[])) };
    let all = *rest;
    for part in before {
        take(part, rest)?;
    }
    let before = &all[..all.len() - rest.len()];
    Ok(Cow::Owned([before, &*take(last, rest)?].concat()))
}

/// The item's own bytes of a descending item at the start of `rest`, and the length of its part.
/// Inverts some bytes, and more if they do not suffice.
pub(super) fn take_inverted(inner: &Type, rest: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let mut tried = INVERTED_BYTES;
    loop {
        let inverted: Vec<u8> = rest.iter().take(tried).map(|byte| !byte).collect();
        let mut after = &inverted[..];
        match take(inner, &mut after) {
            Err(_) if tried < rest.len() => tried = tried.saturating_mul(INVERTED_STEP),
            taken => return taken.map(|item| (item.into_owned(), inverted.len() - after.len())),
        }
    }
}

/// Appends the part of an item with these bytes.
pub(super) fn put(part: &Type, bytes: &[u8], stored: &mut Encoded<'_>) -> Result<(), String> {
    match &part.kind {
        // Text and bytes escape zero bytes in the same way.
        TypeKind::Bytes | TypeKind::Str => {
            return <Vec<u8>>::put(&bytes.to_vec(), stored).map_err(|error| error.to_string());
        }
        TypeKind::Tuple(parts) => {
            let mut rest = bytes;
            let Some((last, before)) = parts.split_last() else { return Ok(()) };
            for part in before {
                stored.push(span(part, &mut rest)?);
            }
            return put(last, rest, stored);
        }
        TypeKind::Option(inner) => {
            let (mark, item) = bytes.split_at(bytes.len().min(1));
            stored.push(mark);
            return if mark == [1] { put(inner, item, stored) } else { Ok(()) };
        }
        TypeKind::List(element) => {
            let mut rest = bytes;
            while !rest.is_empty() {
                stored.push(&[1]);
                stored.push(element_of(element, &mut rest)?.1);
            }
            stored.push(&[0]);
        }
        _ => stored.push(bytes),
    }
    Ok(())
}

/// Removes an element from the front of a list that is no part; returns the bytes of the item, and
/// those of its part.
pub(super) fn element_of<'a>(element: &Type, rest: &mut &'a [u8]) -> Result<(Cow<'a, [u8]>, &'a [u8]), String> {
    let all = *rest;
    let item = take(element, rest)?;
    Ok((item, &all[..all.len() - rest.len()]))
}
