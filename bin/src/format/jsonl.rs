//! Writes and reads JSON lines: `{"key": "..", "value": ".."}`, one row a line.
//!
//! A key or value that has no text, or whose text is not UTF-8, is written as base64 in `"key_b64"`
//! or `"value_b64"`. `"table"` names the table of the row. A line with `"table"`,
//! `"key_codec"` and `"value_codec"` declares a table and its types. Empty lines are skipped.
//!
//! Failure: a line that is not JSON, or has a missing, repeated or unknown field, is a
//! [`RowError::Malformed`] with the line's number.
//!
//! Tests below: random bytes written and read, each kind of malformed line.

use std::io::{self, BufRead};

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;

use crate::format::bytes::{not_base64, BASE64};
use crate::format::columns::{Field, OwnedField};
use crate::format::rows::{Lines, Row, RowError, TableDeclaration};

/// Appends a row.
pub(crate) fn write_row(table: Option<&str>, key: Field<'_>, value: Field<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    line.push(b'{');
    if let Some(table) = table {
        line.extend_from_slice(b"\"table\": ");
        serde_json::to_writer(&mut *line, table)?;
        line.extend_from_slice(b", ");
    }
    write_field("key", key, line)?;
    line.extend_from_slice(b", ");
    write_field("value", value, line)?;
    line.extend_from_slice(b"}\n");
    Ok(())
}

/// Appends a line with only a key.
pub(crate) fn write_key(key: Field<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    line.push(b'{');
    write_field("key", key, line)?;
    line.extend_from_slice(b"}\n");
    Ok(())
}

/// Appends the declaration of a table.
pub(crate) fn write_declaration(declared: &TableDeclaration, line: &mut Vec<u8>) {
    let TableDeclaration { table, key, value, multimap, is_descending } = declared;
    let declared = [("table", table), ("key_codec", key), ("value_codec", value)];
    let mut fields = declared.map(|(name, text)| format!("\"{name}\": {}", Value::from(text.as_str()))).to_vec();
    fields.extend(multimap.map(|bytes| format!("\"multimap\": {bytes}")));
    fields.extend(is_descending.then(|| "\"descending\": true".to_string()));
    line.extend(format!("{{{}}}\n", fields.join(", ")).into_bytes());
}

fn write_field(name: &str, field: Field<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    line.push(b'"');
    line.extend_from_slice(name.as_bytes());
    let text = match field {
        Field::Text(text) => std::str::from_utf8(text).ok(),
        Field::Stored(_) => None,
    };
    match (text, field) {
        (Some(text), _) => {
            line.extend_from_slice(b"\": ");
            serde_json::to_writer(line, text)?;
        }
        (None, Field::Text(bytes) | Field::Stored(bytes)) => {
            line.extend_from_slice(b"_b64\": \"");
            line.extend(BASE64.encode(bytes).into_bytes());
            line.push(b'"');
        }
    }
    Ok(())
}

/// A field of a JSON object that holds bytes: text if they are UTF-8, else base64 under the name
/// with the suffix `_b64`.
pub(crate) fn named_bytes(name: &str, bytes: &[u8]) -> (String, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_string(), Value::from(text)),
        Err(_) => (format!("{name}_b64"), Value::from(BASE64.encode(bytes))),
    }
}

/// The fields that a line may have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    table: Option<String>,
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
    key_codec: Option<String>,
    value_codec: Option<String>,
    /// Of a multimap table, the bytes of each value, or 0 if values have any size.
    multimap: Option<usize>,
    /// Whether the keys of a table are in descending order.
    descending: Option<bool>,
}

/// Reads rows from a stream.
pub(crate) struct Reader<R> {
    lines: Lines<R>,
    table: Option<String>,
    key: OwnedField,
    value: OwnedField,
    declared: Option<TableDeclaration>,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R, line_limit: u64) -> Reader<R> {
        let lines = Lines::new(input, line_limit);
        Reader { lines, table: None, key: OwnedField::default(), value: OwnedField::default(), declared: None }
    }

    /// Moves to the next row or declaration; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, RowError> {
        loop {
            if !self.lines.advance()? {
                return Ok(false);
            }
            if !self.lines.line().trim_ascii().is_empty() {
                break;
            }
        }
        self.parse().map(|()| true).map_err(|what| self.lines.malformed(what))
    }

    /// The current row, to which [`Reader::advance`] moved.
    pub(crate) fn row(&self) -> Row<'_> {
        Row { table: self.table.as_deref(), key: self.key.borrowed(), value: self.value.borrowed() }
    }

    /// The current declaration, if [`Reader::advance`] moved to one.
    pub(crate) fn declared(&self) -> Option<&TableDeclaration> {
        self.declared.as_ref()
    }

    /// The number of the current line, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.lines.number()
    }

    fn parse(&mut self) -> Result<(), String> {
        let record: Record = serde_json::from_slice(self.lines.line()).map_err(|error| json_error(&error))?;
        if record.key_codec.is_some() || record.value_codec.is_some() {
            self.declared = Some(parse_declaration(record)?);
            return Ok(());
        }
        self.declared = None;
        self.key = field("key", record.key, record.key_b64)?;
        self.value = field("value", record.value, record.value_b64)?;
        self.table = record.table;
        Ok(())
    }
}

fn parse_declaration(record: Record) -> Result<TableDeclaration, String> {
    let Record { table: Some(table), key_codec: Some(key), value_codec: Some(value), .. } = record else {
        return Err("the declaration of a table needs \"table\", \"key_codec\" and \"value_codec\"".to_string());
    };
    if record.key.is_some() || record.key_b64.is_some() || record.value.is_some() || record.value_b64.is_some() {
        return Err("both the declaration of a table and a row".to_string());
    }
    let is_descending = record.descending.unwrap_or(false);
    if is_descending && record.multimap.is_some() {
        return Err("a multimap table has no descending keys".to_string());
    }
    Ok(TableDeclaration { table, key, value, multimap: record.multimap, is_descending })
}

fn field(name: &str, text: Option<String>, base64: Option<String>) -> Result<OwnedField, String> {
    match (text, base64) {
        (Some(text), None) => Ok(OwnedField { bytes: text.into_bytes(), is_stored: false }),
        (None, Some(digits)) => match BASE64.decode(digits) {
            Ok(bytes) => Ok(OwnedField { bytes, is_stored: true }),
            Err(error) => Err(format!("\"{name}_b64\" is not base64: {}", not_base64(&error))),
        },
        (Some(_), Some(_)) => Err(format!("both \"{name}\" and \"{name}_b64\"")),
        (None, None) => Err(format!("neither \"{name}\" nor \"{name}_b64\"")),
    }
}

/// Describes a JSON error without its line number: the parser sees one line only.
fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let is_bare = ["integer", "floating point", "number", "boolean"]
        .iter()
        .any(|bare| text.starts_with(&format!("invalid type: {bare} ")));
    let remedy = if is_bare { "; numbers, true and false are written in quotes, as in \"7\"" } else { "" };
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("not a row in JSON: {what} at column {}{remedy}", error.column()),
        None => format!("not a row in JSON: {text}{remedy}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (Option<String>, Vec<u8>, Vec<u8>);

    fn read(input: &[u8]) -> Result<Vec<Owned>, RowError> {
        let mut reader = Reader::new(std::io::BufReader::with_capacity(7, input), 1 << 20);
        let mut rows = Vec::new();
        while reader.advance()? {
            let row = reader.row();
            rows.push((row.table.map(str::to_string), plain(row.key), plain(row.value)));
        }
        Ok(rows)
    }

    fn plain(field: Field<'_>) -> Vec<u8> {
        match field {
            Field::Text(bytes) | Field::Stored(bytes) => bytes.to_vec(),
        }
    }

    fn written(rows: &[Owned]) -> Vec<u8> {
        let mut text = Vec::new();
        for (table, key, value) in rows {
            write_row(table.as_deref(), Field::Text(key), Field::Text(value), &mut text).unwrap();
        }
        text
    }

    #[test]
    fn rows_have_their_documented_form() {
        let rows = [
            (None, b"a\"\n".to_vec(), "\u{e4}".as_bytes().to_vec()),
            (Some("t 1".to_string()), b"\xff".to_vec(), b"\x80".to_vec()),
        ];
        let text = "{\"key\": \"a\\\"\\n\", \"value\": \"\u{e4}\"}\n\
                    {\"table\": \"t 1\", \"key_b64\": \"/w==\", \"value_b64\": \"gA==\"}\n";
        assert_eq!(String::from_utf8(written(&rows)).unwrap(), text);
        assert_eq!(read(text.as_bytes()).unwrap(), rows);
    }

    #[test]
    fn declarations_and_stored_bytes_read_back() {
        let mut text = Vec::new();
        let declared = TableDeclaration {
            table: "t \"".into(),
            key: "str".into(),
            value: "(u8,str)".into(),
            multimap: Some(8),
            is_descending: false,
        };
        write_declaration(&declared, &mut text);
        write_row(None, Field::Stored(b"k"), Field::Text(b"v"), &mut text).unwrap();
        let expected = "{\"table\": \"t \\\"\", \"key_codec\": \"str\", \"value_codec\": \"(u8,str)\", \
                        \"multimap\": 8}\n\
                        {\"key_b64\": \"aw==\", \"value\": \"v\"}\n";
        assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
        let mut reader = Reader::new(&text[..], 1 << 20);
        assert!(reader.advance().unwrap());
        assert_eq!(reader.declared(), Some(&declared));
        assert!(reader.advance().unwrap() && reader.declared().is_none());
        assert_eq!(reader.row(), Row { table: None, key: Field::Stored(b"k"), value: Field::Text(b"v") });
    }

    #[test]
    fn field_order_spaces_and_empty_lines_do_not_matter() {
        let rows = read(b"\xef\xbb\xbf\n  \r\n { \"value\":\"v\" ,\"key_b64\":\"aw\"}\r\n\n").unwrap();
        assert_eq!(rows, [(None, b"k".to_vec(), b"v".to_vec())]);
    }

    #[test]
    fn malformed_lines_name_their_number() {
        for (text, number, what) in [
            ("{\"key\": \"k\"}", 1, "neither \"value\" nor \"value_b64\""),
            ("\n{\"value\": \"v\"}", 2, "neither \"key\" nor \"key_b64\""),
            ("{\"key\": \"k\", \"key_b64\": \"aw==\", \"value\": \"\"}", 1, "both \"key\" and \"key_b64\""),
            ("{\"key\": \"k\", \"value_b64\": \"*\"}", 1, "\"value_b64\" is not base64"),
            ("{\"key\": \"k\", \"value\": \"v\", \"x\": 1}", 1, "unknown field `x`"),
            ("{\"key\": \"k\", \"key\": \"l\", \"value\": \"v\"}", 1, "duplicate field `key`"),
            ("{\"key\": 1, \"value\": \"v\"}", 1, "invalid type: integer `1`, expected a string at column 9"),
            ("{\"table\": \"t\", \"key_codec\": \"\"}", 1, "needs \"table\", \"key_codec\" and \"value_codec\""),
            (
                "{\"table\": \"t\", \"key_codec\": \"\", \"value_codec\": \"\", \"key\": \"\"}",
                1,
                "both the declaration of a table and a row",
            ),
            ("k\tv", 1, "expected value at column 1"),
            ("{\"key\": \"k\", \"value\": \"v\"} x", 1, "trailing characters"),
            ("{\"key\": \"\\ud800\", \"value\": \"v\"}", 1, "at column"),
        ] {
            match read(text.as_bytes()) {
                Err(RowError::Malformed { line, what: found }) => {
                    assert_eq!(line, number, "{text}");
                    assert!(found.contains(what) && !found.contains("line 1"), "{text}: {found}");
                }
                other => panic!("{text} gave {other:?}"),
            }
        }
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![prop::collection::vec(any::<u8>(), 0..20), any::<String>().prop_map(String::into_bytes)]
    }

    proptest! {
        #[test]
        fn written_rows_read_back(rows in prop::collection::vec((any::<Option<String>>(), bytes(), bytes()), 0..8)) {
            prop_assert_eq!(read(&written(&rows)).unwrap(), rows);
        }
    }
}
