//! JSON lines: `{"key": "..", "value": ".."}`, one row on each line, written and read.
//!
//! Bytes that are not UTF-8 stand as base64 in `"key_b64"` and `"value_b64"`; `"table"` names the table of the row.
//! Empty lines are skipped.
//!
//! Failure: what is not JSON, a field that is missing, double or unknown is a [`RowError::Malformed`] with the line's
//! number.
//!
//! Tests: random bytes both ways, each kind of malformed line, below.

use std::io::{self, BufRead};

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;

use crate::bytes::BASE64;
use crate::input::{Lines, Row, RowError};

/// Appends a whole row.
pub(crate) fn write_row(table: Option<&str>, key: &[u8], value: &[u8], line: &mut Vec<u8>) -> io::Result<()> {
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

fn write_field(name: &str, bytes: &[u8], line: &mut Vec<u8>) -> io::Result<()> {
    line.push(b'"');
    line.extend_from_slice(name.as_bytes());
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            line.extend_from_slice(b"\": ");
            serde_json::to_writer(line, text)?;
        }
        Err(_) => {
            line.extend_from_slice(b"_b64\": \"");
            line.extend(BASE64.encode(bytes).into_bytes());
            line.push(b'"');
        }
    }
    Ok(())
}

/// Bytes as a field of a JSON object: text where they are UTF-8, else base64 under the name with `_b64`.
pub(crate) fn named_bytes(name: &str, bytes: &[u8]) -> (String, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_string(), Value::from(text)),
        Err(_) => (format!("{name}_b64"), Value::from(BASE64.encode(bytes))),
    }
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    table: Option<String>,
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
}

/// Reads rows from a stream.
pub(crate) struct Reader<R> {
    lines: Lines<R>,
    table: Option<String>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R) -> Reader<R> {
        Reader { lines: Lines::new(input), table: None, key: Vec::new(), value: Vec::new() }
    }

    /// Goes to the next row; false at the end.
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

    /// The row that [`Reader::advance`] went to.
    pub(crate) fn row(&self) -> Row<'_> {
        Row { table: self.table.as_deref(), key: &self.key, value: &self.value }
    }

    /// The number of the current line, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.lines.number()
    }

    fn parse(&mut self) -> Result<(), String> {
        let record: Record = serde_json::from_slice(self.lines.line()).map_err(|error| json_error(&error))?;
        self.key = field("key", record.key, record.key_b64)?;
        self.value = field("value", record.value, record.value_b64)?;
        self.table = record.table;
        Ok(())
    }
}

fn field(name: &str, text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(digits)) => BASE64.decode(digits).map_err(|error| format!("\"{name}_b64\" is not base64: {error}")),
        (Some(_), Some(_)) => Err(format!("both \"{name}\" and \"{name}_b64\"")),
        (None, None) => Err(format!("neither \"{name}\" nor \"{name}_b64\"")),
    }
}

/// The parser counts lines within what it was given, which is always one.
fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (Option<String>, Vec<u8>, Vec<u8>);

    fn read(input: &[u8]) -> Result<Vec<Owned>, RowError> {
        let mut reader = Reader::new(std::io::BufReader::with_capacity(7, input));
        let mut rows = Vec::new();
        while reader.advance()? {
            let row = reader.row();
            rows.push((row.table.map(str::to_string), row.key.to_vec(), row.value.to_vec()));
        }
        Ok(rows)
    }

    fn written(rows: &[Owned]) -> Vec<u8> {
        let mut text = Vec::new();
        for (table, key, value) in rows {
            write_row(table.as_deref(), key, value, &mut text).unwrap();
        }
        text
    }

    #[test]
    fn rows_look_as_documented() {
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
    fn order_space_and_empty_lines_do_not_matter() {
        let rows = read(b"\n  \r\n { \"value\":\"v\" ,\"key_b64\":\"aw\"}\r\n\n").unwrap();
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
        fn what_is_written_reads_back(rows in prop::collection::vec((any::<Option<String>>(), bytes(), bytes()), 0..8)) {
            prop_assert_eq!(read(&written(&rows)).unwrap(), rows);
        }
    }
}
