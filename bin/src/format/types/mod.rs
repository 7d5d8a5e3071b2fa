//! Converts keys and values of the built-in codecs from text and to text.
//!
//! A table stores the names of its codecs. [`Type::of`] parses such a name. [`Type::show`] makes
//! the text of stored bytes and [`Type::read`] parses a text, with the library's codec; `columns`
//! calls both. [`HELP`] describes the text of each type.
//!
//! Invariants:
//!   TYPE-1  bytes that decode have a text, and parsing that text returns the same bytes.
//!   TYPE-2  text is parsed strictly: the whole text is one item, or it is refused.
//!
//! Failure: text or bytes that do not fit the type. The error describes the expected text.
//!
//! Tests in `tests.rs`: random items of every type to text and back, each kind of refused text.

mod calendar;
#[cfg(test)]
mod calendar_tests;
mod numbers;
mod parts;
mod sums;
#[cfg(test)]
mod tests;
mod tuples;

use mapleaf::codec::Encoded;
use serde_json::value::RawValue;

use crate::format::bytes;
pub(crate) use calendar::utc_text;
use numbers::{Scalar, SCALARS};
pub(crate) use sums::NumberKind;

/// The text of each type, for `kvctl help`.
pub(crate) const HELP: &str = "\
Text of the types of keys and values:
  str, bytes         the text itself (bytes may be any)
  u8 .. u128, i8 ..  decimal digits, with - in front of negative numbers
  f32, f64           1.5, -2e300, inf, -inf, NaN
  bool, char         true or false; one character
  [u8;4]             hexadecimal digits, two for each byte
  (str,u64)          a JSON array: [\"a\", 7]; bytes that are not UTF-8 are {\"b64\": \"/w==\"}
  Vec<u64>           a JSON array: [7, 8]
  Option<str>        null, or the item as in an array: \"a\"
  Reverse<u64>       the text of the item
  uuid               67e55044-10b1-426f-9247-bb680e5fe0c8
  timestamp          2024-02-29T12:00:00.5Z; datetime has no Z
  date, time         2024-02-29; 12:00:00.5
  duration           seconds, such as -1.5
  json<any>          JSON
  ()                 nothing
Keys and values of a table without types are the text itself. Those of a codec that is not built in, and bytes that their
codec cannot decode, have no text: use --hex or --base64; in rows they follow \\! as bytes.
";

/// The type of a table's keys or values, by the name of its codec.
#[derive(Clone, Debug)]
pub(crate) struct Type {
    name: String,
    kind: TypeKind,
}

#[derive(Clone, Debug)]
enum TypeKind {
    /// Any bytes: the codec `bytes`, or a table without types.
    Bytes,
    Str,
    Unit,
    Scalar(&'static Scalar),
    /// An array of this many bytes.
    Array(usize),
    Tuple(Vec<Type>),
    Option(Box<Type>),
    List(Box<Type>),
    /// In descending order.
    Reverse(Box<Type>),
    /// JSON of any type.
    Json,
    /// A codec that is not built in.
    Unknown,
}

/// The names that [`Type::of`] knows, for error texts.
pub(crate) const KNOWN: &str =
    "str, bytes, u8 to u128, i8 to i128, f32, f64, bool, char, [u8;N], uuid, timestamp, datetime, date, time, duration, \
     () and json<any> for values, tuples such as (str,u64), and Option, Vec and Reverse such as Option<u64>";

const TUPLE_MAX: usize = 6;

/// Number of nested types up to which a type has a text. The name comes from the file, and parsing
/// uses stack for each level.
const NESTED_MAX: usize = 32;

impl Type {
    /// The type of a codec's name. The empty name means no type.
    pub(crate) fn of(name: &str) -> Type {
        let kind = match name {
            "" | "bytes" => TypeKind::Bytes,
            "str" => TypeKind::Str,
            "()" => TypeKind::Unit,
            _ if name.matches(['(', '<']).count() > NESTED_MAX => TypeKind::Unknown,
            _ => scalar(name)
                .or_else(|| array(name))
                .or_else(|| tuple(name))
                .or_else(|| of_one(name))
                .unwrap_or(TypeKind::Unknown),
        };
        Type { name: name.to_string(), kind }
    }

    /// The type of a name that the user gave; spaces are ignored. `None` for unknown names.
    pub(crate) fn named(name: &str) -> Option<Type> {
        let found = Type::of(&name.split_ascii_whitespace().collect::<String>());
        (found.is_known() && !found.name.is_empty()).then_some(found)
    }

    /// The name of the codec; empty for no type.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the codec is built in, so that its items have a text.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.kind, TypeKind::Unknown)
    }

    /// Whether the text of an item equals its stored bytes.
    pub(crate) fn is_verbatim(&self) -> bool {
        matches!(self.kind, TypeKind::Bytes | TypeKind::Str)
    }

    /// Whether keys may have this type.
    pub(crate) fn is_of_keys(&self) -> bool {
        match &self.kind {
            TypeKind::Unit | TypeKind::Json => false,
            TypeKind::Tuple(parts) => parts.iter().all(Type::is_of_keys),
            TypeKind::Option(inner) | TypeKind::List(inner) | TypeKind::Reverse(inner) => inner.is_of_keys(),
            _ => true,
        }
    }

    /// The kind of numbers that the items are, or may be as text. `None` if they are no numbers.
    pub(crate) fn number_kind(&self) -> Option<NumberKind> {
        match &self.kind {
            TypeKind::Bytes | TypeKind::Str => Some(NumberKind::Whole),
            TypeKind::Scalar(scalar) => NumberKind::of(scalar.name),
            _ => None,
        }
    }

    /// Whether items may stand before the last one of a tuple, in a list, and in descending order.
    fn is_part(&self) -> bool {
        match &self.kind {
            TypeKind::Unit | TypeKind::Json | TypeKind::Unknown => false,
            TypeKind::Tuple(parts) => parts.iter().all(Type::is_part),
            TypeKind::Option(inner) => inner.is_part(),
            _ => !self.name.is_empty(),
        }
    }

    /// Whether an item before the last one of a tuple has no bytes. A list of such items does not
    /// tell how many there are, and has no text.
    fn is_empty_part(&self) -> bool {
        match &self.kind {
            TypeKind::Array(count) => *count == 0,
            TypeKind::Tuple(parts) => parts.iter().all(Type::is_empty_part),
            TypeKind::Reverse(inner) => inner.is_empty_part(),
            _ => false,
        }
    }

    /// A length in bytes that no item is shorter than.
    pub(crate) fn least_bytes(&self) -> u64 {
        match &self.kind {
            TypeKind::Bytes | TypeKind::Str | TypeKind::Unit | TypeKind::List(_) | TypeKind::Unknown => 0,
            TypeKind::Option(_) | TypeKind::Json => 1,
            TypeKind::Reverse(inner) => inner.least_bytes(),
            TypeKind::Scalar(scalar) => scalar.bytes as u64,
            TypeKind::Array(count) => *count as u64,
            TypeKind::Tuple(parts) => parts.iter().map(Type::least_bytes).sum(),
        }
    }

    /// The number of bytes of every item, if all have the same, as the codec of the library says.
    pub(crate) fn fixed_bytes(&self) -> Option<usize> {
        match &self.kind {
            TypeKind::Scalar(scalar) => Some(scalar.bytes),
            TypeKind::Array(count) => Some(*count),
            TypeKind::Tuple(parts) => parts.iter().map(Type::fixed_bytes).sum(),
            TypeKind::Reverse(inner) => inner.fixed_bytes(),
            _ => None,
        }
    }

    /// Whether no text of this type ends in a line feed. A line feed at the end of a file is then
    /// not part of the text.
    pub(crate) fn is_one_line(&self) -> bool {
        match &self.kind {
            TypeKind::Bytes | TypeKind::Str | TypeKind::Unknown => false,
            TypeKind::Scalar(scalar) => scalar.name != "char",
            TypeKind::Reverse(inner) => inner.is_one_line(),
            TypeKind::Unit | TypeKind::Array(_) | TypeKind::Tuple(_) => true,
            TypeKind::Option(_) | TypeKind::List(_) | TypeKind::Json => true,
        }
    }

    /// Describes the text of the type, for errors.
    pub(crate) fn expected(&self) -> String {
        match &self.kind {
            TypeKind::Bytes => "any bytes".to_string(),
            TypeKind::Str => "text in UTF-8".to_string(),
            TypeKind::Unit => "nothing".to_string(),
            TypeKind::Scalar(scalar) => (scalar.expected)(),
            TypeKind::Array(count) => format!("{} hexadecimal digits", 2 * count),
            TypeKind::Tuple(parts) => format!("a JSON array of {} items", parts.len()),
            TypeKind::Option(inner) => format!("null, or as JSON {}", inner.expected()),
            TypeKind::List(_) => "a JSON array".to_string(),
            TypeKind::Reverse(inner) => inner.expected(),
            TypeKind::Json => "JSON".to_string(),
            TypeKind::Unknown => "bytes".to_string(),
        }
    }

    /// Appends the text of stored bytes.
    pub(crate) fn show(&self, stored: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
        match &self.kind {
            TypeKind::Bytes => text.extend_from_slice(stored),
            TypeKind::Str => text.extend_from_slice(utf8(stored)?.as_bytes()),
            TypeKind::Unit => of_length(stored, 0).map(drop)?,
            TypeKind::Scalar(scalar) => text.extend((scalar.show)(stored)?.into_bytes()),
            TypeKind::Array(count) => bytes::write_hex(of_length(stored, *count)?, text),
            TypeKind::Tuple(parts) => tuples::show(parts, stored, text)?,
            TypeKind::Option(inner) => tuples::show_option(inner, stored, text)?,
            TypeKind::List(element) => tuples::show_list(element, stored, text)?,
            TypeKind::Reverse(inner) => inner.show(&self.not_inverted(inner, stored)?, text)?,
            TypeKind::Json => {
                text.extend_from_slice(json(stored).ok_or("not JSON without spaces around it")?.as_bytes())
            }
            TypeKind::Unknown => return Err("the codec is not built in".to_string()),
        }
        Ok(())
    }

    /// Parses a text and returns the bytes to store.
    pub(crate) fn read(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        let read = match &self.kind {
            TypeKind::Bytes => Some(text.to_vec()),
            TypeKind::Str => utf8(text).ok().map(|text| text.as_bytes().to_vec()),
            TypeKind::Unit => text.is_empty().then(Vec::new),
            TypeKind::Scalar(scalar) => utf8(text).ok().and_then(scalar.read),
            TypeKind::Array(count) => bytes::from_hex(text).ok().filter(|bytes| bytes.len() == *count),
            TypeKind::Tuple(parts) => return tuples::read(parts, text),
            TypeKind::Option(inner) => return tuples::read_option(inner, text),
            TypeKind::List(element) => return tuples::read_list(element, text),
            TypeKind::Reverse(inner) => return self.inverted(inner, &inner.read(text)?),
            TypeKind::Json => serde_json::from_slice::<&RawValue>(text).ok().map(|json| json.get().as_bytes().to_vec()),
            TypeKind::Unknown => None,
        };
        read.ok_or_else(|| format!("expected {}", self.expected()))
    }

    /// Checks that stored bytes decode. A codec that is not built in accepts any bytes.
    pub(crate) fn check(&self, stored: &[u8]) -> Result<(), String> {
        match &self.kind {
            TypeKind::Bytes | TypeKind::Unknown => Ok(()),
            TypeKind::Str => utf8(stored).map(drop),
            _ => self.show(stored, &mut Vec::new()),
        }
    }

    /// Parses the beginning of a text (for tuples, the first items). Returns the bytes with which
    /// all such keys begin.
    pub(crate) fn read_prefix(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        match &self.kind {
            TypeKind::Bytes | TypeKind::Str => self.read(text),
            TypeKind::Array(count) => match bytes::from_hex(text) {
                Ok(bytes) if bytes.len() <= *count => Ok(bytes),
                _ => Err(format!("expected an even number of hexadecimal digits, {} at most", 2 * count)),
            },
            TypeKind::Tuple(parts) => tuples::read_prefix(parts, text),
            TypeKind::List(element) => tuples::read_list(element, text),
            _ => Err("such keys have no prefix; use --from and --to".to_string()),
        }
    }
}

impl Type {
    /// The bytes of the item that this type stores in descending order.
    fn not_inverted(&self, inner: &Type, stored: &[u8]) -> Result<Vec<u8>, String> {
        match parts::take_inverted(inner, stored)? {
            (item, length) if length == stored.len() => Ok(item),
            (_, length) => Err(format!("{} bytes after {}", stored.len() - length, self.name)),
        }
    }

    /// The bytes that this type stores for an item, in descending order.
    fn inverted(&self, inner: &Type, item: &[u8]) -> Result<Vec<u8>, String> {
        let mut part = Encoded::new();
        parts::put(inner, item, &mut part)?;
        Ok(part.iter().map(|byte| !byte).collect())
    }
}

/// The stored bytes, if they are JSON from the first byte to the last.
fn json(stored: &[u8]) -> Option<&str> {
    let json = serde_json::from_slice::<&RawValue>(stored).ok()?.get();
    (json.len() == stored.len()).then_some(json)
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| format!("not valid UTF-8 from byte {}", error.valid_up_to()))
}

fn of_length(bytes: &[u8], length: usize) -> Result<&[u8], String> {
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(format!("{} bytes, expected {length}", bytes.len())),
    }
}

fn scalar(name: &str) -> Option<TypeKind> {
    SCALARS.iter().find(|scalar| scalar.name == name).map(TypeKind::Scalar)
}

fn array(name: &str) -> Option<TypeKind> {
    let digits = name.strip_prefix("[u8;")?.strip_suffix(']')?;
    let count: u32 = digits.parse().ok()?;
    // The name of a codec has no leading zeros and no sign.
    (count.to_string() == digits).then_some(TypeKind::Array(count as usize))
}

fn tuple(name: &str) -> Option<TypeKind> {
    let inner = name.strip_prefix('(')?.strip_suffix(')')?;
    let parts: Vec<Type> = split_top_level(inner)?.into_iter().map(Type::of).collect();
    let (_, before) = parts.split_last()?;
    let last_is_known = parts.last().is_some_and(|last| last.is_known() && !last.name.is_empty());
    let fits = (2..=TUPLE_MAX).contains(&parts.len()) && last_is_known && before.iter().all(Type::is_part);
    fits.then_some(TypeKind::Tuple(parts))
}

/// A type with one type in angle brackets.
fn of_one(name: &str) -> Option<TypeKind> {
    let (outer, inner) = name.strip_suffix('>')?.split_once('<')?;
    if outer == "json" {
        return (!inner.is_empty()).then_some(TypeKind::Json);
    }
    let inner = Box::new(Type::of(inner));
    match outer {
        "Option" if inner.is_known() && !inner.name.is_empty() => Some(TypeKind::Option(inner)),
        // The name of a list of `u8` is `bytes`.
        "Vec" if inner.is_part() && !inner.is_empty_part() && inner.name != "u8" => Some(TypeKind::List(inner)),
        "Reverse" if inner.is_part() => Some(TypeKind::Reverse(inner)),
        _ => None,
    }
}

/// Splits at the commas that are outside all brackets.
fn split_top_level(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut from, mut parts) = (0usize, 0, Vec::new());
    for (index, c) in text.char_indices() {
        match c {
            '(' | '[' | '<' => depth += 1,
            ')' | ']' | '>' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(&text[from..index]);
                from = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    (depth == 0).then_some(parts)
}
