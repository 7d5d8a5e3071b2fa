//! Converts tuples, lists and options to JSON and back.
//!
//! Numbers, `true` and `false` look as they do outside of a tuple. Text, characters, dates, UUIDs
//! and the hexadecimal digits of byte arrays are JSON strings; so are `inf`, `-inf` and `NaN`,
//! because JSON has no such numbers. Bytes are a JSON string if they are UTF-8, and `{"b64": ".."}`
//! otherwise. A tuple or list is an array, and `()` is `null`. An option is `null` or its item; if
//! the item may be `null` too, it stands in an array.
//!
//! `parts` finds the end of each item in the stored bytes, and marks it when writing.

use std::borrow::Cow;

use base64::Engine;
use mapleaf::codec::Encoded;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::parts::{element_of, put, take};
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
            false => put(part, &bytes, &mut stored)?,
        }
    }
    Ok(stored.to_vec())
}

/// Appends a stored list as a JSON array.
pub(super) fn show_list(element: &Type, stored: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    let (mut rest, mut number) = (stored, 0);
    text.push(b'[');
    while !rest.is_empty() {
        number += 1;
        if number > 1 {
            text.extend_from_slice(b", ");
        }
        let shown = element_of(element, &mut rest).and_then(|(item, _)| show_item(element, &item, text));
        shown.map_err(|what| format!("item {number}: {what}"))?;
    }
    text.push(b']');
    Ok(())
}

/// Parses a JSON array and returns the bytes of the list.
pub(super) fn read_list(element: &Type, text: &[u8]) -> Result<Vec<u8>, String> {
    let mut stored = Encoded::new();
    for (index, item) in array(text)?.iter().enumerate() {
        let bytes = read_item(element, item.get()).map_err(|what| format!("item {}: {what}", index + 1))?;
        put(element, &bytes, &mut stored)?;
    }
    Ok(stored.to_vec())
}

/// Appends a stored option as JSON.
pub(super) fn show_option(inner: &Type, stored: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    match stored {
        [0] => text.extend_from_slice(b"null"),
        [1, item @ ..] if may_be_null(inner) => {
            text.push(b'[');
            show_item(inner, item, text)?;
            text.push(b']');
        }
        [1, item @ ..] => show_item(inner, item, text)?,
        [] => return Err("an Option has at least one byte, not 0".to_string()),
        [0, rest @ ..] => return Err(format!("{} bytes after None", rest.len())),
        [other, ..] => return Err(format!("an Option begins with {other:#04x}, expected 0x00 or 0x01")),
    }
    Ok(())
}

/// Parses the JSON of an option and returns its bytes.
pub(super) fn read_option(inner: &Type, text: &[u8]) -> Result<Vec<u8>, String> {
    let json: &RawValue = serde_json::from_slice(text).map_err(|_| "expected null or a JSON value".to_string())?;
    if json.get() == "null" {
        return Ok(vec![0]);
    }
    let item = match may_be_null(inner) {
        false => read_item(inner, json.get())?,
        true => match array(text)?[..] {
            [item] => read_item(inner, item.get())?,
            _ => return Err("expected null or a JSON array of one item".to_string()),
        },
    };
    Ok([&[1], &item[..]].concat())
}

/// Whether an item of this type may be `null` in JSON.
fn may_be_null(part: &Type) -> bool {
    match &part.kind {
        TypeKind::Unit | TypeKind::Option(_) | TypeKind::Json => true,
        TypeKind::Reverse(inner) => may_be_null(inner),
        _ => false,
    }
}

fn show_item(part: &Type, stored: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    if let TypeKind::Reverse(inner) = &part.kind {
        return show_item(inner, &part.not_inverted(inner, stored)?, text);
    }
    let mut plain = Vec::new();
    part.show(stored, &mut plain)?;
    let quote = |plain: &[u8], text: &mut Vec<u8>| {
        let quoted = serde_json::to_string(&String::from_utf8_lossy(plain)).map_err(|error| error.to_string())?;
        text.extend(quoted.into_bytes());
        Ok(())
    };
    match &part.kind {
        TypeKind::Unit => text.extend_from_slice(b"null"),
        TypeKind::Tuple(_) | TypeKind::List(_) | TypeKind::Option(_) | TypeKind::Json => text.extend(plain),
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
    if let TypeKind::Reverse(inner) = &part.kind {
        return part.inverted(inner, &read_item(inner, json)?);
    }
    let is_string = json.starts_with('"');
    let string = || serde_json::from_str::<String>(json).map(String::into_bytes);
    let text = match &part.kind {
        TypeKind::Unit if json == "null" => Ok(Vec::new()),
        TypeKind::Tuple(_) | TypeKind::List(_) | TypeKind::Option(_) | TypeKind::Json => Ok(json.as_bytes().to_vec()),
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
