//! The built-in codecs by name: the text of their items, and their items of text.
//!
//! A table stores the names of its codecs. [`Type::of`] reads such a name, and converts between the
//! bytes of an item and its text with the codec of the library itself. What each text is stands in
//! [`HELP`].
//!
//! Invariants:
//!   TYPE-1  bytes that decode have a text, from which the same bytes come again.
//!   TYPE-2  text is read strictly: all of it is one item, or it is refused.
//!
//! Failure: a text, or bytes, that are no item of the type; the error says what was expected.
//!
//! Tests: every type both ways with random items, each kind of text that is refused, in `tests.rs`.

mod numbers;
#[cfg(test)]
mod tests;
mod tuples;

use crate::format::bytes;
use numbers::{Scalar, SCALARS};

/// How items of each type are written, for `kvctl help`.
pub(crate) const HELP: &str = "\
Text of the types of keys and values:
  str, bytes         as it stands (bytes may be any)
  u8 .. u128, i8 ..  decimal digits, with - in front of negative numbers
  f32, f64           1.5, -2e300, inf, -inf, NaN
  bool, char         true or false; one character
  [u8;4]             hexadecimal digits, two for each byte
  (str,u64)          a JSON array: [\"a\", 7]; bytes that are no text are {\"b64\": \"/w==\"}
  ()                 nothing
Keys and values of a table without types are as they stand. Those of a codec that is not built in, and bytes that
their codec does not decode, are shown and taken as bytes only: with --hex or --base64, or after \\! in rows.
";

/// A type as tables name it.
#[derive(Clone, Debug)]
pub(crate) struct Type {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Any bytes: a table without types, or one of bytes.
    Bytes,
    Str,
    Unit,
    Scalar(&'static Scalar),
    /// So many bytes.
    Array(usize),
    Tuple(Vec<Type>),
    /// A codec of which nothing is known.
    Unknown,
}

/// The names that [`Type::of`] knows, for people.
pub(crate) const KNOWN: &str =
    "str, bytes, u8 to u128, i8 to i128, f32, f64, bool, char, [u8;N], () for values, and tuples such as (str,u64)";

const TUPLE_MAX: usize = 6;

/// Tuples in tuples that have a text. The name comes from the file, and each level takes some of
/// the stack.
const NESTED_MAX: usize = 32;

impl Type {
    /// The type of a codec's name. An empty name is that of no type.
    pub(crate) fn of(name: &str) -> Type {
        let kind = match name {
            "" | "bytes" => Kind::Bytes,
            "str" => Kind::Str,
            "()" => Kind::Unit,
            _ if name.matches('(').count() > NESTED_MAX => Kind::Unknown,
            _ => scalar(name).or_else(|| array(name)).or_else(|| tuple(name)).unwrap_or(Kind::Unknown),
        };
        Type { name: name.to_string(), kind }
    }

    /// The type that a user named, who may put spaces between its parts.
    pub(crate) fn named(name: &str) -> Option<Type> {
        let found = Type::of(&name.split_ascii_whitespace().collect::<String>());
        (found.is_known() && !found.name.is_empty()).then_some(found)
    }

    /// The name; empty for no type.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a text.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.kind, Kind::Unknown)
    }

    /// Whether the text of an item is the bytes that are stored.
    pub(crate) fn is_verbatim(&self) -> bool {
        matches!(self.kind, Kind::Bytes | Kind::Str)
    }

    /// Whether it may be the key of a table.
    pub(crate) fn is_of_keys(&self) -> bool {
        match &self.kind {
            Kind::Unit => false,
            Kind::Tuple(parts) => parts.iter().all(Type::is_of_keys),
            _ => true,
        }
    }

    /// Bytes that every item has at least.
    pub(crate) fn least_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Bytes | Kind::Str | Kind::Unit | Kind::Unknown => 0,
            Kind::Scalar(scalar) => scalar.bytes as u64,
            Kind::Array(count) => *count as u64,
            Kind::Tuple(parts) => parts.iter().map(Type::least_bytes).sum(),
        }
    }

    /// Whether no text of it ends in a line feed, so that one at the end of a file is no part of
    /// it.
    pub(crate) fn is_one_line(&self) -> bool {
        match &self.kind {
            Kind::Bytes | Kind::Str | Kind::Unknown => false,
            Kind::Scalar(scalar) => !scalar.is_quoted,
            Kind::Unit | Kind::Array(_) | Kind::Tuple(_) => true,
        }
    }

    /// What a text of it looks like.
    pub(crate) fn expected(&self) -> String {
        match &self.kind {
            Kind::Bytes => "any bytes".to_string(),
            Kind::Str => "text in UTF-8".to_string(),
            Kind::Unit => "nothing".to_string(),
            Kind::Scalar(scalar) => (scalar.expected)(),
            Kind::Array(count) => format!("{} hexadecimal digits", 2 * count),
            Kind::Tuple(parts) => format!("a JSON array of {} items", parts.len()),
            Kind::Unknown => "bytes".to_string(),
        }
    }

    /// Appends the text of an item, which was stored as these bytes.
    pub(crate) fn show(&self, stored: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
        match &self.kind {
            Kind::Bytes => text.extend_from_slice(stored),
            Kind::Str => text.extend_from_slice(utf8(stored)?.as_bytes()),
            Kind::Unit => of_length(stored, 0).map(drop)?,
            Kind::Scalar(scalar) => text.extend((scalar.show)(stored)?.into_bytes()),
            Kind::Array(count) => bytes::write_hex(of_length(stored, *count)?, text),
            Kind::Tuple(parts) => tuples::show(parts, stored, text)?,
            Kind::Unknown => return Err("a codec that is not built in".to_string()),
        }
        Ok(())
    }

    /// The bytes that the item of a text is stored as.
    pub(crate) fn read(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        let read = match &self.kind {
            Kind::Bytes => Some(text.to_vec()),
            Kind::Str => utf8(text).ok().map(|text| text.as_bytes().to_vec()),
            Kind::Unit => text.is_empty().then(Vec::new),
            Kind::Scalar(scalar) => utf8(text).ok().and_then(scalar.read),
            Kind::Array(count) => bytes::from_hex(text).ok().filter(|bytes| bytes.len() == *count),
            Kind::Tuple(parts) => return tuples::read(parts, text),
            Kind::Unknown => None,
        };
        read.ok_or_else(|| format!("expected {}", self.expected()))
    }

    /// Says whether these bytes are an item. Of a codec that is not built in any bytes may be.
    pub(crate) fn check(&self, stored: &[u8]) -> Result<(), String> {
        match &self.kind {
            Kind::Bytes | Kind::Unknown => Ok(()),
            Kind::Str => utf8(stored).map(drop),
            _ => self.show(stored, &mut Vec::new()),
        }
    }

    /// The bytes that all keys begin with which begin with this text; of a tuple with these items.
    pub(crate) fn read_prefix(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        match &self.kind {
            Kind::Bytes | Kind::Str => self.read(text),
            Kind::Array(count) => match bytes::from_hex(text) {
                Ok(bytes) if bytes.len() <= *count => Ok(bytes),
                _ => Err(format!("expected an even number of hexadecimal digits, {} at most", 2 * count)),
            },
            Kind::Tuple(parts) => tuples::read_prefix(parts, text),
            _ => Err("such keys have no prefix; use --from and --to".to_string()),
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| format!("no valid UTF-8 from byte {}", error.valid_up_to()))
}

fn of_length(bytes: &[u8], length: usize) -> Result<&[u8], String> {
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(format!("{} bytes, expected {length}", bytes.len())),
    }
}

fn scalar(name: &str) -> Option<Kind> {
    SCALARS.iter().find(|scalar| scalar.name == name).map(Kind::Scalar)
}

fn array(name: &str) -> Option<Kind> {
    let digits = name.strip_prefix("[u8;")?.strip_suffix(']')?;
    let count: u32 = digits.parse().ok()?;
    // The name of the codec has no other digits.
    (count.to_string() == digits).then_some(Kind::Array(count as usize))
}

fn tuple(name: &str) -> Option<Kind> {
    let inner = name.strip_prefix('(')?.strip_suffix(')')?;
    let parts: Vec<Type> = split_top_level(inner)?.into_iter().map(Type::of).collect();
    let (_, before) = parts.split_last()?;
    let may_stand_before = |part: &Type| match part.kind {
        Kind::Unit | Kind::Tuple(_) | Kind::Unknown => false,
        _ => !part.name.is_empty(),
    };
    let last_is_known = parts.last().is_some_and(|last| last.is_known() && !last.name.is_empty());
    let fits = (2..=TUPLE_MAX).contains(&parts.len()) && last_is_known && before.iter().all(may_stand_before);
    fits.then_some(Kind::Tuple(parts))
}

/// The parts between commas that stand in no brackets.
fn split_top_level(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut from, mut parts) = (0usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    (depth == 0).then_some(parts)
}
