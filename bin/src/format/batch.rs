//! Reads the batch of `txn`: one operation a line, as TSV with the escapes of `tsv`.
//!
//! ```text
//! put TAB KEY TAB VALUE     store a value
//! del TAB KEY               delete a key, if it exists, with all its values
//! del TAB KEY TAB VALUE     delete one value of a key of a multimap table
//! check TAB KEY TAB VALUE   the key has this value
//! check TAB KEY             the key does not exist
//! table TAB NAME            the lines after this one are about this table
//! ```
//!
//! Empty lines and lines that start with `#` are skipped. A field that starts with `\!` holds
//! stored bytes.
//!
//! Failure: a line of another form is a [`RowError::Malformed`] with its number.

use std::io::BufRead;

use crate::format::columns::{Field, OwnedField};
use crate::format::rows::{Lines, RowError};
use crate::format::tsv;

/// An operation, and the number of its line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) line: u64,
    pub(crate) operation: Operation,
}

/// The operation of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put { key: OwnedField, value: OwnedField },
    Del { key: OwnedField, value: Option<OwnedField> },
    Check { key: OwnedField, value: Option<OwnedField> },
    Table { name: String },
}

/// Reads all operations. A line has at most `line_limit` bytes.
pub(crate) fn read(input: impl BufRead, line_limit: u64) -> Result<Vec<Step>, RowError> {
    let mut lines = Lines::new(input, line_limit);
    let mut steps = Vec::new();
    while lines.advance()? {
        if matches!(lines.line(), [] | [b'#', ..]) {
            continue;
        }
        let fields = tsv::fields(lines.line_mut());
        match fields.and_then(|fields| parse(&fields)) {
            Ok(operation) => steps.push(Step { line: lines.number(), operation }),
            Err(what) => return Err(lines.malformed(what)),
        }
    }
    Ok(steps)
}

/// Parses the fields of a line.
fn parse(fields: &[Field<'_>]) -> Result<Operation, String> {
    let Some((Field::Text(verb), fields)) = fields.split_first() else {
        return Err(format!("no operation; {OPERATIONS}"));
    };
    let own = |field: &Field<'_>| OwnedField::from(*field);
    Ok(match (*verb, fields) {
        (b"put", [key, value]) => Operation::Put { key: own(key), value: own(value) },
        (b"del", [key]) => Operation::Del { key: own(key), value: None },
        (b"del", [key, value]) => Operation::Del { key: own(key), value: Some(own(value)) },
        (b"check", [key]) => Operation::Check { key: own(key), value: None },
        (b"check", [key, value]) => Operation::Check { key: own(key), value: Some(own(value)) },
        (b"table", [Field::Text(name)]) => {
            Operation::Table { name: String::from_utf8(name.to_vec()).map_err(|_| "a table name that is not UTF-8")? }
        }
        (b"put", _) => return Err(needs("put", "a key and a value", fields.len())),
        (b"del", _) => return Err(needs("del", "a key, or a key and a value", fields.len())),
        (b"check", _) => return Err(needs("check", "a key, or a key and a value", fields.len())),
        (b"table", _) => return Err(needs("table", "a name", fields.len())),
        (verb, _) => {
            let cut = &verb[..verb.len().min(20)];
            return Err(format!("'{}' is no operation; {OPERATIONS}", cut.escape_ascii()));
        }
    })
}

const OPERATIONS: &str = "a line is put, del, check or table, then its fields, each after a tab";

fn needs(verb: &str, what: &str, found: usize) -> String {
    let fields = if found == 1 { "field" } else { "fields" };
    let each = if what.contains(" and ") { ", each" } else { "" };
    format!("{verb} needs {what}{each} after a tab, and has {found} {fields}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &[u8]) -> OwnedField {
        OwnedField::from(Field::Text(text))
    }

    #[test]
    fn every_operation_is_read_with_its_line_and_its_escapes() {
        let input = b"# a batch\n\nput\tk\\t1\tv\\x00\r\ndel\t\\!\xff\ncheck\tk\t\ncheck\tk\ntable\tborn\ndel\tk\tv\n";
        let steps = read(&input[..], 100).unwrap();
        let expected = [
            (3, Operation::Put { key: text(b"k\t1"), value: text(b"v\0") }),
            (4, Operation::Del { key: OwnedField::from(Field::Stored(b"\xff")), value: None }),
            (5, Operation::Check { key: text(b"k"), value: Some(text(b"")) }),
            (6, Operation::Check { key: text(b"k"), value: None }),
            (7, Operation::Table { name: "born".into() }),
            (8, Operation::Del { key: text(b"k"), value: Some(text(b"v")) }),
        ];
        assert_eq!(steps, expected.map(|(line, operation)| Step { line, operation }));
    }

    #[test]
    fn lines_of_another_form_are_malformed() {
        for (line, what) in [
            ("put\tk", "put needs a key and a value, each after a tab, and has 1 field"),
            ("put k v", "'put k v' is no operation; a line is put"),
            ("put\tk\tv\tw", "has 3 fields"),
            ("del", "del needs a key, or a key and a value, each after a tab, and has 0 fields"),
            ("check", "check needs a key, or a key and a value"),
            ("table\ta\tb", "table needs a name"),
            ("\tk", "'' is no operation"),
            ("\\!put\tk\tv", "no operation"),
            ("del\t\\q", "bad escape '\\q'"),
        ] {
            match read(format!("del\tx\n{line}\n").as_bytes(), 100) {
                Err(RowError::Malformed { line: 2, what: found }) => assert!(found.contains(what), "{line}: {found}"),
                other => panic!("{line} gave {other:?}"),
            }
        }
    }
}
