//! Converts tuples to JSON arrays and back.
//!
//! Numbers, `true` and `false` look as they do outside of a tuple. Text, characters and the
//! hexadecimal digits of byte arrays are JSON strings; so are `inf`, `-inf` and `NaN`, because JSON
//! has no such numbers. Bytes are a JSON string if they are UTF-8, and `{"b64": ".."}` otherwise. A
//! tuple in a tuple is an array, and `()` is `null`.
//!
//! The library's [`Part`] finds the end of each item in the stored bytes, and marks it when
//! writing.

use std::borrow::Cow;

use base64::Engine;
use mapleaf::codec::{Encoded, Part};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Type, TypeKind};
use crate::format::bytes::BASE64;

/// Bytes that are not UTF-8.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    b64: String,
}

/// Appends a stored tuple as a JSON array.
pub(super) fn show(parts: &[Type], stored: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = stored;
    for (index, part) in parts.iter().enumerate() {
        text.extend_from_slice(if index == 0 { b"[" } else { b", " });
        let item = match index + 1 == parts.len() {
            true => Cow::Borrowed(rest),
            false => take(part, &mut rest)?,
        };
        show_item(part, &item, text).map_err(|what| format!("item {}: {what}", index + 1))?;
    }
    text.push(b']');
    Ok(())
}

/// Parses a JSON array and returns the bytes of the tuple.
pub(super) fn read(parts: &[Type], text: &[u8]) -> Result<Vec<u8>, String> {
    let items = array(text)?;
    if items.len() != parts.len() {
        return Err(format!("expected a JSON array of {} items, not {}", parts.len(), items.len()));
    }
    read_items(parts, &items)
}

/// Parses a JSON array of the first items and returns the bytes that all such tuples begin with.
pub(super) fn read_prefix(parts: &[Type], text: &[u8]) -> Result<Vec<u8>, String> {
    let items = array(text)?;
    if items.len() >= parts.len() {
        return Err(format!("expected a JSON array of the first items, {} at most", parts.len() - 1));
    }
    read_items(parts, &items)
}

fn array(text: &[u8]) -> Result<Vec<&RawValue>, String> {
    serde_json::from_slice(text).map_err(|_| "expected a JSON array".to_string())
}

/// Encodes the items one after the other. The last part of the tuple has no end mark.
fn read_items(parts: &[Type], items: &[&RawValue]) -> Result<Vec<u8>, String> {
    let mut stored = Encoded::new();
    for (index, (part, item)) in parts.iter().zip(items).enumerate() {
        let bytes = read_item(part, item.get()).map_err(|what| format!("item {}: {what}", index + 1))?;
        match index + 1 == parts.len() {
            true => stored.push(&bytes),
            false => put(part, bytes, &mut stored)?,
        }
    }
    Ok(stored.to_vec())
}

/// Removes an item's bytes from the front of `rest`.
fn take<'a>(part: &Type, rest: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    let fixed = match &part.kind {
        TypeKind::Scalar(scalar) => scalar.bytes,
        TypeKind::Array(count) => *count,
        _ => return <Vec<u8>>::take(rest).map(Cow::Owned).map_err(|error| error.to_string()),
    };
    let taken = rest.get(..fixed).ok_or_else(|| format!("{} bytes where {} has {fixed}", rest.len(), part.name))?;
    *rest = &rest[fixed..];
    Ok(Cow::Borrowed(taken))
}

/// Appends an item's bytes and, for items of variable length, the end mark.
fn put(part: &Type, bytes: Vec<u8>, stored: &mut Encoded<'_>) -> Result<(), String> {
    match &part.kind {
        TypeKind::Scalar(_) | TypeKind::Array(_) => {
            stored.push(&bytes);
            Ok(())
        }
        // Text and bytes escape zero bytes in the same way.
        _ => <Vec<u8>>::put(&bytes, stored).map_err(|error| error.to_string()),
    }
}

fn show_item(part: &Type, stored: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    let mut plain = Vec::new();
    part.show(stored, &mut plain)?;
    let quote = |plain: &[u8], text: &mut Vec<u8>| {
        let quoted = serde_json::to_string(&String::from_utf8_lossy(plain)).map_err(|error| error.to_string())?;
        text.extend(quoted.into_bytes());
        Ok(())
    };
    match &part.kind {
        TypeKind::Unit => text.extend_from_slice(b"null"),
        TypeKind::Tuple(_) => text.extend(plain),
        TypeKind::Scalar(scalar) if !scalar.is_quoted && is_json(&plain) => text.extend(plain),
        TypeKind::Bytes if std::str::from_utf8(&plain).is_err() => {
            text.extend(format!("{{\"b64\": \"{}\"}}", BASE64.encode(&plain)).into_bytes());
        }
        _ => return quote(&plain, text),
    }
    Ok(())
}

/// Whether the text of a number is valid JSON.
fn is_json(plain: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(plain).is_ok()
}

fn read_item(part: &Type, json: &str) -> Result<Vec<u8>, String> {
    let is_string = json.starts_with('"');
    let string = || serde_json::from_str::<String>(json).map(String::into_bytes);
    let text = match &part.kind {
        TypeKind::Unit if json == "null" => Ok(Vec::new()),
        TypeKind::Tuple(_) => Ok(json.as_bytes().to_vec()),
        TypeKind::Bytes if json.starts_with('{') => {
            let bytes = serde_json::from_str::<Base64>(json).ok().and_then(|bytes| BASE64.decode(bytes.b64).ok());
            return bytes.ok_or_else(|| "expected a JSON string, or {\"b64\": \"..\"} with base64".to_string());
        }
        TypeKind::Scalar(scalar) if !scalar.is_quoted && !is_string => Ok(json.as_bytes().to_vec()),
        // Only numbers that JSON does not have (inf, NaN) are quoted.
        TypeKind::Scalar(scalar) if !scalar.is_quoted => {
            string().map(|text| if is_json(&text) { Vec::new() } else { text })
        }
        TypeKind::Unit => Ok(b"no null".to_vec()),
        _ => string(),
    };
    match text {
        Ok(text) => part.read(&text),
        Err(_) => Err(format!("expected a JSON string: {}", part.expected())),
    }
}
