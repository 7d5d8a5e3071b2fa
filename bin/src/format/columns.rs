//! Converts the keys and the values of a table: arguments and rows to stored bytes, and stored
//! bytes to text.
//!
//! This module chooses the type of each column and the wording of errors. The conversion itself is
//! in `types`: `Type::show` makes the text of stored bytes, `Type::read` parses a text. A missing
//! table counts as a table without types.
//!
//! Failure: a usage error that names table, type and text, if text does not fit its type or if the
//! codec cannot decode given bytes. Stored bytes that do not decode are an error of the file.

use std::borrow::Cow;
use std::ffi::OsStr;

use mapleaf::{ReadTxn, TableInfo, WriteTxn};

use crate::exit::{Exit, Failure};
use crate::format::bytes::Encoding;
use crate::format::types::Type;

/// Number of bytes of a text that an error shows at most.
const SHOWN_BYTES: usize = 60;

/// The keys and the values of a table.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) key: Column,
    pub(crate) value: Column,
}

/// The keys or the values of a table.
#[derive(Debug)]
pub(crate) struct Column {
    table: String,
    /// `"key"` or `"value"`.
    side: &'static str,
    item_type: Type,
}

/// A key or value of an argument or a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field<'a> {
    /// Text of the column's type.
    Text(&'a [u8]),
    /// Stored bytes.
    Stored(&'a [u8]),
}

/// A [`Field`] with bytes of its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct OwnedField {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_stored: bool,
}

impl OwnedField {
    pub(crate) fn borrowed(&self) -> Field<'_> {
        match self.is_stored {
            true => Field::Stored(&self.bytes),
            false => Field::Text(&self.bytes),
        }
    }
}

impl From<Field<'_>> for OwnedField {
    fn from(field: Field<'_>) -> OwnedField {
        match field {
            Field::Text(text) => OwnedField { bytes: text.to_vec(), is_stored: false },
            Field::Stored(bytes) => OwnedField { bytes: bytes.to_vec(), is_stored: true },
        }
    }
}

/// Converts stored keys and values to fields of rows: text, or bytes if they have no text. Counts
/// the keys and values that do not decode.
#[derive(Debug)]
pub(crate) struct RowText<'c> {
    columns: &'c Columns,
    key: Vec<u8>,
    value: Vec<u8>,
    undecodable: u64,
    first: Option<Failure>,
}

impl<'c> RowText<'c> {
    pub(crate) fn new(columns: &'c Columns) -> RowText<'c> {
        RowText { columns, key: Vec::new(), value: Vec::new(), undecodable: 0, first: None }
    }

    /// A key as a field.
    pub(crate) fn key<'f>(&'f mut self, stored: &'f [u8]) -> Field<'f> {
        match self.has_text(true, stored) {
            true => Field::Text(&self.key),
            false => Field::Stored(stored),
        }
    }

    /// A value as a field.
    pub(crate) fn value<'f>(&'f mut self, stored: &'f [u8]) -> Field<'f> {
        match self.has_text(false, stored) {
            true => Field::Text(&self.value),
            false => Field::Stored(stored),
        }
    }

    /// An entry as two fields.
    pub(crate) fn both<'f>(&'f mut self, key: &'f [u8], value: &'f [u8]) -> (Field<'f>, Field<'f>) {
        let (key_has_text, value_has_text) = (self.has_text(true, key), self.has_text(false, value));
        (
            if key_has_text { Field::Text(&self.key) } else { Field::Stored(key) },
            if value_has_text { Field::Text(&self.value) } else { Field::Stored(value) },
        )
    }

    /// Writes the text of a key or value to its buffer; false if it has no text.
    fn has_text(&mut self, is_key: bool, stored: &[u8]) -> bool {
        let (column, text) = match is_key {
            true => (&self.columns.key, &mut self.key),
            false => (&self.columns.value, &mut self.value),
        };
        text.clear();
        // A codec that is not built in allows any bytes.
        if !column.item_type.is_known() {
            return false;
        }
        let Err(failure) = column.show(stored, text) else { return true };
        self.undecodable += 1;
        self.first.get_or_insert(failure);
        false
    }

    /// The failure for the keys and values that did not decode, if there were any.
    pub(crate) fn undecodable(&mut self) -> Option<Failure> {
        let first = self.first.take()?;
        Some(match self.undecodable {
            1 => first,
            count => first.prepend(&format!("{count} keys and values do not decode; the first")),
        })
    }
}

impl Columns {
    /// The columns of a table in a read transaction.
    pub(crate) fn of_read(txn: &ReadTxn, table: &str) -> mapleaf::Result<Columns> {
        Ok(Columns::new(table, txn.table_info(table)?.as_ref()))
    }

    /// The columns of a table in a write transaction.
    pub(crate) fn of_write(txn: &mut WriteTxn, table: &str) -> mapleaf::Result<Columns> {
        Ok(Columns::new(table, txn.table_info(table)?.as_ref()))
    }

    /// The columns of a table; `None` for a missing one.
    pub(crate) fn new(table: &str, info: Option<&TableInfo>) -> Columns {
        let column = |side, codec: Option<&String>| Column {
            table: table.to_string(),
            side,
            item_type: Type::of(codec.map_or("", |name| name)),
        };
        Columns {
            key: column("key", info.map(|info| &info.key_codec)),
            value: column("value", info.map(|info| &info.value_codec)),
        }
    }
}

impl Column {
    pub(crate) fn item_type(&self) -> &Type {
        &self.item_type
    }

    /// The stored bytes of an argument that is only compared with keys. With `--hex` and
    /// `--base64`, these may be any bytes.
    pub(crate) fn to_compare(&self, encoding: Encoding, argument: &OsStr) -> Result<Vec<u8>, Failure> {
        let given = encoding.decode(argument)?;
        match encoding.is_digits() {
            true => Ok(given),
            false => self.stored(Field::Text(&given)).map(Cow::into_owned),
        }
    }

    /// The stored bytes that all keys with the prefix `argument` begin with.
    pub(crate) fn prefix(&self, encoding: Encoding, argument: &OsStr) -> Result<Vec<u8>, Failure> {
        let given = encoding.decode(argument)?;
        match encoding.is_digits() {
            true => Ok(given),
            false if !self.item_type.is_known() => Err(self.unknown()),
            false => self.item_type.read_prefix(&given).map_err(|what| {
                Failure::usage(format!(
                    "table '{}': '{}' is not a prefix of {} keys: {what}",
                    self.table,
                    shown(&given),
                    self.item_type.name()
                ))
            }),
        }
    }

    /// The bytes to store for a decoded argument: digits of stored bytes, or text of the type.
    pub(crate) fn given<'g>(&self, encoding: Encoding, given: &'g [u8]) -> Result<Cow<'g, [u8]>, Failure> {
        self.stored(if encoding.is_digits() { Field::Stored(given) } else { Field::Text(given) })
    }

    /// The bytes to store for a key or value. They decode, unless the codec is not built in.
    pub(crate) fn stored<'g>(&self, given: Field<'g>) -> Result<Cow<'g, [u8]>, Failure> {
        match given {
            Field::Text(_) if !self.item_type.is_known() => Err(self.unknown()),
            Field::Text(text) if !self.item_type.is_verbatim() => {
                self.item_type.read(text).map(Cow::Owned).map_err(|what| self.refused(text, &what))
            }
            Field::Text(bytes) | Field::Stored(bytes) => match self.item_type.check(bytes) {
                Ok(()) => Ok(Cow::Borrowed(bytes)),
                Err(what) => Err(self.refused(bytes, &what)),
            },
        }
    }

    /// The text of a number of this column plus `by`. `None` counts as 0.
    pub(crate) fn sum(&self, stored: Option<&[u8]>, by: &[u8]) -> Result<String, Failure> {
        let Column { table, side, item_type } = self;
        let mut old = Vec::new();
        match stored {
            Some(stored) => self.show(stored, &mut old)?,
            None => old.push(b'0'),
        }
        let Some(kind) = item_type.number_kind() else {
            let name = item_type.name();
            return Err(Failure::usage(format!("table '{table}' has {side}s of type {name}, which are no numbers")));
        };
        let expected = kind.expected();
        let number = |text: &[u8]| kind.parse(text);
        let Some(by_number) = number(by) else {
            return Err(Failure::usage(format!("BY: '{}' is not valid; give {expected}", shown(by))));
        };
        let Some(old_number) = number(&old) else {
            let old = shown(&old);
            return Err(Failure::usage(format!(
                "table '{table}': the {side} '{old}' of this key is not {expected}; 'kvctl put' replaces it"
            )));
        };
        old_number.plus(by_number).ok_or_else(|| {
            Failure::usage(format!("table '{table}': the sum of '{}' and '{}' is too large", shown(&old), shown(by)))
        })
    }

    /// The failure for a key or value that does not fit the type.
    fn refused(&self, given: &[u8], what: &str) -> Failure {
        let Column { table, side, item_type } = self;
        Failure::usage(format!(
            "table '{table}' has {side}s of type {}, and '{}' is not one: {what}",
            item_type.name(),
            shown(given)
        ))
    }

    /// The failure to convert text, if the codec is not built in.
    pub(crate) fn unknown(&self) -> Failure {
        let Column { table, side, item_type } = self;
        Failure::usage(format!(
            "table '{table}' has {side}s of the codec '{}', which is not built in, so its items have no text; use \
             --hex or --base64 for their bytes",
            item_type.name()
        ))
    }

    /// Appends the text of stored bytes, which [`Type::show`] makes.
    pub(crate) fn show(&self, stored: &[u8], text: &mut Vec<u8>) -> Result<(), Failure> {
        if !self.item_type.is_known() {
            return Err(self.unknown());
        }
        let Column { table, side, item_type } = self;
        item_type.show(stored, text).map_err(|what| {
            let remedy = if *side == "key" { "'kvctl del --hex' deletes it" } else { "'kvctl put' replaces it" };
            let text = format!(
                "table '{table}' has {side}s of type {}, and the {} bytes of this one do not decode: {what}; --hex or \
                 --base64 shows it, {remedy}",
                item_type.name(),
                stored.len()
            );
            Failure::new(Exit::File, text)
        })
    }
}

/// Text for an error, shortened if it is long.
fn shown(given: &[u8]) -> String {
    let cut = &given[..given.len().min(SHOWN_BYTES)];
    format!("{}{}", cut.utf8_chunks().map(escaped).collect::<String>(), if cut.len() < given.len() { ".." } else { "" })
}

fn escaped(chunk: std::str::Utf8Chunk<'_>) -> String {
    format!("{}{}", chunk.valid(), chunk.invalid().escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_table_type_and_text() {
        let column = |codec: &str| Column { table: "born".into(), side: "value", item_type: Type::of(codec) };
        let text = |failure: Failure| (failure.exit.code(), failure.text.unwrap());
        assert_eq!(
            text(column("u8").stored(Field::Text(b"300")).unwrap_err()),
            (
                2,
                "table 'born' has values of type u8, and '300' is not one: expected a whole number from 0 to 255"
                    .into()
            )
        );
        assert_eq!(
            text(column("u8").stored(Field::Stored(b"\x01\xff")).unwrap_err()),
            (2, "table 'born' has values of type u8, and '\x01\\xff' is not one: 2 bytes where u8 has 1".into())
        );
        let (code, unknown) = text(column("acme.v1").stored(Field::Text(b"x")).unwrap_err());
        assert!(code == 2 && unknown.contains("'acme.v1'") && unknown.contains("--hex"), "{unknown}");
        assert_eq!(column("acme.v1").stored(Field::Stored(b"x")).unwrap(), &b"x"[..]);
        let (code, whole) = text(column("u64").show(b"x", &mut Vec::new()).unwrap_err());
        assert!(code == 3 && whole.contains("1 bytes") && whole.contains("'born'"), "{whole}");
        assert!(whole.contains("'kvctl put' replaces it"), "{whole}");
        let key = Column { side: "key", ..column("str") };
        let (_, whole) = text(key.show(b"\xff", &mut Vec::new()).unwrap_err());
        assert!(whole.contains("'kvctl del --hex' deletes it"), "{whole}");
    }

    #[test]
    fn long_texts_are_shortened_in_errors() {
        assert_eq!(shown(&[b'x'; 100]), format!("{}..", "x".repeat(60)));
    }
}
