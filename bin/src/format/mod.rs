//! Converts keys and values from text and to text: in arguments of the command line, and in the
//! rows that `load` reads and `dump` writes.
//!
//! ```text
//! input    chooses the format of an input and opens it
//! tsv      rows as TSV
//! jsonl    rows as JSON lines
//! batch    the operations of `txn`
//! rows     what both formats share: a row, a declared table, lines, errors of a line
//! columns  the keys and the values of a table: text to stored bytes and back
//! span     a range of keys
//! types    the text of each built-in codec
//! bytes    --hex, --base64, `-` and `@PATH`
//! files    opens input files and standard input
//! ```

pub(crate) mod batch;
pub(crate) mod bytes;
pub(crate) mod columns;
pub(crate) mod files;
pub(crate) mod input;
pub(crate) mod jsonl;
pub(crate) mod rows;
pub(crate) mod span;
pub(crate) mod tsv;
pub(crate) mod types;
