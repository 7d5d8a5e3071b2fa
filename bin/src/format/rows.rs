//! Parts that both row formats share: a row, the declaration of a table, lines of a stream, errors
//! of a line.

use std::io::{self, BufRead, Read};

use mapleaf::{KeyOrder, TableInfo};

use crate::exit::{Exit, Failure};
use crate::format::columns::Field;

/// The byte order mark, which some programs write before UTF-8 text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One row of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row<'a> {
    /// The table, if the row names one.
    pub(crate) table: Option<&'a str>,
    pub(crate) key: Field<'a>,
    pub(crate) value: Field<'a>,
}

/// A table that the input declares with its types. The rows after it go into this table unless they
/// name another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableDeclaration {
    pub(crate) table: String,
    /// The codec of the keys; empty for none.
    pub(crate) key: String,
    /// The codec of the values; empty for none.
    pub(crate) value: String,
    /// Of a multimap table, the bytes of each value, or 0 if values have any size.
    pub(crate) multimap: Option<usize>,
    /// Whether the keys are in descending order.
    pub(crate) is_descending: bool,
}

impl TableDeclaration {
    /// The declaration of a table of a database.
    pub(crate) fn of(table: &TableInfo) -> TableDeclaration {
        TableDeclaration {
            table: table.name.clone(),
            key: table.key_codec.clone(),
            value: table.value_codec.clone(),
            multimap: table.is_multimap.then(|| table.value_bytes.unwrap_or(0)),
            is_descending: table.key_order == KeyOrder::Descending,
        }
    }
}

/// Why the next row cannot be read.
#[derive(Debug)]
pub(crate) enum RowError {
    /// A line that is neither a row nor a declaration.
    Malformed { line: u64, what: String },
    /// The input could not be read.
    Read(io::Error),
}

impl RowError {
    /// The failure, with the name of the input.
    pub(crate) fn of_input(self, name: &str) -> Failure {
        match self {
            RowError::Malformed { line, what } => {
                Failure::new(Exit::Input, format!("{name}: line {line}: {what}; correct the line and load again"))
            }
            RowError::Read(error) => Failure::reading(name, &error),
        }
    }
}

/// Reads lines from a stream, one at a time, into one buffer. A line over the limit is an error and
/// is not read to its end: an input without line ends would fill the memory. A byte order mark
/// before the first line is skipped.
pub(crate) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    limit: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads lines of at most `limit` bytes, not counting their ends.
    pub(crate) fn new(input: R, limit: u64) -> Lines<R> {
        Lines { input, line: Vec::new(), number: 0, limit }
    }

    /// Reads the next line; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, RowError> {
        self.line.clear();
        // One byte more than the limit, for the line feed after the longest allowed line.
        let mut input = self.input.by_ref().take(self.limit.saturating_add(1));
        if input.read_until(b'\n', &mut self.line).map_err(RowError::Read)? == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.line.last() != Some(&b'\n') && self.line.len() as u64 > self.limit {
            let limit = self.limit;
            return Err(
                self.malformed(format!("the line has more than {limit} bytes; if that is right, raise --max-line"))
            );
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
        }
        Ok(true)
    }

    /// The current line without its end.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// The current line without its end, to undo escapes in place.
    pub(crate) fn line_mut(&mut self) -> &mut [u8] {
        &mut self.line
    }

    /// The number of the current line, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// An error of the current line.
    pub(crate) fn malformed(&self, what: impl Into<String>) -> RowError {
        RowError::Malformed { line: self.number, what: what.into() }
    }
}
